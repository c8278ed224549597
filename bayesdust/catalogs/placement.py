"""Are the stars where the galaxy is, and is their spread on the sky of its size?"""

import numpy as np
from jaxtyping import Float

from bayesdust.catalogs.facts import Galaxy
from bayesdust.catalogs.galaxies import built_in
from bayesdust.catalogs.tables import fault
from bayesdust.catalogs.validation import weighted_median
from bayesdust.units import ARCMIN, ARCSEC, DEG

Numbers = Float[np.ndarray, " n"]

FARTHEST = 20.0 * DEG  # no star of one galaxy lies so far from its centre on the sky
SMALLEST = 1.0 / 30.0  # median radius over half-light radius
MOST_CERTAIN = 20.0  # half-light radii: fields that may be wider do not tell their unit
SMALLEST_KPC, LARGEST_KPC = 1e-3, 10.0  # median radius where the half-light radius is not known
SCALE_UNITS = {"deg": DEG, "arcmin": ARCMIN, "arcsec": ARCSEC, "rad": 1.0}


def sky_median(ra: Numbers, dec: Numbers, weights: Numbers) -> tuple[float, float]:
    """Median direction of the stars (of each component of their unit vectors), in degrees."""
    a, d = ra * DEG, dec * DEG
    xyz = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    x, y, z = (weighted_median(component, weights) for component in xyz)
    return float(np.degrees(np.arctan2(y, x)) % 360.0), float(
        np.degrees(np.arctan2(z, np.hypot(x, y)))
    )


def separation(ra1: float, dec1: float, ra2: Numbers, dec2: Numbers) -> Numbers:
    """Angle between directions given in degrees, in radians (haversine formula)."""
    d1, d2 = dec1 * DEG, dec2 * DEG
    half = np.sin(0.5 * (d2 - d1)) ** 2
    half = half + np.cos(d1) * np.cos(d2) * np.sin(0.5 * (ra2 - ra1) * DEG) ** 2
    return 2.0 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))


def check_sky(
    where: str,
    columns: tuple[str, str],
    ra: Numbers,
    dec: Numbers,
    weights: Numbers,
    galaxy: Galaxy,
) -> None:
    """Positions are angles on the sky, around the galaxy's centre where that is known."""
    for column, values, limit in zip(columns, (ra, dec), (360.0, 90.0), strict=True):
        if (abs(values) > limit).any():
            row = int(np.argmax(abs(values) > limit)) + 1
            problem = f"{values[row - 1]:g} deg is beyond {limit:g}"
            raise fault(where, problem, "check the column and its unit", row, column)
    middle = sky_median(ra, dec, weights)
    centre = middle if galaxy.ra is None or galaxy.dec is None else (galaxy.ra, galaxy.dec)
    away = _apart(middle, centre)
    if away > _reach(galaxy):
        problem = (
            f"the stars lie {away / DEG:.3g} deg from {galaxy.name}, "
            f"around ra {middle[0]:.4f}, dec {middle[1]:.4f}"
        )
        raise fault(where, problem, _where_instead(middle, ra, dec, weights, galaxy))
    apart = separation(*centre, ra, dec)
    if (apart > FARTHEST).any():
        row = int(np.argmax(apart > FARTHEST)) + 1
        problem = f"the star lies {apart[row - 1] / DEG:.3g} deg from the others"
        raise fault(where, problem, "correct its position or remove the row", row, columns[0])


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    return float(separation(*one, np.array([other[0]]), np.array([other[1]]))[0])


def _reach(galaxy: Galaxy) -> float:
    """How far from the centre the middle of a sample may lie: 10 R_half, within 0.5 to 3 deg."""
    rhalf = 3.0 * DEG if galaxy.rhalf is None else galaxy.rhalf * ARCMIN
    return min(max(10.0 * rhalf, 0.5 * DEG), 3.0 * DEG)


def _where_instead(
    middle: tuple[float, float], ra: Numbers, dec: Numbers, weights: Numbers, galaxy: Galaxy
) -> str:
    """Advice for stars that are elsewhere: wrong unit, or a galaxy that is there."""
    centre = (galaxy.ra or 0.0, galaxy.dec or 0.0)  # only called where the centre is known
    for unit, a, d in (("rad", 1.0 / DEG, 1.0 / DEG), ("hourangle", 15.0, 1.0)):
        if _apart(sky_median(ra * a, dec * d, weights), centre) < _reach(galaxy):
            mapping = f"'ra': {unit!r}" + (f", 'dec': {unit!r}" if d != 1.0 else "")
            return f"they fit if the unit is stated, as units={{{mapping}}}"
    for other in built_in():
        if _apart(middle, (other.ra or 0.0, other.dec or 0.0)) < _reach(other):
            return f"{other.name} is there: give it as the galaxy or correct the positions"
    return "give the galaxy they belong to or correct the positions"


def check_scale(
    where: str,
    columns: tuple[str, str],
    radius: Numbers,
    p_member: Numbers | None,
    galaxy: Galaxy,
    unit: str,
    most: float,
) -> list[str]:
    """The stars' median radius is of the size of the galaxy: degrees are not taken for arcmin.

    `radius` in radians; `unit` is that of the offsets x and y, or empty for positions on the sky,
    where a small median is only worth a warning (a field in the very centre). `most` is the
    largest median in half-light radii.
    """
    weights = np.ones_like(radius) if p_member is None else p_member
    middle = weighted_median(radius, weights)
    if galaxy.rhalf is None:
        size, yardstick = middle * galaxy.distance, "kpc"
        low, high = SMALLEST_KPC, LARGEST_KPC
    else:
        size, yardstick = middle / (galaxy.rhalf * ARCMIN), f"half-light radii of {galaxy.name}"
        low, high = SMALLEST, most
    if low <= size <= high:
        return _check_outliers(where, columns[0], radius)
    stated = f" with {unit}" if unit else ""
    problem = f"the stars' median radius is {size:.3g} {yardstick}{stated}"
    advice = "check the centre and the half-light radius of the galaxy, in arcmin"
    if unit:
        advice = _unit_advice(size, unit, galaxy, most)
    elif size < low:
        return [f"{where}: {problem}; {advice}."]
    raise fault(where, problem, advice, 0, " and ".join(columns))


def _check_outliers(where: str, column: str, radius: Numbers) -> list[str]:
    far = radius > np.tan(FARTHEST)
    if far.any():
        row = int(np.argmax(far)) + 1
        raise fault(where, "the star lies far outside the galaxy", "remove the row", row, column)
    return []


def _unit_advice(ratio: float, unit: str, galaxy: Galaxy, most: float) -> str:
    """Names the unit with which the median radius comes nearest to the half-light radius.

    All that are possible where the field may be wide: the nearest would then be a guess.
    """
    sizes = SCALE_UNITS | {"kpc": 1.0 / galaxy.distance, "pc": 1e-3 / galaxy.distance}
    used = sizes.get(unit.split()[0])
    if galaxy.rhalf is None or used is None:
        return "state the unit of the positions, as units={'x': 'arcmin', 'y': 'arcmin'}"
    ratios = {name: ratio * size / used for name, size in sizes.items()}
    possible = [name for name, size in ratios.items() if SMALLEST <= size <= most]
    if most > MOST_CERTAIN and len(possible) > 1:
        return f"state the unit of x and y, which could be {' or '.join(possible)}"
    best = min(ratios, key=lambda name: abs(np.log(ratios[name])))
    mapping = f"units={{'x': {best!r}, 'y': {best!r}}}"
    return f"it would be {ratios[best]:.2g} with {best}: state the unit, as {mapping}"
