"""Bad input gets one sentence that says what and where; nothing else is ever raised."""

import dataclasses
import gzip
import pickle

import numpy as np
import pytest
from astropy.table import Column, MaskedColumn, Table
from dwarf_tables import (
    FORMATS,
    ROUND,
    mock,
    offsets,
    sentence,
    vizier_tsv,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdust.catalogs.dwarf import read_stars
from bayesdust.catalogs.galaxies import Galaxy, galaxy
from bayesdust.errors import BayesdustError

# Bad input: (how the table goes wrong, galaxy, what the sentence says)


def put(name, row, value):
    def change(table):
        table[name][row] = value

    return change


def scale(name, factor):
    def change(table):
        table[name] = np.asarray(table[name]) * factor

    return change


def both_scaled(names, factor, unit=None):
    def change(table):
        for name in names:
            table[name] = Column(np.asarray(table[name]) * factor, unit=unit)

    return change


def with_unit(name, unit):
    def change(table):
        table[name] = Column(np.asarray(table[name]), unit=unit)

    return change


def masked(name, row):
    def change(table):
        mask = np.arange(len(table)) == row
        table[name] = MaskedColumn(np.asarray(table[name]), mask=mask)

    return change


def as_text(name, row, value):
    def change(table):
        cells = [repr(float(x)) for x in table[name]]
        cells[row] = value
        table[name] = cells

    return change


def drop(*names):
    return lambda table: table.remove_columns(names)


def copy_row(source, target):
    def change(table):
        for name in table.colnames:
            table[name][target] = table[name][source]

    return change


def add(name, of):
    def change(table):
        table[name] = table[of]

    return change


def rename(one, other):
    return lambda table: table.rename_column(one, other)


WRONG = {
    "no velocities": (drop("v_los"), "no column for v_los; its columns are ra, dec, v_los_err"),
    "no errors": (drop("v_los_err"), "no column for v_los_err"),
    "no positions": (drop("ra", "dec"), "no column for positions (ra and dec, or x and y)"),
    "no declination": (drop("dec"), "no column for positions"),
    "nothing": (drop("ra", "v_los", "v_los_err"), "positions (ra and dec, or x and y) and v_los"),
    "NaN velocity": (put("v_los", 16, np.nan), "row 17, column v_los: the value is nan"),
    "infinite error": (put("v_los_err", 3, np.inf), "row 4, column v_los_err: the value is inf"),
    "NaN position": (put("dec", 0, np.nan), "row 1, column dec"),
    "NaN probability": (put("p_member", 9, np.nan), "row 10, column p_member"),
    "masked velocity": (masked("v_los", 5), "row 6, column v_los: the value is missing"),
    "masked probability": (masked("p_member", 5), "row 6, column p_member: the value is missing"),
    "text": (as_text("v_los", 7, "abc"), "row 8, column v_los: 'abc' is not a number"),
    "empty text": (as_text("ra", 7, " "), "row 8, column ra: the value is missing"),
    "mixed sexagesimal": (as_text("ra", 7, "17 20 12.4"), "row 8, column ra: '17 20 12.4'"),
    "several gaps": (
        lambda table: (put("v_los", 9, np.nan)(table), put("v_los", 12, np.nan)(table)),
        "row 10, column v_los: the value is nan (in 2 rows, first here)",
    ),
    "negative error": (put("v_los_err", 2, -1.0), "row 3, column v_los_err: the error -1"),
    "zero among errors": (put("v_los_err", 2, 0.0), "row 3, column v_los_err: the error is zero"),
    "missing error": (put("v_los_err", 2, 1e5), "row 3, column v_los_err: an error of 100000"),
    "m/s": (scale("v_los", 1000.0), "column v_los: the velocities scatter by"),
    "km/s said to be m/s": (
        scale("v_los_err", 1e-3),
        "less than any spectrograph's; state the true unit",
    ),
    "m/s errors": (scale("v_los_err", 1000.0), "column v_los_err: the median error is"),
    "m/s declared": (with_unit("v_los", "m/s"), "scatter by only"),
    "m/s declared, with foreground": (
        lambda table: (put("v_los", 3, 1e3)(table), with_unit("v_los", "m/s")(table)),
        "does not go together for stars of a galaxy; state the true unit, perhaps units={'v_los': 'km",
    ),
    "both m/s declared": (
        lambda table: (
            put("v_los", 3, 1e3)(table),
            with_unit("v_los", "m/s")(table),
            with_unit("v_los_err", "m/s")(table),
        ),
        "does not go together",
    ),
    "placeholder -999": (put("v_los", 5, -999.0), "row 6, column v_los: -999 km/s"),
    "error 999": (put("v_los_err", 5, 999.0), "row 6, column v_los_err: an error of 999 km/s"),
    "placeholder": (put("v_los", 5, -9999.0), "row 6, column v_los: -9999 km/s"),
    "probability": (put("p_member", 4, 1.2), "row 5, column p_member: a probability of 1.2"),
    "percent": (scale("p_member", 100.0), "divide percentages by 100"),
    "few members": (scale("p_member", 0.1), "expected members, fewer than 10"),
    "identical rows": (copy_row(3, 20), "rows 4 and 21 are identical"),
    "unknown unit": (with_unit("v_los", "furlong"), "column v_los: 'furlong' is not a unit"),
    "wrong unit": (with_unit("v_los", "kpc"), "column v_los: the unit kpc is not that of a vel"),
    "hours of time": (with_unit("ra", "h"), "column ra: the unit h is not that of an angle"),
    "probability in km/s": (with_unit("p_member", "km/s"), "not that of a plain number"),
    "radians": (both_scaled(("ra", "dec"), np.pi / 180), "units={'ra': 'rad', 'dec': 'rad'}"),
    "RA in hours": (scale("ra", 1 / 15.0), "units={'ra': 'hourangle'}"),
    "far declination": (put("dec", 8, 120.0), "row 9, column dec: 120 deg is beyond 90"),
    "arcsec": (both_scaled(("ra", "dec"), 3600.0), "row 1, column ra"),
    "one star elsewhere": (put("ra", 8, 0.0), "row 9, column ra: the star lies"),
    "two names": (
        lambda table: (rename("v_los", "HRV")(table), add("RV", "HRV")(table)),
        "columns HRV and RV could both be v_los; say which, as columns={'v_los': 'HRV'}",
    ),
    "same name": (add("V_LOS", "v_los"), "both v_los and V_LOS among its columns"),
    "several numbers": (
        lambda table: table.replace_column("v_los", Column(np.ones((60, 2)))),
        "column v_los: holds several numbers a row",
    ),
    "complex": (
        lambda table: table.replace_column("v_los", Column(np.ones(60, complex))),
        "column v_los: holds complex128",
    ),
    "few stars": (lambda table: table.remove_rows(slice(9, None)), "fewer than 10"),
    "no stars": (lambda table: table.remove_rows(slice(0, None)), "has no rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_tables(tmp_path, case):
    change, words = WRONG[case]
    table = mock()
    change(table)
    message = sentence(table, "draco")
    assert message.startswith("<table>: ")
    assert words in message
    if case not in ("complex", "same name", "no stars"):  # which ECSV cannot hold, or says earlier
        path = tmp_path / "stars.ecsv"
        table.write(path, format="ascii.ecsv")
        assert sentence(path, "draco").startswith(f"{path}: ")


OFFSETS = {
    "arcmin taken for kpc": (
        both_scaled("xy", 34.377),
        "it would be 0.73 with arcmin: state the unit, as units={'x': 'arcmin', 'y': 'arcmin'}",
    ),
    "parsec taken for kpc": (both_scaled("xy", 1000.0), "with pc: state the unit"),
    "arcmin said to be deg": (both_scaled("xy", 34.377, "deg"), "with arcmin: state the unit"),
    "deg said to be arcmin": (both_scaled("xy", 34.377 / 60, "arcmin"), "with deg: state"),
    "arcsec said to be arcmin": (both_scaled("xy", 34.377 * 60, "arcmin"), "with arcsec: state"),
    "one unit of two": (
        with_unit("x", "arcmin"),
        "columns x and y: one is in arcmin, the other in kpc (assumed); state the unit of both, as "
        "units={'x': 'arcmin', 'y': 'arcmin'}",
    ),
    "velocity": (with_unit("x", "km/s"), "column x: the unit km / s is not that of a length"),
    "xi without a unit": (
        lambda table: table.rename_columns(["x", "y"], ["xi", "eta"]),
        "column xi: has no unit; state it, as units={'x': 'arcmin'}",
    ),
    "one star outside": (put("x", 4, 200.0), "row 5, column x: the star lies far outside"),
}


@pytest.mark.parametrize("case", OFFSETS)
def test_bad_offsets(case):
    change, words = OFFSETS[case]
    table = offsets()
    change(table)
    assert words in sentence(table, ROUND)


def test_offsets_without_a_half_light_radius():
    assert "kpc" in sentence(Table({**offsets(), "x": 100 * offsets()["x"]}), Galaxy("g", 100.0))


def test_stars_of_another_galaxy():
    message = sentence(mock("fornax"), "draco")
    assert "deg from Draco" in message
    assert "Fornax is there: give it as the galaxy" in message
    nowhere = Galaxy("There", distance=80.0, ra=10.0, dec=10.0)
    assert "around ra 39." in sentence(mock("fornax"), nowhere)


def test_a_half_light_radius_in_the_wrong_unit():
    one = galaxy("draco")
    degrees = dataclasses.replace(one, rhalf=one.rhalf / 60.0)
    assert "check the centre and the half-light radius" in sentence(mock(), degrees)
    arcsec = dataclasses.replace(one, rhalf=one.rhalf * 60.0)
    assert "half-light radius" in read_stars(mock(), arcsec).warnings[0]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"columns": {"v_los": "HRV"}}, "has no column 'HRV' (wanted for v_los)"),
        ({"columns": {"velocity": "v_los"}}, "columns names 'velocity'"),
        ({"units": {"velocity": "km/s"}}, "units names 'velocity'"),
        ({"units": {"v_los": "parrots"}}, "'parrots' is not a unit"),
        ({"units": {"v_los": "deg"}}, "the unit deg is not that of a velocity"),
        (
            {"columns": {"v_los": "v_los_err"}},
            "column 'v_los_err' is taken for both v_los and v_los_err",
        ),
        ({"columns": {"v_los": "ra", "v_los_err": "ra"}}, "column 'ra' is taken for both"),
    ],
)
def test_bad_mappings(mapping, words):
    assert words in sentence(mock(), "draco", **mapping)


