"""A law of velocities of given variance and kurtosis, made of normal ones.

    p(v) = (1 - w) N + w T     for kurtosis 3 + 3 w,         T: two normals of one mean, of kurtosis 6,
    p(v) = (1 - w) N + w F     for kurtosis 3 - 0.8 w,       F: flat-topped, of kurtosis 2.2,

all of one variance, so that the fourth moment is the mixture's exactly, and w at most one: kurtoses beyond
count as 2.2 and 6. F is a uniform law smeared by a normal one (as in Sanders & Evans 2020,
arXiv:2009.07858), the uniform law by the six points of a Gauss-Legendre rule, which have its moments up
to the eleventh. Errors add to the variance of every part.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array

TAILED, FLAT = 6.0, 2.2
_TAILS = np.array([0.2, 0.8]), np.array([3.0, 0.5])  # shares and variances of T
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(6)
# of a uniform law of half-width h and a normal one, in all of variance 1: kurtosis 3 - 2 h^4/15
_HALF_WIDTH = (7.5 * (3 - FLAT)) ** 0.25

#: means and variances of the parts, for sigma = 1
OFFSETS: Float[np.ndarray, "9"] = np.concatenate([np.zeros(3), _HALF_WIDTH * _POINTS])
VARIANCES: Float[np.ndarray, "9"] = np.concatenate(
    [[1.0], _TAILS[1], np.full(6, 1 - _HALF_WIDTH**2 / 3)]
)


def shares(kurtosis: Float[Array, " n"]) -> Float[Array, "n 9"]:
    """What share each part has in the laws of stars of such `kurtosis`."""
    tailed = jnp.clip((kurtosis - 3) / (TAILED - 3), 0.0, 1.0)[:, None]
    flat = jnp.clip((3 - kurtosis) / (3 - FLAT), 0.0, 1.0)[:, None]
    parts = [1 - tailed - flat, tailed * _TAILS[0], flat * _WEIGHTS / 2]
    return jnp.concatenate(parts, axis=1)
