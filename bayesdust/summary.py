"""Numbers out of a posterior: the draws of every reported quantity, and the summary table.

Everything here reads one ArviZ `DataTree` (the `posterior.nc` of a run) and returns plain objects;
nothing is drawn or written.

R-hat and effective sample sizes are the rank-normalised split-chain ones of Vehtari et al. (2021,
Bayesian Analysis 16, 667).
"""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesdust.errors import BayesdustError

if TYPE_CHECKING:
    from astropy.table import Table
    from xarray import DataTree
else:  # astropy and xarray are heavy, and only their objects are needed here
    DataTree = Table = Any

ANGLES = (0.1, 0.2, 0.5, 1.0)  # deg, half-angle of the cone, of J and D
RADII = ("0.15kpc", "rhalf", "1.8rhalf")  # labels carried by the r coordinate
QUANTILES = {
    "q025": 0.025,
    "q05": 0.05,
    "q16": 0.16,
    "median": 0.5,
    "q84": 0.84,
    "q95": 0.95,
    "q975": 0.975,
}
POINTS_MAX = 200  # user-given places that are all reported; of more, the first POINTS_LISTED are
POINTS_LISTED = 50
CIRCLE = 8.0  # kpc, the radius at which the Milky Way's circular velocity is reported
PROFILES = {"r", "R", "height", "angle", "star"}  # dimensions of curves, reported at chosen places
# and of what a network, a free profile or a histogram is made of: not reported
WEIGHTS = {"weight", "knot", "turn", "velocity_bin"}
COLUMNS = ("name", "unit", "mean", "sd", *QUANTILES, "rhat", "ess_bulk", "ess_tail", "mcse")


class Scalar(NamedTuple):
    """Draws of one reported quantity: `draws` has shape (chain, draw)."""

    unit: str
    draws: np.ndarray
    derived: bool


def is_independent(tree: DataTree) -> bool:
    """Whether the draws are one chain of independent ones, of a variational guide or an exact posterior.

    The root attribute `method` starts with "vi" or is "exact".
    """
    method = str(tree.attrs.get("method", "")).lower()
    return method.startswith("vi") or method == "exact"


def is_milky_way(tree: DataTree) -> bool:
    """Whether the draws are of the Milky Way (root attribute `kind`), not of a dwarf."""
    return str(tree.attrs.get("kind", "dwarf")).startswith("milky_way")


def is_profile(tree: DataTree) -> bool:
    """Whether they are of a halo fitted to a measured profile of the Milky Way's dark matter."""
    return str(tree.attrs.get("kind", "dwarf")) == "milky_way_profile"


def parameters(tree: DataTree) -> list[str]:
    """Names of the sampled parameters, from the root attribute `parameters` (a JSON list)."""
    return [str(name) for name in json.loads(tree.attrs.get("parameters", "[]"))]


def radius_index(coordinate: Any, label: str) -> int | None:
    """Index on the `r` coordinate of a labelled radius ("0.15kpc", "rhalf", "1.8rhalf").

    The label's own attribute is believed first; else the radius is looked for by value, and None
    means that the grid does not hold it.
    """
    attrs = coordinate.attrs
    if f"{label}_index" in attrs:
        return int(attrs[f"{label}_index"])
    rhalf = float(attrs.get("rhalf", math.nan))
    wanted = {"0.15kpc": 0.15, "rhalf": rhalf, "1.8rhalf": 1.8 * rhalf}[label]
    return _match(coordinate.values, wanted)


def _match(grid: np.ndarray, value: float) -> int | None:
    hits = np.flatnonzero(np.isclose(grid, value, rtol=1e-6, atol=0.0))
    return int(hits[0]) if hits.size else None


def dataset(tree: DataTree, group: str) -> Any:
    """One group of the tree as a dataset; `BayesdustError` if it is absent."""
    if group not in tree.children:
        raise BayesdustError(f"the results hold no group '{group}': run the fit again to make it")
    return tree[group].dataset


