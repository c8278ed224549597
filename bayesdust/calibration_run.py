"""`bayesdust calibrate`: many fits to stars that a model draws, in a folder, resumed where they stopped."""

import datetime
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from bayesdust.calibration_verdict import ALARM, ESS_MIN, FEWEST, Calibration, judge
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.catalogs.dwarf import Stars
from bayesdust.errors import BayesdustError
from bayesdust.files import as_json, read_kept, write_atomically
from bayesdust.inference.calibration import Replica, Trial
from bayesdust.inference.calibration import replicas as fits
from bayesdust.inference.posterior import versions
from bayesdust.pages import data_uri, render
from bayesdust.workplace import workplace

RESULTS = ("replicas.ecsv", "calibration.ecsv", "report.html", "run.json")
DPI = 110


def calibrate(
    model: str | Path,
    stars: Stars,
    *,
    replicas: int = 200,
    options: Mapping[str, Any] | None = None,
    drawn_by: str | Path | None = None,
    drawn_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    on_progress: OnProgress = unheard,
    **settings: Any,
) -> Calibration:
    """Do a dwarf model's posteriors mean what they say? Fits it to velocities that it has drawn itself.

    `stars` give places and errors. `drawn_by` and `drawn_options` are of another model that draws the
    velocities, to see whether `model` is found to be wrong. `settings` are num_warmup, num_draws,
    target_accept and seed of `inference.calibration.Trial`. With `out` the results are written to that
    folder, and the same call goes on where it was stopped. `executor` runs the fits elsewhere, as Dask's
    `client.get_executor()`.

    Raises BayesdustError for a model that cannot be calibrated, or fewer than 20 replicas.
    """
    name = None if drawn_by is None else str(drawn_by)
    trial = Trial(str(model), stars, options or {}, name, drawn_options, **settings)
    if out is not None:
        return run(trial, replicas, out, executor=executor, on_progress=on_progress)
    _enough(replicas)
    return judge(_completed(trial, replicas, {}, executor, on_progress))


def _enough(number: int) -> None:
    if number < FEWEST:
        raise BayesdustError(f"{number} replicas tell nothing: ask for {FEWEST} or more.")


def _completed(
    trial: Trial,
    number: int,
    found: dict[int, Replica],
    executor: Executor | None,
    on_progress: OnProgress,
    keep: Callable[[int, Replica], None] = lambda index, replica: None,
) -> dict[int, Replica]:
    """`found` and the replicas that are not in it, up to `number`; each is given to `keep`."""
    missing = [i for i in range(number) if i not in found]
    on_progress(0, 0, "compiling" if missing else "judging")
    for index, replica in fits(trial, missing, executor):
        keep(index, replica)
        found[index] = replica
        on_progress(len(found), number, "fitting")
    return found


def run(
    trial: Trial,
    number: int,
    out: str | Path,
    *,
    overwrite: bool = False,
    alarm: float = ALARM,
    executor: Executor | None = None,
    on_progress: OnProgress = unheard,
    command: Sequence[str] = (),
) -> Calibration:
    """Calibrate with `number` replicas; writes `RESULTS` into the folder `out`.

    `alarm` as of `judge`, `executor` as of `inference.calibration.replicas`. A finished run of fewer
    replicas is gone on with. Raises BayesdustError for a trial that cannot be done.
    """
    clock = time.perf_counter()
    _enough(number)
    begun = {} if overwrite else _begun(Path(out), trial, number)
    with workplace(Path(out), trial.fingerprint(), overwrite or bool(begun), RESULTS) as partial:

        def keep(index: int, replica: Replica) -> None:
            write_atomically(_file(partial, index), json.dumps(replica._asdict()))

        kept = ((i, read_kept(_file(partial, i), Replica)) for i in range(number))
        found = begun | {i: replica for i, replica in kept if replica}
        found = _completed(trial, number, found, executor, on_progress, keep)
        calibration = judge(found, alarm)
        about = record(trial) | {
            "fingerprint": trial.fingerprint(),
            "command": shlex.join(command),
            "wall_seconds": round(time.perf_counter() - clock, 1),
        }
        _write(partial, found, calibration, about)
    return calibration


def _begun(out: Path, trial: Trial, number: int) -> dict[int, Replica]:
    """The replicas of a finished run of the same trial, if they are fewer than wanted."""
    if not (out / RESULTS[3]).exists():
        return {}
    found, about = load(out)
    same = about.get("fingerprint") == as_json(trial.fingerprint())
    return found if same and len(found) < number else {}


def load(folder: str | Path) -> tuple[dict[int, Replica], dict[str, Any]]:
    """The replicas of a finished run, for `judge`, and its run.json.

    Raises BayesdustError where there is none.
    """
    from astropy.table import Table

    try:
        about = json.loads((Path(folder) / RESULTS[3]).read_text())
        table = Table.read(Path(folder) / RESULTS[0], format="ascii.ecsv")
        found: dict[int, Replica] = {}
        for index, name, u, z, sd, ess, diverging in table.iterrows():
            one = found.setdefault(int(index), Replica({}, {}, {}, float(ess), int(diverging)))
            one.u[name], one.z[name], one.sd[name] = float(u), float(z), float(sd)
    except Exception as error:  # of a damaged table astropy raises several kinds
        raise BayesdustError(f"{folder} holds no finished calibration that can be read.") from error
    return found, about


def record(trial: Trial) -> dict[str, Any]:
    """What run.json says beside the verdict."""
    drawn_by, drawn_options = trial.drawer
    return {
        "model": Path(trial.model).stem,
        "options": dict(trial.options),
        "drawn_by": Path(drawn_by).stem,
        "drawn_options": dict(drawn_options),
        "source": Path(trial.stars.source).name,
        "data_sha256": trial.stars.sha256,
        "stars": trial.stars.n,
        "seed": trial.seed,
        "num_warmup": trial.num_warmup,
        "num_draws": trial.num_draws,
        "versions": versions(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _write(
    partial: Path, found: dict[int, Replica], calibration: Calibration, about: dict[str, Any]
) -> None:
    from astropy.table import Table

    from bayesdust.calibration_plots import shares

    rows = [
        (index, name, r.u[name], r.z[name], r.sd[name], r.ess, r.diverging)
        for index, r in sorted(found.items())
        for name in r.u
    ]
    every = Table(rows=rows, names=["replica", "name", "u", "z", "sd", "ess", "diverging"])
    every.write(partial / RESULTS[0], format="ascii.ecsv", overwrite=True)
    calibration.table().write(partial / RESULTS[1], format="ascii.ecsv", overwrite=True)
    context = {
        "found": calibration,
        "about": about,
        "figure": data_uri(shares(calibration), DPI),
        "ess_min": ESS_MIN,
    }
    write_atomically(partial / RESULTS[2], render("calibration.html.j2", context))
    about |= {
        "passed": calibration.passed,
        "failures": list(calibration.failures),
        "replicas": calibration.replicas,
    }
    write_atomically(partial / RESULTS[3], json.dumps(about, indent=1, default=str) + "\n")


def _file(partial: Path, index: int) -> Path:
    return partial / f"replica-{index:05d}.json"
