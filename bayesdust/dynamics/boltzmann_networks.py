"""The Boltzmann equation solved for a potential and an efficiency that are networks of the place.

As in Putney+2024 (arXiv:2412.14236), Phi(x) and ln epsilon(x) make the mean square of

    v . grad_x ln f_obs - v . grad ln epsilon - grad Phi . grad_v ln f_obs                            (1)

least over places x and velocities v drawn from the flow. At one place the sum over its velocities is a
quadratic form in the six numbers y = (-grad Phi, grad ln epsilon), with t = v . grad_x ln f_obs and the
rows A = (grad_v ln f_obs, -v) of `boltzmann.acceleration_and_dust`,

    sum (t + A y)^2 = |root y - target|^2 + rest,    root^T root = A^T A,                             (2)

`rest` being what even the pointwise answer leaves: the velocities are read once, and a step costs the
gradients of two networks at some hundred places whatever the number of velocities.

For nearly Gaussian velocities the valley of (2) is long and narrow: force and dust can be exchanged at
next to no cost. The descent therefore starts from a fit of both gradients to the pointwise answers, in whose
metric there is none (`Descent.first`). With exact scores that leaves a smaller error after as many steps;
with a flow's the flow's own errors are larger than the difference (docs/results/flow-forces.md).

Kalda & Green 2025 (arXiv:2512.02115) ask for the density n(x) of all the stars, seen or not, in place of
epsilon, from the velocities' distribution p(v | x) alone, which no epsilon(x) changes:

    v . grad_x ln p + v . grad ln n - grad Phi . grad_v ln p = 0.                                     (3)

As ln f_obs = ln n_obs + ln p and n_obs = epsilon n, it is (1) with n_obs/n for epsilon and its own network
(`TracerDensity`): what is smooth is then n, not epsilon.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.dynamics.boltzmann import (
    accelerations,
    accelerations_and_dust,
    informative,
    principal,
    tail_weights,
)
from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import PhaseSpaceFlow, member
from bayesdust.flows.descent import careful_adam, descend
from bayesdust.flows.scores import ensemble_scores, velocities_at
from bayesdust.potentials.base import Potential
from bayesdust.potentials.networks import Network, PotentialNetwork

CHUNK = 200  # steps between two reports of progress
LOCAL = 1e8  # Msun/kpc3: the density that a negative one is compared with
FEW = 64  # places of a batch at which the density, three second derivatives, is asked for


class Efficiency(eqx.Module):
    """epsilon(x) = sigmoid(network), between 0 and 1; a factor common to all places means nothing."""

    network: Network

    def ln_epsilon(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """ln epsilon at x (3,) [kpc], but for a constant."""
        return jax.nn.log_sigmoid(self.network(x))


class TracerDensity(eqx.Module):
    """n(x) = exp(network) of all the stars, seen or not; a common factor means nothing."""

    network: Network

    def ln_n(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """ln n at x (3,) [kpc], but for a constant."""
        return self.network(x)

    def ln_epsilon(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """What stands for ln epsilon in (1) when ln p is put in for ln f_obs: -ln n."""
        return -self.network(x)


class Equations(NamedTuple):
    """(2) at n places x [kpc]: p is 6, or 3 where no dust is allowed for.

    `answer` is the pointwise solution, NaN where degenerate; `size` the mean of t^2 over all velocities,
    by which the residuals are divided; root, target and rest are those of the mean over velocities.
    """

    x: Float[Array, "n 3"]
    root: Float[Array, "n p p"]
    target: Float[Array, "n p"]
    rest: Float[Array, " n"]
    answer: Float[Array, "n p"]
    size: Float[Array, ""]

    @classmethod
    def of(
        cls,
        x: Float[Array, "n 3"],
        v: Float[Array, "n K 3"],
        score_x: Float[Array, "n K 3"],
        score_v: Float[Array, "n K 3"],
        weights: Float[Array, "n K"] | None = None,
        dust: bool = True,
    ) -> Self:
        """From K velocities [km/s] at each place and the scores there (of ln f_obs, or of ln p for (3)).

        Raises BayesdustError for fewer velocities than there are unknowns, or scores that are not finite
        (places outside the flow's ball).
        """
        x, v, score_x, score_v = (jnp.asarray(a, float) for a in (x, v, score_x, score_v))
        w = jnp.ones(v.shape[:2]) if weights is None else jnp.asarray(weights, float)
        finite = np.isfinite(score_x).all(axis=(1, 2)) & np.isfinite(score_v).all(axis=(1, 2))
        if not finite.all():
            raise BayesdustError(
                f"The scores at {int((~finite).sum())} of {len(x)} places, the first at row "
                f"{int(np.argmin(finite)) + 1}, are not finite: ask inside the survey's ball."
            )
        solver = accelerations_and_dust if dust else accelerations
        answer = solver(v, score_x, score_v, w).values
        w = w / jnp.sum(w, axis=1, keepdims=True)
        t = jnp.sum(v * score_x, axis=-1)
        rows = jnp.concatenate([score_v, -v], axis=-1) if dust else score_v
        root, target, rest = jax.jit(jax.vmap(_quadratic))(rows, t, w)
        return cls(x, root, target, rest, answer, jnp.mean(jnp.sum(w * t**2, axis=1)))

    def residual(self, y: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Mean over velocities of the square of (1) at every place, over `size`."""
        off = jnp.einsum("nij,nj->ni", self.root, y) - self.target
        return (jnp.sum(off**2, axis=1) + self.rest) / self.size


def flow_equations(
    flows: PhaseSpaceFlow,
    key: Array,
    places: int = 8000,
    velocities: int = 48,
    within: float = 0.875,
    conditional: bool = False,
    dust: bool = True,
) -> Equations:
    """(2) at places and velocities drawn from the first member of an ensemble, of its members' mean scores.

    Places within `within` of the ball's radius from its centre; far velocities count less
    (`tail_weights`). `conditional`: of ln p(v | x), for (3) and a `TracerDensity`.
    """
    first = paramax.unwrap(member(flows, 0))
    to_x, to_v = jax.random.split(key)
    ball = first.n.bijection.bijection.bijections[0]
    x = jnp.zeros((0, 3), jnp.float32)
    while len(x) < places:
        to_x, now = jax.random.split(to_x)
        more = eqx.filter_jit(first.stars)(now, 2 * places)[0]
        x = jnp.concatenate(
            [x, more[jnp.linalg.norm(more - ball.centre, axis=1) < within * ball.radius]]
        )
    x = x[:places]
    v = velocities_at(first, to_v, x, velocities)
    at = jnp.repeat(x, velocities, axis=0), v.reshape(-1, 3)
    score_x, score_v = (
        jnp.mean(s, axis=0).reshape(v.shape)
        for s in ensemble_scores(flows, *at, conditional=conditional)
    )
    return Equations.of(x, v, score_x, score_v, jax.vmap(tail_weights)(v.astype(float)), dust)


def _quadratic(rows: Array, t: Array, w: Array) -> tuple[Array, Array, Array]:
    """root (p, p), target (p,), rest () of (2); directions without information are left free."""
    normal, slope = rows.T @ (w[:, None] * rows), rows.T @ (w * t)
    length, squares, axes = principal(normal)
    known = informative(squares)
    size = jnp.sqrt(jnp.where(known, squares, 1.0))
    target = -jnp.where(known, axes.T @ (slope / length) / size, 0.0)
    root = jnp.where(known, size, 0.0)[:, None] * axes.T * length
    return root, target, jnp.maximum(jnp.sum(w * t**2) - jnp.sum(target**2), 0.0)


@dataclass(frozen=True)
class Descent:
    """How the networks are trained: `first` steps towards the pointwise answers, then `steps` on (1).

    `first` = 0 is a start from random weights. `batch` places a step; `positive` weighs the mean square
    of negative densities over 1e8 Msun/kpc3, beside a residual that is a part of its first term's.
    """

    first: int = 1500
    steps: int = 3000
    batch: int = 512
    learning_rate: float = 2e-3
    positive: float = 0.0
    seed: int = 0


class Solved(NamedTuple):
    """The trained fields, and the loss of every step; `residual` is the root mean square of (1) over all
    places as a part of its first term's, `floor` that of the pointwise answers: as low as it can get."""

    potential: PotentialNetwork
    screen: Efficiency | TracerDensity | None
    losses: Float[np.ndarray, " step"]
    residual: float
    floor: float


def solve(
    equations: Equations,
    potential: PotentialNetwork,
    screen: Efficiency | TracerDensity | None = None,
    descent: Descent | None = None,
    on_progress: OnProgress = unheard,
) -> Solved:
    """Train `potential` and `screen` on (1), or on (3) with a `TracerDensity`; no screen is no dust.

    The backbone of the potential stays as it is. The same arguments give the same fields. Raises
    BayesdustError where the equations are not those of the fields, or no place has a pointwise answer to
    start from.
    """
    descent = descent or Descent()
    if equations.root.shape[-1] != (3 if screen is None else 6):
        raise BayesdustError(
            "Equations with dust need a screen (Efficiency or TracerDensity), and those without it none."
        )
    usable = ~np.isnan(np.asarray(equations.answer)).any(axis=1)
    if descent.first and not usable.any():
        raise BayesdustError(
            "No place has a pointwise answer to start from: ask at more velocities, or start with first=0."
        )
    weights, rest = _split((potential, screen))
    data = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), equations)
    phases = (
        ("pointwise answers", _distance(data, usable), descent.first, np.flatnonzero(usable)),
        ("residual", _residual(descent.positive), descent.steps, np.arange(len(usable))),
    )
    losses: list[np.ndarray] = []
    for number, (phase, loss, steps, rows) in enumerate(phases):
        key = jax.random.fold_in(jax.random.key(descent.seed), number)
        for after, values in _descend(loss, rest, weights, data, rows, steps, descent, key):
            weights = after
            losses.append(values)
            on_progress(sum(map(len, losses)), descent.first + descent.steps, phase)
    fields = eqx.combine(weights, rest)
    y = _everywhere(fields, equations.x)
    return Solved(
        potential=fields[0],
        screen=fields[1],
        losses=np.concatenate([*losses, np.zeros(0)]),
        residual=float(jnp.sqrt(jnp.mean(equations.residual(y)))),
        floor=float(jnp.sqrt(jnp.mean(equations.rest) / equations.size)),
    )


