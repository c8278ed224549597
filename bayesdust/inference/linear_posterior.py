"""The posterior of a Milky Way without a shape, in closed form.

The whitened sums over the stars s = c + F b are linear in the coefficients b (`galaxy_linear.py`). With
b ~ N(m, S) before and s ~ N(0, 1) in the truth the posterior is normal, and draws of it are

    b' = b - S F^T (1 + F S F^T)^-1 (c + F b + e),      b ~ N(m, S), e ~ N(0, 1)                 (1)

(Matheron's rule; Wilson+2020, arXiv:2002.09309, eq. 8). The fields' own sizes and lengths are drawn from
their priors and weighed by the evidence N(c + F m; 0, 1 + F S F^T). The factor exp(pull b) of the
likelihood, which undoes the stars' pull on their own sums, moves m by S pull.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.inference import galaxy_notes
from bayesdust.inference.draws import PRIOR_DRAWS, ExactDraws
from bayesdust.inference.galaxy_linear import LinearData
from bayesdust.inference.galaxy_products import (
    ByPlace,
    Places,
    every,
    made_at,
    places_of,
    products,
    split,
)
from bayesdust.inference.importance import resample, smooth
from bayesdust.potentials.base import Potential

# Draws of the fields' sizes and lengths: weighed, then chosen, and draws of the coefficients for each chosen
CANDIDATES, CHOSEN, EACH = 400, 200, 10
_AT_ONCE = 25  # draws of the baryons
_TOGETHER = 8  # Cholesky factors

Draw = dict[str, np.ndarray]


class Fields(NamedTuple):
    """Priors of the two fields, NumPyro distributions of positive numbers.

    `sigma` [(km/s)^2], `length_R`, `length_phi`, `length_z` [kpc] along x, y and z of the potential's;
    `sigma_dust` (of ln epsilon) and `length_dust` [kpc] of the dust's, whose vertical length is
    `DUST_LENGTHS`' share of it.
    """

    sigma: dist.Distribution
    length_R: dist.Distribution
    length_phi: dist.Distribution
    length_z: dist.Distribution
    sigma_dust: dist.Distribution
    length_dust: dist.Distribution

    def draw(self, key: Array, number: int) -> dict[str, Array]:
        """`number` draws of each, by name."""
        keys = jax.random.split(key, len(self))
        drawn = (prior.sample(key, (number,)) for prior, key in zip(self, keys, strict=True))
        return dict(zip(self._fields, drawn, strict=True))


def posterior(
    data: LinearData,
    key: Array,
    *,
    sizes: Mapping[str, tuple[float, float]],
    fields: Fields,
    baryons: Callable[[Array], Potential],
) -> ExactDraws:
    """Draws of the posterior and of the prior, with the Pareto k of weighing the fields' sizes.

    `sizes` are the normal priors (mean, sd) of the parts' sizes, by name; `baryons` draws a model of all that
    is not dark from its prior, with a key: what it leaves of the density is the dark matter.
    """
    stages = "fields", "choice", "draws", "baryons", "dust", "prior", "noise", "prior baryons"
    keys = dict(zip(stages, jax.random.split(key, len(stages)), strict=True))
    normal = jnp.asarray([sizes[name] for name in data.parts])
    candidates = fields.draw(keys["fields"], CANDIDATES)
    evidences = np.asarray(_evidences(data, normal, candidates))
    weights, k = smooth(evidences)
    ln_evidence, error = _ln_evidence(data, normal, candidates, evidences)
    index = resample(weights, CHOSEN, keys["choice"])
    chosen = {name: value[index] for name, value in candidates.items()}
    places = places_of(data)
    made = made_at(data, places)

    def read_off(b: np.ndarray, under: ByPlace) -> Draw:
        sizes = b[:, : len(data.parts) + data.modes.number]
        found = products(data, places, made, sizes, under)
        return {name: np.asarray(value) for name, value in found.items()}

    b = _conditioned(data, normal, chosen, keys["draws"])
    after = _named(data, b, {name: np.repeat(v, EACH) for name, v in chosen.items()})
    after |= read_off(b, _under(places, baryons, keys["baryons"], len(b)))
    after |= _efficiency(data, b, keys["dust"])
    after["chi2"] = np.asarray(data.chi2(b))
    if data.flow is not None:
        after["flow_chi2"] = np.asarray(data.flow_chi2(b))
    answer = None if data.dust_shifts is None else np.asarray(data.dust_answer(b))
    slopes = _slopes(data, b)
    free = fields.draw(keys["prior"], PRIOR_DRAWS)
    b = _unconditioned(data, normal, free, keys["noise"])
    before = _named(data, b, free)
    names = list(before)
    before |= read_off(b, _under(places, baryons, keys["prior baryons"], len(b)))
    notes = galaxy_notes.notes(data, after, before, answer, slopes)
    ess = 1 / float(np.sum(weights**2))
    return ExactDraws(after, before, names, k, ess, notes, ln_evidence, error)


def _slopes(data: LinearData, b: np.ndarray) -> np.ndarray | None:
    """The gradient (d, m, 3) of what the field adds to ln epsilon, at the points."""
    if data.dust_modes is None or not len(data.points):
        return None
    slopes = galaxy_notes.field_slopes(data.dust_modes, data.points)
    return np.einsum("dq,mqi->dmi", b[:, -data.dust_modes.number :], slopes)


def _ln_evidence(
    data: LinearData, normal: Array, candidates: Mapping[str, Array], evidences: np.ndarray
) -> tuple[float, float]:
    """ln of the evidence of what the stars say, and its Monte Carlo error, with 400 candidates.

    Sums and gauge, over the evidence of the gauge alone: that is a part of the prior.
    """
    number, gauges = len(data.constant), np.zeros(len(evidences))
    if data.dust_modes is not None:
        number -= 1
        variance = 1 + _variances(data, normal, candidates) @ data.slopes[-1] ** 2
        gauges = -0.5 * np.log(variance) - 0.5 * data.constant[-1] ** 2 / variance
    both, alone = (np.exp(logs - logs.max()) for logs in (evidences, gauges))
    ratio = np.log(both.mean() / alone.mean()) + evidences.max() - gauges.max()
    error = np.std(both / both.mean() - alone / alone.mean()) / np.sqrt(len(both))
    return float(ratio - 0.5 * number * np.log(2 * np.pi)), float(error)


def _named(data: LinearData, b: np.ndarray, at: Mapping[str, Any]) -> Draw:
    """The sizes and lengths of the fields there are, and the parts' sizes."""
    sizes = {f"size_{name}": b[:, i] for i, name in enumerate(data.parts)}
    without = ("sigma_dust", "length_dust") if data.dust_modes is None else ()
    return {k: np.asarray(v) for k, v in at.items() if k not in without} | sizes


