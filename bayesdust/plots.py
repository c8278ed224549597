"""Profiles of one result, as functions on axes: each draws on the `ax` given and returns it.

Nothing here touches pyplot or any global state; `figure()` makes a bare figure to draw on.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust import rings
from bayesdust.errors import BayesdustError
from bayesdust.influence import dispersion
from bayesdust.literature import published_angles, published_values
from bayesdust.style import BLACK, BLUE, GREEN, GREY, ORANGE, plain
from bayesdust.summary import dataset, radius_index

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    Table = Axes = Figure = DataTree = Any

LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)


def figure(width: float = 4.8, height: float = 4.0) -> tuple[Figure, Axes]:
    """A bare figure [inches] with one axes, outside pyplot; a notebook shows it as the value of a cell."""
    from matplotlib.figure import Figure as MakeFigure

    class Shown(MakeFigure):
        def _repr_png_(self) -> bytes:
            image = io.BytesIO()
            self.savefig(image, format="png")
            return image.getvalue()

    fig = Shown(figsize=(width, height), layout="constrained")
    return fig, fig.subplots()


def legend(ax: Axes) -> None:
    """A legend above the axes, where it hides no data, in as many columns as the width allows."""
    labels = ax.get_legend_handles_labels()[1]
    room = 1.08 * ax.bbox.width / ax.figure.dpi  # layout will widen the axes a little
    ncols = next((n for n in (5, 4, 3, 2) if _legend_width(labels, n) <= room), 1)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.01),
        borderaxespad=0.0,
        ncols=ncols,
        fontsize=8,
        frameon=False,
        columnspacing=1.2,
        handlelength=1.6,
    )


def _legend_width(labels: list[str], ncols: int) -> float:
    """Estimated width [inches] of a legend in 8 point, filled column by column."""
    columns = np.array_split([len(text) for text in labels], min(ncols, max(len(labels), 1)))
    return float(sum(0.062 * max(column, default=0) + 0.45 for column in columns))


# --- bands over a coordinate -------------------------------------------------------------------


def read_band(
    tree: DataTree, group: str, name: str, dim: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Coordinate (n,) and quantiles (5, n) at `LEVELS` over finite draws, None if absent."""
    if group not in tree.children or name not in dataset(tree, group):
        return None
    variable = dataset(tree, group)[name].transpose("chain", "draw", dim)
    x = np.asarray(variable[dim].values, dtype=float)
    y = np.asarray(variable.values, dtype=float).reshape(-1, x.size)
    y = y[np.isfinite(y).all(axis=1)]
    return (x, np.quantile(y, LEVELS, axis=0)) if len(y) else None


def draw_bands(tree: DataTree, ax: Axes, name: str, dim: str, log: bool = True) -> np.ndarray:
    """Draw prior, posterior and truth of one variable; return the posterior's quantiles (5, n)."""
    band = read_band(tree, "posterior", name, dim)
    if band is None:
        raise BayesdustError(f"the posterior holds no finite '{name}' over '{dim}' to draw")
    prior = read_band(tree, "prior", name, dim)
    if prior is not None:
        x, q = prior
        ax.fill_between(x, q[0], q[4], color=GREY, alpha=0.22, lw=0, label="prior, 95 %")
        for edge in (q[0], q[4]):
            ax.plot(x, edge, color=GREY, lw=0.7, alpha=0.8)
    x, q = band
    ax.fill_between(x, q[0], q[4], color=BLUE, alpha=0.25, lw=0)
    ax.fill_between(x, q[1], q[3], color=BLUE, alpha=0.45, lw=0, label="posterior, 68 and 95 %")
    ax.plot(x, q[2], color=BLUE)
    _truth_line(tree, ax, name, dim)
    ax.set_xscale("log")
    ax.set_xlim(x[0], x[-1])
    _limit_y(ax, q, log)
    return q


def _truth_line(tree: DataTree, ax: Axes, name: str, dim: str) -> None:
    if "truth" in tree.children and name in dataset(tree, "truth"):
        truth = dataset(tree, "truth")[name].squeeze()
        if truth.dims == (dim,):
            ax.plot(truth[dim].values, truth.values, color=BLACK, ls="--", label="truth")


def _limit_y(ax: Axes, q: np.ndarray, log: bool) -> None:
    """Frame the posterior with a margin; a prior wider than that runs off the page."""
    if not log:
        low, high = float(q[0].min()), float(q[4].max())
        pad = 0.35 * (high - low) or 1.0
        ax.set_ylim(low - pad, high + pad)
        return
    ax.set_yscale("log")
    low, high = np.log10([max(q[0].min(), 1e-300), max(q[4].max(), 1e-299)])
    pad = max(0.15 * (high - low), 0.3)
    ax.set_ylim(10.0 ** (low - pad), 10.0 ** (high + pad))


