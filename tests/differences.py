"""Gradients against sixth-order central differences."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

STEP = 2e-3  # of a parameter's size: truncation h^6 and round-off/h are then both near 1e-13
_WEIGHTS = np.array([-1, 9, -45, 45, -9, 1]) / 60
_OFFSETS = np.array([-3, -2, -1, 1, 2, 3])


def sizes(x: jax.Array) -> np.ndarray:
    """What a relative change is relative to; parameters that may vanish count as 0.1 at least."""
    return np.asarray(jnp.maximum(jnp.abs(x), 0.1))


def finite_differences(f: Callable[[jax.Array], jax.Array], x: jax.Array) -> np.ndarray:
    """df (n,)/dx (k,) of a vector-valued f of x (k,), times the sizes of x: (n, k)."""
    points = x + _OFFSETS[:, None, None] * np.diag(STEP * sizes(x))
    values = jax.jit(jax.vmap(f))(points.reshape(-1, len(x)))
    values = np.asarray(values).reshape(len(_OFFSETS), len(x), -1)
    return np.einsum("o,okn->nk", _WEIGHTS, values) / STEP


class Gradient:
    """Reverse mode and differences of a weighted sum of f(x, r), compiled once for every x and r."""

    def __init__(self, f: Callable[[jax.Array, Any], jax.Array]):
        def weighted(x: jax.Array, r: Any) -> jax.Array:
            values = f(x, r)
            return jnp.cos(jnp.arange(len(values))) @ values

        self._reverse = jax.jit(jax.grad(weighted))
        self._value = jax.jit(weighted)

    def reverse(self, x: jax.Array, r: Any) -> np.ndarray:
        """Times the sizes of x (k,): (k,)."""
        return np.asarray(self._reverse(x, r)) * sizes(x)

    def differences(self, x: jax.Array, r: Any) -> np.ndarray:
        """The same by differences."""
        steps = np.diag(STEP * sizes(x))
        values = [[float(self._value(x + k * step, r)) for k in _OFFSETS] for step in steps]
        return np.array(values) @ _WEIGHTS / STEP
