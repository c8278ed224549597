"""The package as a whole: a light import, one version, a wheel with everything in it."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import bayesdust

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EIGHT = {"numpyro", "jax", "flowjax", "arviz", "astropy", "galpy", "corner", "blackjax"}

IMPORT = """
import json, os, sys
before = dict(os.environ)
import bayesdust, jax
changed = [key for key, _ in before.items() ^ dict(os.environ).items()]
print(json.dumps({"x64": jax.config.jax_enable_x64, "changed": changed,
                  "products": jax.config.jax_default_matmul_precision,
                  "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_names(lines: list[str]) -> dict[str, str]:
    return {normal(re.match(r"[A-Za-z0-9._-]+", line)[0]): line for line in lines}


def imported(folder: Path, **environment: str) -> dict:
    """What `IMPORT` saw."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_importing_sets_precision_and_touches_nothing_else(tmp_path):
    seen = imported(tmp_path)
    assert seen["x64"] is True
    assert seen["products"] == "highest"
    assert seen["changed"] == []
    heavy = {"arviz", "astropy", "astroquery", "corner", "galpy", "matplotlib", "numpyro", "pandas"}
    assert heavy.isdisjoint(seen["modules"])
    assert list(tmp_path.iterdir()) == []


def test_who_chose_the_precision_of_products_keeps_it(tmp_path):
    chosen = imported(tmp_path, JAX_DEFAULT_MATMUL_PRECISION="tensorfloat32")
    assert chosen["products"] == "tensorfloat32"


def test_no_module_hides_a_name_of_the_package():
    """`import bayesdust.verdict` would put a module where `bayesdust.verdict` is a function."""
    modules = {path.stem for path in (REPOSITORY / "bayesdust").iterdir()}
    assert modules.isdisjoint(set(bayesdust.__all__))


def test_one_version():
    assert bayesdust.__version__ == PROJECT["version"] == importlib.metadata.version("bayesdust")
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {bayesdust.__version__}\n" in citation


def test_the_named_libraries_are_real_dependencies_with_lower_bounds():
    needed = requirement_names(PROJECT["dependencies"])
    assert needed.keys() >= EIGHT
    assert [line for line in needed.values() if ">=" not in line] == []


def test_constraints_are_plain_pins_of_everything_needed():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    pattern = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!_-]*")
    assert [line for line in pins if not pattern.fullmatch(line)] == []
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert requirement_names(needed).keys() <= requirement_names(pins).keys()


def test_the_command_is_there():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="bayesdust")
    assert callable(entry.load())


@pytest.fixture(scope="session")
def wheel_names(tmp_path_factory) -> set[str]:
    """The files of a wheel built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    # what is built must not depend on how the tests were started
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HATCH")}
    subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def carried(folder: str) -> set[str]:
    """Files below a folder of the repository that a wheel should carry."""
    files = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file())
    return {
        path.relative_to(REPOSITORY / folder).as_posix()
        for path in files
        if "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_the_wheel_carries_code_data_and_models(wheel_names):
    expected = {f"bayesdust/{name}" for name in carried("bayesdust")}
    expected |= {f"bayesdust/_models/{name}" for name in carried("models")}
    assert expected - wheel_names == set()


def test_the_wheel_installs_nothing_else(wheel_names):
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bayesdust"}


OLD = 'case "$*" in *print*) echo 3.11.2;; *) exit 1;; esac'
SHIM = 'echo "pyenv: command not found" >&2; exit 127'
NO_VENV = 'case "$*" in *ensurepip*) exit 1;; *print*) echo 3.12.9;; esac'


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (SHIM, f'exec {sys.executable} "$@"', ""),
        (OLD, f'exec {sys.executable} "$@"', ""),
        (SHIM, OLD, "needs Python 3.12 or newer"),
        (SHIM, SHIM, "no Python was found"),
        (OLD, NO_VENV, "python3-venv"),
    ],
)
def test_make_finds_a_python_that_works(tmp_path, first, second, outcome):
    """Two python3 on PATH: the first that works is taken, or the reason why none is printed."""
    for name, script in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "python3").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name / "python3").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(REPOSITORY / ".ci" / "find-python")],
        env={"PATH": f"{tmp_path}/a:{tmp_path}/b", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if outcome:
        assert done.returncode == 1
        assert outcome in done.stderr
        assert done.stderr.count("\n") == 1
    else:
        assert done.stdout.strip() == f"{tmp_path}/b/python3"
