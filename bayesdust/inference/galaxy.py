"""The likelihood of a parametric Milky Way, from sums over stars and the model's force at nodes.

A model's force enters the sums through its values at nodes (`dynamics/force_nodes.py`), so that a likelihood
costs one small product, whatever the number of stars. With likelihood=flow forces that flows read off the
same stars decide (`flow_likelihood.py`), and the sums only judge what comes out.
"""

import json
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
from bayesdust.catalogs.tables import digest
from bayesdust.dynamics.force_nodes import ForceNodes
from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import Architecture
from bayesdust.flows.training import Schedule
from bayesdust.inference import galaxy_data
from bayesdust.inference.flow_likelihood import Cells, FlowForces, flow_forces, flow_likelihood
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
from bayesdust.units import DENSITY_GEV_CM3, G

OPTIONS = galaxy_data.OPTIONS | {"likelihood": "sums"}
CHOICES = galaxy_data.CHOICES | {"likelihood": ("sums", "flow")}
PLACES = 600  # at which flows are asked for the force ...
WITHIN, FLAT = 0.75, 0.375  # ... of the ball's radius from its centre, and from the plane
# stars: fewer have not been measured to do; of 3,000 the vertical force is half
FEWEST_FOR_FLOWS = 20_000
FLOW_NOTE = (
    "Forces that flows read off the stars are the likelihood (likelihood=flow), a cross-check of the sums: "
    "what the dust, and the Sun's place and motion, are uncertain by is not in their errors."
)
FLOW_FORCES = "flow_forces.npz"  # in the folder of a run
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
    flow : the forces of flows where they are the likelihood, else None
    """

    nodes: ForceNodes
    design: Float[np.ndarray, "p p"]
    target: Float[np.ndarray, " p"]
    rest: float
    pull: Float[np.ndarray, " p"]
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
    survey = Survey.of(stars, chosen, points, seed, on_progress)
    flow = None
    if chosen["likelihood"] == "flow":
        flow = _forces_of_flows(survey, _key(stars, survey), flows, folder, on_progress)
    nodes = ForceNodes.covering(survey.centre, survey.radius)
    weighed = survey.weigh(nodes.basis, None, on_progress)
    design, target, rest = _compressed(weighed.whitened())
    shared = survey.shared(weighed)
    if flow is not None:
        few = f" {stars.n:,} stars are too few for it: the vertical force may be far too small."
        shared["notes"] += (FLOW_NOTE + few * (stars.n < FEWEST_FOR_FLOWS),)
    return GalaxyData(
        **shared,
        flow=flow,
        nodes=nodes,
        design=design,
        target=target,
        rest=rest,
        pull=weighed.pull,
    )


def _forces_of_flows(
    survey: Survey, key: str, flows: Path | None, folder: Path | None, on_progress: OnProgress
) -> FlowForces:
    """Those kept in `flows`, or in this run's `folder`; else of flows that are trained, and kept there."""
    if flows is not None:
        found = FlowForces.load(flows / FLOW_FORCES, key)
    elif folder is not None and (folder / FLOW_FORCES).exists():
        return FlowForces.load(folder / FLOW_FORCES, key)
    else:
        found = _trained(survey, on_progress)
    if folder is not None:
        found.save(folder / FLOW_FORCES, key)
    return found


def _key(stars: MilkyWayStars, survey: Survey) -> str:
    """A digest of all that decides what flows learn, but for the seed."""
    chosen = survey.options
    names = "efficiency", "limit", "absolute_limit", "magnitude", "counts", "errors"
    light = stars.photometry.get(chosen["magnitude"]) if chosen["limit"] is not None else None
    errors = None if stars.observed is None else stars.observed.errors
    weights = stars.weights if chosen["efficiency"] == "given" else None
    ball = np.append(survey.centre, survey.radius)
    text = np.frombuffer(json.dumps([str(chosen[name]) for name in names]).encode(), dtype=np.uint8)
    return digest(stars.x, stars.v, errors, light, weights, ball, text)


