"""Stars of the Milky Way from any table: Gaia's columns, or Galactocentric x, y, z, vx, vy, vz.

The second kind is what mocks are: also NumPy archives (.npz), from which nothing is run or unpickled.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from astropy.table import Table
from jaxtyping import Float

from bayesdust.catalogs import cuts as cut
from bayesdust.catalogs.astrometry import GAIA
from bayesdust.catalogs.columns import ColumnReader, Vocabulary, numbers
from bayesdust.catalogs.cuts import Cut
from bayesdust.catalogs.frames import OBSERVED, SolarFrame
from bayesdust.catalogs.gaia import LINDEGREN, ZeroPoint, read_gaia
from bayesdust.catalogs.milky_way import (
    FEWEST_STARS,
    MilkyWayStars,
    check_fewest,
    check_weights,
    read_weights,
)
from bayesdust.catalogs.tables import (
    SourceTable,
    digest,
    fault,
    read_bytes,
    read_table,
)
from bayesdust.catalogs.validation import LARGEST_VELOCITY
from bayesdust.errors import BayesdustError

PLACE, MOTION = ("x", "y", "z"), ("vx", "vy", "vz")
MAGNITUDES = ("G", "phot_g_mean_mag")  # carried along where a table has them
CARTESIAN = Vocabulary(
    dict.fromkeys((*PLACE, *MOTION, *MAGNITUDES), ()),
    dict.fromkeys(PLACE, "kpc") | dict.fromkeys(MOTION, "km/s") | dict.fromkeys(MAGNITUDES, "mag"),
    dict.fromkeys(PLACE, ("a length", ("kpc",)))
    | dict.fromkeys(MOTION, ("a velocity", ("km/s",)))
    | dict.fromkeys(MAGNITUDES, ("a magnitude", ("mag",))),
)
ROUNDING = 1e-5  # kpc: single precision and the digits of a published solar position


def read_milky_way(
    path_or_table: str | Path | Table,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    *,
    sun: SolarFrame | None = None,
    weights: str | None = None,
    radius: float | None = None,
    centre: Sequence[float] | None = None,
    cuts: Sequence[Cut] | None = None,
    zero_point: ZeroPoint | None = None,
    fewest: int = FEWEST_STARS,
) -> MilkyWayStars:
    """Read Milky Way stars; the columns decide whether by `read_gaia` or as Cartesian coordinates.

    Parameters
    ----------
    path_or_table : a file in any format of `read_table`, an .npz file, or an astropy table
    columns, units : our name -> the table's name, or unit; bare columns are in Gaia's units, or in
        kpc (x, y, z) and km/s (vx, vy, vz)
    sun : the Sun's place and motion, by default `SolarFrame()`
    weights : a column of weights, or "1/COLUMN", as in "1/epsilon"
    radius : kpc, of the ball that holds the stars. Gaia's are cut to it (default 4); Cartesian ones
        have to lie in it (by default, no ball is declared)
    centre : (x, y, z) kpc of that ball, by default the Sun; only for Cartesian coordinates
    cuts, zero_point : as in `read_gaia`, and only for Gaia's columns; None is its default
    fewest : the smallest number of stars allowed

    Raises BayesdustError, one sentence with file, row and column, for a table that cannot be read,
    columns of both kinds or of neither, gaps and numbers that are not finite in Cartesian columns, stars
    outside the ball, fewer than `fewest` stars, or an option that the columns have no use for.
    """
    sun = SolarFrame() if sun is None else sun
    table = _read(path_or_table)
    if radius is not None:
        cut.check_positive(radius=radius)
    if _is_cartesian(table, columns or {}):
        if cuts is not None or zero_point is not None:
            problem = "cuts and zero_point are for Gaia's columns, and these are Cartesian"
            raise fault(table.where, problem, "leave them out")
        reader = ColumnReader(table, dict(columns or {}), dict(units or {}), words=CARTESIAN)
        return _read_cartesian(reader, sun, weights, radius, centre, fewest)
    if centre is not None:
        raise fault(
            table.where, "the ball of Gaia's stars is centred on the Sun", "leave out centre"
        )
    if radius is not None and cuts is not None:
        problem = "radius and cuts are both given"
        raise fault(table.where, problem, "put the radius into the cuts, as cuts=giants(radius)")
    return read_gaia(
        table,
        columns,
        units,
        zero_point=LINDEGREN if zero_point is None else zero_point,
        cuts=cuts if radius is None else cut.giants(radius),
        sun=sun,
        weights=weights,
        fewest=fewest,
    )


def read_places(
    path_or_table: str | Path | Table,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> Float[np.ndarray, "m 3"]:
    """Places x, y, z (m, 3) [kpc, Galactocentric] from a table like those of stars.

    Raises BayesdustError for a table that cannot be read, has no rows, lacks a column or has a gap.
    """
    table = _read(path_or_table)
    reader = ColumnReader(table, dict(columns or {}), dict(units or {}), words=CARTESIAN)
    lacking = [name for name in PLACE if reader.find(name) is None]
    if lacking:
        problem = f"has no column {' and '.join(lacking)}; its columns are {reader.listing()}"
        raise fault(table.where, problem, "places are given as x, y, z")
    return np.stack([reader.read(name)[0] for name in PLACE], axis=1)


def _read(source: str | Path | Table) -> SourceTable:
    if not isinstance(source, Table):
        content = read_bytes(str(source))
        if content.startswith(b"PK"):
            return _read_npz(content, str(source))
    return read_table(source)


def _read_npz(content: bytes, where: str) -> SourceTable:
    """The one-dimensional numeric arrays of a NumPy archive that are as long as its array x."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy have their own for damaged archives
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        problem = f"is not a NumPy archive of plain numbers ({reason})"
        raise fault(where, problem, "write it again with numpy.savez") from error
    if "x" not in arrays or arrays["x"].ndim != 1:
        names = ", ".join(list(arrays)[:20])
        problem = f"has no one-dimensional array x; it has {names}"
        raise fault(where, problem, "name the arrays x, y, z, vx, vy, vz")
    n = len(arrays["x"])
    for name in (*PLACE, *MOTION):
        if name in arrays and arrays[name].shape != (n,):
            problem = f"has the shape {arrays[name].shape} where x has {(n,)}"
            raise fault(where, problem, "give one number a star", 0, name)
    same = {k: a for k, a in arrays.items() if a.shape == (n,) and a.dtype.kind in "fiub"}
    if n == 0:
        raise fault(where, "the table has no rows", "give a table with one row a star")
    return SourceTable(Table(same), where, hashlib.sha256(content).hexdigest())


