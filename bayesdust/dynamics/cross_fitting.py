"""Sums over the stars, and their weights from other stars: what keeps a fit to the sums unbiased.

Least squares solve F^T C^-1 s = 0 for the sums s of `weak_form`, with their slopes F and their covariance C
from the same stars. A star with a large term is then in C too, so that its sum counts for little just when
it is off to the side of the outliers; and its slope leans on its own term. Both together pull forces
towards zero, the more the fewer stars a sum hangs on (Newey & Smith 2004, Econometrica 72, 219, theorem 4.1).
Here the stars are split into parts by chance, and

    g = sum_j F_-j^T C_-j^-1 s_j,                                                                (1)

s_j the sums over part j, F_-j and C_-j of all the others, counted up to all stars. Stars are independent, so
that in the truth the mean of g is zero exactly (Angrist, Imbens & Krueger 1999, J. Appl. Econometrics 14,
57; cross-fitting, Chernozhukov et al. 2018, Econometrics J. 21, C1).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

PARTS = 10


class Parts(NamedTuple):
    """Sums over each of p parts of the stars: how many `stars` they have, `slopes`, `scatters`.

    `extra` is a covariance that is not the stars', of the sums over all of them.
    """

    stars: Float[np.ndarray, " p"]
    slopes: Float[np.ndarray, "p k q"]
    scatters: Float[np.ndarray, "p k k"]
    extra: Float[np.ndarray, "k k"] | float = 0.0

    @property
    def covariance(self) -> Float[np.ndarray, "k k"]:
        """C of the sums over all stars."""
        return self.scatters.sum(axis=0) + self.extra

    def crossed(self, sums: Float[np.ndarray, "p k ..."]) -> Float[np.ndarray, "q ..."]:
        """(1), for one set of `sums` over the parts, or some beside each other."""
        slopes, scatter = self.slopes.sum(axis=0), self.scatters.sum(axis=0)
        total, everyone = 0.0, self.stars.sum()
        for stars, own_slopes, own_scatter, own in zip(
            self.stars, self.slopes, self.scatters, sums, strict=True
        ):
            up = everyone / (everyone - stars)
            C = up * (scatter - own_scatter) + self.extra
            total = total + up * (slopes - own_slopes).T @ np.linalg.solve(C, own)
        return np.asarray(total)

    def pull(self, sums: Float[np.ndarray, "p k"]) -> Float[np.ndarray, " q"]:
        """What added to the slope of -chi2/2 in the coefficients of `slopes`, at `sums`, makes it -g."""
        return self.slopes.sum(axis=0).T @ np.linalg.solve(
            self.covariance, sums.sum(axis=0)
        ) - self.crossed(sums)
