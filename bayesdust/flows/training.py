"""Training of phase-space flows: weighted maximum likelihood, all members of an ensemble in one program.

Every member sees the same minibatches with weights of its own: star weights (such as 1/epsilon) times
Bayesian-bootstrap ones (Rubin 1981), exponential with mean one; or a copy of the stars of its own, resampled
within their errors. Adam, warmed up and then decayed to nothing by a cosine, and the weights that did best
on held-out stars are kept, member by member. After every epoch the state is written, whole or not at
all, so a run that was killed goes on to the flows it would have given.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
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
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.flows.autoregressive import Architecture, PhaseSpaceFlow, split

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
    on_progress: Callable[[int, int, str], None] = lambda done, total, phase: None,
) -> Trained:
    """Train `members` flows on stars at x [kpc] with velocities v [km/s].

    (n, 3) for all members, or (members, n, 3): a resampled copy each; `weights` (n,) or (members, n), zero
    where a copy has lost a star. Member 0 has no bootstrap weights.

    Raises BayesdustError for fewer than 100 stars, numbers that are not finite, stars outside the ball
    or weights that are negative; ResumableError where the saved state is damaged.
    """
    schedule = schedule or Schedule()
    x, v = np.asarray(x, np.float32), np.asarray(v, np.float32)
    _check(x, v, weights, architecture)
    count = x.shape[-2]
    root = jax.random.key(schedule.seed)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(root, 0), count))
    tested = max(1, round(schedule.held_out * count))
    batch = min(schedule.batch, count - tested)
    steps = (count - tested) // batch
    w = np.ones(count, np.float32) if weights is None else np.asarray(weights, np.float32)
    shares = np.array(np.broadcast_to(w / w.mean(), (members, count)))
    if bootstrap and members > 1:
        extra = np.array(
            jax.random.exponential(jax.random.fold_in(root, 1), (members - 1, count), jnp.float32)
        )
        shares[1:] *= extra / extra.mean(axis=1, keepdims=True)

    keys = jax.random.split(jax.random.fold_in(root, 2), members)
    parameters = jax.vmap(lambda key: split(PhaseSpaceFlow.untrained(key, architecture))[0])(keys)
    static = split(PhaseSpaceFlow.untrained(keys[0], architecture))[1]
    total = schedule.epochs * steps
    rate = optax.warmup_cosine_decay_schedule(
        0.0, schedule.learning_rate, max(1, int(_WARM * total)), total
    )
    optimizer = optax.apply_if_finite(
        optax.chain(optax.clip_by_global_norm(5.0), optax.adam(rate)), max_consecutive_errors=steps
    )
    axis = 0 if x.ndim == 3 else None

    def loss(parameters: Any, x: Array, v: Array, w: Array) -> Array:
        flow = paramax.unwrap(eqx.combine(parameters, static))
        ln_f = jax.vmap(flow.log_prob)(x, v)
        return -jnp.sum(w * ln_f) / jnp.sum(w)

    def one_step(state: Any, x: Array, v: Array, w: Array) -> tuple[Any, Array]:
        parameters, memory = state
        value, slope = jax.value_and_grad(loss)(parameters, x, v, w)
        change, memory = optimizer.update(slope, memory, parameters)
        return (optax.apply_updates(parameters, change), memory), value

    together = jax.vmap(one_step, (0, axis, axis, 0))

    @jax.jit
    def epoch(state: Any, x: Array, v: Array, w: Array, key: Array) -> tuple[Any, Array]:
        shuffled = jax.random.permutation(key, count - tested)[: steps * batch]

        def step(state: Any, rows: Array) -> tuple[Any, Array]:
            return together(state, x[..., rows, :], v[..., rows, :], w[:, rows])

        state, values = jax.lax.scan(step, state, shuffled.reshape(steps, batch))
        return state, values.mean(axis=0)

    @jax.jit
    def score(parameters: Any, x: Array, v: Array, w: Array) -> Array:
        parts = -(-tested // batch)
        rows = jnp.minimum(jnp.arange(parts * batch), tested - 1).reshape(parts, batch)
        seen = (jnp.arange(parts * batch) < tested).reshape(parts, batch)

        def part(_: None, at: tuple[Array, Array]) -> tuple[None, Array]:
            rows, seen = at
            each = jax.vmap(
                lambda p, x, v, w: jnp.stack(
                    [loss(p, x, v, w * seen + 1e-30) * jnp.sum(w * seen), jnp.sum(w * seen)]
                ),
                (0, axis, axis, 0),
            )
            return None, each(parameters, x[..., rows, :], v[..., rows, :], w[:, rows])

        sums = jax.lax.scan(part, None, (rows, seen))[1].sum(axis=0)
        return sums[:, 0] / sums[:, 1]

    train_rows, test_rows = order[tested:], order[:tested]
    on_train, on_test = (
        (*(jnp.asarray(a[..., rows, :]) for a in (x, v)), jnp.asarray(shares[:, rows]))
        for rows in (train_rows, test_rows)
    )
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
    while int(state.done) < schedule.epochs and not _finished(state, schedule):
        number = int(state.done)
        key = jax.random.fold_in(jax.random.fold_in(root, 3), number)
        walk, mean = epoch(state.walk, *on_train, key)
        held = score(walk[0], *on_test)
        better = held < state.lowest
        best = jax.tree.map(
            lambda new, old, better=better: jnp.where(
                better.reshape(-1, *[1] * (new.ndim - 1)), new, old
            ),
            walk[0],
            state.best,
        )
        state = _State(
            jnp.asarray(number + 1),
            walk,
            best,
            jnp.minimum(held, state.lowest),
            jnp.where(better, number, state.when),
            state.losses.at[number].set(jnp.stack([mean, held])),
        )
        _save(state, checkpoint)
        on_progress(number + 1, schedule.epochs, "training")
    losses = np.asarray(state.losses)[: int(state.done)]
    return Trained(eqx.combine(state.best, static), losses, np.sort(test_rows))


class _State(NamedTuple):
    """All that the rest of the training depends on."""

    done: Array
    walk: Any
    best: Any
    lowest: Array
    when: Array
    losses: Array


def _finished(state: _State, schedule: Schedule) -> bool:
    """Whether no member has done better on held-out stars for `patience` epochs."""
    waited = int(state.done) - 1 - int(jnp.max(state.when))
    return schedule.patience > 0 and int(state.done) > 0 and waited >= schedule.patience


def _check(
    x: np.ndarray, v: np.ndarray, weights: np.ndarray | None, architecture: Architecture
) -> None:
    count = x.shape[-2]
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
    if weights is not None and not (np.all(np.isfinite(weights)) and np.all(weights >= 0)):
        raise BayesdustError("Star weights must be finite and not negative.")


def _save(state: _State, folder: Path | None) -> None:
    if folder is not None:
        unfinished = folder / "training.tmp"
        with open(unfinished, "wb") as file:
            eqx.tree_serialise_leaves(file, state)
        os.replace(unfinished, folder / "training.eqx")


def _resume(state: _State, folder: Path | None) -> _State:
    path = None if folder is None else folder / "training.eqx"
    if path is None or not path.exists():
        return state
    try:
        with open(path, "rb") as file:
            return eqx.tree_deserialise_leaves(file, state)
    except (OSError, EOFError, RuntimeError, TypeError, ValueError) as error:
        raise ResumableError(f"{path} is damaged: remove that file and go on.") from error
