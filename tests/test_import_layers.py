"""The floors of the house: imports go down or sideways, never up and never in a circle."""

import ast
import re
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# The first name after `bayesdust.` is a room; a new room is given its floor here.
FLOORS = {
    "__main__": 6,
    "cli": 6,
    "demo": 5,
    "report": 5,
    "report_figures": 5,
    "report_numbers": 5,
    "report_rings": 5,
    "galaxy_report": 5,
    "runs": 5,
    "train_run": 5,
    "flow_report": 5,
    "pages": 5,
    "progress": 5,
    "workplace": 5,
    "calibration_run": 5,
    "evidence_run": 5,
    "calibration_plots": 4,
    "calibration_verdict": 4,
    "chain_plots": 4,
    "gate": 4,
    "inference": 4,
    "influence": 4,
    "model_comparison": 4,
    "plots": 4,
    "predictive_checks": 4,
    "flow_plots": 4,
    "galaxy_plots": 4,
    "flow_quality": 4,
    "rings": 4,
    "summary": 4,
    "disc_distribution": 3,
    "disc_galaxy": 3,
    "disc_mocks": 3,
    "distribution": 3,
    "dusty_mocks": 3,
    "dynamics": 3,
    "interop": 3,
    "mocks": 3,
    "products": 3,
    "well": 3,
    "catalogs": 2,
    "potentials": 2,
    "anisotropy": 1,
    "arrays": 1,
    "callbacks": 1,
    "hdf5_files": 1,
    "errors": 1,
    "files": 1,
    "flows": 1,
    "literature": 1,
    "quadrature": 1,
    "style": 1,
    "tracers": 1,
    "units": 1,
}

# Who may import what; a package not named here is free for all.
ONLY_IN = {
    "numpyro": {"inference"},
    "matplotlib": {
        "calibration_plots",
        "chain_plots",
        "flow_plots",
        "galaxy_plots",
        "plots",
        "report_figures",
    },
    "corner": {"chain_plots", "plots", "report_figures"},
    "arviz_plots": {"chain_plots", "plots", "report_figures"},
    "galpy": {"interop"},
    "gala": {"interop"},
    "agama": {"interop"},
    "gammapy": {"interop"},
    "typer": {"cli"},
}
# Slow to import, so only inside the functions that need them; catalogs are made of astropy tables.
HEAVY = {"arviz", "astropy", "astroquery", "corner", "galpy", "matplotlib", "pyarrow"}
HEAVY_IS_FINE = {("catalogs", "astropy")}
OUTSIDE = {"models", "notebooks", "tests"}


