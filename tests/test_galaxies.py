"""The table of facts, the names it answers to, and galaxies described by users."""

import json
import math

import numpy as np
import pytest

from bayesdust.catalogs.galaxies import (
    Galaxy,
    built_in,
    galaxy,
    galaxy_names,
    galaxy_table,
    published,
    read_lvdb,
)
from bayesdust.errors import BayesdustError

CLASSICAL = [
    "Carina",
    "Draco",
    "Fornax",
    "Leo I",
    "Leo II",
    "Sculptor",
    "Sextans",
    "Ursa Minor",
]


def test_the_eight_classical_dwarfs_come_first():
    names = galaxy_names()
    assert names[:8] == CLASSICAL
    assert {"Segue 1", "Coma Berenices", "Bootes I", "Reticulum II", "Tucana II"} < set(names)
    assert list(galaxy_table()["name"]) == names


@pytest.mark.parametrize("one", built_in(), ids=lambda one: one.key)
def test_every_built_in_galaxy_is_complete_and_cited(one):
    values = one.to_dict()
    assert len(values) == 16  # every field is known
    assert set(one.references) == {"distance", "structure", "velocity", "proper_motion"}
    assert all(text.count("(") == 1 and "+" in text for text in one.references.values())
    assert 0.0 < one.rhalf_err < 0.5 * one.rhalf
    assert 0.01 < one.rhalf_kpc < 1.0
    assert one.rhalf_circularised == pytest.approx(one.rhalf * math.sqrt(1 - one.ellipticity))
    assert 2.0 < one.sigma_los < 15.0


@pytest.mark.parametrize("one", built_in(), ids=lambda one: one.key)
def test_json_round_trip(one):
    assert Galaxy.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert isinstance(hash(one), int)


@pytest.mark.data
def test_the_built_in_table_agrees_with_the_database(data_dir):
    theirs = read_lvdb(data_dir / "lvdb" / "dwarf_mw.csv")
    for one in built_in():
        other = theirs[one.key]
        assert one.references == other.references
        for name, value in one.to_dict().items():
            if isinstance(value, float):
                assert getattr(other, name) == pytest.approx(value, abs=6e-4), (one.key, name)


@pytest.mark.data
def test_the_database_radius_is_the_semi_major_axis(data_dir):
    """rhalf_sph_physical in the database is rhalf sqrt(1 - ellipticity) distance."""
    from astropy.table import Table

    table = Table.read(data_dir / "lvdb" / "dwarf_mw.csv")
    theirs = {row["key"]: row["rhalf_sph_physical"] for row in table}
    for one in built_in():
        assert one.rhalf_kpc == pytest.approx(theirs[one.key] / 1000.0, rel=0.02)


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        *((s, "draco_1") for s in ("draco", "Draco", "draco_1", "DRACO I", " draco-1 ")),
        *((s, "leo_2") for s in ("leo_2", "Leo II", "leoii", "LEO2", "leo 2", "Leo-II")),
        *((s, "leo_1") for s in ("leo", "Leo I", "leo1", "leo_1")),
        *((s, "bootes_1") for s in ("bootes", "Boötes I", "bootes1")),
        *((s, "ursa_minor_1") for s in ("ursaminor", "Ursa Minor", "ursa_minor_1")),
        *((s, "ursa_major_2") for s in ("ursa major ii", "UrsaMajor2")),
        *((s, "segue_1") for s in ("segue", "Segue 1", "segue i")),
        ("willman 1", "willman_1"),
        ("coma berenices", "coma_berenices_1"),
    ],
)
def test_names_ignore_case_and_punctuation(spelling, key):
    assert galaxy(spelling).key == key
    assert galaxy(galaxy(spelling)).key == key


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(BayesdustError, match=r"'dracoo'.*did you mean 'Draco'"):
        galaxy("dracoo")
    with pytest.raises(BayesdustError, match="bayesdust galaxies"):
        galaxy("")


