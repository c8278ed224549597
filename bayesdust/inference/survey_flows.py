"""Forces that flows read off a survey's stars, for the option likelihood=flow."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bayesdust.callbacks import OnProgress
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.catalogs.tables import digest
from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import Architecture
from bayesdust.flows.training import Schedule
from bayesdust.inference.flow_likelihood import Cells, FlowForces, flow_forces
from bayesdust.inference.galaxy_data import Survey, ball_of

PLACES = 600  # at which flows are asked for the force ...
WITHIN, FLAT = 0.75, 0.375  # ... of the ball's radius from its centre, and from the plane
# stars: fewer have not been measured to do; of 3,000 the vertical force is half
FEWEST_FOR_FLOWS = 20_000
FLOW_NOTE = (
    "Forces that flows read off the stars are the likelihood (likelihood=flow), a cross-check of the sums: "
    "what the dust, and the Sun's place and motion, are uncertain by is not in their errors."
)
FLOW_FORCES = "flow_forces.npz"  # in the folder of a run


def kept(
    stars: MilkyWayStars, chosen: Mapping[str, Any], flows: Path | None, folder: Path | None
) -> FlowForces | None:
    """The forces that an earlier run left in its folder `flows`, or this one in its own `folder` before it
    was stopped; None where there are none, or the options `chosen` ask for none.

    Raises BayesdustError where `flows` holds none, or those of other stars.
    """
    if chosen["likelihood"] != "flow":
        return None
    if flows is None and folder is not None and (folder / FLOW_FORCES).exists():
        flows = folder
    return None if flows is None else FlowForces.load(flows / FLOW_FORCES, _key(stars, chosen))


def chosen_by(
    survey: Survey,
    stars: MilkyWayStars,
    found: FlowForces | None,
    folder: Path | None,
    on_progress: OnProgress,
) -> tuple[FlowForces | None, tuple[str, ...]]:
    """The forces of flows where they are the likelihood, else None; and what the user ought to know of them.

    Those `found`; else of flows that are trained. They are left in `folder`. Raises BayesdustError for too
    few stars.
    """
    if survey.options["likelihood"] != "flow":
        return None, ()
    few = f" {stars.n:,} stars are too few for it: the vertical force may be far too small."
    found = trained(survey, on_progress) if found is None else found
    if folder is not None and not (folder / FLOW_FORCES).exists():
        found.save(folder / FLOW_FORCES, _key(stars, survey.options))
    return found, (FLOW_NOTE + few * (stars.n < FEWEST_FOR_FLOWS),)


def _key(stars: MilkyWayStars, chosen: Mapping[str, Any]) -> str:
    """A digest of all that decides what flows learn, but for the seed."""
    names = "efficiency", "limit", "absolute_limit", "magnitude", "counts", "errors"
    light = stars.photometry.get(chosen["magnitude"]) if chosen["limit"] is not None else None
    errors = None if stars.observed is None else stars.observed.errors
    weights = stars.weights if chosen["efficiency"] == "given" else None
    ball = np.append(*ball_of(stars))
    text = np.frombuffer(json.dumps([str(chosen[name]) for name in names]).encode(), dtype=np.uint8)
    return digest(stars.x, stars.v, errors, light, weights, ball, text)


def trained(survey: Survey, on_progress: OnProgress) -> FlowForces:
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
        noisier=noisier(survey),
        schedule=schedule,
        on_progress=on_progress,
    )


def noisier(survey: Survey) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
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
