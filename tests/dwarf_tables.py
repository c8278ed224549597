"""Tables of stars for tests: mock samples, and the real ones converted from their `.dat` layout."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table

from bayesdust.catalogs.dwarf import read_stars
from bayesdust.catalogs.galaxies import Galaxy, galaxy
from bayesdust.errors import BayesdustError

ROUND = Galaxy("Round", distance=100.0, rhalf=8.0)
REAL = {"draco": "dra", "fornax": "for", "leo_2": "leo2"}


def mock(name: str = "draco", n: int = 60, seed: int = 0) -> Table:
    """Stars of a built-in galaxy on the sky, with units and probabilities."""
    one = galaxy(name)
    rng = np.random.default_rng(seed)
    scale = one.rhalf / 60.0
    east, north = scale * rng.normal(size=(2, n))
    return Table(
        {
            "ra": (one.ra + east / np.cos(np.radians(one.dec))) * u.deg,
            "dec": (one.dec + north) * u.deg,
            "v_los": rng.normal(one.v_sys, 9.0, n) * u.km / u.s,
            "v_los_err": rng.uniform(0.5, 3.0, n) * u.km / u.s,
            "p_member": rng.uniform(0.9, 1.0, n),
        }
    )


def bare(table: Table) -> Table:
    """The same columns without units."""
    return Table({name: np.asarray(table[name]) for name in table.colnames})


def offsets(n: int = 60, seed: int = 0) -> Table:
    """Noise-free stars as x, y [kpc] without units, half of them within 0.25 kpc."""
    rng = np.random.default_rng(seed)
    radius = 0.25 * np.sqrt(rng.uniform(0.05, 0.8, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    return Table(
        {
            "x": radius * np.cos(angle),
            "y": radius * np.sin(angle),
            "v_los": rng.normal(0.0, 9.0, n),
            "v_los_err": np.zeros(n),
        }
    )


def vizier_tsv(table: Table) -> str:
    """What VizieR's asu-tsv output looks like, with names of its own."""
    names = ["_RAJ2000", "_DEJ2000", "HRV", "e_HRV", "Mm"]
    head = ["#", "#   VizieR Astronomical Server", "#Name: J/AJ/000/0", "#Column\tHRV\t(F6.1)", ""]
    head += ["\t".join(names), "\t".join(["deg", "deg", "km/s", "km/s", " "])]
    head += ["\t".join("-" * 12 for _ in names)]
    rows = ["\t".join(f" {row[c]!r:>12}" for c in table.colnames) for row in _plain(table)]
    return "\n".join([*head, *rows, "", "#END#", ""])


def _plain(table: Table) -> list[dict[str, float]]:
    return [{c: float(np.asarray(table[c])[i]) for c in table.colnames} for i in range(len(table))]


def real(data_dir: Path, name: str) -> Table:
    """The spectroscopic sample of Draco, Fornax or Leo II with units."""
    data = np.loadtxt(data_dir / "dwarfs" / f"{REAL[name]}_justin1_spec.dat")
    return Table(
        {
            "ra": data[:, 0] * u.deg,
            "dec": data[:, 1] * u.deg,
            "v_los": data[:, 6] * u.km / u.s,
            "v_los_err": data[:, 7] * u.km / u.s,
            "p_member": data[:, 15],
        }
    )


def real_photometry(data_dir: Path) -> Table:
    """The photometric sample of Leo II; its positions are in radians."""
    data = np.loadtxt(data_dir / "dwarfs" / "leo2_justin1_phot.dat")
    return Table({"ra": data[:, 0] * u.rad, "dec": data[:, 1] * u.rad, "p_member": data[:, 10]})


# Formats


def ecsv(table, path):
    table.write(path, format="ascii.ecsv")


def ecsv_comma(table, path):
    table.write(path, format="ascii.ecsv", delimiter=",")


def parquet_plain(table, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({c: np.asarray(table[c]) for c in table.colnames}), path)


def compressed(table, path):
    ecsv(table, path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def commented(table, path):
    np.savetxt(path, np.array(table.as_array().tolist()), header=" ".join(table.colnames))


FORMATS = {
    "ecsv": ecsv,
    "ecsv comma": ecsv_comma,
    "ecsv gzip": compressed,
    "fits": lambda table, path: table.write(path, format="fits"),
    "parquet": lambda table, path: table.write(path, format="parquet"),
    "parquet without astropy": parquet_plain,
    "csv": lambda table, path: table.write(path, format="ascii.csv"),
    "semicolons": lambda table, path: table.write(path, format="ascii.csv", delimiter=";"),
    "tab": lambda table, path: table.write(path, format="ascii.tab"),
    "whitespace": lambda table, path: table.write(path, format="ascii.basic"),
    "fixed width": lambda table, path: table.write(path, format="ascii.fixed_width_two_line"),
    "commented header": commented,
    "vizier": lambda table, path: path.write_text(vizier_tsv(table)),
    "votable": lambda table, path: table.write(path, format="votable"),
    "mrt": lambda table, path: table.write(path, format="ascii.mrt"),
}


def sentence(*args, **kwargs):
    """What read_stars says of bad input: one line, not too long."""
    with pytest.raises(BayesdustError) as error:
        read_stars(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 700
    return message