def unknowns(fields: tuple[Potential, Any], x: Float[Array, "3"]) -> Float[Array, " p"]:
    """y = (-grad Phi, grad ln epsilon) at one place, without the latter where there is no screen."""
    potential, screen = fields
    a = potential.acceleration(x)
    return a if screen is None else jnp.concatenate([a, jax.grad(screen.ln_epsilon)(x)])


@eqx.filter_jit
def _everywhere(fields: tuple[Potential, Any], x: Array) -> Array:
    return jax.lax.map(lambda x: unknowns(fields, x), x, batch_size=1024)


def _split(fields: tuple[PotentialNetwork, Any]) -> tuple[Any, Any]:
    """The weights that are trained, and the rest, the potential's backbone among it."""
    trained = jax.tree.map(eqx.is_inexact_array, fields)
    if fields[0].backbone is not None:
        blank = jax.tree.map(lambda _: False, fields[0].backbone)
        trained = eqx.tree_at(lambda f: f[0].backbone, trained, blank)
    return eqx.partition(fields, trained)


def _distance(data: Equations, usable: np.ndarray) -> Callable[..., Array]:
    """Mean of a pseudo-Huber distance to the pointwise answers, in units of their spread: a few places
    where the answer is far off must not rule the start."""
    answer = data.answer[usable]
    three = [answer[:, i : i + 3] for i in range(0, answer.shape[1], 3)]
    spread = jnp.concatenate(
        [jnp.full(3, jnp.median(jnp.linalg.norm(part, axis=1)) + 1e-30) for part in three]
    )

    def loss(fields: Any, some: Equations) -> Array:
        off = (jax.vmap(lambda x: unknowns(fields, x))(some.x) - some.answer) / spread
        # the forces are known ten times better than the gradients of the dust, both as parts of themselves
        off = off * jnp.array([10.0] * 3 + [1.0] * (len(spread) - 3), jnp.float32)
        return jnp.mean(jnp.sqrt(1 + off**2) - 1)

    return loss


