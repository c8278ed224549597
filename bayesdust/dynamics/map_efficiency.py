"""The efficiency that a map of the dust foretells, counted in stars (epsilon_L22 of Putney+2024).

By a map A(x) of the extinction, a star of apparent magnitude m at a known place has the absolute magnitude
M = m - mu - A, mu its distance modulus. The catalogue ends at m = limit.

**With a cut** (arXiv:2412.14236): the sample is what looks brighter than an absolute magnitude, m - mu < cut.
Its stars are brightened by A, the cut is repeated, and the ratio of the number densities around a place is

    epsilon = n(m - mu < cut) / n(m - mu - A < cut)      in the mean  S(cut - A) / S(cut),             (1)

S(M) the share of stars brighter than M. That holds where all stars of the denominator are in the catalogue,
cut + mu + A < limit, which `complete` says. Behind more dust some are lost, brightening does not bring them
back, and (1) comes out as S(cut - A) / S(limit - mu - A), too large.

**Without**: the sample is all of m < limit, the one of `efficiency.DustMap`. No star crosses the limit when
it is brightened, so that a ratio of counts would be one everywhere. But a seen star stands for 1/S:

    epsilon = n / sum_i 1/S(limit - mu_i - A_i)          in the mean  S(limit - mu - A).               (2)

S comes from the same stars: each is seen because its M is brighter than L = limit - mu - A, and for such
numbers the product over all fainter stars

    S(M) = prod_(M_k > M) (1 - 1/C_k),    C_k = number of stars with M_j <= M_k <= L_j                 (3)

is the estimate of greatest likelihood, whatever the density of stars (Lynden-Bell 1971, MNRAS 155, 95;
Woodroofe 1985, Ann. Stat. 13, 163). Its faint end is told by the stars at near and clear places: it starts,
with S = 1, from the faintest magnitude for which C is not below `FEWEST`, `reference`, and epsilon is that of
the stars brighter than it.

Assumed: one luminosity function for all places; a map, distances and magnitudes without error. An error of A
or of the distance blurs the clump, and enters epsilon as dS/dM times that error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from bayesdust.arrays import Array
from bayesdust.dynamics.efficiency import LEAST, check_magnitudes, faintest_seen, modulus
from bayesdust.dynamics.sky_parts import Sky
from bayesdust.errors import BayesdustError

Floats = Float[np.ndarray, " n"]
Places = Float[np.ndarray, "n 3"]
#: A [mag] (n,) between the Sun and offsets (n, 3) from it [kpc]: `DustCube.extinction`, any other
Extinction = Callable[[Places], Array | np.ndarray]

RADIUS = 0.25  # kpc, of the ball around a place in which stars are counted
FEWEST = 30  # stars among whom the faintest is one, for a share to be told
COPIES = 100  # of the catalogue, for the errors
STARS_A_PART = 100  # of the sky, in `map_chi2`


class TruncatedMagnitudes:
    """(3), of stars of absolute magnitudes M (n,) that are seen because M < L (n,) [mag].

    `reference` is the magnitude from which on S is one. Raises BayesdustError where there is none.
    """

    def __init__(self, M: Floats, L: Floats):
        self.M, self.L = M, L
        self._order, self._by_limit = np.argsort(M), np.argsort(L)
        self._sorted = M[self._order]
        self._gone = np.searchsorted(L[self._by_limit], self._sorted, side="left")
        many = np.arange(1, len(M) + 1) - self._gone >= FEWEST
        if not many.any():
            raise BayesdustError(
                f"no magnitude is one to which {FEWEST} stars could be seen; give more stars."
            )
        self._known = int(np.flatnonzero(many)[-1]) + 1
        self.reference = float(self._sorted[self._known - 1])

    def steps(self, counts: Floats | None = None) -> Float[np.ndarray, " k"]:
        """S (n + 1,) from before the brightest star to behind the faintest, each counting `counts` times."""
        counts = np.ones(len(self.M)) if counts is None else counts
        here = counts[self._order]
        before = np.append(0.0, np.cumsum(counts[self._by_limit]))
        at_risk = np.cumsum(here) - before[self._gone]
        with np.errstate(invalid="ignore"):  # stars that count for nothing: 0/0
            hazard = np.where(here > 0, here / at_risk, 0.0)
        hazard[self._known :] = 0.0
        ln = np.cumsum(np.log1p(-np.minimum(hazard, 1 - 1e-12))[::-1])[::-1]
        return np.exp(np.append(ln, 0.0))

    def step(self, magnitude: Floats) -> Int[np.ndarray, " n"]:
        """Which of `steps` (n,) magnitudes lie on."""
        return np.searchsorted(self._sorted, magnitude, side="right")

    def share(self, magnitude: Floats) -> Floats:
        """S (n,) at any magnitude."""
        return self.steps()[self.step(magnitude)]

    def ranks(self) -> Floats:
        """S(M)/S(L) (n,), even between 0 and 1 at every place if the map is right; NaN beyond `reference`."""
        ranks = self.share(self.M) / self.share(self.L)
        return np.where(self.reference >= self.M, ranks, np.nan)


@dataclass(frozen=True, eq=False)
class MapEfficiency:
    """What a map says of epsilon at m places.

    Attributes
    ----------
    epsilon, error : (m,) the ratio (1) or (2) in the ball around each place, and its Monte Carlo error: of
        the Poisson counts, in (2) with that of S; NaN where the ball holds no star, and too small where it
        holds fewer than some 20
    number : (m,) stars in the ball, of (1) those of the denominator
    at_place, at_place_error : (m,) what the ratio is in the mean on the place's own line of sight, without a
        ball: S(cut - A)/S(cut) or S(limit - mu - A), and the error that S leaves
    complete : (m,) of (1): no star of the ball is lost for good. Of (2): the share at the place is above
        `LEAST`, below which the stars seen do not count for more
    luminosity : S and the stars behind it
    notes : what was odd, in sentences
    """

    epsilon: Floats
    error: Floats
    number: Int[np.ndarray, " n"]
    at_place: Floats
    at_place_error: Floats
    complete: Bool[np.ndarray, " n"]
    luminosity: TruncatedMagnitudes
    notes: tuple[str, ...] = ()


def epsilon_from_map(
    offsets: Places,
    magnitude: Floats,
    extinction: Extinction,
    places: Float[np.ndarray, "m 3"],
    limit: float,
    *,
    cut: float | None = None,
    absolute_limit: float = np.inf,
    radius: float = RADIUS,
    seed: int = 0,
) -> MapEfficiency:
    """epsilon by a map of the dust, from stars around places.

    Parameters
    ----------
    offsets, magnitude : (n, 3) [kpc] from the Sun and (n,) apparent magnitudes of the catalogue's stars
    extinction : A [mag, in the magnitudes' band] between the Sun and offsets: a `DustCube`, or any function
    places : (m, 3) offsets from the Sun [kpc] at which epsilon is wanted
    limit : mag, to which the catalogue is complete
    cut : the sample's absolute magnitude, as it looks without a correction for dust: (1); None: (2)
    absolute_limit : mag; the catalogue also ends at m - mu = absolute_limit, as one of `giants(radius)` does
    radius : kpc, of the ball around each place in which stars are counted
    seed : of the copies of the catalogue, each star Poisson times in it, whose scatter is the error

    Raises BayesdustError for a magnitude that is not finite or beyond a limit, an extinction that is not
    one finite number >= 0 a place, a radius that is not positive, a cut that leaves no star, or too few of
    them.
    """
    check_magnitudes(offsets, magnitude, limit, absolute_limit)
    if not radius > 0:
        raise BayesdustError(f"the radius is {radius} kpc; give one above 0.")
    A, A_there = _extinctions(extinction, offsets), _extinctions(extinction, places)
    looks = magnitude - modulus(np.linalg.norm(offsets, axis=1))
    faintest, asked = (
        faintest_seen(x, limit, absolute_limit) - dust
        for x, dust in ((offsets, A), (places, A_there))
    )
    light = TruncatedMagnitudes(looks - A, faintest)
    balls = _balls(offsets, places, radius)
    if cut is None:
        found = _of_all(light, balls, asked, seed)
    else:
        found = _of_cut(light, balls, cut, looks, A_there, seed)
        found["complete"] &= asked >= cut
    return MapEfficiency(luminosity=light, notes=_notes(extinction, offsets, places), **found)


def _of_all(light: TruncatedMagnitudes, balls: Any, asked: Floats, seed: int) -> dict[str, Any]:
    """(2)"""
    stars, places = light.step(light.L), light.step(asked)

    def ratios(counts: Floats) -> tuple[Floats, Floats]:
        steps = light.steps(counts)
        weights = 1 / np.maximum(steps[stars], LEAST)
        return _over(balls @ counts, balls @ (counts * weights)), steps[places]

    epsilon, at_place = ratios(np.ones(len(stars)))
    in_balls, at = zip(*map(ratios, _copies(len(stars), seed)), strict=True)
    return {
        "epsilon": epsilon,
        "error": _scatter(in_balls),
        "number": balls.sum(axis=1).astype(int),
        "at_place": at_place,
        "at_place_error": _scatter(at),
        "complete": at_place > LEAST,
    }


def _of_cut(
    light: TruncatedMagnitudes, balls: Any, cut: float, looks: Floats, A_there: Floats, seed: int
) -> dict[str, Any]:
    """(1); the error is that of a share k of n, with Jeffreys' prior."""
    kept = light.M < cut
    if not kept.any():
        raise BayesdustError(f"no star is brighter than the cut {cut:g}; give a fainter one.")
    n, k = balls @ kept.astype(float), balls @ (looks < cut).astype(float)
    places, whole = light.step(cut - A_there), light.step(np.array([cut]))

    def at_place(counts: Floats) -> Floats:
        steps = light.steps(counts)
        return steps[places] / steps[whole]

    return {
        "epsilon": _over(k, n),
        "error": np.where(n > 0, np.sqrt((k + 0.5) * (n - k + 0.5) / (n + 2)) / (n + 1), np.nan),
        "number": n.astype(int),
        "at_place": at_place(np.ones(len(looks))),
        "at_place_error": _scatter(tuple(map(at_place, _copies(len(looks), seed)))),
        "complete": balls @ (light.L < cut).astype(float) == 0,
    }


def map_chi2(
    offsets: Places, efficiency: MapEfficiency, stars_a_part: int = STARS_A_PART
) -> tuple[float, int]:
    """Whether the stars' magnitudes bear the map out: chi2, and of how many numbers.

    In every part of the sky the mean rank S(M)/S(L) of its stars (at `offsets`, as given to
    `epsilon_from_map`) should be 1/2, within 1/sqrt(12 n). A map whose clouds are elsewhere is told by it
    without a truth to compare with; one that is wrong by the same amount everywhere is not.
    """
    ranks = efficiency.luminosity.ranks()
    offsets, ranks = offsets[np.isfinite(ranks)], ranks[np.isfinite(ranks)]
    sky = Sky.of(offsets, max(0, round(np.log2(len(offsets) / stars_a_part))))
    cell = sky.cell(offsets)
    number = np.maximum(np.bincount(cell, minlength=sky.cells), 1)
    total = np.bincount(cell, ranks - 0.5, sky.cells)
    return float(np.sum(12 * total**2 / number)), sky.cells


def _balls(offsets: Places, places: Places, radius: float) -> Any:
    """A sparse matrix (m, n) of ones where a star is within `radius` of a place."""
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    near = cKDTree(offsets).query_ball_point(places, radius)
    first = np.cumsum([0, *map(len, near)])
    stars = np.concatenate([np.asarray(n, dtype=int) for n in (*near, [])])
    return csr_array((np.ones(len(stars)), stars, first), shape=(len(places), len(offsets)))


def _over(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _copies(n: int, seed: int) -> Iterator[Floats]:
    """How often each of n stars is in a catalogue drawn from the catalogue."""
    rng = np.random.default_rng(seed)
    for _ in range(COPIES):
        yield rng.poisson(1.0, n).astype(np.float64)


def _scatter(values: tuple[Floats, ...]) -> Floats:
    """sd of those that are numbers; NaN where fewer than half are."""
    table = np.array(values)
    known = np.isfinite(table)
    enough = known.sum(axis=0) > len(table) / 2
    return np.where(enough, np.nanstd(np.where(enough, table, 0.0), axis=0), np.nan)


def _extinctions(extinction: Extinction, offsets: Places) -> Floats:
    A = np.asarray(extinction(offsets), dtype=np.float64)
    if A.shape != (len(offsets),):
        raise BayesdustError(
            f"the extinction of {len(offsets)} places has the shape {A.shape}; give one number a place."
        )
    if (wrong := ~(np.isfinite(A) & (A >= 0))).any():
        i = int(np.argmax(wrong))
        raise BayesdustError(
            f"the extinction at the offset {offsets[i].round(3)} kpc is {A[i]}; give a finite one >= 0."
        )
    return A


def _notes(extinction: Extinction, offsets: Places, places: Places) -> tuple[str, ...]:
    """How much lies beyond a map that says where it ends."""
    beyond = getattr(extinction, "beyond", None)
    if beyond is None:
        return ()
    stars, asked = (int(np.count_nonzero(beyond(x))) for x in (offsets, places))
    if not stars and not asked:
        return ()
    return (
        f"{stars:,} of {len(offsets):,} stars and {asked:,} of {len(places):,} places lie beyond the map, "
        "and the dust behind its faces counts for nothing.",
    )