def _mark_radii(tree: DataTree, ax: Axes) -> None:
    """Vertical lines at 150 pc and at R_half, named along the top."""
    r = dataset(tree, "posterior")["r"]
    marks = (("0.15kpc", "150 pc"), ("rhalf", r"$R_{\rm half}$"))
    for (label, text), side in zip(marks, _sides(r), strict=True):
        index = radius_index(r, label)
        if index is not None:
            mark(ax, float(r.values[index]), text, side)


def mark(ax: Axes, x: float, text: str, side: str) -> None:
    """A dotted vertical line with its name at the top, on the given side."""
    ax.axvline(x, color=BLACK, lw=0.8, ls=":", zorder=1)
    ax.annotate(
        text,
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(3 if side == "left" else -3, -4),
        textcoords="offset points",
        ha=side,
        va="top",
        fontsize=8,
    )


def _sides(r: Any) -> tuple[str, str]:
    """Which side of its line each name stands on, so that close lines keep apart."""
    inner, outer = radius_index(r, "0.15kpc"), radius_index(r, "rhalf")
    if inner is None or outer is None or r.values[inner] < r.values[outer]:
        return "right", "left"
    return "left", "right"


def density_profile(tree: DataTree, ax: Axes, published: Table | None = None) -> Axes:
    """Dark-matter density rho(r) [Msun/kpc3] against r [kpc]: posterior over prior, truth dashed.

    `published` values of log10_rho[0.15kpc] are drawn as points with errors.
    """
    draw_bands(tree, ax, "rho", "r")
    _mark_radii(tree, ax)
    points = published_values(published, "log10_rho[0.15kpc]")
    places = beside(0.15, len(points))
    for i, (x, (value, minus, plus, label)) in enumerate(zip(places, points, strict=True)):
        error = 10.0**value * np.array([[1 - 10.0**-minus], [10.0**plus - 1]])
        ax.errorbar(x, 10.0**value, error, **point_style(i), label=plain(label))
    ax.set(xlabel="$r$ [kpc]", ylabel=r"$\rho_{\rm DM}(r)$ [M$_\odot$ kpc$^{-3}$]")
    legend(ax)
    return ax


def mass_profile(tree: DataTree, ax: Axes) -> Axes:
    """Enclosed dark mass M(<r) [Msun] against r [kpc]: posterior over prior, truth dashed."""
    draw_bands(tree, ax, "mass", "r")
    _mark_radii(tree, ax)
    ax.set(xlabel="$r$ [kpc]", ylabel=r"$M(<r)$ [M$_\odot$]")
    legend(ax)
    return ax


def velocity_curve(tree: DataTree, ax: Axes) -> Axes:
    """Circular velocity v_circ(r) [km/s] against r [kpc]: posterior over prior, truth dashed."""
    draw_bands(tree, ax, "v_circ", "r")
    _mark_radii(tree, ax)
    plain_numbers(ax.yaxis)
    ax.set(xlabel="$r$ [kpc]", ylabel=r"$v_{\rm circ}(r)$ [km s$^{-1}$]")
    legend(ax)
    return ax


def plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis that spans a decade or two with 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.set_minor_formatter(NullFormatter())


# --- J against angle -----------------------------------------------------------------------------


def point_style(index: int) -> dict[str, Any]:
    return {
        "fmt": "osDv^<>"[index % 7],
        "color": ORANGE,
        "mec": BLACK,
        "mew": 0.5,
        "ms": 4.5,
        "lw": 1.2,
        "capsize": 2,
        "zorder": 5,
    }


def beside(x: float, count: int) -> list[float]:
    """Places for `count` points at x, side by side within 3 % of it."""
    return [x] if count == 1 else [float(place) for place in x * np.linspace(0.97, 1.03, count)]


def j_profile(tree: DataTree, ax: Axes, published: Table | None = None) -> Axes:
    """log10 J [GeV2 cm-5] within a cone of half-angle theta [deg], published values alongside.

    Published points at one angle are spread by at most 3 % of it, to stay legible.
    """
    q = draw_bands(tree, ax, "log10_J", "angle", log=False)
    references: dict[str, int] = {}
    ends = [float(q[0].min()), float(q[4].max())]
    for angle in published_angles(published):
        points = published_values(published, f"log10_J[{angle:g}deg]")
        for x, point in zip(beside(angle, len(points)), points, strict=True):
            value, minus, plus, label = point
            seen = label in references
            style = point_style(references.setdefault(label, len(references)))
            text = None if seen else plain(label)
            ax.errorbar(x, value, [[minus], [plus]], **style, label=text)
            ends += [value - minus, value + plus]
    pad = 0.12 * (max(ends) - min(ends))
    ax.set_ylim(min(ends) - pad, max(ends) + pad)
    low, high = ax.get_xlim()
    ax.set_xlim(low, high * 1.1)
    ax.set(xlabel=r"$\theta$ [deg]", ylabel=r"$\log_{10} J(<\theta)$ [GeV$^2$ cm$^{-5}$]")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    legend(ax)
    return ax


