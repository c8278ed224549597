"""Gradient descent for flows: Adam that a bad step cannot ruin."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from bayesdust.arrays import Array


def careful_adam(
    rate: optax.Schedule, most_errors: int, longest: float = 5.0
) -> optax.GradientTransformation:
    """Adam on gradients cut to a norm of `longest`; `most_errors` steps in a row may not be finite: they
    are left out."""
    clipped = optax.chain(optax.clip_by_global_norm(longest), optax.adam(rate))
    return optax.apply_if_finite(clipped, max_consecutive_errors=most_errors)


def descend(
    loss: Callable[..., Array],
    optimizer: optax.GradientTransformation,
    state: tuple[Any, Any],
    *arguments: Any,
) -> tuple[tuple[Any, Any], Array]:
    """Parameters and the optimizer's memory after a step, and loss(parameters, *arguments) before it."""
    parameters, memory = state
    value, slope = jax.value_and_grad(loss)(parameters, *arguments)
    change, memory = optimizer.update(slope, memory, parameters)
    return (optax.apply_updates(parameters, change), memory), value