def scalars(tree: DataTree, group: str = "posterior") -> dict[str, Scalar]:
    """Draws of every reported quantity: scalar parameters first, then derived scalars, then points.

    Derived scalars of a dwarf are J and D at 0.1, 0.2, 0.5 and 1 deg and the logarithms (base 10) of
    density and enclosed mass at 0.15 kpc, R_half and 1.8 R_half. For all logarithms the unit is that of
    the argument. Those of the Milky Way are all that is not a parameter, and v_circ at 8 kpc; what is
    given at points stands point by point (rho[3], acceleration[az,3]), of more than 200 points for
    the first 50. A quantity that the tree does not hold is left out.
    """
    data = dataset(tree, group)
    first = [name for name in parameters(tree) if name in data]
    names = first + [name for name in data.data_vars if name not in first]
    names.sort(key=lambda name: "point" in data[name].dims)  # stable: points go last
    places = [name for name in names if "point" in data[name].dims]
    found = {str(n): scalar for n in names if n not in places for n, scalar in _plain(n, data[n])}
    if is_milky_way(tree):
        found = {n: s._replace(derived=n not in first) for n, s in found.items()}
    found |= dict(_angular(data)) | dict(_radial(data)) | dict(_circular(data))
    return found | {n: scalar for name in places for n, scalar in _pointwise(name, data[name])}


def _plain(name: str, variable: Any) -> Iterator[tuple[str, Scalar]]:
    """A scalar as it is, a vector (or more) element by element, name[0], name[1], ...; no profiles."""
    rest = [d for d in variable.dims if d not in ("chain", "draw")]
    if set(rest) & (PROFILES | WEIGHTS) or not {"chain", "draw"} <= set(variable.dims):
        return
    shape = [variable.sizes[d] for d in rest]
    for place in np.ndindex(*shape):
        label = f"{name}[{','.join(map(str, place))}]" if place else name
        draws = chain_draws(variable.isel(dict(zip(rest, place, strict=True))))
        yield label, Scalar(_unit(variable), draws, False)


def _pointwise(name: str, variable: Any) -> Iterator[tuple[str, Scalar]]:
    """What is given at points, name[0] or name[ax,0] for a vector."""
    first = variable.isel(point=slice(points_listed(variable.sizes["point"])))
    for place, values in _components(first, ("chain", "draw")):
        for i, draws in enumerate(values):
            yield f"{name}[{place}{i}]", Scalar(_unit(variable), draws, True)


def _components(variable: Any, last: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """The points (first axis) of each component, with "ax," and its like; "" for a scalar field."""
    if "component" not in variable.dims:
        yield "", np.asarray(variable.transpose("point", *last).values, dtype=float)
        return
    for i, label in enumerate(variable["component"].values):
        part = variable.isel(component=i).transpose("point", *last)
        yield f"{label},", np.asarray(part.values, dtype=float)


def points_listed(count: int) -> int:
    """How many of so many points the table lists."""
    return count if count <= POINTS_MAX else POINTS_LISTED


def _unit(variable: Any) -> str:
    return str(variable.attrs.get("units", ""))


def chain_draws(variable: Any) -> np.ndarray:
    """Values of one variable, of shape (chain, draw)."""
    return np.asarray(variable.transpose("chain", "draw").values, dtype=float)


def _angular(data: Any) -> Iterator[tuple[str, Scalar]]:
    for name in ("log10_J", "log10_D"):
        for angle in ANGLES if name in data else ():
            index = _match(data["angle"].values, angle)
            if index is not None:
                value = data[name].isel(angle=index)
                yield f"{name}[{angle:g}deg]", Scalar(_unit(data[name]), chain_draws(value), True)


def _radial(data: Any) -> Iterator[tuple[str, Scalar]]:
    for name in ("rho", "mass"):
        for label in RADII if name in data and "r" in data[name].dims else ():
            index = radius_index(data["r"], label)
            if index is not None:
                with np.errstate(divide="ignore", invalid="ignore"):
                    value = np.log10(chain_draws(data[name].isel(r=index)))
                yield f"log10_{name}[{label}]", Scalar(_unit(data[name]), value, True)


def _circular(data: Any) -> Iterator[tuple[str, Scalar]]:
    """v_circ of the Milky Way, over R in the plane; that of a dwarf is over r."""
    if "v_circ" in data and "R" in data["v_circ"].dims:
        index = _match(data["R"].values, CIRCLE)
        if index is not None:
            draws = chain_draws(data["v_circ"].isel(R=index))
            yield f"v_circ[{CIRCLE:g}kpc]", Scalar(_unit(data["v_circ"]), draws, True)


def true_values(tree: DataTree) -> dict[str, float]:
    """Truth of a mock by reported quantity, as far as its `truth` group tells; else empty.

    Density and mass are read off the stored truth at the posterior's labelled radii (power law
    between grid points).
    """
    if "truth" not in tree.children:
        return {}
    truth, posterior = dataset(tree, "truth").squeeze(), dataset(tree, "posterior")
    found = {str(n): float(truth[n].values) for n in truth.data_vars if truth[n].ndim == 0}
    for name in ("log10_J", "log10_D"):
        for angle in ANGLES if name in truth and truth[name].dims == ("angle",) else ():
            index = _match(truth["angle"].values, angle)
            if index is not None:
                found[f"{name}[{angle:g}deg]"] = float(truth[name].values[index])
    for name in ("rho", "mass"):
        for label in RADII if name in truth and truth[name].dims == ("r",) else ():
            index = radius_index(posterior["r"], label)
            if index is not None:
                grid, value = np.log(truth["r"].values), np.log10(truth[name].values)
                r = float(posterior["r"].values[index])
                found[f"log10_{name}[{label}]"] = float(np.interp(math.log(r), grid, value))
    return found | _galactic_truth(truth)


def _galactic_truth(truth: Any) -> dict[str, float]:
    """Truth of v_circ at 8 kpc and of what is given at points."""
    found: dict[str, float] = {}
    if "v_circ" in truth and truth["v_circ"].dims == ("R",):
        index = _match(truth["R"].values, CIRCLE)
        if index is not None:
            found[f"v_circ[{CIRCLE:g}kpc]"] = float(truth["v_circ"].values[index])
    for name, variable in truth.data_vars.items():
        if "point" in variable.dims:
            for place, values in _components(variable, ()):
                found |= {f"{name}[{place}{i}]": float(value) for i, value in enumerate(values)}
    return found


def summarise(tree: DataTree) -> Table:
    """Table of `summary.ecsv`: one row a reported quantity, columns as in `COLUMNS`.

    Quantiles are equal-tailed over all chains; `mcse` is the Monte Carlo standard error of the
    mean. Draws that are not finite are left out of mean, sd and quantiles, but then the row's
    R-hat, ESS and MCSE are NaN, so `verdict` fails. Of independent draws there is one
    chain: R-hat is NaN and ESS is that of the importance weights (root attribute
    `psis_ess`), NaN without them.
    """
    from astropy.table import Table

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "unit": scalar.unit,
            **_statistics(scalar.draws),
            **_monte_carlo(tree, scalar),
        }
        for name, scalar in scalars(tree).items()
    ]
    if not rows:
        raise BayesdustError("the posterior holds no scalar quantity: the model defines none")
    table = Table({name: [row[name] for row in rows] for name in COLUMNS})
    table.meta["description"] = (
        "Posterior summary; qNN are equal-tailed quantiles in percent; "
        "the unit of a log10 quantity is that of its argument"
    )
    count = dataset(tree, "posterior").sizes.get("point", 0)
    if points_listed(count) < count:
        table.meta["description"] += f"; of {count} points the first {POINTS_LISTED} are listed"
    return table


