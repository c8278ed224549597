"""Data against flow: maps of the density, runs of the velocity moments, base variables, training curves."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesdust.style import BLACK, BLUE, CHAIN_COLOURS, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

BINS = 32
PLANES = ((0, 1, "x", "y"), (0, 2, "x", "z"))


def density_maps(
    data: Float[np.ndarray, "n 3"],
    weights: Float[np.ndarray, " n"],
    drawn: Float[np.ndarray, "m 3"],
) -> Figure:
    """Projected number of stars, of the data and of the flow, and their difference in standard errors."""
    from matplotlib.colors import LogNorm

    fig, axes = _figure(9.6, 6.2, 2, 3)
    for row, (i, j, first, second) in zip(axes, PLANES, strict=True):
        edges = [np.linspace(data[:, k].min(), data[:, k].max(), BINS + 1) for k in (i, j)]
        seen = _histogram(data, i, j, edges, weights)
        noise = np.sqrt(_histogram(data, i, j, edges, weights**2))
        factor = weights.sum() / len(drawn)
        counts = _histogram(drawn, i, j, edges, np.ones(len(drawn)))
        error = np.hypot(noise, factor * np.sqrt(np.maximum(counts, 1)))
        residual = np.where(seen + counts > 0, (seen - factor * counts) / error, np.nan)
        norm = LogNorm(max(1.0, seen[seen > 0].min()), seen.max())
        for ax, image, title in zip(
            row,
            (seen, factor * counts, residual),
            ("stars", "flow", "difference / error"),
            strict=True,
        ):
            style = {"cmap": "RdBu_r", "vmin": -4, "vmax": 4} if ax is row[2] else {"norm": norm}
            mesh = ax.pcolormesh(*edges, np.ma.masked_invalid(image.T), rasterized=True, **style)
            ax.set(xlabel=f"{first} [kpc]", ylabel=f"{second} [kpc]", title=title, aspect="equal")
            fig.colorbar(mesh, ax=ax, shrink=0.8)
    return fig


def _histogram(
    x: np.ndarray, i: int, j: int, edges: list[np.ndarray], weights: np.ndarray
) -> np.ndarray:
    return np.histogram2d(x[:, i], x[:, j], bins=edges, weights=weights)[0]


def velocity_moments(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], drawn: tuple[np.ndarray, np.ndarray]
) -> Figure:
    """Mean and dispersion of v_R, v_phi, v_z against R and |z|: stars with errors, the flow as a line.

    `data` is (x, v, weights), `drawn` (x, v).
    """
    fig, axes = _figure(9.6, 5.4, 2, 3)
    axes = axes.T
    names = ("v_R", "v_phi", "v_z")
    for k, name in enumerate(names):
        for ax, place, label in zip(
            axes[k], (_radius, _height), ("R [kpc]", "|z| [kpc]"), strict=True
        ):
            edges = np.quantile(place(data[0]), np.linspace(0, 1, 13))
            middle = 0.5 * (edges[1:] + edges[:-1])
            for moment, colour in (("mean", BLUE), ("dispersion", ORANGE)):
                x, v, weights = data
                seen, error = _moments(place(x), cylindrical(x, v)[:, k], weights, edges, moment)
                made, _ = _moments(
                    place(drawn[0]),
                    cylindrical(*drawn)[:, k],
                    np.ones(len(drawn[0])),
                    edges,
                    moment,
                )
                ax.errorbar(
                    middle, seen, error, fmt="o", ms=3, color=colour, label=f"stars, {moment}"
                )
                ax.plot(middle, made, "-", color=colour, label=f"flow, {moment}")
            ax.set(xlabel=label, ylabel=f"{name} [km/s]")
    axes[0, 0].legend(fontsize=7)
    return fig


def _radius(x: np.ndarray) -> np.ndarray:
    return np.hypot(x[:, 0], x[:, 1])


def _height(x: np.ndarray) -> np.ndarray:
    return np.abs(x[:, 2])


def cylindrical(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(v_R, v_phi, v_z) [km/s], (n, 3)."""
    R = _radius(x)
    radial = (x[:, 0] * v[:, 0] + x[:, 1] * v[:, 1]) / R
    return np.stack([radial, (x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]) / R, v[:, 2]], axis=1)


def _moments(
    place: np.ndarray, v: np.ndarray, weights: np.ndarray, edges: np.ndarray, moment: str
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean or dispersion in bins, and its standard error; what lies beyond the bins is left out."""
    inside = (place >= edges[0]) & (place <= edges[-1])
    place, v, weights = place[inside], v[inside], weights[inside]
    bins = np.clip(np.searchsorted(edges, place) - 1, 0, len(edges) - 2)
    total = np.bincount(bins, weights, len(edges) - 1)
    with np.errstate(invalid="ignore"):  # an empty bin has no moments: NaN, which is not drawn
        count = total**2 / np.bincount(bins, weights**2, len(edges) - 1)
        mean = np.bincount(bins, weights * v, len(edges) - 1) / total
        sd = np.sqrt(np.bincount(bins, weights * (v - mean[bins]) ** 2, len(edges) - 1) / total)
    return (mean, sd / np.sqrt(count)) if moment == "mean" else (sd, sd / np.sqrt(2 * count))


def base_variables(z: Float[np.ndarray, "n 6"], names: tuple[str, ...]) -> Figure:
    """Distribution function of each base variable less the normal one, with the 95 % band of chance."""
    from scipy.stats import norm

    fig, axes = _figure(9.6, 4.2, 2, 3)
    band = 1.36 / np.sqrt(len(z))
    u = np.linspace(0.001, 0.999, 400)
    for ax, column, name in zip(axes.ravel(), z.T, names, strict=True):
        found = np.searchsorted(np.sort(norm.cdf(column)), u) / len(z)
        ax.fill_between([0, 1], -band, band, color=GREY, alpha=0.3, lw=0)
        ax.plot(u, found - u, color=BLUE)
        ax.axhline(0, color=BLACK, lw=0.6)
        ax.set(title=name, xlabel="normal quantile", ylabel="excess", ylim=(-4 * band, 4 * band))
    return fig


def training_curves(losses: Float[np.ndarray, "epoch 2 member"]) -> Figure:
    """Mean of -ln f over training stars (thin) and held-out ones (thick), every member a colour."""
    fig, axes = _figure(5.5, 3.4, 1, 1)
    ax = axes[0, 0]
    epochs = np.arange(1, len(losses) + 1)
    for number, (train, held) in enumerate(np.moveaxis(losses, 2, 0).transpose(0, 2, 1)):
        colour = CHAIN_COLOURS[number % len(CHAIN_COLOURS)]
        ax.plot(epochs, train, lw=0.7, color=colour)
        ax.plot(
            epochs, held, lw=1.6, color=colour, label=f"member {number}" if number < 6 else None
        )
    ax.set(xlabel="epoch", ylabel="mean of -ln f")
    ax.legend(fontsize=7)
    return fig


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure as MakeFigure

    fig = MakeFigure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False)
