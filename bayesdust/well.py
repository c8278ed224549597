"""The potential of a spherical halo as a table in ln r whose differences keep their digits.

Psi(q) - Psi(r) is an integral of G M/r over ln r, not a difference of potentials, so that no digit
is lost in a cusp or a core.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline

from bayesdust.errors import BayesdustError

Floats = NDArray[np.float64]

STEP = 0.025  # of tables in ln r
_SMALL_Z = 1e-3  # Psi(q) - Psi(q e^z) is a Taylor series below this z
# integral over one step of the polynomial through the six nodes around it
_PANEL = np.array([11.0, -93.0, 802.0, 802.0, -93.0, 11.0]) / 1440.0


@dataclasses.dataclass(frozen=True, eq=False)
class Well:
    """The potential on a table uniform in ln r [ln kpc]; energies in (km/s)^2.

    `force` is G M/r, `bend` its first two Taylor coefficients over itself; `work_in` and `work_out`
    are integrals of the force over ln r, from inside up to ln r and, as a function of -ln r, from
    infinity down to it (which is Psi).
    """

    ln_r: Floats
    force: BSpline
    bend: BSpline
    work_in: BSpline
    work_out: BSpline
    middle: float  # the ln r where the two are equal

    def depth(self, ln_q: Floats, z: Floats) -> Floats:
        """Psi(q) - Psi(q e^z) for z >= 0, to about round-off; shapes broadcast."""
        end = np.minimum(ln_q + z, self.ln_r[-1])
        # each antiderivative is used where it is small, so that the difference keeps its digits
        inner = ln_q < self.middle
        far = self._work(end, np.broadcast_to(inner, end.shape)) - self._work(ln_q, inner)
        first, second = np.moveaxis(self.bend(ln_q), -1, 0)
        near = self.force(ln_q) * z * (1 + z * (first / 2 + z * second / 3))
        return np.where(z < _SMALL_Z, near, far)

    def _work(self, ln_r: Floats, inner: NDArray[np.bool_]) -> Floats:
        work = np.empty(ln_r.shape)
        work[inner] = self.work_in(ln_r[inner])
        work[~inner] = -self.work_out(-ln_r[~inner])
        return work

    def psi(self, ln_r: Floats) -> Floats:
        """Psi = -Phi, zero at infinity."""
        return self.work_out(-ln_r)

    def label(self, Q: Floats) -> Floats:
        """ln q with Psi(q) = Q > 0: a table look-up and three Newton steps."""
        ln_q = np.interp(-np.log(Q), -np.log(self.psi(self.ln_r)), self.ln_r)
        for _ in range(3):
            ln_q = ln_q + (self.psi(ln_q) - Q) / self.force(ln_q)
            ln_q = np.clip(ln_q, self.ln_r[0], self.ln_r[-1])
        return ln_q


def tabulate(x: Floats, shell: Floats, names: str) -> tuple[Well, Floats]:
    """The potential, and Taylor coefficients (k, n) of the force over itself, from 4 pi G r^2 rho.

    G M = int 4 pi G r^3 rho dln r, and dV/dln r = 4 pi G r^2 rho - V for V = G M/r.
    Raises BayesdustError, with `names`, where the potential has no zero at infinity.
    """
    force = cumulative(shell[0] * np.exp(x)) * np.exp(-x)
    rows = [force]
    for k, row in enumerate(shell):
        rows.append((row - rows[-1]) / (k + 1))
    bend = np.array(rows) / force
    decay = -bend[1, -1]
    if not (np.isfinite(bend).all() and decay > 0.05):
        raise BayesdustError(
            f"{names}: its potential has no zero at infinity: use a halo steeper than r^-2"
        )
    spline = make_interp_spline(x, force, k=5)
    outward = make_interp_spline(-x[::-1], force[::-1], k=5).antiderivative()
    outward.c += force[-1] / decay
    inward = spline.antiderivative()
    middle = x[np.argmax(inward(x) > outward(-x))]
    return Well(
        ln_r=x,
        force=spline,
        bend=make_interp_spline(x, bend[1:3].T, k=5),
        work_in=inward,
        work_out=outward,
        middle=float(middle),
    ), bend


def cumulative(values: Floats, step: float = STEP) -> Floats:
    """Integral from -infinity of positive `values` (n,) on uniform nodes, exponential below."""
    rise = values[1] / values[0]
    fall = values[-1] / values[-2] if values[-2] > 0 else 0.0
    inner, outer = values[0] * rise ** np.array([-2.0, -1.0]), values[-1] * fall ** np.arange(1, 3)
    panels = step * np.convolve(np.concatenate([inner, values, outer]), _PANEL, mode="valid")
    # a polynomial can undershoot where values fall steeply: keep every step positive
    panels = np.maximum(panels, 0.9 * step * np.minimum(values[1:], values[:-1]))
    below = values[0] * step / np.log(rise)
    return np.cumsum(np.concatenate([[below], panels]))
