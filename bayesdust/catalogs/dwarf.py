"""Stars of a dwarf galaxy: read from any table, checked, and laid on the tangent plane."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from jaxtyping import Float

from bayesdust.catalogs.columns import ColumnReader
from bayesdust.catalogs.facts import Galaxy
from bayesdust.catalogs.galaxies import galaxy as find_galaxy
from bayesdust.catalogs.placement import check_scale, check_sky, sky_median
from bayesdust.catalogs.proper_motions import ProperMotions, read_proper_motions
from bayesdust.catalogs.tables import digest, fault, read_table, rounded_digest
from bayesdust.catalogs.validation import (
    check_errors,
    check_members,
    check_repeats,
    check_velocities,
)
from bayesdust.errors import BayesdustError
from bayesdust.units import DEG

Numbers = Float[np.ndarray, " n"]
Photometry = tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"] | None]

# Largest median radius in half-light radii. Members, and offsets whose unit is a guess, are held to
# a tight one; without probabilities the field around a faint galaxy may be wide, and wider still
# for photometry.
MOST_MEMBERS, MOST_OFFSETS, MOST_SKY, MOST_PHOTOMETRY = 8.0, 20.0, 40.0, 100.0


@dataclass(frozen=True, eq=False)
class Stars:
    """A checked sample of stars with line-of-sight velocities, around the centre of a galaxy.

    Attributes
    ----------
    xi, eta : (n,) rad, offsets on the tangent plane from the centre, to the east and north
    v_los, v_los_err : (n,) km/s; the errors are all positive, or all zero without noise
    p_member : (n,) probability of membership, or None
    photometry : (xi, eta, p_member or None) of a second sample without velocities, or None
    galaxy : the galaxy; its centre is the stars' median position if it came without one
    source : file name, or "<table>"
    sha256 : of the bytes of the file, or of the numbers read where a table was given
    units : our column name -> unit, with "(assumed)" where nobody stated it
    warnings : sentences for the user
    photometry_sha256 : as sha256, of the second sample
    proper_motions : of the stars that have one, or None where the table has no such columns
    """

    xi: Numbers
    eta: Numbers
    v_los: Numbers
    v_los_err: Numbers
    p_member: Numbers | None
    photometry: Photometry | None
    galaxy: Galaxy
    source: str
    sha256: str
    units: dict[str, str]
    warnings: tuple[str, ...] = ()
    photometry_sha256: str | None = None
    proper_motions: ProperMotions | None = None

    def __post_init__(self) -> None:
        for array in (self.xi, self.eta, self.v_los, self.v_los_err, self.p_member):
            if array is not None:
                array.flags.writeable = False

    @property
    def n(self) -> int:
        """Number of stars."""
        return len(self.xi)

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the numbers that were read: of one file other columns may have been."""
        motions = self.proper_motions
        return {
            "stars": rounded_digest(self.xi, self.eta, self.v_los, self.v_los_err, self.p_member),
            "photometry": rounded_digest(*(self.photometry or ())),
            "proper motions": rounded_digest(
                *(() if motions is None else (motions.value, motions.covariance))
            ),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What of these stars decides a fit, for JSON."""
        return {
            "file": self.sha256,
            "photometric file": self.photometry_sha256,
            "numbers": self.digests,
            "galaxy": self.galaxy.to_dict(),
        }

    @property
    def theta(self) -> Float[np.ndarray, " n"]:
        """Circularised angular radius [rad], (n,); see `circularised_radius`."""
        return circularised_radius(self.xi, self.eta, self.galaxy)


def read_stars(
    path_or_table: str | Path | Table,
    galaxy: str | Path | Galaxy,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    photometry: str | Path | Table | None = None,
    photometry_columns: Mapping[str, str] | None = None,
    photometry_units: Mapping[str, str] | None = None,
) -> Stars:
    """Read and check stars with `ra, dec` or `x, y`, `v_los`, `v_los_err` and perhaps `p_member`.

    Proper motions are read where the table has them (`read_proper_motions`), and used where a model is
    asked to.

    Parameters
    ----------
    path_or_table : a file in any format of `read_table`, or an astropy table
    galaxy : a Galaxy, or what `galaxies.galaxy` takes: NAME, FILE.toml, FILE.csv:NAME
    columns : our name -> the table's column, as {"v_los": "HRV"}; common names are found by
        themselves, whatever their case
    units : our name -> unit, overriding the table's; columns without any are taken to be in deg
        (ra, dec), kpc (x, y; offsets to the east and north of the centre, divided by the galaxy's
        distance), km/s and mas/yr
    photometry : a second table, positions and perhaps `p_member`
    photometry_columns, photometry_units : of that table; where they say nothing, `columns` holds for
        it if it has columns of those names (not the col1, col2, ... of a file without a header),
        `units` where they state none themselves

    Raises
    ------
    BayesdustError
        One sentence naming file, row (from 1, the header not counted) and column, for input that
        is missing, damaged, not finite, of the wrong unit, around another galaxy, repeated, or
        fewer than ten members.
    """
    where_to = find_galaxy(galaxy)
    reader = ColumnReader(read_table(path_or_table), dict(columns or {}), dict(units or {}))
    pair = _check_columns(reader, ("v_los", "v_los_err"))
    v_los, v_los_err = reader.read("v_los")[0], reader.read("v_los_err")[0]
    p_member, weights = _membership(reader, len(v_los))
    check_errors(reader.source.where, _column(reader, "v_los_err"), v_los_err, weights)
    xi, eta, where_to, notes = _positions(reader, pair, p_member, where_to, photometric=False)
    where = reader.source.where
    notes += check_velocities(where, _column(reader, "v_los"), v_los, v_los_err, p_member, where_to)
    notes += check_repeats(where, xi, eta, (v_los, v_los_err))
    second, second_digest, second_units, second_notes = (
        (None, None, {}, [])
        if photometry is None
        else _read_photometry(
            photometry,
            where_to,
            reader,
            dict(photometry_columns or {}),
            dict(photometry_units or {}),
        )
    )
    return Stars(
        xi=xi,
        eta=eta,
        v_los=v_los,
        v_los_err=v_los_err,
        p_member=p_member,
        photometry=second,
        galaxy=where_to,
        source=where,
        sha256=reader.source.sha256 or digest(xi, eta, v_los, v_los_err, p_member),
        units=reader.used | second_units,
        warnings=(*reader.source.notes, *notes, *second_notes),
        photometry_sha256=second_digest,
        proper_motions=read_proper_motions(reader, len(v_los)),
    )


def project(
    ra: Numbers, dec: Numbers, centre_ra: float, centre_dec: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Gnomonic offsets xi (east) and eta (north) [rad] of directions in degrees from a centre.

    With da = ra - ra0 (the TAN projection of Calabretta & Greisen 2002, A&A 395, 1077, sec. 5.1.3)

        xi = cos(dec) sin(da) / c,  eta = (cos(dec0) sin(dec) - sin(dec0) cos(dec) cos(da)) / c,
        c = sin(dec0) sin(dec) + cos(dec0) cos(dec) cos(da),

    the numerator of eta rewritten as sin(dec - dec0) + 2 sin(dec0) cos(dec) sin^2(da / 2), which
    loses no digits near the centre. Only for stars within 90 deg of the centre.
    """
    da, d, d0 = (ra - centre_ra) * DEG, dec * DEG, centre_dec * DEG
    c = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(da)
    xi = np.cos(d) * np.sin(da) / c
    eta = (np.sin(d - d0) + 2.0 * np.sin(d0) * np.cos(d) * np.sin(0.5 * da) ** 2) / c
    return xi, eta


def circularised_radius(xi: Numbers, eta: Numbers, galaxy: Galaxy) -> Float[np.ndarray, " n"]:
    """Radius of the circle with the area of the ellipse through each star, in the unit of xi, eta.

    With x' along the major axis, y' along the minor and q = 1 - ellipticity,
    theta^2 = q x'^2 + y'^2 / q: the half-light ellipse maps to sqrt(a b). Plain radius where the
    ellipticity or the position angle is not known.
    """
    if not galaxy.ellipticity or galaxy.position_angle is None:
        return np.hypot(xi, eta)
    angle, q = galaxy.position_angle * DEG, 1.0 - galaxy.ellipticity
    along = xi * np.sin(angle) + eta * np.cos(angle)
    across = eta * np.sin(angle) - xi * np.cos(angle)
    return np.sqrt(q * along**2 + across**2 / q)


# Steps of reading


def _column(reader: ColumnReader, name: str) -> str:
    return reader.find(name) or name


def _check_columns(reader: ColumnReader, needed: tuple[str, ...]) -> tuple[str, str]:
    """All columns are there; returns the pair that holds positions."""
    pairs = [("ra", "dec"), ("x", "y")]
    if {"x", "y"} & set(reader.columns):
        pairs.reverse()  # what the user names goes before what is found
    pair = next((p for p in pairs if all(reader.find(name) for name in p)), None)
    missing = [] if pair else ["positions (ra and dec, or x and y)"]
    missing += [name for name in needed if reader.find(name) is None]
    if missing or pair is None:
        problem = f"has no column for {' and '.join(missing)}; its columns are {reader.listing()}"
        wanted = next((name for name in needed if reader.find(name) is None), "ra")
        advice = f"name the right ones, as columns={{{wanted!r}: 'NAME'}}"
        raise fault(reader.source.where, problem, advice)
    return pair


def _membership(reader: ColumnReader, n: int) -> tuple[Numbers | None, Numbers]:
    """Probabilities, or None, and the weights they stand for."""
    p_member = reader.read("p_member")[0] if reader.find("p_member") else None
    check_members(reader.source.where, _column(reader, "p_member"), n, p_member)
    return p_member, np.ones(n) if p_member is None else p_member


def _positions(
    reader: ColumnReader,
    pair: tuple[str, str],
    p_member: Numbers | None,
    where_to: Galaxy,
    photometric: bool,
) -> tuple[Numbers, Numbers, Galaxy, list[str]]:
    """Tangent-plane offsets, the galaxy with a centre if one could be had, and warnings."""
    where = reader.source.where
    columns = (_column(reader, pair[0]), _column(reader, pair[1]))
    (a, unit_a), (b, unit_b) = reader.read(pair[0]), reader.read(pair[1])
    notes: list[str] = []
    unit, most = "", MOST_SKY
    if pair == ("ra", "dec"):
        weights = np.ones_like(a) if p_member is None else p_member
        check_sky(where, columns, a, b, weights, where_to)
        if where_to.ra is None or where_to.dec is None:
            where_to, note = _with_centre(where, where_to, *sky_median(a, b, weights))
            notes.append(note)
        xi, eta = project(a, b, float(where_to.ra or 0.0), float(where_to.dec or 0.0))
    else:
        if unit_a != unit_b:
            problem = f"one is in {reader.used['x']}, the other in {reader.used['y']}"
            angle = next(reader.used[n] for n, u in (("x", unit_a), ("y", unit_b)) if u == "rad")
            angle = angle.split()[0]
            advice = f"state the unit of both, as units={{'x': {angle!r}, 'y': {angle!r}}}"
            raise fault(where, problem, advice, 0, " and ".join(columns))
        xi = a / where_to.distance if unit_a == "kpc" else a
        eta = b / where_to.distance if unit_b == "kpc" else b
        unit = reader.used["x"]
        most = MOST_MEMBERS if unit.endswith("(assumed)") else MOST_OFFSETS
    if p_member is not None:
        most = MOST_MEMBERS
    elif photometric:
        most = MOST_PHOTOMETRY
    notes += check_scale(where, columns, np.hypot(xi, eta), p_member, where_to, unit, most)
    if where_to.ellipticity and where_to.position_angle is None:
        notes.append(f"{where_to.name}: no position angle is known, so radii are not circularised.")
    return xi, eta, where_to, notes


def _with_centre(where: str, where_to: Galaxy, ra: float, dec: float) -> tuple[Galaxy, str]:
    centred = dataclasses.replace(
        where_to,
        ra=ra,
        dec=dec,
        references=where_to.references | {"centre": "median position of the stars"},
    )
    note = (
        f"{where}: no centre is given for {where_to.name}, so the stars' median position is used "
        f"(ra {ra:.5f}, dec {dec:.5f} deg)."
    )
    return centred, note


@contextlib.contextmanager
def _advice_on_photometry() -> Iterator[None]:
    """What an error within advises of columns and units is of the photometric table's."""
    try:
        yield
    except BayesdustError as error:
        advice = re.sub(r"\b(column|unit)s(=\{| names )", r"photometry_\1s\2", str(error))
        raise BayesdustError(advice) from error


@_advice_on_photometry()
def _read_photometry(
    source: str | Path | Table,
    where_to: Galaxy,
    first: ColumnReader,
    columns: dict[str, str],
    units: dict[str, str],
) -> tuple[Photometry, str, dict[str, str], list[str]]:
    """A sample without velocities around the same centre: offsets, digest, units, warnings."""
    table = read_table(source)
    named = {c.casefold() for c in table.table.colnames if not re.fullmatch(r"col\d+", c)}
    columns = {k: v for k, v in first.columns.items() if v.casefold() in named} | columns
    reader = ColumnReader(table, columns, {})
    units = {k: v for k, v in first.units.items() if _is_bare(reader, k)} | units
    reader = ColumnReader(table, columns, units)
    pair = _check_columns(reader, ())
    p_member, _ = _membership(reader, len(table.table))
    if pair == ("ra", "dec") and where_to.ra is None:
        problem = f"positions on the sky need the centre of {where_to.name}"
        raise fault(table.where, problem, "give ra and dec of the galaxy")
    xi, eta, _, notes = _positions(reader, pair, p_member, where_to, photometric=True)
    notes = [n for n in notes if n.startswith(table.where)]
    notes += check_repeats(table.where, xi, eta, ())
    units = {f"photometry {name}": unit for name, unit in reader.used.items()}
    sha256 = table.sha256 or digest(xi, eta, p_member)
    return (xi, eta, p_member), sha256, units, [*table.notes, *notes]


def _is_bare(reader: ColumnReader, name: str) -> bool:
    column = reader.find(name)
    return column is not None and getattr(reader.source.table[column], "unit", None) is None