# FILE.toml

FULL = """
name = "Mine"
ra = 10.5
dec = "-20 deg"
distance = "80000 pc"
distance_err = 2
rhalf = "0.1 deg"
rhalf_err = 0.5
ellipticity = 0.2
position_angle = "1.5707963267948966 rad"
v_sys = "-250000 m/s"
pmra = 0.1
pmdec = "-0.2 mas/yr"
"""


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_a_half_light_radius_may_be_a_length_or_odd_on_purpose(tmp_path, caplog):
    one = galaxy(write(tmp_path, 'distance = "80 kpc"\nrhalf = "200 pc"\nrhalf_err = "0.02 kpc"'))
    assert one.rhalf == pytest.approx(np.degrees(0.2 / 80.0) * 60, rel=1e-6)
    assert one.rhalf_err == pytest.approx(one.rhalf / 10, rel=1e-6)
    assert not caplog.records
    assert galaxy(write(tmp_path, 'distance = 26\nrhalf = "2.5 deg"')).rhalf == pytest.approx(150)
    assert "check it" in caplog.text
    with pytest.raises(BayesdustError, match=r"it is 13 kpc at 76 kpc"):
        galaxy(write(tmp_path, 'distance = 76\nrhalf = "9.7 deg"'))


def test_a_toml_file_with_units(tmp_path):
    one = galaxy(write(tmp_path, FULL))
    assert one.name == "Mine"
    assert (one.distance, one.distance_err) == (80.0, 2.0)
    assert one.rhalf == pytest.approx(6.0)
    assert one.position_angle == pytest.approx(90.0)
    assert one.v_sys == -250.0
    assert one.pmdec == -0.2


