"""Stars of Gaia: formats, cuts with known answers, zero point, covariances, bad input, the query."""

import hashlib
import re

import numpy as np
import pytest
from astropy.table import Table
from gaia_tables import CLUMP, sentence, stars

from bayesdust.catalogs import cuts as cut
from bayesdust.catalogs.astrometry import CORRELATIONS, GAIA, Observed
from bayesdust.catalogs.frames import SolarFrame, galactocentric, propagate
from bayesdust.catalogs.gaia import gaia_query, read_gaia
from bayesdust.catalogs.zero_point import lindegren2021
from bayesdust.errors import BayesdustError

WRITERS = {
    "FITS": lambda table, path: table.write(path, format="fits"),
    "Parquet": lambda table, path: table.write(path, format="parquet"),
    "ECSV": lambda table, path: table.write(path, format="ascii.ecsv"),
    "CSV": lambda table, path: table.write(path, format="ascii.csv"),
    "VOTable": lambda table, path: table.write(path, format="votable"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_stars(tmp_path, kind):
    table = stars({"radial_velocity": np.nan}, n=120)
    path = tmp_path / "stars.dat"
    WRITERS[kind](table, path)
    one, other = read_gaia(path), read_gaia(table)
    assert one.n == other.n == 120
    np.testing.assert_allclose(one.x, other.x, rtol=1e-12)
    np.testing.assert_allclose(one.v, other.v, rtol=1e-9)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-9)
    assert one.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert one.source == str(path)
    assert other.source == "<table>"
    assert one.units["parallax"] == ("mas (assumed)" if kind == "CSV" else "mas")


def test_a_parquet_file_without_astropys_metadata(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = stars({"radial_velocity": np.nan}, n=120)
    columns = {
        k: [None if np.ma.is_masked(c) else float(c) for c in table[k]] for k in table.columns
    }
    pq.write_table(pa.table(columns), tmp_path / "stars.parquet")
    np.testing.assert_array_equal(read_gaia(tmp_path / "stars.parquet").x, read_gaia(table).x)


def test_vizier_names_and_other_units():
    table = stars(n=120)
    table["parallax"] = table["parallax"].to("arcsec")
    names = {"ra": "RA_ICRS", "dec": "DE_ICRS", "parallax": "Plx", "radial_velocity": "RV"}
    names |= {"pmdec": "pmDE", "parallax_error": "e_Plx", "grvs_mag": "GRVSmag", "bp_rp": "BP-RP"}
    table.rename_columns(list(names), list(names.values()))
    np.testing.assert_allclose(read_gaia(table).x, read_gaia(stars(n=120)).x, rtol=1e-12)
    table["vr"] = table["RV"] * 1000.0
    table["vr"].unit = None
    same = read_gaia(table, columns={"radial_velocity": "vr"}, units={"radial_velocity": "m/s"})
    np.testing.assert_allclose(same.v, read_gaia(stars(n=120)).v, rtol=1e-12)
    assert same.units["radial_velocity"] == "m / s (given)"


# Cuts


FATES = {
    "radial_velocity measured": {"radial_velocity": np.nan},
    "astrometry complete": {"pmra": np.nan},
    "parallax zero point known": {"nu_eff_used_in_astrometry": np.nan},
    "parallax > 0": {"parallax": -0.2},
    "parallax_error / parallax < 0.3333": {"parallax_error": 0.4},
    "distance <= 4 kpc": {"parallax": 0.2},
    "grvs_mag < 14": {"grvs_mag": 14.2},
    "absolute grvs_mag < 0.990": {"grvs_mag": 11.2},
    "1 < BP-RP < 3.5 and -5 < M_G < 2.5": {"bp_rp": 0.4},
}


def test_each_cut_removes_what_it_says():
    """One star for each cut, two for the last, that fails it and none before."""
    table = stars(*FATES.values(), {"phot_g_mean_mag": 13.5}, n=110)
    got = read_gaia(table)
    assert [rule for _, rule, _, _ in got.cuts.rows] == list(FATES)
    assert [gone for _, _, gone, _ in got.cuts.rows] == [1] * 8 + [2]
    assert [left for *_, left in got.cuts.rows] == [*range(119, 111, -1), 110]
    assert got.cuts.start == len(table)
    assert got.cuts.left == got.n == 110
    assert got.warnings == ()
    np.testing.assert_array_equal(got.rows, np.arange(1, 111))
    for rule, fate in FATES.items():
        lone = stars(fate, n=100)
        (row,) = [r for r in read_gaia(lone).cuts.as_rows() if r["removed"]]
        assert row == {"name": row["name"], "rule": rule, "removed": 1, "left": 100}


def test_the_report_is_a_table_and_is_logged(caplog):
    with caplog.at_level("INFO", logger="bayesdust"):
        got = read_gaia(stars({"radial_velocity": np.nan}, n=110))
    lines = str(got.cuts).splitlines()
    assert lines[0].split() == ["cut", "removed", "left"]
    assert lines[1].split()[-1] == "111"
    assert lines[2].split() == ["radial_velocity", "measured", "1", "110"]
    assert len({len(line) for line in lines}) == 1
    assert str(got.cuts) in caplog.text


def test_the_absolute_limit_is_that_of_a_star_at_the_edge():
    assert cut.absolute_limit(4.0, 14.0) == pytest.approx(14.0 - 5.0 * np.log10(400.0))
    at_edge = cut.absolute_magnitude(np.array([14.0]), np.array([4.0]))
    assert at_edge[0] == pytest.approx(cut.absolute_limit(4.0, 14.0))


def test_cuts_can_be_changed_left_out_and_made():
    table = stars({"parallax": 0.45, "bp_rp": 0.2}, {"parallax": 0.2}, n=100)
    assert read_gaia(table, cuts=()).n == 102
    assert read_gaia(table, cuts=()).radius is None
    assert read_gaia(table, cuts=()).absolute_limits == {}
    near = read_gaia(table, cuts=cut.giants(radius=1.0, colour=None), fewest=1)
    assert near.radius == 1.0
    assert near.distance.max() <= 1.0 + 1e-12
    assert "absolute grvs_mag < 4.000" in [r["rule"] for r in near.cuts.as_rows()]
    assert near.absolute_limits == {"grvs_mag": pytest.approx(4.0)}
    assert read_gaia(table).absolute_limits == {
        "grvs_mag": pytest.approx(14.0 - 5.0 * np.log10(400.0)),
        "phot_g_mean_mag": 2.5,  # the box of giants
    }
    for radii in ((1.0, 2.5), (2.5, 1.0)):  # the tighter of two
        both = read_gaia(table, cuts=[cut.complete_to(r) for r in radii], fewest=1)
        assert both.absolute_limits == {"grvs_mag": pytest.approx(cut.absolute_limit(2.5, 14.0))}
    south = cut.Cut("south", "dec < 0", ("dec",), lambda star: star["dec"] < 0.0)
    got = read_gaia(table, cuts=[south], fewest=1)
    assert (got.observed.values[:, 1] < 0.0).all()
    g_band = read_gaia(table, cuts=cut.giants(band="phot_g_mean_mag"), fewest=1)
    assert "absolute phot_g_mean_mag < 0.990" in [r["rule"] for r in g_band.cuts.as_rows()]


def test_the_cut_on_quality_uses_the_corrected_parallax():
    table = stars({"parallax": 0.30, "parallax_error": 0.11}, n=100)
    assert read_gaia(table, zero_point=0.0).n == 100
    assert read_gaia(table, zero_point=-0.04).n == 101


def test_a_cut_without_its_column_is_named():
    table = stars(n=110)
    table.remove_columns(["grvs_mag", "parallax_error"])
    got = read_gaia(table)
    assert len(got.cuts.skipped) == 3
    assert "has no column parallax_error, so the cut 'parallax_error / parallax" in got.warnings[0]
    assert "has no column grvs_mag" in got.cuts.skipped[1]
    assert "grvs_mag" not in got.absolute_limits  # a cut that was not made ends nothing
    assert got.covariance is None
    assert "no covariances are propagated" in got.warnings[-1]


def test_nothing_left_and_too_few():
    table = stars(n=110)
    sentence(lambda: read_gaia(table, cuts=[cut.within(0.01)]), "no star is left", "<= 0.01 kpc")
    table["radial_velocity"] = np.nan
    sentence(lambda: read_gaia(table), "no star is left", "'radial_velocity measured'", "110")
    few = stars({"bp_rp": 0.1}, n=50)
    sentence(lambda: read_gaia(few), "50 stars after the cuts (of 51)", "fewer than 100")
    assert read_gaia(few, fewest=50).n == 50


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cut.giants(radius=-1.0), "radius is -1.0"),
        (lambda: cut.giants(parallax_ratio=float("nan")), "parallax_ratio is nan"),
        (lambda: cut.giants(band="V"), "'V' is not known"),
        (lambda: cut.giants(colour=(2.0, 1.0)), "is empty"),
    ],
)
def test_impossible_cuts_are_refused(make, says):
    sentence(make, says)


