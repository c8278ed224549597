"""What is prior and what is data: the width each quantity keeps, and dispersions as upper limits.

Everything here reads one ArviZ `DataTree` (the `posterior.nc` of a run).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust import rings
from bayesdust.summary import Scalar, dataset, is_constant, scalars

if TYPE_CHECKING:
    from astropy.table import Table
    from xarray import DataTree
else:  # astropy and xarray are heavy, and only their objects are needed here
    DataTree = Table = Any

MOSTLY_PRIOR = 0.7  # posterior width over prior width
MEASURED = "log10_mass[1.8rhalf]"  # where line-of-sight velocities measure the mass best
MASS_POWERS = {"log10_J": 2, "log10_D": 1, "log10_rho": 1, "log10_mass": 1}


@dataclass(frozen=True)
class Dispersion:
    """Line-of-sight dispersion [km/s] at `radius` [kpc], as an interval or as an upper limit.

    `floor` is the dispersion that the velocity errors hide (see `dispersion`), `limit` the 95 %
    one-sided upper limit.
    """

    radius: float
    median: float
    q025: float
    q16: float
    q84: float
    q975: float
    limit: float
    floor: float
    is_upper_limit: bool
    sentence: str


def prior_share(tree: DataTree) -> Table:
    """How much of each reported quantity is prior: one row a quantity that both groups hold.

    Widths are half the central 68 % interval: the sd of a normal law, and not inflated by the few
    wild draws a broad prior makes. A quantity is called "mostly prior" when the posterior's
    width exceeds 0.7 of the prior's: for normal laws the inverse squares of widths add, so the data
    then weigh less than the prior did (0.7 is 1/sqrt(2), rounded). `prior_in_95` is the fraction
    of prior draws inside the posterior's 95 % interval (0.95 where the data said nothing).

    The prior of J, D, rho and M spans the halo's amplitude, which any dispersion measures, and next to
    it everything looks known. Of each draw, of the posterior and of the prior, the halo is therefore
    rescaled, at its own shape, to the posterior median of M(<1.8 R_half) (J goes as its square): what is
    left is the scatter of shapes. Where shapes make most of the posterior's width (0.7 of it or more, half of
    its variance), it is at this one mass that the two widths are compared (`at_mass`), and elsewhere the
    mass's own error is what the width is.
    Columns: name, unit, derived, posterior_width, prior_width, ratio, prior_in_95, at_mass, mostly_prior,
    sentence. No rows without a prior group.
    """
    from astropy.table import Table

    columns: list[tuple[str, Any]] = [("name", str), ("unit", str), ("derived", bool)]
    columns += [(n, float) for n in ("posterior_width", "prior_width", "ratio", "prior_in_95")]
    columns += [("at_mass", bool), ("mostly_prior", bool), ("sentence", str)]
    prior = scalars(tree, "prior") if "prior" in tree.children else {}
    posterior = scalars(tree)
    rows = [
        _share(n, s, *_to_compare(n, posterior, prior)) for n, s in posterior.items() if n in prior
    ]
    if not rows:
        return Table(names=[n for n, _ in columns], dtype=[t for _, t in columns])
    return Table({n: np.asarray([row[n] for row in rows], dtype=t) for n, t in columns})


def _to_compare(
    name: str, posterior: dict[str, Scalar], prior: dict[str, Scalar]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Finite draws of the posterior and of the prior, and whether every halo has the measured mass."""
    x, before = posterior[name].draws, prior[name].draws
    power = MASS_POWERS.get(name.split("[")[0], 0)
    if power and name != MEASURED and MEASURED in prior and MEASURED in posterior:
        mass = posterior[MEASURED].draws
        measured = float(np.nanmedian(mass))
        with np.errstate(invalid="ignore"):  # a draw without any mass
            shape = _finite(x - power * (mass - measured))
            allowed = _finite(before - power * (prior[MEASURED].draws - measured))
        # where the data know the quantity better than the mass, it is its own width that counts
        shape = min(shape, _finite(x), key=_half_width)
        if _half_width(shape) > MOSTLY_PRIOR * _half_width(_finite(x)):
            return shape, allowed, True
    return _finite(x), _finite(before), False


def _finite(draws: np.ndarray) -> np.ndarray:
    return np.asarray(draws[np.isfinite(draws)])


def _share(
    name: str, scalar: Scalar, x: np.ndarray, before: np.ndarray, at_mass: bool
) -> dict[str, Any]:
    width, prior_width = _half_width(x), _half_width(before)
    ratio = width / prior_width if prior_width > 0 else math.nan
    inside = math.nan
    if x.size and before.size:
        low, high = np.quantile(x, [0.025, 0.975])
        inside = float(np.mean((before >= low) & (before <= high)))
    mostly = ratio > MOSTLY_PRIOR
    which = "at the measured mass, " if at_mass else ""
    sentence = (
        f"{name} is {'mostly prior' if mostly else 'set by the data'}: {which}its 68 % interval is "
        f"{ratio:.2f} times as wide as the prior's, and its 95 % interval holds "
        f"{100 * inside:.0f} % of the prior."
    )
    if not math.isfinite(ratio):
        sentence = f"{name} does not vary under the prior."
    return {
        "name": name,
        "unit": scalar.unit,
        "derived": scalar.derived,
        "posterior_width": width,
        "prior_width": prior_width,
        "ratio": ratio,
        "prior_in_95": inside,
        "at_mass": at_mass,
        "mostly_prior": mostly,
        "sentence": sentence,
    }


