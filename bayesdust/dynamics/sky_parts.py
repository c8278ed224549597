"""Parts of the sky: halves of halves of the stars in it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sky:
    """Parts of the sky with equally many stars: halves of halves, each cut across its longer side.

    `axis` (cells - 1,) is 0 where a part is cut in longitude and 1 in sin(latitude), `edge` where; the
    halves of part i are the parts 2 i + 1 and 2 i + 2.
    """

    axis: Int[np.ndarray, " c"]
    edge: Float[np.ndarray, " c"]
    levels: int

    @classmethod
    def of(cls, offsets: Float[np.ndarray, "n 3"], levels: int) -> "Sky":
        """The parts that halve stars at `offsets` from the Sun [kpc] `levels` times."""
        places = _directions(offsets)
        axis, edge = np.zeros(2**levels - 1, dtype=int), np.zeros(2**levels - 1)
        parts = {0: np.arange(len(offsets))}
        for i in range(2**levels - 1):
            mine = places[parts.pop(i)] if i in parts else places[:0]
            members = mine[:, 2].astype(int)
            latitude = np.arcsin(mine[:, 1])
            wide = np.ptp(mine[:, 0]) * np.cos(np.median(latitude))
            axis[i] = int(wide < np.ptp(latitude))
            edge[i] = _between(mine[:, axis[i]])
            above = mine[:, axis[i]] > edge[i]
            parts[2 * i + 1], parts[2 * i + 2] = members[~above], members[above]
        return cls(axis, edge, levels)

    @property
    def cells(self) -> int:
        """How many parts there are."""
        return 2**self.levels

    def cell(self, offsets: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """The part (n,) in which each place lies."""
        places, i = _directions(offsets), np.zeros(len(offsets), dtype=int)
        for _ in range(self.levels):
            above = places[np.arange(len(i)), self.axis[i]] > self.edge[i]
            i = 2 * i + 1 + above
        return i - (self.cells - 1)


def _between(values: Floats) -> float:
    """A number between the lower and the upper half, none of them itself."""
    ordered, half = np.sort(values), len(values) // 2
    return float(0.5 * (ordered[half - 1] + ordered[half])) if half else 0.0


def _directions(offsets: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Longitude from the direction of x, sin(latitude), and the number of each place."""
    distance = np.maximum(np.linalg.norm(offsets, axis=1), 1e-12)
    longitude = np.arctan2(offsets[:, 1], offsets[:, 0])
    return np.stack([longitude, offsets[:, 2] / distance, np.arange(len(offsets))], axis=1)