def is_constant(draws: np.ndarray) -> bool:
    """Whether all draws are one finite number, to rounding."""
    return bool(
        np.isfinite(draws).all()
        and np.ptp(draws) <= 8 * np.finfo(float).eps * np.max(np.abs(draws), initial=0.0)
    )


def _statistics(draws: np.ndarray) -> dict[str, float]:
    x = draws[np.isfinite(draws)]
    if x.size == 0:
        return dict.fromkeys(("mean", "sd", *QUANTILES), math.nan)
    if is_constant(draws):
        return {"mean": x[0], "sd": 0.0} | dict.fromkeys(QUANTILES, x[0])
    sd = float(np.std(x, ddof=1)) if x.size > 1 else math.nan
    levels = np.quantile(x, list(QUANTILES.values()))
    return {"mean": float(x.mean()), "sd": sd} | dict(zip(QUANTILES, levels, strict=True))


def _monte_carlo(tree: DataTree, scalar: Scalar) -> dict[str, float]:
    import arviz as az

    draws, nan = scalar.draws, math.nan
    if is_constant(draws):
        return {"rhat": nan, "ess_bulk": nan, "ess_tail": nan, "mcse": 0.0}
    if not np.isfinite(draws).all() or draws.shape[1] < 4:
        return {"rhat": nan, "ess_bulk": nan, "ess_tail": nan, "mcse": nan}
    if is_independent(tree):
        ess = float(tree.attrs.get("psis_ess", nan))
        mcse = float(np.std(draws, ddof=1)) / math.sqrt(ess) if ess > 0 else nan
        return {"rhat": nan, "ess_bulk": ess, "ess_tail": ess, "mcse": mcse}
    # a chain that never moved has no variance within: R-hat is then infinite, not a warning
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "rhat": float(az.rhat(draws)) if draws.shape[0] > 1 else nan,
            "ess_bulk": float(az.ess(draws, method="bulk")),
            "ess_tail": float(az.ess(draws, method="tail", prob=(0.05, 0.95))),
            "mcse": float(az.mcse(draws, method="mean")),
        }
