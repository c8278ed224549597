"""Gaia DR3 in: the query for the archive, the parallax zero point, the cuts, and the frame.

from astroquery.gaia import Gaia

job = Gaia.launch_job_async(gaia_query())
stars = read_gaia(job.get_results())
print(stars.cuts)
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from astropy.table import Table
from jaxtyping import Float

from bayesdust.catalogs import cuts as cut
from bayesdust.catalogs.astrometry import (
    GAIA,
    PHOTOMETRY,
    complete,
    has_velocity,
    observed,
    read_columns,
)
from bayesdust.catalogs.columns import ColumnReader
from bayesdust.catalogs.cuts import Cut
from bayesdust.catalogs.frames import SolarFrame, galactocentric
from bayesdust.catalogs.milky_way import (
    FEWEST_STARS,
    MilkyWayStars,
    check_fewest,
    check_weights,
    read_weights,
)
from bayesdust.catalogs.tables import SourceTable, digest, read_table
from bayesdust.catalogs.zero_point import ecliptic_latitude, lindegren2021, outside
from bayesdust.errors import BayesdustError

logger = logging.getLogger(__name__)

Numbers = Float[np.ndarray, " n"]
Columns = dict[str, Numbers]
ZeroPoint = str | float | Callable[[Columns], Numbers]

LINDEGREN = "lindegren2021"
MARGIN = 0.1  # mas, by which a zero point may move a parallax: the query lets through so much more
MARGIN_MAG = 0.5  # the same for absolute magnitudes at 4 kpc


def read_gaia(
    source: str | Path | Table | SourceTable,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    *,
    zero_point: ZeroPoint = LINDEGREN,
    cuts: Sequence[Cut] | None = None,
    sun: SolarFrame | None = None,
    weights: str | None = None,
    fewest: int = FEWEST_STARS,
) -> MilkyWayStars:
    """Read stars with Gaia's columns, cut them, and place them in the Galaxy.

    Parameters
    ----------
    source : a file in any format of `read_table`, or an astropy table such as an astroquery job's
    columns : our name (that of gaia_source) -> the table's; VizieR's names are found by themselves
    units : our name -> unit, overriding the table's; without any, those of gaia_source are assumed
    zero_point : "lindegren2021"; a number in mas; or a function of the columns (each (n,), by Gaia's
        names, NaN in gaps) that returns one number in mas a star. Subtracted from the parallax
    cuts : what stays, in order; by default `cuts.giants()`. Stars without radial velocity, astrometry,
        zero point or positive parallax are cut in any case, and before
    sun : the Sun's place and motion, by default `SolarFrame()`
    weights : a column of weights, or "1/COLUMN"
    fewest : the smallest number of stars allowed

    The distance is 1 / parallax. A gap (masked, empty, NaN) is cut; a column that a cut or the zero
    point needs and that is not there is named in `warnings`, and that step is left out. Raises
    BayesdustError, one sentence with file, row and column, for a table that cannot be read, lacks one
    of ra, dec, parallax, pmra, pmdec, radial_velocity, has impossible values, or has too few stars.
    """
    sun = SolarFrame() if sun is None else sun
    table = source if isinstance(source, SourceTable) else read_table(source)
    reader = ColumnReader(table, dict(columns or {}), dict(units or {}), words=GAIA)
    star, notes = read_columns(reader)
    sha256 = table.sha256 or digest(*star.values())
    offset, label, more = _zero_point(star, zero_point, table.where)
    star["zero_point"] = offset  # NaN has a cut of its own: it must not look like a lost parallax
    star["parallax"] = star["parallax"] - np.nan_to_num(offset)
    star["distance"] = np.full_like(offset, np.nan)
    np.divide(1.0, star["parallax"], out=star["distance"], where=star["parallax"] > 0.0)
    wanted = cut.giants() if cuts is None else tuple(cuts)
    kept, report = cut.apply((*_always(), *wanted), star, table.where)
    logger.info("%s\n%s", table.where, report)
    check_fewest(int(kept.sum()), fewest, table.where, f" after the cuts (of {len(kept):,})")
    rows = np.flatnonzero(kept) + 1
    star = {name: values[kept] for name, values in star.items()}
    seen, missing = observed(star, table.where, rows)
    weight = None if weights is None else read_weights(table, weights)[kept]
    if weight is not None and weights is not None:
        check_weights(weight, table.where, weights, rows)
    x, v = galactocentric(seen.values, sun)
    return MilkyWayStars(
        x=x,
        v=v,
        sun=sun,
        source=table.where,
        sha256=sha256,
        observed=seen,
        photometry={name: star[name] for name in PHOTOMETRY if name in star},
        weights=weight,
        weights_from=weights or "none",
        centre=tuple(sun.position.tolist()),
        radius=min((c.radius for c in wanted if c.radius is not None), default=None),
        rows=rows,
        cuts=report,
        absolute_limits=cut.ends_of(wanted, star),
        zero_point=label,
        units=dict(reader.used),
        warnings=(*table.notes, *notes, *more, *report.skipped, *missing),
    )


def _always() -> tuple[Cut, ...]:
    """What has to be there before a star has a place and a velocity."""
    return (
        Cut("has_velocity", "radial_velocity measured", ("ra",), lambda s: has_velocity(dict(s))),
        Cut("complete", "astrometry complete", ("ra",), lambda s: complete(dict(s))),
        Cut(
            "zero_point",
            "parallax zero point known",
            ("zero_point",),
            lambda s: np.isfinite(s["zero_point"]),
        ),
        cut.positive_parallax(),
    )


def _zero_point(star: Columns, wanted: ZeroPoint, where: str) -> tuple[Numbers, str, list[str]]:
    """The zero points [mas], (n,), what they are in words, and sentences for the user."""
    if callable(wanted):
        offset = np.asarray(wanted(dict(star)), dtype=np.float64)
        if offset.shape != star["ra"].shape:
            raise BayesdustError(
                f"zero_point returned an array of shape {offset.shape} for {len(star['ra'])} stars; "
                "return one number in mas a star."
            )
        return offset, getattr(wanted, "__name__", "a function"), []
    if isinstance(wanted, str):
        if wanted != LINDEGREN:
            raise BayesdustError(
                f"zero_point {wanted!r} is not known; give {LINDEGREN!r}, a number in mas or a function."
            )
        return _lindegren(star, where)
    if not np.isfinite(wanted):
        raise BayesdustError(f"zero_point is {wanted}; give a number in mas.")
    return np.full_like(star["ra"], wanted), f"{wanted:g} mas", []


def _lindegren(star: Columns, where: str) -> tuple[Numbers, str, list[str]]:
    needed = ("phot_g_mean_mag", "nu_eff_used_in_astrometry", "pseudocolour")
    if absent := [name for name in needed if name not in star]:
        note = (
            f"{where}: has no column {' and '.join(absent)}, so the parallax zero point of "
            "Lindegren+2021 is not subtracted; state one, as zero_point=-0.03 (mas)."
        )
        return np.zeros_like(star["ra"]), "none", [note]
    g, nu_eff, pseudocolour = (star[name] for name in needed)
    if (solved := star.get("astrometric_params_solved")) is not None:
        nu_eff = np.where(solved == 95, np.nan, nu_eff)  # six parameters: the colour was solved for
        pseudocolour = np.where(solved == 31, np.nan, pseudocolour)
    notes = []
    latitude = star.get("ecl_lat")
    if latitude is None:
        latitude = ecliptic_latitude(star["ra"], star["dec"])
        notes.append(f"{where}: has no column ecl_lat, which is computed from ra and dec.")
    offset = lindegren2021(g, nu_eff, pseudocolour, latitude)
    if n := int((outside(g, nu_eff, pseudocolour) & has_velocity(star)).sum()):
        notes.append(
            f"{where}: {n} star{'s' * (n != 1)} with a radial velocity lie outside the magnitudes and "
            "colours of the parallax zero point, whose formula is applied all the same."
        )
    return offset, "Lindegren+2021", notes


def gaia_query(
    radius: float = cut.RADIUS,
    parallax_ratio: float = cut.PARALLAX_RATIO,
    faintest: float = cut.FAINTEST,
    colour: tuple[float, float] = cut.GIANT_COLOUR,
    top: int | None = None,
) -> str:
    """The ADQL query for the giants of `cuts.giants`, for `Gaia.launch_job_async(query)`.

    `radius` in kpc, `faintest` in G_RVS; `top` takes so many stars, at random. The archive knows no
    zero point, so the query is looser than the cuts by `MARGIN` in parallax and `MARGIN_MAG` in
    absolute magnitude, and `read_gaia` then cuts exactly. Raises BayesdustError for limits that are
    not positive, or a radius so large that the margin leaves no positive parallax.
    """
    cut.check_positive(radius=radius, parallax_ratio=parallax_ratio)
    if top is not None and top < 1:
        raise BayesdustError(f"top is {top}; give a positive number of stars.")
    if 1.0 / radius <= MARGIN:
        raise BayesdustError(f"radius is {radius:g} kpc; give less than {1.0 / MARGIN:g} kpc.")
    low, high = colour
    if not (np.isfinite([low, high, faintest]).all() and low < high):
        raise BayesdustError(
            f"the limits {colour} in colour and {faintest} in magnitude are none; give numbers, "
            "the lower colour first."
        )
    text = (files("bayesdust") / "data" / "gaia_giants.adql").read_text()
    return text.format(
        top="" if top is None else f"TOP {int(top)}",
        order="" if top is None else "ORDER BY random_index",
        ratio=repr(float(parallax_ratio)),
        margin=repr(MARGIN),
        parallax=repr(1.0 / radius - MARGIN),
        faintest=repr(float(faintest)),
        absolute=repr(cut.absolute_limit(radius, faintest) + MARGIN_MAG),
        blue=repr(float(low)),
        red=repr(float(high)),
    )
