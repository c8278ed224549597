"""Stars with Cartesian coordinates: formats, the ball, weights, what is refused; Gaia's by the same door."""

import hashlib
import io
import pickle

import numpy as np
import pytest
from astropy.table import Table
from gaia_tables import sentence, stars

import bayesdust as bd
from bayesdust.catalogs.cartesian import read_milky_way
from bayesdust.catalogs.cuts import giants
from bayesdust.catalogs.frames import SolarFrame
from bayesdust.catalogs.gaia import read_gaia

NAMES = ("x", "y", "z", "vx", "vy", "vz")


def mock(n: int = 150, seed: int = 0) -> dict[str, np.ndarray]:
    """Stars within 3 kpc of the Sun, moving with the disc."""
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=(n, 3))
    unit *= (3.0 * rng.uniform(size=n) ** (1.0 / 3.0) / np.linalg.norm(unit, axis=1))[:, None]
    v = rng.normal((0.0, 220.0, 0.0), 30.0, (n, 3))
    x = unit + SolarFrame().position
    return dict(zip(NAMES, [*x.T, *v.T], strict=True)) | {"epsilon": rng.uniform(0.1, 1.0, n)}


def write_npz(columns, path):
    with path.open("wb") as file:  # savez would add a suffix to a name
        np.savez(file, grid=np.zeros((4, 3)), meta=np.array("text"), **columns)


WRITERS = {
    "npz": write_npz,
    "ECSV": lambda columns, path: Table(columns).write(path, format="ascii.ecsv"),
    "FITS": lambda columns, path: Table(columns).write(path, format="fits"),
    "Parquet": lambda columns, path: Table(columns).write(path, format="parquet"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_stars(tmp_path, kind):
    columns, path = mock(), tmp_path / "stars.dat"
    WRITERS[kind](columns, path)
    got = read_milky_way(path, weights="1/epsilon", radius=3.0)
    np.testing.assert_allclose(got.x, np.stack([columns[k] for k in NAMES[:3]], axis=1))
    np.testing.assert_allclose(got.v, np.stack([columns[k] for k in NAMES[3:]], axis=1))
    np.testing.assert_allclose(got.weights, 1.0 / columns["epsilon"])
    assert got.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert got.source == str(path)
    assert got.radius == 3.0
    np.testing.assert_allclose(got.centre, SolarFrame().position)
    assert got.units["vx"] == "km/s (assumed)"
    assert got.observed is got.covariance is got.cuts is None
    assert pickle.loads(pickle.dumps(got)).n == 150


def test_tables_in_memory_and_other_names_and_units():
    one = read_milky_way(Table(mock()))
    assert one.source == "<table>"
    assert one.sha256 != read_milky_way(Table(mock(seed=1))).sha256
    table = Table(mock())
    table["x"] *= 1000.0
    table["x"].unit = "pc"
    table.rename_column("vx", "U")
    np.testing.assert_allclose(read_milky_way(table, columns={"vx": "U"}).x, one.x, rtol=1e-12)
    assert one.radius is None
    sentence(lambda: one.resampled(0), "no errors")


def test_gaias_columns_come_in_by_the_same_door():
    table = stars({"bp_rp": 0.1}, n=110)
    one, other = read_milky_way(table), read_gaia(table)
    np.testing.assert_array_equal(one.x, other.x)
    assert one.cuts == other.cuts
    assert read_milky_way(table, cuts=(), zero_point=0.0).zero_point == "0 mas"
    near = read_milky_way(table, radius=2.0, fewest=1)
    assert near.radius == 2.0
    assert near.distance.max() <= 2.0 + 1e-12
    assert bd.read_milky_way is read_milky_way


def test_the_columns_decide_or_the_user_is_asked():
    both = stars(n=150)
    for name, values in mock().items():
        both[name] = values
    sentence(lambda: read_milky_way(both), "Gaia's columns and Cartesian ones")
    neither = Table(mock())
    del neither["vz"]
    sentence(lambda: read_milky_way(neither), "(no vz)", "radial_velocity (no ra and dec")
    cartesian = Table(mock())
    for option in ({"cuts": giants()}, {"zero_point": 0.0}):
        sentence(lambda option=option: read_milky_way(cartesian, **option), "for Gaia's columns")
    gaia = stars(n=110)
    sentence(lambda: read_milky_way(gaia, centre=(0.0, 0.0, 0.0)), "centred on the Sun")
    sentence(lambda: read_milky_way(gaia, radius=3.0, cuts=giants()), "radius and cuts")


# What is refused


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", NAMES)
def test_rows_that_are_not_finite_are_refused(tmp_path, column, value):
    columns, path = mock(), tmp_path / "stars.npz"
    columns[column][6] = value
    write_npz(columns, path)
    sentence(lambda: read_milky_way(path), str(path), f"row 7, column {column}", str(value))


def test_a_magnitude_that_is_no_number_is_refused(tmp_path):
    path = tmp_path / "stars.csv"
    light = np.array([f"{i}" for i in range(150)], dtype="U8")
    light[4], light[7] = "--", "12.x"
    Table(mock() | {"G": light}).write(path, format="ascii.csv")
    sentence(lambda: read_milky_way(path), str(path), "row 8, column G", "'12.x' is not a number")
    light[7] = "12"
    Table(mock() | {"G": light}).write(path, format="ascii.csv", overwrite=True)
    assert np.flatnonzero(np.isnan(read_milky_way(path).photometry["G"])).tolist() == [4]


def test_a_magnitude_under_another_name():
    """A column g is no Gaia's G, unless one says so."""
    light = np.linspace(9.0, 13.0, 150)
    table = Table(mock() | {"mag": light, "g": light - 1})
    assert read_milky_way(table).photometry == {}
    np.testing.assert_array_equal(read_milky_way(table, {"G": "mag"}).photometry["G"], light)
    sentence(lambda: read_milky_way(table, {"G": "V"}), "has no column 'V' (wanted for G)")


def test_stars_outside_the_ball_are_refused():
    columns = mock()
    columns["x"][4] += 9.0
    sentence(
        lambda: read_milky_way(Table(columns), radius=3.0),
        "row 5, columns x, y and z",
        "outside its radius of 3 kpc",
    )
    far = read_milky_way(Table(columns), radius=12.5)
    assert far.n == 150
    sentence(lambda: read_milky_way(Table(mock()), radius=3.0, centre=(0, 0, 0)), "149 more")
    for wrong in ({"radius": -1.0}, {"radius": np.nan}, {"centre": (1.0, 2.0)}):
        with pytest.raises(bd.BayesdustError, match="give"):
            read_milky_way(Table(mock()), **wrong)


def test_fifty_stars_are_too_few():
    sentence(lambda: read_milky_way(Table(mock(50))), "holds 50 stars, fewer than 100")
    assert read_milky_way(Table(mock(50)), fewest=50).n == 50


def test_velocities_in_another_unit_are_refused():
    columns = mock()
    columns["vy"] *= 1000.0
    sentence(lambda: read_milky_way(Table(columns)), "row 1, column vy", "state the unit")
    good = read_milky_way(Table(columns), units={"vy": "m/s"})
    np.testing.assert_allclose(good.v[:, 1], mock()["vy"])


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan])
def test_weights_are_positive(wrong):
    columns = mock()
    columns["epsilon"][9] = wrong
    sentence(lambda: read_milky_way(Table(columns), weights="epsilon"), "row 10, column epsilon")


