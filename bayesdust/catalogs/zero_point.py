"""The zero point of Gaia (E)DR3 parallaxes by magnitude, colour and ecliptic latitude.

Lindegren et al. 2021 (A&A 649, A4), appendix A, with the coefficients of their tables 9 (five-parameter
solutions) and 10 (six-parameter solutions), in microarcseconds:

    Z = sum_jk q_jk(G) c_j(nu) b_k(beta)

q_jk is interpolated linearly in G between the rows and constant beyond them; nu is
nu_eff_used_in_astrometry or, for six-parameter solutions, pseudocolour [1/um]. The corrected parallax is
the catalogue's minus Z. The numbers were compared with two independent copies of the authors' own
coefficient files (version 200720).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from bayesdust.units import ARCSEC, DEG

Numbers = Float[np.ndarray, " n"]

FIVE, SIX = 31, 95  # astrometric_params_solved
G_RANGE = (6.0, 21.0)
COLOUR_RANGE = {FIVE: (1.1, 1.9), SIX: (1.24, 1.72)}  # 1/um
OBLIQUITY = 84381.411 * ARCSEC  # of the ecliptic at J2000; gives the column ecl_lat to 0.03 arcsec


class _Table(NamedTuple):
    """Coefficients q[row, column] at the magnitudes `g`, for the products c_j b_k of `basis`."""

    basis: list[tuple[int, int]]
    q: np.ndarray


_G = np.array([6.0, 10.8, 11.2, 11.8, 12.2, 12.9, 13.1, 15.9, 16.1, 17.5, 19.0, 20.0, 21.0])
_TABLE_9 = _Table(
    [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0)],
    np.array(
        [
            [-26.98, -9.62, 27.40, -25.1, 0.0, -1257.0, 0.0, 0.0],
            [-27.23, -3.07, 23.04, 35.3, 15.7, -1257.0, 0.0, 0.0],
            [-30.33, -9.23, 9.08, -88.4, -11.8, -1257.0, 0.0, 0.0],
            [-33.54, -10.08, 13.28, -126.7, 11.6, -1257.0, 0.0, 0.0],
            [-13.65, -0.07, 9.35, -111.4, 40.6, -1257.0, 0.0, 0.0],
            [-19.53, -1.64, 15.86, -66.8, 20.6, -1257.0, 0.0, 0.0],
            [-37.99, 2.63, 16.14, -5.7, 14.0, -1257.0, 107.9, 104.3],
            [-38.33, 5.61, 15.42, 0.0, 18.7, -1189.0, 243.8, 155.2],
            [-31.05, 2.83, 8.59, 0.0, 15.5, -1404.0, 105.5, 170.7],
            [-29.18, -0.09, 2.41, 0.0, 24.5, -1165.0, 189.7, 325.0],
            [-18.40, 5.98, -6.46, 0.0, 5.5, 0.0, 0.0, 276.6],
            [-12.65, -4.57, -7.46, 0.0, 97.9, 0.0, 0.0, 0.0],
            [-18.22, -15.24, -18.54, 0.0, 128.2, 0.0, 0.0, 0.0],
        ]
    ),
)
_TABLE_10 = _Table(
    [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)],
    np.array(
        [
            [-27.85, -7.78, 27.47, -32.1, 14.4, 9.5, -67.0],
            [-28.91, -3.57, 22.92, 7.7, 12.6, 1.6, -572.0],
            [-26.72, -8.74, 9.36, -30.3, 5.6, 17.2, -1104.0],
            [-29.04, -9.69, 13.63, -49.4, 36.3, 17.7, -1129.0],
            [-12.39, -2.16, 10.23, -92.6, 19.8, 27.6, -365.0],
            [-18.99, -1.93, 15.90, -57.2, -8.0, 19.9, -554.0],
            [-38.29, 2.59, 16.20, -10.5, 1.4, 0.4, -960.0],
            [-36.83, 4.20, 15.76, 22.3, 11.1, 10.0, -1367.0],
            [-28.37, 1.99, 9.28, 50.4, 17.2, 13.7, -1351.0],
            [-24.68, -1.37, 3.52, 86.8, 19.8, 21.3, -1380.0],
            [-15.32, 4.01, -6.03, 29.2, 14.1, 0.4, -563.0],
            [-13.73, -10.92, -8.30, -74.4, 196.4, -42.0, 536.0],
            [-29.53, -20.34, -18.74, -39.5, 326.8, -262.3, 1598.0],
        ]
    ),
)


def lindegren2021(g: Numbers, nu_eff: Numbers, pseudocolour: Numbers, ecl_lat: Numbers) -> Numbers:
    """Zero point Z [mas], (n,), to be subtracted from the catalogue's parallax.

    Parameters
    ----------
    g : phot_g_mean_mag; nu_eff, pseudocolour : 1/um, of which the catalogue gives the first for five-
        and the second for six-parameter solutions; ecl_lat : deg

    NaN where a quantity that is needed is NaN. Outside `G_RANGE` and `COLOUR_RANGE` the formula is
    applied as it stands, though it was not calibrated there (`outside`).
    """
    five = np.isfinite(nu_eff)
    sin_b = np.sin(ecl_lat * DEG)
    parts = [
        _evaluate(table, g, colour, sin_b)
        for table, colour in ((_TABLE_9, nu_eff), (_TABLE_10, pseudocolour))
    ]
    return np.where(five, *parts) * 1e-3


def _evaluate(table: _Table, g: Numbers, nu: Numbers, sin_b: Numbers) -> Numbers:
    """Z [microarcsec]: the sum over the basis functions c_j and b_k of appendix A."""
    c = (
        np.ones_like(nu),
        np.clip(nu - 1.48, -0.24, 0.24),
        np.clip(1.48 - nu, 0.0, 0.24) ** 3,
        np.minimum(nu - 1.24, 0.0),
        np.maximum(nu - 1.72, 0.0),
    )
    b = (np.ones_like(sin_b), sin_b, sin_b**2 - 1.0 / 3.0)
    z = np.where(np.isnan(nu), np.nan, 0.0)
    for column, (j, k) in enumerate(table.basis):
        z = z + np.interp(g, _G, table.q[:, column]) * c[j] * b[k]
    return z


def outside(g: Numbers, nu_eff: Numbers, pseudocolour: Numbers) -> Bool[np.ndarray, " n"]:
    """Stars beyond the magnitudes and colours for which the zero point was calibrated, (n,)."""
    five = np.isfinite(nu_eff)
    colour = np.where(five, nu_eff, pseudocolour)
    low, high = (
        np.where(five, one, other)
        for one, other in zip(COLOUR_RANGE[FIVE], COLOUR_RANGE[SIX], strict=True)
    )
    return (g < G_RANGE[0]) | (g > G_RANGE[1]) | (colour < low) | (colour > high)


def ecliptic_latitude(ra: Numbers, dec: Numbers) -> Numbers:
    """Ecliptic latitude [deg], (n,), of ICRS directions [deg], as in Gaia's column ecl_lat."""
    a, d = ra * DEG, dec * DEG
    sine = np.cos(OBLIQUITY) * np.sin(d) - np.sin(OBLIQUITY) * np.cos(d) * np.sin(a)
    return np.arcsin(np.clip(sine, -1.0, 1.0)) / DEG
