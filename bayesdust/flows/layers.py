"""Masked autoregressive layers with affine transformers and smooth activations.

A layer is that of Papamakarios, Pavlakou & Murray (2017, arXiv:1705.07057). Its dimensions are taken in
some order, and each is shifted and scaled by amounts that depend on those before it and on a
condition:

    z_i = y_i exp(a_i) + b_i,    (a_i, b_i) = network(y_1 ... y_(i-1), condition),

with one network whose weights are masked (Germain+2015, arXiv:1502.03509). The direction from y (data)
to z (normal) is the one that takes a single pass. flowjax's own layer is as quick; this one saves its
permutations between layers, starts near the identity, and stays in the precision it is given.
"""

import itertools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
}
_STEEPEST = 3.0  # of |a|: one layer stretches by no more than a factor of 20
_START = 0.05  # size of the last weights at first: a flow that is almost the identity


class MaskedAffine(AbstractBijection):
    """One layer, from y (d,) to z (d,), given a condition (c,) or none.

    `order[i]` is the place of dimension i; the layers of a flow take different orders. `widths` are
    those of the hidden layers. Weights are made in float32.
    """

    weights: tuple[Float[Array, "to of"], ...]  # those that the masks leave out are ignored
    biases: tuple[Float[Array, " to"], ...]
    order: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    cond_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        key: Array,
        order: Sequence[int],
        widths: Sequence[int],
        activation: str = "tanh",
        cond_dim: int | None = None,
    ) -> None:
        self.order, self.activation = tuple(order), activation
        self.shape = (len(self.order),)
        self.cond_shape = None if cond_dim is None else (cond_dim,)
        masks = self._masks(widths)
        weights, biases = [], []
        for mask, inner in zip(masks, jax.random.split(key, len(masks)), strict=True):
            last = mask is masks[-1]
            spread = (_START if last else 1.0) / np.sqrt(np.maximum(mask.sum(1, keepdims=True), 1))
            one, two = jax.random.split(inner)
            draw = jax.random.normal(one, mask.shape, jnp.float32)
            weights.append(draw * jnp.asarray(spread, jnp.float32))
            bias = jax.random.uniform(two, (len(mask),), jnp.float32, -1.0, 1.0)
            biases.append(jnp.zeros_like(bias) if last else bias)
        self.weights, self.biases = tuple(weights), tuple(biases)

    def transform_and_log_det(self, x, condition=None):
        a, b = self._network(x, condition)
        return x * jnp.exp(a) + b, jnp.sum(a)

    def inverse_and_log_det(self, y, condition=None):
        x = y
        for _ in self.order:  # each pass settles one more dimension
            a, b = self._network(x, condition)
            x = (y - b) * jnp.exp(-a)
        return x, -jnp.sum(a)

    def _network(self, y: Array, condition: Array | None) -> tuple[Array, Array]:
        """a and b, each (d,)."""
        hidden = y if condition is None else jnp.concatenate([y, condition])
        masks = self._masks([len(bias) for bias in self.biases[:-1]])
        for i, (mask, weight, bias) in enumerate(
            zip(masks, self.weights, self.biases, strict=True)
        ):
            entry = ACTIVATIONS[self.activation](hidden) if i else hidden
            hidden = jnp.where(mask, weight, 0) @ entry + bias
        a, b = jnp.split(hidden, 2)
        return _STEEPEST * jnp.tanh(a / _STEEPEST), b

    def _masks(self, widths: Sequence[int]) -> list[np.ndarray]:
        """The weights in use: an output sees what comes before it in the order, and the condition."""
        dim, cond = len(self.order), 0 if self.cond_shape is None else self.cond_shape[0]
        lowest = -1 if cond else 0
        ranks = [np.array([*self.order, *[-1] * cond])]
        ranks += [np.arange(width) * (dim - 1 - lowest) // width + lowest for width in widths]
        masks = [after[:, None] >= before for before, after in itertools.pairwise(ranks)]
        last = np.array(self.order)[:, None] > ranks[-1]
        return [*masks, np.concatenate([last, last])]
