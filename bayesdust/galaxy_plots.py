"""Figures of the Milky Way's forces and dust, as functions on axes; as in `plots`, without pyplot."""

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust.errors import BayesdustError
from bayesdust.literature import local_dark_matter, published_values
from bayesdust.plots import beside, draw_bands, legend, mark, plain_numbers, point_style
from bayesdust.style import BLACK, BLUE, GREEN, GREY
from bayesdust.summary import dataset
from bayesdust.units import DENSITY_GEV_CM3

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    Axes = Figure = DataTree = Any

LEVELS = (0.16, 0.5, 0.84)
ACCELERATION = r"[(km s$^{-1}$)$^2$ kpc$^{-1}$]"
_ON_AXIS = 1e-6  # kpc: nearer to the axis than this a point has no radial direction


def sun(tree: DataTree) -> np.ndarray | None:
    """Galactocentric place of the Sun [kpc], from the root attribute `sun`; None if not told."""
    place = np.asarray(json.loads(tree.attrs.get("sun", "[]")), dtype=float)
    return place if place.shape == (3,) else None


# --- over a radius -----------------------------------------------------------------------------


def density(tree: DataTree, ax: Axes) -> Axes:
    """Dark-matter density [Msun/kpc3], the mean over spheres, against r [kpc]."""
    draw_bands(tree, ax, "rho_dm_r", "r")
    _spread(ax)
    place = sun(tree)
    if place is not None:
        _mark_sun(ax, float(np.linalg.norm(place)))
    ax.set(xlabel="$r$ [kpc]", ylabel=r"$\rho_{\rm DM}(r)$ [M$_\odot$ kpc$^{-3}$]")
    legend(ax)
    return ax


def halo(tree: DataTree, ax: Axes) -> Axes:
    """The halo fitted to a measured profile [Msun/kpc3] against r [kpc], with what was measured.

    Beside it published densities at the Sun, spread by at most 3 % in radius, unless the truth is known,
    and the slope -1 of an NFW halo's centre.
    """
    draw_bands(tree, ax, "rho_dm_r", "r")
    r = dataset(tree, "posterior")["r"].values
    ends = _measured(tree, ax)
    middle = np.nanmedian(dataset(tree, "posterior")["rho_dm_r"].values[..., 0])
    inner = np.array([r[0], 0.3 * r[-1]])
    label = "slope of an NFW centre, $-1$"
    ax.plot(inner, middle * r[0] / inner, color=GREEN, ls="-.", lw=1.0, label=label)
    place = sun(tree)
    if place is not None:
        r_sun = float(np.linalg.norm(place))
        _mark_sun(ax, r_sun)
        if "truth" not in tree.children:
            _local(ax, r_sun)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.7 * ends[0]), max(high, 1.4 * ends[1]))
    plain_numbers(ax.xaxis)
    ax.set(xlabel="$r$ [kpc]", ylabel=r"$\rho_{\rm DM}(r)$ [M$_\odot$ kpc$^{-3}$]")
    legend(ax)
    return ax


def _measured(tree: DataTree, ax: Axes) -> tuple[float, float]:
    """The measured densities with their errors; the lowest and the highest positive one."""
    rho = dataset(tree, "observed_data")["rho_dm"]
    error = dataset(tree, "constant_data")["rho_dm_err"].values
    style: dict[str, Any] = {"color": BLACK, "fmt": "o", "ms": 3.5, "lw": 1.1, "zorder": 4}
    ax.errorbar(rho["radius"].values, rho.values, error, label="measured", **style)
    seen = rho.values[rho.values > 0]
    return (float(seen.min()), float(seen.max())) if seen.size else (math.inf, 0.0)


def _local(ax: Axes, r_sun: float) -> None:
    """Published densities at the Sun."""
    points = published_values(local_dark_matter(), "rho_dm_sun")
    for i, (x, point) in enumerate(zip(beside(r_sun, len(points)), points, strict=True)):
        value, minus, plus = (number / DENSITY_GEV_CM3 for number in point[:3])
        ax.errorbar(x, value, [[minus], [plus]], **point_style(i), label=point[3].split(",")[0])


def circular_velocity(tree: DataTree, ax: Axes) -> Axes:
    """Circular velocity [km/s] of all mass in the plane against R [kpc]."""
    draw_bands(tree, ax, "v_circ", "R", log=False)
    _spread(ax)
    place = sun(tree)
    if place is not None:
        _mark_sun(ax, math.hypot(place[0], place[1]))
    ax.set(xlabel="$R$ [kpc]", ylabel=r"$v_{\rm circ}(R)$ [km s$^{-1}$]")
    legend(ax)
    return ax


def vertical_force(tree: DataTree, ax: Axes) -> Axes:
    """K_z = -a_z [(km/s)^2/kpc] above the plane at the Sun against the height [kpc]."""
    draw_bands(tree, ax, "K_z", "height", log=False)
    ax.set(xscale="linear", xlabel="$z$ [kpc]", ylabel=r"$K_z(z)$ [km$^2$ s$^{-2}$ kpc$^{-1}$]")
    legend(ax)
    return ax


def vertical_density(tree: DataTree, ax: Axes) -> Axes:
    """Density of all mass [1e8 Msun/kpc3] above the plane at the Sun against the height [kpc]."""
    draw_bands(tree, ax, "rho_z", "height", log=False)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value / 1e8:g}")
    ax.set(xscale="linear", xlabel="$z$ [kpc]", ylabel=r"$\rho(z)$ [$10^8$ M$_\odot$ kpc$^{-3}$]")
    legend(ax)
    return ax


