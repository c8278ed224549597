"""Files from strangers: `make check-fuzz` reads damaged files of every kind and writes docs/results/fuzz.md.

Whatever is in a file, reading it ends with a result or with one sentence (a BayesdustError): any other
exception is a fault, and its input is kept in build/check-fuzz. A tenth of the inputs are noise.
"""

import argparse
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from astropy.table import Table  # noqa: E402
from benchmarks.results import provenance  # noqa: E402
from dust_cubes import write_fits, write_hdf5  # noqa: E402
from dwarf_tables import mock, offsets, vizier_tsv  # noqa: E402
from fake_tree import healthy  # noqa: E402
from gaia_tables import CLUMP  # noqa: E402

from bayesdust import calibration_run, runs  # noqa: E402
from bayesdust.catalogs.cartesian import read_milky_way, read_places  # noqa: E402
from bayesdust.catalogs.dust import read_dust_cube  # noqa: E402
from bayesdust.catalogs.dwarf import read_stars  # noqa: E402
from bayesdust.catalogs.facts import read_lvdb, read_toml  # noqa: E402
from bayesdust.catalogs.profile import read_profile  # noqa: E402
from bayesdust.errors import BayesdustError  # noqa: E402
from bayesdust.inference import nuts  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "fuzz.md"
FOLDER = REPOSITORY / "build" / "check-fuzz"
TOKENS = [
    b"nan", b"inf", b"-1", b"0", b"1e400", b"-0.0", b"", b"\x00", b'"', b"'", b",", b"\t", b"\n", b"#", b"&&",
    b"\xff\xfe", "µé–".encode(), b"9" * 40, b"None", b"true", b"[", b"]", b"{", b"}", b"=", b":",
    b"!!python/object:os.system", b"1e-320",
]  # fmt: skip
LONGEST = 10.0  # s, that one input may take
MEMORY = 8 << 30  # bytes


def written(table: Table, form: str) -> bytes:
    stream = io.BytesIO() if form in ("fits", "parquet") else io.StringIO()
    table.write(stream, format=form, overwrite=True)
    content = stream.getvalue()
    return content if isinstance(content, bytes) else content.encode()


