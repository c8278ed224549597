"""A halo of no family: its logarithmic slope runs freely from knot to knot."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from bayesdust.arrays import Array, Real
from bayesdust.potentials.base import SphericalHalo


class FreeSlope(SphericalHalo):
    """-d ln rho/d ln r goes smoothly from slopes[0] inside to slopes[-1] outside, knot by knot.

    It turns by slopes[k+1] - slopes[k] around r_0 e^(k step), over about one `step` in ln r:

        -d ln rho / d ln r = slopes[0] + sum_k (slopes[k+1] - slopes[k]) sigmoid(4 (x - k step)/step),

    x = ln(r/r_0), integrated in closed form. rho is positive whatever the slopes are. Inside r_0 e^-step
    and outside the last knot it is a power law: an extrapolation. `rho_0` [Msun/kpc3] is the density
    that slopes[0] extrapolates to r_0 [kpc].
    """

    rho_0: Real
    r_0: Real
    slopes: Float[Array, " k"]
    step: float = 0.7

    @property
    def inner_slope(self) -> Array:
        return self.slopes[0]

    def density(self, r: Real) -> Array:
        x = jnp.log(jnp.asarray(r) / self.r_0)
        turns = self.slopes[1:] - self.slopes[:-1]
        knots = self.step * jnp.arange(len(self.slopes) - 1)
        width = self.step / 4
        ramps = width * jax.nn.softplus((x[..., None] - knots) / width)
        return self.rho_0 * jnp.exp(-self.slopes[0] * x - ramps @ turns)

    def slope(self, r: Real) -> Array:
        """-d ln rho/d ln r at r [kpc], any shape."""
        x = jnp.log(jnp.asarray(r) / self.r_0)
        knots = self.step * jnp.arange(len(self.slopes) - 1)
        share = jax.nn.sigmoid((x[..., None] - knots) * 4 / self.step)
        return self.slopes[0] + share @ (self.slopes[1:] - self.slopes[:-1])
