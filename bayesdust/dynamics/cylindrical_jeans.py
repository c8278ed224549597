"""Accelerations from moments: the Jeans equations of an axisymmetric galaxy, from stars in a ball.

With nu the number density of the stars there are, in equilibrium and without dependence on the azimuth
(Binney & Tremaine 2008, eqs. 4.222a and b),

    a_R = (1/nu) [d(nu <v_R^2>)/dR + d(nu <v_R v_z>)/dz] + (<v_R^2> - <v_phi^2>)/R,
    a_z = (1/nu) [d(nu <v_z^2>)/dz + d(nu <v_R v_z>)/dR] + <v_R v_z>/R.                           (1)

Every product of nu and a moment is a density of weighted stars, and a positive one, as
4 v_R v_z = (v_R + v_z)^2 - (v_R - v_z)^2. About a place its logarithm is a polynomial p of second degree in
(R, z), fitted by local likelihood (Loader 1996, Ann. Statist. 24, 1602): with a kernel K on the (R, z) plane

    sum_i w_i q_i K_i B(u_i) = int K exp(p) B dR dz,                                              (2)

B the monomials, q the moment's square, and w the weight 1/epsilon over the arc [kpc] that the ball has at
the star's R and z, which makes stars per dR dz a density. The gradients in (1) are those of p. Errors are
those of the sums (2), which are of independent stars: the covariance of all of them together goes through
the equations to first order. That of epsilon is not in them, nor is what p leaves out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bayesdust.disc_galaxy import Ball
from bayesdust.errors import BayesdustError

EDGE = 0.95  # of the ball's radius on the (R, z) plane: beyond, arcs are short and weights wild
WIDTHS = np.array([1.5, 0.4])  # kpc
FEWEST = 100  # stars within a kernel, below which there is no answer
_NODES = 12  # of Gauss-Legendre along each side of the kernel
_STEPS = 50  # of Newton's method, which takes about ten
_POWERS = np.array([(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)])

Numbers = Float[np.ndarray, " n"]


class Jeans(NamedTuple):
    """Accelerations at m places and what they are made of; NaN where the stars are too few.

    `a` [(km/s)^2/kpc] holds a_R and a_z, `covariance` is theirs place by place (places within each other's
    kernels share stars); `nu` [1/kpc3] and `moments` [(km/s)^2], <v_R^2>, <v_phi^2>, <v_z^2> and
    <v_R v_z>; `stars` within the kernel.
    """

    a: Float[np.ndarray, "m 2"]
    covariance: Float[np.ndarray, "m 2 2"]
    nu: Float[np.ndarray, " m"]
    moments: Float[np.ndarray, "m 4"]
    stars: Int[np.ndarray, " m"]


def accelerations(
    x: Float[np.ndarray, "n 3"],
    v: Float[np.ndarray, "n 3"],
    places: Float[np.ndarray, "m 2"],
    ball: Ball,
    weights: Numbers | None = None,
    widths: Float[np.ndarray, "*m 2"] = WIDTHS,
) -> Jeans:
    """a_R and a_z by (1) at `places` (R, z) [kpc] from stars at x [kpc] with velocities v [km/s].

    The stars are those of `ball`, with `weights` such as 1/epsilon; the kernel ends at `widths` (R, z)
    [kpc] from the place, (2,) or (m, 2). Wider ones make errors smaller, and what a second degree leaves
    out larger (2 % of a_z half a kpc above the mocks' disc with the default widths).

    Raises BayesdustError for widths that are not positive, weights that are not, or a place whose
    kernel reaches the ball's edge.
    """
    h = np.broadcast_to(np.asarray(widths, dtype=float), places.shape)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=float)
    if not (h > 0).all() or not (np.isfinite(w) & (w >= 0)).all():
        raise BayesdustError("The kernel's widths must be positive, and weights not negative.")
    for place, width in zip(places, h, strict=True):
        _check_inside(place, width, ball)
    R = np.hypot(x[:, 0], x[:, 1])
    v_R = (x[:, 0] * v[:, 0] + x[:, 1] * v[:, 1]) / R
    v_phi = (x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]) / R
    v_z = v[:, 2]
    squares = np.stack([np.ones(len(R)), v_R, v_phi, v_z, v_R + v_z, v_R - v_z], axis=1) ** 2
    at, shares = np.stack([R, x[:, 2]], axis=1), w / arc(R, x[:, 2], ball)
    found = [_at_place(*one, at, squares, shares) for one in zip(places, h, strict=True)]
    return Jeans(*(np.array(part) for part in zip(*found, strict=True)))


def arc(R: Numbers, z: Numbers, ball: Ball) -> Numbers:
    """Length (n,) [kpc] of the circle of radius R at height z that lies in the ball, zero outside it."""
    near = R**2 + ball.R**2 + (z - ball.centre[2]) ** 2 - ball.radius**2
    return 2 * R * np.arccos(np.clip(near / (2 * R * ball.R), -1.0, 1.0))


def _check_inside(place: np.ndarray, h: np.ndarray, ball: Ball) -> None:
    corner = abs(place - np.array([ball.R, ball.centre[2]])) + h
    if not np.hypot(*corner) <= EDGE * ball.radius or not place[0] > h[0]:
        raise BayesdustError(
            f"The kernel at R = {place[0]:g}, z = {place[1]:g} kpc reaches beyond {EDGE:g} of the ball's "
            f"radius of {ball.radius:g} kpc: take a place farther in, or smaller widths."
        )


def _at_place(
    place: np.ndarray, h: np.ndarray, at: np.ndarray, squares: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, int]:
    """The fields of `Jeans` at one place."""
    u = (at - place) / h
    near = (abs(u) < 1).all(axis=1) & (shares > 0)
    count = int(near.sum())
    if count < FEWEST:
        return np.full(2, np.nan), np.full((2, 2), np.nan), np.nan, np.full(4, np.nan), count
    basis = _basis(u[near]) * (shares[near] * kernel(u[near]))[:, None]
    terms = squares[near][:, :, None] * basis[:, None, :]  # star, field, monomial
    fits = [fit(sums, h) for sums in terms.sum(axis=0)]
    values, inverses = zip(*fits, strict=True)
    spread = np.einsum("fij,nfj->nfi", np.array(inverses), terms)  # what each star does to each p
    p = np.array(values)
    slopes = _slopes(p, place, h)
    pulls = np.einsum("afi,nfi->na", slopes, spread)
    size = np.exp(p[:, 0])
    moments = np.array([*size[1:4], (size[4] - size[5]) / 4]) / size[0]
    return _solve(p, place, h), pulls.T @ pulls, float(size[0]), moments, count


def _basis(u: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 6"]:
    """Monomials B of second degree."""
    return np.prod(u[:, None, :] ** _POWERS, axis=2)


def kernel(u: Float[np.ndarray, "n 2"]) -> Numbers:
    """Epanechnikov's, a product over R and z, one at the middle; u in units of the widths."""
    return np.prod(1 - u**2, axis=1)


def fit(
    sums: Float[np.ndarray, " 6"], h: Float[np.ndarray, " 2"]
) -> tuple[Float[np.ndarray, " 6"], Float[np.ndarray, "6 6"]]:
    """p (6,) of (2), and the inverse of its matrix: the change of p with the sums.

    By Newton's method on the local likelihood, which is concave. Raises BayesdustError where that does
    not settle: the stars lie in a part of the kernel only.
    """
    t, w = np.polynomial.legendre.leggauss(_NODES)
    u = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
    B, volume = _basis(u), np.outer(w, w).ravel() * kernel(u) * np.prod(h)
    p = np.zeros(6)
    p[0] = np.log(sums[0] / volume.sum())

    def gain(p: np.ndarray) -> float:
        return float(sums @ p - volume @ np.exp(np.minimum(B @ p, 700.0)))

    for _ in range(_STEPS):
        density = volume * np.exp(B @ p)
        matrix = (B * density[:, None]).T @ B
        left = sums - B.T @ density
        step = np.linalg.solve(matrix, left)
        if step @ left < 1e-9 * sums[0]:  # the last step leaves its square
            return p + step, np.linalg.inv(matrix)
        size = 1.0
        while gain(p + size * step) < gain(p) and size > 1e-6:
            size /= 2
        p = p + size * step
    raise BayesdustError("The density within a kernel cannot be fitted: take larger widths.")


def _solve(
    p: Float[np.ndarray, "6 6"], place: np.ndarray, h: np.ndarray
) -> Float[np.ndarray, " 2"]:
    """(1), with the fields of `accelerations` in order."""
    size = np.exp(p[:, 0] - p[0, 0])
    by_R, by_z = size * p[:, 1] / h[0], size * p[:, 2] / h[1]
    mixed, mixed_R, mixed_z = ((f[4] - f[5]) / 4 for f in (size, by_R, by_z))
    a_R = by_R[1] + mixed_z + (size[1] - size[2]) / place[0]
    return np.array([a_R, by_z[3] + mixed_R + mixed / place[0]])


def _slopes(p: np.ndarray, place: np.ndarray, h: np.ndarray) -> Float[np.ndarray, "2 6 6"]:
    """Derivatives of `_solve` with respect to p, by central differences of a smooth function."""
    slopes = np.zeros((2, 6, 6))
    for f in range(6):
        for i in range(3):
            shift = np.zeros((6, 6))
            shift[f, i] = 1e-4
            slopes[:, f, i] = (_solve(p + shift, place, h) - _solve(p - shift, place, h)) / 2e-4
    return slopes
