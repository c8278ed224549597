"""The parallax zero point of Lindegren+2021, by its properties and by numbers worked out by hand."""

import numpy as np
import pytest
from astropy.table import Table

from bayesdust.catalogs.gaia import MARGIN, MARGIN_MAG
from bayesdust.catalogs.zero_point import ecliptic_latitude, lindegren2021, outside

NAN = np.nan


def zero_point(g, nu=NAN, pc=NAN, latitude=0.0):
    return float(lindegren2021(*(np.array([float(a)]) for a in (g, nu, pc, latitude)))[0])


# At the colour 1.48 every c_j but c_0 vanishes, and b = (1, sin, sin^2 - 1/3): q_00 + q_01 sin beta
# + q_02 (sin^2 beta - 1/3) of tables 9 and 10, by hand.
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"g": 6.0, "nu": 1.48}, -26.98 - 27.40 / 3.0),
        ({"g": 13.1, "nu": 1.48}, -37.99 - 16.14 / 3.0),
        ({"g": 13.1, "nu": 1.48, "latitude": 90.0}, -37.99 + 2.63 + 16.14 * 2.0 / 3.0),
        ({"g": 13.1, "nu": 1.48, "latitude": -90.0}, -37.99 - 2.63 + 16.14 * 2.0 / 3.0),
        ({"g": 14.5, "nu": 1.48}, -38.16 - 15.78 / 3.0),  # half way between two rows
        ({"g": 17.5, "nu": 1.48, "latitude": 30.0}, -29.18 - 0.045 + 2.41 * (0.25 - 1.0 / 3.0)),
        # red: c_1 = -0.24, c_2 = 0.24^3, c_3 = -0.04
        (
            {"g": 15.9, "nu": 1.20, "latitude": 0.0},
            -38.33 - 15.42 / 3.0 - 1189.0 * 0.24**3 - 0.04 * 243.8,
        ),
        # blue: c_1 = 0.24, c_4 = 0.08
        ({"g": 13.1, "nu": 1.80}, -37.99 - 16.14 / 3.0 - 5.7 * 0.24 + 104.3 * 0.08),
        ({"g": 11.2, "pc": 1.48}, -26.72 - 9.36 / 3.0),
        # c_1 = -0.1, c_2 = 0.001; b_1 = 1/2, b_2 = -1/12
        (
            {"g": 16.1, "pc": 1.38, "latitude": 30.0},
            -28.37 + 0.995 - 9.28 / 12.0 - 0.1 * (50.4 + 8.6 - 13.7 / 12.0) - 1.351,
        ),
        ({"g": 25.0, "nu": 1.48}, -18.22 + 18.54 / 3.0),  # constant beyond the last row
        ({"g": 3.0, "nu": 1.48}, -26.98 - 27.40 / 3.0),
    ],
)
def test_values_worked_out_by_hand(arguments, expected):
    assert zero_point(**arguments) == pytest.approx(1e-3 * expected, rel=1e-12)


def test_it_is_continuous():
    steps = np.linspace(6.0, 21.0, 3001)
    for nu, pc in ((1.3, NAN), (NAN, 1.3)):
        z = lindegren2021(steps, *(np.full(3001, c) for c in (nu, pc)), np.full(3001, 20.0))
        assert abs(np.diff(z)).max() < 2e-3  # 0.4 mas per mag at most, in steps of 0.005 mag
    colours = np.linspace(1.1, 1.9, 1601)
    full, none = np.full(1601, 14.0), np.full(1601, NAN)
    z = lindegren2021(full, colours, none, np.full(1601, -60.0))
    assert abs(np.diff(z)).max() < 5e-4


def test_unknown_colours_give_no_zero_point():
    assert np.isnan(zero_point(14.0))
    assert np.isnan(zero_point(NAN, nu=1.5))
    assert np.isnan(zero_point(14.0, nu=1.5, latitude=NAN))


def test_quasars_are_offset_by_the_published_mean():
    """Of faint stars around the colour of quasars, near the mean of -0.021 mas of Lindegren+2021."""
    rng = np.random.default_rng(0)
    n = 20_000
    latitude = np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n)))
    z = lindegren2021(rng.normal(19.2, 0.8, n), np.full(n, 1.6), np.full(n, NAN), latitude)
    assert z.mean() == pytest.approx(-0.021, abs=0.006)


def test_the_calibrated_range():
    g = np.array([5.0, 14.0, 14.0, 14.0, 14.0, 22.0])
    nu = np.array([1.5, 1.5, 2.0, NAN, NAN, 1.5])
    pc = np.array([NAN, NAN, NAN, 1.5, 1.8, NAN])
    np.testing.assert_array_equal(outside(g, nu, pc), [True, False, True, False, True, True])


def test_the_margin_of_the_query_is_wider_than_any_zero_point():
    g, nu, b = np.meshgrid(
        np.linspace(3.0, 16.0, 200), np.linspace(1.1, 1.9, 60), np.linspace(-90.0, 90.0, 30)
    )
    flat, none = [a.ravel() for a in (g, nu, b)], np.full(g.size, NAN)
    five = lindegren2021(flat[0], flat[1], none, flat[2])
    colour = np.clip(flat[1], 1.24, 1.72)
    z = np.concatenate([five, lindegren2021(flat[0], none, colour, flat[2])])
    assert abs(z).max() < MARGIN
    # a star at 4 kpc whose parallax shrinks by the largest positive zero point
    assert 5.0 * np.log10((0.25 + max(z.max(), 0.0)) / 0.25) < MARGIN_MAG


def test_ecliptic_latitude_is_that_of_the_catalogue(data_dir):
    from bayesdust.catalogs.tables import read_table

    table: Table = read_table(data_dir / "gaia" / "pyia_gdr3_sm.fits").table
    ra, dec, latitude = (np.asarray(table[k], dtype=float) for k in ("ra", "dec", "ecl_lat"))
    assert abs(ecliptic_latitude(ra, dec) - latitude).max() < 1e-5  # 0.04 arcsec
