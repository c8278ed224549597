"""Variational inference: a guide fitted to the posterior, then corrected and judged by its weights.

The guide is a full-rank normal, or a flow of coupling layers with rational-quadratic splines
(Durkan+2019, arXiv:1906.04032) and a full-rank affine map after them. It lives in coordinates where
a uniform prior on an interval is a standard normal, for the logistic tails that it has in the usual
ones are too long for a normal guide. It starts from the Laplace approximation at the highest mode
found, and Adam climbs its evidence lower bound, E_q[ln p - ln q] with p the joint density of
parameters and data. In that climb p is flattened, p^0.1 at first and p^0.8 in the end: no tail is
overlooked, and the guide ends a little wider than the posterior, which keeps its weights bounded.
Its draws are then resampled by those weights: see `bayesdust.inference.importance`.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax
from flowjax.bijections import Chain, Loc, RationalQuadraticSpline, TriangularAffine
from flowjax.distributions import AbstractDistribution, StandardNormal, Transformed
from flowjax.flows import coupling_flow
from jax.flatten_util import ravel_pytree
from jax.scipy.special import log_ndtr, ndtri
from jaxtyping import Array, Bool, Float
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer.util import potential_energy
from scipy.optimize import minimize

from bayesdust.callbacks import OnProgress, unheard
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.files import write_atomically
from bayesdust.flows.descent import careful_adam, descend
from bayesdust.inference.importance import LogDensity, Weighed, resample, weigh
from bayesdust.inference.nuts import Draws, latent_sites, stage_key, starting_points

CHUNK = 100  # steps of training compiled together, and between two checkpoints
STARTS = 4  # points from which the highest mode is looked for
POWERS = (0.1, 0.8)  # of the density in training: at first, and from half-way on
GUIDES = ("flow", "normal")
_LN_ROOT_2PI = 0.5 * np.log(2 * np.pi)
_NOWHERE = 1e300  # energy where the density is not finite: a line search turns back


@dataclass
class Plan:
    """How to run variational inference.

    `guide` is "flow" or "normal". `num_steps` of training, rounded up to whole chunks, take
    `num_particles` draws each; `num_proposals` are weighed, and `num_draws` resampled from them.
    `checkpoint`, `on_progress` and `timings` are as in `nuts.Plan`.
    """

    guide: str = "flow"
    num_steps: int = 2000
    num_particles: int = 32
    num_proposals: int = 20_000
    num_draws: int = 4000
    learning_rate: float = 0.005
    seed: int = 0
    checkpoint: Path | None = None
    on_progress: OnProgress = unheard
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.guide not in GUIDES:
            raise BayesdustError(f"There is no guide {self.guide!r}: choose from {GUIDES}.")

    @property
    def chunks(self) -> int:  # of training
        return -(-self.num_steps // CHUNK)


def run_vi(model: Callable[[Any], Any], data: Any, plan: Plan) -> tuple[Draws, dict[str, float]]:
    """Approximate the posterior of `model(data)`: one chain of draws, and what is known of them.

    The latter holds pareto_k, elbo and psis_ess: the number of independent draws that those kept
    are worth, 1 / (1 / ESS of the weights + 1 / num_draws).

    Raises BayesdustError where no starting point has a finite density, ResumableError where the
    saved training is damaged.
    """
    found, sites = approximate_model(model, data, plan)
    kept = resample(found.weights, plan.num_draws, _key(plan, "resample"))
    ess = 1 / (1 / found.ess + 1 / plan.num_draws)
    facts = {"pareto_k": found.pareto_k, "psis_ess": ess, "elbo": found.elbo}
    return Draws(sites(found.x[kept]), {}), facts


def approximate_model(
    model: Callable[[Any], Any], data: Any, plan: Plan
) -> tuple[Weighed, Callable[[np.ndarray], dict[str, np.ndarray]]]:
    """The guide's weighed draws, and what turns such draws (n, d) into sites {name: (1, n, ...)}."""
    clock = time.perf_counter()
    plan.on_progress(0, 0, "compiling")
    energy = jax.jit(partial(potential_energy, model, (data,), {}))
    starts = starting_points(model, data, energy, STARTS, stage_key(plan.seed, "start"))
    first = {name: value[0] for name, value in starts.items()}
    unravel = ravel_pytree(first)[1]
    bounded = _bounded(model, data, first)
    points = jax.vmap(lambda z: ravel_pytree(z)[0])(starts)
    plan.timings["compile"] = time.perf_counter() - clock

    def log_density(y: Float[Array, " d"]) -> Float[Array, ""]:
        x, log_jacobian = _stretch(y, bounded)
        return log_jacobian - energy(unravel(x))

    def sites(y: np.ndarray) -> dict[str, np.ndarray]:
        z = jax.vmap(lambda y: unravel(_stretch(y, bounded)[0]))(jnp.asarray(y))
        return {name: np.asarray(value)[None] for name, value in z.items()}

    points = jnp.where(bounded, ndtri(jax.nn.sigmoid(points)), points)
    return approximate(log_density, points, plan), sites


