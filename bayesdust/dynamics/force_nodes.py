"""Axisymmetric forces by their values at a few nodes, so that sums over stars need them nowhere else.

The sums of `weak_form` are linear in the acceleration. Written through its values at nodes,

    a(x) = sum_j a_R(node j) L_j(R, z) e_R + sum_j a_z(node j) K_j(R, z) e_z,

with L_j and K_j polynomials of R and of t^2, t = asinh(z/h) (K_j times t: a_z is odd in z), one pass over
the stars leaves a matrix that turns node values into sums: a likelihood of any axisymmetric model with a
plane of symmetry then costs its force at the nodes and one small product, whatever the number of stars.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.potentials.base import Potential

H = 0.3  # kpc: the height of what bends the vertical force


class ForceNodes(eqx.Module):
    """Chebyshev nodes `R` (n_R,) and `t2` (n_z,) = asinh(z/h)^2 that cover a ball."""

    R: Float[np.ndarray, " n_R"]
    t2: Float[np.ndarray, " n_z"]

    @classmethod
    def covering(
        cls, centre: Float[np.ndarray, "3"], radius: float, number: tuple[int, int] = (7, 12)
    ) -> "ForceNodes":
        """Nodes for all places within `radius` [kpc] of `centre`."""
        middle = float(np.hypot(centre[0], centre[1]))
        top = float(np.arcsinh((abs(centre[2]) + radius) / H)) ** 2
        low = max(middle - radius, 0.02 * middle)
        return cls(_chebyshev(low, middle + radius, number[0]), _chebyshev(0.0, top, number[1]))

    @property
    def places(self) -> Float[np.ndarray, "m 3"]:
        """The nodes as places (R, 0, z) [kpc], z above the plane."""
        z = H * np.sinh(np.sqrt(self.t2))
        R, z = np.meshgrid(self.R, z, indexing="ij")
        return np.stack([R.ravel(), np.zeros(R.size), z.ravel()], axis=1)

    def values(self, potential: Potential) -> Float[Array, " p"]:
        """a_R, then a_z over t [(km/s)^2/kpc] at the nodes."""
        a = jax.vmap(potential.acceleration)(jnp.asarray(self.places))
        t = jnp.sqrt(jnp.tile(jnp.asarray(self.t2), len(self.R)))
        return jnp.concatenate([a[:, 0], a[:, 2] / t])

    def basis(self, x: Float[Array, "3"]) -> Float[Array, "p 3"]:
        """The vectors at x (3,) that node values multiply."""
        R = jnp.sqrt(x[0] ** 2 + x[1] ** 2)
        t = jnp.arcsinh(x[2] / H)
        shape = jnp.outer(_lagrange(self.R, R), _lagrange(self.t2, t**2)).ravel()
        outward = jnp.array([x[0], x[1], 0.0]) / R
        return jnp.concatenate(
            [shape[:, None] * outward, (shape * t)[:, None] * jnp.array([0.0, 0.0, 1.0])]
        )


def _chebyshev(low: float, high: float, number: int) -> Float[np.ndarray, " n"]:
    angle = np.pi * (np.arange(number) + 0.5) / number
    return 0.5 * (low + high) - 0.5 * (high - low) * np.cos(angle)


def _lagrange(nodes: Float[np.ndarray, " n"], x: Array) -> Float[Array, " n"]:
    """The Lagrange polynomials on `nodes` at one x, as products: smooth at the nodes too."""
    index = np.array([[j for j in range(len(nodes)) if j != i] for i in range(len(nodes))])
    return jnp.prod((x - nodes[index]) / (nodes[:, None] - nodes[index]), axis=1)
