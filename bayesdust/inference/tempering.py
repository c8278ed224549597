"""Tempered sequential Monte Carlo: particles carried from a model's prior to its posterior.

They pass through densities in proportion to p L^t, p being the prior, L the likelihood, and t rising from 0
to 1. At each temperature N particles are drawn anew by their weights, moved by a Markov kernel that leaves
that density as it is, and given the weights L^dt of the next. Then

    Z = prod over t of (1/N) sum over particles of L^dt                                             (1)

is an unbiased estimate of the integral of p L, but for the adaptation of t and the kernel to the particles
(Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411; without drawing anew Neal 2001, Stat. Comput.
11, 125). dt is such that the weights keep an effective sample size of `TARGET` of the particles (Jasra,
Stephens, Doucet & Tsagaris 2011, Scand. J. Stat. 38, 1). The kernel is Hamiltonian Monte Carlo, whose mass
matrix is the inverse of the particles' covariance.

Whatever constant the prior's density lacks does not matter, for the first particles are draws of it; its
shape does, so it is that of the coordinates in which they move, Jacobian included. The likelihood is what
remains of the joint density: every observed site and every `numpyro.factor`.
"""

from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import potential_energy, unconstrain_fn

from bayesdust.errors import BayesdustError
from bayesdust.inference.coordinates import coordinates_of
from bayesdust.inference.nuts import DENSE, latent_sites, sample_sites

TARGET = 0.7  # effective sample size of the weights at each temperature, a share of the particles
MOVES = 2  # transitions of the kernel at each temperature
STEPS = 4  # of a trajectory
# the whole trajectory at first and at most: a quarter of the period of a normal law, after which a
# particle has forgotten where it was
LONGEST = np.pi / 2
ACCEPTANCE = 0.85  # aimed at by shorter steps where the density is no normal one
MOST = 1000  # temperatures
TOGETHER = 10  # particles moved at once, so that what is computed of them stays in a CPU's cache
NOWHERE = -1e30  # ln L where it is not finite: 0 times it is still 0


class Run(NamedTuple):
    """One run: ln Z, the number of temperatures, and over these the smallest effective sample size of the
    weights, and the smallest mean acceptance of the kernel."""

    ln_z: float
    temperatures: int
    ess: float
    acceptance: float


class Target(NamedTuple):
    """A model in the coordinates y (d,) in which particles move: draws (n, d) of its prior by key, and the
    logarithms of the prior's density, up to a constant, and of the likelihood."""

    draw: Callable[[Array], Float[Array, "n d"]]
    ln_prior: Callable[[Float[Array, " d"]], Array]
    ln_likelihood: Callable[[Float[Array, " d"]], Array]


def target_of(model: Callable[[Any], Any], data: Any, number: int) -> Target:
    """The target of a model, with `number` draws of its priors at a time."""
    latent = latent_sites(model, data)
    observed = [name for name in sample_sites(model, data) if name not in latent]
    coordinates = coordinates_of(model, data)
    whole = partial(potential_energy, model, (data,), {})
    # by name: "whatever is observed" would hide the Jacobians too, which NumPyro adds as factors
    prior = partial(potential_energy, handlers.block(model, hide=observed), (data,), {})
    sample = Predictive(model, num_samples=number, return_sites=latent, parallel=True)

    def points(key: Array) -> dict[str, Array]:
        z = jax.vmap(partial(unconstrain_fn, model, (data,), {}))(sample(key, data))
        return jax.vmap(coordinates.from_unconstrained)(z)

    like = jax.eval_shape(points, jax.random.PRNGKey(0))
    unravel = ravel_pytree({name: jnp.zeros(v.shape[1:], v.dtype) for name, v in like.items()})[1]

    def ln_likelihood(y: Float[Array, " d"]) -> Array:
        z = coordinates.to_unconstrained(unravel(y))
        value = prior(z) - whole(z)
        return jnp.where(jnp.isfinite(value), value, NOWHERE)

    moved = coordinates.potential(prior)
    return Target(
        draw=lambda key: jax.vmap(lambda y: ravel_pytree(y)[0])(points(key)),
        ln_prior=lambda y: -moved(unravel(y)),
        ln_likelihood=ln_likelihood,
    )


class State(NamedTuple):
    """Where a run is: the sampler's own state, and the kernel's step and inverse mass matrix."""

    sampler: Any
    step: Array
    spread: Array


