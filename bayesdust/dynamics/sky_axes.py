"""East and north at a star, seen from the galaxy's centre: how one bulk velocity moves every star."""

import numpy as np
from jaxtyping import Float

from bayesdust.units import DEG


def local_axes(
    xi: Float[np.ndarray, " n"], eta: Float[np.ndarray, " n"], dec: float
) -> Float[np.ndarray, "n 2 3"]:
    """East and north at the stars, in the basis (east, north, away from us) of the galaxy's centre.

    `xi`, `eta` [rad] are offsets on the tangent plane, `dec` [deg] is the centre's declination. A galaxy
    of velocity V in that basis gives its star at distance D the proper motion axes @ V/D: exactly, with
    the perspective effects of first order in van der Marel+2002 (AJ 124, 2639, sec. 2) and all beyond, and
    with the turn of north along the parallel. The stars' depths, of some R_half/D, are left out.
    """
    star = np.stack([xi, eta, np.ones_like(xi)], axis=1)
    star /= np.linalg.norm(star, axis=1, keepdims=True)
    pole = np.array([0.0, np.cos(dec * DEG), np.sin(dec * DEG)])
    east = np.cross(pole, star)
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    return np.stack([east, np.cross(star, east)], axis=1)


def outward(axes: Float[np.ndarray, "n 2 3"]) -> Float[np.ndarray, "n 2"]:
    """Unit vectors (east, north) at the stars, away from the centre; east for a star at the centre.

    `axes` as from `local_axes`: what leads to the centre is the part on the sky of its direction.
    """
    return unit(-axes[:, :, 2])


def unit(vectors: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """`vectors` over their lengths; (1, 0) for one without."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 0, vectors / np.where(length > 0, length, 1.0), [1.0, 0.0])
