"""Parts of the sky: halves of halves of the stars in it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Sky:
    """Parts of the sky with equally many stars: halves of halves, each cut across its longer side.

    `axis` (cells - 1,) is 0 where a part is cut in longitude and 1 in sin(latitude), `edge` where; the
    halves of part i are the parts 2 i + 1 and 2 i + 2. Stars in one direction stay together, so that
    parts may be uneven, or empty.
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
            members = parts.pop(i)
            if len(members) > 1:
                axis[i], edge[i] = _cut(places[members])
            above = places[members, axis[i]] > edge[i]
            parts[2 * i + 1], parts[2 * i + 2] = members[~above], members[above]
        return cls(axis, edge, levels)

    @property
    def cells(self) -> int:
        """How many parts there are."""
        return 2**self.levels

    @property
    def bounds(self) -> Float[np.ndarray, "cells 2 2"]:
        """Longitude and sin(latitude), the lowest and the highest (last axis), of each part."""
        found = np.array([[[-np.pi, np.pi], [-1.0, 1.0]]])
        for level in range(self.levels):
            cut = slice(2**level - 1, 2 ** (level + 1) - 1)
            rows, axis = np.arange(len(found)), self.axis[cut]
            edge = np.clip(self.edge[cut], *found[rows, axis].T)  # of an empty part it is anywhere
            halves = np.stack([found, found], axis=1)
            halves[rows, 0, axis, 1] = halves[rows, 1, axis, 0] = edge
            found = halves.reshape(-1, 2, 2)
        return found

    def cell(self, offsets: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """The part (n,) in which each place lies."""
        places, i = _directions(offsets), np.zeros(len(offsets), dtype=int)
        for _ in range(self.levels):
            above = places[np.arange(len(i)), self.axis[i]] > self.edge[i]
            i = 2 * i + 1 + above
        return i - (self.cells - 1)


def _cut(places: Float[np.ndarray, "n 2"]) -> tuple[int, float]:
    """The longer side of a part, and where along it half of the stars lie."""
    latitude = np.arcsin(places[:, 1])
    wide = np.ptp(places[:, 0]) * np.cos(np.median(latitude))
    axis = int(wide < np.ptp(latitude))
    ordered, half = np.sort(places[:, axis]), len(places) // 2
    return axis, float(0.5 * (ordered[half - 1] + ordered[half]))


def _directions(offsets: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    """Longitude from the direction of x, and sin(latitude)."""
    distance = np.maximum(np.linalg.norm(offsets, axis=1), 1e-12)
    longitude = np.arctan2(offsets[:, 1], offsets[:, 0])
    return np.stack([longitude, offsets[:, 2] / distance], axis=1)
