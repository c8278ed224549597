"""From a model of the Milky Way and its stars to one ArviZ DataTree: posterior, prior, places."""

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesdust.callbacks import OnProgress, unheard
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.errors import BayesdustError
from bayesdust.inference import galaxy, galaxy_notes
from bayesdust.inference.draws import (
    ExactDraws,
    attributes,
    check_method,
    in_batches,
    label,
    prior_latents,
    products_of,
    sample,
)
from bayesdust.inference.galaxy_data import CIRCLES, HEIGHTS, SurveyData
from bayesdust.inference.nuts import Draws, latent_sites, stage_key
from bayesdust.inference.programs import Program, check

if TYPE_CHECKING:
    from xarray import DataTree

log = logging.getLogger(__name__)

#: unit and long name of the variables that models record; a user's own are left without.
LABELS = {
    "rho_dm_sun": ("GeV/cm3", "dark-matter density in the plane at the Sun"),
    "rho_dm_sun_msun_pc3": ("Msun/pc3", "dark-matter density in the plane at the Sun"),
    "rho_baryons_sun_msun_pc3": ("Msun/pc3", "density of the baryons in the plane at the Sun"),
    "sigma_1.1kpc": ("Msun/pc2", "surface density within 1.1 kpc at the Sun, |a_z|/(2 pi G)"),
    "sigma_baryons_1.1kpc": ("Msun/pc2", "the baryons' part of sigma_1.1kpc"),
    "v_circ": ("km/s", "circular velocity"),
    "K_z": ("km2/(s2 kpc)", "downward acceleration above the plane at the Sun"),
    "rho_z": ("Msun/kpc3", "mass density above the plane at the Sun"),
    "rho_dm_r": ("Msun/kpc3", "dark-matter density by distance from the centre"),
    "phi": ("km2/s2", "gravitational potential"),
    "acceleration": ("km2/(s2 kpc)", "acceleration"),
    "rho": ("Msun/kpc3", "mass density"),
    "rho_dm": ("Msun/kpc3", "dark-matter density"),
    "epsilon": ("", "share of the stars that the dust lets through"),
    "chi2": ("", "chi2 of the sums over the stars"),
    "flow_chi2": ("", "chi2 of the forces that flows read off the stars"),
    "gamma": ("", "inner slope of the dark halo"),
    "q": ("", "axis ratio of the dark halo, below 1 oblate"),
    "r_s": ("kpc", "scale radius of the dark halo"),
    "ln_rho_dm": ("", "ln of the dark-matter density in the plane at the Sun in Msun/kpc3"),
    "ln_r_s": ("", "ln of the scale radius of the dark halo in kpc"),
    "ln_q": ("", "ln of the axis ratio of the dark halo"),
    "mass_disc": ("Msun", "mass of the discs"),
    "ln_mass_disc": ("", "ln of the mass of the discs in Msun"),
    "ln_a_disc": ("", "ln of the length of the discs in kpc"),
    "ln_b_disc": ("", "ln of the height of the discs in kpc"),
    "ln_mass_bulge": ("", "ln of the mass of the bulge in Msun"),
    "sigma": ("km2/s2", "sd of the potential's field"),
    "length_R": ("kpc", "length of the potential's field along x, across the rotation"),
    "length_phi": ("kpc", "length of the potential's field along y, the rotation"),
    "length_z": ("kpc", "length of the potential's field across the plane"),
    "sigma_dust": ("", "sd of the field of ln epsilon"),
    "length_dust": ("kpc", "length of the field of ln epsilon"),
    "ln_sigma": ("", "ln of the sd of the potential's field in km2/s2"),
    "ln_length_R": (
        "",
        "ln of the length of the potential's field along x, across the rotation, in kpc",
    ),
    "ln_length_phi": (
        "",
        "ln of the length of the potential's field along y, the rotation, in kpc",
    ),
    "ln_length_z": ("", "ln of the length of the potential's field across the plane in kpc"),
    "ln_sigma_dust": ("", "ln of the sd of the field of ln epsilon"),
    "ln_length_dust": ("", "ln of the length of the field of ln epsilon in kpc"),
    "rho_disc_sun": ("Msun/pc3", "density of the discs in the plane at the Sun"),
    "weights_phi": ("", "weights of the potential's network"),
    "weights_dust": ("", "weights of the network of ln epsilon"),
}
PLACES = {
    "x": ("kpc", "Galactocentric x"),
    "y": ("kpc", "Galactocentric y"),
    "z": ("kpc", "height above the plane"),
}
COORDINATES = {
    "R": ("kpc", "distance from the axis"),
    "r": ("kpc", "distance from the centre"),
    "height": ("kpc", "height above the plane at the Sun"),
    "point": ("", "row of the place in the table of places, from 0"),
    "component": ("", "Cartesian component"),
}
DIMENSIONS = {
    "v_circ": ["R"],
    "K_z": ["height"],
    "rho_z": ["height"],
    "rho_dm_r": ["r"],
    "phi": ["point"],
    "rho": ["point"],
    "rho_dm": ["point"],
    "epsilon": ["point"],
    "acceleration": ["point", "component"],
    "weights_phi": ["weight"],
    "weights_dust": ["weight_dust"],
}
#: Of a network, kept in a group of its own: they mean nothing one by one.
WEIGHTS = ("weights_phi", "weights_dust")
#: Of what is told of the dust: no products, and no prior of epsilon, for the magnitudes are in the map.
INNER = ("ln_epsilon", "grad_ln_epsilon", "dust_answer")
UNUSED_NOTE = (
    "The flows of {} are not used: the sums count every star themselves (likelihood=flow takes the forces "
    "that a run with that option has left)."
)
#: Of NUTS. At 0.95, in four of four fits to mocks with gamma = 1.5, 1 to 15 of 4,000 transitions diverged
#: where r_s is smallest; at 0.98 none, for a third more steps.
TARGET_ACCEPT = 0.98


