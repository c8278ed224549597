"""From a model and its data to one ArviZ DataTree: posterior, prior, predictions, data."""

import dataclasses
import json
import logging
import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float
from numpyro import handlers
from numpyro.infer import Predictive

from bayesdust.catalogs.dwarf import Stars
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.catalogs.profile import Profile
from bayesdust.catalogs.tables import digest
from bayesdust.errors import BayesdustError
from bayesdust.files import claim
from bayesdust.inference import dwarf, dwarf_data, galaxy_posterior, profile
from bayesdust.inference.draws import (
    attributes,
    check_method,
    in_batches,
    label,
    prior_latents,
    products_of,
    sample,
)
from bayesdust.inference.dwarf import ANGLES, DwarfData
from bayesdust.inference.nuts import Draws, latent_sites, sample_sites, stage_key
from bayesdust.inference.pointwise import log_likelihood, other_terms
from bayesdust.inference.programs import Program, check, load

if TYPE_CHECKING:
    from xarray import DataTree

log = logging.getLogger(__name__)

PREDICTIVE_DRAWS = 200
MOTIONS = "pm"  # the site of the proper motions

GAUSSIAN = (
    "The velocities are taken for Gaussian, which those of no galaxy are: the intervals are somewhat too "
    "narrow (docs/results/velocities.md), and those of a core's slope may miss it (docs/results/slopes.md); "
    "velocities=kurtosis does without."
)

#: unit and long name of the variables that models record; a user's own are left without.
LABELS = {
    "rho": ("Msun/kpc3", "dark-matter density"),
    "mass": ("Msun", "enclosed dark mass"),
    "v_circ": ("km/s", "circular velocity"),
    "log10_J": ("GeV2 cm-5", "log10 of the J-factor"),
    "log10_D": ("GeV cm-2", "log10 of the D-factor"),
    "sigma_los": ("km/s", "line-of-sight velocity dispersion"),
    "v_los": ("km/s", "line-of-sight velocity"),
    "v_sys": ("km/s", "systemic velocity"),
    "gamma": ("", "inner slope"),
    "rho_s": ("Msun/kpc3", "scale density"),
    "r_s": ("kpc", "scale radius"),
    "ln_r_s": ("", "ln of the scale radius in kpc"),
    "ln_mass": ("", "ln of M(<1.8 R_half) in Msun"),
    "beta_ani": ("", "velocity anisotropy"),
    "r_a": ("kpc", "anisotropy radius"),
    "rhalf": ("arcmin", "circularised half-light radius"),
    "distance": ("kpc", "distance"),
    "v_foreground": ("km/s", "mean velocity of the foreground"),
    "sigma_foreground": ("km/s", "velocity dispersion of the foreground"),
    "gradient": ("km/s/kpc", "velocity gradient to the east and north"),
    "v_los_err": ("km/s", "error of the line-of-sight velocity"),
    "R": ("kpc", "circularised projected radius at the catalogue distance"),
    "p_member": ("", "probability of membership"),
    "foreground": ("", "shares of the foreground in bins of velocity"),
    "beta_tilde": ("", "symmetrised anisotropy beta/(2 - beta)"),
    "beta_tilde_0": ("", "symmetrised anisotropy beta/(2 - beta) at the centre"),
    "beta_tilde_inf": ("", "symmetrised anisotropy beta/(2 - beta) far out"),
    "ln_r_a": ("", "ln of the anisotropy radius in kpc"),
    "eta": ("", "sharpness of the change of anisotropy"),
    "ln_odds": ("", "ln of members over foreground at R_half"),
    "slope_foreground": ("", "outward fall of ln(foreground density) per R_half"),
    "light_members": ("", "share of members in the photometric sample"),
    "alpha": ("", "sharpness of the turn of the slope"),
    "beta": ("", "outer slope"),
    "light_gamma": ("", "inner slope of the light"),
    "nu": ("1/kpc3", "number density of the stars, one in all"),
    "slope_rhalf": ("", "-d ln rho/d ln r at R_half"),
    "pm_ra": ("mas/yr", "bulk proper motion to the east, cos(dec) included"),
    "pm_dec": ("mas/yr", "bulk proper motion to the north"),
    "pm_foreground": ("mas/yr", "mean proper motion of the foreground to the east and north"),
    "ln_sd_pm_foreground": ("", "ln of the foreground's spread of proper motions in mas/yr"),
    "member": ("", "probability that the star is a member, its velocity known"),
    "member_predicted": ("", "the same, had it the predicted velocity"),
}
#: and of the columns of `constant_data`, whose names a parameter may have too
COLUMNS = LABELS | {
    "xi": ("rad", "tangent-plane offset to the east"),
    "eta": ("rad", "tangent-plane offset to the north"),
    "pmra": ("mas/yr", "proper motion to the east, cos(dec) included"),
    "pmdec": ("mas/yr", "proper motion to the north"),
    "pmra_err": ("mas/yr", "error of the proper motion to the east"),
    "pmdec_err": ("mas/yr", "error of the proper motion to the north"),
}
COORDINATES = {
    "r": ("kpc", "radius"),
    "R": ("kpc", "projected radius"),
    "angle": ("deg", "half-angle of the cone"),
    "velocity_bin": ("", "number of the bin of velocity"),
    "weight": ("", "number of the weight"),
    "knot": ("", "number of the knot, from the centre"),
    "turn": ("", "number of the step from knot to knot"),
    "star": ("", "row of the star in the table, from 0"),
}
DIMENSIONS = {
    "rho": ["r"],
    "mass": ["r"],
    "v_circ": ["r"],
    "log10_J": ["angle"],
    "log10_D": ["angle"],
    "sigma_los": ["R"],
    "v_los": ["star"],
    "nu": ["r"],
    "field": ["weight"],
    "slopes": ["knot"],
    "turns": ["turn"],
    "member": ["star"],
    "member_predicted": ["star"],
    "foreground": ["velocity_bin"],
}


