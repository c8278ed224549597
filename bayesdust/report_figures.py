"""The figures of a report: what each shows, and the drawing itself as a data URI."""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesdust import chain_plots, plots
from bayesdust.errors import BayesdustError
from bayesdust.pages import data_uri
from bayesdust.style import STYLE
from bayesdust.summary import is_independent

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.figure import Figure
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    Table = Figure = DataTree = Any

log = logging.getLogger(__name__)

DPI = 170  # of the figures that hold too many points for SVG


class Spec(NamedTuple):
    """One figure of a page: how it is drawn, and how wide it stands ("half" or "full")."""

    title: str
    caption: str
    width: str
    make: Callable[[], Figure]
    vector: bool = True


def figures(tree: DataTree, table: Table, published: Table | None) -> Iterator[dict[str, Any]]:
    """Every figure of a dwarf galaxy as title, caption and data URI, or why it is missing."""
    return drawn([*_of_a_dwarf(tree, published), *of_the_draws(tree, table)])


def drawn(specs: Iterable[Spec]) -> Iterator[dict[str, Any]]:
    """The figures as title, caption and data URI, or the reason why one is missing."""
    for title, caption, width, make, vector in specs:
        yield {"title": title, "caption": caption, "width": width} | _picture(title, make, vector)


def _of_a_dwarf(tree: DataTree, published: Table | None) -> list[Spec]:
    return [
        Spec(
            "Density profile",
            "Dark-matter density against radius: median, 68 and 95 % bands of the posterior (blue) "
            "over the 95 % band of the prior (grey). Where blue is as wide as grey, the stars said "
            "nothing. Dotted lines: 150 pc and the projected half-light radius.",
            "half",
            partial(on_axes, plots.density_profile, tree, published),
        ),
        Spec(
            "Enclosed mass",
            "Dark mass within radius r; bands as in the density profile.",
            "half",
            partial(on_axes, plots.mass_profile, tree),
        ),
        Spec(
            "Velocity dispersion",
            "Line-of-sight dispersion against projected radius. Points: maximum-likelihood "
            "dispersion in rings of equal membership with 68 % bars (arrows: 95 % upper limits), "
            "star errors and the memberships that the fit found included. Boxes: where the model "
            "expects these points.",
            "full",
            partial(on_axes, plots.dispersion_profile, tree, size=(9.6, 4.0)),
        ),
        Spec(
            "J-factor",
            "J within a cone of half-angle θ around the centre; bands as before. Published values, "
            "where known, stand at their angle (spread by 3 % at most).",
            "half",
            partial(on_axes, plots.j_profile, tree, published),
        ),
        Spec(
            "Circular velocity",
            "Circular velocity of the dark halo; bands as before.",
            "half",
            partial(on_axes, plots.velocity_curve, tree),
        ),
    ]


def of_the_draws(tree: DataTree, table: Table) -> list[Spec]:
    """Corner plot and chains, of whatever kind the galaxy is."""
    specs = [
        Spec(
            "Parameters",
            "Sampled parameters: 68 and 95 % regions, and median with 68 % interval above each "
            "histogram. Orange lines: the truth, for mocks.",
            "full",
            partial(chain_plots.corner_plot, tree),
            False,
        ),
    ]
    if not is_independent(tree):
        specs.append(
            Spec(
                "Chains",
                "Traces and rank histograms of the quantities with the worst R-hat. Level rank "
                "histograms inside the grey band mean chains that agree.",
                "full",
                partial(chain_plots.chain_figure, tree, _worst_mixed(table)),
                False,
            )
        )
    return specs


def on_axes(
    draw: Callable[..., Any], tree: DataTree, *extra: Any, size: tuple[float, float] = (4.8, 4.2)
) -> Figure:
    fig, ax = plots.figure(*size)
    draw(tree, ax, *extra)
    return fig


def _picture(title: str, make: Callable[[], Figure], vector: bool) -> dict[str, str]:
    from matplotlib import rc_context

    try:
        with rc_context(STYLE):
            return {"src": data_uri(make(), None if vector else DPI), "missing": ""}
    except BayesdustError as error:
        log.warning("figure '%s' left out: %s", title, error)
        return {"src": "", "missing": str(error)}


def _worst_mixed(table: Table, count: int = 3) -> list[str]:
    live = table[np.asarray(table["sd"]) != 0]
    rhat = np.asarray(live["rhat"], dtype=float)
    order = np.argsort(-np.where(np.isnan(rhat), np.inf, rhat), kind="stable")
    return [str(live["name"][i]) for i in order[:count]]
