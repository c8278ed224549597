"""One run, one folder: fit, write posterior.nc, summary.ecsv, report.html and run.json."""

import datetime
import gc
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesdust.callbacks import OnProgress, unheard
from bayesdust.catalogs.dwarf import Stars
from bayesdust.catalogs.galaxies import published
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.catalogs.profile import Profile
from bayesdust.catalogs.tables import digest
from bayesdust.errors import BayesdustError
from bayesdust.files import write_atomically
from bayesdust.gate import Verdict
from bayesdust.hdf5_files import check_hdf5
from bayesdust.inference.draws import SCHEMA_VERSION
from bayesdust.inference.nuts import cores
from bayesdust.inference.posterior import fit, versions
from bayesdust.inference.programs import Program
from bayesdust.predictive_checks import as_metadata, predictive_pvalues
from bayesdust.report import write_report
from bayesdust.summary import is_milky_way, summarise
from bayesdust.workplace import has_work, workplace

if TYPE_CHECKING:
    from xarray import DataTree


Catalogue = Stars | MilkyWayStars | Profile
#: kind of model -> what it is of, and what it is fitted to
KINDS: dict[str, tuple[str, type]] = {
    "dwarf": ("a dwarf galaxy", Stars),
    "milky_way": ("the Milky Way", MilkyWayStars),
    "milky_way_profile": ("a profile of the Milky Way's dark matter", Profile),
}


@dataclass(frozen=True)
class Request:
    """What a run is asked to do; the same request resumes the same run.

    `settings` are those of the method's plan, as `inference.nuts.Plan`; `truth` is a group of known
    values, for mocks; `points` (m, 3) [kpc] are the places at which a model of the Milky Way answers.
    """

    program: Program
    stars: Catalogue
    method: str = "nuts"
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    truth: Mapping[str, Any] | None = None
    points: Float[np.ndarray, "m 3"] | None = None

    def __post_init__(self) -> None:
        wanted, kind = KINDS[self.program.kind]
        if not isinstance(self.stars, kind):
            read = next(name for name, kind in KINDS.values() if isinstance(self.stars, kind))
            raise BayesdustError(
                f"{self.program.name} is a model of {wanted}, and {self.stars.source} was read as that "
                f"of {read}."
            )

    def fingerprint(self) -> dict[str, Any]:
        """What decides the draws, for JSON."""
        import jax

        return {
            "model file": self.program.sha256,
            **self.stars.identity,
            "points": None if self.points is None else digest(self.points),
            "method": self.method,
            "options": {key: str(value) for key, value in self.options.items()},
            "settings": dict(self.settings),
            "versions": versions(),
            "device": jax.default_backend(),
        }


def run(
    request: Request,
    out: str | Path,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = unheard,
    spent: Mapping[str, float] | None = None,
    command: Sequence[str] = (),
) -> Verdict:
    """Fit and write posterior.nc, summary.ecsv, report.html and run.json into the folder `out`.

    A stopped run goes on when it is asked for again; a finished one is kept unless `overwrite`, and
    then until the new one is complete. `spent` holds wall times (import, reading) that went before,
    and `command` the words of the command line, both for the record.

    Raises BayesdustError for a request that cannot be done, leaving nothing behind, and where `out`
    holds something else or another process works in it.
    """
    started = time.perf_counter()
    spent = dict(spent or {})
    with workplace(Path(out), request.fingerprint(), overwrite) as partial:
        resumed = has_work(partial)
        walls: dict[str, float] = {}
        tree = fit(
            request.program,
            request.stars,
            points=request.points,
            method=request.method,
            options=request.options,
            checkpoint=partial,
            timings=walls,
            on_progress=on_progress,
            **request.settings,
        )
        on_progress(0, 0, "writing")
        fitted = time.perf_counter()
        walls["products"] = fitted - started - sum(walls.values())
        if request.truth is not None:
            add_truth(tree, request.truth)
        if "weights" in tree.children:  # large, and of use to few
            write_tree(tree.children["weights"].copy(), partial / "weights.nc")
            del tree["weights"]
        write_tree(tree, partial / "posterior.nc")
        about = record(request, command) | {"resumed": resumed, "method": tree.attrs["method"]}
        about["options"] = json.loads(tree.attrs["options"])  # those used: the defaults with them
        about["wall_seconds"] = _rounded(spent | walls)
        verdict = _present(read(partial / "posterior.nc"), partial, about)
        now = time.perf_counter()
        last = {"writing": now - fitted, "total": now - started + sum(spent.values())}
        about["wall_seconds"] |= _rounded(last)
        about["passed"] = verdict.passed
        write_atomically(partial / "run.json", json.dumps(about, indent=1, default=str) + "\n")
    return verdict


def _survey(stars: Catalogue) -> dict[str, Any]:
    """Of stars of the Milky Way: the Sun's place, the ball, the weights, and what the cuts removed."""
    if not isinstance(stars, MilkyWayStars):
        return {}
    return {"survey": stars.survey | {"cuts": stars.cuts.as_rows() if stars.cuts else []}}


