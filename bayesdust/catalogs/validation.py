"""What a sample of stars in a dwarf galaxy cannot be: each check is one sentence to the user.

Probabilities of membership weigh every check that looks at the sample as a whole, so that a
catalogue full of foreground stars is judged by its members.
"""

import numpy as np
from jaxtyping import Float

from bayesdust.catalogs.facts import Galaxy
from bayesdust.catalogs.tables import fault
from bayesdust.units import ARCSEC

Numbers = Float[np.ndarray, " n"]

FEWEST_MEMBERS = 10
LARGEST_DISPERSION = 100.0  # km/s, of members; a dwarf galaxy has less than 30
LARGEST_SPREAD = 500.0  # km/s, of a sample with foreground and no probabilities
SMALLEST_DISPERSION = 0.05  # km/s
SMALLEST_MEASURED = 0.5  # km/s; velocities with errors that scatter less are in another unit
SMALLEST_ERROR = 0.05  # km/s, the median; no spectrograph does better on such faint stars
LARGEST_VELOCITY = 900.0  # km/s; from there on it is a placeholder such as -999
FASTEST_GALAXY = 600.0  # km/s; a galaxy that recedes faster may have faster stars ...
LARGEST_OF_ALL = 3000.0  # km/s; ... up to here
LARGEST_ERROR = 900.0  # km/s; a placeholder again


