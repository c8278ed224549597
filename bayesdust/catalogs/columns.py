"""Columns of a table of stars by our names, as plain float64 numbers in known units."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy import units as u
from jaxtyping import Float

from bayesdust.catalogs.tables import SourceTable, fault, is_missing, parse_number
from bayesdust.errors import BayesdustError

# Names under which catalogues carry our quantities, compared without regard to case.
VELOCITY_NAMES = (
    *("vlos", "hrv", "rv", "hv", "<hv>", "<hrv>", "rvel", "v_helio", "vhelio", "v_hel", "vhel"),
    *("radial_velocity", "velocity", "vel"),
)
ALIASES: dict[str, tuple[str, ...]] = {
    "ra": ("raj2000", "_raj2000", "ra_icrs", "ra_j2000", "radeg", "ra_deg", "_ra"),
    "dec": (
        *("de", "dej2000", "_dej2000", "decj2000", "de_icrs", "dec_icrs", "dec_j2000"),
        *("dedeg", "decdeg", "dec_deg", "_de"),
    ),
    "x": ("xi",),
    "y": ("eta",),
    "v_los": VELOCITY_NAMES,
    "v_los_err": (
        *(f"e_{name}" for name in VELOCITY_NAMES),
        *(f"{name}_err" for name in VELOCITY_NAMES),
        *(f"{name}_error" for name in ("v_los", *VELOCITY_NAMES)),
        *("e_v_los", "verr", "v_err"),
    ),
    "p_member": (
        *("pmem", "p_mem", "pmemb", "pmember", "mm", "mmb", "prob_mem", "memberprob"),
        *("membership", "membership_probability"),
    ),
    "pmra": ("pm_ra", "pmra_cosdec", "pm_ra_cosdec"),
    "pmdec": ("pm_dec", "pmde", "pm_de"),
    "pmra_err": ("pmra_error", "e_pmra", "pm_ra_err", "pm_ra_error", "e_pm_ra"),
    "pmdec_err": (
        *("pmdec_error", "e_pmdec", "e_pmde", "pm_dec_err", "pm_dec_error", "e_pm_dec"),
        *("pmde_err", "pmde_error"),
    ),
    "pm_corr": ("pmra_pmdec_corr", "pmrapmdecor", "pmrapmdecorr"),
}
BARE = {"ra": "deg", "dec": "deg", "x": "kpc", "y": "kpc", "v_los": "km/s", "v_los_err": "km/s"}
BARE |= dict.fromkeys(("pmra", "pmdec", "pmra_err", "pmdec_err"), "mas/yr")
KINDS = {
    "ra": ("an angle", ("deg",)),
    "dec": ("an angle", ("deg",)),
    "x": ("a length or an angle", ("kpc", "rad")),
    "y": ("a length or an angle", ("kpc", "rad")),
    "v_los": ("a velocity", ("km/s",)),
    "v_los_err": ("a velocity", ("km/s",)),
    "p_member": ("a plain number", ("",)),
    **dict.fromkeys(("pmra", "pmdec", "pmra_err", "pmdec_err"), ("a proper motion", ("mas/yr",))),
    "pm_corr": ("a plain number", ("",)),
}
HUGE = 1e100  # what is larger is no measurement, and its square would overflow
NO_UNIT = ("", "-", "--", "---")
SEXAGESIMAL = re.compile(r"\s*[-+]?\d{1,3}[ :hd]\s*\d{1,2}[ :m']\s*\d{1,2}(\.\d*)?[s\"]?\s*")


@dataclass(frozen=True)
class Vocabulary:
    """Our names for the quantities of one kind of table.

    aliases : our name -> other names, in lower case; bare : our name -> the unit assumed where
    none is stated; kinds : our name -> (what it is, in words, units it is converted to).
    """

    aliases: Mapping[str, tuple[str, ...]]
    bare: Mapping[str, str]
    kinds: Mapping[str, tuple[str, tuple[str, ...]]]


DWARF = Vocabulary(ALIASES, BARE, KINDS)


@dataclass(frozen=True, eq=False)
class ColumnReader:
    """Reads the columns of one table; `used` collects the unit of every column read, by our name.

    columns : our name -> the table's; units : our name -> unit, which overrides the table's;
    words : the quantities that can be read.
    """

    source: SourceTable
    columns: Mapping[str, str]
    units: Mapping[str, str]
    used: dict[str, str] = field(default_factory=dict)
    words: Vocabulary = DWARF

    def __post_init__(self) -> None:
        for option, mapping in (("columns", self.columns), ("units", self.units)):
            if unknown := sorted(set(mapping) - set(self.words.aliases)):
                problem = f"{option} names {unknown[0]!r}, which is not a quantity read here"
                raise fault(self.source.where, problem, f"use {', '.join(self.words.aliases)}")

        there = self._there()
        for ours, theirs in self.columns.items():
            column = theirs.strip().casefold()
            others = [o for o, t in self.columns.items() if t.strip().casefold() == column]
            if column in self.words.aliases and column not in self.columns and column in there:
                others.append(column)
            if twice := [other for other in others if other != ours]:
                problem = f"column {theirs!r} is taken for both {ours} and {twice[0]}"
                raise fault(self.source.where, problem, "correct the mapping of columns")

    def find(self, name: str) -> str | None:
        """The table's column for our `name`, or None; BayesdustError where several would do."""
        there = self._there()
        if wanted := self.columns.get(name):
            if wanted.strip().casefold() not in there:
                problem = f"has no column {wanted!r} (wanted for {name}); it has {self.listing()}"
                raise fault(self.source.where, problem, "correct the mapping of columns")
            return there[wanted.strip().casefold()]
        if name in there:
            return there[name]
        found = [there[alias] for alias in self.words.aliases[name] if alias in there]
        if len(found) > 1:
            problem = f"columns {' and '.join(found[:2])} could both be {name}"
            advice = f"say which, as columns={{{name!r}: {found[0]!r}}}"
            raise fault(self.source.where, problem, advice)
        return found[0] if found else None

    def _there(self) -> dict[str, str]:
        """The table's columns by their names in lower case."""
        return {c.strip().casefold(): c for c in self.source.table.colnames}

    def listing(self) -> str:
        """The table's column names, for messages."""
        names = self.source.table.colnames
        return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")

    def read(self, name: str, gaps: bool = False) -> tuple[Float[np.ndarray, " n"], str]:
        """Numbers of our `name` and their unit, one of those in `words.kinds`.

        With `gaps`, what is masked, empty or NaN is read as NaN; otherwise it is an error.
        """
        column = self.find(name)
        assert column is not None, name
        data = self.source.table[column]
        if (
            name in ("ra", "dec")
            and (angles := sexagesimal(data, name, self.source.where, column)) is not None
        ):
            self.used[name] = "sexagesimal"
            return angles, "deg"
        unit, origin = self._unit(name, column)
        values = numbers(data, self.source.where, column, gaps)
        self.used[name] = f"{unit or 'none'}{origin}"
        kind, targets = self.words.kinds[name]
        for target in targets:
            if u.Unit(unit).is_equivalent(target):
                return values * u.Unit(unit).to(target), target
        problem = f"the unit {unit} is not that of {kind}"
        raise fault(self.source.where, problem, f"map {name} to another column or unit", 0, column)

    def _unit(self, name: str, column: str) -> tuple[str, str]:
        """The unit of a column as text, and whether it was assumed or given by the user."""
        written = getattr(self.source.table[column], "unit", None)
        text = self.units.get(name, "" if written is None else str(written)).strip()
        if text not in NO_UNIT:
            origin = " (given)" if name in self.units else ""
            return _parse_unit(text, self.source.where, column), origin
        if name in ("x", "y") and column.casefold() in self.words.aliases[name]:
            advice = f"state it, as units={{{name!r}: 'arcmin'}}"
            raise fault(self.source.where, "has no unit", advice, 0, column)
        bare = self.words.bare
        return bare.get(name, ""), " (assumed)" if name in bare else ""


