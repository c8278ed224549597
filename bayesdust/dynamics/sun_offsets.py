"""What the weak form's sums do when the Sun is elsewhere, or moves otherwise, than the coordinates assume.

An offset of the Sun shifts every star's x or v alike. The sums' slopes in it are those of the stars' terms,
to first order, which is enough for offsets much smaller than the test functions (1 kpc, 50 km/s). What the
Sun's height does to the directions of the axes, 0.002 degrees for 0.3 pc, is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.dynamics.weak_form import CHUNK, Bumps, Pilot, Sample, in_chunks

#: Covariance of what is known of the Sun's distance and height [kpc] and of its velocity (x, y, z) [km/s],
#: for the default `SolarFrame`: GRAVITY Collaboration 2018 (A&A 615, L15), Bennett & Bovy 2019 (MNRAS 482,
#: 1417), Drimmel & Poggio 2018 (RNAAS 2, 210), whose v_y and v_z are a proper motion times that distance.
COVARIANCE = np.diag(np.array([0.031, 0.0003, 3.0, 1.4, 0.08]) ** 2)
COVARIANCE[0, 3:] = COVARIANCE[3:, 0] = 0.031**2 * np.array([245.6, 7.78]) / 8.122
# how they shift a star's x and v; the Sun is at negative x
_SHIFTS = np.zeros((5, 6))
_SHIFTS[[0, 1, 2, 3, 4], [0, 2, 3, 4, 5]] = [-1.0, 1.0, 1.0, 1.0, 1.0]


def slopes(
    tests: Bumps, stars: Sample, pilot: Pilot, chunk: int = CHUNK
) -> Float[np.ndarray, "k 5"]:
    """Slopes of the sums in the Sun's distance and height [kpc] and velocity [km/s]; one pass."""

    def one(x: Array, v: Array) -> Array:
        def along(shift: Array) -> Array:
            start, way = (x, v), (shift[:3], shift[3:])
            return jax.jvp(lambda x, v: pilot.terms(tests, x, v), start, way)[1]

        return jax.vmap(along)(jnp.asarray(_SHIFTS))

    def part(x: Array, v: Array, w: Array) -> Array:
        found = jax.vmap(one)(x.reshape(-1, 3), v.reshape(-1, 3))
        return jnp.einsum("i,isk->ks", w.ravel(), found)

    return np.asarray(in_chunks(part, [stars], chunk)[0])