def record(request: Request, command: Sequence[str] = ()) -> dict[str, Any]:
    """The contents of run.json, but for times and verdict."""
    import jax

    return {
        "schema_version": SCHEMA_VERSION,
        "command": shlex.join(command),
        "model": request.program.name,
        "model_sha256": request.program.sha256,
        "method": request.method,
        "seed": request.settings.get("seed", 0),
        "options": {key: str(value) for key, value in request.options.items()},
        "settings": dict(request.settings),
        "source": request.stars.source,
        "data_sha256": request.stars.sha256,
        "photometry_sha256": getattr(request.stars, "photometry_sha256", None),
        "places": 0 if request.points is None else len(request.points),
        "numbers_sha256": request.stars.identity["numbers"],
        **_survey(request.stars),
        "units": dict(request.stars.units),
        "warnings": list(request.stars.warnings),
        "versions": versions(),
        "device": str(jax.devices()[0]),
        "cores": cores(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def rewrite_report(out: str | Path) -> Verdict:
    """Make report.html and summary.ecsv again from a finished folder's posterior.nc.

    Raises BayesdustError if the folder holds no readable run or cannot be written.
    """
    tree, about = load(out)
    try:
        return _present(tree, Path(out), about)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise BayesdustError(
            f"{out} cannot be written ({reason}): copy it to where it can."
        ) from error


def load(out: str | Path) -> tuple["DataTree", dict[str, Any]]:
    """The DataTree and run.json of a finished folder.

    Raises BayesdustError if the folder holds no readable run.
    """
    out = Path(out)
    for name in ("run.json", "posterior.nc"):
        if not (out / name).is_file():
            raise BayesdustError(f"{out} holds no finished run: there is no {name} in it.")
    try:
        about = json.loads((out / "run.json").read_text(encoding="utf-8"))
        check_hdf5((out / "posterior.nc").read_bytes(), str(out))
        tree = read(out / "posterior.nc")
        if not isinstance(about, dict) or "posterior" not in tree.children:
            raise ValueError("something else is in it")
        version = int(tree.attrs.get("schema_version", 0))
    except MemoryError:
        raise
    except PermissionError as error:
        raise BayesdustError(f"{error.filename} cannot be read: ask for the permission.") from error
    except Exception as error:  # h5py, xarray and json each have their own
        raise BayesdustError(
            f"{out}/posterior.nc or run.json is damaged: run the fit again with --overwrite."
        ) from error
    if version != SCHEMA_VERSION:
        raise BayesdustError(
            f"{out} was written in version {version} of its layout, and this bayesdust reads version "
            f"{SCHEMA_VERSION}: run the fit again, or use the version that its run.json names."
        )
    return tree, about


def load_several(folders: Sequence[str | Path]) -> dict[str, "DataTree"]:
    """The DataTrees of finished folders by name of folder, as given; no model file is run.

    Raises BayesdustError if one is given twice, holds no readable run, or files of two runs.
    """
    trees: dict[str, DataTree] = {}
    seen: dict[Path, str] = {}
    for folder in folders:
        name, place = str(folder), Path(folder).resolve()
        if place in seen:
            raise BayesdustError(f"{seen[place]} and {name} are the same run: give two others.")
        seen[place] = name
        trees[name], about = load(folder)
        if about.get("data_sha256") != trees[name].attrs.get("data_sha256"):
            raise BayesdustError(
                f"{name}: run.json and posterior.nc are of different stars: run the fit again."
            )
    return trees


def write_tree(tree: "DataTree", path: Path) -> None:
    """Write a posterior.nc, by way of memory: HDF5 brings Python down where a disk is full."""
    image = io.BytesIO()
    tree.to_netcdf(image, engine="h5netcdf")
    write_atomically(path, image.getvalue())


def read(path: Path) -> "DataTree":
    """A posterior.nc, read whole; ValueError if it is damaged."""
    import arviz as az

    hook, problem = sys.unraisablehook, ""
    # of a damaged file h5netcdf complains once more, on stderr, when it is collected
    sys.unraisablehook = lambda _: None
    try:
        with az.from_netcdf(path) as opened:
            return opened.load()
    except (MemoryError, OSError):
        raise
    except Exception as error:
        problem = str(error)
    finally:
        if problem:
            gc.collect()
        sys.unraisablehook = hook
    raise ValueError(problem)


def _present(tree: "DataTree", folder: Path, about: Mapping[str, Any]) -> Verdict:
    """Write summary.ecsv and report.html; made of what posterior.nc and run.json hold alone."""
    text = io.StringIO()
    summary = summarise(tree)
    if not is_milky_way(tree):
        summary.meta["predictive_p_values"] = as_metadata(predictive_pvalues(tree))
    summary.write(text, format="ascii.ecsv")
    write_atomically(folder / "summary.ecsv", text.getvalue())
    key = json.loads(tree.attrs.get("galaxy", "{}")).get("key")
    shown = {name: value for name, value in about.items() if name != "passed"}
    shown["wall_seconds"] = {
        name: value
        for name, value in about.get("wall_seconds", {}).items()
        if name not in ("writing", "total")  # not known yet when the page is first made
    }
    table = published(key) if key else None
    return write_report(tree, folder / "report.html", published=table, run=shown)


def _rounded(walls: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in walls.items()}


def add_truth(tree: "DataTree", truth: Mapping[str, Any]) -> None:
    """Add the group `truth`, with the coordinates of the posterior; functions are of its radius."""
    import xarray as xr

    posterior = tree["posterior"]
    arrays = {}
    for name, value in truth.items():
        if name not in posterior:
            continue
        dims = [d for d in posterior[name].dims if d not in ("chain", "draw")]
        coords = {d: posterior.coords[d] for d in dims}
        value = value(posterior.coords[dims[0]].values) if callable(value) else value
        arrays[name] = xr.DataArray(
            np.asarray(value), dims=dims, coords=coords, attrs=posterior[name].attrs
        )
    tree["truth"] = xr.DataTree(xr.Dataset(arrays))
