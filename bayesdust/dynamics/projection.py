"""Distribution of line-of-sight velocities: every place along the line of sight with its own dispersion.

At a projected radius R the velocities are a mixture over the line of sight. Where they are normal with
dispersions sigma_r and sigma_t = sigma_r sqrt(1 - beta), the component along it is normal with

    s^2(r, R) = sigma_r^2(r) (1 - beta(r) R^2/r^2),

and p(v | R) = 2/Sigma int_R^inf N(v; 0, s^2) nu r dr/sqrt(r^2 - R^2), whose variance is sigma_los^2 of
`bayesdust.dynamics.jeans`. With r = R cosh w and w = w_0 sinh t the integral is a trapezoidal sum in t,
spectral: w removes the root, t crowds the places about w = 0, where s of radial orbits nearly vanishes.
Every R has a spacing of its own, such that all lines end at the same r.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust import quadrature
from bayesdust.anisotropy import Anisotropy
from bayesdust.arrays import Array, Real
from bayesdust.dynamics.jeans import JeansGrid
from bayesdust.potentials.base import SphericalHalo
from bayesdust.tracers import Tracer

_STEP = 0.14  # in t, at most: p(v | R) to 1e-3, its variance to 1e-4
_CLOSE = 0.1  # w_0: places lie evenly within it, where s of radial orbits is near 0
_REACH = 20.0  # times the outermost star: beyond it lies 1e-5 of the light there, for nu ~ r^-5
_ORDER = 6


class LinesOfSight(eqx.Module):
    """Constant matrices from the nodes of a `JeansGrid` to places along the lines of sight.

    Shapes: N nodes in r, K projected radii, J places w on each line, n stars.
    """

    grid: JeansGrid
    w: Float[np.ndarray, "K J"]
    weights: Float[np.ndarray, "K J"]
    to_lines: Float[np.ndarray, "K*J N"]

    @classmethod
    def build(cls, grid: JeansGrid, step: float = _STEP) -> "LinesOfSight":
        """For the stars of `grid`; `step` is the largest spacing in t, that of the innermost radius."""
        ln_r, R = np.log(grid.r), grid.radii.R[:, None]
        end = min(grid.r[-1], _REACH * R.max())
        length = np.arcsinh(np.arccosh(np.maximum(end / R, 2.0)) / _CLOSE)
        t, weights = quadrature.even_trapezoid(1.0, int(np.ceil(length.max() / step)) + 1)
        spacing = length / t[-1]
        w, slope = _CLOSE * np.sinh(t * spacing), _CLOSE * np.cosh(t * spacing)
        r = R * np.cosh(w)
        places = (np.log(r) - ln_r[0]) / (ln_r[1] - ln_r[0])
        nodes = quadrature.local_interpolation(len(ln_r), places.ravel(), _ORDER)
        return cls(grid, w, 2 * weights * spacing * slope * r, nodes)

    def components(
        self,
        halo: SphericalHalo,
        tracer: Tracer,
        anisotropy: Anisotropy,
        scale: Real = 1.0,
        stellar_mass: Real = 0.0,
    ) -> tuple[Float[Array, "n J"], Float[Array, "n J"]]:
        """Shares (summing to 1) and variances s^2 [(km/s)^2] of the normal laws that make p(v | R).

        `scale` and `stellar_mass` as in `JeansGrid.variance`.
        """
        r = self.grid.r * scale
        nu = tracer.density(r)
        nothing = 1e-150 * nu[0]  # far out a steep profile underflows
        nu = jnp.maximum(nu, nothing)
        pressure = self.grid.pressure(halo, tracer, anisotropy, scale, stellar_mass)
        ln_variance = jnp.log(jnp.maximum(pressure, nothing)) - jnp.log(nu)
        # at the last node nothing is left outside: carry on the one before
        ln_variance = ln_variance.at[-1].set(ln_variance[-2])
        shape = self.weights.shape
        along = jnp.exp(self.to_lines @ jnp.stack([jnp.log(nu), ln_variance], axis=1))
        beyond = np.sum(self.to_lines, axis=1).reshape(shape) < 0.5  # where the grid has ended
        share = self.weights * jnp.where(beyond, 0.0, along[:, 0].reshape(shape))
        share = share / jnp.sum(share, axis=1, keepdims=True)
        R = self.grid.radii.R[:, None] * scale
        seen = 1 - anisotropy.beta(R * jnp.cosh(self.w)) / jnp.cosh(self.w) ** 2
        variance = along[:, 1].reshape(shape) * seen
        to_stars = self.grid.radii.to_stars
        # above zero, for their logarithms will be taken
        found = jnp.maximum(to_stars @ share, 1e-30)
        found = found / jnp.sum(found, axis=1, keepdims=True)
        return found, jnp.exp(to_stars @ jnp.log(variance))
