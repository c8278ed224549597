"""Published values, as rows of a table, to set beside those of a fit."""

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from astropy.table import Table
else:  # heavy, and only its objects are needed here
    Table = Any


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


def _number(value: Any) -> float:
    """A float without unit or sign surprises; masked and missing become 0 (no error known)."""
    number = float(np.ma.filled(np.ma.asarray(getattr(value, "value", value), dtype=float), 0.0))
    return number if math.isfinite(number) else 0.0