def on_disk(write: Callable[[Path], object], suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"good{suffix}"
        write(path)
        return path.read_bytes()


def corpus() -> dict[str, tuple[bytes, str, Callable[[Path], object]]]:
    """Name -> content of a good file, its suffix, and what reads it."""
    dwarf, flat = mock("draco", 40), offsets(40)
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(150, 3)), 100 * rng.normal(size=(150, 3))
    stars = Table(dict(zip(("x", "y", "z", "vx", "vy", "vz"), np.hstack([x, v]).T, strict=True)))
    stars["G"] = rng.uniform(8, 14, 150)
    gaia = Table({name: np.full(150, value) for name, value in CLUMP.items()})
    places = Table({"x": [-8.0, -7.5], "y": [0.0, 1.0], "z": [0.1, 0.2]})
    r = np.array([5.0, 6.0, 7.0, 8.0, 9.0])
    profile = Table({"r": r, "rho_dm": 0.01 * (8 / r) ** 2, "rho_dm_err": np.full(5, 1e-3)})
    cube = rng.uniform(0, 1e-3, (5, 6, 4)).astype(np.float32)
    toml = b'name = "Mine"\ndistance = "80 kpc"\ndistance_err = 5\nrhalf = "9.7 arcmin"\nrhalf_err = 0.1\n'
    lvdb = (
        b"key,name,ra,dec,distance,distance_em,distance_ep,rhalf,rhalf_em,rhalf_ep,ellipticity,position_angle,"
        b"vlos_systemic,vlos_systemic_em,vlos_systemic_ep,vlos_sigma,pmra,pmdec,ref_vlos\n"
        b"mine_1,Mine,10.0,20.0,80.0,5.0,5.0,9.7,0.1,0.1,0.3,40,-20.5,1,1,9.1,0.1,-0.2,Walker2009ApJ...704.1274W\n"
    )
    found = {
        "stars.ecsv": (written(dwarf, "ascii.ecsv"), read_stars),
        "stars.csv": (written(dwarf, "ascii.csv"), read_stars),
        "flat.csv": (written(flat, "ascii.csv"), read_stars),
        "stars.fits": (written(dwarf, "fits"), read_stars),
        "stars.parquet": (on_disk(lambda p: dwarf.write(p), ".parquet"), read_stars),
        "stars.tsv": (vizier_tsv(dwarf).encode(), read_stars),
        "milky-way.csv": (written(stars, "ascii.csv"), read_milky_way),
        "milky-way.npz": (on_disk(lambda p: np.savez(p, **stars), ".npz"), read_milky_way),
        "gaia.csv": (written(gaia, "ascii.csv"), read_milky_way),
        "places.csv": (written(places, "ascii.csv"), read_places),
        "profile.csv": (written(profile, "ascii.csv"), read_profile),
        "galaxy.toml": (toml, read_toml),
        "galaxies.csv": (lvdb, read_lvdb),
        "dust.fits": (on_disk(lambda p: write_fits(p, cube, (2, 3, 2), 10.0), ".fits"), read_dust_cube),
        "dust.h5": (on_disk(lambda p: write_hdf5(p, cube, (2, 3, 2), 10.0), ".h5"), read_dust_cube),
        "posterior.nc": (on_disk(lambda p: runs.write_tree(healthy(chains=2, draws=20), p), ".nc"), read_run),
        "segment.npz": (on_disk(save_segment, ".npz"), read_segment),
        "replicas.ecsv": (REPLICAS, read_calibration),
    }  # fmt: skip
    readers = {read_stars: lambda path: read_stars(path, "draco")}
    return {
        name: (content, Path(name).suffix, readers.get(reader, reader))
        for name, (content, reader) in found.items()
    }


STATE = {"a": jnp.zeros(3), "b": jnp.zeros((), dtype=int)}
REPLICAS = b"""# %ECSV 1.0
# ---
# datatype:
# - {name: replica, datatype: int64}
# - {name: name, datatype: string}
# - {name: u, datatype: float64}
# - {name: z, datatype: float64}
# - {name: sd, datatype: float64}
# - {name: ess, datatype: float64}
# - {name: diverging, datatype: int64}
# schema: astropy-2.0
replica name u z sd ess diverging
0 gamma 0.5 0.1 0.2 300.0 0
1 gamma 0.7 0.3 0.2 310.0 0
"""


def save_segment(path: Path) -> None:
    draws = nuts.Draws({"gamma": np.zeros(5)}, {"lp": np.zeros(5)})
    nuts._save(path, STATE, draws)


def read_segment(path: Path) -> object:
    """As a run that goes on does, from a folder with this first segment."""
    path = path.rename(path.with_name("chain0-0000.npz"))
    return nuts._resume(nuts.Plan(checkpoint=path.parent), 0, STATE)


def in_a_run(path: Path, name: str) -> Path:
    """The folder of a finished run in which the file has that name."""
    path.with_name("run.json").write_text('{"passed": true}')
    return path.rename(path.with_name(name)).parent


def read_run(path: Path) -> object:
    """As `bayesdust report` does."""
    return runs.load(in_a_run(path, "posterior.nc"))