@pytest.mark.parametrize("spec", ["", "1/", " "])
def test_weights_without_a_column_are_refused(spec):
    """Not even where the table has a column of that name by itself."""
    table = Table(mock() | {"weight": np.ones(len(mock()["x"]))})
    sentence(lambda: read_milky_way(table, weights=spec), "name no column", "1/epsilon")


def archive(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


class Trap:
    """Would be heard of if it were unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


BROKEN = {
    "cut short": (lambda: archive(**mock())[:900], "not a NumPy archive"),
    "pickled": (lambda: archive(**mock() | {"vz": np.array([Trap()] * 150)}), "plain numbers"),
    "no x": (lambda: archive(a=np.zeros(3)), "no one-dimensional array x"),
    "two dimensions": (lambda: archive(**mock() | {"x": np.zeros((150, 2))}), "array x"),
    "another length": (lambda: archive(**mock() | {"vy": np.zeros(149)}), "column vy"),
    "empty": (lambda: archive(**{k: np.zeros(0) for k in NAMES}), "no rows"),
    "text": (lambda: archive(**mock() | {"vy": np.full(150, "a")}), "(no vy)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_archives_are_refused(tmp_path, case):
    make, says = BROKEN[case]
    path = tmp_path / "stars.npz"
    path.write_bytes(make())
    sentence(lambda: read_milky_way(path), str(path), says)


def test_files_that_are_not_there():
    sentence(lambda: read_milky_way("nowhere.npz"), "nowhere.npz", "cannot be read")


def test_the_mock_with_dust(data_dir):
    path = data_dir / "milky_way" / "dev_mock_100k.npz"
    got = read_milky_way(path, weights="1/epsilon", radius=4.0)
    assert got.n == 100_000
    assert (got.weights >= 1.0).all()
    # the disc turns towards +y at the Sun's place
    assert np.median(got.v[:, 1]) == pytest.approx(210.0, abs=20.0)
