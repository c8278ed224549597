"""Tables of stars in: formats, names, units, projection, photometry, real samples."""

import dataclasses
import hashlib
import pickle

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from astropy.wcs import WCS
from dwarf_tables import (
    FORMATS,
    ROUND,
    bare,
    mock,
    offsets,
    real,
    real_photometry,
    sentence,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdust.catalogs.dwarf import circularised_radius, project, read_stars
from bayesdust.catalogs.galaxies import Galaxy, galaxy


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # astropy's own, while writing
def test_every_format_gives_the_same_stars(tmp_path, kind):
    table = mock()
    path = tmp_path / "stars.dat"
    FORMATS[kind](table, path)
    one, other = read_stars(path, "draco"), read_stars(table, "draco")
    for name in ("xi", "eta", "v_los", "v_los_err", "p_member", "theta"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6, atol=1e-9)
    assert one.n == len(table)
    assert one.source == str(path)
    assert one.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert one.warnings == ()


def test_tables_in_memory_are_hashed_by_their_numbers():
    one, two = read_stars(mock(), "draco"), read_stars(bare(mock()), "draco")
    assert one.sha256 == two.sha256 != read_stars(mock(seed=1), "draco").sha256
    assert one.source == "<table>"
    assert one.units["v_los"] == "km / s"
    assert two.units["v_los"] == "km/s (assumed)"
    np.testing.assert_array_equal(read_stars(QTable(mock()), "draco").xi, one.xi)


def test_stars_cannot_be_changed_and_survive_pickling():
    stars = read_stars(mock(), "draco")
    with pytest.raises(ValueError, match="read-only"):
        stars.v_los[0] = 0.0
    assert pickle.loads(pickle.dumps(stars)).galaxy == stars.galaxy


# Names and units


@pytest.mark.parametrize(
    "names",
    [
        ("RAJ2000", "DEJ2000", "HRV", "e_HRV", "Mm"),
        ("_RAJ2000", "_DEJ2000", "RV", "e_RV", "Pmem"),
        ("RA_ICRS", "DE_ICRS", "Vlos", "e_Vlos", "P_MEM"),
        ("RA", "Dec", "v_helio", "v_helio_err", "Mmb"),
        ("Ra", "DEC", "V_LOS", "V_LOS_ERR", "P_Member"),
        ("ra", "dec", "v_los", "RV_error", "pmem"),
    ],
)
def test_common_names_are_found(names):
    table = mock()
    table.rename_columns(table.colnames, names)
    np.testing.assert_array_equal(
        read_stars(table, "draco").p_member, read_stars(mock(), "draco").p_member
    )


def test_columns_and_units_can_be_mapped():
    table = mock()
    expected = read_stars(table, "draco")
    table = bare(table)
    table["speed"] = table["v_los"] * 1000.0
    table["angle"] = np.radians(table["ra"])
    table.remove_columns(["ra"])
    stars = read_stars(
        table,
        "draco",
        columns={"v_los": "speed", "ra": "Angle"},
        units={"v_los": "m/s", "ra": "rad"},
    )
    np.testing.assert_allclose(stars.v_los, expected.v_los)
    np.testing.assert_allclose(stars.xi, expected.xi, atol=1e-12)
    assert stars.units["ra"] == "rad (given)"


def test_the_exact_name_goes_before_an_alias():
    table = mock()
    table["HRV"] = 0.0
    np.testing.assert_array_equal(read_stars(table, "draco").v_los, np.array(table["v_los"]))


def test_sexagesimal_positions():
    table = mock()
    expected = read_stars(table, "draco")
    sky = SkyCoord(table["ra"], table["dec"])
    table["ra"] = sky.ra.to_string(unit="hour", sep=" ", precision=6, pad=True)
    table["dec"] = sky.dec.to_string(sep=":", precision=5, alwayssign=True)
    np.testing.assert_allclose(read_stars(table, "draco").xi, expected.xi, atol=1e-10)
    np.testing.assert_allclose(read_stars(table, "draco").eta, expected.eta, atol=1e-10)


def test_offsets_in_kpc_and_in_angles():
    table = offsets()
    one = read_stars(table, ROUND)
    np.testing.assert_allclose(one.xi * 100.0, table["x"])
    assert one.units["x"] == "kpc (assumed)"
    for unit in ("arcmin", "deg", "rad"):
        other = table.copy()
        for name, angle in (("x", one.xi), ("y", one.eta)):
            other[name] = (angle * u.rad).to(unit)
        np.testing.assert_allclose(read_stars(other, ROUND).xi, one.xi)
    parsecs = read_stars(
        Table({**table, "x": table["x"] * 1e3, "y": table["y"] * 1e3}),
        ROUND,
        units={"x": "pc", "y": "pc"},
    )
    np.testing.assert_allclose(parsecs.eta, one.eta)


def test_positions_on_the_sky_go_before_offsets_unless_named():
    table = mock()
    stars = read_stars(table, "draco")
    table["x"], table["y"] = stars.eta * u.rad, stars.xi * u.rad
    np.testing.assert_array_equal(read_stars(table, "draco").xi, stars.xi)
    np.testing.assert_array_equal(
        read_stars(table, "draco", columns={"x": "x", "y": "y"}).xi, stars.eta
    )


# The tangent plane


@settings(max_examples=100, deadline=None)
@given(
    ra0=st.floats(0.0, 360.0),
    dec0=st.floats(-90.0, 90.0),
    away=st.floats(0.0, 60.0),
    towards=st.floats(0.0, 360.0),
)
def test_the_projection_is_the_tangent_plane_of_astropy(ra0, dec0, away, towards):
    centre = SkyCoord(ra0, dec0, unit="deg")
    star = centre.directional_offset_by(towards * u.deg, away * u.deg)
    xi, eta = project(np.array([star.ra.deg]), np.array([star.dec.deg]), ra0, dec0)
    offset = star.transform_to(centre.skyoffset_frame())
    lon, lat = offset.lon.rad, offset.lat.rad
    np.testing.assert_allclose(xi, np.tan(lon), atol=1e-11)
    np.testing.assert_allclose(eta, np.tan(lat) / np.cos(lon), atol=1e-11)
    np.testing.assert_allclose(np.hypot(xi, eta), np.tan(np.radians(away)), atol=1e-11)


def test_the_projection_is_a_fits_tan_header():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [260.0684, 57.9185]
    wcs.wcs.cdelt = [1.0, 1.0]
    table = mock(n=200)
    x, y = wcs.all_world2pix(np.array(table["ra"]), np.array(table["dec"]), 0)
    stars = read_stars(table, "draco")
    np.testing.assert_allclose(np.degrees(stars.xi), x + 1.0, atol=1e-10)
    np.testing.assert_allclose(np.degrees(stars.eta), y + 1.0, atol=1e-10)


def test_east_is_positive_and_ra_may_wrap():
    one = Galaxy("Zero", distance=80.0, ra=0.0, dec=40.0)
    table = mock()
    table["ra"] = (np.array(table["ra"]) - 260.0684) % 360.0
    table["dec"] = np.array(table["dec"]) - 57.9185 + 40.0
    stars = read_stars(table, one)
    east = np.array(table["ra"]) < 180.0
    assert (stars.xi[east] > 0.0).all()
    assert (stars.xi[~east] < 0.0).all()
    free = read_stars(table, Galaxy("Zero", distance=80.0))
    assert min(free.galaxy.ra, 360.0 - free.galaxy.ra) < 0.2


def test_a_missing_centre_is_the_median_with_a_warning():
    stars = read_stars(mock(n=200), Galaxy("Mine", distance=80.0))
    one = galaxy("draco")
    assert abs(stars.galaxy.dec - one.dec) < 0.05
    assert abs(np.median(stars.eta)) < 3e-4
    assert "no centre is given for Mine" in stars.warnings[0]
    assert stars.galaxy.references["centre"] == "median position of the stars"


@pytest.mark.parametrize("angle", [0.0, 42.7, 90.0, -57.0])
def test_the_half_light_ellipse_maps_to_one_circle(angle):
    one = dataclasses.replace(ROUND, ellipticity=0.4, position_angle=angle)
    t = np.linspace(0.0, 2 * np.pi, 50)
    along, across = one.rhalf * np.cos(t), one.rhalf * 0.6 * np.sin(t)
    pa = np.radians(angle)  # north through east
    xi = along * np.sin(pa) - across * np.cos(pa)
    eta = along * np.cos(pa) + across * np.sin(pa)
    np.testing.assert_allclose(circularised_radius(xi, eta, one), one.rhalf_circularised)


def test_without_a_position_angle_radii_are_plain():
    one = dataclasses.replace(ROUND, ellipticity=0.4)
    stars = read_stars(offsets(), one)
    np.testing.assert_allclose(stars.theta, np.hypot(stars.xi, stars.eta))
    assert "no position angle" in stars.warnings[0]


# Photometry


def test_a_photometric_sample_needs_no_velocities(tmp_path):
    wide = mock(n=300, seed=5)["ra", "dec"]
    wide.write(tmp_path / "phot.csv", format="ascii.csv")
    table = mock()
    table.rename_column("v_los", "speed")
    stars = read_stars(table, "draco", columns={"v_los": "speed"}, photometry=tmp_path / "phot.csv")
    xi, eta, p_member = stars.photometry
    assert xi.shape == eta.shape == (300,)
    assert p_member is None
    assert stars.units["photometry ra"] == "deg (assumed)"
    digest = hashlib.sha256((tmp_path / "phot.csv").read_bytes()).hexdigest()
    assert stars.photometry_sha256 == digest


def test_given_units_hold_for_photometry_only_where_it_states_none():
    stars = bare(offsets())
    stars["x"], stars["y"] = 34.377 * stars["x"], 34.377 * stars["y"]
    wide = QTable({"x": offsets(200, 3)["x"] * u.kpc, "y": offsets(200, 3)["y"] * u.kpc})
    units = {"x": "arcmin", "y": "arcmin"}
    both = read_stars(stars, ROUND, units=units, photometry=wide)
    np.testing.assert_allclose(both.photometry[0] * 100.0, offsets(200, 3)["x"])


# Repeats


def test_close_pairs_only_warn():
    table = mock()
    for name in ("ra", "dec"):
        table[name][30] = table[name][7]
    table["dec"][30] += 0.5 / 3600.0
    (warning,) = read_stars(table, "draco").warnings
    assert "a pair of stars lies within 1 arcsec (rows 8 and 31)" in warning
    table["dec"][30] = table["dec"][7]  # the same place, another velocity
    assert "rows 8 and 31" in read_stars(table, "draco").warnings[0]
    table["dec"][30] += 1.5 / 3600.0
    assert read_stars(table, "draco").warnings == ()


def test_a_hundred_thousand_stars_are_quick():
    table = mock(n=100_000)
    table["ra"][:50_000] = table["ra"][0]  # not quadratic even at one place
    table["dec"][:50_000] = table["dec"][0]
    assert "pairs of stars" in read_stars(table, "draco").warnings[0]


def test_velocities_around_another_value_warn():
    table = mock()
    table["v_los"] = np.asarray(table["v_los"]) + 100.0
    assert "heliocentric" in read_stars(table, "draco").warnings[0]


# Real stars


@pytest.mark.data
@pytest.mark.parametrize(("name", "n"), [("draco", 1565), ("fornax", 2633), ("leo_2", 224)])
def test_real_samples(data_dir, tmp_path, name, n):
    path = tmp_path / "stars.ecsv"
    real(data_dir, name).write(path, format="ascii.ecsv")
    stars = read_stars(path, name)
    assert stars.n == n
    members = stars.p_member > 0.5
    assert np.median(stars.v_los[members]) == pytest.approx(stars.galaxy.v_sys, abs=3.0)
    rhalf = np.radians(stars.galaxy.rhalf_circularised / 60.0)
    assert 0.5 < np.median(stars.theta[members]) / rhalf < 2.0
    pairs = [w for w in stars.warnings if "within 1 arcsec" in w]
    assert len(pairs) == (name == "draco")
    assert len(stars.warnings) == len(pairs)
    assert "deg from Sculptor" in sentence(path, "sculptor")


@pytest.mark.data
def test_real_offsets_agree_with_the_catalogue(data_dir):
    """Columns 2, 3 of the files are offsets from a centre a fraction of an arcmin away."""
    data = np.loadtxt(data_dir / "dwarfs" / "leo2_justin1_spec.dat")
    stars = read_stars(real(data_dir, "leo_2"), "leo_2")
    shift = np.degrees(stars.xi) * 60.0 - data[:, 2]
    assert np.ptp(shift) < 0.005
    assert abs(shift.mean()) < 1.0


@pytest.mark.data
def test_real_photometry(data_dir):
    stars = read_stars(real(data_dir, "leo_2"), "leo_2", photometry=real_photometry(data_dir))
    xi, eta, p_member = stars.photometry
    assert len(xi) == len(eta) == len(p_member) == 4847
    wrong = bare(real_photometry(data_dir))
    assert "'rad'" in sentence(real(data_dir, "leo_2"), "leo_2", photometry=wrong)
