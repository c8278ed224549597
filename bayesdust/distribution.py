"""Phase-space densities f(x, v) of stars in equilibrium in a spherical halo, by exact inversion.

Three families are one. With Psi = -Phi and g the integrating factor of the anisotropy
(d ln g/d ln r = 2 beta_ani),

    isotropic         f = F(Q), Q = Psi - v^2/2                       beta_0 = 0, g = 1
    Osipkov-Merritt   f = F(Q), Q = Psi - v^2/2 - L^2/(2 r_a^2)       beta_0 = 0, g = 1 + r^2/r_a^2
    constant beta_0   f = L^(-2 beta_0) F(Q), Q = Psi - v^2/2         g = r^(2 beta_0)

(Eddington 1916; Osipkov 1979; Merritt 1985; Cuddeford 1991) obey one Abel equation,

    nu g (Psi) = C int_0^Psi (Psi - Q)^(1/2 - beta_0) F(Q) dQ,                                  (1)
    C = 2^(3/2 - beta_0) pi^(3/2) Gamma(1 - beta_0) / Gamma(3/2 - beta_0),

solved, with m the smallest integer >= 2 - beta_0 and p = m - 5/2 + beta_0 in [-1/2, 1/2), by

    F(Q) = int_0^Q (Q - Psi)^p d^m(nu g)/dPsi^m dPsi / (C Gamma(3/2 - beta_0) Gamma(p + 1)).     (2)

m = 2, p = -1/2 is Eddington's formula. Energies are labelled by the radius q at which Psi(q) = Q,
so that all integrals run over z = ln(r/q) > 0; derivatives with respect to Psi come from exact
derivatives (autodiff) of ln nu and rho with respect to ln r; and Psi(q) - Psi(r) is an integral of
G M/r, not a difference of potentials, so that no digit is lost in a cusp or a core.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.interpolate import BSpline, make_interp_spline

from bayesdust import quadrature
from bayesdust.anisotropy import Anisotropy, Constant, Isotropic, OsipkovMerritt
from bayesdust.errors import BayesdustError
from bayesdust.potentials.base import SphericalHalo
from bayesdust.tracers import Tracer
from bayesdust.units import G
from bayesdust.well import STEP, Floats, Well, cumulative, tabulate

TAIL = 1e-11  # fraction of the stars ignored at either end of the radii
_ENERGY_STEP = 0.05  # of the table of F in ln q
_BELOW, _ABOVE = 25.0, 100.0  # the tables reach this far in ln r from the bulk of the stars
_REACH = 48.0  # the integrals (1) and (2) stop at z = _REACH
_UNDERFLOW = 650.0  # the k-th derivative of ln nu is wrong where nu^(k + 1) < exp(-650) or so
_ROUND_OFF = 1e-8  # F this small beside the integral of absolute values is zero
_HARMLESS = 1e-8  # fraction of the stars that may sit where F is negative (and is set to zero)
_RECOVERY = 1e-3  # largest relative error allowed in nu recovered from F (1e-9 where smooth)

_Z, _Z_WEIGHTS = quadrature.half_line(step=0.12, low=-3.9, high=_REACH)


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
    """f(x, v) of one star in equilibrium, normalised to one; made by `solve`.

    `ln_F` is ln F against ln q on [`stars[0]`, `last`]; `stars` is the range of ln r [ln kpc] with
    all but TAIL of the stars at either end.
    """

    anisotropy: Anisotropy
    beta_0: float
    well: Well
    ln_r: Floats  # table of the tracer
    ln_nu: Floats  # its density there [1/kpc3]
    stars: tuple[float, float]
    last: float
    ln_F: BSpline

    def F(self, Q: Floats) -> Floats:
        """F of equation (1) at Q [(km/s)^2], any shape; zero for Q <= 0.

        F times L^(-2 beta_0), L in kpc km/s, is a density in phase space [1/(kpc km/s)^3].
        """
        Q = np.asarray(Q, dtype=float)
        ln_q = self.well.label(np.where(Q > 0, Q, 1.0))
        return np.where((Q > 0) & (ln_q <= self.last), np.exp(self.ln_F(ln_q)), 0.0)

    def speed_weight(self, ln_r: Floats, z: Floats) -> Floats:
        """Density of z = ln(q/r) of the stars at r, unnormalised: the integrand of (1)."""
        ln_q = ln_r + z
        known = ln_q <= self.last
        ln_q = np.minimum(ln_q, self.last)
        depth = self.well.depth(ln_r, z)
        weight = depth ** (0.5 - self.beta_0) * np.exp(self.ln_F(ln_q)) * self.well.force(ln_q)
        return np.where(known, weight, 0.0)

    def density(self, r: Floats) -> Floats:
        """nu(r) [1/kpc3], r (n,) kpc, recovered from F by equation (1)."""
        ln_r = np.log(np.asarray(r, dtype=float))[:, None]
        augmented = self.speed_weight(ln_r, _Z[None, :]) @ _Z_WEIGHTS
        log_g = np.asarray(self.anisotropy.log_g(np.asarray(r)))
        return _abel_constant(self.beta_0) * augmented * np.exp(-log_g)


def solve(halo: SphericalHalo, tracer: Tracer, anisotropy: Anisotropy) -> Distribution:
    """The distribution function of `tracer` stars in `halo` with `anisotropy`.

    Takes Isotropic, OsipkovMerritt and Constant anisotropy. Raises BayesdustError where no
    non-negative f exists, or where the tables do not reproduce the tracer's density to 1e-3.
    """
    beta_0 = _central_beta(anisotropy)
    order = math.ceil(2 - beta_0 - 1e-12)
    names = " + ".join(_name(part) for part in (halo, tracer, anisotropy))

    def ln_nu(x: Array) -> Array:
        return jnp.log(tracer.density(jnp.exp(x)))

    def shell(x: Array) -> Array:
        return 4 * jnp.pi * G * jnp.exp(2 * x) * halo.density(jnp.exp(x))

    def log_g(x: Array) -> Array:
        return jnp.asarray(anisotropy.log_g(jnp.exp(x)))

    x = _grid(ln_nu)
    well, bend = tabulate(x, _taylor(shell, x, order - 1), names)
    light, factor = _taylor(ln_nu, x, order), _taylor(log_g, x, order)
    size = _finite_size(light, names)
    x, light, factor, bend = x[:size], light[:, :size], factor[:, :size], bend[:, :size]
    # the integrals run to where nu is gone, F is wanted to nearly there, stars are sought before
    limit, last = (float(x[light[0] > part * light[0, -1]][-1]) for part in (0.5, 0.7))
    stars, total = _star_range(x, light, limit, names)
    light[0] -= math.log(total)
    last = min(last, stars[1] + 25.0)
    q = np.arange(stars[0], last, _ENERGY_STEP)
    F, scale = _invert(q, x, light + factor, bend, well, beta_0)
    ln_F = make_interp_spline(q, np.log(np.maximum(F, 1e-3 * _ROUND_OFF * scale)), k=5)
    made = Distribution(anisotropy, beta_0, well, x, light[0], stars, float(q[-1]), ln_F)
    _refuse_negative(made, q, F, scale, names)
    _refuse_inaccurate(made, names)
    return made


def _central_beta(anisotropy: Anisotropy) -> float:
    if isinstance(anisotropy, Isotropic):
        return 0.0
    if isinstance(anisotropy, OsipkovMerritt):
        if not np.asarray(anisotropy.r_a).item() > 0:
            raise BayesdustError(f"r_a is {anisotropy.r_a} kpc: give a positive anisotropy radius")
        return 0.0
    if isinstance(anisotropy, Constant):
        beta_0 = np.asarray(anisotropy.beta_0).item()
        if not -5.0 <= beta_0 < 1.0:
            raise BayesdustError(f"beta_0 is {beta_0}: constant anisotropy runs from -5 to below 1")
        return float(beta_0)
    raise BayesdustError(
        f"no exact f(x, v) is known here for {type(anisotropy).__name__}: "
        "use Isotropic, Constant or OsipkovMerritt"
    )


def _name(part: object) -> str:
    values = [(f.name, getattr(part, f.name)) for f in dataclasses.fields(part)]  # type: ignore[arg-type]
    shown = (f"{k}={v if isinstance(v, SphericalHalo) else np.asarray(v)}" for k, v in values)
    return f"{type(part).__name__}({', '.join(shown)})"


def _taylor(f: Callable[[Array], Array], x: Floats, order: int) -> Floats:
    """Taylor coefficients f^(k)/k!, k = 0..order, at x (n,): shape (order + 1, n)."""

    def with_next(g: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def both(y: Array) -> Array:
            value, slope = jax.jvp(g, (y,), (jnp.ones_like(y),))
            return jnp.concatenate([value, slope[-1:]])

        return both

    tower: Callable[[Array], Array] = lambda y: f(y)[None]  # noqa: E731
    for _ in range(order):
        tower = with_next(tower)
    # the parameters are compiled in as constants, which XLA compiles four times faster
    derivatives = np.array(jax.jit(tower)(jnp.asarray(x)))
    factorials = np.cumprod(np.maximum(np.arange(order + 1.0), 1.0))
    return derivatives / factorials[:, None]


def _grid(ln_nu: Callable[[Array], Array]) -> Floats:
    """Table in ln r around the radius where most stars are."""
    coarse = np.linspace(-40.0, 40.0, 801)
    light = np.asarray(jax.jit(ln_nu)(jnp.asarray(coarse))) + 3 * coarse
    centre = coarse[np.nanargmax(np.where(np.isfinite(light), light, -np.inf))]
    return centre + np.arange(-_BELOW, _ABOVE, STEP)


def _finite_size(light: Floats, names: str) -> int:
    """Number of rows of the table before the tracer's density underflows."""
    floor = -_UNDERFLOW / len(light)
    good = np.isfinite(light).all(axis=0) & (light[0] > floor)
    size = len(good) if good.all() else int(np.argmin(good))
    if size * STEP < _BELOW:
        raise BayesdustError(
            f"{names}: the tracer's density is not positive and smooth at all radii"
        )
    return size