class Facts(NamedTuple):
    """Of one temperature: what it adds to ln Z, the effective sample size, the mean acceptance."""

    ln_z: Array
    ess: Array
    acceptance: Array


class Compiled(NamedTuple):
    """`begin` makes of a key a state and the number of particles of finite likelihood; `advance` of a key
    and a state the state at the next temperature, and its `Facts`."""

    begin: Callable[[Array], tuple[State, Array]]
    advance: Callable[[Array, State], tuple[State, Facts]]


def compiled_for(target: Target) -> Compiled:
    """Before there are threads: NumPyro's handlers, which act while a model is traced, are global."""
    from blackjax.mcmc import hmc
    from blackjax.smc import adaptive_tempered, resampling, tempered

    together = TOGETHER if jax.default_backend() == "cpu" else 0
    kernel = adaptive_tempered.build_kernel(
        target.ln_prior,
        target.ln_likelihood,
        partial(hmc.build_kernel(), num_integration_steps=STEPS),
        hmc.init,
        resampling.systematic,
        TARGET,
        batch_size=together,
    )

    def begin(key: Array) -> tuple[State, Array]:
        y = target.draw(key)
        ln_likelihood = jax.lax.map(target.ln_likelihood, y, batch_size=TOGETHER)
        sampler = tempered.init(y)._replace(tempering_param=jnp.zeros(()))
        state = State(sampler, jnp.asarray(LONGEST / STEPS), _spread(y, sampler.weights))
        return state, jnp.sum(ln_likelihood > NOWHERE)

    def advance(key: Array, state: State) -> tuple[State, Facts]:
        first, second = jax.random.split(key)
        weights = state.sampler.weights
        # trajectories of many lengths: of one alone some directions return to where they began
        steps = state.step * jax.random.uniform(first, weights.shape, minval=0.7, maxval=1.3)
        kernels = {"step_size": steps, "inverse_mass_matrix": state.spread[None]}
        sampler, info = kernel(second, state.sampler, MOVES, kernels)
        acceptance = jnp.mean(info.update_info.acceptance_rate)
        step = jnp.minimum(state.step * jnp.exp(acceptance - ACCEPTANCE), LONGEST / STEPS)
        spread = _spread(sampler.particles, sampler.weights)
        facts = Facts(info.log_likelihood_increment, 1 / jnp.sum(sampler.weights**2), acceptance)
        return State(sampler, step, spread), facts

    key = jax.random.PRNGKey(0)
    started = jax.jit(begin).lower(key).compile()
    state, _ = started(key)
    return Compiled(started, jax.jit(advance).lower(key, state).compile())


def _spread(y: Float[Array, "n d"], weights: Float[Array, " n"]) -> Array:
    """The particles' covariance (d, d), of many coordinates their variances (d,); never quite singular."""
    offsets = y - weights @ y
    variances = weights @ offsets**2 + 1e-12
    if y.shape[1] > DENSE:
        return variances
    return (weights[:, None] * offsets).T @ offsets + 1e-6 * jnp.diag(variances)


def carry(compiled: Compiled, key: Array, stop: Event, tell: Callable[[float], None]) -> Run:
    """One run, from the prior to the posterior; `tell` is called with the share that is done."""
    state, finite = compiled.begin(key)
    if int(finite) == 0:
        raise BayesdustError(
            "No draw from the prior gives the stars a finite likelihood: check the model's priors, and the "
            "units of the stars."
        )
    facts: list[list[float]] = []  # `Facts`, as numbers
    first = temperature = 0.0
    while temperature < 1 - 1e-9:
        if stop.is_set() or len(facts) == MOST:
            raise BayesdustError(
                f"The evidence did not arrive at the posterior in {len(facts)} temperatures: the likelihood "
                "may not be finite, or may jump."
            )
        state, found = compiled.advance(jax.random.fold_in(key, len(facts) + 1), state)
        facts.append([float(number) for number in found])
        temperature = float(state.sampler.tempering_param)
        if not np.isfinite([*facts[-1], temperature]).all():
            raise BayesdustError(
                "The evidence is not finite: check the model's priors and likelihood."
            )
        # temperatures rise nearly in proportion to themselves
        first = first or temperature
        tell(1.0 if first >= 1 else 1 - np.log(temperature) / np.log(first))
    ln_z, ess, acceptance = np.array(facts).T
    return Run(float(ln_z.sum()), len(facts), float(ess.min()), float(acceptance.min()))
