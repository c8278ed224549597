"""The marginal likelihood of a model, Z, which compares models of the same stars.

With p(theta) the prior and L(theta) the likelihood of the stars,

    Z = int L(theta) p(theta) dtheta,     ln K = ln Z_1 - ln Z_2                                   (1)

and K is the Bayes factor of two models (Jeffreys 1961; Kass & Raftery 1995, JASA 90, 773, equation 1). Z is
worked out by tempered sequential Monte Carlo, `inference/tempering.py`.

Several independent runs tell the error. That ln Z comes out the same each time does not show that it is
right: a narrow mode that no particle of any run has met is missed by all.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats as laws
from scipy.special import logsumexp

from bayesdust.callbacks import OnProgress, unheard
from bayesdust.catalogs.dwarf import Stars
from bayesdust.errors import BayesdustError
from bayesdust.files import claim, read_kept, write_atomically
from bayesdust.inference.nuts import cores, sample_sites, stage_key
from bayesdust.inference.posterior import prepared
from bayesdust.inference.programs import Program, load
from bayesdust.inference.tempering import Compiled, Run, carry, compiled_for, target_of

FEWEST = 4  # runs, for an error from their scatter
# what a run must keep to: scatter of ln Z between runs, acceptance, share of the particles that count
SCATTER_MAX, ACCEPTANCE_MIN, ESS_MIN = 0.5, 0.5, 0.3


@dataclass(frozen=True)
class Plan:
    """How to work out ln Z: `num_runs` (at least 4) of `num_particles` (at least 100) each, from `seed`.

    `checkpoint` is a folder for finished runs, from which `log_evidence` of the same model and stars goes on;
    `on_progress` is called with (thousandths done, in all, phase) from the calling thread.
    """

    num_runs: int = 4
    num_particles: int = 1000
    seed: int = 0
    checkpoint: Path | None = None
    on_progress: OnProgress = unheard

    def __post_init__(self) -> None:
        if self.num_runs < FEWEST:
            raise BayesdustError(
                f"{self.num_runs} runs do not tell an error by their scatter: ask for {FEWEST} or more."
            )
        if self.num_particles < 100:
            raise BayesdustError(
                f"{self.num_particles} particles are too few to learn a covariance from: ask for 100 or "
                "more."
            )


class Difference(NamedTuple):
    """ln K = ln Z_1 - ln Z_2 of two models: `value`, its standard error, and half the width of its 95 %
    interval."""

    value: float
    error: float
    half_width: float

    def __str__(self) -> str:
        return f"ln K = {self.value:+.2f} +- {self.error:.2f} (95 %: +- {self.half_width:.2f})"


@dataclass(frozen=True)
class Evidence:
    """ln Z of a model on some stars.

    Attributes
    ----------
    ln_z : natural logarithm of Z; velocities in km/s, so Z is in (km/s)^-n
    error : its standard error, from the scatter of the runs
    runs : one by one
    num_particles : of each run
    data : what the likelihood is of, `marks`; two ln Z are comparable if these are the same
    """

    ln_z: float
    error: float
    runs: tuple[Run, ...]
    num_particles: int
    data: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, runs: tuple[Run, ...], num_particles: int, data: tuple[str, ...] = ()
    ) -> "Evidence":
        """From the runs: Z is the mean of theirs, each of which is unbiased (but for the adaptation)."""
        each = np.array([run.ln_z for run in runs])
        mean = float(logsumexp(each) - np.log(len(each)))
        error = float(np.std(each, ddof=1) / np.sqrt(len(each)))
        return cls(mean, error, tuple(runs), num_particles, data)

    @property
    def warnings(self) -> list[str]:
        """Sentences on what speaks against believing it; none if nothing does."""
        found = []
        scatter = float(np.std([run.ln_z for run in self.runs], ddof=1))
        if scatter > SCATTER_MAX:
            found.append(
                f"ln Z scatters by {scatter:.2g} from run to run: ask for more particles a run."
            )
        acceptance = min(run.acceptance for run in self.runs)
        if acceptance < ACCEPTANCE_MIN:
            found.append(
                f"At one temperature only {acceptance:.0%} of the moves were accepted: particles may not "
                "have gone where they should, and ln Z may be wrong by more than its error."
            )
        ess = min(run.ess for run in self.runs) / self.num_particles
        if ess < ESS_MIN:
            found.append(
                f"At one temperature only {ess:.0%} of the particles counted: ask for more of them."
            )
        return found

    def __str__(self) -> str:
        temperatures = sorted({run.temperatures for run in self.runs})
        spans = " to ".join(str(t) for t in dict.fromkeys([temperatures[0], temperatures[-1]]))
        ess, acceptance = (min(getattr(run, n) for run in self.runs) for n in ("ess", "acceptance"))
        return (
            f"ln Z = {self.ln_z:.2f} +- {self.error:.2f} (95 %: +- {self.half_width:.2f}; "
            f"{len(self.runs)} runs of {self.num_particles:,} particles, {spans} temperatures, effective "
            f"sample size {ess:,.0f} or more, acceptance {acceptance:.0%} or more)"
        )

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval of ln Z: Student's t with runs - 1 degrees of freedom."""
        return float(laws.t.ppf(0.975, len(self.runs) - 1)) * self.error

    def against(self, other: "Evidence") -> Difference:
        """ln K = ln Z - ln Z of the other model, the logarithm of the Bayes factor.

        Its error has the degrees of freedom of Welch (1947, Biometrika 34, 28). Raises BayesdustError
        where the two are not of the same data.
        """
        if self.data != other.data:
            raise BayesdustError(
                "The two ln Z are not of the same data (stars, or what is fitted beside their velocities, "
                "as the light), so their difference means nothing: work out both on the same."
            )
        squares = np.array([self.error**2, other.error**2])
        error = float(np.sqrt(squares.sum()))
        free = np.array([len(self.runs), len(other.runs)]) - 1
        freedom = squares.sum() ** 2 / np.sum(squares**2 / free) if error else 1.0
        width = float(laws.t.ppf(0.975, freedom)) * error
        return Difference(self.ln_z - other.ln_z, error, width)