def fit(
    model: str | Path | Program,
    stars: Stars | MilkyWayStars | Profile,
    *,
    method: str = "nuts",
    options: Mapping[str, Any] | None = None,
    points: Float[np.ndarray, "m 3"] | None = None,
    **settings: Any,
) -> "DataTree":
    """Posterior of a dwarf galaxy's dark matter, or of the Milky Way's force or halo, as one ArviZ DataTree.

    `model` is a shipped model's name, a path, or a loaded `Program`; `options` go to its `prepare`;
    `method` is "nuts", "vi-flow" (or "vi") or "vi-normal"; `settings` are the fields of `nuts.Plan`
    (num_warmup, num_draws, num_chains, seed, ...) or `variational.Plan` (num_steps, num_draws, ...).
    `stars` may be a measured profile (`read_profile`, `profile_of`), for a model of that.
    `points` (m, 3) [kpc] are the places at which a model of the Milky Way answers.

    Raises BayesdustError on a model that breaks the contract, an unknown method, option or setting, or a
    checkpoint of something else.
    """
    program = model if isinstance(model, Program) else load(model)
    if settings.get("checkpoint") is not None:
        asked = {"model file": program.sha256, **stars.identity, "method": method}
        asked |= {"points": None if points is None else digest(np.asarray(points))}
        asked |= {name: str(value) for name, value in sorted((options or {}).items())}
        deciding = sorted(set(settings) - {"checkpoint", "timings", "on_progress"})
        claim(Path(settings["checkpoint"]), asked | {name: settings[name] for name in deciding})
    if isinstance(stars, MilkyWayStars):
        return galaxy_posterior.fit(
            program, stars, points, method=method, options=options, **settings
        )
    if isinstance(stars, Profile):
        return profile.fit(program, stars, method=method, options=options, **settings)
    if program.kind != "dwarf" or program.model is None:
        raise BayesdustError(f"{program.path} is not a NumPyro model of a dwarf galaxy.")
    check_method(method)
    data = prepared(program, stars, dict(options or {}))
    draws, seed, name, facts = sample(program.model, data, method, settings)
    tree = assemble(program, stars, data, draws, seed, name)
    tree.attrs.update(facts)
    return tree


