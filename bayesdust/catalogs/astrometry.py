"""Columns of a Gaia table, read under their own names, and the covariance of what was observed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from bayesdust.catalogs.columns import ColumnReader, Vocabulary
from bayesdust.catalogs.frames import OBSERVED, OBSERVED_UNITS
from bayesdust.catalogs.tables import fault
from bayesdust.catalogs.validation import LARGEST_VELOCITY

Numbers = Float[np.ndarray, " n"]

ERRORS = tuple(f"{name}_error" for name in OBSERVED)
PAIRS = [(i, j) for i in range(5) for j in range(i + 1, 5)]  # radial velocities are independent
CORRELATIONS = tuple(f"{OBSERVED[i]}_{OBSERVED[j]}_corr" for i, j in PAIRS)
PART = 100_000
PHOTOMETRY = ("phot_g_mean_mag", "grvs_mag", "bp_rp", "phot_bp_mean_mag", "phot_rp_mean_mag")
ZERO_POINT = ("nu_eff_used_in_astrometry", "pseudocolour", "ecl_lat", "astrometric_params_solved")

_UNITS = (
    dict(zip(OBSERVED, OBSERVED_UNITS, strict=True))
    | dict(zip(ERRORS, ("mas", "mas", "mas", "mas/yr", "mas/yr", "km/s"), strict=True))
    | dict.fromkeys(CORRELATIONS, "")
    | dict.fromkeys(PHOTOMETRY, "mag")
    | dict(zip(ZERO_POINT, ("1/um", "1/um", "deg", ""), strict=True))
)
_KINDS = {
    "deg": "an angle",
    "mas": "an angle",
    "mas/yr": "a proper motion",
    "km/s": "a velocity",
    "mag": "a magnitude",
    "1/um": "a wavenumber",
    "": "a plain number",
}
# The names of VizieR's copy, I/355/gaiadr3, beside the archive's own.
_ALIASES: dict[str, tuple[str, ...]] = dict.fromkeys(_UNITS, ()) | {
    "ra": ("ra_icrs",),
    "dec": ("de_icrs",),
    "parallax": ("plx",),
    "radial_velocity": ("rv",),
    "ra_error": ("e_ra_icrs",),
    "dec_error": ("e_de_icrs",),
    "parallax_error": ("e_plx",),
    "pmra_error": ("e_pmra",),
    "pmdec_error": ("e_pmde",),
    "pmdec": ("pmde",),
    "radial_velocity_error": ("e_rv",),
    "phot_g_mean_mag": ("gmag",),
    "phot_bp_mean_mag": ("bpmag",),
    "phot_rp_mean_mag": ("rpmag",),
    "bp_rp": ("bp-rp",),
    "grvs_mag": ("grvsmag",),
    "nu_eff_used_in_astrometry": ("nueff",),
    "pseudocolour": ("pscol",),
    "ecl_lat": ("elat",),
    "astrometric_params_solved": ("solved",),
}
GAIA = Vocabulary(
    _ALIASES,
    {name: unit for name, unit in _UNITS.items() if unit},
    {name: (_KINDS[unit], (unit,)) for name, unit in _UNITS.items()},
)


@dataclass(frozen=True, eq=False)
class Observed:
    """What was observed of n stars, in the order and units of `frames.OBSERVED`.

    Attributes
    ----------
    values : (n, 6), parallaxes corrected for their zero point
    errors : (n, 6) standard errors in mas (of ra cos dec, dec and parallax), mas/yr and km/s, or None
    correlations : (n, 10) between the first five, in the order of `CORRELATIONS`, or None for zero
    """

    values: Float[np.ndarray, "n 6"]
    errors: Float[np.ndarray, "n 6"] | None = None
    correlations: Float[np.ndarray, "n 10"] | None = None

    def __post_init__(self) -> None:
        for array in (self.values, self.errors, self.correlations):
            if array is not None:
                array.flags.writeable = False

    def __getitem__(self, which: np.ndarray | slice) -> "Observed":
        """Some of the stars, by a mask (n,) or a slice."""
        parts = (self.values, self.errors, self.correlations)
        values, errors, correlations = (None if a is None else a[which] for a in parts)
        assert values is not None
        return Observed(values, errors, correlations)

    def in_parts(self) -> Iterator["Observed"]:
        """The stars in parts of at most `PART`, in order: matrices of millions need much memory."""
        for start in range(0, len(self.values), PART):
            yield self[start : start + PART]

    @property
    def correlation(self) -> Float[np.ndarray, "n 6 6"]:
        """The full correlation matrices, (n, 6, 6)."""
        matrix = np.tile(np.eye(6), (len(self.values), 1, 1))
        if self.correlations is not None:
            for (i, j), values in zip(PAIRS, self.correlations.T, strict=True):
                matrix[:, i, j] = matrix[:, j, i] = values
        return matrix

    @property
    def covariance(self) -> Float[np.ndarray, "n 6 6"] | None:
        """Covariances of (ra cos dec [mas], dec [mas], parallax, pmra, pmdec, rv), or None."""
        if self.errors is None:
            return None
        return self.correlation * self.errors[:, :, None] * self.errors[:, None, :]


def read_columns(reader: ColumnReader) -> tuple[dict[str, Numbers], list[str]]:
    """Every column of `GAIA` that the table has, by our name, NaN in gaps, and notes for the user.

    BP - RP is the difference of the magnitudes where it has no column of its own. Raises
    BayesdustError where a column of the six phase-space coordinates is missing, or a value is
    infinite or impossible.
    """
    found = {name for name in _UNITS if reader.find(name) is not None}
    if absent := [name for name in OBSERVED if name not in found]:
        problem = (
            f"has no column for {' and '.join(absent)}, needed for positions and velocities; "
            f"its columns are {reader.listing()}"
        )
        raise fault(
            reader.source.where,
            problem,
            f"name the right one, as columns={{{absent[0]!r}: 'NAME'}}",
        )
    columns = {name: reader.read(name, gaps=True)[0] for name in _UNITS if name in found}
    for name, values in columns.items():
        _check_range(reader, name, values)
    notes = []
    if "bp_rp" not in columns and {"phot_bp_mean_mag", "phot_rp_mean_mag"} <= found:
        columns["bp_rp"] = columns["phot_bp_mean_mag"] - columns["phot_rp_mean_mag"]
        notes.append(f"{reader.source.where}: bp_rp is phot_bp_mean_mag - phot_rp_mean_mag.")
    return columns, notes


def _limits(name: str) -> tuple[float, float]:
    """What a star's value lies between, ends included."""
    if name == "ra":
        return 0.0, 360.0
    if name in ("dec", "ecl_lat"):
        return -90.0, 90.0
    if name in CORRELATIONS:
        return -1.0, 1.0
    if name == "radial_velocity":
        return -LARGEST_VELOCITY, LARGEST_VELOCITY
    if name in PHOTOMETRY:
        return -50.0, 50.0
    return (0.0 if name in ERRORS else -np.inf), np.inf