# Zero point


def test_the_zero_point_is_subtracted():
    table = stars(n=110)
    raw, got = np.asarray(table["parallax"]), read_gaia(table)
    g, nu, latitude = (np.full(110, CLUMP[k]) for k in ("phot_g_mean_mag", *NU_AND_LATITUDE))
    z = lindegren2021(g, nu, np.full(110, np.nan), latitude)
    np.testing.assert_allclose(got.observed.values[:, 2], raw - z, rtol=1e-14)
    np.testing.assert_allclose(got.distance, 1.0 / (raw - z), rtol=1e-9)
    assert got.zero_point == "Lindegren+2021"
    fixed = read_gaia(table, zero_point=-0.017)
    np.testing.assert_allclose(fixed.observed.values[:, 2], raw + 0.017, rtol=1e-14)
    assert fixed.zero_point == "-0.017 mas"
    own = read_gaia(table, zero_point=lambda star: 0.001 * star["bp_rp"])
    np.testing.assert_allclose(own.observed.values[:, 2], raw - 0.0012, rtol=1e-14)


NU_AND_LATITUDE = ("nu_eff_used_in_astrometry", "ecl_lat")


def test_six_parameter_solutions_use_the_pseudocolour():
    six = {"astrometric_params_solved": 95, "pseudocolour": 1.4}
    got = read_gaia(stars({**six, "nu_eff_used_in_astrometry": np.nan}, six, n=100))
    g, pc, latitude = (np.array([v]) for v in (10.5, 1.4, -50.0))
    z = lindegren2021(g, np.array([np.nan]), pc, latitude)
    np.testing.assert_allclose(got.observed.values[100:, 2], 1.0 - z[0], rtol=1e-14)


