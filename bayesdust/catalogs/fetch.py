"""Published catalogues of velocities, from VizieR to the columns that `read_stars` knows.

The layout of a catalogue at CDS can change, so every quantity has a list of columns it may be in,
and a catalogue without any of them is refused with the columns that it has.
"""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy import units as u
from astropy.table import Column, Table

from bayesdust.catalogs.columns import sexagesimal
from bayesdust.catalogs.facts import Galaxy
from bayesdust.catalogs.galaxies import galaxy
from bayesdust.catalogs.placement import separation
from bayesdust.errors import BayesdustError
from bayesdust.units import DEG

RA = ("RAJ2000", "_RAJ2000", "RA_ICRS", "RAdeg")
DEC = ("DEJ2000", "_DEJ2000", "DE_ICRS", "DEdeg")
FIELD = 5.0 * DEG  # stars farther from the centre belong to another galaxy of the catalogue


class Client(Protocol):
    """What is used of astroquery's Vizier, so that a test can stand in for it."""

    def get_catalogs(self, catalog: str) -> Any: ...


@dataclass(frozen=True)
class Catalogue:
    """Where a catalogue is and in which columns; of several candidates the first that is there.

    `velocities` are pairs (velocity, error), the star's mean first; `keep` is a column and the
    value it must have, so that published means of the same observations are not counted twice.
    """

    vizier: str
    citation: str
    velocities: tuple[tuple[str, str], ...]
    member: tuple[str, ...] = ()
    star: tuple[str, ...] = ()
    keep: tuple[str, str] | None = None


PLAIN_VELOCITIES = tuple((v, f"e_{v}") for v in ("HRV", "RVel", "RV", "HV", "Vlos", "vlos"))
WALKER_2009 = Catalogue(
    "J/AJ/137/3100",
    "Walker, Mateo & Olszewski 2009, AJ 137, 3100",
    velocities=(("<HV>", "e_<HV>"), ("__HV_", "e__HV_"), ("HV", "e_HV"), *PLAIN_VELOCITIES),
    member=("Mmb", "Mm"),
    star=("Target",),
)
CATALOGUES = {
    "carina_1": WALKER_2009,
    "fornax_1": WALKER_2009,
    "sculptor_1": WALKER_2009,
    "sextans_1": WALKER_2009,
    "draco_1": Catalogue(
        "J/MNRAS/448/2717",
        "Walker, Olszewski & Mateo 2015, MNRAS 448, 2717",
        velocities=PLAIN_VELOCITIES,
        member=("Mmb", "Mm", "Pmem"),
        star=("Target", "ID", "Name", "Star"),
    ),
    "leo_2": Catalogue(
        "J/AJ/153/254",
        "Spencer et al. 2017, AJ 153, 254",
        velocities=PLAIN_VELOCITIES,
        member=("Mm", "Mmb"),
        keep=("Comb", "S"),
    ),
}


def fetch(
    name: str, out: str | Path, vizier: Client | None = None, overwrite: bool = False
) -> Path:
    """Write the published stars of a galaxy to `out` (ECSV) and return its path.

    Columns ra, dec [deg], v_los, v_los_err [km/s] and, where published, p_member; repeat
    measurements of a star are combined by their inverse variances. The citation and the columns
    used are in the metadata. `vizier` stands in for astroquery's client. Raises BayesdustError for
    a galaxy without a known catalogue, no connection, an unexpected layout, or an `out` that
    exists and is not to be overwritten; the file appears whole or not at all.
    """
    one = galaxy(name)
    catalogue = CATALOGUES.get(one.key or "")
    if catalogue is None:
        known = ", ".join(galaxy(key).name for key in CATALOGUES)
        raise BayesdustError(f"no catalogue of {one.name} is known; those of {known} are.")
    path = Path(out).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise BayesdustError(f"{out}: is not a file in a directory that exists; change the path.")
    if path.exists() and not overwrite:
        raise BayesdustError(f"{out}: exists already; remove it or choose another name.")
    _write(_assemble(_download(catalogue, vizier), catalogue, one), path)
    return path


def _download(catalogue: Catalogue, vizier: Client | None) -> list[Table]:
    try:
        if vizier is None:
            from astroquery.vizier import Vizier

            vizier = Vizier(columns=["**"], row_limit=-1, timeout=120)
        tables = list(vizier.get_catalogs(catalogue.vizier))
    except Exception as error:  # requests, urllib3, astroquery and expat each have their own
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")
        raise BayesdustError(
            f"VizieR did not deliver {catalogue.vizier} ({reason}); check the connection, or "
            "download the table in a browser and map its columns."
        ) from error
    if not tables:
        raise BayesdustError(f"VizieR has no table in {catalogue.vizier}; look for it at CDS.")
    return tables


