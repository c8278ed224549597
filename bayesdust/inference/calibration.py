"""Simulation-based calibration: does a model's posterior mean what it says?

Draw parameters theta from the prior, velocities from the model at the catalogue's own places and errors, and
fit them. Then theta is one more draw of the posterior, and for every quantity q the number

    u = share of the posterior's draws with q below q(theta)                                        (1)

is uniform over many replicas (Cook, Gelman & Rubin 2006; Talts+2018, arXiv:1804.06788), whatever the prior
and however few stars. Draws are thinned by their effective number, and ties and the grain of finite draws are
broken at random, so that u is uniform exactly. One of the quantities is the ln likelihood of the velocities:
a posterior that leaves data out of account is calibrated in theta alone, and not in this (Modrak+2023,
arXiv:2211.02383).

Where a model fits the light to stars' positions too, theta is drawn from its posterior given the positions
alone, which stay as they are (Sailynoja+2025, arXiv:2502.03279).

Velocities may be drawn by another model than the one that is fitted: what the wrong one gets wrong shows.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from bayesdust.catalogs.dwarf import Stars
from bayesdust.errors import BayesdustError
from bayesdust.inference import nuts
from bayesdust.inference.coordinates import coordinates_of
from bayesdust.inference.dwarf_data import ANGLES, DwarfData
from bayesdust.inference.nuts import latent_sites, sample_sites, stage_key
from bayesdust.inference.posterior import prepared, versions
from bayesdust.inference.programs import load

VELOCITIES = "v_los"
LN_LIKELIHOOD = "ln_likelihood"
SLOPE = "slope_rhalf"
POOL = 1000  # draws of theta, thinned, where it cannot be drawn from the prior
POOL_RHAT = 1.05  # above, they are not of one law
TOGETHER = 50  # replicas in one program, on an accelerator
BATCH = 250  # draws whose quantities are worked out at once

type Point = Mapping[str, Array]


@dataclass(frozen=True)
class Trial:
    """What is calibrated. Replica i of a trial is the same however many there are.

    Attributes
    ----------
    model, options : the model that is fitted: name or path, and its options
    stars : places, errors and facts; their velocities are not looked at
    drawn_by, drawn_options : the model that draws the velocities; by default the same
    num_warmup, num_draws, target_accept : of each replica's one chain
    """

    model: str
    stars: Stars
    options: Mapping[str, Any] = field(default_factory=dict)
    drawn_by: str | None = None
    drawn_options: Mapping[str, Any] | None = None
    num_warmup: int = 500
    num_draws: int = 1000
    target_accept: float = 0.85
    seed: int = 0

    @property
    def drawer(self) -> tuple[str, Mapping[str, Any]]:
        """The model that draws, and its options."""
        options = self.options if self.drawn_options is None else self.drawn_options
        return self.drawn_by or self.model, options

    def fingerprint(self) -> dict[str, Any]:
        """What decides the replicas, for JSON."""
        name, options = self.drawer
        return {
            "model": load(self.model).sha256,
            "options": {k: str(v) for k, v in self.options.items()},
            "drawn_by": load(name).sha256,
            "drawn_options": {k: str(v) for k, v in options.items()},
            **self.stars.identity,
            "settings": [self.num_warmup, self.num_draws, self.target_accept, self.seed],
            "versions": versions(),
            "device": jax.default_backend(),
        }


class Replica(NamedTuple):
    """One fit, by quantity: u of (1), z = (truth - mean)/sd, and sd; its smallest ESS and its divergences.

    All NaN where no draw from the prior had a finite likelihood.
    """

    u: dict[str, float]
    z: dict[str, float]
    sd: dict[str, float]
    ess: float
    diverging: int


def replicas(
    trial: Trial, indices: Sequence[int], executor: Executor | None = None
) -> Iterator[tuple[int, Replica]]:
    """(index, replica) of every index, as they are done.

    On a CPU one a thread, on an accelerator `TOGETHER` in one program; with an `executor`, as Dask's
    `client.get_executor()`, as its tasks. Raises BayesdustError for a model that cannot be calibrated.
    """
    size = _together()
    batches = [indices[first : first + size] for first in range(0, len(indices), size)]
    if not batches:  # and nothing to be compiled
        return
    if executor is not None:
        yield from _each(executor, partial(_some, trial), batches)
        return
    bench = bench_of(trial)  # compiled before there are threads: NumPyro's handlers are global
    with ThreadPoolExecutor(nuts.cores()) as threads:
        yield from _each(threads, bench.replicas, batches)


def _together() -> int:
    """How many replicas are one program here."""
    return 1 if jax.default_backend() == "cpu" else TOGETHER


def _each(
    pool: Executor, work: Callable[[Sequence[int]], list[Replica]], batches: list[Sequence[int]]
) -> Iterator[tuple[int, Replica]]:
    """What becomes of every batch; those not begun are given up where the caller stops."""
    futures = {pool.submit(work, batch): batch for batch in batches}
    try:
        for future in as_completed(futures):
            yield from zip(futures[future], future.result(), strict=True)
    finally:
        for future in futures:
            future.cancel()


def _some(trial: Trial, indices: Sequence[int]) -> list[Replica]:
    """Some replicas, wherever this runs."""
    return bench_of(trial).replicas(indices)


_benches: dict[str, "Bench"] = {}  # by fingerprint: a task brings a copy of its trial


def bench_of(trial: Trial) -> "Bench":
    """The compiled parts of a trial, made once."""
    text = json.dumps(trial.fingerprint(), sort_keys=True, default=str)
    key = hashlib.sha256(text.encode()).hexdigest()
    if key not in _benches:
        _benches.clear()
        _benches[key] = Bench.of(trial)
    return _benches[key]


@dataclass(frozen=True, eq=False)
class Bench:
    """The compiled parts of a trial.

    `draw` makes (theta, velocities) of an index, `known` the quantities of these, and `fit` draws of them and
    the number of divergences, of several keys and velocities.
    """

    trial: Trial
    draw: Callable[[int], tuple[Point, Array]]
    known: Callable[[Point, Array], dict[str, Array]]
    fit: Callable[[Array, Array], tuple[dict[str, Array], Array]]

    @classmethod
    def of(cls, trial: Trial) -> "Bench":
        fitted = _Side.of(trial.model, trial.stars, trial.options)
        drawer = _Side.of(trial.drawer[0], trial.stars, trial.drawer[1])
        size = _together()
        keys = jax.random.split(jax.random.PRNGKey(0), size)
        drawn = jax.jit(partial(drawer.draw, drawer.pool(trial.seed))).lower(keys[0]).compile()
        theta, v = drawn(keys[0])
        known = jax.jit(partial(_of_truth, drawer, fitted)).lower(theta, v).compile()
        fit = jax.jit(jax.vmap(partial(fitted.fit, trial)))
        return cls(
            trial=trial,
            draw=lambda index: drawn(_key(trial, "draw", index)),
            known=known,
            fit=fit.lower(keys, jnp.stack([v] * size)).compile(),
        )

    def replicas(self, indices: Sequence[int]) -> list[Replica]:
        """Those of `indices`, together where they are compiled so."""
        size = _together()
        filled = [*indices, *[indices[-1]] * (size - len(indices))]
        keys = jnp.stack([_key(self.trial, "fit", i) for i in filled])
        truths = [self.draw(i) for i in filled]
        draws, diverging = jax.device_get(self.fit(keys, jnp.stack([v for _, v in truths])))
        return [
            self._replica(
                index,
                self.known(*truths[row]),
                {n: d[row] for n, d in draws.items()},
                diverging[row],
            )
            for row, index in enumerate(indices)
        ]

    def _replica(
        self,
        index: int,
        known: Mapping[str, Array],
        draws: Mapping[str, np.ndarray],
        diverging: int,
    ) -> Replica:
        rng = np.random.default_rng([self.trial.seed, index])
        truth = {name: float(known[name]) for name in known if name in draws}
        ess = {name: _ess(draws[name]) for name in truth}
        sd = {name: float(draws[name].std()) for name in truth}
        return Replica(
            u={n: _share_below(draws[n], truth[n], ess[n], rng) for n in truth},
            z={n: (truth[n] - float(draws[n].mean())) / (sd[n] or np.nan) for n in truth},
            sd=sd,
            ess=min(ess.values()),
            diverging=int(diverging),
        )


def _check_pool(draws: Mapping[str, np.ndarray]) -> None:
    """Raises BayesdustError for chains that do not agree: truths drawn from them would be of another law."""
    from arviz_stats.base import array_stats

    for name, z in draws.items():
        worst = float(np.max(array_stats.rhat(np.asarray(z), chain_axis=0, draw_axis=1)))
        if not worst < POOL_RHAT:
            raise BayesdustError(
                f"The positions alone leave {name} so open that {POOL} draws do not settle (R-hat "
                f"{worst:.2f}): calibrate with light=facts, or with fewer free parameters."
            )


def _key(trial: Trial, stage: str, index: int) -> Array:
    return jax.random.fold_in(stage_key(trial.seed, stage), index)


@dataclass(frozen=True, eq=False)
class _Side:
    """A model, and the stars made ready for it with their velocities left open."""

    model: Callable[[Any], Any]
    data: DwarfData

    @classmethod
    def of(cls, name: str, stars: Stars, options: Mapping[str, Any]) -> "_Side":
        program = load(name)
        if program.kind != "dwarf" or program.model is None:
            raise BayesdustError(
                f"{program.path} is no NumPyro model of a dwarf galaxy: of others no stars can be drawn here."
            )
        side = cls(program.model, prepared(program, stars, dict(options)).to_predict())
        if VELOCITIES not in sample_sites(side.model, side.data):
            raise BayesdustError(
                f"{program.path} has no site {VELOCITIES!r} for the velocities, which could be drawn."
            )
        return side

    def seen(self, v: Array) -> DwarfData:
        """The data, were these the velocities."""
        return dataclasses.replace(self.data, v_los=v)

    @cached_property
    def closed(self) -> DwarfData:
        """The data with velocities, whatever they are."""
        return self.seen(jnp.zeros(len(self.data.v_los_err)))

    @cached_property
    def parameters(self) -> list[str]:
        return latent_sites(self.model, self.closed)

    def pool(self, seed: int) -> Point | None:
        """Draws (POOL, ...) of theta given what is fitted beside the velocities; None if that is nothing."""
        if not any(sample_sites(self.model, self.data).values()):
            return None
        at_rest = {VELOCITIES: self.closed.v_los}
        blind = handlers.block(handlers.substitute(self.model, data=at_rest), hide=[VELOCITIES])
        plan = nuts.Plan(num_draws=POOL, seed=seed)
        draws = nuts.run_nuts(blind, self.data, plan).z
        _check_pool(draws)
        flat = {name: z.reshape(-1, *z.shape[2:]) for name, z in draws.items()}
        return {name: jnp.asarray(z[:: plan.num_chains]) for name, z in flat.items()}

    def draw(self, pool: Point | None, key: Array) -> tuple[Point, Array]:
        """theta (unconstrained), and velocities (n,) drawn by it."""
        first, second = jax.random.split(key)
        if pool is None:
            prior = Predictive(self.model, num_samples=1, return_sites=self.parameters)
            theta = {name: value[0] for name, value in prior(first, self.data).items()}
            z = unconstrain_fn(self.model, (self.closed,), {}, theta)
        else:
            row = jax.random.randint(first, (), 0, POOL)
            z = {name: value[row] for name, value in pool.items()}
            theta = constrain_fn(self.model, (self.closed,), {}, z)
        seeded = handlers.seed(handlers.substitute(self.model, data=theta), second)
        return z, handlers.trace(seeded).get_trace(self.data)[VELOCITIES]["value"]

    def quantities(self, z: Point, v: Array) -> dict[str, Array]:
        """What is ranked, at one unconstrained point: parameters (a vector's entries one by one),
        rho(150 pc), M(<1.8 R_half), J(0.5 deg), the slope of rho at R_half where the model records it,
        and the ln likelihood of the velocities."""
        seen = self.seen(v)
        sites = constrain_fn(self.model, (seen,), {}, z, return_deterministic=True)
        found: dict[str, Array] = {}
        for name in self.parameters:
            entries = jnp.ravel(sites[name])
            one = jnp.ndim(sites[name]) == 0
            labels = [name] if one else [f"{name}[{i}]" for i in range(len(entries))]
            found |= dict(zip(labels, entries, strict=True))
        for label, (name, index, log) in self._marks().items():
            if name in sites and jnp.ndim(sites[name]) == 1:
                found[label] = jnp.log10(sites[name][index]) if log else sites[name][index]
        if SLOPE in sites:
            found[SLOPE] = sites[SLOPE]
        seeded = handlers.seed(handlers.substitute(self.model, data=sites), jax.random.PRNGKey(0))
        law = handlers.trace(seeded).get_trace(seen)[VELOCITIES]["fn"]
        return found | {LN_LIKELIHOOD: jnp.sum(law.log_prob(v))}

    def _marks(self) -> dict[str, tuple[str, int, bool]]:
        """Site, index and whether a logarithm is taken, by name as in the summary of a fit."""
        r = self.data.r
        return {
            "log10_rho[0.15kpc]": ("rho", int(np.argmin(abs(r - 0.15))), True),
            "log10_mass[1.8rhalf]": ("mass", int(np.argmin(abs(r - self.data.pivot))), True),
            "log10_J[0.5deg]": ("log10_J", int(np.argmin(abs(ANGLES - 0.5))), False),
        }

    def fit(self, trial: Trial, key: Array, v: Array) -> tuple[dict[str, Array], Array]:
        """Draws (num_draws,) of every quantity from one chain, and how many diverged."""
        seen, (first, second) = self.seen(v), jax.random.split(key)
        energy = partial(potential_energy, self.model, (seen,), {})
        coordinates = coordinates_of(self.model, seen)
        starts, _ = nuts.best_of_prior(self.model, seen, energy, 1, first)
        kernel = nuts.kernel_of(coordinates, energy, starts, trial.target_accept)
        start = coordinates.from_unconstrained({name: value[0] for name, value in starts.items()})
        state = kernel.init(second, trial.num_warmup, start, model_args=(), model_kwargs={})

        def transition(state: Any, _: None) -> tuple[Any, tuple[Point, Array]]:
            state = kernel.sample(state, (), {})
            return state, (coordinates.to_unconstrained(state.z), state.diverging)

        state = jax.lax.fori_loop(0, trial.num_warmup, lambda _, s: transition(s, None)[0], state)
        _, (z, diverging) = jax.lax.scan(transition, state, None, length=trial.num_draws)
        draws = jax.lax.map(lambda point: self.quantities(point, v), z, batch_size=BATCH)
        return draws, diverging.sum()


def _of_truth(drawer: _Side, fitted: _Side, theta: Point, v: Array) -> dict[str, Array]:
    """The quantities of a truth: the drawing model's, and the likelihood that the fitted one gives it.

    Of models with other parameters the likelihood is left out.
    """
    found = drawer.quantities(theta, v)
    found.pop(LN_LIKELIHOOD)
    if drawer.parameters == fitted.parameters:
        found[LN_LIKELIHOOD] = fitted.quantities(theta, v)[LN_LIKELIHOOD]
    return found


def _ess(draws: Float[np.ndarray, " d"]) -> float:
    """Effective number of one chain's draws; one if they do not move."""
    from arviz_stats.base import array_stats

    if not np.isfinite(draws).all() or np.ptp(draws) == 0:
        return 1.0
    return float(array_stats.ess(draws[None], chain_axis=0, draw_axis=1))


def _share_below(
    draws: Float[np.ndarray, " d"], truth: float, ess: float, rng: np.random.Generator
) -> float:
    """u of (1), of every so manieth draw; the truth's place in its gap, and among ties, is random."""
    kept = draws[:: max(1, int(np.ceil(len(draws) / max(ess, 1.0))))]
    if not (np.isfinite(kept).all() and np.isfinite(truth)):
        return float("nan")
    below, equal = np.sum(kept < truth), np.sum(kept == truth)
    return float((below + rng.random() * (equal + 1)) / (len(kept) + 1))