def fit(
    program: Program,
    stars: MilkyWayStars,
    points: Float[np.ndarray, "m 3"] | None = None,
    *,
    method: str = "nuts",
    options: Mapping[str, Any] | None = None,
    on_progress: OnProgress = unheard,
    flows: str | Path | None = None,
    **settings: Any,
) -> "DataTree":
    """Posterior of the Milky Way's force, dark matter and dust; `points` (m, 3) [kpc] are places of interest.

    `flows` is the folder of an earlier run with likelihood=flow on the same stars, whose flows are reused.
    `method` and `settings` as in `posterior.fit`. Raises BayesdustError on a model that breaks the
    contract, an unknown method, option or setting.
    """
    if program.kind != "milky_way":
        raise BayesdustError(f"{program.path} is not a model of the Milky Way.")
    check_method(method)
    prepare = program.prepare or galaxy.prepare
    seed = int(settings.get("seed", 0))
    if program.posterior is not None:
        _refuse_settings(program, method, settings)
    clock, timings = time.perf_counter(), settings.get("timings", {})
    more, unused = _flows(options or {}, flows, settings.get("checkpoint"))
    data = prepare(stars, dict(options or {}), points, seed=seed, on_progress=on_progress, **more)
    timings["preparing"] = time.perf_counter() - clock
    if not isinstance(data, SurveyData):
        raise BayesdustError(
            f"{program.path}: prepare(stars, options, points, **more) must return what "
            "galaxy.prepare or galaxy_linear.prepare returns."
        )
    data = replace(data, notes=(*data.notes, *unused))
    for note in data.notes:
        log.warning("warning: %s", note)
    if program.posterior is not None:
        return _exact(program, stars, data, seed, on_progress)
    assert program.model is not None
    check(program, data)
    settings["on_progress"] = on_progress
    if method == "nuts":
        settings.setdefault("target_accept", TARGET_ACCEPT)
    draws, seed, name, facts = sample(program.model, data, method, settings)
    tree = assemble(program, stars, data, draws, seed, name)
    tree.attrs.update(facts)
    return tree


def _flows(
    options: Mapping[str, Any], flows: str | Path | None, folder: Path | None
) -> tuple[dict[str, Path | None], tuple[str, ...]]:
    """What a model's `prepare` is told of flows, if its likelihood is of them, and what the user is."""
    if options.get("likelihood") == "flow":
        return {"flows": None if flows is None else Path(flows), "folder": folder}, ()
    if flows is None:
        return {}, ()
    if not Path(flows).is_dir():
        raise BayesdustError(f"{flows} is no folder of flows: give one, or leave it out.")
    return {}, (UNUSED_NOTE.format(flows),)


def _refuse_settings(program: Program, method: str, settings: Mapping[str, Any]) -> None:
    """A posterior in closed form has no method, and no settings but a seed."""
    extra = [name for name in settings if name not in ("seed", "checkpoint", "timings")]
    if method != "nuts":
        extra.insert(0, "method")
    if extra:
        raise BayesdustError(
            f"{program.name} has a posterior in closed form, without setting {extra[0]!r}: leave it out."
        )


