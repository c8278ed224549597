"""Fixed quadrature rules: nodes and weights made once with numpy, used as constants everywhere.

Radial profiles are analytic in ln r inside a strip of half-width about pi/2 around the real axis
(their nearest singularities are those of 1 + (r/r_s)^2 and the like), so rules that are uniform in
ln r, or in a smooth function of it, converge exponentially in the number of nodes.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def half_line(step: float = 0.3, low: float = -3.0, high: float = 32.0) -> tuple[Floats, Floats]:
    """Nodes z (n,) and weights (n,) for the integral of F(z) over [0, inf), F decaying like e^-z.

    z = ln(1 + exp(u - e^-u)): double exponential towards z = 0 (Takahasi & Mori 1974), so that the
    end does not cost accuracy, and uniform beyond, so that structure at any ln(r/r_s) is resolved.
    The trapezoidal rule in u then converges exponentially; the default stops at z = 32.
    """
    u = np.arange(low, high + step / 2, step)
    s = u - np.exp(-u)
    z = np.logaddexp(0.0, s)
    return z, step * (1 + np.exp(-u)) / (1 + np.exp(-s))


def even_trapezoid(step: float = 0.25, count: int = 64) -> tuple[Floats, Floats]:
    """Nodes w (n,) and weights (n,) for the integral over [0, inf) of an even analytic function.

    The trapezoidal rule is spectral for even functions: error exp(-2 pi d / step) for a strip of
    half-width d. It is used after R cosh(w) = r, which removes the 1/sqrt(r^2 - R^2) of every
    line-of-sight integral.
    """
    w = step * np.arange(float(count))
    weights = np.full(count, float(step))
    weights[0] /= 2
    return w, weights


def _lagrange_weights(nodes: Floats, x: Floats) -> Floats:
    """Values (n_x, p) at x of the Lagrange polynomials on nodes (p,)."""
    diff = nodes[:, None] - nodes[None, :]
    np.fill_diagonal(diff, 1.0)
    factors = (x[:, None, None] - nodes[None, None, :]) / diff[None]
    index = np.arange(len(nodes))
    factors[:, index, index] = 1.0
    return factors.prod(axis=-1)


def local_interpolation(count: int, x: Floats, order: int) -> Floats:
    """Matrix (n_x, count) that interpolates values on the integers 0..count-1 at x.

    Each row uses the `order` nodes centred on x (one-sided at the ends); rows for x outside
    [0, count - 1] are zero.
    """
    x = np.asarray(x, dtype=float)
    first = np.clip(np.floor(x).astype(int) - order // 2 + 1, 0, count - order)
    local = _lagrange_weights(np.arange(order, dtype=float), x - first)
    matrix = np.zeros((len(x), count))
    rows = np.arange(len(x))[:, None]
    matrix[rows, first[:, None] + np.arange(order)] = local
    matrix[(x < 0) | (x > count - 1)] = 0.0
    return matrix


def collocation(count: int) -> Floats:
    """Matrix A (count, count) of Gauss collocation on [0, 1]: (A f)_q integrates f from 0 to node q.

    f is the polynomial through its values at the Gauss-Legendre nodes (Hairer, Norsett & Wanner 1993,
    sec. II.7).
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    nodes, weights = (nodes + 1) / 2, weights / 2
    return np.array([c * weights @ _lagrange_weights(nodes, c * nodes) for c in nodes])
