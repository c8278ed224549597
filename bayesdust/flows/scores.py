"""Scores: the gradients of ln f in position and in velocity, at millions of points, in float32."""

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.flows.autoregressive import PhaseSpaceFlow, split

CHUNK = 4000  # points at once: their activations stay in the cache
FASTEST = 600.0  # km/s: no star near the Sun is bound to the Milky Way at more
_SPARE = 8  # velocities drawn beyond those asked for at a place, to replace faster ones


def scores(
    flow: PhaseSpaceFlow,
    x: Float[Array, "n 3"],
    v: Float[Array, "n 3"],
    chunk: int = CHUNK,
    conditional: bool = False,
) -> tuple[Float[Array, "n 3"], Float[Array, "n 3"]]:
    """grad_x [1/kpc] and grad_v [s/km] of ln n(x) + ln p(v | x) at n points [kpc, km/s].

    With `conditional` of ln p(v | x) alone, which a selection by place does not change. NaN at points
    outside the survey's ball, where there is no density.
    """
    x, v = jnp.asarray(x, jnp.float32), jnp.asarray(v, jnp.float32)
    return _scores(flow, x, v, chunk, conditional)


def ensemble_scores(
    flows: PhaseSpaceFlow,
    x: Float[Array, "n 3"],
    v: Float[Array, "n 3"],
    chunk: int = CHUNK,
    conditional: bool = False,
) -> tuple[Float[Array, "m n 3"], Float[Array, "m n 3"]]:
    """`scores` of every member of an ensemble, one after the other; NaN outside the survey's ball."""
    weights, rest = split(flows)
    x, v = jnp.asarray(x, jnp.float32), jnp.asarray(v, jnp.float32)
    return jax.lax.map(lambda w: _scores(eqx.combine(w, rest), x, v, chunk, conditional), weights)


@eqx.filter_jit
def velocities_at(
    flow: PhaseSpaceFlow, key: Array, x: Float[Array, "n 3"], number: int, fastest: float = FASTEST
) -> Float[Array, "n k 3"]:
    """`number` velocities [km/s] drawn at each of n places [kpc], for scores to be asked at.

    In some 3 of 10,000 draws a flow sends a star where it has seen none, at thousands of km/s, and one such
    row of the Boltzmann equation outweighs all others: speeds above `fastest` are left out for others.
    """
    plain = paramax.unwrap(flow)

    def one(at: tuple[Array, Array]) -> Array:
        v = plain.velocities(*at, number + _SPARE)
        slow = jnp.linalg.norm(v, axis=-1) < fastest
        return v[jnp.argsort(~slow, stable=True)[:number]]

    x = jnp.asarray(x, jnp.float32)
    return jax.lax.map(one, (jax.random.split(key, len(x)), x), batch_size=50)


@eqx.filter_jit
def _scores(
    flow: PhaseSpaceFlow, x: Array, v: Array, chunk: int, conditional: bool
) -> tuple[Array, Array]:
    plain = paramax.unwrap(flow)  # once, not at every point

    def ln_density(x: Array, v: Array) -> Array:
        if not conditional:
            return plain.log_prob(x, v)
        edge = jax.lax.stop_gradient(plain.ln_n(x))
        return jnp.where(edge > -jnp.inf, plain.ln_p(v, x), -jnp.inf)

    gradient = jax.value_and_grad(ln_density, argnums=(0, 1))

    def one(at: tuple[Array, Array]) -> tuple[Array, Array]:
        ln_f, (slope_x, slope_v) = gradient(*at)
        inside = ln_f > -jnp.inf  # the ball's map is cut off outside: its slope means nothing there
        return jnp.where(inside, slope_x, jnp.nan), jnp.where(inside, slope_v, jnp.nan)

    return jax.lax.map(one, (x, v), batch_size=chunk)