def _parse_unit(text: str, where: str, column: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(u.Unit(text))
        except Exception as error:  # astropy raises several kinds for text that is no unit
            problem = f"{text!r} is not a unit"
            advice = "give one such as deg, arcmin, kpc or km/s"
            raise fault(where, problem, advice, 0, column) from error


def numbers(data: Any, where: str, column: str, gaps: bool = False) -> Float[np.ndarray, " n"]:
    """A column as finite float64; raises BayesdustError naming the first row that is not one.

    With `gaps`, rows without a value become NaN; what is infinite or no number is still an error.
    """
    mask = np.broadcast_to(np.asarray(getattr(data, "mask", False)), np.shape(data))
    plain = getattr(data, "unmasked", data)
    raw = np.asarray(getattr(plain, "value", plain))
    if raw.ndim != 1 or mask.ndim != 1:
        raise fault(
            where, "holds several numbers a row", "map a column of single numbers", 0, column
        )
    if mask.any() and not gaps:
        raise _gap(where, column, mask, "the value is missing")
    if raw.dtype.kind in "OUS":
        absent = [m or (gaps and is_missing(c)) for c, m in zip(raw, mask, strict=True)]
        values = np.array(
            [
                np.nan if absent[i] else parse_number(cell, where, i + 1, column)
                for i, cell in enumerate(raw)
            ]
        )
    elif raw.dtype.kind in "fiub":
        values = raw.astype(np.float64)
    else:
        raise fault(where, f"holds {raw.dtype}, not numbers", "map another column", 0, column)
    if gaps:
        values = np.where(mask, np.nan, values)
    finite = abs(values) < HUGE  # false for NaN
    if not (fine := finite | np.isnan(values) if gaps else finite).all():
        raise _gap(where, column, ~fine, f"the value is {values[~fine][0]}")
    return values.astype(np.float64)


def _gap(where: str, column: str, gaps: np.ndarray, problem: str) -> BayesdustError:
    """The error for rows without a usable number: the first of them, and how many there are."""
    n = int(gaps.sum())
    more = f" (in {n} rows, first here)" if n > 1 else ""
    advice = "fill it in or remove the row" if n == 1 else "fill them in or remove the rows"
    return fault(where, problem + more, advice, int(np.argmax(gaps)) + 1, column)


def sexagesimal(data: Any, name: str, where: str, column: str) -> Float[np.ndarray, " n"] | None:
    """Degrees of a text column such as "02 39 52.6" (hours for ra); None for any other column."""
    raw = np.asarray(data)
    if raw.dtype.kind not in "OUS" or raw.ndim != 1:
        return None
    cells = [c.decode("latin-1") if isinstance(c, bytes) else str(c) for c in raw]
    right = [SEXAGESIMAL.fullmatch(c) is not None for c in cells]
    if sum(right) <= len(right) // 2:
        return None
    if not all(right):
        row = right.index(False) + 1
        problem = f"{cells[row - 1][:40]!r} is not an angle like the others"
        raise fault(where, problem, "correct it or remove the row", row, column)
    parts = np.array([[float(p) for p in re.findall(r"[\d.]+", c)] for c in cells])
    sign = np.array([-1.0 if c.strip().startswith("-") else 1.0 for c in cells])
    values = sign * (parts @ np.array([1.0, 1.0 / 60.0, 1.0 / 3600.0]))
    return values * (15.0 if name == "ra" else 1.0)
