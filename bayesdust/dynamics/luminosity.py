"""Luminosity functions as tables that can be learned."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array

STEP = 0.01  # mag, of the tables
_FALL = 0.8, 20.0  # slope of ln phi beyond its knots, bright and faint [1/mag]


class Luminosity:
    """Luminosity functions that are straight in ln phi between knots a tenth of a magnitude apart.

    `low`, `high` [mag]: between them lie the stars' magnitudes less distance modulus and extinction.
    """

    def __init__(self, low: float, high: float):
        self.knots = np.arange(low, high + 0.1, 0.1)
        self.grid = np.arange(low - 8.0, high + 1.0, STEP)

    def tables(self, ln_phi: Float[Array, " q"]) -> tuple[Float[Array, " g"], Float[Array, " g"]]:
        """ln phi, normalised, and ln S on the grid, from ln phi at the knots."""
        bright = jnp.minimum(self.grid - self.knots[0], 0.0)
        faint = jnp.maximum(self.grid - self.knots[-1], 0.0)
        ln = jnp.interp(self.grid, self.knots, ln_phi) + _FALL[0] * bright - _FALL[1] * faint
        phi = jnp.exp(ln)
        steps = jnp.cumsum(0.5 * (phi[1:] + phi[:-1])) * STEP + phi[0] / _FALL[0]
        ln_share = jnp.log(jnp.concatenate([phi[:1] / _FALL[0], steps]))
        return ln - ln_share[-1], ln_share - ln_share[-1]

    def at(self, table: Float[Array, " g"], magnitude: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """A table at any magnitude: flat beyond its faint end, beyond the bright one as steep as `_FALL`."""
        place = (magnitude - self.grid[0]) / STEP
        beyond = _FALL[0] * STEP * jnp.minimum(place, 0.0)
        place = jnp.clip(place, 0.0, len(self.grid) - 1.001)
        first = place.astype(int)
        return table[first] + (place - first) * (table[first + 1] - table[first]) + beyond
