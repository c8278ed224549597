"""A measured radial profile of the Milky Way's dark matter: radii, densities and their covariance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table
from jaxtyping import Float

from bayesdust.catalogs.columns import ColumnReader, Vocabulary
from bayesdust.catalogs.frames import SolarFrame
from bayesdust.catalogs.tables import digest, fault, read_table, rounded_digest
from bayesdust.units import DENSITY_GEV_CM3

FEWEST_RADII = 3  # as many as a halo has numbers
PUNY = 1e-9  # of the largest density: an error that is no error
FARTHEST, DENSEST = 1e3, 1e12  # kpc and Msun/kpc3: beyond, the unit is another one
DENSE = 1e8  # Msun/kpc3; where the Sun is, no unit of a published profile gives more
_RADII, _DENSITY = ("kpc",), ("solMass/kpc3", "GeV/cm3")
_SQUARED = ("solMass2/kpc6", "GeV2/cm6")


@dataclass(frozen=True, eq=False)
class Profile:
    """Densities of dark matter in spherical shells, and how well they are known.

    What was measured is k numbers of unit normal scatter about zero in the truth,

        weights @ rho - target,    or    weights @ ln rho - target    where `logarithmic`.        (1)

    Attributes
    ----------
    r : (n,) kpc, distances from the Galactic centre
    rho, error : (n,) Msun/kpc3, the densities and their standard errors, for the eye: (1) holds the
        covariances too
    weights, target : (k, n) and (k,), of (1)
    logarithmic : whether it is the logarithms of the densities, in Msun/kpc3, that scatter normally
    sun : (3,) kpc, Galactocentric place of the Sun
    source, sha256, units, warnings : as of `MilkyWayStars`
    notes : sentences for the head of the report
    """

    r: Float[np.ndarray, " n"]
    rho: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, "k n"]
    target: Float[np.ndarray, " k"]
    source: str
    sha256: str
    sun: Float[np.ndarray, " 3"] = field(default_factory=lambda: SolarFrame().position)
    logarithmic: bool = False
    units: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What of this profile decides a fit, for JSON."""
        return {
            "file": self.sha256,
            "numbers": {"profile": rounded_digest(self.r, self.rho, self.weights, self.target)},
            "sun": list(map(float, self.sun)),
        }