def _write(table: Table, path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        table.write(partial, format="ascii.ecsv", overwrite=True)
        os.replace(partial, path)
    except OSError as error:
        raise BayesdustError(f"{path}: cannot be written ({error.strerror}).") from error
    finally:
        partial.unlink(missing_ok=True)


# From VizieR's tables to ours


def _assemble(tables: Sequence[Table], catalogue: Catalogue, one: Galaxy) -> Table:
    main = _main_table(tables, catalogue)
    if catalogue.keep and catalogue.keep[0] in main.colnames:
        column, value = catalogue.keep
        main = main[[str(cell).strip() == value for cell in main[column]]]
    names = {"ra": _first(main, RA), "dec": _first(main, DEC), "star": _first(main, catalogue.star)}
    names["p_member"] = _first(main, catalogue.member)
    ra, dec = (_angles(main[names[k]], k, catalogue) for k in ("ra", "dec"))
    v, e = _velocities(main, tables, catalogue, names["star"])
    p = _members(main[names["p_member"]]) if names["p_member"] else np.ones(len(main))
    near = separation(one.ra or 0.0, one.dec or 0.0, ra, dec) < FIELD
    good = near & np.isfinite(v) & np.isfinite(e) & (e > 0.0) & np.isfinite(p)
    if not good.any():
        raise BayesdustError(f"{catalogue.vizier} holds no star of {one.name} with a velocity.")
    combined = _combine(*(values[good] for values in (ra, dec, v, e, p)))
    return _labelled(combined, names, catalogue, one, int((near & ~good).sum()))


def _main_table(tables: Sequence[Table], catalogue: Catalogue) -> Table:
    """The first table with both positions and velocities."""
    for table in tables:
        if _first(table, RA) and _first(table, DEC) and _pairs(table, catalogue):
            return table
    found = "; ".join(", ".join(table.colnames) for table in tables)
    found = textwrap.shorten(found, 600, placeholder=" ...")
    raise BayesdustError(
        f"{catalogue.vizier} has no table with the positions and velocities looked for; it has the "
        f"columns {found}: download it in a browser and map its columns."
    )


def _first(table: Table, candidates: Sequence[str]) -> str:
    return next((name for name in candidates if name in table.colnames), "")


def _pairs(table: Table, catalogue: Catalogue) -> list[tuple[str, str]]:
    return [pair for pair in catalogue.velocities if set(pair) <= set(table.colnames)]


def _floats(column: Any) -> np.ndarray:
    """Numbers with NaN where one is masked or is not a number."""
    cells = np.ma.filled(np.ma.asarray(column).astype(object), np.nan)
    values = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        try:
            values[i] = float(cell)
        except (TypeError, ValueError):
            continue
    return values


def _angles(column: Any, name: str, catalogue: Catalogue) -> np.ndarray:
    degrees = sexagesimal(column, name, catalogue.vizier, column.name)
    return _floats(column) if degrees is None else degrees


def _members(column: Any) -> np.ndarray:
    """Probabilities; flags Y and N count as 1 and 0."""
    flags = {"Y": 1.0, "N": 0.0}
    cells = np.ma.filled(np.ma.asarray(column).astype(object), np.nan)
    return _floats([flags.get(str(cell).strip().upper(), cell) for cell in cells])


def _velocities(
    main: Table, tables: Sequence[Table], catalogue: Catalogue, star: str
) -> tuple[np.ndarray, np.ndarray]:
    """Velocity and error of each row: the first pair of columns that has both.

    What is still missing (Walker+2009 give no error for the mean of one observation) comes from
    the table of single observations, by the star's name.
    """
    v, e = np.full(len(main), np.nan), np.full(len(main), np.nan)
    for pair in _pairs(main, catalogue):
        missing = ~(np.isfinite(v) & np.isfinite(e))
        v[missing], e[missing] = (_floats(main[column])[missing] for column in pair)
    for table in tables:
        pairs = _pairs(table, catalogue)
        if table is main or not star or star not in table.colnames or not pairs:
            continue
        means = _means_by_star(table, star, pairs[0])
        for i in np.flatnonzero(~(np.isfinite(v) & np.isfinite(e))):
            v[i], e[i] = means.get(str(main[star][i]).strip(), (np.nan, np.nan))
    return v, e


def _means_by_star(
    table: Table, star: str, pair: tuple[str, str]
) -> dict[str, tuple[float, float]]:
    names = np.array([str(cell).strip() for cell in table[star]])
    v, e = _floats(table[pair[0]]), _floats(table[pair[1]])
    good = np.isfinite(v) & np.isfinite(e) & (e > 0.0)
    distinct, group = np.unique(names[good], return_inverse=True)
    weight = np.bincount(group, e[good] ** -2.0)
    mean = np.bincount(group, v[good] * e[good] ** -2.0) / weight
    return {str(n): (m, w**-0.5) for n, m, w in zip(distinct, mean, weight, strict=True)}


def _combine(
    ra: np.ndarray, dec: np.ndarray, v: np.ndarray, e: np.ndarray, p: np.ndarray
) -> list[np.ndarray]:
    """One row a star: repeats at one position (to 0.1 arcsec) averaged with inverse variances."""
    place = np.round(np.stack([ra, dec], axis=1) * 36000.0)
    _, first, group = np.unique(place, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    weight = np.bincount(group, e**-2.0)
    mean = np.bincount(group, v * e**-2.0) / weight
    member = np.bincount(group, p) / np.bincount(group)
    order = np.argsort(first)
    return [c[order] for c in (ra[first], dec[first], mean, weight**-0.5, member)]


def _labelled(
    values: list[np.ndarray], names: dict[str, str], catalogue: Catalogue, one: Galaxy, dropped: int
) -> Table:
    columns = dict(zip(("ra", "dec", "v_los", "v_los_err", "p_member"), values, strict=True))
    units = {"ra": u.deg, "dec": u.deg, "v_los": u.km / u.s, "v_los_err": u.km / u.s}
    if not names["p_member"]:
        del columns["p_member"]
    table = Table([Column(v, name=k, unit=units.get(k)) for k, v in columns.items()])
    table.meta = {
        "galaxy": one.name,
        "citation": catalogue.citation,
        "vizier": catalogue.vizier,
        "columns": {k: v for k, v in names.items() if v},
        "note": "Repeat measurements of a star are combined with inverse-variance weights.",
        "rows_without_velocity": dropped,
    }
    return table
