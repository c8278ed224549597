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

A covariance from few stars also makes an answer too sure of itself: C^-1 is too large in the mean, and sums
weighed by a wrong C are not weighed best (Hartlap, Simon & Schneider 2007, A&A 464, 399; Dodelson & Schneider
2013, Phys. Rev. D 88, 063537). With the levers A_j = F_-j^T C_-j^-1 the variance and the slope of g are

    V = sum_j A_j C_j A_j^T,        I = sum_j A_j F_j,                                           (2)

and C is taken as tr(I^-1 V)/q times itself, so that for q coefficients V = I in the mean, as it is of a known
C: the slope of the likelihood, F^T C^-1 F, is I but for 0.4 % there. For the two forces of 20,000 stars in
270 sums it is 1.2, and is taken for all coefficients, and for what else C holds.
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

    @property
    def inflation(self) -> float:
        """What (2) makes of C, for the coefficients of `slopes`."""
        levers = self._levers()
        slope = np.einsum("pqk,pkr->qr", levers, self.slopes)
        variance = np.einsum("pqk,pkl,prl->qr", levers, self.scatters, levers)
        mean = np.einsum("p,pqk->qk", self.stars / self.stars.sum(), levers)
        variance += mean @ np.broadcast_to(self.extra, self.scatters[0].shape) @ mean.T
        return float(np.trace(np.linalg.solve(slope, variance)) / len(slope))

    def crossed(self, sums: Float[np.ndarray, "p k ..."]) -> Float[np.ndarray, "q ..."]:
        """(1), for one set of `sums` over the parts, or some beside each other."""
        return np.einsum("pqk,pk...->q...", self._levers(), sums)

    def _levers(self) -> Float[np.ndarray, "p q k"]:
        """A_j of (2)."""
        up = (self.stars.sum() / (self.stars.sum() - self.stars))[:, None, None]
        slopes = up * (self.slopes.sum(axis=0) - self.slopes)
        C = up * (self.scatters.sum(axis=0) - self.scatters) + self.extra
        return np.linalg.solve(C, slopes).swapaxes(1, 2)

    def pull(self, sums: Float[np.ndarray, "p k"]) -> Float[np.ndarray, " q"]:
        """What added to the slope of -chi2/2 in the coefficients of `slopes`, at `sums`, makes it -g."""
        return self.slopes.sum(axis=0).T @ np.linalg.solve(
            self.covariance, sums.sum(axis=0)
        ) - self.crossed(sums)