def test_what_the_zero_point_misses_is_said():
    table = stars(n=110)
    del table["ecl_lat"], table["astrometric_params_solved"]
    assert "ecl_lat, which is computed" in read_gaia(table).warnings[0]
    table["nu_eff_used_in_astrometry"] = 1.95
    assert "110 stars with a radial velocity lie outside" in read_gaia(table).warnings[1]
    del table["pseudocolour"]
    got = read_gaia(table)
    assert "has no column pseudocolour, so the parallax zero point" in got.warnings[0]
    assert got.zero_point == "none"
    for wrong, says in (
        ("dr2", "'dr2' is not known"),
        (np.nan, "number in mas"),
        (lambda star: np.zeros(3), "shape (3,) for 110 stars"),
    ):
        sentence(lambda wrong=wrong: read_gaia(table, zero_point=wrong), says)


# Covariances


def test_the_covariance_is_that_of_the_table():
    got = read_gaia(stars(n=110))
    c = got.observed.covariance
    np.testing.assert_allclose(np.diagonal(c, axis1=1, axis2=2), got.observed.errors**2)
    assert c[0, 0, 2] == pytest.approx(-0.09 * 0.015 * 0.02)  # ra_parallax_corr
    assert c[0, 3, 4] == pytest.approx(0.15 * 0.02 * 0.021)  # pmra_pmdec_corr
    np.testing.assert_array_equal(c[:, :5, 5], 0.0)
    np.testing.assert_allclose(got.covariance, propagate(got.observed.values, c, got.sun))
    np.testing.assert_allclose(got.covariance, got.covariance.transpose(0, 2, 1), atol=1e-12)
    assert np.linalg.eigvalsh(got.covariance).min() > -1e-12