def _exact(
    program: Program, stars: MilkyWayStars, data: SurveyData, seed: int, on_progress: OnProgress
) -> "DataTree":
    """The DataTree of a model with a posterior of its own: one chain of independent draws."""
    assert program.posterior is not None
    on_progress(0, 0, "posterior")
    found = program.posterior(data, stage_key(seed, "exact"))
    if not isinstance(found, ExactDraws):
        raise BayesdustError(
            f"{program.path}: posterior(data, key) must return a bayesdust.inference.draws.ExactDraws."
        )
    groups = {
        name: {key: np.asarray(value)[None] for key, value in group.items()}
        for name, group in (("posterior", found.posterior), ("prior", found.prior))
    }
    tree = _tree(data, groups)
    tree.attrs.update(attributes(program, stars, data, seed, "exact", found.parameters))
    tree.attrs.update(_own_attributes(data))
    tree.attrs.update(pareto_k=found.pareto_k, psis_ess=found.ess)
    if not math.isnan(found.ln_evidence):
        tree.attrs.update(ln_evidence=found.ln_evidence, ln_evidence_error=found.ln_evidence_error)
    tree.attrs["notes"] = json.dumps([*data.notes, *found.notes])
    return tree


def assemble(
    program: Program, stars: MilkyWayStars, data: SurveyData, draws: Draws, seed: int, method: str
) -> "DataTree":
    """The DataTree of a finished run; see the groups in docs/output.md."""
    assert program.model is not None
    products = products_of(program.model, data)
    posterior = in_batches(products, draws.z)
    prior = in_batches(products, prior_latents(program.model, data, seed))
    weights = {name: posterior.pop(name) for name in WEIGHTS if name in posterior}
    left_out = (*WEIGHTS, *INNER)
    inner = {name: posterior.pop(name) for name in INNER if name in posterior}
    posterior |= _efficiency(data, inner.get("ln_epsilon"), seed, draws.z)
    after, before = _flat(posterior | inner), _flat(prior)
    of_dust = after.get("dust_answer"), after.get("grad_ln_epsilon")
    notes = (*data.notes, *galaxy_notes.notes(data, after, before, *of_dust))
    groups = {
        "posterior": posterior,
        "sample_stats": draws.stats,
        "prior": {name: value for name, value in prior.items() if name not in left_out},
        "weights": weights,
    }
    names = [name for name in latent_sites(program.model, data) if name not in weights]
    tree = _tree(data, groups)
    tree.attrs.update(attributes(program, stars, data, seed, method, names))
    tree.attrs.update(_own_attributes(data), notes=json.dumps(notes))
    return tree


def _flat(group: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draws (draw, ...) of all chains together, of (chain, draw, ...)."""
    return {name: v.reshape(-1, *v.shape[2:]) for name, v in group.items()}


def _tree(data: SurveyData, groups: Mapping[str, Mapping[str, np.ndarray]]) -> "DataTree":
    """Groups of (chain, draw, ...) arrays with coordinates, units and the places."""
    import arviz as az
    import xarray as xr

    tree = az.from_dict(
        {name: group for name, group in groups.items() if group},
        coords={
            "R": CIRCLES,
            "height": HEIGHTS,
            "r": data.shells,
            "point": np.arange(len(data.points)),
            "component": ["ax", "ay", "az"],
        },
        dims=DIMENSIONS,
    )
    places = {name: ("point", data.points[:, i]) for i, name in enumerate(PLACES)}
    tree["constant_data"] = xr.DataTree(
        xr.Dataset(places, coords={"point": np.arange(len(data.points))})
    )
    label(tree, LABELS, PLACES, COORDINATES)
    return tree


def _efficiency(
    data: SurveyData, field: np.ndarray | None, seed: int, z: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Draws of the efficiency at the points, dealt out to the posterior's z; none where it is not known.

    Those of the dust map, times exp of the posterior's `field` of ln epsilon; at most one.
    """
    if not len(data.points) or (data.epsilon is None and field is None):
        return {}
    epsilon = np.ones(1) if field is None else np.exp(field)
    if data.epsilon is not None:
        shape = next(iter(z.values())).shape[:2]
        rng = np.random.default_rng(int(np.asarray(stage_key(seed, "epsilon"))[-1]))
        epsilon = epsilon * data.epsilon[rng.integers(len(data.epsilon), size=shape)]
    return {"epsilon": np.minimum(epsilon, 1.0)}


def _own_attributes(data: SurveyData) -> dict[str, Any]:
    """chi2 of a draw from the posterior is spread like that of the truth: no parameters are taken off."""
    return {
        "kind": "milky_way",
        "sun": json.dumps(data.sun.tolist()),
        "chi2_dof": data.number,
        "pilot": json.dumps(data.pilot),
    }
