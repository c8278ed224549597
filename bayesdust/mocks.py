"""Mock galaxies: stars drawn independently from an exact f(x, v), and seen along a line of sight.

Radii follow from the tracer's enclosed fraction. At a radius r the stars' energies are labelled
by q >= r (see `distribution`), and z = ln(q/r) is drawn from its exact distribution there; then
u = sqrt(2 (Psi(r) - Psi(q))) is the speed, with the tangential part of Osipkov-Merritt orbits
stretched by sqrt(1 + r^2/r_a^2), and the angle to the radial direction has the density
sin^(1 - 2 beta_0). Both quantile functions are smooth when logits of probabilities are set against
logarithms of radii, and are tabulated so; stars then cost one look-up each.
"""

import dataclasses
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.ndimage import map_coordinates, spline_filter

from bayesdust.anisotropy import Anisotropy, Isotropic, OsipkovMerritt
from bayesdust.distribution import Distribution, solve
from bayesdust.errors import BayesdustError
from bayesdust.potentials.base import SphericalHalo
from bayesdust.potentials.halos import Zhao
from bayesdust.tracers import Tracer, ZhaoTracer
from bayesdust.units import DEG, MAS_YR_KPC_KMS
from bayesdust.well import cumulative

if TYPE_CHECKING:
    from astropy.table import Table

Floats = NDArray[np.float64]

_STEP_R, _STEP_Y, _STEP_LOGIT = 0.1, 0.08, 0.125  # of the table of z
_STEPS_W = 800  # places along a line of sight, of which the quantiles are interpolated
_CHUNK = 2048  # stars whose lines of sight are looked at together
_LOGIT = 21.0  # quantiles beyond 1e-9 from either end are moved there


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """Stars about a centre at rest: positions `x` (n, 3) [kpc], velocities `v` (n, 3) [km/s]."""

    x: Floats
    v: Floats


class Recipe(NamedTuple):
    """What a mock galaxy is made of."""

    halo: SphericalHalo
    tracer: Tracer
    anisotropy: Anisotropy


# The isotropic cusp of the Gaia Challenge's spherical tests.
BENCHMARK = Recipe(
    halo=Zhao(6.4e7, 1.0, 1.0, 3.0, 1.0),
    tracer=ZhaoTracer(0.25, 2.0, 5.0, 1.0),
    anisotropy=Isotropic(),
)


def benchmark(n: int = 1000, seed: int = 0) -> Phase:
    """`n` stars of `BENCHMARK`: isotropic, Zhao (2,5,1), 0.25 kpc, in a (1,3,1) halo of 1 kpc."""
    return draw(n, *BENCHMARK, seed=seed)


def draw(
    n: int, halo: SphericalHalo, tracer: Tracer, anisotropy: Anisotropy, seed: int = 0
) -> Phase:
    """`n` independent stars of `tracer` in equilibrium in `halo`.

    Isotropic, OsipkovMerritt and Constant anisotropy. Raises BayesdustError where no such galaxy
    exists (f < 0 somewhere). The same arguments give the same stars.
    """
    return draw_from(solve(halo, tracer, anisotropy), n, seed)


def draw_from(distribution: Distribution, n: int, seed: int = 0) -> Phase:
    """`n` independent stars from a `distribution.solve`d galaxy: `draw` without the inversion."""
    if n < 1:
        raise BayesdustError(f"{n} stars were asked for: ask for at least one")
    rng = generator(seed, "mocks.draw")
    ln_r = _radii(distribution, rng.random(n))
    v_r, v_t = _velocities(distribution, ln_r, rng)
    return _turned(np.exp(ln_r), v_r, v_t, rng)


def draw_at(distribution: Distribution, R: ArrayLike, seed: int = 0) -> Floats:
    """Line-of-sight velocities (n,) [km/s] of independent stars seen at the projected radii R (n,) [kpc].

    Drawn from p(v_los | R) of f(x, v), whatever put the stars there.
    """
    return velocities_at(distribution, R, seed)[:, 0]


def velocities_at(distribution: Distribution, R: ArrayLike, seed: int = 0) -> Floats:
    """Velocities (n, 3) [km/s] of independent stars seen at R (n,) [kpc], the first those of `draw_at`.

    Along the line of sight, then on the sky away from the galaxy's centre and across.
    """
    R = np.asarray(R, dtype=float)
    rng = generator(seed, "mocks.draw_at")
    parts = [slice(first, first + _CHUNK) for first in range(0, len(R), _CHUNK)]
    p = rng.random(len(R))
    w = np.concatenate([_along_line(distribution, R[part], p[part]) for part in parts])
    r = R * np.cosh(w)
    v_r, v_t = _velocities(distribution, np.log(r), rng)
    sin = R / r
    cos = np.sqrt(1 - sin**2)
    turn = rng.uniform(0, 2 * np.pi, len(R))
    polar = v_t * np.cos(turn)
    # behind the centre as often as in front of it: there the same v_los goes with -v_outward
    outward = rng.choice([-1.0, 1.0], len(R)) * (v_r * sin - polar * cos)
    return np.stack([v_r * cos + polar * sin, outward, v_t * np.sin(turn)], axis=1)