def test_parts_make_no_difference(monkeypatch):
    table = stars(n=130)
    whole = read_gaia(table)
    expected = whole.covariance, whole.resampled(4).x
    monkeypatch.setattr("bayesdust.catalogs.astrometry.PART", 50)
    parts = read_gaia(table)
    np.testing.assert_array_equal(parts.covariance, expected[0])
    np.testing.assert_array_equal(parts.resampled(4).x, expected[1])


def test_missing_correlations_are_zero_and_named():
    table = stars(n=110)
    table.remove_columns(["pmra_pmdec_corr"])
    got = read_gaia(table)
    assert got.warnings == (
        "<table>: has no column pmra_pmdec_corr, so every correlation is taken as zero.",
    )
    assert got.observed.correlations is None
    assert (got.observed.correlation == np.eye(6)).all()


# Resampling


def test_resampled_copies_follow_the_errors():
    """Many copies of one star: mean and covariance of what was drawn, within Monte Carlo errors."""
    n = 20_000
    got = read_gaia(stars(*[{}] * n), cuts=())
    shift = got.resampled(1).observed.values - got.observed.values
    shift[:, 0] *= np.cos(np.radians(CLUMP["dec"]))
    shift[:, :2] *= 3.6e6
    c = got.observed.covariance[0]
    spread = np.sqrt(np.diag(c))
    z_mean = shift.mean(axis=0) / spread * np.sqrt(n)
    z = (np.cov(shift.T) - c) / np.sqrt((c**2 + np.outer(spread**2, spread**2)) / n)
    assert abs(z_mean).max() < 4.0
    assert abs(z).max() < 4.0


def test_resampled_copies_are_repeatable_and_consistent():
    got = read_gaia(stars(n=110), weights=None)
    one, same, other = got.resampled(1), got.resampled(1), got.resampled(2)
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.array_equal(one.x, other.x)
    x, v = galactocentric(one.observed.values, got.sun)
    np.testing.assert_array_equal(one.x, x)
    np.testing.assert_array_equal(one.v, v)
    assert one.sha256 == got.sha256
    assert (one.covariance != got.covariance).any()


def test_copies_on_either_side_have_the_errors_covariance():
    """Half their difference, many copies of one star: its covariance is the propagated one."""
    n = 20_000
    got = read_gaia(stars(*[{}] * n), cuts=())
    x, v = got.either_side(1)
    shift = np.concatenate([x[:, 0] - x[:, 1], v[:, 0] - v[:, 1]], axis=1) / 2
    c = got.covariance[0]
    spread = np.sqrt(np.diag(c))
    # products of signs scatter no more than those of normal deviates; and the second order of 1/parallax
    error = np.sqrt((c**2 + np.outer(spread**2, spread**2)) / n)
    second = (got.observed.errors[0, 2] / got.observed.values[0, 2]) ** 2
    off = abs(np.cov(shift.T) - c)
    assert np.all(off < 4 * error + 3 * second * np.outer(spread, spread))
    assert second < 0.01
    bare = stars(n=110)
    bare.remove_columns([name for name in bare.colnames if name.endswith(("_error", "_corr"))])
    sentence(lambda: read_gaia(bare).either_side(0), "no errors to be moved by")