def _evidences(data: LinearData, normal: Array, candidates: dict[str, Array]) -> Array:
    """`_evidence` of every candidate, a few together: one at a time the processor waits."""
    one = partial(_evidence, data, normal)
    return jax.jit(lambda c: jax.lax.map(one, c, batch_size=_TOGETHER))(candidates)


def _evidence(data: LinearData, normal: Array, at: Mapping[str, Array]) -> Array:
    """ln of the evidence for one draw of the fields' sizes and lengths, but for a constant."""
    S, mean = _prior(data, normal, at)
    root = jnp.linalg.cholesky(_total(data, S))
    left = data.constant + data.slopes @ mean
    white = jax.scipy.linalg.solve_triangular(root, left, lower=True)
    own = jnp.asarray(data.pull) @ (mean - 0.5 * S * data.pull)  # of the factor exp(pull b)
    return own - 0.5 * white @ white - jnp.sum(jnp.log(jnp.diag(root)))


def _prior(data: LinearData, normal: Array, at: Mapping[str, Array]) -> tuple[Array, Array]:
    """Variances S of the coefficients, and their mean with the pull in it."""
    S = data.variances(normal[:, 1], at)
    return S, _mean(data, normal) + S * data.pull


def _variances(
    data: LinearData, normal: Array, at: Mapping[str, Array]
) -> Float[np.ndarray, "d p"]:
    """S for each of some draws of the fields' sizes and lengths."""
    return np.asarray(jax.vmap(lambda at: data.variances(normal[:, 1], at))(dict(at)))


def _mean(data: LinearData, normal: Array) -> Array:
    """The prior's mean of all coefficients: the fields' is zero."""
    return jnp.zeros(data.slopes.shape[1]).at[: len(normal)].set(normal[:, 0])


def _total(data: LinearData, S: Array) -> Array:
    """1 + F S F^T."""
    return jnp.eye(len(data.constant)) + (data.slopes * S) @ data.slopes.T


def _conditioned(
    data: LinearData, normal: Array, at: Mapping[str, Array], key: Array
) -> Float[np.ndarray, "d p"]:
    """`EACH` draws of the coefficients by (1) for every draw of the fields' sizes and lengths."""
    slopes = jnp.asarray(data.slopes)

    def draw(given: tuple[Mapping[str, Array], Array]) -> Array:
        at, key = given
        S, mean = _prior(data, normal, at)
        root = jnp.linalg.cholesky(_total(data, S))
        first, second = jax.random.split(key)
        b = mean + jnp.sqrt(S) * jax.random.normal(first, (EACH, len(S)))
        left = data.constant + b @ slopes.T
        left = left + jax.random.normal(second, left.shape)
        return b - S * (jax.scipy.linalg.cho_solve((root, True), left.T).T @ slopes)

    keys = jax.random.split(key, len(at["sigma"]))
    found = jax.jit(lambda given: jax.lax.map(draw, given, batch_size=_TOGETHER))((dict(at), keys))
    return np.asarray(found).reshape(-1, slopes.shape[1])


def _unconditioned(
    data: LinearData, normal: Array, at: Mapping[str, Array], key: Array
) -> Float[np.ndarray, "d p"]:
    """Draws of the coefficients from their prior."""
    S = _variances(data, normal, at)
    noise = np.asarray(jax.random.normal(key, S.shape))
    return np.asarray(_mean(data, normal)) + np.sqrt(S) * noise


def _under(
    places: Places, baryons: Callable[[Array], Potential], key: Array, number: int
) -> ByPlace:
    """Densities (d, m) of `number` draws of the baryons, by places."""
    there = jnp.asarray(every(places))

    def one(key: Array) -> Array:
        return jax.vmap(baryons(key).density)(there)

    keys = jax.random.split(key, number)
    found = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=_AT_ONCE))(keys)
    return split(places, np.asarray(found), 1)


def _efficiency(data: LinearData, b: np.ndarray, key: Array) -> Draw:
    """epsilon (d, m) at the points: the map's times exp of the field, at most one."""
    if not data.tells_epsilon:
        return {}
    epsilon = np.ones((len(b), 1))
    if data.dust_modes is not None:
        field = np.asarray(jax.vmap(data.dust_modes.values)(jnp.asarray(data.points)))
        epsilon = np.exp(b[:, -data.dust_modes.number :] @ field.T)
    if data.epsilon is not None:
        pick = jax.random.randint(key, (len(b),), 0, len(data.epsilon))
        epsilon = epsilon * data.epsilon[np.asarray(pick)]
    return {"epsilon": np.minimum(epsilon, 1.0)}