def _along_line(distribution: Distribution, R: Floats, p: Floats) -> Floats:
    """w (n,), r = R cosh w, at the quantiles p (n,) of the stars in front of or behind R (n,)."""
    end = np.arccosh(np.maximum(np.exp(distribution.stars[1]) / R, 2.0))
    w = np.linspace(0.0, 1.0, _STEPS_W) * end[:, None]
    ln_r = np.log(R)[:, None] + np.log(np.cosh(w))
    ln_nu = np.interp(ln_r, distribution.ln_r, distribution.ln_nu)
    inside = np.cumsum(np.exp(ln_nu + ln_r), axis=1)
    inside = np.insert(inside[:, 1:] + inside[:, :-1], 0, 2 * inside[:, 0], axis=1) - inside[:, :1]
    return np.array(
        [np.interp(q * row[-1], row, x) for q, row, x in zip(p, inside, w, strict=True)]
    )


def _velocities(
    distribution: Distribution, ln_r: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """v_r and v_t >= 0 [km/s] (n,) of stars at ln_r (n,)."""
    n = len(ln_r)
    u = _speeds(distribution, ln_r, rng.random(n))
    # sin^2 of the angle to the radial direction, whose density is sin^(1 - 2 beta_0)
    sin2 = rng.beta(1 - distribution.beta_0, 0.5, n)
    v_r = u * np.sqrt(1 - sin2) * rng.choice([-1.0, 1.0], n)
    v_t = u * np.sqrt(sin2)
    if isinstance(distribution.anisotropy, OsipkovMerritt):
        v_t = v_t / np.hypot(1.0, np.exp(ln_r) / np.asarray(distribution.anisotropy.r_a))
    return v_r, v_t


def observe(
    phase: Phase,
    distance: float,
    v_sys: float = 0.0,
    v_err: ArrayLike = 2.0,
    seed: int = 0,
    ra: float | None = None,
    dec: float | None = None,
    pm_err: ArrayLike | None = None,
    motion: tuple[float, float] = (0.0, 0.0),
) -> "Table":
    """The stars as a table that `catalogs.dwarf.read_stars` reads, seen along z (away from us).

    Columns x, y [kpc] (east, north), or ra, dec [deg] when the centre `ra`, `dec` [deg] is given (x
    and y over `distance` [kpc] are then tangent-plane coordinates: no perspective); v_los = v_z +
    `v_sys` + Gaussian noise of `v_err` (one number or one a star; 0: noise-free), v_los_err =
    `v_err` [km/s]. With `pm_err` [mas/yr], one number or one a star, also pmra, pmdec, pmra_err, pmdec_err
    [mas/yr]: v_x and v_y over the distance, the bulk `motion`, and noise. All to nine decimals.
    """
    from astropy.table import Table

    n = len(phase.x)
    error = np.array(np.broadcast_to(np.asarray(v_err, dtype=float), n))
    if not (distance > 0 and np.isfinite(error).all() and (error >= 0).all()):
        raise BayesdustError(
            f"give a positive distance (not {distance} kpc) and finite errors v_err >= 0"
        )
    if (ra is None) != (dec is None):
        raise BayesdustError(
            "one of ra, dec is missing: give both coordinates of the centre or none"
        )
    noise = generator(seed, "mocks.observe").standard_normal(n)
    x, y = phase.x[:, 0], phase.x[:, 1]
    if ra is None or dec is None:
        columns, unit = {"x": x, "y": y}, "kpc"
    else:
        columns = dict(zip(("ra", "dec"), _sky(x / distance, y / distance, ra, dec), strict=True))
        unit = "deg"
    units = dict.fromkeys(columns, unit) | {"v_los": "km/s", "v_los_err": "km/s"}
    columns |= {"v_los": phase.v[:, 2] + v_sys + error * noise, "v_los_err": error}
    if pm_err is not None:
        moved = _proper_motions(phase.v, distance, np.asarray(pm_err, dtype=float), motion, seed)
        columns |= moved
        units |= dict.fromkeys(moved, "mas/yr")
    # processors differ in the last bit, and the same stars ought to have the same hash everywhere
    columns = {name: np.round(values, 9) for name, values in columns.items()}
    return Table(columns, units=units, meta={"distance_kpc": distance, "v_sys_kms": v_sys})


def _proper_motions(
    v: Floats, distance: float, error: Floats, motion: tuple[float, float], seed: int
) -> dict[str, Floats]:
    """Columns [mas/yr] of the motions across the line of sight, with noise."""
    noise = error * generator(seed, "mocks.observe.pm").standard_normal((2, len(v)))
    columns: dict[str, Floats] = {}
    for i, name in enumerate(("pmra", "pmdec")):
        columns[name] = v[:, i] / (MAS_YR_KPC_KMS * distance) + motion[i] + noise[i]
        columns[f"{name}_err"] = np.array(np.broadcast_to(error, len(v)))
    return columns


def generator(seed: int, stage: str) -> np.random.Generator:
    """A stream of its own for each stage, so that stages with one seed are independent."""
    return np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=(zlib.crc32(stage.encode()),))
    )


