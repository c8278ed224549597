"""Are a model's posteriors calibrated? What many replicas say, quantity by quantity.

The distribution function of the shares u (`inference/calibration.py`) is held against a band that a uniform
one leaves nowhere with a given probability (Sailynoja+2022, Stat. Comput. 32, 32). Of all quantities
together the chance of a false alarm is at most `ALARM`, whatever their number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesdust.errors import BayesdustError
from bayesdust.inference.calibration import Replica

if TYPE_CHECKING:
    from astropy.table import Table
else:
    Table = Any

ALARM = 0.01
FEWEST = 20  # replicas
ESS_MIN = 50.0  # of a chain: below, its draws may not be those of the posterior
LOST = 0.02  # share of replicas that may have gone wrong
HALVES = {"68": 0.6827 / 2, "95": 0.95 / 2}  # of central intervals, about the median
_RARE = 25  # simulations beyond the band, by which its edge is known


@dataclass(frozen=True)
class Quantity:
    """Shares of one quantity: `points`, `ecdf` and the band's `lower` and `upper` are (k,)."""

    name: str
    u: Float[np.ndarray, " n"]
    mean_z: float
    rms_z: float
    points: Float[np.ndarray, " k"]
    ecdf: Float[np.ndarray, " k"]
    lower: Float[np.ndarray, " k"]
    upper: Float[np.ndarray, " k"]

    @property
    def inside(self) -> bool:
        """Whether the distribution of u stays in the band."""
        return bool(np.all((self.lower <= self.ecdf) & (self.ecdf <= self.upper)))

    def coverage(self, level: str) -> float:
        """Share of the central "68" or "95" % intervals that hold the truth."""
        return float(np.mean(abs(self.u - 0.5) <= HALVES[level]))

    @property
    def sentence(self) -> str:
        """What is wrong."""
        return (
            f"{self.name}: 68 % intervals hold the truth in {self.coverage('68'):.0%} of {len(self.u)} fits, "
            f"95 % intervals in {self.coverage('95'):.0%}, and the truth lies above the median in "
            f"{np.mean(self.u > 0.5):.0%}."
        )


@dataclass(frozen=True)
class Calibration:
    """The verdict over all quantities.

    `lost` replicas had no finite likelihood or a draw that is not a number, `poor` ones an ESS below
    `ESS_MIN`, `diverged` ones a divergence; `sd` is the median sd of each quantity.
    """

    quantities: tuple[Quantity, ...]
    sd: Mapping[str, float]
    replicas: int
    lost: int
    poor: int
    diverged: int
    alarm: float = ALARM

    @property
    def failures(self) -> tuple[str, ...]:
        """Sentences on quantities that left their band: these posteriors are miscalibrated."""
        return tuple(quantity.sentence for quantity in self.quantities if not quantity.inside)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Sentences on fits that tell nothing, or little, of the posteriors."""
        found = []
        if self.poor > LOST * self.replicas:
            found.append(
                f"{self.poor} of {self.replicas} chains are worth fewer than {ESS_MIN:.0f} draws: ask for "
                "more draws a fit."
            )
        if self.lost > LOST * self.replicas:
            found.append(f"{self.lost} of {self.replicas} fits had draws that are not numbers.")
        return tuple(found)

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.failures:
            return "MISCALIBRATED"
        return "NOT TOLD" if self.doubts else "calibrated"

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong, and enough was seen to say so."""
        return not (self.failures or self.doubts)

    def table(self) -> Table:
        """One row a quantity."""
        from astropy.table import Table as Make

        rows = [
            (
                q.name,
                len(q.u),
                q.inside,
                q.coverage("68"),
                q.coverage("95"),
                float(np.mean(q.u > 0.5)),
                q.mean_z,
                q.rms_z,
                self.sd[q.name],
            )
            for q in self.quantities
        ]
        names = [
            "name",
            "fits",
            "inside",
            "in_68",
            "in_95",
            "above_median",
            "mean_z",
            "rms_z",
            "median_sd",
        ]
        return Make(rows=rows, names=names)


def judge(found: Mapping[int, Replica], alarm: float = ALARM) -> Calibration:
    """The verdict over replicas, by index; `alarm` is the chance of any false one.

    Raises BayesdustError for fewer than `FEWEST` replicas.
    """
    if len(found) < FEWEST:
        raise BayesdustError(f"{len(found)} replicas tell nothing: ask for {FEWEST} or more.")
    # threads end in any order, and sums are rounded in it
    every = [found[index] for index in sorted(found)]
    good = [r for r in every if np.isfinite(list(r.u.values())).all()]
    names = list(every[0].u) if good else []
    return Calibration(
        quantities=tuple(_quantity(name, good, 1 - alarm / len(names)) for name in names),
        sd={name: float(np.median([r.sd[name] for r in good])) for name in names},
        replicas=len(every),
        lost=len(every) - len(good),
        poor=sum(r.ess < ESS_MIN for r in good),
        diverged=sum(r.diverging > 0 for r in every),
        alarm=alarm,
    )


def _quantity(name: str, replicas: list[Replica], level: float) -> Quantity:
    u = np.array([replica.u[name] for replica in replicas])
    z = np.array([replica.z[name] for replica in replicas])
    points, lower, upper = band(len(u), level)
    ecdf = np.searchsorted(np.sort(u), points, side="right") / len(u)
    return Quantity(
        name, u, float(z.mean()), float(np.sqrt(np.mean(z**2))), points, ecdf, lower, upper
    )


@lru_cache
def band(n: int, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, and the lower and upper edge there, of what the distribution function of `n` uniform numbers
    leaves nowhere with the probability `level`."""
    from arviz_stats.ecdf_utils import get_pointwise_confidence_band, simulate_confidence_bands

    points = np.arange(1, n) / n
    rng = np.random.default_rng(2022)
    times = max(2000, int(_RARE / (1 - level)))
    pointwise = simulate_confidence_bands(n, 1, points, level, times, rng)
    lower, upper = get_pointwise_confidence_band(pointwise, n, points)
    return points, lower, upper
