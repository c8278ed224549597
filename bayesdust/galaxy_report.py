"""What only the page of the Milky Way says: its first numbers, its figures, how well the sums fit."""

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust import galaxy_plots
from bayesdust.errors import BayesdustError
from bayesdust.literature import local_dark_matter
from bayesdust.report_figures import Spec, drawn, of_the_draws, on_axes
from bayesdust.report_numbers import comparison, find_row, format_row, headlines
from bayesdust.style import decimals, fixed
from bayesdust.summary import dataset, is_profile, points_listed

if TYPE_CHECKING:
    from astropy.table import Row, Table
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    Row = Table = DataTree = Any

POINTS_SHOWN = 50
MOST_DECIMALS = 4  # at the points: where the sky is clear epsilon is one but for 1e-12
_HEADLINES = (  # label, row of the summary, unit, factor (0: the value itself)
    ("dark matter at the Sun", "rho_dm_sun", "GeV cm⁻³", 0.0),
    ("dark matter at the Sun", "rho_dm_sun_msun_pc3", "M⊙ pc⁻³", 0.0),
    ("circular velocity at 8 kpc", "v_circ[8kpc]", "km s⁻¹", 0.0),
    ("Σ(<1.1 kpc) at the Sun", "sigma_1.1kpc", "M⊙ pc⁻²", 0.0),
    ("inner slope γ of the halo", "gamma", "", 0.0),
    ("slope of ρ at the Sun", "slope_sun", "", 0.0),
    ("scale radius of the halo", "r_s", "kpc", 0.0),
)
_COLUMNS = (  # of the table of points: label, unit, row of the summary, factor
    ("a_x", "(km s⁻¹)² kpc⁻¹", "acceleration[ax,{}]", 1.0),
    ("a_y", "(km s⁻¹)² kpc⁻¹", "acceleration[ay,{}]", 1.0),
    ("a_z", "(km s⁻¹)² kpc⁻¹", "acceleration[az,{}]", 1.0),
    ("Φ", "km² s⁻²", "phi[{}]", 1.0),
    ("ρ", "10⁶ M⊙ kpc⁻³", "rho[{}]", 1e-6),
    ("ρ of dark matter", "10⁶ M⊙ kpc⁻³", "rho_dm[{}]", 1e-6),
    ("ε", "", "epsilon[{}]", 1.0),
)
_MASS = (
    "Σ(<1.1 kpc), the column within 1.1 kpc of the plane, and the circular velocity count all mass."
)
_HALO = (
    "The halo is spherical. γ is the slope −d ln ρ/d ln r at the centre, which radii near the Sun do not "
    "see: what they tell is the slope at the Sun, between γ and 3."
)
_BANDS = (
    "median, 68 and 95 % bands of the posterior (blue) over the 95 % band of the prior (grey). "
    "Where blue is as wide as grey, the stars said nothing."
)
_BY_RADIUS = f"{_BANDS} Dotted line: the Sun’s radius."


def context(tree: DataTree, table: Table, share: Table) -> dict[str, Any]:
    """The variables of the template that differ from those of a dwarf galaxy."""
    posterior = dataset(tree, "posterior")
    count = posterior.sizes.get("point", 0)
    alone = is_profile(tree)
    published = None if "truth" in tree.children else local_dark_matter()
    pointwise = [name for name, v in posterior.data_vars.items() if "point" in v.dims]
    return {
        "title": f"Milky Way: {'the dark halo' if alone else 'forces, dark matter and dust'}",
        "remarks": _fit(tree, table),
        "headlines": list(headlines(tree, table, share, wanted=_HEADLINES)),
        "nothing": "The model defines neither the dark-matter density at the Sun nor v_circ.",
        "prior_note": "",
        "assumptions": [_HALO if alone else _MASS],
        "dispersion": "",
        "comparison": list(comparison(table, published, None)),
        "comparison_note": "Density of dark matter at the Sun, with 68 % errors. Methods and samples differ.",
        "figures": list(
            drawn([*(_of_a_halo if alone else _figures)(tree), *of_the_draws(tree, table)])
        ),
        "rows": [r for r in map(format_row, table) if r["name"].split("[")[0] not in pointwise],
        "rings": [],
        "points": list(_points(tree, table)),
        "point_columns": [(label, unit) for label, unit, *_ in _COLUMNS],
        "points_note": _points_note(count),
        "facts_title": "Frame and grids",
        "facts": list(_facts(tree)),
        "references": {},
    }


