"""Likelihood and products of a spherical halo, given a measured profile of the Milky Way's dark matter."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from bayesdust.arrays import Array, Real
from bayesdust.catalogs.profile import Profile
from bayesdust.errors import BayesdustError
from bayesdust.inference.draws import (
    attributes,
    check_method,
    in_batches,
    label,
    prior_latents,
    products_of,
    sample,
)
from bayesdust.inference.galaxy_posterior import LABELS
from bayesdust.inference.nuts import Draws, latent_sites
from bayesdust.inference.options import refuse_unknown
from bayesdust.inference.programs import Program, check
from bayesdust.potentials.base import SphericalHalo
from bayesdust.units import DENSITY_GEV_CM3, PC

if TYPE_CHECKING:
    from xarray import DataTree

log = logging.getLogger(__name__)

SHELLS = np.geomspace(1.0, 30.0, 35)  # kpc
OWN_LABELS = LABELS | {
    "rho_dm_r": ("Msun/kpc3", "dark-matter density"),
    "slope_sun": ("", "-d ln rho / d ln r at the Sun"),
    "chi2": ("", "chi2 of the measured profile"),
}
COORDINATES = {"r": ("kpc", "distance from the centre"), "radius": ("kpc", "measured radius")}
MEASURED = {
    "rho_dm": ("Msun/kpc3", "measured dark-matter density"),
    "rho_dm_err": ("Msun/kpc3", "its standard error"),
}


@dataclass(frozen=True, eq=False)
class ProfileData:
    """A measured profile, ready for a model; `options` and `notes` as of `galaxy_data.SurveyData`."""

    profile: Profile
    options: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def r_sun(self) -> float:
        """Distance of the Sun from the centre [kpc]."""
        return float(np.linalg.norm(self.profile.sun))

    def to_predict(self) -> "ProfileData":
        """The same: there are no velocities to be left open."""
        return self


def prepare(profile: Profile, options: Mapping[str, Any]) -> ProfileData:
    """Ready a profile for a model, which has no options. Raises BayesdustError where one is given."""
    refuse_unknown(options, (), {})
    return ProfileData(profile, {}, profile.notes)


def likelihood(data: ProfileData, halo: SphericalHalo) -> None:
    """The likelihood of the measured numbers, factor "profile"; chi2 is recorded."""
    measured = data.profile
    rho = halo.density(jnp.asarray(measured.r))
    rho = jnp.log(rho) if measured.logarithmic else rho
    chi2 = jnp.sum((measured.weights @ rho - measured.target) ** 2)
    numpyro.factor("profile", -0.5 * chi2)
    numpyro.deterministic("chi2", chi2)


def record(data: ProfileData, halo: SphericalHalo) -> dict[str, Array]:
    """Record the density at the Sun and in shells, and the slope -d ln rho / d ln r at the Sun."""

    def ln_density(ln_r: Real) -> Array:
        return jnp.log(halo.density(jnp.exp(ln_r)))

    local = halo.density(data.r_sun)
    products = {
        "rho_dm_sun": local * DENSITY_GEV_CM3,
        "rho_dm_sun_msun_pc3": local * PC**3,
        "slope_sun": -jax.grad(ln_density)(jnp.log(data.r_sun)),
        "rho_dm_r": halo.density(jnp.asarray(SHELLS)),
    }
    for name, value in products.items():
        numpyro.deterministic(name, value)
    return products


def fit(
    program: Program,
    profile: Profile,
    *,
    method: str = "nuts",
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> "DataTree":
    """Posterior of a halo, given a measured profile, as one ArviZ DataTree; see docs/output.md.

    `method` and `settings` as in `posterior.fit`. Raises BayesdustError on a model that breaks the
    contract, an unknown method, option or setting.
    """
    if program.kind != "milky_way_profile" or program.model is None:
        raise BayesdustError(f"{program.path} is not a NumPyro model of the Milky Way's profile.")
    check_method(method)
    data = (program.prepare or prepare)(profile, dict(options or {}))
    if not isinstance(data, ProfileData):
        raise BayesdustError(
            f"{program.path}: prepare(profile, options) must return what profile.prepare returns."
        )
    for note in data.notes:
        log.warning("warning: %s", note)
    check(program, data)
    draws, seed, name, facts = sample(program.model, data, method, settings)
    tree = assemble(program, data, draws, seed, name)
    tree.attrs.update(facts)
    return tree


def assemble(
    program: Program, data: ProfileData, draws: Draws, seed: int, method: str
) -> "DataTree":
    """The DataTree of a finished run."""
    import arviz as az
    import xarray as xr

    assert program.model is not None
    products, measured = products_of(program.model, data), data.profile
    groups = {
        "posterior": in_batches(products, draws.z),
        "sample_stats": draws.stats,
        "prior": in_batches(products, prior_latents(program.model, data, seed)),
    }
    tree = az.from_dict(
        {name: group for name, group in groups.items() if group},
        coords={"r": SHELLS},
        dims={"rho_dm_r": ["r"]},
    )
    radius = {"radius": measured.r}
    for group, name, value in (
        ("observed_data", "rho_dm", measured.rho),
        ("constant_data", "rho_dm_err", measured.error),
    ):
        tree[group] = xr.DataTree(xr.Dataset({name: ("radius", value)}, coords=radius))
    label(tree, OWN_LABELS | MEASURED, MEASURED, COORDINATES)
    names = latent_sites(program.model, data)
    tree.attrs.update(attributes(program, measured, data, seed, method, names))
    tree.attrs.update(
        kind="milky_way_profile",
        sun=json.dumps(list(map(float, measured.sun))),
        chi2_dof=len(measured.target),
    )
    return tree
