"""The quality page of an ensemble of flows: verdict first, then data against flow."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import paramax

from bayesdust import flow_plots
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.files import write_atomically
from bayesdust.flow_quality import MOST, NAMES, Quality, base_variables
from bayesdust.flows.autoregressive import member
from bayesdust.flows.training import Trained
from bayesdust.pages import data_uri, render

DPI = 110
_DRAWN = 100_000  # stars of the flow in the figures


def write_page(
    quality: Quality, trained: Trained, stars: MilkyWayStars, about: Mapping[str, Any], path: Path
) -> None:
    """Write one self-contained HTML page."""
    context = {
        "quality": quality,
        "name": Path(str(about["source"])).name,
        "about": about,
        "cuts": "" if stars.cuts is None else str(stars.cuts),
        "pit": [(n, quality.pit_distance[n], quality.pit[n]) for n in NAMES],
        "figures": list(_figures(trained, stars)),
    }
    write_atomically(path, render("flows.html.j2", context))


def _figures(trained: Trained, stars: MilkyWayStars) -> Iterator[dict[str, str]]:
    """Title and data URI of each figure, of member 0."""
    flow = paramax.unwrap(member(trained.flows, 0))
    x, v = flow.stars(jax.random.key(1), _DRAWN)
    drawn = np.asarray(x), np.asarray(v)
    weights = np.ones(stars.n) if stars.weights is None else stars.weights / stars.weights.mean()
    held = trained.held_out[:MOST]
    z = base_variables(flow, *(jnp.asarray(a[held], jnp.float32) for a in (stars.x, stars.v)))
    made = {
        "Projected density": flow_plots.density_maps(stars.x, weights, drawn[0]),
        "Velocity moments": flow_plots.velocity_moments((stars.x, stars.v, weights), drawn),
        "Training (thin) and held-out stars (thick)": flow_plots.training_curves(trained.losses),
    }
    if stars.weights is None:  # the law of weighted stars is not that of the flow
        made["Base variables of held-out stars"] = flow_plots.base_variables(z, NAMES)
    for title, figure in made.items():
        yield {"title": title, "uri": data_uri(figure, DPI)}