def _fit(tree: DataTree, table: Table) -> list[str]:
    """chi2 of the sums beside its degrees of freedom."""
    row, dof = find_row(table, "chi2"), tree.attrs.get("chi2_dof")
    if row is None or dof is None:
        return []
    what = "The profile is" if is_profile(tree) else "The sums over the stars are"
    return [
        f"{what} fitted with chi2 = {row['median']:.0f} (median; "
        f"{row['q16']:.0f} to {row['q84']:.0f}, 68 %) for {int(dof)} degrees of freedom."
    ]


def _points(tree: DataTree, table: Table) -> Iterator[list[str]]:
    """Number, place and findings of each point, as text."""
    try:
        place = galaxy_plots.places(tree)[:POINTS_SHOWN]
    except BayesdustError:  # said where the figures of the points should be
        return
    rows = {str(row["name"]): row for row in table}
    for i, here in enumerate(place):
        found = [_cell(rows.get(name.format(i)), factor) for *_, name, factor in _COLUMNS]
        yield [str(i), *(_minus(f"{value:.3f}") for value in here), *found]


def _cell(row: Row | None, factor: float) -> str:
    """The median with half the width of the 68 % interval, to so many decimals as say something."""
    if row is None or not math.isfinite(row["median"]):
        return "—"
    half = factor * float(row["q84"] - row["q16"]) / 2
    digits = min(decimals(half), MOST_DECIMALS)
    return _minus(f"{fixed(factor * float(row['median']), digits)} ± {half:.{digits}f}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _points_note(count: int) -> str:
    """Where the points are that the page does not show."""
    if count <= POINTS_SHOWN:
        return ""
    listed = points_listed(count)
    also = f"those of all {count} in summary.ecsv, " if listed == count else ""
    return f"The first {POINTS_SHOWN} of {count} points; {also}every draw in posterior.nc."


def _facts(tree: DataTree) -> Iterator[tuple[str, str]]:
    place = galaxy_plots.sun(tree)
    if place is not None:
        yield (
            "Sun, Galactocentric x, y, z",
            _minus(", ".join(f"{value:g}" for value in place)) + " kpc",
        )
        yield "Sun, distance from the axis", f"{np.hypot(place[0], place[1]):.4g} kpc"
    posterior = dataset(tree, "posterior")
    for dim, label in (("r", "shells"), ("R", "radii of v_circ")):
        if dim in posterior.coords and posterior.sizes[dim]:
            grid = posterior[dim].values
            yield label, f"{grid.size}, from {grid.min():.3g} to {grid.max():.3g} kpc"
    if "ln_evidence" in tree.attrs:
        value, error = (float(tree.attrs[f"ln_evidence{x}"]) for x in ("", "_error"))
        yield "ln of the evidence", _minus(f"{value:.2f} ± {error:.2f}")
    if not is_profile(tree):
        yield "points", str(posterior.sizes.get("point", 0))


def _of_a_halo(tree: DataTree) -> list[Spec]:
    return [
        Spec(
            "Radial profile",
            "Density of the dark matter: what was measured, with standard errors that may be correlated, "
            f"and the halo fitted to it, {_BY_RADIUS} Orange: published densities at the Sun.",
            "full",
            partial(on_axes, galaxy_plots.halo, tree, size=(9.6, 5.0)),
        )
    ]


def _figures(tree: DataTree) -> list[Spec]:
    return [
        Spec(
            "Dark-matter density",
            f"Density of the dark matter by distance from the Galactic centre: {_BY_RADIUS}",
            "half",
            partial(on_axes, galaxy_plots.density, tree),
        ),
        Spec(
            "Circular velocity",
            f"Circular velocity of all mass in the plane: {_BY_RADIUS}",
            "half",
            partial(on_axes, galaxy_plots.circular_velocity, tree),
        ),
        Spec(
            "Vertical force",
            f"Downward acceleration K_z by height above the plane at the Sun: {_BANDS}",
            "half",
            partial(on_axes, galaxy_plots.vertical_force, tree),
        ),
        Spec(
            "Density above the plane",
            f"Density of all mass by height above the plane at the Sun: {_BANDS} It falls in every galaxy.",
            "half",
            partial(on_axes, galaxy_plots.vertical_density, tree),
        ),
        Spec(
            "Accelerations",
            "Radial and vertical acceleration at the points: median and 68 % of the posterior (blue) "
            "over 95 % of the prior (grey). Rings: the truth, for mocks. Points of one radius "
            "differ in height, and those of one height in radius.",
            "full",
            partial(galaxy_plots.accelerations, tree),
        ),
        Spec(
            "Dust efficiency",
            "Share ε of the stars that the dust leaves to be seen, at the points, against the "
            "distance from the Sun: median and 68 % of the posterior. Rings: the truth, for mocks.",
            "full",
            partial(on_axes, galaxy_plots.efficiency, tree, size=(9.6, 3.6)),
        ),
    ]