def read_sources() -> dict[str, str]:
    """Every module of the package: dotted name -> source."""
    sources = {}
    for path in sorted((REPOSITORY / "bayesdust").rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        sources[name] = path.read_text()
    return sources


def find_imports(source: str, modules: set[str]) -> list[tuple[str, int, bool]]:
    """(imported module, line, whether it happens as soon as the file is imported), for one file."""
    found = []

    def visit(node: ast.AST, at_once: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.append(("." * node.level, node.lineno, at_once))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:  # `from package import module` imports the module
                inner = f"{node.module}.{alias.name}"
                dunder = node.module == "bayesdust" and alias.name.startswith("__")
                name = inner if inner in modules or dunder else node.module
                found.append((name, node.lineno, at_once))
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            late = True  # never imported at run time
        for child in ast.iter_child_nodes(node):
            visit(child, at_once and not late)

    visit(ast.parse(source), True)
    return found


def find_faults(sources: dict[str, str]) -> list[str]:
    """Every breach of the rules in the modules {dotted name: source}, as sentences."""
    faults = []
    graph: dict[str, set[str]] = {name: set() for name in sources}
    for module, source in sources.items():
        room = module.split(".")[1] if "." in module else None  # None: bayesdust/__init__.py
        if room is not None and room not in FLOORS:
            faults.append(
                f"{module}: {room} has no floor; give it one in tests/test_import_layers.py"
            )
            continue
        for target, line, at_once in find_imports(source, set(sources)):
            where = f"{module}, line {line}"
            top, *rest = target.split(".")
            if target.startswith("."):
                faults.append(f"{where}: imports are absolute")
            elif top in OUTSIDE:
                faults.append(f"{where}: {top} uses bayesdust, never the reverse")
            elif top != "bayesdust":
                if room not in ONLY_IN.get(top, {room}):
                    faults.append(f"{where}: only {sorted(ONLY_IN[top])} may import {top}")
                if top in HEAVY and at_once and (room, top) not in HEAVY_IS_FINE:
                    faults.append(f"{where}: import {top} inside the function that uses it")
            elif not rest:
                if room is not None:
                    faults.append(f"{where}: name the module, not bayesdust as a whole")
            elif not rest[0].startswith("__"):
                graph[module].add(target)
                if room is not None and FLOORS.get(rest[0], 0) > FLOORS[room]:
                    faults.append(f"{where}: {room} must not import {rest[0]}, a floor above it")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        faults.append("a circle of imports: " + " <- ".join(error.args[1]))
    return faults


def test_every_import_is_declared():
    """A package that only comes along with another may stop doing so."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    comes_along = {"arviz_stats"}  # a part of arviz
    sources = read_sources()
    used = {t.split(".")[0] for s in sources.values() for t, *_ in find_imports(s, set(sources))}
    known = declared | comes_along | sys.stdlib_module_names | {"bayesdust"}
    assert not used - known


def test_the_package_keeps_its_floors():
    assert find_faults(read_sources()) == []


def test_every_floor_is_seen():
    """The rule looks at the real files: the lowest and the highest room are among them."""
    names = set(read_sources())
    assert {"bayesdust", "bayesdust.units", "bayesdust.potentials.halos"} <= names


WRONG = {
    "up": ("tracers", "from bayesdust.dynamics import jeans", "floor above"),
    "up, late": ("tracers", "def f():\n    import bayesdust.cli", "floor above"),
    "up, from the root": ("units", "from bayesdust import report", "floor above"),
    "whole package": ("units", "import bayesdust", "name the module"),
    "relative": ("tracers", "from . import units", "absolute"),
    "numpyro below": ("dynamics.jeans", "import numpyro.infer as n", "may import numpyro"),
    "galpy elsewhere": ("mocks", "def f():\n    from galpy import df", "may import galpy"),
    "matplotlib in cli": ("cli", "def f():\n    import matplotlib.pyplot", "may import matplotlib"),
    "heavy at once": ("plots", "import matplotlib.pyplot as plt", "inside the function"),
    "heavy in a branch": ("report", "try:\n    import arviz\nexcept E:\n    pass", "inside the"),
    "models": ("cli", "from models.dsph_gnfw import model", "never the reverse"),
    "tests": ("cli", "def f():\n    import tests.conftest", "never the reverse"),
    "no floor": ("attic", "", "has no floor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_rules_bite(case):
    module, source, sentence = WRONG[case]
    rooms = ["units", "tracers", "dynamics", "dynamics.jeans", "report", "cli"]
    sources = dict.fromkeys(["bayesdust", *(f"bayesdust.{room}" for room in rooms)], "")
    faults = find_faults(sources | {f"bayesdust.{module}": source})
    assert len(faults) == 1
    assert sentence in faults[0]


def test_a_circle_on_one_floor_is_found():
    wrong = {
        "bayesdust.mocks": "from bayesdust.products import j_factor",
        "bayesdust.products": "def f():\n    from bayesdust import mocks",
    }
    assert "circle" in find_faults(wrong)[0]


def test_what_is_allowed_is_not_reported():
    right = {
        "bayesdust": "from bayesdust import inference",
        "bayesdust.inference.samplers": "import numpyro\nfrom bayesdust.units import G",
        "bayesdust.catalogs.dwarf": "import astropy.table\nfrom bayesdust import __version__",
        "bayesdust.inference": "from bayesdust.inference.samplers import nuts",
        "bayesdust.plots": "def f():\n    import matplotlib.pyplot\n    import corner",
        "bayesdust.units": "import math",
    }
    assert find_faults(right) == []
