"""What is known of a galaxy, checked: as an object, from a TOML file, from an LVDB table."""

import csv
import dataclasses
import difflib
import logging
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u

from bayesdust.errors import BayesdustError
from bayesdust.units import ARCMIN

log = logging.getLogger(__name__)

POSITIVE = ("distance", "distance_err", "rhalf", "rhalf_err", "v_sys_err", "sigma_los")
UNITS = {
    "ra": "deg",
    "dec": "deg",
    "distance": "kpc",
    "distance_err": "kpc",
    "rhalf": "arcmin",
    "rhalf_err": "arcmin",
    "ellipticity": "",
    "position_angle": "deg",
    "v_sys": "km/s",
    "v_sys_err": "km/s",
    "sigma_los": "km/s",
    "pmra": "mas/yr",
    "pmdec": "mas/yr",
}


@dataclass(frozen=True)
class Galaxy:
    """What is known of a galaxy before its stars are looked at; None where nothing is known.

    Attributes
    ----------
    name : str
    distance, distance_err : kpc
    ra, dec : centre, J2000, deg
    rhalf, rhalf_err : arcmin, semi-major axis of the ellipse that holds half the projected light
    ellipticity : 1 - b/a
    position_angle : deg, of the major axis, from north through east
    v_sys, v_sys_err : km/s, heliocentric
    sigma_los : km/s, a published line-of-sight velocity dispersion, only for sanity checks
    pmra, pmdec : mas/yr, pmra includes the factor cos(dec)
    key : name in the Local Volume Database, such as "draco_1"
    references : what is cited -> citation

    Raises
    ------
    BayesdustError
        A value that is not finite, not positive where it must be, or out of range.
    """

    name: str
    distance: float
    distance_err: float | None = None
    ra: float | None = None
    dec: float | None = None
    rhalf: float | None = None
    rhalf_err: float | None = None
    ellipticity: float | None = None
    position_angle: float | None = None
    v_sys: float | None = None
    v_sys_err: float | None = None
    sigma_los: float | None = None
    pmra: float | None = None
    pmdec: float | None = None
    key: str | None = None
    references: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in UNITS:
            value = getattr(self, name)
            if value is not None:
                _check_value(self.name, name, value)
        for one, other in (("ra", "dec"), ("pmra", "pmdec")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                missing = one if getattr(self, one) is None else other
                given = other if missing == one else one
                raise BayesdustError(
                    f"{self.name}: {given} is given without {missing}; give both or neither."
                )

    @property
    def rhalf_circularised(self) -> float | None:
        """Radius of the circle with the area of the half-light ellipse, sqrt(a b) [arcmin]."""
        if self.rhalf is None:
            return None
        return self.rhalf * math.sqrt(1.0 - (self.ellipticity or 0.0))

    @property
    def rhalf_kpc(self) -> float | None:
        """Circularised projected half-light radius at the catalogue distance [kpc]."""
        rhalf = self.rhalf_circularised
        return None if rhalf is None else rhalf * ARCMIN * self.distance

    def to_dict(self) -> dict[str, Any]:
        """The values that are known, ready for JSON; `from_dict` undoes it."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Galaxy":
        """The galaxy written by `to_dict`; raises BayesdustError for an unknown or missing key."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise BayesdustError(f"a galaxy has no {unknown[0]!r}; use one of {_join(known)}.")
        if missing := sorted({"name", "distance"} - set(values)):
            raise BayesdustError(f"a galaxy needs {missing[0]!r}; add it.")
        return cls(**values)


def _check_value(galaxy_name: str, name: str, value: float) -> None:
    problem = None
    if not math.isfinite(value):
        problem = "must be a finite number"
    elif name in POSITIVE and value <= 0.0:
        problem = "must be positive"
        problem += "" if name == "distance" else " (leave it out if it is not known)"
    elif name == "ellipticity" and not 0.0 <= value < 1.0:
        problem = "must be at least 0 and less than 1 (it is 1 - b/a)"
    elif name == "dec" and abs(value) > 90.0:
        problem = "must lie between -90 and 90 deg"
    elif name in ("ra", "position_angle") and abs(value) > 360.0:
        problem = "must lie between -360 and 360 deg"
    if problem:
        raise BayesdustError(f"{galaxy_name}: {name} is {value} but {problem}.")


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        why = error.strerror or "no such file"
        raise BayesdustError(f"{path}: cannot be read ({why}); check the path.") from error
    except (ValueError, RuntimeError) as error:  # not UTF-8, or no such name can be
        raise BayesdustError(f"{path}: is not a text file ({error}); check the path.") from error


# FILE.toml

TOML_KEYS = ("name", *UNITS, "references")
NEAREST, FARTHEST = 1.0, 3000.0  # kpc: beyond, single stars of a dwarf galaxy are not measured
SIZES = ("rhalf", "rhalf_err")
SMALLEST, LARGEST = 0.05, 120.0  # arcmin, half-light radius
LARGEST_KPC = 10.0  # that of none is half as large
LARGEST_SHARE = 0.5  # error over value: a factor known no better is no fact


def read_toml(path: str | Path) -> Galaxy:
    """A galaxy described by the keys of `Galaxy` in a TOML file; only `distance` is required.

    Numbers are in deg, kpc, arcmin, km/s and mas/yr; a string carries its unit, as "80 kpc". The
    half-light radius may be a length, as "0.2 kpc". Raises BayesdustError naming the file and the key.
    """
    try:
        values = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise BayesdustError(f"{path}: is not valid TOML ({error}); correct it.") from error
    for key in values:
        if key not in TOML_KEYS:
            near = difflib.get_close_matches(key, TOML_KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {_join(TOML_KEYS)}."
            raise BayesdustError(f"{path}: unknown key {key!r}: {hint}")
    if "distance" not in values:
        raise BayesdustError(
            f'{path}: distance is missing; add it, for example distance = "80 kpc".'
        )
    facts = {
        k: _toml_number(path, k, v) for k, v in values.items() if k in UNITS and k not in SIZES
    }
    facts |= {k: _toml_size(path, k, values[k], facts["distance"]) for k in SIZES if k in values}
    _check_scales(path, values, facts)
    name = values.get("name", Path(path).stem)
    if not isinstance(name, str) or not name.strip():
        raise BayesdustError(f"{path}: name must be text; correct it.")
    references = values.get("references", {})
    if not _is_text_table(references):
        raise BayesdustError(f"{path}: references must be a table of text; correct it.")
    try:
        return Galaxy.from_dict({"name": name.strip(), "references": references, **facts})
    except BayesdustError as error:
        raise BayesdustError(f"{path}: {error}") from error


def _toml_size(path: str | Path, key: str, value: object, distance: float) -> float:
    """Arcmin; a length, as "0.2 kpc", is seen from the distance."""
    try:
        length = float(u.Quantity(value).to_value("kpc")) if isinstance(value, str) else None
    except Exception:  # no length: astropy raises several kinds
        length = None
    if length is not None and distance > 0.0:
        return length / distance / ARCMIN
    return _toml_number(path, key, value)


def _check_scales(path: str | Path, values: Mapping[str, object], facts: dict[str, float]) -> None:
    """Distance and half-light radius are those of a dwarf galaxy whose stars can be measured."""
    distance, rhalf = facts["distance"], facts.get("rhalf")
    for key, value in (("distance", distance), ("rhalf", rhalf)):
        error = facts.get(f"{key}_err")
        if value and error and error > LARGEST_SHARE * value:
            raise BayesdustError(
                f"{path}: {key}_err is {error / value:.2g} times {key}, which leaves {key} unknown: give "
                "both in the same unit, or leave the error out."
            )
    if FARTHEST < distance < math.inf or 0.0 < distance < NEAREST:
        guess = "pc" if distance > FARTHEST else "Mpc"
        raise BayesdustError(
            f"{path}: distance = {distance:g} kpc is not that of a dwarf galaxy whose stars are "
            f'measured one by one; if the number is in {guess}, say so, as "{distance:g} {guess}".'
        )
    if rhalf is None or rhalf <= 0.0 or SMALLEST <= rhalf <= LARGEST:
        return
    guess = "arcsec" if rhalf > LARGEST else "deg"
    problem = f"{path}: rhalf = {rhalf:.4g} arcmin is not the half-light radius of a dwarf galaxy"
    if isinstance(values["rhalf"], str):  # with its unit: meant so, if it can be
        kpc = math.tan(rhalf * ARCMIN) * distance
        if kpc > LARGEST_KPC or rhalf > 60 * 45:
            raise BayesdustError(
                f"{problem}: it is {kpc:.3g} kpc at {distance:g} kpc; give another."
            )
        log.warning("warning: %s as far as known; check it.", problem)
        return
    raise BayesdustError(
        f'{problem}; if the number is in {guess}, say so, as "{rhalf:g} {guess}", and if it is '
        f'right, write "{rhalf:g} arcmin".'
    )


def _is_text_table(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _toml_number(path: str | Path, key: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    unit = UNITS[key]
    example = f"a number in {unit}" if unit else "a number without a unit"
    if unit:
        example += f' or text such as "80 {unit}"'
    problem = f"{path}: {key} = {value!r} is not {example}; correct it."
    if not isinstance(value, str) or not value.strip():
        raise BayesdustError(problem)
    try:
        quantity = u.Quantity(value)
        if unit and quantity.unit == u.dimensionless_unscaled:  # "80" is as good as 80
            return float(quantity.value)
        return float(quantity.to_value(unit))
    except Exception as error:  # astropy raises several kinds for text that is not a quantity
        raise BayesdustError(problem) from error


# The Local Volume Database

LVDB_COLUMNS = {
    "ra": "ra",
    "dec": "dec",
    "distance": "distance",
    "rhalf": "rhalf",
    "ellipticity": "ellipticity",
    "position_angle": "position_angle",
    "v_sys": "vlos_systemic",
    "sigma_los": "vlos_sigma",
    "pmra": "pmra",
    "pmdec": "pmdec",
}
LVDB_ERRORS = {"distance_err": "distance", "rhalf_err": "rhalf", "v_sys_err": "vlos_systemic"}
LVDB_REFERENCES = {
    "distance": "ref_distance",
    "structure": "ref_structure",
    "velocity": "ref_vlos",
    "proper_motion": "ref_proper_motion",
}


def read_lvdb(path: str | Path) -> dict[str, Galaxy]:
    """Galaxies of a Local Volume Database csv by key, those without a distance left out.

    In that table rhalf is the semi-major axis in arcmin and `_em`, `_ep` are the errors below and
    above, averaged here (Pace 2024, arXiv:2411.07424). Raises BayesdustError naming the file, and
    the row and column where one is at fault.
    """
    try:
        rows = list(csv.DictReader(_read_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise BayesdustError(f"{path}: is not a csv table ({error}); check the file.") from error
    needed = {"key", "name", *LVDB_COLUMNS.values()}
    if not rows or (missing := sorted(needed - set(rows[0]))):
        lacks = f"column {missing[0]!r} is missing" if rows else "it has no rows"
        raise BayesdustError(
            f"{path}: is not a table of the Local Volume Database ({lacks}); give its dwarf_*.csv."
        )
    read = (_lvdb_galaxy(path, i, row) for i, row in enumerate(rows, start=1))
    return {g.key: g for g in read if g is not None and g.key}


def _lvdb_galaxy(path: str | Path, number: int, row: dict[str, str]) -> Galaxy | None:
    def cell(column: str) -> float | None:
        text = row.get(column) or ""
        try:
            return float(text) if text.strip() else None
        except (TypeError, ValueError) as error:
            raise BayesdustError(
                f"{path}: row {number}, column {column}: {text!r} is not a number; correct it."
            ) from error

    facts = {ours: cell(theirs) for ours, theirs in LVDB_COLUMNS.items()}
    if facts["distance"] is None or not row["key"]:
        return None
    for ours, theirs in LVDB_ERRORS.items():
        errors = [e for s in ("em", "ep") if (e := cell(f"{theirs}_{s}")) is not None]
        facts[ours] = float(np.mean(errors)) if errors and max(errors) > 0.0 else None
    references = {k: _citation(row[c]) for k, c in LVDB_REFERENCES.items() if row.get(c)}
    try:
        name = row["name"] or row["key"]
        return Galaxy.from_dict(
            {"name": name, "key": row["key"], "references": references, **facts}
        )
    except BayesdustError as error:
        raise BayesdustError(f"{path}: row {number}: {error}") from error


def _citation(reference: str) -> str:
    """Turn "Munoz2018ApJ...860...66M" (name and 19-character bibcode) into a readable citation."""
    name, bibcode = reference[:-19], reference[-19:]
    if name and re.match(r"\d{4}\S{15}$", bibcode):
        return f"{name}+{bibcode[:4]} ({bibcode})"
    return reference


def _join(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
