"""The likelihood of a parametric Milky Way, from sums over stars and the model's force at nodes.

A model's force enters the sums through its values at nodes (`dynamics/force_nodes.py`), so that a likelihood
costs one small product, whatever the number of stars. With likelihood=flow forces that flows read off the
same stars decide (`flow_likelihood.py`), and the sums only judge what comes out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.dynamics.force_nodes import ForceNodes
from bayesdust.inference import galaxy_data, survey_flows
from bayesdust.inference.flow_likelihood import FlowForces, flow_likelihood
from bayesdust.inference.galaxy_data import (
    AT_1100_PC,
    CIRCLES,
    HEIGHTS,
    SHELLS,
    Survey,
    SurveyData,
    options_of,
)
from bayesdust.potentials.base import Potential
from bayesdust.units import COLUMN, DENSITY_GEV_CM3, PC

OPTIONS, CHOICES = galaxy_data.OPTIONS, galaxy_data.CHOICES
AT_ONCE = 16  # points; with some hundred draws beside each other their shells must fit the cache


@dataclass(frozen=True, eq=False)
class GalaxyData(SurveyData):
    """Stars of the Milky Way, ready for a parametric model.

    Attributes
    ----------
    nodes : where the models' forces are asked
    design, target : (p, p), (p,): the whitened sums are `design` @ node values + `target`, but for ...
    rest : ... what no axisymmetric force can change, its square
    pull : (p,) slope of the ln likelihood that undoes the stars' pull on their own sums
    answering : (d, p): what the dust's draws answer for is `answering` @ (`design` @ node values + `target`)
    flow : the forces of flows where they are the likelihood, else None
    """

    nodes: ForceNodes
    design: Float[np.ndarray, "p p"]
    target: Float[np.ndarray, " p"]
    rest: float
    pull: Float[np.ndarray, " p"]
    answering: Float[np.ndarray, "d p"] | None = None
    flow: FlowForces | None = None


def prepare(
    stars: MilkyWayStars,
    options: Mapping[str, Any],
    points: Float[np.ndarray, "m 3"] | None = None,
    seed: int = 0,
    on_progress: OnProgress = unheard,
    *,
    flows: Path | None = None,
    folder: Path | None = None,
) -> GalaxyData:
    """Ready `stars` for a model; `points` (m, 3) [kpc] are where it is to give forces and densities.

    With likelihood=flow the forces of flows are those that an earlier run left in its folder `flows`, or
    in this one's own `folder` before it was stopped; else flows are trained, and the forces left there.

    Raises BayesdustError on an unknown option or choice, magnitudes that are not there, a ball that is too
    small for one test function, too few stars for flows, or forces in `flows` that are of other stars.
    """
    chosen = options_of(options, stars, OPTIONS, CHOICES)
    kept = survey_flows.kept(stars, chosen, flows, folder)
    survey = Survey.of(stars, chosen, points, seed, on_progress)
    flow, told = survey_flows.chosen_by(survey, stars, kept, folder, on_progress)
    nodes = ForceNodes.covering(survey.centre, survey.radius)
    weighed = survey.weigh(nodes.basis, None, on_progress)
    shared = survey.shared(weighed)
    shared["notes"] += told
    turn, design, target, rest = _compressed(weighed.whitened())
    shifts = shared["dust_shifts"]
    return GalaxyData(
        **shared,
        flow=flow,
        nodes=nodes,
        design=design,
        target=target,
        rest=rest,
        pull=weighed.pull,
        answering=None if shifts is None else shifts.T @ turn,
    )


def weak_likelihood(data: GalaxyData, potential: Potential) -> None:
    """The likelihood of the sums over stars, factor "boltzmann", or of the flows' forces, factor "flow".

    The sums are normal about zero with the covariance of a pilot solution: the stars' scatter, and what
    the dust is uncertain by, both inflated as stars are few. Their chi2 without that is recorded in either
    case, and as dust_answer what the dust's draws have to answer for.
    """
    force = data.nodes.values(potential)
    white = data.design @ force + data.target
    chi2 = jnp.sum(white**2) + data.rest
    if data.flow is None:
        numpyro.factor("boltzmann", -0.5 * chi2 + data.pull @ force)
    else:
        flow_likelihood(data.flow, potential, data.nodes)
    numpyro.deterministic("chi2", data.inflation * chi2)
    if data.answering is not None:
        numpyro.deterministic("dust_answer", jnp.asarray(data.answering) @ white)


def record(data: GalaxyData, potential: Potential, halo: Potential) -> dict[str, Array]:
    """Record the products as deterministic sites; `halo` is the dark part of `potential`.

    At the points phi, acceleration, rho and rho_dm; rho_dm_sun, and what is not dark, in the plane below the
    Sun; v_circ and rho_dm_r (mean over shells); rho_z and K_z = -a_z above the Sun's place in the plane;
    sigma_1.1kpc = K_z / (2 pi G) at 1.1 kpc [Msun/pc2], and what of it is not dark.
    """
    points = jnp.asarray(data.points)
    plane = jnp.array([data.R_sun, 0.0, 0.0])
    above = plane + jnp.asarray(HEIGHTS)[:, None] * jnp.array([0.0, 0.0, 1.0])
    K_z = -jax.vmap(potential.acceleration)(above)[:, 2]
    local = halo.density(plane)
    products = {
        "rho_dm_sun": local * DENSITY_GEV_CM3,
        "rho_dm_sun_msun_pc3": local * PC**3,
        "rho_baryons_sun_msun_pc3": (potential.density(plane) - local) * PC**3,
        "sigma_1.1kpc": K_z[AT_1100_PC] * COLUMN,
        "sigma_baryons_1.1kpc": (K_z[AT_1100_PC] + halo.acceleration(above[AT_1100_PC])[2])
        * COLUMN,
        "K_z": K_z,
        "rho_z": jax.vmap(potential.density)(above),
        "v_circ": jax.vmap(potential.circular_velocity)(jnp.asarray(CIRCLES)),
        "rho_dm_r": jax.vmap(lambda r: _shell_mean(halo, r))(jnp.asarray(SHELLS)),
    }
    if len(data.points):
        products |= jax.lax.map(
            lambda x: {
                "phi": potential.potential(x),
                "acceleration": potential.acceleration(x),
                "rho": potential.density(x),
                "rho_dm": halo.density(x),
            },
            points,
            batch_size=AT_ONCE,
        )
    for name, value in products.items():
        numpyro.deterministic(name, value)
    return products


_COSINES, _SHARES = np.polynomial.legendre.leggauss(8)


def _shell_mean(halo: Potential, r: Array) -> Array:
    """Mean of the density over the sphere of radius r, by Gauss-Legendre in cos(theta)."""
    sines = np.sqrt(1 - _COSINES**2)
    places = r * jnp.stack([jnp.asarray(sines), jnp.zeros(8), jnp.asarray(_COSINES)], axis=1)
    return jnp.sum(_SHARES * jax.vmap(halo.density)(places)) / 2


def _compressed(white: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Turn (k, p), design (p, p), target (p,) and rest: design a + target are the whitened sums @ turn, and
    |design a + target|^2 + rest is their chi2."""
    force, constant = white[:, :-1], white[:, -1]
    turn, design = np.linalg.qr(force)
    target = turn.T @ constant
    return turn, design, target, float(constant @ constant - target @ target)