def _half_width(draws: np.ndarray) -> float:
    if draws.size == 0 or is_constant(draws):
        return 0.0 if draws.size else math.nan
    low, high = np.quantile(draws, [0.16, 0.84])
    return float(high - low) / 2


def dispersion_floor(v_los_err: np.ndarray, p_member: np.ndarray | None = None) -> float:
    """Dispersion [km/s] that velocity errors `v_los_err` [km/s] hide, at one standard deviation.

    The Fisher information of n normal velocities on sigma^2 at sigma = 0 is sum p / (2 e^4), so
    sigma^2 is then known to sqrt(2 / sum p e^-4). The floor is the square root of that, 1.19 e
    n^-1/4 for equal errors. Zero where any member has no error.
    """
    err = np.asarray(v_los_err, dtype=float)
    weight = np.ones_like(err) if p_member is None else np.asarray(p_member, dtype=float)
    err = err[weight > 0]
    weight = weight[weight > 0]
    if err.size == 0:
        return math.nan
    if np.any(err == 0):
        return 0.0
    return float((2.0 / np.sum(weight / err**4)) ** 0.25)


def dispersion(tree: DataTree) -> Dispersion | None:
    """The line-of-sight dispersion at R_half, or None where the tree has no `sigma_los`.

    A dispersion that the errors swamp is reported as an upper limit. That is the case when
    (1) the 2.5 % quantile of the posterior lies below the dispersion that the errors hide
    (`dispersion_floor`), or (2) the median lies below the typical error (root mean square) and
    the posterior reaches as low as the prior does (2.5 % quantiles), so that its lower
    end is the prior's.
    """
    data = dataset(tree, "posterior")
    if "sigma_los" not in data:
        return None
    radius = _half_light_radius(data)
    draws = _at_radius(data["sigma_los"], radius)
    if draws.size == 0:
        return None
    levels = (0.5, 0.025, 0.16, 0.84, 0.975, 0.95)
    median, q025, q16, q84, q975, limit = (float(q) for q in np.quantile(draws, levels))
    floor, typical = _errors(tree)
    reaches = False
    if "prior" in tree.children and "sigma_los" in dataset(tree, "prior"):
        before = _at_radius(dataset(tree, "prior")["sigma_los"], radius)
        reaches = before.size > 0 and q025 <= float(np.quantile(before, 0.025))
    swamped = q025 < floor or (median < typical and reaches)
    sentence = (
        f"The line-of-sight dispersion at R_half ({radius:.3g} kpc) is {median:.2f} "
        f"(-{median - q16:.2f} +{q84 - median:.2f}, 68 %) km/s."
    )
    if swamped:
        sentence = (
            f"The velocity errors (typically {typical:.2g} km/s) swamp the dispersion: at R_half "
            f"({radius:.3g} kpc) it is below {limit:.2f} km/s (95 % upper limit), and densities, "
            "masses and J-factors are upper limits too."
        )
    return Dispersion(radius, median, q025, q16, q84, q975, limit, floor, bool(swamped), sentence)


def _half_light_radius(data: Any) -> float:
    """R_half [kpc] from the `r` coordinate, else the middle of the `R` grid."""
    if "r" in data.coords and "rhalf" in data["r"].attrs:
        return float(data["r"].attrs["rhalf"])
    return float(np.exp(np.mean(np.log(data["R"].values))))


def _at_radius(sigma: Any, radius: float) -> np.ndarray:
    """Finite draws of sigma_los at one projected radius, linear in ln R, flat outside the grid."""
    grid = np.log(np.asarray(sigma["R"].values, dtype=float))
    values = np.asarray(sigma.transpose("chain", "draw", "R").values, dtype=float)
    x = float(np.clip(math.log(radius), grid[0], grid[-1]))
    i = int(np.clip(np.searchsorted(grid, x) - 1, 0, grid.size - 2)) if grid.size > 1 else 0
    j = min(i + 1, grid.size - 1)
    w = (x - grid[i]) / (grid[j] - grid[i]) if j > i else 0.0
    draws = ((1 - w) * values[..., i] + w * values[..., j]).ravel()
    return np.asarray(draws[np.isfinite(draws)])


def _errors(tree: DataTree) -> tuple[float, float]:
    """Floor and typical (root mean square) velocity error of the members [km/s]; 0 if unknown."""
    if "constant_data" not in tree.children or "v_los_err" not in dataset(tree, "constant_data"):
        return 0.0, 0.0
    data = dataset(tree, "constant_data")
    err = np.asarray(data["v_los_err"].values, dtype=float)
    weight = rings.membership(tree, err.size)
    floor = dispersion_floor(err, weight)
    if not math.isfinite(floor):
        return 0.0, 0.0
    return floor, math.sqrt(float(np.sum(weight * err**2) / np.sum(weight)))
