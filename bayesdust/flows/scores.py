"""Scores: the gradients of ln f in position and in velocity, at millions of points, in float32."""

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.flows.autoregressive import PhaseSpaceFlow, split

CHUNK = 4000  # points at once: their activations stay in the cache


def scores(
    flow: PhaseSpaceFlow, x: Float[Array, "n 3"], v: Float[Array, "n 3"], chunk: int = CHUNK
) -> tuple[Float[Array, "n 3"], Float[Array, "n 3"]]:
    """grad_x [1/kpc] and grad_v [s/km] of ln n(x) + ln p(v | x) at n points [kpc, km/s].

    NaN at points outside the survey's ball, where there is no density.
    """
    return _scores(flow, jnp.asarray(x, jnp.float32), jnp.asarray(v, jnp.float32), chunk)


def ensemble_scores(
    flows: PhaseSpaceFlow, x: Float[Array, "n 3"], v: Float[Array, "n 3"], chunk: int = CHUNK
) -> tuple[Float[Array, "m n 3"], Float[Array, "m n 3"]]:
    """`scores` of every member of an ensemble, one after the other; NaN outside the survey's ball."""
    weights, rest = split(flows)
    x, v = jnp.asarray(x, jnp.float32), jnp.asarray(v, jnp.float32)
    return jax.lax.map(lambda w: _scores(eqx.combine(w, rest), x, v, chunk), weights)


@eqx.filter_jit
def _scores(flow: PhaseSpaceFlow, x: Array, v: Array, chunk: int) -> tuple[Array, Array]:
    plain = paramax.unwrap(flow)  # once, not at every point
    gradient = jax.value_and_grad(plain.log_prob, argnums=(0, 1))

    def one(at: tuple[Array, Array]) -> tuple[Array, Array]:
        ln_f, (slope_x, slope_v) = gradient(*at)
        inside = ln_f > -jnp.inf  # the ball's map is cut off outside: its slope means nothing there
        return jnp.where(inside, slope_x, jnp.nan), jnp.where(inside, slope_v, jnp.nan)

    return jax.lax.map(one, (x, v), batch_size=chunk)