def test_only_the_distance_is_required(tmp_path):
    one = galaxy(str(write(tmp_path, 'distance = "80 kpc"')))
    assert (one.name, one.distance) == ("mine", 80.0)
    assert one.ra is one.rhalf is one.v_sys is one.rhalf_kpc is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "distance is missing"),
        ("distance = ", "not valid TOML"),
        ('distance = "80 parrots"', "distance = '80 parrots'"),
        ('distance = "80 km/s"', "distance = '80 km/s'"),
        ('distance = "kpc"', "distance = 'kpc'"),
        ("distance = true", "distance = True"),
        ("distance = [80]", "distance"),
        ("distance = nan", "distance is nan but must be a finite"),
        ("distance = inf", "must be a finite"),
        ('distance = "1e999 kpc"', "must be a finite"),
        ("distance = 0", "distance is 0.0 but must be positive"),
        ("distance = -80", "must be positive"),
        ("distance = 80\ndistance_err = 0", "distance_err is 0.0 but must be positive"),
        ("distance = 80\ndistance_err = 60", "distance_err is 0.75 times distance, which leaves"),
        ("distance = 80\nrhalf = 10\nrhalf_err = '10 deg'", "rhalf_err is 60 times rhalf, which"),
        ("distance = 80\nrhalf = -1", "rhalf is -1.0 but must be positive"),
        ('distance = 80\nrhalf = "200 K"', "rhalf = '200 K'"),
        ("distance = 233000", 'if the number is in pc, say so, as "233000 pc"'),
        ("distance = 0.08", 'if the number is in Mpc, say so, as "0.08 Mpc"'),
        ("distance = -80", "distance is -80.0 but must be positive."),
        ("distance = 80\nrhalf = 0.04", 'if the number is in deg, say so, as "0.04 deg"'),
        ("distance = 80\nrhalf = 600", 'if the number is in arcsec, say so, as "600 arcsec"'),
        ("distance = 80\nellipticity = 1", "ellipticity is 1.0"),
        ('distance = 80\nellipticity = "0.3 deg"', "number without a unit"),
        ("distance = 80\nra = 10", "ra is given without dec"),
        ("distance = 80\nra = 10\ndec = 91", "dec is 91.0"),
        ("distance = 80\nra = 400\ndec = 1", "ra is 400.0"),
        ("distance = 80\npmra = 0.1", "pmra is given without pmdec"),
        ("distance = 80\nrhalff = 3", "unknown key 'rhalff': did you mean 'rhalf'"),
        ("distance = 80\nzzz = 3", "unknown key 'zzz': use"),
        ("distance = 80\nname = 3", "name must be text"),
        ("distance = 80\nreferences = 3", "references must be a table"),
    ],
)
def test_a_wrong_toml_names_file_and_key(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(BayesdustError) as error:
        galaxy(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BayesdustError, match="cannot be read"):
        galaxy(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BayesdustError, match="not a text file"):
        galaxy(tmp_path / "binary.toml")
    with pytest.raises(BayesdustError, match="cannot be read"):
        galaxy(f"{tmp_path}:x.csv:draco".replace(":x", "/x"))
    with pytest.raises(BayesdustError, match=r"say which galaxy .* as lvdb\.csv:NAME"):
        galaxy("lvdb.csv")


# The Local Volume Database


@pytest.mark.data
def test_a_galaxy_of_a_database_csv(data_dir):
    path = data_dir / "lvdb" / "dwarf_mw.csv"
    assert galaxy(f"{path}:Draco").distance == 81.55
    crater = galaxy(f"{path}:crater ii")
    assert crater.key == "crater_2"
    assert galaxy(f"{path}:segue_2").sigma_los is None  # only an upper limit is published
    with pytest.raises(BayesdustError, match=r"'dracoo' is in .*did you mean 'Draco'"):
        galaxy(f"{path}:dracoo")


@pytest.mark.data
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("rhalf,", "radius,", 1), "column 'rhalf' is missing"),
        (lambda text: text.splitlines()[0], "it has no rows"),
        (lambda text: text.replace("81.55", "eighty"), "column distance: 'eighty'"),
        (lambda text: text.replace("81.55", "-81.55"), "distance is -81.55 but must be positive"),
    ],
)
def test_a_wrong_database_csv(data_dir, tmp_path, change, words):
    path = tmp_path / "lvdb.csv"
    path.write_text(change((data_dir / "lvdb" / "dwarf_mw.csv").read_text()))
    with pytest.raises(BayesdustError) as error:
        read_lvdb(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)


@pytest.mark.parametrize("values", [{"name": "x"}, {"distance": 1.0}, {"name": "x", "d": 1.0}])
def test_a_dictionary_that_is_no_galaxy(values):
    with pytest.raises(BayesdustError):
        Galaxy.from_dict(values)


# Published values


@pytest.mark.parametrize("one", built_in(), ids=lambda one: one.key)
def test_published_values_are_plausible_and_cited(one):
    table = published(one.name)
    assert len(table) >= 1
    for row in table:
        log = row["quantity"], row["value"]
        assert log[0] in ("log10_J[0.5deg]", "log10_rho[0.15kpc]")
        assert (16.0 < log[1] < 20.5) if log[0].startswith("log10_J") else (7.5 < log[1] < 9.0)
        assert row["err_minus"] > 0
        assert row["err_plus"] > 0
        assert "(20" in row["reference"]


def test_published_densities_are_logarithms():
    table = published("Fornax")
    read = next(r for r in table if "Read" in r["reference"])
    assert read["quantity"] == "log10_rho[0.15kpc]"
    assert read["unit"] == "dex(Msun/kpc3)"
    assert read["value"] == pytest.approx(np.log10(7.9e7))
    assert read["value"] + read["err_plus"] == pytest.approx(np.log10(10.6e7))
    assert read["value"] - read["err_minus"] == pytest.approx(np.log10(6.0e7))


def test_nothing_is_published_of_a_users_galaxy():
    table = published(Galaxy("mine", 80.0))
    assert len(table) == 0
    assert "quantity" in table.colnames