def read_calibration(path: Path) -> object:
    return calibration_run.load(in_a_run(path, "replicas.ecsv"))


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A few changes: bytes, cut and doubled pieces, odd words, lines that change places, the end cut off."""
    if rng.random() < 0.1:
        return rng.bytes(int(rng.integers(0, 2000)))
    for _ in range(int(rng.integers(1, 5))):
        i, j = sorted(rng.integers(0, len(content) + 1, 2))
        j = min(j, i + int(rng.integers(1, 60)))
        match rng.integers(7):
            case 0:
                content = content[:i] + rng.bytes(1) + content[i + 1 :]
            case 1:
                content = content[:i] + content[j:]
            case 2:
                content = content[:j] + content[i:]
            case 3:
                content = content[:i] + TOKENS[rng.integers(len(TOKENS))] + content[j:]
            case 4:
                content = content[:i]
            case 5:
                lines = content.split(b"\n")
                a, b = rng.integers(0, len(lines), 2)
                lines[a], lines[b] = lines[b], lines[a]
                content = b"\n".join(lines)
            case 6:
                content = cell_changed(content, rng)
        content = content or b"\n"
    return content


def cell_changed(content: bytes, rng: np.random.Generator) -> bytes:
    """One cell of a table of text is something else."""
    lines = content.split(b"\n")
    k = int(rng.integers(len(lines)))
    mark = next((m for m in (b"\t", b",", b" ") if m in lines[k]), b",")
    cells = lines[k].split(mark)
    cells[rng.integers(len(cells))] = TOKENS[rng.integers(len(TOKENS))]
    lines[k] = mark.join(cells)
    return b"\n".join(lines)


class TooLongError(Exception):
    """An input took more than `LONGEST`."""


def _alarm(*_: object) -> None:
    raise TooLongError


def outcome(reader: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """read, refused or FAULT, and the sentence."""
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        reader(path)
        return "read", ""
    except BayesdustError as error:
        sentence = str(error)
        return ("FAULT", "no sentence") if not sentence.strip() else ("refused", sentence)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            "FAULT",
            f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}",
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def fuzz(name: str, number: int, seed: int) -> tuple[Counter, Counter]:
    """Outcomes of `number` inputs of one kind, and the faults by their sentence."""
    content, suffix, reader = corpus()[name]
    outcomes: Counter = Counter()
    faults: Counter = Counter()
    rng = np.random.default_rng([seed, *name.encode()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"input{suffix}"
        path.write_bytes(content)
        if (good := outcome(reader, path))[0] != "read":
            raise RuntimeError(f"{name}: the good file is not read: {good[1]}")
        for i in range(number):
            shutil.rmtree(folder)
            Path(folder).mkdir()
            bad = mutated(content, rng)
            path.write_bytes(bad)
            what, sentence = outcome(reader, path)
            outcomes[what] += 1
            if what == "FAULT":
                faults[sentence[:150]] += 1
                FOLDER.mkdir(parents=True, exist_ok=True)
                (FOLDER / f"{Path(name).stem}-{i}{suffix}").write_bytes(bad)
    return outcomes, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(corpus()))
    parser.add_argument("--number", type=int, default=6000, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _alarm)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    rows, total, wrong = [], 0, 0
    for name in arguments.names:
        outcomes, faults = fuzz(name, arguments.number, arguments.seed)
        total, wrong = total + sum(outcomes.values()), wrong + outcomes["FAULT"]
        rows.append(
            f"| {name} | {outcomes['read']:,} | {outcomes['refused']:,} | {outcomes['FAULT']:,} |"
        )
        print(rows[-1], json.dumps(faults.most_common(8), indent=1), flush=True)
    lines = [
        "# Damaged and strange files",
        "",
        f"{total:,} inputs, each a good file with one to four changes (bytes, cut or doubled pieces, odd "
        "words such as nan, 1e400 or a NUL in a cell, lines that change places, the end cut off) or, one in "
        "ten, noise. Read: the change left a file that makes sense. Refused: with one sentence. Faults: any "
        f"other exception, more than {LONGEST:.0f} s, or more than {MEMORY >> 30} GiB.",
        "",
        "| file | read | refused | faults |",
        "|---|---|---|---|",
        *rows,
        "",
        provenance(f"make check-fuzz ARGS='--number {arguments.number} --seed {arguments.seed}'"),
        "",
    ]
    if set(arguments.names) == set(corpus()):
        PAGE.write_text("\n".join(lines))
        print(f"see {PAGE}: {wrong} faults in {total:,} inputs")


if __name__ == "__main__":
    main()