def _star_range(
    x: Floats, light: Floats, limit: float, names: str
) -> tuple[tuple[float, float], float]:
    """Range of ln r, to `limit`, with all but TAIL of the stars at either end; integral of nu."""
    shells = 4 * np.pi * np.exp(light[0] + 3 * x)
    inside, outside = cumulative(shells), cumulative(shells[::-1])[::-1]
    total = float(inside[-1])
    low, high = x[inside > TAIL * total][0], x[outside > TAIL * total][-1]
    if not np.interp(limit, x, outside) < 1e-4 * total:
        raise BayesdustError(f"{names}: too many stars lie at infinity: use a steeper tracer")
    return (float(low), float(min(high, limit))), total


def _abel_constant(beta_0: float) -> float:
    """C of equation (1)."""
    return (2 * np.pi) ** 1.5 * 2**-beta_0 * math.gamma(1 - beta_0) / math.gamma(1.5 - beta_0)


def _invert(
    q: Floats, x: Floats, ln_light: Floats, bend: Floats, well: Well, beta_0: float
) -> tuple[Floats, Floats]:
    """F at ln q (n,) by equation (2), and the same integral of absolute values.

    `ln_light` and `bend` are Taylor coefficients in ln r, on the table `x`, of ln(nu g) and of the
    force V over itself; d/dPsi = -(1/V) d/dln r is applied to them as power series.
    """
    order = len(ln_light) - 1
    power = order - 2.5 + beta_0
    series = _exponential(ln_light)
    for _ in range(order):
        slope = series[1:] * np.arange(1, len(series))[:, None]
        series = -_quotient(slope, bend)
    ln_scale = make_interp_spline(x, ln_light[0] + (1 - order) * np.log(well.force(x)), k=5)
    shape = make_interp_spline(x, series[0], k=5)
    z, ln_q = _Z[None, :], q[:, None]
    ln_r = np.minimum(ln_q + z, x[-1])
    weight = np.where(ln_q + z <= x[-1], _Z_WEIGHTS, 0.0) * well.depth(ln_q, z) ** power
    terms = weight * np.exp(ln_scale(ln_r)) * shape(ln_r)
    norm = _abel_constant(beta_0) * math.gamma(1.5 - beta_0) * math.gamma(power + 1)
    return terms.sum(axis=1) / norm, np.abs(terms).sum(axis=1) / norm


