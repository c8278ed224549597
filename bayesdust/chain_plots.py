"""Figures of the draws themselves: corner plot, traces and rank histograms of the chains.

As in `plots`, nothing here touches pyplot or any global state.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust.errors import BayesdustError
from bayesdust.style import BLUE, CHAIN_COLOURS, GREY, ORANGE, SYMBOLS, decimals, fixed, plain
from bayesdust.summary import dataset, is_constant, parameters, scalars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    Axes = Figure = DataTree = Any

MAX_PANELS = 9  # of a corner plot: more cannot be read on a page


def sampled(tree: DataTree) -> dict[str, np.ndarray]:
    """Draws (chain, draw) of the sampled parameters that vary, at most `MAX_PANELS` of them.

    Where the tree does not name them (root attribute `parameters`), all scalars of the model.
    """
    listed = set(parameters(tree))
    found = {
        name: scalar.draws
        for name, scalar in scalars(tree).items()
        if not scalar.derived and (name in listed or not listed) and not is_constant(scalar.draws)
    }
    return dict(list(found.items())[:MAX_PANELS])


def _labels(tree: DataTree, names: list[str]) -> list[str]:
    data = dataset(tree, "posterior")
    units = [str(data[name].attrs.get("units", "")) for name in names]
    return [
        SYMBOLS.get(name, plain(name)) + (f"\n[{plain(unit)}]" if unit else "")
        for name, unit in zip(names, units, strict=True)
    ]


def corner_plot(tree: DataTree, fig: Figure | None = None) -> Figure:
    """Corner plot of the sampled parameters (68 and 95 % regions), truths drawn in as lines."""
    import corner
    from matplotlib.figure import Figure as MakeFigure

    draws = sampled(tree)
    if not draws:
        raise BayesdustError("no sampled parameter varies, so there is no corner plot")
    names = list(draws)
    flat = np.stack([draws[name].ravel() for name in names], axis=1)
    flat = flat[np.isfinite(flat).all(axis=1)]
    if len(flat) < 10 * len(names):
        raise BayesdustError(f"{len(flat)} finite draws are too few for a corner plot")
    size = 1.5 * len(names) + 1.0
    target = MakeFigure(figsize=(size, size)) if fig is None else fig
    corner.corner(
        flat,
        fig=target,
        labels=_labels(tree, names),
        color=BLUE,
        bins=int(np.clip(math.sqrt(len(flat) / 4), 12, 30)),
        smooth=1.0,
        hist_kwargs={"lw": 1.2},
        contour_kwargs={"linewidths": 0.8},
        levels=(0.68, 0.95),
        plot_datapoints=False,
        plot_density=False,
        fill_contours=True,
        range=[_span(column) for column in flat.T],
        quantiles=(0.16, 0.5, 0.84),
        show_titles=True,
        title_fmt=None,
        label_kwargs={"fontsize": 9},
        max_n_ticks=4,
    )
    truths = _truths(tree, names)
    if truths is not None:
        corner.overplot_lines(target, truths, color=ORANGE, lw=1.0)
    for ax, text in zip(target.axes[:: len(names) + 1], _titles(names, flat), strict=True):
        ax.set_title(text, fontsize=9, pad=7)
    target.subplots_adjust(
        top=1 - 0.55 / target.get_size_inches()[1]
    )  # corner leaves no room for titles
    return target


def _span(column: np.ndarray) -> tuple[float, float]:
    """Plot range holding all but the last half per cent of either tail, with a margin."""
    low, high = np.quantile(column, [0.002, 0.998])
    pad = 0.08 * (high - low) or 1.0
    return float(low - pad), float(high + pad)


def _titles(names: list[str], flat: np.ndarray) -> list[str]:
    out = []
    for name, column in zip(names, flat.T, strict=True):
        low, middle, high = np.quantile(column, [0.16, 0.5, 0.84])
        digits = decimals(min(middle - low, high - middle))
        middle_text = fixed(middle, digits)
        value = f"{middle_text}_{{-{middle - low:.{digits}f}}}^{{+{high - middle:.{digits}f}}}"
        out.append(f"{SYMBOLS.get(name, plain(name))}\n${value}$")
    return out


def _truths(tree: DataTree, names: list[str]) -> list[float | None] | None:
    if "truth" not in tree.children:
        return None
    truth = dataset(tree, "truth")
    found = [float(truth[n].values.squeeze()) if n in truth else None for n in names]
    return found if any(value is not None for value in found) else None


def trace(tree: DataTree, ax: Axes, name: str) -> Axes:
    """Trace of one reported quantity: its value against draw number, a colour a chain."""
    draws = _named(tree, name)
    for chain, values in enumerate(draws):
        colour = CHAIN_COLOURS[chain % len(CHAIN_COLOURS)]
        ax.plot(values, color=colour, lw=0.5, label=f"chain {chain}", rasterized=True)
    ax.set(xlabel="draw", ylabel=SYMBOLS.get(name, plain(name)))
    ax.set_xlim(0, max(draws.shape[1] - 1, 1))
    return ax


def ranks(tree: DataTree, ax: Axes, name: str, bins: int = 20) -> Axes:
    """Rank histogram of one quantity by chain: level lines where the chains agree.

    The grey band holds 95 % of the bars of independent draws (binomial, normal approximation).
    Reference: Vehtari et al. (2021, Bayesian Analysis 16, 667), section 4.
    """
    draws = _named(tree, name)
    order = np.argsort(np.argsort(draws.ravel(), kind="stable"), kind="stable")
    edges = np.linspace(0, draws.size, bins + 1)
    expected = draws.shape[1] / bins
    half = 1.96 * math.sqrt(expected * (1 - 1 / bins)) / expected
    ax.axhspan(1 - half, 1 + half, color=GREY, alpha=0.25, lw=0)
    for chain, values in enumerate(order.reshape(draws.shape)):
        counts = np.histogram(values, edges)[0] / expected
        colour = CHAIN_COLOURS[chain % len(CHAIN_COLOURS)]
        ax.stairs(counts, edges / draws.size, color=colour, lw=1.2, label=f"chain {chain}")
    ax.set(xlabel="rank among all draws", ylabel="relative share", xlim=(0, 1))
    ax.set_ylim(bottom=0)
    return ax


def _named(tree: DataTree, name: str) -> np.ndarray:
    found = scalars(tree)
    if name not in found:
        raise BayesdustError(f"the posterior holds no '{name}'; it has {', '.join(found)}")
    return found[name].draws


def chain_figure(tree: DataTree, names: list[str]) -> Figure:
    """Trace (left) and rank histogram (right) of each named quantity, one row each."""
    from matplotlib.figure import Figure as MakeFigure

    if not names:
        raise BayesdustError("no quantity varies, so there are no chains to show")
    fig = MakeFigure(figsize=(9.6, 1.8 * len(names) + 0.5), layout="constrained")
    axes = fig.subplots(len(names), 2, squeeze=False, width_ratios=(2, 1))
    for row, name in zip(axes, names, strict=True):
        trace(tree, row[0], name)
        ranks(tree, row[1], name)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6))
    return fig
