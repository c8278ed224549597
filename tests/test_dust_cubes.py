"""Cubes of dust: the integral against closed forms and other quadrature, the layouts, what is refused."""

import gzip
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dust_cubes import density_of, write_fits, write_hdf5
from scipy.integrate import quad
from scipy.interpolate import RegularGridInterpolator

from bayesdust import hdf5_files
from bayesdust.catalogs.dust import A_G, DustCube, read_dust_cube
from bayesdust.catalogs.frames import SolarFrame
from bayesdust.dusty_mocks import SUN, Dust, clouds
from bayesdust.errors import BayesdustError
from bayesdust.hdf5_files import check_hdf5

SHAPE, PLACE, STEPS = (9, 12, 7), (3.3, 5.0, 2.75), (0.5, 0.4, 0.3)
CORNER = -np.array(PLACE) * STEPS
FAR = (np.array(SHAPE) - 1 - PLACE) * STEPS


def cube_of(density, band=1.0):
    return DustCube(jnp.asarray(density), PLACE, STEPS, band)


def grid():
    """Offsets of the points from the Sun, (nx, ny, nz, 3) kpc."""
    axes = [c + s * np.arange(n) for c, s, n in zip(CORNER, STEPS, SHAPE, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


@pytest.fixture(scope="module")
def offsets():
    """Anywhere in the cube, and where rays are special: on planes of points, along axes, nowhere."""
    rng = np.random.default_rng(0)
    inside = rng.uniform(CORNER, FAR, (200, 3))
    on_planes = CORNER + np.array(STEPS) * rng.integers(0, SHAPE, (20, 3))
    along = np.concatenate([np.diag(FAR), np.diag(CORNER)])
    return np.concatenate([inside, on_planes, along, np.zeros((1, 3))])


# The integral


def test_the_integral_of_polynomials(offsets):
    """What trilinear interpolation reproduces: 1, x, xy and xyz, whose integrals along a ray are known."""
    p = grid()
    d = np.linalg.norm(offsets, axis=1)
    x, y, z = offsets.T
    ones = np.ones(SHAPE)
    for density, wanted in (
        (ones, d),
        (2 + p[..., 0] / 4, d * (2 + x / 8)),
        (9 + p[..., 0] * p[..., 1], d * (9 + x * y / 3)),
        (9 + p.prod(axis=-1), d * (9 + x * y * z / 4)),
    ):
        found = cube_of(density * 1e-3).extinction(offsets)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def test_the_integral_is_that_of_other_quadrature(offsets):
    density = np.random.default_rng(1).random(SHAPE)
    axes = [c + s * np.arange(n) for c, s, n in zip(CORNER, STEPS, SHAPE, strict=True)]
    other = RegularGridInterpolator(axes, density, bounds_error=False, fill_value=None)
    found = np.asarray(cube_of(density * 1e-3).extinction(offsets[:25]))
    for A, offset in zip(found, offsets[:25], strict=True):
        with np.errstate(divide="ignore"):
            kinks = np.concatenate([axis / o for axis, o in zip(axes, offset, strict=True)])
        edges = np.unique(np.clip(np.append(kinks, [0.0, 1.0]), 0.0, 1.0))
        along = lambda t, o=offset: other(t * o)[0]  # noqa: E731
        pieces = [quad(along, a, b, epsabs=1e-13)[0] for a, b in pairwise(edges)]
        assert np.linalg.norm(offset) * sum(pieces) == pytest.approx(A, rel=1e-10)


def test_behind_a_face_the_integral_stops_and_says_so(offsets):
    cube = cube_of(np.full(SHAPE, 1e-3))
    directions = offsets[:200] / np.linalg.norm(offsets[:200], axis=1, keepdims=True)
    leaves = np.min(np.where(directions > 0, FAR, CORNER) / directions, axis=1)
    for times in (0.999, 1.001, 5.0):
        places = directions * (times * leaves)[:, None]
        wanted = leaves * min(times, 1.0)
        np.testing.assert_allclose(cube.extinction(places), wanted, rtol=1e-12)
        assert np.all(np.asarray(cube.beyond(places)) == (times > 1))


def test_a_point_many_points_and_vmap_agree(offsets):
    cube = cube_of(np.random.default_rng(2).random(SHAPE) * 1e-3)
    many = cube(offsets)
    others = {
        "vmap": jax.jit(jax.vmap(cube.extinction))(offsets),
        "one by one": [cube.extinction(offset) for offset in offsets[:20]],
        "a grid": cube(offsets[:220].reshape(4, 55, 3)).ravel(),
    }
    for found in others.values():
        np.testing.assert_allclose(found, many[: len(found)], rtol=1e-13)
    slope = jax.grad(cube.extinction)(offsets[3])
    step = 1e-6 * np.eye(3)
    other = [(cube(offsets[3] + h) - cube(offsets[3] - h)) / 2e-6 for h in step]
    np.testing.assert_allclose(slope, other, rtol=1e-6)


def test_the_band_scales():
    offset = np.array([1.0, 0.5, 0.2])
    density = np.random.default_rng(3).random(SHAPE)
    assert float(cube_of(density, 0.5)(offset)) == pytest.approx(
        0.5 * float(cube_of(density)(offset))
    )
    with pytest.raises(BayesdustError, match="above 0"):
        cube_of(density, 0.0)


def test_the_error_of_clouds_keeps_to_its_bound():
    """step^2/8 (|d_xx| + |d_yy| + |d_zz|) d, of one cloud; a fourth of the error with half the step."""
    size, peak = 0.3, 1.0
    cloud = Dust(SUN[None] + [[1.0, 0.4, 0.1]], np.array([size]), np.array([peak]), strength=0.0)
    rng = np.random.default_rng(4)
    offsets = rng.uniform(-1, 1, (300, 3)) * [1.9, 1.9, 0.9]
    exact, d = cloud.extinction(offsets + SUN), np.linalg.norm(offsets, axis=1)
    errors = []
    for step, points in ((0.1, (41, 41, 21)), (0.05, (81, 81, 41))):
        middle = tuple((n - 1) / 2 for n in points)
        density = density_of(cloud, [step] * 3, points)
        found = DustCube(jnp.asarray(density), middle, (step,) * 3)(offsets)
        errors.append(abs(found - exact))
        # the second derivative of a Gaussian is largest in its middle; cells are single precision
        assert np.all(errors[-1] < 3 * step**2 / 8 * peak / size**2 * d + 1e-6)
    assert errors[0].mean() / errors[1].mean() == pytest.approx(4.0, rel=0.15)


def test_the_axes_of_the_cube_are_galactic():
    """Clouds of a mock, at Galactocentric places, are seen through its cube; a mirrored one is another."""
    dust = clouds()
    density = density_of(dust, (0.05, 0.05, 0.02), (121, 121, 61))
    offsets = np.random.default_rng(5).uniform(-1, 1, (300, 3)) * [2.5, 2.5, 0.5]
    exact = dust.extinction(offsets + SUN)
    for flip, passes in ((slice(None), True), (slice(None, None, -1), False)):
        cube = DustCube(jnp.asarray(density[:, flip]), (60.0, 60.0, 30.0), (0.05, 0.05, 0.02))
        # three cells of 0.1 kpc across the narrowest cloud's sd, and the kink of the layer
        rms = np.sqrt(np.mean((np.asarray(cube(offsets)) - exact) ** 2))
        assert (rms < 0.02 * exact.std()) == passes
        assert passes or rms > 0.5 * exact.std()


def test_the_tilt_that_is_neglected():
    """Between Galactic and Galactocentric axes there are 0.147 degrees, 6.4 pc at 2.5 kpc."""
    from astropy.coordinates import SkyCoord

    poles = SkyCoord([0.0, 90.0, 0.0], [0.0, 0.0, 90.0], unit="deg", frame="galactic").icrs
    turn = SolarFrame().rotation @ poles.cartesian.xyz.value
    angle = np.arccos((np.trace(turn) - 1) / 2)
    assert np.degrees(angle) == pytest.approx(0.147, abs=5e-4)
    assert 2500 * angle < 6.5


# Files


@pytest.fixture(scope="module")
def density():
    return np.random.default_rng(6).random((9, 12, 4)).astype(np.float32) * 1e-2


SUN_PLACE = (3.5, 5.0, 1.5)


def wcs(unit):
    """Keywords of linear coordinates, in place of STEP and SUN_POS."""
    size = {"pc": 1.0, "kpc": 1e-3}[unit]
    keys = dict.fromkeys(("STEP", "SUN_POSX", "SUN_POSY", "SUN_POSZ"))
    for n, place in enumerate(SUN_PLACE, 1):
        keys |= {f"CRPIX{n}": 1.0, f"CRVAL{n}": -place * 20 * size, f"CDELT{n}": 20 * size}
    return keys | {f"CUNIT{n}": unit for n in (1, 2, 3)}


WRITERS = {
    "Lallement+2022": write_fits,
    "an extension": lambda *a: write_fits(*a, extension=True),
    "no unit": lambda *a: write_fits(*a, UNIT=None),
    "wcs in pc": lambda *a: write_fits(*a, **wcs("pc")),
    "wcs in kpc": lambda *a: write_fits(*a, **wcs("kpc")),
    "Lallement+2019": write_hdf5,
    "G-Tomo": lambda *a: write_hdf5(*a, name="explore/cube_datas"),
    "another name": lambda *a: write_hdf5(*a, name="map"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_is_the_same_cube(tmp_path, density, layout, packed):
    path = WRITERS[layout](tmp_path / "cube", density, SUN_PLACE, 20.0)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    cube = read_dust_cube(path, band=0.9)
    np.testing.assert_array_equal(cube.density, density)
    np.testing.assert_allclose(cube.sun, SUN_PLACE, rtol=1e-12)
    np.testing.assert_allclose(cube.step, 0.02, rtol=1e-12)
    assert (cube.band, cube.source, len(cube.sha256)) == (0.9, str(path), 64)
    assert read_dust_cube(path).band == A_G


def holed(density, value):
    bad = density.copy()
    bad[1, 2, 3] = value
    return bad


def fits_with(**more):
    return lambda path, density: write_fits(path, density, SUN_PLACE, 20.0, **more)


def hdf5_with(**more):
    return lambda path, density: write_hdf5(path, density, SUN_PLACE, 20.0, **more)


def cells(change):
    return lambda path, density: write_fits(path, change(density), SUN_PLACE, 20.0)


def cut_short(path, density):
    fits_with()(path, density)
    path.write_bytes(path.read_bytes()[:4000])


def garbage(path, density):
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))


def table(path, density):
    from astropy.table import Table

    Table({"x": [1.0, 2.0]}).write(path, format="fits")


def pickled(path, density):
    import pickle

    path.write_bytes(pickle.dumps(density))


BAD = {
    "nothing there": (lambda path, density: None, ["cannot be read"]),
    "a pickle": (pickled, ["neither FITS nor HDF5"]),
    "text": (lambda path, density: path.write_text("x,y\n1,2\n"), ["neither FITS nor HDF5"]),
    "cut short": (cut_short, ["damaged"]),
    "not really HDF5": (garbage, ["damaged"]),
    "broken gzip": (lambda path, density: path.write_bytes(b"\x1f\x8b123"), ["damaged"]),
    "a table": (table, ["no cube"]),
    "an image": (cells(lambda d: d[0]), ["no cube", "images of 2 axes"]),
    "four axes": (cells(lambda d: d[None]), ["no cube", "images of 4 axes"]),
    "hdf5, two axes": (lambda p, d: write_hdf5(p, d[0], SUN_PLACE, 20.0), ["no cube"]),
    "no step": (fits_with(STEP=None), ["no STEP", "CRPIXn"]),
    "no sun": (fits_with(SUN_POSX=None, SUN_POSZ=None), ["no SUN_POSX and no SUN_POSZ"]),
    "words": (fits_with(STEP="ten"), ["STEP is", "finite numbers"]),
    "hdf5, no step": (hdf5_with(gridstep_values=None), ["no attribute gridstep_values"]),
    "hdf5, no sun": (hdf5_with(sun_position=None), ["no attribute sun_position"]),
    "hdf5, two steps": (hdf5_with(gridstep_values=[5.0, 5.0]), ["three finite numbers"]),
    "wcs backwards": (fits_with(**wcs("pc") | {"CDELT2": -20.0}), ["positive CDELTn"]),
    "wcs in degrees": (fits_with(**wcs("pc") | {"CUNIT1": "deg"}), ["CUNITn is deg and pc"]),
    "nano": (fits_with(UNIT="nanomag/pc"), ["its unit is nanomag/pc"]),
    "kpc": (hdf5_with(values_unit="mag/kpc"), ["its unit is mag/kpc"]),
    "no step at all": (fits_with(STEP=0.0), ["steps above 0"]),
    "a sun outside": (fits_with(SUN_POSX=50.0), ["the Sun is at (49.5, 5, 1.5)", "9 x 12 x 4"]),
    "a sheet": (cells(lambda d: d[:, :, 1:2]), ["9 x 12 x 1", "two points"]),
    "a hole": (cells(lambda d: holed(d, np.nan)), ["1 of 432 cells are not finite", "2, 3, 4"]),
    "infinite": (cells(lambda d: holed(d, np.inf)), ["not finite", "2, 3, 4"]),
    "below zero": (cells(lambda d: holed(d, -1e-4)), ["are negative", "2, 3, 4", "-0.0001"]),
    "a wrong unit": (cells(lambda d: d * 1e9), ["above 10 mag/pc"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_cube_is_refused_in_one_sentence(tmp_path, density, case):
    write, words = BAD[case]
    path = tmp_path / "bad"
    write(path, density)
    with pytest.raises(BayesdustError) as error:
        read_dust_cube(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(BayesdustError, match="is a directory"):
        read_dust_cube(tmp_path)


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path, density):
    import h5py

    write_hdf5(tmp_path / "other.h5", density, SUN_PLACE, 20.0)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["stilism/cube_datas"] = h5py.ExternalLink(
            str(tmp_path / "other.h5"), "stilism/cube_datas"
        )
    with pytest.raises(BayesdustError, match="no cube"):
        read_dust_cube(tmp_path / "link.h5")


def test_a_file_that_hdf5_does_not_come_back_from(tmp_path, monkeypatch):
    """An object of no size in the heap of its texts: the library looks for the next one for ever."""
    path = tmp_path / "cube.h5"
    write_hdf5(path, np.full((5, 6, 4), 1e-3, np.float32), (2, 3, 2), 10.0)
    whole = path.read_bytes()
    check_hdf5(whole, "cube.h5")
    at = whole.index(b"magnitude/parsec")
    path.write_bytes(whole[: at - 8] + bytes(24) + whole[at + 16 :])
    monkeypatch.setattr(hdf5_files, "SECONDS", 2.0)
    with pytest.raises(BayesdustError, match="HDF5 library does not come back from it"):
        read_dust_cube(path)
    monkeypatch.undo()
    check_hdf5(whole, "cube.h5")  # by another process: the last one was killed
    hdf5_files._READER.end()
    monkeypatch.setattr(hdf5_files, "_LOOK", "import os, sys; sys.stdin.buffer.read(9); os.abort()")
    with pytest.raises(BayesdustError, match="does not come back"):  # nor from a crash
        check_hdf5(whole, "cube.h5")
