"""The galaxies known by name, with citations, and what has been published about them.

The built-in table (`data/galaxies.ecsv`) follows the Local Volume Database v1.1.1
(Pace 2024, arXiv:2411.07424), which names the paper behind every group of values.
"""

import difflib
import functools
import math
import re
import unicodedata
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from astropy.table import Table

from bayesdust.catalogs.facts import UNITS, Galaxy, read_lvdb, read_toml
from bayesdust.errors import BayesdustError

__all__ = [
    "Galaxy",
    "built_in",
    "galaxy",
    "galaxy_names",
    "galaxy_table",
    "published",
    "read_lvdb",
    "read_toml",
]

# The built-in table


@functools.cache
def _builtin() -> dict[str, Galaxy]:
    rows = _read_data("galaxies.ecsv")
    galaxies = {}
    for row in rows:
        values = {c: row[c].item() for c in (*UNITS, "key", "name")}
        references = {
            c.removeprefix("ref_"): str(row[c]) for c in rows.colnames if c.startswith("ref_")
        }
        galaxies[values["key"]] = Galaxy(**values, references=references)
    return galaxies


def _read_data(name: str) -> Table:
    text = files("bayesdust").joinpath("data", name).read_text(encoding="utf-8")
    return Table.read(text, format="ascii.ecsv")


def built_in() -> list[Galaxy]:
    """The built-in galaxies: the eight classical dwarfs, then ultra-faint ones."""
    return list(_builtin().values())


def galaxy_names() -> list[str]:
    """Names of the built-in galaxies: the eight classical dwarfs, then ultra-faint ones."""
    return [g.name for g in built_in()]


def galaxy_table() -> Table:
    """The built-in facts as an astropy table with units, descriptions and citations."""
    return _read_data("galaxies.ecsv")


def published(galaxy_name: str | Galaxy) -> Table:
    """Published values to lay beside a posterior; an empty table for a galaxy without any.

    Columns: quantity (named as in summary.ecsv: `log10_J[0.5deg]`, `log10_rho[0.15kpc]`), value,
    err_minus, err_plus (both positive, 68 %), unit, reference. Densities are published on a linear
    scale; here value and limits are logarithms of theirs. A Galaxy goes by its `key`; an unknown
    name raises BayesdustError.
    """
    one = galaxy_name
    if not isinstance(one, Galaxy):
        one = _look_up(one, built_in(), "built in")
    table = _read_data("j_factors.ecsv")
    table = table[table["key"] == (one.key or "")]
    rows = [_as_log10(row) for row in table]
    names = ("quantity", "value", "err_minus", "err_plus", "unit", "reference")
    dtypes = (str, float, float, float, str, str)
    return Table(rows=rows or None, names=names, dtype=dtypes, meta=dict(table.meta))


def _as_log10(row: Any) -> tuple[str, float, float, float, str, str]:
    quantity, unit, reference = str(row["quantity"]), str(row["unit"]), str(row["reference"])
    value, minus, plus = (float(row[c]) for c in ("value", "err_minus", "err_plus"))
    if quantity.startswith("log10_"):
        return quantity, value, minus, plus, unit, reference
    scale, unit = unit.split(maxsplit=1)
    log = math.log10(value)
    low, high = math.log10(value - minus), math.log10(value + plus)
    return (
        f"log10_{quantity}",
        log + math.log10(float(scale)),
        log - low,
        high - log,
        f"dex({unit})",
        reference,
    )


# Names


def galaxy(name_or_path: str | Path | Galaxy) -> Galaxy:
    """The galaxy called NAME, described in FILE.toml, or in a row of FILE.csv as "FILE.csv:NAME".

    NAME ignores case, punctuation and accents, with or without `_1`, and takes 2 for II: `draco`,
    `Draco`, `draco_1`, `leo_2`, `Leo II`. A Galaxy is handed back as it is. FILE.csv is a table of
    the Local Volume Database. Raises BayesdustError for an unknown name (suggesting the nearest)
    and for a file that is missing or wrong.
    """
    if isinstance(name_or_path, Galaxy):
        return name_or_path
    text = str(name_or_path).strip()
    if text.lower().endswith(".toml"):
        return read_toml(text)
    path, colon, name = text.rpartition(":")
    if colon and path.lower().endswith(".csv"):
        return _look_up(name, read_lvdb(path).values(), f"in {path}")
    if text.lower().endswith(".csv"):
        raise BayesdustError(f"{text}: say which galaxy of this table, as {text}:NAME.")
    return _look_up(text, built_in(), "built in")


def _look_up(name: str, galaxies: Iterable[Galaxy], where: str) -> Galaxy:
    by_spelling = {s: g for g in galaxies for s in _spellings(g)}
    if found := by_spelling.get(_plain(name)):
        return found
    near = difflib.get_close_matches(_plain(name), by_spelling, n=1, cutoff=0.6)
    guess = f"did you mean {by_spelling[near[0]].name!r}? " if near else ""
    raise BayesdustError(
        f"no galaxy {name!r} is {where}: {guess}"
        "`bayesdust galaxies` lists those built in, and a FILE.toml describes any other."
    )


def _plain(name: str) -> str:
    """Lower-case letters and digits only, accents dropped."""
    text = unicodedata.normalize("NFKD", name).casefold()
    return "".join(c for c in text if c.isascii() and c.isalnum())


ROMAN = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")


def _spellings(one: Galaxy) -> set[str]:
    """Every plain spelling by which a galaxy is found; leo_2 gives leo2 and leoii."""
    spellings = {_plain(one.name)}
    if one.key:
        spellings.add(_plain(one.key))
    for text in (one.key or "", one.name):
        if match := re.fullmatch(r"(.*\D)[_ ](\d+|[IVX]+)", text):
            stem, number = _plain(match[1]), match[2].casefold()
            n = int(number) if number.isdigit() else ROMAN.index(number)
            if n < len(ROMAN):
                spellings |= {f"{stem}{n}", f"{stem}{ROMAN[n]}"} | ({stem} if n == 1 else set())
    return spellings - {""}