def prepared(program: Program, stars: Stars, options: dict[str, Any]) -> DwarfData:
    """The data that `program` asks for, once the program has been gone through with them."""
    data = (program.prepare or dwarf.prepare)(stars, options)
    assert program.model is not None
    if not isinstance(data, DwarfData):
        raise BayesdustError(
            f"{program.path}: prepare(stars, options) must return what dwarf.prepare returns."
        )
    check(program, data)
    if data.options["membership"] == "mixture" and not _is_mixture(program.model, data):
        raise BayesdustError(
            f"{program.name} has no foreground for membership=mixture: choose given or none, or a model "
            "that has one, such as dsph_gnfw."
        )
    if data.motions is not None and MOTIONS not in sample_sites(program.model, data):
        raise BayesdustError(
            f"{program.name} does not use proper motions: choose proper_motions=ignored, or a model that "
            "does, such as dsph_gnfw."
        )
    if data.p_member is not None and not _is_mixture(program.model, data):
        data = dataclasses.replace(data, notes=(*data.notes, dwarf_data.ignored(stars)))
    for note in data.notes:
        log.warning("warning: %s", note)
    return data


def _law(model: Any, data: DwarfData) -> Any:
    """What the velocities follow, or None without the site; nothing is computed."""
    found: list[Any] = []

    def run(key: Any) -> None:
        site = handlers.trace(handlers.seed(model, key)).get_trace(data).get("v_los")
        found.append(site and site["fn"])

    jax.eval_shape(run, jax.random.PRNGKey(0))
    return found[0]


def _is_mixture(model: Any, data: DwarfData) -> bool:
    """Whether the velocities follow a mixture of members and others."""
    return isinstance(_law(model, data), dist.MixtureGeneral)


def _is_gaussian(model: Any, data: DwarfData) -> bool:
    """Whether members' velocities follow normal laws."""
    law = _law(model, data)
    return isinstance(
        law.component_distributions[0] if isinstance(law, dist.MixtureGeneral) else law, dist.Normal
    )


def assemble(
    program: Program, stars: Stars, data: DwarfData, draws: Draws, seed: int, method: str
) -> "DataTree":
    """The DataTree of a finished run; see the groups in docs/output.md."""
    import arviz as az
    import xarray as xr

    assert program.model is not None
    products = products_of(program.model, data)
    posterior = in_batches(products, draws.z)
    groups = {
        "posterior": posterior,
        "sample_stats": draws.stats,
        "prior": in_batches(products, prior_latents(program.model, data, seed)),
        "posterior_predictive": predict(program.model, data, posterior, seed),
        "log_likelihood": log_likelihood(program.model, data, posterior),
        "observed_data": {"v_los": stars.v_los},
    }
    tree = az.from_dict(
        {name: group for name, group in groups.items() if group},
        coords={"r": data.r, "angle": ANGLES, "R": _projected_radii(data)},
        dims=DIMENSIONS,
    )
    # apart, so that a parameter may have the name of a column
    constants = {name: ("star", value) for name, value in _constants(stars, data).items()}
    star = {"star": np.arange(stars.n)}
    tree["constant_data"] = xr.DataTree(xr.Dataset(constants, coords=star))
    label(tree, LABELS, COLUMNS, COORDINATES)
    _mark_radii(tree, data)
    if "log_likelihood" in tree.children:
        _mark_likelihood(tree["log_likelihood"], other_terms(program.model, data), stars)
    names = latent_sites(program.model, data)
    tree.attrs.update(attributes(program, stars, data, seed, method, names))
    tree.attrs.update(_own_attributes(data))
    if _is_gaussian(program.model, data):
        tree.attrs["notes"] = json.dumps([*data.notes, GAUSSIAN])
    return tree


