"""Importance weights: what corrects the draws of an approximation, and tells whether they can be.

Weights are smoothed by fitting a generalised Pareto law to their upper tail (Vehtari+2024, JMLR 25,
72). Its shape k decides: up to 0.7 weighted means can be trusted, above it they cannot, however
many draws there are.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float

LogDensity = Callable[[Float[Array, " d"]], Float[Array, ""]]

_BATCH = 500  # draws whose density is worked out at once


class Weighed(NamedTuple):
    """Draws of a guide with their importance weights.

    Attributes
    ----------
    x : (n, d)
    log_weights : (n,) ln p - ln q as drawn, neither smoothed nor normalised
    weights : (n,) Pareto-smoothed, summing to one
    pareto_k : shape of the upper tail of the weights, at most 0.7 if they are to be trusted
    elbo : mean of `log_weights`; but for Monte Carlo error at most ln of the evidence, the integral
        of p
    """

    x: Float[np.ndarray, "n d"]
    log_weights: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    pareto_k: float
    elbo: float

    @property
    def ess(self) -> float:
        """Number of independent draws that the weighted ones are worth, 1 / sum of w^2."""
        return float(1 / np.sum(self.weights**2))


def weigh(log_density: LogDensity, guide: AbstractDistribution, number: int, key: Array) -> Weighed:
    """Draw `number` times from the guide and weigh the draws by the density, exp(`log_density`)."""

    @jax.jit
    def draw(key: Array) -> tuple[Array, Array]:
        x, log_q = guide.sample_and_log_prob(key, (number,))
        return x, jax.lax.map(log_density, x, batch_size=_BATCH) - log_q

    x, log_weights = map(np.asarray, draw(key))
    log_weights = np.where(np.isnan(log_weights), -np.inf, log_weights)
    weights, k = smooth(log_weights)
    return Weighed(x, log_weights, weights, k, float(np.mean(log_weights)))


def smooth(log_weights: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], float]:
    """Pareto-smoothed weights, summing to one, and the shape k of their tail.

    k is inf where no draw has any weight, and 0 where all weights are the same.
    """
    from arviz_stats.base import array_stats

    even = np.full(log_weights.shape, 1 / log_weights.size)
    top = np.max(log_weights)
    if not np.isfinite(top):
        return even, np.inf
    if np.ptp(log_weights) < 1e-9:
        return even, 0.0
    # ArviZ takes what leave-one-out gives it, minus the log weights, and no infinities
    smoothed, k = array_stats.psislw(-np.maximum(log_weights - top, -700.0))
    weights = np.where(np.isfinite(log_weights), np.exp(smoothed - np.max(smoothed)), 0.0)
    return weights / np.sum(weights), float(k) if np.isfinite(k) else np.inf


def resample(weights: Float[np.ndarray, " n"], number: int, key: Array) -> np.ndarray:
    """Indices (number,) drawn in proportion to the weights, systematically, in random order."""
    first, order = jax.random.split(key)
    points = (np.arange(number) + float(jax.random.uniform(first))) / number
    index = np.searchsorted(np.cumsum(weights), points).clip(max=len(weights) - 1)
    return np.asarray(jax.random.permutation(order, jnp.asarray(index)))