def _check_range(reader: ColumnReader, name: str, values: Numbers) -> None:
    low, high = _limits(name)
    wrong = (values < low) | (values > high)  # False for NaN
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        what = f"{values[row - 1]:.6g}{f' {_UNITS[name]}' if _UNITS[name] else ''}"
        bounds = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} upwards"
        problem, advice = (
            f"{what} is outside {bounds}",
            "correct it, remove the row or mask the value",
        )
        raise fault(reader.source.where, problem, advice, row, reader.find(name) or name)


def observed(
    columns: dict[str, Numbers], where: str, rows: np.ndarray
) -> tuple[Observed, list[str]]:
    """The stars' six observed quantities with their errors, and sentences on what is missing.

    `rows` are their numbers in the table, for messages. Raises BayesdustError for correlations that
    no six quantities can have.
    """
    values = np.stack([columns[name] for name in OBSERVED], axis=1)
    if absent := [name for name in ERRORS if name not in columns]:
        note = f"{where}: has no column {' and '.join(absent)}, so no covariances are propagated."
        return Observed(values), [note]
    errors = np.stack([columns[name] for name in ERRORS], axis=1)
    if absent := [name for name in CORRELATIONS if name not in columns]:
        names = absent[0] if len(absent) == 1 else f"{absent[0]} and {len(absent) - 1} more"
        note = f"{where}: has no column {names}, so every correlation is taken as zero."
        return Observed(values, errors), [note]
    stars = Observed(values, errors, np.stack([columns[name] for name in CORRELATIONS], axis=1))
    _check_correlations(stars, where, rows)
    return stars, []


def _check_correlations(stars: Observed, where: str, rows: np.ndarray) -> None:
    lowest = [np.linalg.eigvalsh(part.correlation)[:, 0] for part in stars.in_parts()]
    wrong = np.concatenate([np.zeros(0), *lowest]) < -1e-5  # float32 leaves 1e-7
    if wrong.any():
        row = int(rows[np.argmax(wrong)])
        problem = "the correlations are not those of any measurement (not positive definite)"
        raise fault(where, problem, "correct them or remove the row", row)


def complete(columns: dict[str, Numbers]) -> Bool[np.ndarray, " n"]:
    """Stars that have every number of position, parallax and proper motion, (n,).

    Where the table has errors and correlations of these, they have to be there as well.
    """
    names = (*OBSERVED[:5], *ERRORS[:5], *CORRELATIONS)
    return np.all([np.isfinite(columns[name]) for name in names if name in columns], axis=0)


def has_velocity(columns: dict[str, Numbers]) -> Bool[np.ndarray, " n"]:
    """Stars with a radial velocity and, where the table has errors, its error, (n,)."""
    names = ("radial_velocity", "radial_velocity_error")
    return np.all([np.isfinite(columns[name]) for name in names if name in columns], axis=0)
