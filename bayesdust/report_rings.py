"""The table of a report that holds the rings' dispersions and kurtoses against those predicted."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bayesdust.predictive_checks import find

if TYPE_CHECKING:
    from astropy.table import Row, Table
else:  # heavy, and only their objects are needed here
    Row = Table = Any


def rows_of_rings(table: Table) -> Iterator[list[tuple[str, bool]]]:
    """Rows of `predictive_pvalues` as cells (text, whether it is an alarm), one a ring and one for all.

    The cells: radii [kpc], members, dispersion [km/s], its 68 % as predicted, p, and the same three of the
    kurtosis. The last row has no dispersion, and its p is that of the profile.
    """
    for row in table:
        if row["statistic"] in ("dispersion", "chi2"):
            kurtosis = find(table, "kurtosis", str(row["ring"]))
            yield [*_place(row), *_cells(row, 1), *_cells(kurtosis, 2)]


def _place(row: Row) -> list[tuple[str, bool]]:
    low, high = (f"{row[name]:#.3g}" for name in ("R_low", "R_high"))
    radii = "all" if row["ring"] == "all" else f"{low} to {high}"
    return [(radii, False), (f"{row['members']:.0f}", False)]


def _cells(row: Row, digits: int) -> list[tuple[str, bool]]:
    observed = f"{row['observed']:.{digits}f}"
    expected = f"{row['predicted_16']:.{digits}f} to {row['predicted_84']:.{digits}f}"
    if row["statistic"] == "chi2":
        observed, expected = "—", "—"
    return [(observed, False), (expected, False), (f"{row['p']:.3f}", bool(row["odd"]))]
