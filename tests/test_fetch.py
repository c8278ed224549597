"""Catalogues from VizieR, against a stub that answers as astroquery does."""

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from dwarf_tables import mock

from bayesdust.catalogs.dwarf import read_stars
from bayesdust.catalogs.fetch import CATALOGUES, fetch
from bayesdust.catalogs.galaxies import galaxy
from bayesdust.errors import BayesdustError


class Stub:
    def __init__(self, *tables):
        self.tables, self.asked = tables, []

    def get_catalogs(self, catalog):
        self.asked.append(catalog)
        if self.tables and isinstance(self.tables[0], Exception):
            raise self.tables[0]
        return list(self.tables)


def sexagesimal(degrees, hours=False):
    value = degrees / 15.0 if hours else abs(degrees)
    whole = int(value)
    minutes = int((value - whole) * 60)
    seconds = ((value - whole) * 60 - minutes) * 60
    sign = "" if hours else "-" if degrees < 0 else "+"
    return f"{sign}{whole:02d} {minutes:02d} {seconds:08.5f}"


def walker_2009(name="fornax", n=40):
    """Means of repeats in one table, single observations in the other, as at CDS."""
    stars, one = mock(name, n), galaxy("sculptor")
    v, e = np.array(stars["v_los"]), np.array(stars["v_los_err"])
    single = np.arange(n) % 2 == 0
    ra = [sexagesimal(x, hours=True) for x in stars["ra"]] + [sexagesimal(one.ra, hours=True)]
    summary = Table(
        {
            "Target": [f"For-{i:04d}" for i in range(n)] + ["Scl-0001"],
            "RAJ2000": ra,
            "DEJ2000": [sexagesimal(x) for x in stars["dec"]] + [sexagesimal(one.dec)],
            "Mmb": np.append(stars["p_member"], 0.5),
            "<HV>": np.append(v, 110.0),
            "e_<HV>": MaskedColumn(np.append(e, 1.0), mask=np.append(single, False)),
        }
    )
    spectra = Table(
        {
            "Target": [f"For-{i:04d}" for i in range(n) if single[i]],
            "HV": v[single],
            "e_HV": e[single],
        }
    )
    return stars, Stub(summary, spectra)


def test_fornax_joins_single_observations_to_means(tmp_path):
    stars, stub = walker_2009()
    path = fetch("Fornax", tmp_path / "fornax.ecsv", vizier=stub)
    assert stub.asked == ["J/AJ/137/3100"]
    table = Table.read(path)
    assert len(table) == len(stars)  # the star of Sculptor is left out
    for column in stars.colnames:
        np.testing.assert_allclose(np.array(table[column]), np.array(stars[column]), atol=1e-7)
    assert str(table["v_los"].unit) == "km / s"
    assert table.meta["citation"].endswith("AJ 137, 3100")
    assert table.meta["columns"]["p_member"] == "Mmb"
    assert [p.name for p in tmp_path.iterdir()] == ["fornax.ecsv"]
    assert read_stars(path, "fornax").n == len(stars)


def test_leo_2_combines_repeats_once(tmp_path):
    stars = mock("leo_2", 20)
    ra, dec = np.array(stars["ra"]), np.array(stars["dec"])
    rows = [(ra[i], dec[i], 70.0 + i, 2.0, "S", "Y") for i in range(20)]
    rows += [(ra[0], dec[0], 76.0, 1.0, "S", "Y"), (ra[0], dec[0], 999.0, 0.1, "C", "Y")]
    names = ("RAJ2000", "DEJ2000", "RVel", "e_RVel", "Comb", "Mm")
    path = fetch("leo ii", tmp_path / "leo2.ecsv", vizier=Stub(Table(rows=rows, names=names)))
    table = Table.read(path)
    assert len(table) == 20
    first = table[np.isclose(table["ra"], ra[0], atol=1e-9)][0]
    assert first["v_los"] == pytest.approx((70.0 / 4 + 76.0) / (1 / 4 + 1))
    assert first["v_los_err"] == pytest.approx((1 / 4 + 1) ** -0.5)
    assert set(table["p_member"]) == {1.0}


def test_draco_without_probabilities(tmp_path):
    stars = mock("draco", 20)
    table = Table(
        [stars["ra"], stars["dec"], stars["v_los"], stars["v_los_err"]],
        names=("RAJ2000", "DEJ2000", "Vlos", "e_Vlos"),
    )
    path = fetch("draco", tmp_path / "draco.ecsv", vizier=Stub(table))
    assert Table.read(path).colnames == ["ra", "dec", "v_los", "v_los_err"]


def test_every_catalogue_is_of_a_known_galaxy():
    assert {galaxy(key).key for key in CATALOGUES} == set(CATALOGUES)


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("nowhere", (), "no galaxy 'nowhere'"),
        ("segue_1", (), "no catalogue of Segue 1 is known; those of Carina"),
        ("fornax", (), "VizieR has no table in J/AJ/137/3100"),
        ("fornax", (ConnectionError("no route\nto host"),), "ConnectionError: no route to host"),
        ("fornax", (ConnectionError(40 * "refused "),), "refused refused ...); check"),
        ("fornax", (TimeoutError(),), "did not deliver"),
        ("fornax", (Table({"a": [1], "b": [2]}),), "it has the columns a, b"),
        ("draco", (walker_2009()[1].tables[0],), "no table with the positions and velocities"),
        ("carina", walker_2009()[1].tables, "holds no star of Carina"),
    ],
)
def test_what_can_go_wrong_leaves_no_file(tmp_path, name, answer, words):
    with pytest.raises(BayesdustError) as error:
        fetch(name, tmp_path / "out.ecsv", vizier=Stub(*answer))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_without_a_network_there_is_one_sentence(tmp_path):
    with pytest.raises(BayesdustError, match="VizieR did not deliver"):
        fetch("fornax", tmp_path / "out.ecsv")
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "out.ecsv"
    path.write_text("mine")
    with pytest.raises(BayesdustError, match="exists already"):
        fetch("fornax", path, vizier=walker_2009()[1])
    assert path.read_text() == "mine"
    assert fetch("fornax", path, vizier=walker_2009()[1], overwrite=True) == path
    assert path.read_text().startswith("# %ECSV")
    for wrong in (tmp_path, tmp_path / "no" / "out.ecsv"):
        with pytest.raises(BayesdustError, match="change the path"):
            fetch("fornax", wrong, vizier=walker_2009()[1])
