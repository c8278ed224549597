"""Spherical Jeans equations: sigma_r(r), dispersions along the line of sight and on the sky, kurtosis.

With nu the tracer density, beta the anisotropy and d ln g/d ln r = 2 beta (Mamon & Lokas 2005,
eqs. A1-A3, and Binney & Mamon 1982 for the projection):

    nu sigma_r^2 (r)        = 1/g(r) int_r^inf g(s) nu(s) G M(s)/s^2 ds                          (1)
    Sigma sigma_los^2 (R)   = 2 int_R^inf (1 - beta R^2/r^2) nu sigma_r^2 r dr/sqrt(r^2 - R^2)   (2)

The fourth moments need one more assumption. Where the augmented density is separable, nu(Psi) /g(r), which
makes it the simplest of all systems with this nu and beta (Dejonghe 1986; Baes & van Hese 2007, with
constant beta and Osipkov-Merritt among them), the same g serves,

    nu <v_r^4> (r)          = 3/g(r) int_r^inf g(s) nu sigma_r^2(s) G M(s)/s^2 ds                 (3)
    Sigma <v_los^4> (R)     = 2 int_R^inf [1 - 2 beta y + (beta + beta^2 - beta'/2) y^2/2]
                                  nu <v_r^4> r dr/sqrt(r^2 - R^2)                                (4)

with y = R^2/r^2 and beta' = d beta/d ln r, for there <v_r^2 v_t^2> = (1 - beta) <v_r^4>/3 and
<v_t^4> = [(1 - beta)(2 - beta) - beta'/2] <v_r^4>/2, v_t one tangential component.

On the sky the velocity away from the centre has v_r sin + v_t cos, sin = R/r, and that across it is v_t alone
(Leonard & Merritt 1989, ApJ 339, 195; Strigari, Bullock & Kaplinghat 2007, ApJ 657, L1, eqs. 2-4):

    Sigma sigma_pmR^2 (R)   = 2 int_R^inf (1 - beta + beta y) nu sigma_r^2 r dr/sqrt(r^2 - R^2)   (5)
    Sigma sigma_pmT^2 (R)   = 2 int_R^inf (1 - beta) nu sigma_r^2 r dr/sqrt(r^2 - R^2)            (6)

so that the three components of one star sum to (3 - 2 beta) sigma_r^2 under the integral.

Every ingredient is analytic in ln r, so (1) is summed over panels uniform in ln r by Gauss-Legendre
quadrature, and (2), with R cosh w = r, is a constant matrix acting on values at the panels' ends,
made once per set of stars (`JeansGrid.build`); so are (5) and (6), with the same matrices. One
evaluation costs about 200 values of M and nu and a few matrix-vector products of size ~60, whatever the
profiles and their parameters, plus one (n_stars, ~35) interpolation.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust import quadrature
from bayesdust.anisotropy import Anisotropy
from bayesdust.arrays import Array, Real
from bayesdust.errors import BayesdustError
from bayesdust.potentials.base import SphericalHalo
from bayesdust.tracers import Plummer, Tracer
from bayesdust.units import G

_Z, _Z_WEIGHTS = quadrature.half_line()
STEP, FINE_STEP = 0.2, 0.04  # spacing of the nodes in ln r and ln R
_GAUSS = 3  # points a panel
_ORDER = 10  # points of the local polynomials in ln r
_OUTER = 300.0  # the grid ends at this many times the largest R


def sigma_r(
    r: Real,
    halo: SphericalHalo,
    tracer: Tracer,
    anisotropy: Anisotropy,
    stellar_mass: Real = 0.0,
) -> Array:
    """Radial velocity dispersion sigma_r(r) [km/s] at r [kpc], any shape, by equation (1).

    `stellar_mass` [Msun] lets the tracer itself add M_* times its enclosed fraction to the mass.
    """
    r = jnp.asarray(r)[..., None]
    s = r * jnp.exp(_Z)
    ratio = jnp.exp(anisotropy.log_g(s) - anisotropy.log_g(r)) * tracer.density(s)
    mass = halo.enclosed_mass(s)
    if not _is_zero(stellar_mass):
        mass = mass + stellar_mass * tracer.enclosed_fraction(s)
    force = G * mass / s
    variance = jnp.sum(_Z_WEIGHTS * ratio * force, axis=-1) / tracer.density(r[..., 0])
    return jnp.sqrt(variance)


def _is_zero(mass: Real) -> bool:
    """Known before tracing to be zero, so that its terms can be left out."""
    return isinstance(mass, (int, float)) and mass == 0


class ProjectedRadii(eqx.Module):
    """Nodes uniform in ln R and the matrix that interpolates smooth functions from them to stars.

    Shapes: K nodes `R`, n stars; the unit is that of the radii it was built from.
    """

    R: Float[np.ndarray, " K"]
    to_stars: Float[np.ndarray, "n K"]

    @classmethod
    def build(cls, R: Real, *, floor: float = 1e-3, step: float = STEP) -> "ProjectedRadii":
        """Stars at R (n,); those closer in than `floor` times the median count as that far out.

        Raises BayesdustError if a radius is negative or not finite.
        """
        R = np.atleast_1d(np.asarray(R, dtype=float))
        if not np.all(np.isfinite(R)) or np.any(R < 0) or not np.median(R) > 0:
            raise BayesdustError("Projected radii must be finite, not negative and not all zero.")
        ln_stars = np.log(np.maximum(R, floor * np.median(R)))
        # two nodes beyond each end keep the interpolation to the stars centred
        ln_R = _nodes(ln_stars.min() - 2 * step, ln_stars.max() + 2 * step, step)
        places = (ln_stars - ln_R[0]) / step
        return cls(np.exp(ln_R), quadrature.local_interpolation(len(ln_R), places, _ORDER))


class JeansGrid(eqx.Module):
    """The constant matrices of equations (1) and (2) for one set of projected radii.

    Radii are relative: multiply by `scale` at evaluation (1 for radii in kpc, the distance in kpc
    for angular radii in radians), so that a sampled distance needs no new matrices.

    Shapes: N nodes in ln r, Q Gauss points in each of the N - 1 panels, K nodes in ln R, n stars.
    """

    r: Float[np.ndarray, " N"]
    r_gauss: Float[np.ndarray, "N-1 Q"]
    radii: ProjectedRadii
    gauss_weights: Float[np.ndarray, " Q"]
    within: Float[np.ndarray, "Q Q"]
    project: Float[np.ndarray, "K N"]
    project_y: Float[np.ndarray, "K N"]
    project_y2: Float[np.ndarray, "K N"]

    @classmethod
    def build(
        cls, R: Real, reference: Tracer | None = None, *, floor: float = 1e-3, step: float = STEP
    ) -> "JeansGrid":
        """Matrices for stars at R (n,), in any unit of length or angle.

        `reference` is a tracer near the one to be used (radii in the unit of R; by default a
        Plummer sphere with the median R): between nodes, nu sigma_r^2 is interpolated relative to
        its density. `floor` as in `ProjectedRadii.build`. `step` is the spacing in ln r: `FINE_STEP`
        where a profile turns sharply (coreNFWtides at r_t, Baes-van Hese with eta > 3), for which
        the default errs by up to 1e-3.

        Raises BayesdustError if a radius is negative or not finite.
        """
        radii = ProjectedRadii.build(R, floor=floor, step=step)
        tracer = Plummer(np.median(R)) if reference is None else reference
        ln_R, R_max = np.log(radii.R), float(radii.R[-1])
        step = min(step, _step(tracer, R_max))
        ln_r = _nodes(ln_R[0], np.log(_end(tracer, max(R_max, 3 * _size(tracer, R_max)))), step)
        gauss, gauss_weights = np.polynomial.legendre.leggauss(_GAUSS)
        project, project_y, project_y2 = _projection(ln_R, ln_r, tracer)
        return cls(
            r=np.exp(ln_r),
            r_gauss=np.exp(ln_r[:-1, None] + step * (gauss + 1) / 2),
            radii=radii,
            gauss_weights=step / 2 * gauss_weights,
            within=step * quadrature.collocation(_GAUSS),
            project=project,
            project_y=project_y,
            project_y2=project_y2,
        )

    def variance(
        self,
        halo: SphericalHalo,
        tracer: Tracer,
        anisotropy: Anisotropy,
        scale: Real = 1.0,
        stellar_mass: Real = 0.0,
    ) -> Float[Array, " n"]:
        """sigma_los^2 [(km/s)^2] at the stars; see the module for the equations."""
        pressure = self.pressure(halo, tracer, anisotropy, scale, stellar_mass)
        variance = self._variance(pressure, tracer, anisotropy, scale)
        return jnp.dot(self.radii.to_stars, variance)

    def variance_and_kurtosis(
        self,
        halo: SphericalHalo,
        tracer: Tracer,
        anisotropy: Anisotropy,
        scale: Real = 1.0,
        stellar_mass: Real = 0.0,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """sigma_los^2 [(km/s)^2] and <v_los^4>/sigma_los^4, 3 for a Gaussian, at the stars."""
        r = self.r * scale
        pressure, fourth = self._moments(halo, tracer, anisotropy, scale, stellar_mass)
        beta, turn = anisotropy.beta(r), anisotropy.beta_slope(r)
        projected = (
            self.project @ fourth
            - 2 * self.project_y @ (beta * fourth)
            + self.project_y2 @ ((beta + beta**2 - turn / 2) / 2 * fourth)
        )
        variance = self._variance(pressure, tracer, anisotropy, scale)
        kurtosis = projected / (self.project @ tracer.density(r)) / variance**2
        to_stars = jnp.asarray(self.radii.to_stars)
        return to_stars @ variance, to_stars @ kurtosis

    def sky_variances(
        self,
        halo: SphericalHalo,
        tracer: Tracer,
        anisotropy: Anisotropy,
        scale: Real = 1.0,
        stellar_mass: Real = 0.0,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """sigma_pmR^2 and sigma_pmT^2 [(km/s)^2] at the stars, by (5) and (6).

        Away from the centre on the sky, and across. The matrices are those of (2), and no sum loses
        digits: both integrands are positive for every beta < 1.
        """
        r = self.r * scale
        pressure = self.pressure(halo, tracer, anisotropy, scale, stellar_mass)
        radial = anisotropy.beta(r) * pressure
        surface = self.project @ tracer.density(r)
        across = self.project @ (pressure - radial)
        outward = across + self.project_y @ radial
        to_stars = jnp.asarray(self.radii.to_stars)
        return to_stars @ (outward / surface), to_stars @ (across / surface)

    def _variance(
        self, pressure: Array, tracer: Tracer, anisotropy: Anisotropy, scale: Real
    ) -> Float[Array, " K"]:
        """(2) at the nodes in R."""
        r = self.r * scale
        projected = self.project @ pressure - self.project_y @ (anisotropy.beta(r) * pressure)
        return projected / (self.project @ tracer.density(r))

    def pressure(
        self,
        halo: SphericalHalo,
        tracer: Tracer,
        anisotropy: Anisotropy,
        scale: Real = 1.0,
        stellar_mass: Real = 0.0,
    ) -> Float[Array, " N"]:
        """nu sigma_r^2 [(km/s)^2/kpc3] at the nodes `r`, by equation (1)."""
        return self._moments(halo, tracer, anisotropy, scale, stellar_mass)[0]

    def _moments(
        self,
        halo: SphericalHalo,
        tracer: Tracer,
        anisotropy: Anisotropy,
        scale: Real,
        stellar_mass: Real,
    ) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
        """nu sigma_r^2 and nu <v_r^4> at the nodes, by (1) and (3)."""
        r, s = self.r * scale, self.r_gauss * scale
        nu = tracer.density(s)
        mass = self._mass(halo, r, s)
        if not _is_zero(stellar_mass):
            mass = mass + stellar_mass * tracer.enclosed_fraction(s)
        log_g = anisotropy.log_g(r)
        ratio = jnp.exp(anisotropy.log_g(s) - log_g[:-1, None])
        pull = G * mass / s
        pressure = self._outside(ratio * nu * pull, log_g)
        # g nu sigma_r^2 at the Gauss points, over g at the panel's inner end
        within = pressure[:-1, None] - (ratio * nu * pull) @ self.within.T
        return pressure, self._outside(3 * within * pull, log_g)

    def _outside(self, integrand: Float[Array, "N-1 Q"], log_g: Array) -> Float[Array, " N"]:
        """1/g times the integral from each node outwards; `integrand` is over g at its panel's inner end."""
        log_g = log_g - log_g[len(self.r) // 2]
        panels = jnp.exp(log_g[:-1]) * (integrand @ self.gauss_weights)
        # not a quotient: its derivative has g^2, which overflows for strongly tangential orbits
        return jnp.dot(_upper_triangle(len(self.r)), panels) * jnp.exp(-log_g)

    def _mass(self, halo: SphericalHalo, r: Array, s: Array) -> Array:
        """M(<s) at the Gauss points: closed form, or the same Gauss rule applied to 4 pi rho s^3.

        Integrating dM/d ln r along with equation (1) is Gauss collocation (order 2 Q at the nodes),
        at the cost of rho alone.
        """
        if halo.closed_form_mass:
            return halo.enclosed_mass(s)
        shells = 4 * jnp.pi * halo.density(s) * s**3
        below = np.tril(np.ones((len(shells), len(shells))), -1) @ (shells @ self.gauss_weights)
        return halo.enclosed_mass(r[0]) + below[:, None] + shells @ self.within.T


def _nodes(low: float, high: float, step: float) -> np.ndarray:
    """Uniform nodes from low to at least high."""
    return low + step * np.arange(max(int(np.ceil((high - low) / step - 1e-9)) + 1, _ORDER))


def _upper_triangle(count: int) -> np.ndarray:
    """(count, count - 1) ones on and above the diagonal: sums each panel and all outside it."""
    return np.triu(np.ones((count, count - 1)))


def _step(tracer: Tracer, R_max: float) -> float:
    """Spacing in ln r: finer where nu falls steeply, so that it drops by less than e^1.2 a step."""
    return float(np.clip(1.2 / _slope(tracer, R_max), 0.02, STEP))


def _end(tracer: Tracer, R_max: float) -> float:
    """Radius where the grid ends: where no tracer is left, further out where it falls slowly.

    Equation (1) falls at the slowest like r^(1.5 - slope): radial orbits in a halo of r^-2.5.
    """
    slope = _slope(tracer, R_max * _OUTER)
    ends = R_max * np.geomspace(1, np.clip(10 ** (5.3 / max(slope - 1.5, 0.1)), _OUTER, 1e4), 200)
    stars = np.asarray(tracer.density(ends)) * ends**3
    return float(ends[stars >= 1e-20 * stars[0]][-1])


def _size(tracer: Tracer, R_max: float) -> float:
    """Where r^3 nu peaks: stars observed only near the centre must not cut the tracer short."""
    r = R_max * np.geomspace(1e-3, 1e4, 400)
    return float(r[np.argmax(np.nan_to_num(np.asarray(tracer.density(r)) * r**3))])


def _slope(tracer: Tracer, r: float) -> float:
    """-d ln nu / d ln r; infinite where nu underflows."""
    inside, outside = np.asarray(tracer.density(np.array([r, r * np.exp(0.1)])), dtype=float)
    return float(np.log(inside / outside) / 0.1) if outside > 0 else np.inf


def _projection(ln_R: np.ndarray, ln_r: np.ndarray, tracer: Tracer) -> list[np.ndarray]:
    """Matrices (K, N) of 2 int f y^k r dw, k = 0, 1, 2, where r = R cosh w and y = 1/cosh^2 w."""
    # the line of sight through the centre ends where the grid does, as those further out
    length = ln_r[-1] - ln_R[0] + np.log(2.0)
    # nu falls like exp(-slope w^2/2) from R on
    step = np.clip(_slope(tracer, float(np.exp(ln_R[-1]))) ** -0.5, 0.02, 0.15)
    w, weights = quadrature.even_trapezoid(step=step, count=int(np.ceil(length / step)))
    density = np.asarray(tracer.density(np.exp(ln_r)))
    density = np.maximum(density, 1e-250 * density.max())  # beyond, nu underflows
    rows = [_line_of_sight(x, w, weights, ln_r, density, tracer) for x in ln_R]
    return [np.stack(matrix) for matrix in zip(*rows, strict=True)]


def _line_of_sight(
    ln_R: float,
    w: np.ndarray,
    weights: np.ndarray,
    ln_r: np.ndarray,
    density: np.ndarray,
    tracer: Tracer,
) -> list[np.ndarray]:
    """One row (N,) of each of the matrices; row by row, for together they would fill the memory."""
    x = ln_R + np.log(np.cosh(w))
    places = (x - ln_r[0]) / (ln_r[1] - ln_r[0])
    nodes = quadrature.local_interpolation(len(ln_r), places, _ORDER)
    nodes = nodes * (np.asarray(tracer.density(np.exp(x)))[:, None] / density)
    plain = 2 * weights * np.exp(x)
    return [(plain / np.cosh(w) ** (2 * k)) @ nodes for k in range(3)]


def sigma_los(
    R: Real,
    halo: SphericalHalo,
    tracer: Tracer,
    anisotropy: Anisotropy,
    stellar_mass: Real = 0.0,
) -> Array:
    """Line-of-sight velocity dispersion sigma_los(R) [km/s] at R [kpc], shape (n,).

    R and the tracer must be concrete, for the matrices are made from them; halo and anisotropy may be
    traced. Under `jax.jit` or `jax.grad` of the tracer, and in a loop, use a `JeansGrid`.

    Raises BayesdustError if R or the tracer is traced.
    """
    grid = _grid_for("sigma_los", R, tracer)
    return jnp.sqrt(grid.variance(halo, tracer, anisotropy, stellar_mass=stellar_mass))


def sigma_pm(
    R: Real,
    halo: SphericalHalo,
    tracer: Tracer,
    anisotropy: Anisotropy,
    stellar_mass: Real = 0.0,
) -> tuple[Array, Array]:
    """Dispersions on the sky [km/s] at R [kpc], shape (n,): (away from the centre, across), (5) and (6).

    What must be concrete, and what raises BayesdustError, is as for `sigma_los`.
    """
    grid = _grid_for("sigma_pm", R, tracer)
    outward, across = grid.sky_variances(halo, tracer, anisotropy, stellar_mass=stellar_mass)
    return jnp.sqrt(outward), jnp.sqrt(across)


def _grid_for(function: str, R: Real, tracer: Tracer) -> JeansGrid:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((R, tracer))):
        raise BayesdustError(
            f"{function} needs R and the tracer as numbers: inside jit or grad build a JeansGrid first."
        )
    return JeansGrid.build(R, tracer, floor=0.0, step=FINE_STEP)
