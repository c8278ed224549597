"""Fields that walk at random down the halvings of the sky (`sky_parts.Sky`), and their posterior.

Every part, from the whole sky (level 0) to the smallest (level L), adds to its mother's u (k,) a step

    u_part = u_mother + s delta_part,        delta ~ N(0, 1),                                      (1)

so that neighbours are alike until the halving that parts them, and a part without a say takes after its
surroundings. With normal likelihoods of the smallest parts, of curvature H (cells, k, k), the posterior of u
is exact in one pass up and one down: what a part's daughters know of it adds up,

    Lambda_mother = sum over daughters of (Lambda^-1 + s^2)^-1,        Lambda_smallest = H,        (2)

    u_part | u_mother ~ N(u_mother C / s^2, C),        C = (Lambda + 1/s^2)^-1,                    (3)

for deviations u from the mean field.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array


@dataclass(frozen=True)
class HalvedWalk:
    """The prior (1): `levels` halvings, and the `spread` of u in the smallest parts."""

    levels: int
    spread: float

    @property
    def step(self) -> float:
        """s."""
        return self.spread / np.sqrt(self.levels + 1)

    @property
    def parts(self) -> int:
        """How many parts there are, large and small."""
        return 2 ** (self.levels + 1) - 1

    def fields(self, deltas: Float[Array, "parts k"]) -> Float[Array, "cells k"]:
        """u of the smallest parts: `deltas` are those of the whole sky, then of its halves, and so on."""
        u = jnp.zeros((1, deltas.shape[1]))
        for level in range(self.levels + 1):
            u = jnp.repeat(u, 2, axis=0) if level else u
            u = u + self.step * deltas[2**level - 1 : 2 ** (level + 1) - 1]
        return u

    def scatter(self, curvature: Float[np.ndarray, "cells k k"]) -> "Scatter":
        """The posterior about its mean, for likelihoods of such `curvature`: (2), (3)."""
        prior = np.eye(curvature.shape[1]) / self.step**2
        gains: list[np.ndarray] = []
        roots: list[np.ndarray] = []
        known = curvature
        for level in range(self.levels, -1, -1):
            left = np.linalg.inv(known + prior)
            gains.append(left @ prior)
            roots.append(np.linalg.cholesky(left))
            if level:
                told = known - known @ left @ known
                known = told[0::2] + told[1::2]
        downwards = [tuple(map(jnp.asarray, reversed(upwards))) for upwards in (gains, roots)]
        return Scatter(downwards[0], downwards[1], self.step)

    def draw(self, scatter: "Scatter", rng: np.random.Generator) -> Float[Array, "cells k"]:
        """A deviation of u from its posterior's mean."""
        noise = rng.standard_normal((self.parts, scatter.gains[0].shape[1]))
        return self.fields(scatter.deltas(jnp.asarray(noise)))


class Scatter(NamedTuple):
    """`gains` C/s^2 and `roots` of C (parts, k, k), level by level, and s: (3)."""

    gains: tuple[Array, ...]
    roots: tuple[Array, ...]
    step: float

    def deltas(self, noise: Float[Array, "parts k"]) -> Float[Array, "parts k"]:
        """Those of a deviation from the mean field, of independent normal `noise`."""
        found, u = [], jnp.zeros((1, noise.shape[1]))
        for level, (gain, root) in enumerate(zip(self.gains, self.roots, strict=True)):
            mother = jnp.repeat(u, 2, axis=0) if level else u
            own = noise[2**level - 1 : 2 ** (level + 1) - 1]
            u = jnp.einsum("pij,pj->pi", gain, mother) + jnp.einsum("pij,pj->pi", root, own)
            found.append((u - mother) / self.step)
        return jnp.concatenate(found)