def _exponential(series: Floats) -> Floats:
    """Taylor coefficients of exp(f - f(0)) from those of f, (k, n)."""
    result = [np.ones_like(series[0])]
    for k in range(1, len(series)):
        result.append(sum(j * series[j] * result[k - j] for j in range(1, k + 1)) / k)
    return np.array(result)


def _quotient(above: Floats, below: Floats) -> Floats:
    """Taylor coefficients of a ratio, `below` starting with one."""
    result: list[Floats] = []
    for k, row in enumerate(above):
        result.append(row - sum(below[j] * result[k - j] for j in range(1, k + 1)))
    return np.array(result)


def _refuse_negative(made: Distribution, q: Floats, F: Floats, scale: Floats, names: str) -> None:
    """Stop unless F >= 0, but for round-off and for what fewer than _HARMLESS of the stars feel.

    The stars with label q are C V F int 4 pi r^3/g (Psi - Q)^(1/2 - beta_0) dln r per unit of ln q.
    """
    bad = np.flatnonzero(F < -_ROUND_OFF * scale)
    ln_r = np.maximum(q[bad, None] - _Z[None, :], made.well.ln_r[0])
    volume = 4 * np.pi * np.exp(3 * ln_r - np.asarray(made.anisotropy.log_g(np.exp(ln_r))))
    depth = made.well.depth(ln_r, _Z[None, :])
    states = (volume * depth ** (0.5 - made.beta_0)) @ _Z_WEIGHTS * made.well.force(q[bad])
    stars = -_abel_constant(made.beta_0) * _ENERGY_STEP * F[bad] * states
    if stars.sum() < _HARMLESS:
        return
    worst = q[bad[np.argmax(stars)]]
    raise BayesdustError(
        f"{names} has no f(x, v) >= 0: f would be negative around the energy "
        f"{-float(made.well.psi(worst)):.6g} (km/s)^2, the potential at r = {np.exp(worst):.3g} "
        f"kpc, for {stars.sum():.1g} of the stars, so use a more cuspy tracer, a less cuspy halo "
        "or less radial orbits (a constant beta_0 is at most half the tracer's inner slope)"
    )


def _refuse_inaccurate(made: Distribution, names: str) -> None:
    """Compare nu recovered from F with the tracer's own where all but 2e-6 of the stars are."""
    shells = np.exp(made.ln_nu + 3 * made.ln_r)
    inside = np.cumsum(shells) / shells.sum()
    rows = np.flatnonzero((inside > 1e-6) & (inside < 1 - 1e-6) & (made.ln_r < made.stars[1]))
    rows = rows[:: max(1, len(rows) // 60)]
    recovered = made.density(np.exp(made.ln_r[rows]))
    error = np.max(np.abs(recovered * np.exp(-made.ln_nu[rows]) - 1))
    if not error < _RECOVERY:
        raise BayesdustError(
            f"{names}: f(x, v) gives the tracer's density back only to {error:.1e}, so its "
            "profiles are not smooth enough, or too extreme, for the inversion: change them"
        )