# --- dispersion over the data ------------------------------------------------------------------


def dispersion_profile(tree: DataTree, ax: Axes, n_bins: int | None = None) -> Axes:
    """sigma_los(R) [km/s] of the posterior over binned data, with the posterior predictive.

    Points are maximum-likelihood dispersions in rings of equal expected membership, about the
    mean velocity of all members, star errors and the fit's memberships included (a foreground is a
    fixed normal law); bars are 68 %, arrows 95 % upper limits. Boxes show where the model expects these
    points: the same estimate made on stars drawn from the posterior predictive (68 %), so what a
    velocity gradient adds to the points it adds to the boxes, not to the band.
    """
    band = read_band(tree, "posterior", "sigma_los", "R")
    if band is None:
        raise BayesdustError("the posterior holds no finite 'sigma_los' over 'R' to draw")
    x, q = band
    top = float(q[4].max())
    ax.fill_between(x, q[0], q[4], color=BLUE, alpha=0.25, lw=0)
    ax.fill_between(x, q[1], q[3], color=BLUE, alpha=0.45, lw=0, label="posterior, 68 and 95 %")
    ax.plot(x, q[2], color=BLUE)
    _truth_line(tree, ax, "sigma_los", "R")
    edges = _binned_points(tree, ax, n_bins)
    ax.set_xscale("log")
    if edges is not None:
        top = max(top, edges[2])
        ax.set_xlim(edges[0] / 1.4, edges[1] * 1.4)
    ax.set_ylim(0, 1.15 * top)
    at_half = dispersion(tree)
    if at_half is not None:
        mark(ax, at_half.radius, r"$R_{\rm half}$", "left")
    ax.set(xlabel="$R$ [kpc]", ylabel=r"$\sigma_{\rm los}(R)$ [km s$^{-1}$]")
    legend(ax)
    return ax


def _binned_points(
    tree: DataTree, ax: Axes, n_bins: int | None
) -> tuple[float, float, float] | None:
    """Draw points and predictive boxes; return inner and outer radius and highest bar drawn."""
    if not {"observed_data", "constant_data"} <= set(tree.children):
        return None
    radius, v, err, p = rings.velocity_data(tree)
    number = rings.radial_bins(radius, p, n_bins)
    replicas = rings.replicas(tree, v.size)
    fit = rings.RingFit(v, err, p)
    chosen = [number == k for k in np.unique(number) if p[number == k].sum() >= 2]
    tops = [0.0]
    for ring in chosen:
        middle, low, high = rings.weighted_radii(radius[ring], p[ring])
        if replicas:
            tops.append(_draw_box(ax, low, high, [fit.best(w, ring, q) for w, q in replicas]))
        tops.append(_draw_point(ax, middle, fit.interval(v, ring)))
    members = radius[p > 0.5] if (p > 0.5).any() else radius
    inner, outer = np.quantile(members, [0.01, 1.0])
    return float(inner), float(outer), max(tops)


def _draw_box(ax: Axes, low: float, high: float, estimates: list[float]) -> float:
    """The central 68 % of the estimates made on replicas, as an open box; its top."""
    lower, upper = (float(q) for q in np.quantile(estimates, [0.16, 0.84]))
    label = _once(ax, "predicted for the points, 68 %")
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": GREEN, "lw": 1.0, "zorder": 3}
    ax.fill_between([low, high], lower, upper, label=label, **style)
    return upper


def _draw_point(ax: Axes, x: float, interval: tuple[float, float, float, float | None]) -> float:
    """A dispersion with its error bar, or the arrow of an upper limit; the highest value drawn."""
    best, lower, upper, limit = interval
    style: dict[str, Any] = {"color": BLACK, "ms": 4, "capsize": 2, "zorder": 4, "lw": 1.1}
    if limit is not None:
        label = _once(ax, "data, 95 % upper limit")
        ax.plot(x, limit, marker="_", ls="none", color=BLACK, ms=7, label=label)
        ax.errorbar(x, limit, [[0.25 * limit], [0.0]], uplims=True, fmt="none", **style)
        return limit
    label = _once(ax, "data, 68 %")
    ax.errorbar(x, best, [[best - lower], [upper - best]], fmt="o", label=label, **style)
    return upper


def _once(ax: Axes, label: str) -> str | None:
    """The label if the legend does not have it yet."""
    return None if label in ax.get_legend_handles_labels()[1] else label


FIGURES: dict[str, Callable[..., Axes]] = {
    "density": density_profile,
    "mass": mass_profile,
    "velocity": velocity_curve,
    "dispersion": dispersion_profile,
    "j": j_profile,
}
