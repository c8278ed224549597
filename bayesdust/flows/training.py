"""Training of phase-space flows: weighted maximum likelihood, all members of an ensemble in one program.

Every member sees the same minibatches with weights of its own: star weights (such as 1/epsilon) times
Bayesian-bootstrap ones (Rubin 1981), exponential with mean one; or a copy of the stars of its own, resampled
within their errors. Adam, warmed up and then decayed to nothing by a cosine, and the weights that did best
on held-out stars are kept, member by member. After every epoch the state is written, whole or not at
all, so a run that was killed goes on to the flows it would have given.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.files import write_atomically
from bayesdust.flows.autoregressive import Architecture, PhaseSpaceFlow, split
from bayesdust.flows.descent import careful_adam, descend

FEWEST = 100  # stars
_WARM = 0.05  # of the steps


@dataclass(frozen=True)
class Schedule:
    """How to train. `held_out` is the share of stars that training does not see; `patience` epochs without
    progress on them end it early (0: never)."""

    epochs: int = 30
    batch: int = 2000
    learning_rate: float = 4e-3
    held_out: float = 0.1
    patience: int = 8
    seed: int = 0


class Trained(NamedTuple):
    """An ensemble (a leading member axis on every array) and how it got there.

    `losses` (epoch, 2, member): mean of -ln f over training and held-out stars, weighted.
    """

    flows: PhaseSpaceFlow
    losses: Float[np.ndarray, "epoch 2 member"]
    held_out: np.ndarray


def train(
    x: Float[np.ndarray, "*m n 3"],
    v: Float[np.ndarray, "*m n 3"],
    architecture: Architecture,
    *,
    members: int = 1,
    weights: Float[np.ndarray, "*m n"] | None = None,
    bootstrap: bool = True,
    schedule: Schedule | None = None,
    checkpoint: Path | None = None,
    on_progress: OnProgress = unheard,
) -> Trained:
    """Train `members` flows on stars at x [kpc] with velocities v [km/s].

    (n, 3) for all members, or (members, n, 3): a resampled copy each; `weights` (n,) or (members, n), zero
    where a copy has lost a star. Member 0 has no bootstrap weights.

    Raises BayesdustError for arrays of other shapes, no member, fewer than 100 stars, numbers that are
    not finite, stars outside the ball, weights that are negative or all zero; ResumableError where the
    saved state is damaged.
    """
    schedule = schedule or Schedule()
    x, v = np.asarray(x, np.float32), np.asarray(v, np.float32)
    _check(x, v, weights, members, architecture)
    root, count = jax.random.key(schedule.seed), x.shape[-2]
    shares = _shares(jax.random.fold_in(root, 1), members, count, weights, bootstrap)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(root, 0), count))
    tested = max(1, round(schedule.held_out * count))
    on_test, on_train = (
        _Part(*(jnp.asarray(a[..., rows, :]) for a in (x, v)), jnp.asarray(shares[:, rows]))
        for rows in (order[:tested], order[tested:])
    )
    parameters, static = _untrained(jax.random.fold_in(root, 2), members, architecture)
    batch = min(schedule.batch, count - tested)
    steps = (count - tested) // batch
    optimizer = _optimizer(schedule, steps)
    loss = _loss(static)
    epoch = _epoch(loss, optimizer, batch, steps)
    score = _score(loss, batch)
    state = _State(
        jnp.asarray(0),
        (parameters, jax.vmap(optimizer.init)(parameters)),
        parameters,
        jnp.full(members, jnp.inf, jnp.float32),
        jnp.zeros(members, int),
        jnp.full((schedule.epochs, 2, members), jnp.nan, jnp.float32),
    )
    state = _resume(state, checkpoint)
    on_progress(0, 0, "compiling")
    while not _finished(state, schedule):
        number = int(state.done)
        key = jax.random.fold_in(jax.random.fold_in(root, 3), number)
        walk, mean = epoch(state.walk, on_train, key)
        state = _after_epoch(state, walk, mean, score(walk[0], on_test))
        _save(state, checkpoint)
        on_progress(number + 1, schedule.epochs, "training")
    losses = np.asarray(state.losses)[: int(state.done)]
    return Trained(eqx.combine(state.best, static), losses, np.sort(order[:tested]))


class _Part(NamedTuple):
    """Stars and each member's weights for them (member, n); a copy of the stars a member, or one for all."""

    x: Float[Array, "*m n 3"]
    v: Float[Array, "*m n 3"]
    weights: Float[Array, "m n"]

    def take(self, rows: Array) -> "_Part":
        """The stars in `rows`."""
        return _Part(self.x[..., rows, :], self.v[..., rows, :], self.weights[:, rows])

    @property
    def axes(self) -> "_Part":
        """Where the members are, for vmap."""
        own = 0 if self.x.ndim == 3 else None
        return _Part(own, own, 0)