def _trained(survey: Survey, on_progress: OnProgress) -> FlowForces:
    """Of flows trained on the stars as they are, with the sums' weights, at places well inside the ball."""
    x, v, weights = survey.sample.x[:, 0], survey.sample.v[:, 0], survey.sample.weights[:, 0]
    within = np.linalg.norm(x - survey.centre, axis=1) < WITHIN * survey.radius
    near = np.flatnonzero(within & (abs(x[:, 2]) < FLAT * survey.radius))
    if len(near) < PLACES:
        raise BayesdustError(
            f"likelihood=flow needs {PLACES} stars or more in the middle of the survey, and there are "
            f"{len(near)}: take likelihood=sums."
        )
    rng = np.random.default_rng(np.random.SeedSequence([survey.seed, *b"places"]))
    cells = Cells.of(x[rng.choice(near, PLACES, replace=False)])
    # stars on the rim lie inside after rounding to single precision
    radius = survey.radius * (1 + 1e-5)
    build = Architecture.for_stars(x, v, tuple(map(float, survey.centre)), radius)
    schedule = Schedule(seed=survey.seed)
    return flow_forces(
        x,
        v,
        build,
        cells,
        weights=weights,
        noisier=_noisier(survey),
        schedule=schedule,
        on_progress=on_progress,
    )


def _noisier(survey: Survey) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Copies of the stars with their errors once more, and their weights there, if errors are deconvolved.

    A star that would leave the ball stays where it is: what flows are asked lies well inside.
    """
    sample = survey.sample
    x, v, w = (np.moveaxis(a, 1, 0) for a in (sample.x, sample.v, sample.weights))
    if len(x) == 1:
        return None
    out = np.linalg.norm(x[1:] - survey.centre, axis=-1) > survey.radius
    # copies have -1/4 of the weight that a star has ((4) of `dynamics/weak_form.py`)
    w = np.where(out, w[:1], -4 * w[1:])
    out = out[..., None]
    return np.where(out, x[:1], x[1:]), np.where(out, v[:1], v[1:]), w


def weak_likelihood(data: GalaxyData, potential: Potential) -> None:
    """The likelihood of the sums over stars, factor "boltzmann", or of the flows' forces, factor "flow".

    The sums are normal about zero with the covariance of a pilot solution: the stars' scatter, and what
    the dust is uncertain by, both inflated as stars are few. Their chi2 without that is recorded in either
    case.
    """
    force = data.nodes.values(potential)
    chi2 = jnp.sum((data.design @ force + data.target) ** 2) + data.rest
    if data.flow is None:
        numpyro.factor("boltzmann", -0.5 * chi2 + data.pull @ force)
    else:
        flow_likelihood(data.flow, potential, data.nodes)
    numpyro.deterministic("chi2", data.inflation * chi2)


def record(data: GalaxyData, potential: Potential, halo: Potential) -> dict[str, Array]:
    """Record the products as deterministic sites; `halo` is the dark part of `potential`.

    At the points phi, acceleration, rho and rho_dm; rho_dm_sun in the plane below the Sun; v_circ and
    rho_dm_r (mean over shells); K_z = -a_z above the Sun's place in the plane; sigma_1.1kpc =
    K_z / (2 pi G) at 1.1 kpc [Msun/pc2].
    """
    points = jnp.asarray(data.points)
    plane = jnp.array([data.R_sun, 0.0, 0.0])
    above = plane + jnp.asarray(HEIGHTS)[:, None] * jnp.array([0.0, 0.0, 1.0])
    K_z = -jax.vmap(potential.acceleration)(above)[:, 2]
    local = halo.density(plane)
    products = {
        "rho_dm_sun": local * DENSITY_GEV_CM3,
        "rho_dm_sun_msun_pc3": local * PC**3,
        "sigma_1.1kpc": K_z[AT_1100_PC] / (2 * jnp.pi * G) * PC**2,
        "K_z": K_z,
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