def approximate(log_density: LogDensity, starts: Float[Array, "n d"], plan: Plan) -> Weighed:
    """Fit the plan's guide to `log_density`, a function on all of R^d, and weigh its draws.

    Raises BayesdustError where no start has a finite density.
    """
    clock = time.perf_counter()
    plan.on_progress(0, 0, "looking for the mode")
    mode, root = laplace(log_density, starts)
    plan.timings["mode"] = time.perf_counter() - clock

    def whitened(u: Float[Array, " d"]) -> Float[Array, ""]:
        return log_density(mode + root @ u) + jnp.sum(jnp.log(jnp.diag(root)))

    guide = train(whitened, untrained(plan, len(mode)), plan)
    clock = time.perf_counter()
    plan.on_progress(0, 0, "weighing")
    found = weigh(whitened, guide, plan.num_proposals, _key(plan, "draw"))
    plan.timings["weighing"] = time.perf_counter() - clock
    return found._replace(x=np.asarray(mode + found.x @ root.T))


def laplace(
    log_density: LogDensity, starts: Float[Array, "n d"]
) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Highest mode found from any start, and the lower root of the covariance there.

    Where the density is not peaked (flat or curved upwards) the covariance is made large but
    finite: eigenvalues of the scaled Hessian are taken by modulus and no smaller than 0.01.
    """
    both = jax.jit(jax.value_and_grad(lambda x: -log_density(x)))

    def energy(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = map(np.array, both(jnp.asarray(x)))
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            return _NOWHERE, np.zeros_like(x)
        return float(value), gradient

    searches = [minimize(energy, np.asarray(x), jac=True, method="BFGS") for x in starts]
    best = min(searches, key=lambda found: found.fun)
    if best.fun >= _NOWHERE:
        raise BayesdustError("The density is not finite at any starting point: check the priors.")
    step = 1e-4 * np.eye(len(best.x))
    hessian = np.stack([energy(best.x + h)[1] - energy(best.x - h)[1] for h in step]) / 2e-4
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), 1e-6))
    values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T) * np.outer(scale, scale))
    inverse = (vectors / np.maximum(np.abs(values), 1e-2)) @ vectors.T
    return jnp.asarray(best.x), jnp.asarray(np.linalg.cholesky(inverse * np.outer(scale, scale)))


def untrained(plan: Plan, dim: int) -> AbstractDistribution:
    """The plan's guide before training: the standard normal, or something like it."""
    base = StandardNormal((dim,))  # type: ignore[call-arg]
    affine = TriangularAffine(jnp.zeros(dim), jnp.eye(dim))
    if plan.guide == "normal":
        return Transformed(base, affine)
    flow = coupling_flow(
        _key(plan, "guide"),
        base_dist=base,
        # a spline maps an interval to itself, so the shift; beyond it nothing bends, so no draw of
        # the base may fall there (with [-4, 4] one in 16,000 did, and k was that draw's: above 0.7
        # in 1 of 12 seeds on a banana). Scales are left to the affine map, for layers with scales
        # of their own run away early in the training
        transformer=Chain([RationalQuadraticSpline(knots=12, interval=6), Loc(jnp.zeros(()))]),
        flow_layers=6,
        nn_width=32,
        nn_activation=jax.nn.silu,
        invert=False,
    )
    return Transformed(base, Chain([flow.bijection, affine]))


def negative_elbo(
    guide: AbstractDistribution, log_density: LogDensity, key: Array, num_particles: int
) -> Float[Array, ""]:
    """Monte Carlo estimate of E_q[ln q - ln p], which training makes small."""
    # without the score ("sticking the landing") the training of flows ran away in trials
    x, log_q = guide.sample_and_log_prob(key, (num_particles,))
    return jnp.mean(log_q - jax.vmap(log_density)(x))