def _is_cartesian(table: SourceTable, columns: Mapping[str, str]) -> bool:
    """Whether the table has x, y, z, vx, vy, vz; BayesdustError for both kinds, or neither."""
    kinds = {}
    for name, words, needed in (
        ("Cartesian", CARTESIAN, (*PLACE, *MOTION)),
        ("Gaia", GAIA, OBSERVED),
    ):
        known = {k: v for k, v in columns.items() if k in words.aliases}
        reader = ColumnReader(table, known, {}, words=words)
        kinds[name] = [n for n in needed if reader.find(n) is None]
    if not kinds["Cartesian"] and not kinds["Gaia"]:
        problem = "has Gaia's columns and Cartesian ones"
        raise fault(table.where, problem, "remove one of the two, or use read_gaia")
    if kinds["Cartesian"] and kinds["Gaia"]:
        lacking = " and ".join(kinds["Cartesian"])
        problem = (
            f"has neither x, y, z, vx, vy, vz (no {lacking}) nor "
            f"{', '.join(OBSERVED)} (no {' and '.join(kinds['Gaia'])}); its columns are "
            f"{reader.listing()}"
        )
        raise fault(table.where, problem, "name the right ones, as columns={'x': 'NAME'}")
    return not kinds["Cartesian"]


def _read_cartesian(
    reader: ColumnReader,
    sun: SolarFrame,
    weights: str | None,
    radius: float | None,
    centre: Sequence[float] | None,
    fewest: int,
) -> MilkyWayStars:
    where = reader.source.where
    x = np.stack([reader.read(name)[0] for name in PLACE], axis=1)
    v = np.stack([reader.read(name)[0] for name in MOTION], axis=1)
    check_fewest(len(x), fewest, where)
    middle = np.asarray(sun.position if centre is None else centre, dtype=np.float64)
    if middle.shape != (3,) or not np.isfinite(middle).all():
        raise BayesdustError(f"centre is {centre}; give three numbers in kpc.")
    _check_ball(x, middle, radius, where)
    _check_speed(reader, v)
    rows = np.arange(1, len(x) + 1)
    weight = None if weights is None else read_weights(reader.source, weights)
    if weight is not None and weights is not None:
        check_weights(weight, where, weights, rows)
    return MilkyWayStars(
        x=x,
        v=v,
        sun=sun,
        source=where,
        sha256=reader.source.sha256 or digest(x, v, weight),
        photometry=_magnitudes(reader),
        weights=weight,
        weights_from=weights or "none",
        centre=(float(middle[0]), float(middle[1]), float(middle[2])),
        radius=radius,
        rows=rows,
        units=dict(reader.used),
        warnings=tuple(reader.source.notes),
    )


def _magnitudes(reader: ColumnReader) -> dict[str, Float[np.ndarray, " n"]]:
    """Apparent magnitudes by name; a gap is NaN. Raises BayesdustError for a cell that is no number."""
    mapped = [name for name in MAGNITUDES if name in reader.columns]
    if mapped:
        return {name: reader.read(name, gaps=True)[0] for name in mapped}
    source = reader.source  # names to the letter, for a column g is SDSS's
    return {name: _numbers(source, name) for name in MAGNITUDES if name in source.table.colnames}


def _numbers(source: SourceTable, name: str) -> Float[np.ndarray, " n"]:
    column = source.table[name]
    try:
        return np.array(np.ma.asarray(column, dtype=np.float64).filled(np.nan))
    except (TypeError, ValueError):  # text somewhere: the first such cell is named
        return numbers(column, source.where, name, gaps=True)


def _check_ball(
    x: Float[np.ndarray, "n 3"], middle: Float[np.ndarray, " 3"], radius: float | None, where: str
) -> None:
    if radius is None:
        return
    away = np.linalg.norm(x - middle, axis=1)
    if (wrong := away > radius + ROUNDING).any():
        row = int(np.argmax(wrong))
        n = int(wrong.sum())
        more = f" (so are {n - 1:,} more)" if n > 1 else ""
        problem = (
            f"the star is {away[row]:.6g} kpc from the centre of the volume, "
            f"outside its radius of {radius:g} kpc{more}"
        )
        raise fault(where, problem, "remove it or declare a larger radius", row + 1, "x, y and z")


def _check_speed(reader: ColumnReader, v: Float[np.ndarray, "n 3"]) -> None:
    if (wrong := abs(v) > LARGEST_VELOCITY).any():
        row, axis = (int(i[0]) for i in np.nonzero(wrong))
        problem = f"{v[row, axis]:.6g} km/s is no star's velocity"
        advice = "state the unit if it is not km/s, or remove the row"
        column = reader.find(MOTION[axis]) or MOTION[axis]
        raise fault(reader.source.where, problem, advice, row + 1, column)