def _logit(p: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(p) - np.log1p(-p)


def _quantiles(
    inside: Floats, outside: Floats, density: Floats, values: Floats
) -> CubicHermiteSpline:
    """Inverse of a cumulative distribution, as `values` against its logit ln(inside/outside).

    `density` is d inside/d values; the logit's slope density (1/inside + 1/outside) is exact.
    """
    logit = np.log(inside) - np.log(outside)
    keep = np.abs(logit) < 1.5 * _LOGIT
    slope = density * (1 / inside + 1 / outside)
    return CubicHermiteSpline(logit[keep], values[keep], 1 / slope[keep])


def _radii(distribution: Distribution, p: Floats) -> Floats:
    """ln r [ln kpc] (n,) with enclosed fraction p (n,)."""
    ln_r = distribution.ln_r
    shells = 4 * np.pi * np.exp(distribution.ln_nu + 3 * ln_r)
    inside, outside = cumulative(shells), cumulative(shells[::-1])[::-1]
    quantiles = _quantiles(inside, outside, shells, ln_r)
    return np.clip(quantiles(np.clip(_logit(p), -_LOGIT, _LOGIT)), *distribution.stars)


def _speeds(distribution: Distribution, ln_r: Floats, p: Floats) -> Floats:
    """Speeds u [km/s] (n,) of stars at ln_r (n,), p (n,) the quantile of z = ln(q/r) there."""
    low, high = distribution.stars
    rows = np.arange(low, high + _STEP_R, _STEP_R)
    logits = np.arange(-_LOGIT, _LOGIT + _STEP_LOGIT / 2, _STEP_LOGIT)
    table = _label_table(distribution, rows, logits)
    s = np.clip(_logit(p), -_LOGIT, _LOGIT)
    where = np.stack([(ln_r - rows[0]) / _STEP_R, (s - logits[0]) / _STEP_LOGIT])
    y = map_coordinates(
        spline_filter(table, 5, mode="nearest"), where, order=5, prefilter=False, mode="nearest"
    )
    return np.sqrt(2 * distribution.well.depth(ln_r, np.logaddexp(0.0, y)))


def _label_table(distribution: Distribution, ln_r: Floats, logits: Floats) -> Floats:
    """Quantiles (n_r, n_logit) of y, z = ln(1 + e^y), at every radius.

    The density of y is exponential at both ends, so that y is smooth, nearly linear, in the logit.
    """
    power = 1.5 - distribution.beta_0  # the density of y rises as e^(power y)
    y = np.arange(-1.3 * _LOGIT / power - 2.0, distribution.last - ln_r[0], _STEP_Y)
    z = np.logaddexp(0.0, y)
    density = distribution.speed_weight(ln_r[:, None], z[None, :]) * np.exp(y - z)
    table = np.empty((len(ln_r), len(logits)))
    for i, row in enumerate(density):
        size = np.count_nonzero(row > 0)
        inside = cumulative(row[:size], _STEP_Y)
        outside = cumulative(row[:size][::-1], _STEP_Y)[::-1]
        total = inside[-1]
        table[i] = _quantiles(inside / total, outside / total, row[:size] / total, y[:size])(logits)
    return table


def _turned(r: Floats, v_r: Floats, v_t: Floats, rng: np.random.Generator) -> Phase:
    """Stars at radii r with radial and tangential velocities, in random directions."""
    cos, phi, chi = rng.uniform(-1, 1, len(r)), *rng.uniform(0, 2 * np.pi, (2, len(r)))
    sin = np.sqrt(1 - cos**2)
    outward = np.stack([sin * np.cos(phi), sin * np.sin(phi), cos], axis=-1)
    south = np.stack([cos * np.cos(phi), cos * np.sin(phi), -sin], axis=-1)
    east = np.stack([-np.sin(phi), np.cos(phi), np.zeros_like(phi)], axis=-1)
    sideways = np.cos(chi)[:, None] * south + np.sin(chi)[:, None] * east
    return Phase(r[:, None] * outward, v_r[:, None] * outward + v_t[:, None] * sideways)


def _sky(xi: Floats, eta: Floats, ra: float, dec: float) -> tuple[Floats, Floats]:
    """ra, dec [deg] at tangent-plane offsets xi (east), eta (north) [rad] from a centre [deg]."""
    sin, cos = np.sin(dec * DEG), np.cos(dec * DEG)
    across, up = cos - eta * sin, sin + eta * cos
    ra_star = ra + np.arctan2(xi, across) / DEG
    return ra_star % 360.0, np.arctan2(up, np.hypot(xi, across)) / DEG