def test_resampled_copies_drop_what_leaves():
    """Stars near the edge leave it half the time; bad parallaxes come out negative and are counted."""
    edge = {"parallax": 0.2501, "parallax_error": 0.01}
    bad = {"parallax": 0.3, "parallax_error": 0.3}
    table = stars(*[edge] * 400, *[bad] * 400)
    got = read_gaia(table, zero_point=0.0, cuts=[cut.within(4.0)])
    copy = got.resampled(3)
    (_, _, negative, _), (_, rule, outside, left) = copy.cuts.rows
    assert rule == "distance <= 4 kpc"
    assert copy.n == left == 800 - negative - outside
    assert copy.distance.max() <= 4.0 + 1e-9
    assert len(copy.photometry["bp_rp"]) == len(copy.rows) == copy.n
    # normal tails: P(z < -1) of 400; then P(z > 0.01) of 400 and P(-1 < z < -1/6) of 400
    assert negative == pytest.approx(63.5, abs=4.0 * 7.3)
    assert outside == pytest.approx(198.4 + 110.2, abs=4.0 * 14.0)


def test_stars_without_errors_cannot_be_resampled():
    table = stars(n=110)
    del table["ra_error"]
    sentence(lambda: read_gaia(table).resampled(0), "no errors to be drawn from")


# The container