def read_profile(
    path_or_table: str | Path | Table,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> Profile:
    """Read a profile: columns `r`, `rho_dm` and `rho_dm_err`, one row a radius.

    In place of `rho_dm_err` there may be `cov_1` to `cov_n`, the covariances with the densities of rows
    1 to n. Bare columns are in kpc and Msun/pc3, densities may be in GeV/cm3; errors and covariances
    without a unit are in that of `rho_dm`, or its square. `columns` and `units` as in `read_stars`.

    Raises BayesdustError, one sentence with file, row and column, for a table that cannot be read, a
    missing column, gaps and numbers that are not finite, radii or errors that are not positive, a
    covariance matrix that is none, fewer than 3 radii, or an unknown unit.
    """
    table = read_table(path_or_table)
    n = len(table.table)
    reader = ColumnReader(table, dict(columns or {}), dict(units or {}), words=_vocabulary(n))
    many = reader.find("cov_1") is not None
    _check_columns(reader, [f"cov_{i + 1}" for i in range(n)] if many else ["rho_dm_err"], many)
    r, _ = reader.read("r")
    rho, unit = reader.read("rho_dm")
    per = DENSITY_GEV_CM3 if unit == _DENSITY[1] else 1.0
    rho = rho / per
    _check_radii(reader, r)
    _check_densities(reader, rho)
    covariance = _covariance(reader, n) if many else np.diag(_errors(reader)) ** 2
    _check_sizes(reader, np.sqrt(np.diag(covariance)), rho, many)
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    return Profile(
        r=r,
        rho=rho,
        error=np.sqrt(np.diag(covariance)),
        weights=root,
        target=root @ rho,
        source=table.where,
        sha256=table.sha256 or digest(r, rho, covariance),
        units=dict(reader.used),
        warnings=(*table.notes, *_dense(reader, r, rho)),
    )


def _vocabulary(n: int) -> Vocabulary:
    covariances = [f"cov_{i + 1}" for i in range(n)]
    kinds: dict[str, tuple[str, tuple[str, ...]]] = {"r": ("a length", _RADII)}
    kinds |= dict.fromkeys(("rho_dm", "rho_dm_err"), ("a density", _DENSITY))
    kinds |= dict.fromkeys(covariances, ("a squared density", _SQUARED))
    bare = {"r": "kpc", "rho_dm": "Msun/pc3"}
    return Vocabulary(dict.fromkeys(kinds, ()), bare, kinds)


def _check_columns(reader: ColumnReader, uncertainty: list[str], many: bool) -> None:
    where = reader.source.where
    lacking = [name for name in ("r", "rho_dm", *uncertainty) if reader.find(name) is None]
    if lacking:
        problem = f"has no column {lacking[0]}; its columns are {reader.listing()}"
        advice = "a profile is given as r, rho_dm and rho_dm_err, or cov_1 to cov_n in its place"
        raise fault(where, problem, advice)
    if many and reader.find("rho_dm_err") is not None:
        problem = "has both rho_dm_err and covariances"
        raise fault(where, problem, "leave one out: cov_1 to cov_n hold the errors too")
    if (n := len(reader.source.table)) < FEWEST_RADII:
        problem = f"holds {n} radi{'us' if n == 1 else 'i'}, fewer than {FEWEST_RADII}"
        raise fault(where, problem, "too few for a density, a radius and a slope")


def _check_radii(reader: ColumnReader, r: Float[np.ndarray, " n"]) -> None:
    if (wrong := ~((r > 0) & (r < FARTHEST))).any():
        row = int(np.argmax(wrong))
        problem = f"the radius is {r[row]:g} kpc"
        advice = "radii are positive: correct it, or state the unit if it is not kpc"
        raise fault(reader.source.where, problem, advice, row + 1, reader.find("r") or "r")


def _check_densities(reader: ColumnReader, rho: Float[np.ndarray, " n"]) -> None:
    if (wrong := abs(rho) > DENSEST).any():
        row = int(np.argmax(wrong))
        problem = f"the density comes out at {rho[row] / 1e9:.3g} Msun/pc3"
        advice = "state the unit if it is not Msun/pc3, as units={'rho_dm': 'Msun/kpc3'}"
        raise fault(reader.source.where, problem, advice, row + 1, reader.find("rho_dm") or "")


def _dense(reader: ColumnReader, r: np.ndarray, rho: np.ndarray) -> tuple[str, ...]:
    """A warning where a unit that was assumed makes the solar neighbourhood very dense."""
    there = (r > 6.0) & (r < 10.0) & (rho > DENSE)
    if "(assumed)" not in reader.used["rho_dm"] or not there.any():
        return ()
    i = int(np.argmax(there))
    return (
        f"rho_dm is taken to be in Msun/pc3, and {rho[i] / 1e9:.3g} at {r[i]:.3g} kpc would be more than "
        "all matter known there: is it in GeV/cm3?",
    )


def _read_as(reader: ColumnReader, name: str, power: int) -> Float[np.ndarray, " n"]:
    """An error or covariance in Msun/kpc3 to a `power`, in the unit of rho_dm where it has none."""
    of_rho = reader.used["rho_dm"].split(" (")[0]
    written = getattr(reader.source.table[reader.find(name)], "unit", None)
    bare = name not in reader.units and not str(written or "").strip(" -")
    given = {name: str(u.Unit(of_rho) ** power)} if bare else reader.units
    one = ColumnReader(reader.source, reader.columns, given, words=reader.words)
    values, unit = one.read(name)
    reader.used[name] = one.used[name].replace("(given)", "(as rho_dm)") if bare else one.used[name]
    return values / (DENSITY_GEV_CM3**power if unit.startswith("GeV") else 1.0)


def _errors(reader: ColumnReader) -> Float[np.ndarray, " n"]:
    error = _read_as(reader, "rho_dm_err", 1)
    if (wrong := error <= 0).any():
        row, column = int(np.argmax(wrong)), reader.find("rho_dm_err") or ""
        problem = "the error is zero or negative"
        raise fault(reader.source.where, problem, "correct it or remove the row", row + 1, column)
    return error


def _check_sizes(
    reader: ColumnReader, error: Float[np.ndarray, " n"], rho: Float[np.ndarray, " n"], many: bool
) -> None:
    """Errors so far from the densities are of another unit, and their squares would overflow."""
    largest = abs(rho).max() or DENSEST
    if (wrong := ~((error > PUNY * largest) & (error < DENSEST / PUNY))).any():
        row = int(np.argmax(wrong))
        problem = f"the error comes out at {error[row] / 1e9:.3g} Msun/pc3"
        advice = "correct it, or state its unit"
        name = f"cov_{row + 1}" if many else "rho_dm_err"
        raise fault(reader.source.where, problem, advice, row + 1, reader.find(name) or "")


def _covariance(reader: ColumnReader, n: int) -> Float[np.ndarray, "n n"]:
    where = reader.source.where
    found = np.stack([_read_as(reader, f"cov_{i + 1}", 2) for i in range(n)], axis=1)
    size = np.sqrt(abs(np.diag(found)))
    if (wrong := np.diag(found) <= 0).any():
        row = int(np.argmax(wrong)) + 1
        raise fault(where, "the variance is not positive", "correct it", row, f"cov_{row}")
    tilted = abs(found - found.T) > 1e-6 * np.outer(size, size)
    if tilted.any():
        i, j = (int(k[0]) + 1 for k in np.nonzero(tilted))
        problem = f"the covariance with row {j} is not that in row {j}"
        raise fault(where, problem, "give a symmetric matrix", i, f"cov_{j}")
    found = (found + found.T) / 2
    if np.linalg.eigvalsh(found / np.outer(size, size))[0] < 1e-10:
        problem = "the covariances are not those of independent measurements"
        raise fault(where, problem, "give a positive definite matrix, or leave radii out")
    return found
