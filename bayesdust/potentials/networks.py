"""Smooth fields as small neural networks of the place in a survey's ball, and a potential made of one.

A multilayer perceptron of u = (x - centre)/lengths with a smooth activation (GELU: Hendrycks & Gimpel
2016, arXiv:1606.08415), so that forces and densities are its derivatives, as in Green & Ting 2020
(arXiv:2011.04673) and Putney+2024 (arXiv:2412.14236; five hidden layers of 100).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.errors import BayesdustError
from bayesdust.potentials.base import Potential

# lengths along z over those in the plane: what a disc does happens within 1 kpc of it
FLATTENING = 0.25
SPEED2 = 2e4  # (km/s)^2: a force of 5000 (km/s)^2/kpc over a ball of 4 kpc


class Network(eqx.Module):
    """A scalar function of a place x (3,) [kpc], of order one inside the ball it was made for.

    `centre` and `lengths` (3,) [kpc] standardise the place and are not trained; the weights, in the
    type they were made in, are all the arrays there are.
    """

    layers: eqx.nn.MLP
    centre: tuple[float, ...] = eqx.field(static=True)
    lengths: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def untrained(
        cls,
        key: Array,
        centre: tuple[float, ...],
        radius: float,
        width: int = 100,
        depth: int = 5,
        flattening: float = FLATTENING,
        dtype: Any = jnp.float32,
    ) -> "Network":
        """Random weights, `depth` hidden layers of `width`; z is counted in `flattening` times the radius.

        Raises BayesdustError for sizes that are not positive.
        """
        if not (radius > 0 and flattening > 0 and width > 0 and depth > 0):
            raise BayesdustError(
                f"A network of {depth} layers of {width} over a ball of {radius:g} kpc, flattened to "
                f"{flattening:g}, cannot be made: give numbers above 0."
            )
        layers = eqx.nn.MLP(3, "scalar", width, depth, jax.nn.gelu, dtype=dtype, key=key)
        lengths = (float(radius), float(radius), float(flattening * radius))
        return cls(layers, tuple(float(c) for c in centre), lengths)

    def __call__(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        u = (x - jnp.asarray(self.centre, x.dtype)) / jnp.asarray(self.lengths, x.dtype)
        return self.layers(u)


class PotentialNetwork(Potential):
    """Phi(x) = `scale` network(x) + that of a `backbone`, if there is one, that stays as it is.

    `scale` [(km/s)^2]. Phi has no zero at infinity: only its differences inside the ball mean anything,
    and nothing keeps its density above zero.
    """

    network: Network
    backbone: Potential | None = None
    scale: float = eqx.field(static=True, default=SPEED2)

    def potential(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        phi = self.scale * self.network(x)
        return phi if self.backbone is None else phi + self.backbone.potential(x)