def train(log_density: LogDensity, guide: AbstractDistribution, plan: Plan) -> AbstractDistribution:
    """The guide after `plan.num_steps` steps of Adam; steps that are not finite are left out."""
    parameters, static = eqx.partition(
        guide, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    steps = plan.chunks * CHUNK
    rate = optax.cosine_decay_schedule(plan.learning_rate, steps)
    optimizer = careful_adam(rate, CHUNK, longest=10.0)
    root = _key(plan, "train")

    def step(state: Any, number: Array) -> tuple[Any, None]:
        power = jnp.interp(2 * number / steps, jnp.array([0.0, 1.0]), jnp.array(POWERS))

        def loss(parameters: Any) -> Float[Array, ""]:
            guide = paramax.unwrap(eqx.combine(parameters, static))
            key = jax.random.fold_in(root, number)
            return negative_elbo(guide, lambda x: power * log_density(x), key, plan.num_particles)

        return descend(loss, optimizer, state)[0], None

    def chunk(state: Any, first: Array) -> Any:
        return jax.lax.scan(step, state, first + jnp.arange(CHUNK))[0]

    clock = time.perf_counter()
    plan.on_progress(0, 0, "compiling")
    done, state = _resume((parameters, optimizer.init(parameters)), plan)
    advance = jax.jit(chunk).lower(state, jnp.asarray(0)).compile()
    now = time.perf_counter()
    plan.timings["compile"] = plan.timings.get("compile", 0.0) + now - clock
    plan.on_progress(done * CHUNK, steps, "training")
    while done < plan.chunks:
        state = jax.block_until_ready(advance(state, jnp.asarray(done * CHUNK)))
        done += 1
        _save(state, done, plan)
        plan.on_progress(done * CHUNK, steps, "training")
    plan.timings["training"] = time.perf_counter() - now
    return paramax.unwrap(eqx.combine(state[0], static))


def _bounded(
    model: Callable[[Any], Any], data: Any, like: dict[str, Array]
) -> Bool[np.ndarray, " d"]:
    """Which of the unconstrained coordinates belong to parameters that live on an interval."""
    latent = latent_sites(model, data)
    flags = {}

    def run(key: Array) -> None:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(data)
        for name in latent:
            support = trace[name]["fn"].support
            while isinstance(support, constraints.independent):
                support = support.base_constraint
            on_interval = isinstance(support, constraints.interval)
            flags[name] = np.full(like[name].shape, float(on_interval))

    jax.eval_shape(run, jax.random.PRNGKey(0))
    return np.asarray(ravel_pytree(flags)[0]) > 0


def _stretch(
    y: Float[Array, " d"], bounded: Bool[np.ndarray, " d"]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """From the guide's coordinates to unconstrained ones, logit(Phi(y)) where bounded; ln Jacobian."""
    safe = jnp.where(bounded, y, 0.0)
    below, above = log_ndtr(safe), log_ndtr(-safe)
    ln_slope = -0.5 * safe**2 - _LN_ROOT_2PI - below - above
    return jnp.where(bounded, below - above, y), jnp.sum(jnp.where(bounded, ln_slope, 0.0))


def _key(plan: Plan, stage: str) -> Array:
    """The stage's key, typed, as flowjax wants them."""
    return jax.random.wrap_key_data(stage_key(plan.seed, stage))


def _file(plan: Plan) -> Path | None:
    return None if plan.checkpoint is None else plan.checkpoint / f"guide-{plan.guide}.eqx"


def _save(state: Any, done: int, plan: Plan) -> None:
    """Keep the training after `done` chunks on disk, whole or not at all."""
    path = _file(plan)
    if path is not None:
        file = io.BytesIO()
        eqx.tree_serialise_leaves(file, (done, state))
        write_atomically(path, file.getvalue())


def _resume(state: Any, plan: Plan) -> tuple[int, Any]:
    """The number of chunks done, and the state to go on from."""
    path = _file(plan)
    if path is None or not path.exists():
        return 0, state
    try:
        with open(path, "rb") as file:
            return eqx.tree_deserialise_leaves(file, (0, state))
    except (OSError, EOFError, RuntimeError, TypeError, ValueError) as error:
        raise ResumableError(f"{path} is damaged: remove that file and go on.") from error
