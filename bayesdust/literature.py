"""Published values, as rows of a table, to set beside those of a fit."""

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust.units import DENSITY_GEV_CM3

if TYPE_CHECKING:
    from astropy.table import Table
else:  # heavy, and only its objects are needed here
    Table = Any

FAR = 0.5  # dex
_SOLAR = 1e9 * DENSITY_GEV_CM3  # GeV/cm3 of 1 Msun/pc3
#: density of dark matter at the Sun as published: value, errors, to GeV/cm3, reference
_LOCAL = (
    (0.013, 0.003, 0.003, _SOLAR, "McKee+2015, ApJ 814, 13"),
    (0.46, 0.09, 0.07, 1.0, "Sivertsson+2018, MNRAS 478, 1677"),
    (0.30, 0.03, 0.03, 1.0, "Eilers+2019, ApJ 871, 120"),
    (0.47, 0.05, 0.05, 1.0, "Lim+2023, arXiv:2305.13358"),
    (0.44, 0.13, 0.13, 1.0, "Söding+2025, arXiv:2506.02956"),
)


def local_dark_matter() -> Table:
    """Published densities of dark matter at the Sun [GeV/cm3], columns as of `galaxies.published`."""
    from astropy.table import Table

    return Table(
        rows=[
            ("rho_dm_sun", value * to, minus * to, plus * to, "GeV/cm3", reference)
            for value, minus, plus, to, reference in _LOCAL
        ],
        names=("quantity", "value", "err_minus", "err_plus", "unit", "reference"),
    )


def published_values(
    published: Table | None, quantity: str
) -> list[tuple[float, float, float, str]]:
    """Rows (value, err_minus, err_plus, reference) of `published` for one quantity."""
    rows = [] if published is None else [row for row in published if row["quantity"] == quantity]
    return [
        (_number(r["value"]), _number(r["err_minus"]), _number(r["err_plus"]), str(r["reference"]))
        for r in rows
    ]


def published_angles(published: Table | None) -> list[float]:
    """Angles [deg] at which `published` has a log10_J."""
    if published is None:
        return []
    found = (re.fullmatch(r"log10_J\[([\d.]+)deg\]", str(q)) for q in published["quantity"])
    return sorted({float(m.group(1)) for m in found if m})


def far_from_published(table: Table, published: Table | None) -> tuple[str, ...]:
    """A warning if log10_J[0.5deg] in the summary `table` is far from every published value.

    Far: more than `FAR` dex outside the fit's 95 % interval.
    """
    name = "log10_J[0.5deg]"
    theirs = [value for value, *_ in published_values(published, name)]
    rows = [row for row in table if row["name"] == name]
    if not theirs or not rows:
        return ()
    low, high = float(rows[0]["q025"]), float(rows[0]["q975"])
    if not min(max(low - value, value - high) for value in theirs) > FAR:
        return ()
    side = "above" if low > max(theirs) else "below" if high < min(theirs) else "away from"
    number = "the value" if len(theirs) == 1 else f"every one of the {len(theirs)} values"
    return (
        f"log10 J within 0.5 deg comes out at {low:.2f} to {high:.2f} (95 %), more than {FAR} dex "
        f"{side} {number} published ({min(theirs):.2f} to {max(theirs):.2f}): before you use it, "
        "look for stars that are not members, a wrong unit, a wrong distance or half-light radius.",
    )


def _number(value: Any) -> float:
    """A float without unit or sign surprises; masked and missing become 0 (no error known)."""
    number = float(np.ma.filled(np.ma.asarray(getattr(value, "value", value), dtype=float), 0.0))
    return number if math.isfinite(number) else 0.0
