"""Draws of a model's posterior and prior, and what the model makes of them: for every kind of model."""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from numpyro.infer import Predictive
from numpyro.infer.util import constrain_fn, unconstrain_fn

from bayesdust.errors import BayesdustError
from bayesdust.inference import nuts
from bayesdust.inference.nuts import Draws, latent_sites, run_nuts, stage_key
from bayesdust.inference.programs import Program

if TYPE_CHECKING:
    from xarray import DataTree

SCHEMA_VERSION = 1
PRIOR_DRAWS = 1000
#: name -> guide of variational inference, "" where it is none
METHODS = {"nuts": "", "vi": "flow", "vi-flow": "flow", "vi-normal": "normal"}
_BATCH = 250  # draws whose products are worked out at once


class ExactDraws(NamedTuple):
    """What a model's own `posterior(data, key)` returns: independent draws, by name.

    Attributes
    ----------
    posterior, prior : (draw, ...)
    parameters : names among them that the model is made of; all others are derived
    pareto_k : of the weights by which the draws were chosen, zero if none were needed
    ess : how many independent choices they are worth, by which Monte Carlo errors go
    notes : sentences for the user, beside those of the data
    ln_evidence, ln_evidence_error : of what the stars say under the priors, and its Monte Carlo error, to
        compare priors for the same stars; NaN if it is not known
    """

    posterior: dict[str, np.ndarray]
    prior: dict[str, np.ndarray]
    parameters: list[str]
    pareto_k: float
    ess: float
    notes: tuple[str, ...] = ()
    ln_evidence: float = math.nan
    ln_evidence_error: float = math.nan


def sample(
    model: Callable[[Any], Any], data: Any, method: str, settings: Mapping[str, Any]
) -> tuple[Draws, int, str, dict[str, Any]]:
    """Draws of a model's posterior, the seed, the method's full name, and facts for the root attributes.

    Raises BayesdustError on an unknown setting.
    """
    if method == "nuts":
        plan = _plan(nuts.Plan, method, settings)
        return run_nuts(model, data, plan), plan.seed, method, {}
    from bayesdust.inference import variational  # brings in flowjax, slow to import

    guide = _plan(variational.Plan, method, settings, guide=METHODS[method])
    draws, facts = variational.run_vi(model, data, guide)
    return draws, guide.seed, f"vi-{guide.guide}", facts


def check_method(method: str) -> None:
    """Raises BayesdustError on an unknown method."""
    if method not in METHODS:
        raise BayesdustError(f"There is no method {method!r}: choose from {', '.join(METHODS)}.")


def _plan(kind: Any, method: str, settings: Mapping[str, Any], **fixed: Any) -> Any:
    """The method's plan with the user's settings."""
    known = set(kind.__dataclass_fields__) - set(fixed)
    for name in settings:
        if name not in known:
            raise BayesdustError(f"Method {method} has no setting {name!r}: leave it out.")
    return kind(**fixed, **settings)


def constrain(
    model: Callable[[Any], Any], data: Any, z: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Parameters and recorded products (chain, draw, ...) of unconstrained draws (chain, draw, ...)."""
    return in_batches(products_of(model, data), z)


def products_of(model: Callable[[Any], Any], data: Any) -> Callable[[Any], dict[str, Any]]:
    """The compiled map from `_BATCH` unconstrained draws to parameters and products."""
    one = partial(constrain_fn, model, (data,), {}, return_deterministic=True)
    return jax.jit(jax.vmap(one))


def in_batches(
    products: Callable[[Any], dict[str, Any]], z: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Apply `products` to (chain, draw, ...) arrays, always `_BATCH` draws at once: one program."""
    shape = next(iter(z.values())).shape[:2]
    count = shape[0] * shape[1]
    flat = {name: np.asarray(v).reshape(count, *v.shape[2:]) for name, v in z.items()}
    parts = []
    for first in range(0, count, _BATCH):
        rows = np.minimum(
            np.arange(first, first + _BATCH), count - 1
        )  # the last batch is filled up
        parts.append(jax.device_get(products({name: v[rows] for name, v in flat.items()})))
    return {
        name: np.concatenate([part[name] for part in parts])[:count].reshape(
            *shape, *parts[0][name].shape[1:]
        )
        for name in parts[0]
    }


def prior_latents(model: Callable[[Any], Any], data: Any, seed: int) -> dict[str, np.ndarray]:
    """Unconstrained draws (1, draw, ...) of the parameters from the prior."""
    sites = latent_sites(model, data)
    draw = Predictive(model, num_samples=PRIOR_DRAWS, return_sites=sites, parallel=True)

    @jax.jit
    def unconstrained(key: Any) -> dict[str, Any]:
        return jax.vmap(partial(unconstrain_fn, model, (data,), {}))(draw(key, data))

    found = unconstrained(stage_key(seed, "prior"))
    return {name: np.asarray(value)[None] for name, value in found.items()}


def label(
    tree: "DataTree",
    labels: Mapping[str, tuple[str, str]],
    constants: Mapping[str, tuple[str, str]],
    coordinates: Mapping[str, tuple[str, str]],
) -> None:
    """Unit and long name on every variable and coordinate, by name; `constants` are constant_data's."""
    for title, group in tree.children.items():
        named = constants if title == "constant_data" else labels
        for name, variable in group.data_vars.items():
            unit, long_name = named.get(str(name), ("", str(name)))
            variable.attrs.update(units=unit, long_name=long_name)
        for name, (unit, long_name) in coordinates.items():
            if name in group.coords:
                group.coords[name].attrs.update(units=unit, long_name=long_name)


def attributes(
    program: Program, stars: Any, data: Any, seed: int, method: str, parameters: list[str]
) -> dict[str, Any]:
    """What every result says of itself, for the root of its DataTree."""
    return {
        "model": program.name,
        "method": method,
        "seed": seed,
        "options": json.dumps({k: str(v) for k, v in data.options.items()}),
        "parameters": json.dumps(parameters),
        "source": stars.source,
        "data_sha256": stars.sha256,
        "notes": json.dumps(data.notes),
        "bayesdust_version": metadata.version("bayesdust"),
        "schema_version": SCHEMA_VERSION,
    }
