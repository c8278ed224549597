"""Cuts on stars of Gaia, each a small object with a name, and the count of what each removed.

The defaults follow Lim+2023 (arXiv:2305.13358) and Putney+2024 (arXiv:2412.14236): giants with radial
velocities, a relative parallax error below 1/3, within 4 kpc, and brighter in absolute magnitude than
what the radial velocities are complete to at 4 kpc without dust. That magnitude is the one at which a
star at 4 kpc still has G_RVS = 14, to which the radial velocities are complete (Gaia DR3 documentation,
section 14.5.2): M = 14 - 5 log10(4 kpc / 10 pc) = 0.99. The edges of the colour-magnitude box for red
clump and red giant stars are this package's, chosen wide; none is corrected for dust.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from bayesdust.catalogs.tables import fault
from bayesdust.errors import BayesdustError

Columns = Mapping[str, Float[np.ndarray, " n"]]

PARALLAX_RATIO = 1.0 / 3.0
RADIUS = 4.0  # kpc
FAINTEST = 14.0  # mag, in BAND
BAND = "grvs_mag"
GIANT_COLOUR = (1.0, 3.5)  # BP - RP; the red clump has about 1.2
GIANT_MAGNITUDE = (-5.0, 2.5)  # M_G; the red clump has about 0.5


@dataclass(frozen=True)
class Cut:
    """One cut: `keep(columns)` says which stars stay, (n,), of columns (n,) that include `needs`.

    Columns carry Gaia's names and units; `parallax` is corrected for its zero point, `distance` [kpc]
    is 1 / parallax. A star without one of the values needed (NaN) does not stay. `radius` [kpc] is
    set where the cut is a ball around the Sun, `ends` where it is at an absolute magnitude: band and mag.
    """

    name: str
    rule: str
    needs: tuple[str, ...]
    keep: Callable[[Columns], Bool[np.ndarray, " n"]]
    radius: float | None = None
    ends: tuple[str, float] | None = None


@dataclass(frozen=True)
class CutReport:
    """What the cuts did, in order. `str()` is a table.

    Attributes
    ----------
    start : number of stars before the first
    rows : (name, rule, number removed, number left) of each cut
    skipped : sentences on cuts that were not applied, and why
    """

    start: int
    rows: tuple[tuple[str, str, int, int], ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def left(self) -> int:
        """Number of stars after the last."""
        return self.rows[-1][3] if self.rows else self.start

    def as_rows(self) -> list[dict[str, str | int]]:
        """One dictionary a cut: name, rule, removed, left; ready for JSON or a table."""
        keys = ("name", "rule", "removed", "left")
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def __str__(self) -> str:
        wide = max((len(rule) for _, rule, _, _ in self.rows), default=4)
        lines = [f"{'cut':<{wide}}  {'removed':>10}  {'left':>10}"]
        lines += [f"{'(all rows)':<{wide}}  {'':>10}  {self.start:>10,}"]
        lines += [f"{rule:<{wide}}  {gone:>10,}  {left:>10,}" for _, rule, gone, left in self.rows]
        return "\n".join([*lines, *self.skipped])


def apply(
    cuts: Sequence[Cut], columns: Columns, where: str, report: CutReport | None = None
) -> tuple[Bool[np.ndarray, " n"], CutReport]:
    """Which stars pass every cut, (n,), and the report, which continues `report`.

    A cut whose columns are not there is skipped and named in the report. Raises BayesdustError when
    a cut leaves no star.
    """
    kept = np.ones(len(columns["ra"]), dtype=bool)
    report = CutReport(len(kept)) if report is None else report
    for cut in cuts:
        if missing := [name for name in cut.needs if name not in columns]:
            sentence = (
                f"{where}: has no column {' and '.join(missing)}, so the cut "
                f"'{cut.rule}' is not applied."
            )
            report = CutReport(report.start, report.rows, (*report.skipped, sentence))
            continue
        with np.errstate(invalid="ignore", divide="ignore"):  # comparisons with NaN are False
            passed = kept & cut.keep(columns)
        removed, left = int(kept.sum() - passed.sum()), int(passed.sum())
        rows = (*report.rows, (cut.name, cut.rule, removed, left))
        report = CutReport(report.start, rows, report.skipped)
        if left == 0:
            problem = (
                f"no star is left after the cut '{cut.rule}', which removed the last {removed:,}"
            )
            raise fault(where, problem, "loosen the cuts or give a larger table")
        kept = passed
    return kept, report


def giants(
    radius: float | None = RADIUS,
    parallax_ratio: float | None = PARALLAX_RATIO,
    faintest: float | None = FAINTEST,
    band: str = BAND,
    colour: tuple[float, float] | None = GIANT_COLOUR,
    magnitude: tuple[float, float] | None = GIANT_MAGNITUDE,
) -> tuple[Cut, ...]:
    """The cuts of Lim+2023 and Putney+2024, in order; None leaves one out.

    Parameters
    ----------
    radius : kpc, of the ball around the Sun, and where `faintest` is turned into an absolute magnitude
    parallax_ratio : largest parallax_error / parallax
    faintest : mag, of completeness, in `band` (grvs_mag or phot_g_mean_mag)
    colour, magnitude : edges of the box in BP - RP and M_G that holds red clump and red giant stars
    """
    cuts = []
    if parallax_ratio is not None:
        cuts.append(good_parallax(parallax_ratio))
    if radius is not None:
        cuts.append(within(radius))
    if faintest is not None:
        cuts.append(brighter_than(faintest, band))
    if faintest is not None and radius is not None:
        cuts.append(complete_to(radius, faintest, band))
    if colour is not None and magnitude is not None:
        cuts.append(giant_box(colour, magnitude))
    return tuple(cuts)


def positive_parallax() -> Cut:
    """Stars with a parallax above zero, without which there is no distance."""
    return Cut(
        "positive_parallax", "parallax > 0", ("parallax",), lambda star: star["parallax"] > 0.0
    )


def good_parallax(ratio: float = PARALLAX_RATIO) -> Cut:
    """Stars with parallax_error / parallax below `ratio`."""
    check_positive(parallax_ratio=ratio)
    return Cut(
        "good_parallax",
        f"parallax_error / parallax < {ratio:.4g}",
        ("parallax", "parallax_error"),
        lambda star: star["parallax_error"] < ratio * star["parallax"],
    )


def within(radius: float = RADIUS) -> Cut:
    """Stars at most `radius` [kpc] from the Sun."""
    check_positive(radius=radius)
    rule = f"distance <= {radius:g} kpc"
    return Cut("within", rule, ("distance",), lambda star: star["distance"] <= radius, radius)


def brighter_than(faintest: float = FAINTEST, band: str = BAND) -> Cut:
    """Stars with an apparent magnitude in `band` below `faintest`."""
    check_band(band)
    return Cut("brighter_than", f"{band} < {faintest:g}", (band,), lambda s: s[band] < faintest)


def complete_to(radius: float = RADIUS, faintest: float = FAINTEST, band: str = BAND) -> Cut:
    """Stars that would be brighter than `faintest` at `radius` [kpc] as well, were there no dust."""
    check_band(band)
    check_positive(radius=radius)
    limit = absolute_limit(radius, faintest)
    return Cut(
        "complete_to",
        f"absolute {band} < {limit:.3f}",
        (band, "distance"),
        lambda star: absolute_magnitude(star[band], star["distance"]) < limit,
        ends=(band, limit),
    )


def giant_box(
    colour: tuple[float, float] = GIANT_COLOUR, magnitude: tuple[float, float] = GIANT_MAGNITUDE
) -> Cut:
    """Red clump and red giant stars: a box in BP - RP and in M_G, neither corrected for dust."""
    for name, edges in (("colour", colour), ("magnitude", magnitude)):
        if not edges[0] < edges[1]:
            raise BayesdustError(f"the {name} box {edges} is empty; give (lower, upper).")

    def keep(star: Columns) -> Bool[np.ndarray, " n"]:
        m_g = absolute_magnitude(star["phot_g_mean_mag"], star["distance"])
        red = (star["bp_rp"] > colour[0]) & (star["bp_rp"] < colour[1])
        return red & (m_g > magnitude[0]) & (m_g < magnitude[1])

    rule = f"{colour[0]:g} < BP-RP < {colour[1]:g} and {magnitude[0]:g} < M_G < {magnitude[1]:g}"
    needs = ("phot_g_mean_mag", "bp_rp", "distance")
    return Cut("giant_box", rule, needs, keep, ends=("phot_g_mean_mag", magnitude[1]))


def absolute_magnitude(
    apparent: Float[np.ndarray, " n"], distance: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """m - 5 log10(distance / 10 pc), (n,), for distances in kpc; extinction is left in."""
    return apparent - 5.0 * np.log10(distance) - 10.0


def ends_of(cuts: Sequence[Cut], columns: Columns) -> dict[str, float]:
    """By band the tightest absolute magnitude at which those of the `cuts` that apply end a sample."""
    found: dict[str, float] = {}
    for cut in cuts:
        if cut.ends is not None and set(cut.needs) <= set(columns):
            band, limit = cut.ends
            found[band] = min(limit, found.get(band, math.inf))
    return found


def absolute_limit(radius: float, faintest: float) -> float:
    """The absolute magnitude of a star of apparent magnitude `faintest` at `radius` [kpc]."""
    return faintest - 5.0 * math.log10(radius) - 10.0


def check_band(band: str) -> None:
    """Raises BayesdustError for a band in which no limit is known."""
    if band not in ("grvs_mag", "phot_g_mean_mag"):
        raise BayesdustError(f"the band {band!r} is not known; use grvs_mag or phot_g_mean_mag.")


def check_positive(**numbers: float) -> None:
    """Raises BayesdustError for the first number that is not positive and finite."""
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0.0):
            raise BayesdustError(f"{name} is {number}; give a positive number.")