def _residual(positive: float) -> Callable[..., Array]:
    """The mean square of (1) over its first term's, and what negative densities cost."""

    def loss(fields: Any, some: Equations) -> Array:
        total = jnp.mean(some.residual(jax.vmap(lambda x: unknowns(fields, x))(some.x)))
        if positive:
            rho = jax.vmap(fields[0].density)(some.x[:FEW])
            total = total + positive * jnp.mean(jnp.minimum(rho / LOCAL, 0.0) ** 2)
        return total

    return loss


def _descend(
    loss: Callable[..., Array],
    rest: Any,
    weights: Any,
    data: Equations,
    rows: np.ndarray,
    steps: int,
    descent: Descent,
    key: Array,
) -> Any:
    """Weights and losses after every CHUNK of `steps` on batches of the places in `rows`."""
    warm = max(1, steps // 20)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, descent.learning_rate, warm, max(steps, warm + 1)
    )
    optimizer = careful_adam(rate, CHUNK, longest=1.0)
    batch, places = min(descent.batch, len(rows)), jnp.asarray(rows)

    def step(state: Any, key: Array) -> tuple[Any, Array]:
        some = places[jax.random.randint(key, (batch,), 0, len(places))]
        part = data._replace(**{k: getattr(data, k)[some] for k in data._fields if k != "size"})
        return descend(lambda w: loss(eqx.combine(w, rest), part), optimizer, state)

    chunk = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))
    state = (weights, optimizer.init(weights))
    for first in range(0, steps, CHUNK):
        keys = jax.random.split(jax.random.fold_in(key, first), min(CHUNK, steps - first))
        state, values = chunk(state, keys)
        yield state[0], np.asarray(values)