class _State(NamedTuple):
    """All that the rest of the training depends on."""

    done: Array
    walk: Any
    best: Any
    lowest: Array
    when: Array
    losses: Array


def _shares(
    key: Array, members: int, count: int, weights: np.ndarray | None, bootstrap: bool
) -> Float[np.ndarray, "m n"]:
    """Weights with mean one; every member but the first has bootstrap ones as well."""
    w = np.ones(count, np.float32) if weights is None else np.asarray(weights, np.float32)
    shares = np.array(np.broadcast_to(w / w.mean(), (members, count)))
    if bootstrap and members > 1:
        extra = np.array(jax.random.exponential(key, (members - 1, count), jnp.float32))
        shares[1:] *= extra / extra.mean(axis=1, keepdims=True)
    return shares


def _untrained(key: Array, members: int, architecture: Architecture) -> tuple[Any, Any]:
    """What is trained, with a leading member axis, and the rest."""
    keys = jax.random.split(key, members)
    parameters = jax.vmap(lambda key: split(PhaseSpaceFlow.untrained(key, architecture))[0])(keys)
    return parameters, split(PhaseSpaceFlow.untrained(keys[0], architecture))[1]


def _optimizer(schedule: Schedule, steps: int) -> optax.GradientTransformation:
    total = schedule.epochs * steps
    warm = max(1, int(_WARM * total))
    rate = optax.warmup_cosine_decay_schedule(
        0.0, schedule.learning_rate, warm, max(total, warm + 1)
    )
    return careful_adam(rate, steps)


def _loss(static: Any) -> Callable[[Any, _Part], Array]:
    """Weighted mean of -ln f over some stars, of one member."""

    def loss(parameters: Any, stars: _Part) -> Array:
        flow = paramax.unwrap(eqx.combine(parameters, static))
        ln_f = jax.vmap(flow.log_prob)(stars.x, stars.v)
        return -jnp.sum(stars.weights * ln_f) / jnp.sum(stars.weights)

    return loss


def _epoch(
    loss: Callable[[Any, _Part], Array],
    optimizer: optax.GradientTransformation,
    batch: int,
    steps: int,
) -> Callable[[Any, _Part, Array], tuple[Any, Array]]:
    """One pass over shuffled stars; returns parameters and memory, and each member's mean loss."""

    @jax.jit
    def epoch(state: Any, stars: _Part, key: Array) -> tuple[Any, Array]:
        together = jax.vmap(partial(descend, loss, optimizer), (0, stars.axes))
        shuffled = jax.random.permutation(key, stars.weights.shape[1])[: steps * batch]
        state, values = jax.lax.scan(
            lambda state, rows: together(state, stars.take(rows)),
            state,
            shuffled.reshape(steps, batch),
        )
        return state, values.mean(axis=0)

    return epoch