def weighted_median(values: Numbers, weights: Numbers) -> float:
    """The value at which half of the total weight is reached."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def robust_spread(values: Numbers, weights: Numbers) -> float:
    """1.4826 times the median absolute deviation: the standard deviation, were it Gaussian."""
    return 1.4826 * weighted_median(abs(values - weighted_median(values, weights)), weights)


def check_members(where: str, column: str, n: int, p_member: Numbers | None) -> None:
    """Probabilities lie in [0, 1], and at least ten members are expected."""
    if p_member is not None:
        wrong = (p_member < 0.0) | (p_member > 1.0)
        if wrong.any():
            row = int(np.argmax(wrong)) + 1
            percent = bool((p_member >= 0.0).all() and 2.0 < p_member.max() <= 100.0)
            advice = "divide percentages by 100" if percent else "give a probability"
            problem = f"a probability of {p_member[row - 1]:g} is outside 0 to 1"
            raise fault(where, problem, advice, row, column)
    members = float(n if p_member is None else p_member.sum())
    if members < FEWEST_MEMBERS:
        what = "stars" if p_member is None else "expected members"
        problem = f"holds {members:.3g} {what}, fewer than {FEWEST_MEMBERS}"
        raise fault(where, problem, "too few to measure a density; give a larger sample")


def check_errors(where: str, column: str, errors: Numbers, weights: Numbers) -> None:
    """Velocity errors are all positive, or all zero for a sample without noise."""
    if (errors < 0.0).any():
        row = int(np.argmax(errors < 0.0)) + 1
        problem = f"the error {errors[row - 1]:g} is negative"
        raise fault(where, problem, "correct it or remove the row", row, column)
    if (errors == 0.0).any() and (errors > 0.0).any():
        row = int(np.argmax(errors == 0.0)) + 1
        problem = "the error is zero where others are positive"
        advice = "give the error or remove the row (all zero would mean no noise)"
        raise fault(where, problem, advice, row, column)
    if (middle := weighted_median(errors, weights)) > LARGEST_DISPERSION:
        problem = f"the median error is {middle:.4g} km/s, more than any dwarf galaxy's dispersion"
        advice = f"state the unit if it is not km/s, as units={{{'v_los_err'!r}: 'm/s'}}"
        raise fault(where, problem, advice, 0, column)
    if (errors >= LARGEST_ERROR).any():
        row = int(np.argmax(errors >= LARGEST_ERROR)) + 1
        problem = f"an error of {errors[row - 1]:.6g} km/s marks a missing value"
        raise fault(where, problem, "remove the row", row, column)


def check_velocities(
    where: str,
    column: str,
    v_los: Numbers,
    errors: Numbers,
    p_member: Numbers | None,
    galaxy: Galaxy,
) -> list[str]:
    """The velocities scatter like those of a dwarf galaxy; a warning if not around its own."""
    weights = np.ones_like(v_los) if p_member is None else p_member
    spread = robust_spread(v_los, weights)
    if spread > (LARGEST_SPREAD if p_member is None else LARGEST_DISPERSION):
        problem = f"the velocities scatter by {spread:.4g} km/s, which no dwarf galaxy's can"
        advice = f"state the unit if it is not km/s, as units={{{'v_los'!r}: 'm/s'}}"
        raise fault(where, problem, advice, 0, column)
    fast = galaxy.v_sys is not None and abs(galaxy.v_sys) > FASTEST_GALAXY
    beyond = abs(v_los) >= (LARGEST_OF_ALL if fast else LARGEST_VELOCITY)
    if beyond.any():
        row = int(np.argmax(beyond)) + 1
        problem = f"{v_los[row - 1]:.6g} km/s is no star's velocity"
        raise fault(where, problem, "remove the row if it marks a missing value", row, column)
    if max(spread, float(v_los.std())) < SMALLEST_DISPERSION:
        problem = f"the velocities scatter by only {spread:.2g} km/s"
        raise fault(where, problem, "check the column and its unit", 0, column)
    error = weighted_median(errors, weights)
    if spread < SMALLEST_MEASURED and (spread < 0.3 * error or 0.0 < error < SMALLEST_ERROR):
        problem = (
            f"the velocities scatter by only {spread:.2g} km/s, and their median error is "
            f"{error:.2g} km/s, which does not go together for stars of a galaxy"
        )
        advice = f"state the true unit, perhaps units={{{'v_los'!r}: 'km/s'}}"
        raise fault(where, problem, advice, 0, column)
    if 0.0 < error < SMALLEST_ERROR:
        problem = (
            f"the median error of the velocities is {error:.2g} km/s, less than any spectrograph's"
        )
        advice = "state the true unit of v_los_err, or give 0 for all stars where there is no noise"
        raise fault(where, problem, advice)
    middle = weighted_median(v_los, weights)
    if galaxy.v_sys is None or p_member is None or abs(middle - galaxy.v_sys) < 50.0:
        return []
    return [
        f"{where}: the median velocity of the members is {middle:.1f} km/s where {galaxy.name} has "
        f"{galaxy.v_sys:.1f} km/s: are the velocities heliocentric?"
    ]


# Rows that are the same star


def check_repeats(where: str, xi: Numbers, eta: Numbers, others: tuple[Numbers, ...]) -> list[str]:
    """No two rows are identical; a warning where stars lie within 1 arcsec of each other.

    O(n log n): by sorting, and by a k-d tree of the distinct positions.
    """
    keys = np.stack([xi, eta, *others])
    order = np.lexsort(keys)
    same = (keys[:, order][:, 1:] == keys[:, order][:, :-1]).all(axis=0)
    if same.any():
        i = int(np.argmax(same))
        one, other = sorted((int(order[i]) + 1, int(order[i + 1]) + 1))
        problem = f"rows {one} and {other} are identical"
        raise fault(where, problem, "remove one, or combine measurements of the same star")
    return _close_pairs(where, np.stack([xi, eta], axis=1))


def _close_pairs(where: str, positions: Float[np.ndarray, "n 2"]) -> list[str]:
    from scipy.spatial import cKDTree

    order = np.lexsort(positions.T)
    same = (positions[order][1:] == positions[order][:-1]).all(axis=1)
    pairs = list(zip(order[:-1][same], order[1:][same], strict=True))
    distinct = order[np.concatenate([[True], ~same])]
    if len(distinct) > 1:
        distance, neighbour = cKDTree(positions[distinct]).query(positions[distinct], k=2)
        close = distance[:, 1] < ARCSEC
        pairs += list(zip(distinct[close], distinct[neighbour[close, 1]], strict=True))
    rows = {tuple(sorted((int(a) + 1, int(b) + 1))) for a, b in pairs}
    if not rows:
        return []
    one, other = min(rows)
    number = "a pair of stars lies" if len(rows) == 1 else f"{len(rows)} pairs of stars lie"
    return [
        f"{where}: {number} within 1 arcsec (rows {one} and {other}"
        f"{'' if len(rows) == 1 else ' first'}): combine them if they are one star"
    ]