def test_weights_photometry_and_immutability():
    table = stars({"bp_rp": 0.1}, n=110)
    table["epsilon"] = np.linspace(0.1, 1.0, 111)
    got = read_gaia(table, weights="1/epsilon")
    np.testing.assert_allclose(got.weights, 1.0 / np.linspace(0.1, 1.0, 111)[:110])
    np.testing.assert_allclose(read_gaia(table, weights="epsilon").weights, 1.0 / got.weights)
    m = got.absolute_magnitude("grvs_mag")
    np.testing.assert_allclose(m, 9.6 - 5.0 * np.log10(got.distance * 100.0), rtol=1e-9)
    sentence(lambda: got.absolute_magnitude("V"), "no photometry in V")
    for array in (got.x, got.v, got.weights, got.covariance, got.photometry["grvs_mag"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0
    table["epsilon"][3] = 0.0
    sentence(lambda: read_gaia(table, weights="1/epsilon"), "row 4, column epsilon", "inf")
    sentence(lambda: read_gaia(table, weights="ones"), "no column 'ones'")


def test_the_sun_can_be_moved():
    table, sun = stars(n=110), SolarFrame(8.3, 0.01, (11.0, 240.0, 7.0))
    got = read_gaia(table, sun=sun)
    np.testing.assert_allclose(got.centre, sun.position)
    np.testing.assert_allclose(got.distance, read_gaia(table).distance, rtol=1e-9)


# Bad input


@pytest.mark.parametrize(
    ("column", "value", "parts"),
    [
        ("dec", 91.0, ("row 3, column dec", "outside -90 to 90")),
        ("ra", -5.0, ("row 3, column ra", "outside 0 to 360")),
        ("parallax", np.inf, ("row 3, column parallax", "inf")),
        ("radial_velocity", -9999.0, ("row 3, column radial_velocity", "-9999 km/s")),
        ("parallax_error", -0.1, ("row 3, column parallax_error", "0 upwards")),
        ("ra_dec_corr", 1.2, ("row 3, column ra_dec_corr", "-1 to 1")),
        ("bp_rp", 999.0, ("row 3, column bp_rp", "999 mag")),
    ],
)
def test_impossible_values_are_refused(column, value, parts):
    table = stars(n=110)
    table[column][2] = value
    sentence(lambda: read_gaia(table), "<table>", *parts)


def test_impossible_correlations_are_refused():
    table = stars({"bp_rp": 0.1}, n=110)
    for name, value in (
        ("ra_dec_corr", 0.9),
        ("ra_parallax_corr", 0.9),
        ("dec_parallax_corr", -0.9),
    ):
        table[name][4] = value
    sentence(lambda: read_gaia(table), "row 5", "not positive definite")


def test_missing_columns_and_wrong_mappings():
    table = stars(n=110)
    for column, says in (("parallax", "no column for parallax"), ("pmra", "no column for pmra")):
        less = table.copy()
        less.remove_column(column)
        sentence(lambda less=less: read_gaia(less), says, "its columns are ra, dec")
    sentence(lambda: read_gaia(table, columns={"v_los": "rv"}), "'v_los', which is not a quantity")
    sentence(lambda: read_gaia(table, columns={"ra": "RAX"}), "no column 'RAX'")
    sentence(lambda: read_gaia(table, units={"parallax": "km"}), "column parallax", "an angle")
    sentence(lambda: read_gaia("nowhere.fits"), "nowhere.fits", "cannot be read")


def test_text_with_gaps_is_read_and_text_that_is_no_number_refused(tmp_path):
    table = stars({"radial_velocity": np.nan}, n=110)
    path = tmp_path / "stars.csv"
    table.write(path, format="ascii.csv")
    text = path.read_text()
    path.write_text(text.replace(",,", ",null,"))  # the archive's way
    np.testing.assert_array_equal(read_gaia(path).rows, np.arange(1, 111))
    path.write_text(text.replace("9.6,1.2", "faint,1.2", 1))
    sentence(lambda: read_gaia(path), "row 1, column grvs_mag", "'faint' is not a number")


# The query


def test_the_query_is_looser_than_the_cuts():
    text = gaia_query()
    assert "{" not in text
    assert text.isascii()
    assert "parallax > 0.15" in text
    assert "grvs_mag < 14.0" in text
    selected = text[text.index("SELECT") : text.index("FROM")].replace("SELECT", "").split(",")
    names = [name.strip() for name in selected]
    assert set(names) - {"source_id"} <= set(GAIA.aliases)
    wanted = set(GAIA.aliases) - {"phot_bp_mean_mag", "phot_rp_mean_mag"}
    assert wanted <= set(names)
    assert set(CORRELATIONS) < wanted


def test_the_query_takes_limits():
    text = gaia_query(radius=2.0, parallax_ratio=0.1, faintest=12.0, colour=(0.9, 2.0), top=500)
    assert "SELECT TOP 500\n" in text
    assert text.rstrip().endswith("ORDER BY random_index")
    assert "parallax > 0.4\n" in text
    assert "parallax_error < 0.1 * (parallax + 0.1)" in text
    assert "bp_rp > 0.9 AND bp_rp < 2.0" in text
    (limit,) = re.findall(r"- 10 < (\S+)", text)
    assert float(limit) == pytest.approx(12.0 - 5.0 * np.log10(200.0) + 0.5)
    for wrong in ({"radius": 0.0}, {"radius": 12.0}, {"top": 0}, {"colour": (2.0, 1.0)}):
        with pytest.raises(BayesdustError):
            gaia_query(**wrong)


# Real samples


def test_dr3_rows(data_dir):
    got = read_gaia(data_dir / "gaia" / "pyia_gdr3_sm.fits", fewest=1)
    assert got.cuts.start == 1000
    assert got.cuts.rows[0][2:] == (976, 24)  # 24 of them have radial velocities
    assert got.zero_point == "Lindegren+2021"
    assert got.warnings == ()
    assert np.isfinite(got.covariance).all()
    assert got.resampled(0).n >= 1
    sentence(lambda: read_gaia(data_dir / "gaia" / "pyia_gdr3_sm.fits"), "fewer than 100")


def test_dr2_rows_with_errors(data_dir):
    got = read_gaia(data_dir / "gaia" / "pyia_gdr2_rv_sm.fits", cuts=())
    assert got.n == 100
    assert got.zero_point == "none"
    assert any("nu_eff_used_in_astrometry" in text for text in got.warnings)
    assert np.linalg.eigvalsh(got.observed.correlation).min() > 0.0
    assert got.units["parallax"] == "mas (assumed)"


def test_dr2_rows_within_100_pc(data_dir):
    got = read_gaia(data_dir / "gaia" / "astropy_gaia_dr2_100pc_6d.fits", cuts=[cut.within(0.1)])
    assert got.n == 4096
    assert got.covariance is None
    assert len(got.warnings) == 3
    # the local standard of rest moves with the Sun to within 20 km/s
    np.testing.assert_allclose(np.median(got.v, axis=0), got.sun.v_sun, atol=25.0)


def test_observations_cannot_be_changed():
    one = Observed(np.zeros((1, 6)))
    with pytest.raises(ValueError, match="read-only"):
        one.values[0, 0] = 1.0
    assert one.covariance is None
    assert isinstance(stars(n=1), Table)