def _score(loss: Callable[[Any, _Part], Array], batch: int) -> Callable[[Any, _Part], Array]:
    """Each member's loss over all of a part, batch by batch."""

    def sums(parameters: Any, stars: _Part) -> Array:
        total = jnp.sum(stars.weights)
        return jnp.stack([loss(parameters, stars) * total, total])

    @jax.jit
    def score(parameters: Any, stars: _Part) -> Array:
        count = stars.weights.shape[1]
        parts = -(-count // batch)
        rows = jnp.arange(parts * batch).reshape(parts, batch)

        def part(_: None, rows: Array) -> tuple[None, Array]:
            some = stars.take(jnp.minimum(rows, count - 1))
            # a last part that is not full, or has lost its stars, must not give 0/0
            some = some._replace(weights=some.weights * (rows < count) + 1e-30)
            return None, jax.vmap(sums, (0, some.axes))(parameters, some)

        total = jax.lax.scan(part, None, rows)[1].sum(axis=0)
        return total[:, 0] / total[:, 1]

    return score


def _after_epoch(state: _State, walk: Any, mean: Array, held: Array) -> _State:
    """Each member keeps the parameters that did best on held-out stars."""
    better = held < state.lowest

    def keep(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return _State(
        state.done + 1,
        walk,
        jax.tree.map(keep, walk[0], state.best),
        jnp.minimum(held, state.lowest),
        jnp.where(better, state.done, state.when),
        state.losses.at[state.done].set(jnp.stack([mean, held])),
    )


def _finished(state: _State, schedule: Schedule) -> bool:
    """Whether all epochs are over, or no member has done better on held-out stars for `patience`."""
    done = int(state.done)
    waited = done - 1 - int(jnp.max(state.when))
    return done >= schedule.epochs or (0 < schedule.patience <= waited and done > 0)


def _check(
    x: np.ndarray,
    v: np.ndarray,
    weights: np.ndarray | None,
    members: int,
    architecture: Architecture,
) -> None:
    if members < 1:
        raise BayesdustError(
            f"An ensemble of {members} flows cannot be trained: ask for one or more."
        )
    count = x.shape[-2] if x.ndim > 1 else 0
    if x.shape != v.shape or x.shape not in ((count, 3), (members, count, 3)):
        raise BayesdustError(
            f"Positions of shape {x.shape} and velocities of shape {v.shape} do not fit {members} flows: "
            f"give (n, 3) each, or ({members}, n, 3)."
        )
    if weights is not None and np.shape(weights) not in ((count,), (members, count)):
        raise BayesdustError(
            f"Star weights of shape {np.shape(weights)} do not fit {count} stars: give ({count},) or "
            f"({members}, {count})."
        )
    if count < FEWEST:
        raise BayesdustError(f"A flow needs at least {FEWEST} stars, and there are {count}.")
    if not (np.isfinite(x).all() and np.isfinite(v).all()):
        raise BayesdustError("Positions or velocities are not finite: leave those stars out.")
    off = np.linalg.norm(x - np.asarray(architecture.centre, np.float32), axis=-1)
    if np.any(off >= architecture.radius):
        row = int(np.argmax(off.reshape(-1, count).max(axis=0))) + 1
        raise BayesdustError(
            f"Row {row} lies {off.max():.3f} kpc from the centre of a survey of {architecture.radius:g} "
            "kpc: give a larger radius or cut the stars."
        )
    if weights is not None:
        w = np.asarray(weights)
        if not (np.isfinite(w).all() and (w >= 0).all() and (w.sum(axis=-1) > 0).all()):
            raise BayesdustError("Star weights must be finite, not negative and not all zero.")


def _save(state: _State, folder: Path | None) -> None:
    if folder is not None:
        file = io.BytesIO()
        eqx.tree_serialise_leaves(file, state)
        content = file.getvalue()
        write_atomically(folder / "training.eqx", hashlib.sha256(content).digest() + content)


def _resume(state: _State, folder: Path | None) -> _State:
    path = None if folder is None else folder / "training.eqx"
    if path is None or not path.exists():
        return state
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError("not as it was written")
        return eqx.tree_deserialise_leaves(io.BytesIO(content[32:]), state)
    except (OSError, EOFError, RuntimeError, TypeError, ValueError) as error:
        raise ResumableError(f"{path} is damaged: remove that file and go on.") from error
