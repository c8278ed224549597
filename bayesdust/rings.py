"""Maximum-likelihood velocity dispersions of stars in rings, as points for a figure.

Each star counts with the membership probability that the fit gave it, its velocity error and, where
it may be no member, a fixed normal law for the foreground. Only numbers: the drawing is in `plots`.
"""

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust.summary import dataset

if TYPE_CHECKING:
    from xarray import DataTree
else:  # heavy, and only its objects are needed here
    DataTree = Any


def velocity_data(tree: DataTree) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """R [kpc], v_los, its error [km/s], membership probability (see `membership`); each (star,)."""
    data = dataset(tree, "constant_data")
    v = np.asarray(dataset(tree, "observed_data")["v_los"].values, dtype=float)
    radius, err = (np.asarray(data[n].values, dtype=float) for n in ("R", "v_los_err"))
    return radius, v, err, membership(tree, v.size)


def membership(tree: DataTree, n_star: int) -> np.ndarray:
    """Probability (star,) that each star is a member, as the fit has it.

    The posterior mean where the model told members from others; one where it counted every star as
    a member; else (a result that does not say) the catalogue's probabilities, if there are any.
    """
    if "posterior_predictive" in tree.children and "member" in tree["posterior_predictive"]:
        p = tree["posterior_predictive"]["member"].mean(dim=("chain", "draw")).values
        return np.asarray(p, dtype=float)
    options = json.loads(tree.attrs.get("options", "{}"))
    if options.get("membership", "given") == "given":
        data = dataset(tree, "constant_data")
        if "p_member" in data and np.isfinite(data["p_member"].values).all():
            return np.asarray(data["p_member"].values, dtype=float)
    return np.ones(n_star)


def replicas(
    tree: DataTree, n_star: int, most: int = 100
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """At most `most` posterior predictive samples: velocities (star,), and their memberships.

    The memberships are None where the model counted every star as a member, or does not tell.
    """
    if "posterior_predictive" not in tree.children:
        return []
    data = dataset(tree, "posterior_predictive")
    if "v_los" not in data or data.sizes["star"] != n_star:
        return []
    names = [name for name in ("v_los", "member_predicted") if name in data]
    flat = [
        np.asarray(data[name].transpose("chain", "draw", "star").values, dtype=float)
        for name in names
    ]
    samples = list(zip(*(values.reshape(-1, n_star) for values in flat), strict=True))
    samples = [sample for sample in samples if np.isfinite(sample).all()]
    chosen = np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int)
    return [(samples[i][0], samples[i][1] if len(names) > 1 else None) for i in chosen]


