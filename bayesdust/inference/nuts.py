"""NUTS in segments: chains side by side, progress shown, every finished segment kept on disk.

Each chain is NumPyro's NUTS kernel stepped inside one compiled `scan` of fixed length, so it is
compiled once whatever the number of draws, and a run stopped between segments goes on with exactly
the draws it would have had. On a CPU the chains run in threads, one a core (XLA leaves Python's
lock while it computes); on an accelerator they are one vmapped program.
"""

import inspect
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro import handlers
from numpyro.infer import NUTS, Predictive
from numpyro.infer.util import potential_energy, unconstrain_fn

from bayesdust.callbacks import OnProgress, unheard
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.files import DAMAGED, write_atomically
from bayesdust.inference.coordinates import Coordinates, coordinates_of

SEGMENT = 100  # transitions
CANDIDATES = 32  # prior draws from which each chain takes its start
# doublings of a trajectory, in warm-up and after: before the mass matrix is known long ones are wasted
# (free-form model: the first 100 transitions took ten minutes with 10, one with 7)
DEPTH = (7, 10)
DENSE = 100  # coordinates


class Draws(NamedTuple):
    """Unconstrained draws, {site: (chain, draw, ...)}, and sampler statistics (chain, draw)."""

    z: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]


@dataclass
class Plan:
    """How to run NUTS. `num_warmup` and `num_draws` are per chain, in segments of 100 transitions.

    `checkpoint` is a folder for finished segments, from which the same plan goes on; `on_progress`
    is called with (transitions done, in all, phase), from the thread that called `run_nuts`; wall
    times in seconds are added to `timings` under compile, warmup and sampling. A `dense_mass` of None is
    one for up to `DENSE` coordinates.
    """

    num_warmup: int = 1000
    num_draws: int = 1000
    num_chains: int = 4
    seed: int = 0
    target_accept: float = 0.85
    dense_mass: bool | None = None
    checkpoint: Path | None = None
    on_progress: OnProgress = unheard
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def segments(self) -> tuple[int, int]:
        """Number of segments in warm-up and in all."""
        warm = -(-self.num_warmup // SEGMENT)
        return warm, warm + -(-self.num_draws // SEGMENT)


def run_nuts(model: Callable[[Any], Any], data: Any, plan: Plan) -> Draws:
    """Sample `model(data)`; returns whole chains in order, warm-up left out.

    Raises BayesdustError where no starting point has a finite density, ResumableError where a
    saved segment is damaged.
    """
    clock = time.perf_counter()
    plan.on_progress(0, 0, "compiling")
    energy = jax.jit(partial(potential_energy, model, (data,), {}))
    coordinates = coordinates_of(model, data)
    starts = starting_points(model, data, energy, plan.num_chains, stage_key(plan.seed, "start"))
    kernel = kernel_of(coordinates, energy, starts, plan.target_accept, plan.dense_mass)
    states = _initial_states(kernel, coordinates.from_unconstrained(starts), plan)
    run = _run_threads if jax.default_backend() == "cpu" else _run_batch
    advance = _compile(kernel, coordinates, states, vectorised=run is _run_batch)
    plan.timings["compile"] = time.perf_counter() - clock
    return _assemble(run(advance, states, plan), plan)


def kernel_of(
    coordinates: Coordinates,
    energy: Callable,
    starts: dict[str, Array],
    target_accept: float,
    dense_mass: bool | None = None,
) -> NUTS:
    """NumPyro's kernel in `coordinates`, of chains that begin at `starts`; `dense_mass` as of `Plan`."""
    # of few coordinates the covariance can be learnt in the warm-up
    few = sum(value[0].size for value in starts.values()) <= DENSE
    return NUTS(
        potential_fn=coordinates.potential(energy),
        dense_mass=few if dense_mass is None else dense_mass,
        target_accept_prob=target_accept,
        max_tree_depth=DEPTH,
    )


def stage_key(seed: int, stage: str) -> Array:
    """A random key for one named stage of a run."""
    number = int.from_bytes(stage.encode()[:8].ljust(8, b"\0"), "little") % (2**31)
    return jax.random.fold_in(jax.random.PRNGKey(seed), number)


def latent_sites(model: Callable[[Any], Any], data: Any) -> list[str]:
    """Names of the sampled sites, in the order of the model; nothing is computed."""
    return [name for name, observed in sample_sites(model, data).items() if not observed]


def sample_sites(model: Callable[[Any], Any], data: Any) -> dict[str, bool]:
    """Name -> whether it is observed, of every sample site in the order of the model; nothing is computed."""
    found: dict[str, bool] = {}

    def run(key: Array) -> None:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(data)
        sample = {name: site for name, site in trace.items() if site["type"] == "sample"}
        found.update({name: site["is_observed"] for name, site in sample.items()})

    jax.eval_shape(run, jax.random.PRNGKey(0))
    return found


def starting_points(
    model: Callable[[Any], Any], data: Any, energy: Callable, number: int, key: Array
) -> dict[str, Array]:
    """`number` unconstrained points {site: (number, ...)}, dispersed but within the data's reach.

    Each is the best of `CANDIDATES` prior draws, by the potential `energy`.

    Raises BayesdustError where no draw has a finite density.
    """
    z, lowest = jax.jit(lambda key: best_of_prior(model, data, energy, number, key))(key)
    if not np.all(np.isfinite(lowest)):
        code = getattr(inspect.unwrap(model), "__code__", None)  # of the user's file
        raise BayesdustError(
            f"{code.co_filename if code else 'The model'}: no draw from the prior gives the stars a finite "
            "likelihood: check its priors, and the units of the stars."
        )
    return z


def best_of_prior(
    model: Callable[[Any], Any], data: Any, energy: Callable, number: int, key: Array
) -> tuple[dict[str, Array], Array]:
    """The most probable of `CANDIDATES` prior draws, `number` times: unconstrained points and energies."""
    sites = latent_sites(model, data)
    draw = Predictive(model, num_samples=number * CANDIDATES, return_sites=sites, parallel=True)
    z = jax.vmap(lambda d: unconstrain_fn(model, (data,), {}, d))(draw(key, data))
    u = jax.lax.map(energy, z, batch_size=CANDIDATES).reshape(number, CANDIDATES)
    u = jnp.where(jnp.isfinite(u), u, jnp.inf)
    best = jnp.arange(number) * CANDIDATES + u.argmin(axis=1)
    return {name: value[best] for name, value in z.items()}, u.min(axis=1)


def _initial_states(kernel: NUTS, starts: dict[str, Array], plan: Plan) -> list[Any]:
    """Each chain's state before its first transition."""
    warm = plan.segments[0] * SEGMENT
    start = jax.jit(lambda key, z: kernel.init(key, warm, z, model_args=(), model_kwargs={}))
    keys = jax.random.split(stage_key(plan.seed, "nuts"), plan.num_chains)
    return [
        start(key, {name: value[index] for name, value in starts.items()})
        for index, key in enumerate(keys)
    ]


def _compile(
    kernel: NUTS, coordinates: Coordinates, states: list[Any], vectorised: bool
) -> Callable:
    """The compiled segment: state -> (state, draws, statistics)."""

    def transition(state: Any, _: None) -> tuple[Any, tuple[dict[str, Array], dict[str, Array]]]:
        state = kernel.sample(state, (), {})
        stats = {
            "diverging": state.diverging,
            "energy": state.energy,
            "n_steps": state.num_steps,
            "accept_prob": state.accept_prob,
            "step_size": state.adapt_state.step_size,
            "lp": -state.potential_energy,
        }
        return state, (coordinates.to_unconstrained(state.z), stats)

    def segment(state: Any) -> tuple[Any, tuple[dict[str, Array], dict[str, Array]]]:
        return jax.lax.scan(transition, state, None, length=SEGMENT)

    if vectorised:
        batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return jax.jit(jax.vmap(segment)).lower(batch).compile()
    return jax.jit(segment).lower(states[0]).compile()


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # which macOS lacks
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Chain:
    """One chain, or on an accelerator all of them: where it is, and its segments so far."""

    index: int
    state: Any
    kept: list[Draws]

    def step(self, advance: Callable, plan: Plan) -> None:
        self.state, out = jax.block_until_ready(advance(self.state))
        draws = Draws(*jax.tree.map(np.asarray, out))
        _save(_file(plan, self.index, len(self.kept)), self.state, draws)
        self.kept.append(draws)


def _run_threads(advance: Callable, states: list[Any], plan: Plan) -> list[list[Draws]]:
    """The chains in turn, a segment at a time, in as many threads as there are cores.

    Nothing is traced in the threads (NumPyro's handlers are global), they only run `advance`. If
    one fails or the user stops the run, the segments in hand are finished and no other is begun.
    """
    chains = [_resume(plan, index, state) for index, state in enumerate(states)]
    board = _Board(plan, chains)
    with ThreadPoolExecutor(min(len(chains), cores())) as pool:
        running: dict[Future, _Chain] = {}
        waiting = chains
        try:
            while waiting or running:
                running |= {
                    pool.submit(chain.step, advance, plan): chain
                    for chain in waiting
                    if len(chain.kept) < plan.segments[1]
                }
                finished = wait(running, return_when=FIRST_COMPLETED).done
                waiting = [running.pop(future) for future in finished]
                for future in finished:
                    future.result()
                board.show()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [chain.kept for chain in chains]


def _run_batch(advance: Callable, states: list[Any], plan: Plan) -> list[list[Draws]]:
    """All chains in one vmapped program, for accelerators."""
    chain = _resume(plan, 0, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
    board = _Board(plan, [chain])
    while len(chain.kept) < plan.segments[1]:
        chain.step(advance, plan)
        board.show()
    return [
        [jax.tree.map(lambda leaf, i=index: leaf[i], part) for part in chain.kept]
        for index in range(plan.num_chains)
    ]


class _Board:
    """How far the chains are: tells the user, and takes the times."""

    def __init__(self, plan: Plan, chains: list[_Chain]) -> None:
        self.plan = plan
        self.chains = chains
        self.started = time.perf_counter()
        self.warm: float | None = None
        plan.timings |= {"warmup": 0.0, "sampling": 0.0}
        self.show()

    def show(self) -> None:
        warm, total = self.plan.segments
        done = [len(chain.kept) for chain in self.chains]
        now = time.perf_counter()
        if self.warm is None and min(done) >= warm:
            self.warm = now
        self.plan.timings["warmup"] = (self.warm or now) - self.started
        self.plan.timings["sampling"] = now - (self.warm or now)
        unit = SEGMENT * self.plan.num_chains // len(done)
        phase = "warm-up" if self.warm is None else "sampling"
        self.plan.on_progress(sum(done) * unit, total * len(done) * unit, phase)


def _file(plan: Plan, index: int, number: int) -> Path | None:
    return None if plan.checkpoint is None else plan.checkpoint / f"chain{index}-{number:04d}.npz"


def _save(path: Path | None, state: Any, draws: Draws) -> None:
    """Keep one segment on disk, whole or not at all: its draws, and the state to go on from."""
    if path is None:
        return
    arrays: dict[str, Any] = {f"z.{k}": v for k, v in draws.z.items()}
    arrays |= {f"stats.{k}": v for k, v in draws.stats.items()}
    arrays |= {f"state.{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_atomically(path, file.getvalue())


def _resume(plan: Plan, index: int, state: Any) -> _Chain:
    """A chain with the segments already on disk, at the state to go on from."""
    chain = _Chain(index, state, [])
    while (path := _file(plan, index, len(chain.kept))) is not None and path.exists():
        try:
            chain.state, draws = _read(path, state)
        except DAMAGED as error:
            raise ResumableError(
                f"{path} is damaged: remove that file and repeat the command."
            ) from error
        chain.kept.append(draws)
    return chain


def _read(path: Path, like: Any) -> tuple[Any, Draws]:
    """A segment that `_save` wrote; its state has the structure of `like`."""
    parts: dict[str, dict[str, np.ndarray]] = {"z": {}, "stats": {}, "state": {}}
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        for name in file.files:
            group, _, key = name.partition(".")
            parts[group][key] = file[name]
    expected, structure = jax.tree.flatten(like)
    leaves = [parts["state"][str(i)] for i in range(len(parts["state"]))]
    for leaf, other in zip(leaves, expected, strict=True):
        if (leaf.shape, leaf.dtype) != (np.shape(other), np.asarray(other).dtype):
            raise ValueError("the state is that of another program")
    return jax.tree.unflatten(structure, map(jnp.asarray, leaves)), Draws(
        parts["z"], parts["stats"]
    )


def _assemble(chains: list[list[Draws]], plan: Plan) -> Draws:
    """Join segments into (chain, draw, ...) arrays without the warm-up."""
    warm = plan.segments[0]

    def join(part: Callable[[Draws], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        names = part(chains[0][0])
        joined = {
            name: np.stack(
                [np.concatenate([part(seg)[name] for seg in chain[warm:]]) for chain in chains]
            )
            for name in names
        }
        return {name: value[:, : plan.num_draws] for name, value in joined.items()}

    return Draws(join(lambda d: d.z), join(lambda d: d.stats))