def test_an_unknown_galaxy():
    assert "did you mean 'Draco'" in sentence(mock(), "dracoo")


# Photometry


def test_advice_on_photometry_names_its_own_mapping(tmp_path):
    path = tmp_path / "light.dat"
    path.write_text("".join(f"{260 + i / 1000} 57.9\n" for i in range(30)))
    words = sentence(mock(), "draco", photometry=path)
    assert "photometry_columns={'ra': 'NAME'}" in words
    # without a header the same col1 is another quantity, so nothing is carried over
    columns = {"ra": "col1", "dec": "col2", "v_los": "col3", "v_los_err": "col4"}
    table = mock()["ra", "dec", "v_los", "v_los_err"]
    table.rename_columns(table.colnames, list(columns.values()))
    words = sentence(table, "draco", columns=columns, photometry=path)
    assert "photometry_columns={'ra': 'NAME'}" in words
    assert "photometry_columns names 'velocity'" in sentence(
        mock(), "draco", photometry=path, photometry_columns={"velocity": "col1"}
    )


# Bad files


def text_of(table, kind, path):
    FORMATS[kind](table, path)
    return path.read_text()


HEAD = "ra,dec,v_los,v_los_err\n"
ROW = "260.1,57.9,-290,1\n"
FILES = {
    "empty": (b"", "the file is empty"),
    "blank": (b" \n\n", "the file is empty"),
    "comments": (b"# a\n# b\n", "holds only comments"),
    "only a header": (HEAD.encode(), "the table has no rows"),
    "no header": (b"1 2 3 4\n5 6 7 8\n", "col1, col2, col3, col4"),
    "one column": (b"hello\nworld\n", "has one column"),
    "pickle": (pickle.dumps(np.arange(10)), "binary file of an unknown kind"),
    "numpy": (b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}", "binary file of an unknown kind"),
    "zip": (b"PK\x03\x04" + bytes(50), "binary file of an unknown kind"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "binary file of an unknown kind"),
    "gzip": (gzip.compress(HEAD.encode())[:-9], "is not a complete gzip file"),
    "html": (b"<html><body>404</body></html>", "is not a complete VOTable"),
    "remote": (b'<?xml version="1.0"?><VOTABLE><STREAM href="x"/></VOTABLE>', "another file"),
    "fits": (b"SIMPLE  =                    T" + b" " * 50, "is"),
    "parquet": (b"PAR1" + bytes(40), "is not a complete Parquet table"),
    "ecsv": (b"# %ECSV 1.0\n# ---\n# datatype: [\na b\n1 2\n", "is not a complete ECSV table"),
    "short row": ((HEAD + ROW + "260,57\n" + ROW).encode(), "row 2: has 2 fields where the header"),
    "cut row": ((HEAD + ROW + "260,57").encode(), "row 2: has 2 fields where the header has 4; th"),
    "repeated name": (b"ra,dec,v_los,v_los,v_los_err\n1,2,3,4,5\n", "has v_los twice"),
    "nameless": (b"ra,dec,,v_los\n1,2,3,4\n", "a column has no name"),
    "text": ((HEAD + ROW + "260,57,fast,1\n").encode(), "row 2, column v_los: 'fast' is not"),
    "latin-1": ("# Mu\xf1oz\n".encode("latin-1") + (HEAD + ROW).encode(), "holds 1 stars"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_files(tmp_path, case):
    content, words = FILES[case]
    path = tmp_path / "stars.dat"
    path.write_bytes(content)
    message = sentence(path, "draco")
    assert message.startswith(f"{path}: ")
    assert words in message


def test_paths_that_are_no_files(tmp_path):
    assert "cannot be read" in sentence(tmp_path / "nowhere.ecsv", "draco")
    assert "is a directory" in sentence(tmp_path, "draco")
    sentence("stars\0.ecsv", "draco")
    sentence("~nobody-of-this-name/stars.ecsv", "draco")


@pytest.mark.parametrize("kind", ["ecsv", "csv", "tab"])
def test_cut_inside_the_last_cell(tmp_path, kind):
    """What is left of a number is a number, only another one."""
    path = tmp_path / "stars.dat"
    FORMATS[kind](mock(), path)
    whole = path.read_bytes()
    assert read_stars(path, "draco").n == 60
    path.write_bytes(whole.rstrip()[:-2])
    assert "row 60: the last line does not end" in sentence(path, "draco")


@pytest.mark.parametrize("kind", ["fits", "parquet", "ecsv", "csv", "votable"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_truncated_files(tmp_path, kind, part):
    path = tmp_path / "stars.dat"
    FORMATS[kind](mock(n=200), path)
    whole = path.read_bytes()
    cut = int(part * len(whole))
    if kind in ("ecsv", "csv"):  # in the middle of a row, where it shows
        cut = whole.index(b"\n", cut) - 30
    path.write_bytes(whole[:cut])
    message = sentence(path, "draco")
    assert message.startswith(f"{path}: ")


def test_fits_with_a_repeated_name(tmp_path):
    path = tmp_path / "stars.fits"
    mock().write(path)
    path.write_bytes(path.read_bytes().replace(b"'v_los_err'", b"'v_los'    "))
    assert "share a name" in sentence(path, "draco")


def test_ecsv_with_a_repeated_name_or_a_word(tmp_path):
    path = tmp_path / "stars.ecsv"
    text = text_of(mock(), "ecsv", path)
    path.write_text(text.replace("p_member", "v_los"))
    assert "has v_los twice" in sentence(path, "draco")
    last = text.splitlines()[-1].split()
    path.write_text(text.replace(last[2], "fast"))
    assert "row 60, column v_los: 'fast' is not a number" in sentence(path, "draco")


def test_parquet_with_nulls_and_nested_columns(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {c: list(np.asarray(mock()[c])) for c in mock().colnames}
    pq.write_table(pa.table(columns | {"list": [[1]] * 60}), tmp_path / "good.parquet")
    assert read_stars(tmp_path / "good.parquet", "draco").n == 60
    columns["v_los"][4] = None
    pq.write_table(pa.table(columns), tmp_path / "null.parquet")
    assert "row 5, column v_los" in sentence(tmp_path / "null.parquet", "draco")


def test_a_fast_galaxy_may_have_fast_stars():
    table = Table(mock())
    table["v_los"] = np.asarray(table["v_los"]) + 1300.0
    with pytest.raises(BayesdustError, match="no star's velocity"):
        read_stars(table, "draco")
    assert read_stars(table, dataclasses.replace(galaxy("draco"), v_sys=1000.0)).n == 60


def test_vizier_with_two_tables(tmp_path):
    path = tmp_path / "stars.tsv"
    path.write_text(2 * vizier_tsv(mock()))
    assert "more than one table" in sentence(path, "draco")


# Whatever the bytes, only one kind of error


def outcome(path):
    """What read_stars says of a file; empty where it reads it."""
    try:
        read_stars(path, "draco")
    except BayesdustError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["ecsv", "csv", "vizier", "fits", "parquet", "votable"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_only_raise_our_error(tmp_path_factory, kind):
    folder = tmp_path_factory.mktemp("fuzz")
    FORMATS[kind](mock(n=12), folder / "whole")
    whole = (folder / "whole").read_bytes()

    @settings(max_examples=60, deadline=None, database=None)
    @given(
        places=st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6),
        values=st.binary(min_size=6, max_size=6),
        cut=st.integers(0, 2 * len(whole)),
        extra=st.binary(max_size=4),
    )
    def damage(places, values, cut, extra):
        content = bytearray(whole)
        for place, value in zip(places, values, strict=False):
            content[place] = value
        (folder / "damaged").write_bytes(bytes(content[:cut]) + extra)
        problem = outcome(folder / "damaged")
        assert "\n" not in problem

    damage()


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_junk_only_raises_our_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes(content)
    sentence(path, "draco")
