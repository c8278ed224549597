"""The numbers of a report as text: headlines, the summary table, published values beside ours."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust import units
from bayesdust.influence import Dispersion
from bayesdust.literature import published_values
from bayesdust.style import decimals, fixed
from bayesdust.summary import true_values

if TYPE_CHECKING:
    from astropy.table import Row, Table
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    Row = Table = DataTree = Any

PRETTY = {
    "Msun/kpc3": "M⊙ kpc⁻³",
    "Msun": "M⊙",
    "km/s": "km s⁻¹",
    "GeV2cm-5": "GeV² cm⁻⁵",
    "GeVcm-2": "GeV cm⁻²",
    "GeV/cm3": "GeV cm⁻³",
    "Msun/pc3": "M⊙ pc⁻³",
    "Msun/pc2": "M⊙ pc⁻²",
    "km2/s2": "km² s⁻²",
    "(km/s)2/kpc": "(km s⁻¹)² kpc⁻¹",
}
DWARF = (  # label, row of the summary, unit, factor of 10**value (0: show the value itself)
    ("ρ(150 pc)", "log10_rho[0.15kpc]", "M⊙ kpc⁻³", 1.0),
    ("ρ(150 pc)", "log10_rho[0.15kpc]", "GeV cm⁻³", units.DENSITY_GEV_CM3),
    ("log₁₀ J(0.5°)", "log10_J[0.5deg]", "GeV² cm⁻⁵", 0.0),
    ("M(<1.8 R_half)", "log10_mass[1.8rhalf]", "M⊙", 1.0),
)


def find_row(table: Table, name: str) -> Row | None:
    """The row of a summary table for one quantity, None if it has none."""
    hits = np.flatnonzero(np.asarray(table["name"]) == name)
    return table[int(hits[0])] if hits.size else None


def headlines(
    tree: DataTree,
    table: Table,
    share: Table,
    limit: Dispersion | None = None,
    wanted: tuple[tuple[str, str, str, float], ...] = DWARF,
) -> Iterator[dict[str, str]]:
    """The page's first table, as text with units; upper limits where the dispersion is one."""
    ratios = {str(row["name"]): float(row["ratio"]) for row in share}
    flagged = {str(row["name"]) for row in share if row["mostly_prior"]}
    truth = true_values(tree)
    for label, name, unit, factor in wanted:
        row = find_row(table, name)
        if row is None:
            continue
        quantiles = {key: float(row[key]) for key in ("q025", "q16", "median", "q84", "q975")}
        quantiles |= {"q95": float(row["q95"]), "truth": truth.get(name, math.nan)}
        exponent = 0
        if factor:
            quantiles = {key: factor * 10.0**value for key, value in quantiles.items()}
            shown = "q95" if limit is not None and limit.is_upper_limit else "median"
            exponent = _exponent(quantiles[shown])
            quantiles = {key: value / 10.0**exponent for key, value in quantiles.items()}
        scale = f"10{_superscript(exponent)} " if exponent else ""
        yield _headline(quantiles, limit) | {
            "label": label,
            "unit": scale + unit,
            "share": _number(ratios.get(name, math.nan), 2),
            "mostly_prior": "yes" if name in flagged else "",
        }


def _headline(q: dict[str, float], limit: Dispersion | None) -> dict[str, str]:
    digits = decimals(min(q["median"] - q["q16"], q["q84"] - q["median"]))
    truth = _number(q["truth"], digits)
    if limit is not None and limit.is_upper_limit:
        below = f"< {q['q95']:.{digits}f} (95 %)"
        return {"median": below, "one": "—", "two": "—", "truth": truth}
    return {
        "median": f"{q['median']:.{digits}f}",
        "one": f"{q['q16']:.{digits}f} to {q['q84']:.{digits}f}",
        "two": f"{q['q025']:.{digits}f} to {q['q975']:.{digits}f}",
        "truth": truth,
    }


def _exponent(value: float) -> int:
    """Power of ten taken out of a number that is clumsy without."""
    if not (math.isfinite(value) and value > 0) or 0.01 <= value < 1e4:
        return 0
    return math.floor(math.log10(value))


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "—"


def interval(row: Row, low: str, high: str) -> str:
    """The median with its distances to the quantiles `low` and `high` ("16", "84")."""
    middle = float(row["median"])
    minus, plus = middle - float(row[f"q{low}"]), float(row[f"q{high}"]) - middle
    digits = decimals(min(minus, plus))
    return f"{fixed(middle, digits)} −{minus:.{digits}f} +{plus:.{digits}f}"


def comparison(
    table: Table, published: Table | None, limit: Dispersion | None
) -> Iterator[dict[str, str]]:
    """Published values beside ours, for the quantities that both have.

    "span" is the number of rows of a quantity in its first row, empty in the others.
    """
    quantities = [] if published is None else dict.fromkeys(str(q) for q in published["quantity"])
    for name in quantities:
        row = find_row(table, name)
        if row is None:
            continue
        ours = interval(row, "16", "84")
        if limit is not None and limit.is_upper_limit:
            ours = f"< {float(row['q95']):.2f} (95 %)"
        rows = published_values(published, name)
        for i, (value, minus, plus, reference) in enumerate(rows):
            theirs = f"{value:.2f} −{minus:.2f} +{plus:.2f}" if minus or plus else f"{value:.2f}"
            difference = f"{float(row['median']) - value:+.2f}".replace("-", "−")
            difference = "—" if ours.startswith("<") else difference
            yield {
                "name": name,
                "unit": _pretty(str(row["unit"])),
                "ours": ours,
                "span": "" if i else str(len(rows)),
                "theirs": theirs,
                "difference": difference,
                "reference": reference,
            }


def _pretty(unit: str) -> str:
    return PRETTY.get(unit.replace(" ", ""), unit)


def format_row(row: Row) -> dict[str, str]:
    """One row of the summary table as text: digits to suit the sd."""
    sd = float(row["sd"])
    size = max(abs(float(row["q025"])), abs(float(row["q975"])), abs(float(row["mean"])))
    form = ".4g" if not (size < 1e5 and (sd == 0 or sd > 1e-4)) else f".{decimals(sd)}f"
    keys = ("mean", "sd", "q025", "q05", "q16", "median", "q84", "q95", "q975")
    out = {key: _show(float(row[key]), form) for key in keys}
    out |= {"name": str(row["name"]), "unit": _pretty(str(row["unit"]))}
    out |= {"rhat": _show(float(row["rhat"]), ".4f"), "mcse": _show(float(row["mcse"]), ".2g")}
    return out | {key: _show(float(row[key]), ".0f") for key in ("ess_bulk", "ess_tail")}


def _show(value: float, form: str) -> str:
    if math.isnan(value):
        return "—"
    text = f"{value:{form}}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
