"""The likelihood of a parametric Milky Way, from sums over stars and the model's force at nodes.

A model's force enters the sums through its values at nodes (`dynamics/force_nodes.py`), so that a likelihood
costs one small product, whatever the number of stars.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.dynamics.force_nodes import ForceNodes
from bayesdust.inference.galaxy_data import (
    CHOICES,
    CIRCLES,
    HEIGHT,
    OPTIONS,
    SHELLS,
    Progress,
    Survey,
    SurveyData,
    options_of,
)
from bayesdust.potentials.base import Potential
from bayesdust.units import DENSITY_GEV_CM3, G

AT_ONCE = 16  # points; with some hundred draws beside each other their shells must fit the cache
PC = 1e-3  # kpc


@dataclass(frozen=True, eq=False)
class GalaxyData(SurveyData):
    """Stars of the Milky Way, ready for a parametric model.

    Attributes
    ----------
    nodes : where the models' forces are asked
    design, target : (p, p), (p,): the whitened sums are `design` @ node values + `target`, but for ...
    rest : ... what no axisymmetric force can change, its square
    pull : (p,) slope of the ln likelihood that undoes the stars' pull on their own sums
    """

    nodes: ForceNodes
    design: Float[np.ndarray, "p p"]
    target: Float[np.ndarray, " p"]
    rest: float
    pull: Float[np.ndarray, " p"]


def prepare(
    stars: MilkyWayStars,
    options: Mapping[str, Any],
    points: Float[np.ndarray, "m 3"] | None = None,
    seed: int = 0,
    on_progress: Progress = lambda done, total, phase: None,
) -> GalaxyData:
    """Ready `stars` for a model; `points` (m, 3) [kpc] are where it is to give forces and densities.

    Raises BayesdustError on an unknown option or choice, magnitudes that are not there, or a ball that is
    too small for one test function.
    """
    chosen = options_of(options, stars, OPTIONS, CHOICES)
    survey = Survey.of(stars, chosen, points, seed, on_progress)
    nodes = ForceNodes.covering(survey.centre, survey.radius)
    weighed = survey.weigh(nodes.basis, None, on_progress)
    design, target, rest = _compressed(weighed.whitened())
    return GalaxyData(
        **survey.shared(weighed),
        nodes=nodes,
        design=design,
        target=target,
        rest=rest,
        pull=weighed.pull,
    )


def weak_likelihood(data: GalaxyData, potential: Potential) -> None:
    """The likelihood of the sums over stars, factor "boltzmann"; chi2 is recorded.

    The sums are normal about zero with the covariance of a pilot solution: the stars' scatter, and what
    the dust is uncertain by.
    """
    force = data.nodes.values(potential)
    chi2 = jnp.sum((data.design @ force + data.target) ** 2) + data.rest
    numpyro.factor("boltzmann", -0.5 * chi2 + data.pull @ force)
    numpyro.deterministic("chi2", chi2)


def record(data: GalaxyData, potential: Potential, halo: Potential) -> dict[str, Array]:
    """Record the products as deterministic sites; `halo` is the dark part of `potential`.

    At the points phi, acceleration, rho and rho_dm; rho_dm_sun in the plane below the Sun; v_circ and
    rho_dm_r (mean over shells); sigma_1.1kpc = |a_z| / (2 pi G) at 1.1 kpc above the Sun [Msun/pc2].
    """
    points = jnp.asarray(data.points)
    plane = jnp.array([data.R_sun, 0.0, 0.0])
    above = jnp.array([data.R_sun, 0.0, HEIGHT])
    local = halo.density(plane)
    products = {
        "rho_dm_sun": local * DENSITY_GEV_CM3,
        "rho_dm_sun_msun_pc3": local * PC**3,
        "sigma_1.1kpc": -potential.acceleration(above)[2] / (2 * jnp.pi * G) * PC**2,
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


def _compressed(white: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Design (p, p), target (p,) and rest: |design a + target|^2 + rest is chi2 of the whitened sums."""
    force, constant = white[:, :-1], white[:, -1]
    turn, design = np.linalg.qr(force)
    target = turn.T @ constant
    return design, target, float(constant @ constant - target @ target)
