"""The ln likelihood of every star's velocity at every draw: what leave-one-out comparisons are made of.

The terms are those of the site "v_los", each the density of one star's velocity given its place, its error
and the parameters, foreground included. What a model knows of its stars from elsewhere (a photometric
sample, a factor of the user's own) is no part of them: `other_terms` names it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from bayesdust.inference.draws import in_batches
from bayesdust.inference.nuts import latent_sites

VELOCITIES = "v_los"


def log_likelihood(
    model: Callable[[Any], Any], data: Any, posterior: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """ln of the density [1/(km/s)] of each star's velocity, {"v_los": (chain, draw, star)}.

    `posterior` holds the parameters (chain, draw, ...). Nothing where the model has no likelihood star
    by star. float32: a term of size t is rounded by t 2^-24 at most, so that the sum over a thousand
    stars, of terms near 4, is off by 3e-4 at the very most, where a difference of 1 means nothing yet.
    """
    if _sites(model, data).get(VELOCITIES) != np.shape(data.v_los):
        return {}
    names = [name for name in latent_sites(model, data) if name in posterior]
    one = partial(_terms, model, data)
    return in_batches(jax.jit(jax.vmap(one)), {name: posterior[name] for name in names})


def other_terms(model: Callable[[Any], Any], data: Any) -> list[str]:
    """Names of the likelihoods and factors of a model beside that of the velocities."""
    return sorted(set(_sites(model, data)) - {VELOCITIES})


def _terms(model: Callable[[Any], Any], data: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    site = _traced(model, data, jax.random.PRNGKey(0), values)[VELOCITIES]
    return {VELOCITIES: site["fn"].log_prob(site["value"]).astype(jnp.float32)}


def _sites(model: Callable[[Any], Any], data: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the ln likelihood of every observed site; nothing is computed."""
    found: dict[str, tuple[int, ...]] = {}

    def run(key: Any) -> None:
        for name, site in _traced(model, data, key, {}).items():
            if site["type"] == "sample" and site["is_observed"]:
                found[name] = jnp.shape(site["fn"].log_prob(site["value"]))

    jax.eval_shape(run, jax.random.PRNGKey(0))
    return found


def _traced(
    model: Callable[[Any], Any], data: Any, key: Any, values: Mapping[str, Any]
) -> dict[str, Any]:
    seeded = handlers.substitute(handlers.seed(model, key), values)
    return handlers.trace(seeded).get_trace(data)
