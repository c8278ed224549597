"""Figures of a calibration."""

from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust.calibration_verdict import Calibration
from bayesdust.style import BLACK, BLUE, GREY, ORANGE, SYMBOLS, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

COLUMNS = 4


def shares(found: Calibration) -> Figure:
    """The distribution function of u less the uniform one, with its simultaneous band; orange: left it."""
    from matplotlib.figure import Figure as MakeFigure

    rows = -(-len(found.quantities) // COLUMNS)
    fig = MakeFigure(figsize=(2.4 * COLUMNS, 2.0 * rows), layout="constrained")
    axes = fig.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, q in zip(axes, found.quantities, strict=False):
        at = np.concatenate([[0.0], q.points, [1.0]])
        low, high, curve = (
            np.concatenate([[0.0], part - q.points, [0.0]]) for part in (q.lower, q.upper, q.ecdf)
        )
        ax.fill_between(at, low, high, color=GREY, alpha=0.3, lw=0)
        ax.plot(at, curve, color=BLUE if q.inside else ORANGE)
        ax.axhline(0, color=BLACK, lw=0.6)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_title(SYMBOLS.get(q.name, plain(q.name)), fontsize=9)
    for ax in axes[len(found.quantities) :]:
        ax.set_visible(False)
    fig.supxlabel("share u of the posterior below the truth", fontsize=9)
    fig.supylabel("excess of truths below it", fontsize=9)
    return fig