def _spread(ax: Axes) -> None:
    """Radii of less than a decade stand on a linear axis, more with plain numbers."""
    low, high = ax.get_xlim()
    if high < 10 * low:
        ax.set_xscale("linear")
        ax.set_xlim(low, high)
    else:
        plain_numbers(ax.xaxis)


def _mark_sun(ax: Axes, radius: float) -> None:
    low, high = ax.get_xlim()
    if low < radius < high:
        mark(ax, radius, "Sun", "left" if radius < 0.5 * (low + high) else "right")


# --- at the points -----------------------------------------------------------------------------


def accelerations(tree: DataTree) -> Figure:
    """Radial acceleration against R and vertical one against z, at every point."""
    from matplotlib.figure import Figure as MakeFigure

    fig = MakeFigure(figsize=(9.6, 4.2), layout="constrained")
    axes = fig.subplots(1, 2)
    place = places(tree)
    big_r = np.hypot(place[:, 0], place[:, 1])
    off = big_r > _ON_AXIS
    labels = (
        ("$R$ [kpc]", f"$a_R$ {ACCELERATION}"),
        ("$z$ [kpc]", f"$a_z$ {ACCELERATION}"),
    )
    for ax, x, along, keep, (xlabel, ylabel) in zip(
        axes, (big_r, place[:, 2]), ("R", "z"), (off, np.full(len(off), True)), labels, strict=True
    ):
        found = {name: _along(tree, name, place, along) for name in ("prior", "posterior", "truth")}
        _bars(ax, x, found, keep)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        legend(ax)
    return fig


def efficiency(tree: DataTree, ax: Axes) -> Axes:
    """Efficiency epsilon that the dust leaves, against the distance [kpc] from the Sun."""
    place, here = places(tree), sun(tree)
    if here is None:
        raise BayesdustError("the results do not say where the Sun is")
    distance = np.linalg.norm(place - here, axis=1)
    groups = ("prior", "posterior", "truth")
    _bars(ax, distance, {name: _values(tree, name, "epsilon") for name in groups})
    ax.set(xlabel="distance from the Sun [kpc]", ylabel=r"$\epsilon$", xlim=(0, None))
    ax.set_ylim(0, max(1.05, ax.get_ylim()[1]))
    legend(ax)
    return ax


def places(tree: DataTree) -> np.ndarray:
    """Galactocentric places (point, 3) [kpc]."""
    data = dataset(tree, "constant_data")
    if any(name not in data for name in "xyz"):
        raise BayesdustError("the results hold no places (x, y, z) of points")
    return np.stack([np.asarray(data[name].values, dtype=float) for name in "xyz"], axis=1)


def _values(tree: DataTree, group: str, name: str) -> np.ndarray | None:
    """Draws (n, point, ...) of one variable at the points, of the truth n = 1; None if absent."""
    if group not in tree.children or name not in dataset(tree, group):
        return None
    variable = dataset(tree, group)[name]
    inner = [d for d in ("point", "component") if d in variable.dims]
    outer = [d for d in variable.dims if d not in inner]
    values = np.asarray(variable.transpose(*outer, *inner).values, dtype=float)
    return values.reshape(-1, *(variable.sizes[d] for d in inner))


def _along(tree: DataTree, group: str, place: np.ndarray, direction: str) -> np.ndarray | None:
    """Draws (n, point) of the acceleration along R or z [(km/s)2/kpc]."""
    a = _values(tree, group, "acceleration")
    if a is None:
        return None
    if direction == "z":
        return a[..., 2]
    big_r = np.maximum(np.hypot(place[:, 0], place[:, 1]), _ON_AXIS)
    return np.asarray((a[..., 0] * place[:, 0] + a[..., 1] * place[:, 1]) / big_r)


def _bars(
    ax: Axes, x: np.ndarray, found: dict[str, np.ndarray | None], keep: np.ndarray | None = None
) -> None:
    """Posterior medians with 68 % bars over the prior's 95 %, the truth as rings."""
    keep = np.full(x.size, True) if keep is None else keep
    posterior, prior, truth = (found[name] for name in ("posterior", "prior", "truth"))
    if posterior is None or not keep.any():
        raise BayesdustError("the posterior holds nothing to draw at points")
    if prior is not None:
        low, high = np.nanquantile(prior[:, keep], (0.025, 0.975), axis=0)
        ax.vlines(x[keep], low, high, color=GREY, alpha=0.3, lw=4, label="prior, 95 %")
    low, middle, high = np.nanquantile(posterior[:, keep], LEVELS, axis=0)
    error = [middle - low, high - middle]
    style: dict[str, Any] = {"color": BLUE, "fmt": "o", "ms": 3.5, "lw": 1.2, "zorder": 3}
    ax.errorbar(x[keep], middle, error, label="posterior, 68 %", **style)
    ends = [np.nanmin(low), np.nanmax(high)]
    if truth is not None:
        there = truth[0, keep]
        ax.plot(x[keep], there, "o", mfc="none", mec=BLACK, ms=7, mew=0.9, zorder=4, label="truth")
        ends = [min(ends[0], np.nanmin(there)), max(ends[1], np.nanmax(there))]
    pad = 0.08 * (ends[1] - ends[0]) or 1.0
    ax.set_ylim(ends[0] - pad, ends[1] + pad)