def predict(
    model: Callable[[Any], Any], data: DwarfData, posterior: Mapping[str, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """Velocities (chain, draw, star) that the model would have seen, for some 200 posterior draws.

    Where the model tells members from others, also "member", the probability that a star is one,
    given its velocity too, and "member_predicted", the same had it the predicted velocity.
    """
    chains, draws = next(iter(posterior.values())).shape[:2]
    thin = max(1, chains * draws // PREDICTIVE_DRAWS)
    latent = {
        name: posterior[name][:, ::thin] for name in latent_sites(model, data) if name in posterior
    }
    shape = next(iter(latent.values())).shape[:2]
    flat = {name: v.reshape(-1, *v.shape[2:]) for name, v in latent.items()}
    draw = Predictive(model, flat, return_sites=["v_los"], parallel=True)
    found = dict(jax.jit(lambda key: draw(key, data.to_predict()))(stage_key(seed, "predict")))
    if "v_los" in found and data.v_los is not None and _is_mixture(model, data):
        members = jax.jit(jax.vmap(partial(_members, model, data), in_axes=(0, 0)))
        found |= members(flat, found["v_los"])
    return {name: np.asarray(value).reshape(*shape, -1) for name, value in found.items()}


def _members(
    model: Callable[[Any], Any], data: DwarfData, values: Mapping[str, Any], predicted: Any
) -> dict[str, Any]:
    """Probabilities (star,) to be a member at one draw of the parameters, by Bayes' theorem."""
    seeded = handlers.seed(model, jax.random.PRNGKey(0))
    mixture = handlers.trace(handlers.substitute(seeded, values)).get_trace(data)["v_los"]["fn"]
    return {
        name: jax.nn.softmax(mixture.component_log_probs(v), axis=-1)[..., 0]
        for name, v in (("member", data.v_los), ("member_predicted", predicted))
    }


def _constants(stars: Stars, data: DwarfData) -> dict[str, np.ndarray]:
    constants = {
        "v_los_err": stars.v_los_err,
        "R": stars.theta * data.galaxy.distance,
        "xi": stars.xi,
        "eta": stars.eta,
    }
    if stars.p_member is not None:
        constants["p_member"] = stars.p_member
    if data.motions is not None and stars.proper_motions is not None:
        pm, covariance = stars.proper_motions.value, stars.proper_motions.covariance
        for i, name in enumerate(("pmra", "pmdec")):
            constants |= {name: pm[:, i], f"{name}_err": np.sqrt(covariance[:, i, i])}
    return constants


def _projected_radii(data: DwarfData) -> np.ndarray:
    return data.theta_out * data.galaxy.distance


def _mark_radii(tree: "DataTree", data: DwarfData) -> None:
    """Where the marked radii are, as attributes of every coordinate r."""
    index = {f"{name}_index": int(np.argmin(abs(data.r - r))) for name, r in _marks(data).items()}
    for group in tree.children.values():
        if "r" in group.coords:
            group.coords["r"].attrs.update(index, rhalf=data.r_half)


def _mark_likelihood(group: "DataTree", others: list[str], stars: Stars) -> None:
    """What the likelihood of the velocities is, and what it leaves out: for comparisons."""
    about = {"units": "", "long_name": "ln of the density [1/(km/s)] of the star's velocity"}
    group["v_los"].attrs.update(about)
    group.attrs.update(others=json.dumps(others), numbers=json.dumps(stars.digests))


def _marks(data: DwarfData) -> dict[str, float]:
    return {"0.15kpc": 0.15, "rhalf": data.r_half, "1.8rhalf": data.pivot}


def _own_attributes(data: DwarfData) -> dict[str, Any]:
    r_trunc, rho_max = data.options["r_trunc"], data.options["rho_max"]
    return {
        "galaxy": json.dumps(data.galaxy.to_dict()),
        "r_trunc": "none" if np.isinf(r_trunc) else float(r_trunc),
        "rho_max": "none" if np.isinf(rho_max) else float(rho_max),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a draw."""
    names = ("bayesdust", "jax", "jaxlib", "numpyro", "arviz", "numpy", "equinox")
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in names}