def check_kind(program: Program) -> None:
    """Raises BayesdustError for anything but a NumPyro model of a dwarf galaxy."""
    if program.kind != "dwarf" or program.model is None:
        raise BayesdustError(
            f"{program.path} is of kind {program.kind}: the evidence is worked out for NumPyro models of "
            "dwarf galaxies only."
        )


def log_evidence(
    model: str | Path | Program,
    stars: Stars,
    *,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Evidence:
    """ln Z of a dwarf model on `stars`, with an error from independent runs.

    `model` is a shipped model's name, a path, or a loaded `Program`; `options` go to its `prepare`;
    `settings` are the fields of `Plan` (seed, num_runs, num_particles, ...).

    Raises BayesdustError on a model of another kind or with a prior that cannot be drawn from, an unknown
    option or setting, a checkpoint of something else, and where no draw from the prior gives the stars a
    finite likelihood.
    """
    program = model if isinstance(model, Program) else load(model)
    check_kind(program)
    assert program.model is not None
    for name in settings:
        if name not in Plan.__dataclass_fields__:
            raise BayesdustError(f"The evidence has no setting {name!r}: leave it out.")
    plan = Plan(**settings)
    data = prepared(program, stars, dict(options or {}))
    if plan.checkpoint is not None:
        deciding = {name: getattr(plan, name) for name in ("num_particles", "seed")}
        asked = {
            "model file": program.sha256,
            **stars.identity,
            "options": data.options,
            **deciding,
        }
        claim(plan.checkpoint, asked)
    found = evidence_of(program.model, data, plan)
    seen = [name for name, observed in sample_sites(program.model, data).items() if observed]
    return Evidence.of(found.runs, found.num_particles, marks(stars, data.options, seen))


def marks(stars: Stars, options: Mapping[str, Any], seen: list[str]) -> tuple[str, ...]:
    """What a likelihood with the observed sites `seen` is of: digests of the numbers, and the sites."""
    used = ["stars"]
    if options.get("light") == "joint":
        used.append("photometry")
    if options.get("proper_motions") == "used":
        used.append("proper motions")
    light = [f"light={options['light']}"] if "light" in seen else []
    return (*(stars.digests[name] for name in used), *light, *sorted(seen))


def evidence_of(model: Callable[[Any], Any], data: Any, plan: Plan) -> Evidence:
    """ln Z of any NumPyro program `model(data)` whose sampled sites are continuous.

    Raises BayesdustError as `log_evidence`, ResumableError where a saved run is damaged.
    """
    plan.on_progress(0, 0, "compiling")
    found = {index: run for index in range(plan.num_runs) if (run := _kept(plan, index))}
    missing = [index for index in range(plan.num_runs) if index not in found]
    if missing:
        found |= _runs(compiled_for(target_of(model, data, plan.num_particles)), plan, missing)
    return Evidence.of(tuple(found[index] for index in sorted(found)), plan.num_particles)


def _runs(compiled: Compiled, plan: Plan, indices: list[int]) -> dict[int, Run]:
    """The runs `indices`, side by side; on an error, or an interruption, all end at their next step."""
    stop = Event()
    shares = dict.fromkeys(indices, 0.0)
    root = stage_key(plan.seed, "evidence")

    def one(index: int) -> Run:
        key = jax.random.fold_in(root, index)
        run = carry(compiled, key, stop, partial(shares.__setitem__, index))
        _keep(plan, index, run)
        return run

    workers = min(len(indices), cores()) if jax.default_backend() == "cpu" else 1
    before = plan.num_runs - len(indices)
    with ThreadPoolExecutor(workers) as pool:
        futures = {index: pool.submit(one, index) for index in indices}
        try:
            while True:
                ended = wait(futures.values(), 0.2, FIRST_EXCEPTION)
                for future in ended.done:
                    future.result()
                done = int(1000 * (before + sum(shares.values())))
                plan.on_progress(done, 1000 * plan.num_runs, "tempering")
                if not ended.not_done:
                    return {index: future.result() for index, future in futures.items()}
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _file(plan: Plan, index: int) -> Path | None:
    return None if plan.checkpoint is None else plan.checkpoint / f"run-{index:04d}.json"


def _keep(plan: Plan, index: int, run: Run) -> None:
    path = _file(plan, index)
    if path is not None:
        write_atomically(path, json.dumps(run._asdict()))


def _kept(plan: Plan, index: int) -> Run | None:
    path = _file(plan, index)
    return None if path is None else read_kept(path, Run)