def radial_bins(radius: np.ndarray, p: np.ndarray, n_bins: int | None = None) -> np.ndarray:
    """Ring number (star,): rings of equal expected membership, of 25 stars, but 3 to 12 rings."""
    if n_bins is None:
        n_bins = int(np.clip(p.sum() // 25, 3, 12))
    order = np.argsort(radius)
    share = np.cumsum(p[order]) / p.sum()
    number = np.empty(radius.size, dtype=int)
    number[order] = np.clip((share * n_bins - 1e-9).astype(int), 0, n_bins - 1)
    return number


def weighted_radii(radius: np.ndarray, p: np.ndarray) -> tuple[float, float, float]:
    """Median and central 80 % of radii weighted by membership."""
    order = np.argsort(radius)
    share = (np.cumsum(p[order]) - 0.5 * p[order]) / p.sum()
    middle, low, high = np.interp([0.5, 0.1, 0.9], share, radius[order])
    return float(middle), float(low), float(high)


class Foreground:
    """A normal velocity law for non-members: moments of the stars weighted by 1 - p.

    With fewer than three expected non-members the moments mean nothing and a uniform law over
    the velocity range takes its place.
    """

    def __init__(self, v: np.ndarray, p: np.ndarray) -> None:
        weight = 1.0 - p
        self.range = max(float(np.ptp(v)), 1.0)
        self.normal = float(weight.sum()) >= 3.0
        if self.normal:
            self.mean = float(np.average(v, weights=weight))
            spread = np.sqrt(np.average((v - self.mean) ** 2, weights=weight))
            self.sd = max(float(spread), 1.0)

    def density(self, v: np.ndarray) -> np.ndarray:
        """Probability density [1/(km/s)] at v [km/s]."""
        if not self.normal:
            return np.full_like(v, 1.0 / self.range)
        z = (v - self.mean) / self.sd
        return np.asarray(np.exp(-0.5 * z * z) / (math.sqrt(2 * math.pi) * self.sd))


def log_likelihood(
    sigma: np.ndarray, offset: np.ndarray, err: np.ndarray, p: np.ndarray, outside: np.ndarray
) -> np.ndarray:
    """ln L (n_sigma,) of dispersions sigma [km/s] for stars at velocity `offset` from the mean.

    Each star has p N(offset; 0, sigma^2 + err^2) + (1 - p) outside, as a membership probability
    asks for (never p ln L).
    """
    variance = np.maximum(sigma[:, None] ** 2 + err**2, 1e-12)
    inside = np.exp(-0.5 * offset**2 / variance) / np.sqrt(2 * math.pi * variance)
    return np.asarray(np.log(np.maximum(p * inside + (1 - p) * outside, 1e-300)).sum(axis=1))


def dispersion_interval(
    grid: np.ndarray, log_like: np.ndarray
) -> tuple[float, float, float, float | None]:
    """Maximum-likelihood dispersion, its 68 % ends, and a 95 % upper limit if it reaches zero.

    The ends are where ln L has fallen by 1/2; the limit (None for a resolved dispersion) where it
    has fallen by 1.645^2/2.
    """
    best = int(np.argmax(log_like))
    drop = log_like[best] - log_like
    low = grid[:best][drop[:best] > 0.5]
    above = grid[best:]
    high = float(np.interp(0.5, drop[best:], above))
    if low.size:
        i = low.size - 1
        lower = float(np.interp(-0.5, -drop[i : best + 1], grid[i : best + 1]))
        return float(grid[best]), lower, high, None
    return float(grid[best]), 0.0, high, float(np.interp(1.645**2 / 2, drop[best:], above))


class RingFit:
    """Maximum-likelihood dispersion of the stars of a ring, about one mean for all members."""

    def __init__(self, v: np.ndarray, err: np.ndarray, p: np.ndarray) -> None:
        self.err, self.p = err, p
        self.foreground = Foreground(v, p)
        self.mean = float(np.average(v, weights=p))
        spread = math.sqrt(float(np.average((v - self.mean) ** 2, weights=p)))
        self.top = 4.0 * spread + 1e-6

    def interval(self, v: np.ndarray, ring: np.ndarray) -> tuple[float, float, float, float | None]:
        """As `dispersion_interval`, for velocities `v` (star,) of the stars where `ring`."""
        grid = np.linspace(0.0, self.top, 401)
        return dispersion_interval(grid, self._log_likelihood(grid, v, ring))

    def best(self, v: np.ndarray, ring: np.ndarray, p: np.ndarray | None = None) -> float:
        """The maximum-likelihood dispersion alone, on a coarse grid and then a fine one.

        `p` (star,) are memberships that go with `v`, if they are not those of the data.
        """
        grid = np.linspace(0.0, self.top, 33)
        at = int(np.argmax(self._log_likelihood(grid, v, ring, p)))
        fine = np.linspace(grid[max(at - 1, 0)], grid[min(at + 1, grid.size - 1)], 33)
        return float(fine[np.argmax(self._log_likelihood(fine, v, ring, p))])

    def _log_likelihood(
        self, grid: np.ndarray, v: np.ndarray, ring: np.ndarray, p: np.ndarray | None = None
    ) -> np.ndarray:
        outside = self.foreground.density(v[ring])
        p = (self.p if p is None else p)[ring]
        return log_likelihood(grid, v[ring] - self.mean, self.err[ring], p, outside)
