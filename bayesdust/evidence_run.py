"""`bayesdust evidence`: ln Z in a folder, its runs kept as they end, resumed where it stopped."""

import dataclasses
import datetime
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from bayesdust.callbacks import OnProgress, unheard
from bayesdust.catalogs.dwarf import Stars
from bayesdust.errors import BayesdustError
from bayesdust.files import write_atomically
from bayesdust.inference.evidence import Evidence, Plan, Run, log_evidence
from bayesdust.inference.posterior import versions
from bayesdust.inference.programs import Program
from bayesdust.workplace import workplace

RESULTS = ("evidence.ecsv", "run.json")


@dataclass(frozen=True)
class Request:
    """Whose ln Z: a dwarf model, its stars and options; `plan` without checkpoint and progress."""

    program: Program
    stars: Stars
    options: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the runs, for JSON."""
        import jax

        return {
            "model file": self.program.sha256,
            **self.stars.identity,
            "options": {key: str(value) for key, value in self.options.items()},
            "settings": self.settings,
            "versions": versions() | {"blackjax": metadata.version("blackjax")},
            "device": jax.default_backend(),
        }

    @property
    def settings(self) -> dict[str, int]:
        """Those of the plan."""
        return {name: getattr(self.plan, name) for name in ("num_runs", "num_particles", "seed")}


def run(
    request: Request,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = unheard,
    command: Sequence[str] = (),
) -> Evidence:
    """ln Z; with `out` the `RESULTS` are written into that folder.

    Raises BayesdustError for a request that cannot be done, and as `workplace.workplace`.
    """
    if out is None:
        return _work(request, None, on_progress)
    clock = time.perf_counter()
    with workplace(Path(out), request.fingerprint(), overwrite, RESULTS) as partial:
        found = _work(request, partial, on_progress)
        about = _record(request, found) | {
            "command": shlex.join(command),
            "wall_seconds": round(time.perf_counter() - clock, 1),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        _write(partial, found, about)
    return found


def _work(request: Request, folder: Path | None, on_progress: OnProgress) -> Evidence:
    plan = dataclasses.replace(request.plan, checkpoint=folder, on_progress=on_progress)
    settings = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    return log_evidence(request.program, request.stars, options=request.options, **settings)


def _record(request: Request, found: Evidence) -> dict[str, Any]:
    """What run.json says."""
    fingerprint = request.fingerprint()
    return {
        "ln_z": found.ln_z,
        "ln_z_err": found.error,
        "half_width_95": found.half_width,
        "data": list(found.data),
        "passed": not found.warnings,
        "failures": found.warnings,
        "model": request.program.name,
        "source": Path(request.stars.source).name,
        "number_of_stars": request.stars.n,
        **fingerprint,
    }


def _write(folder: Path, found: Evidence, about: Mapping[str, Any]) -> None:
    from astropy.table import Table

    table = Table(rows=list(found.runs), names=Run._fields)
    table.meta["description"] = (
        "ln Z of each run, and of its temperatures: how many, the smallest effective sample size of the "
        "weights, the smallest acceptance"
    )
    table.write(folder / RESULTS[0], format="ascii.ecsv", overwrite=True)
    write_atomically(folder / RESULTS[1], json.dumps(about, indent=1, default=str) + "\n")


def load(folder: str | Path) -> Evidence:
    """ln Z of a finished folder, to be held against another's: `load(one).against(load(other))`.

    Raises BayesdustError where there is none.
    """
    from astropy.table import Table

    try:
        about = json.loads((Path(folder) / RESULTS[1]).read_text())
        table = Table.read(Path(folder) / RESULTS[0], format="ascii.ecsv")
        runs = tuple(Run(float(z), int(t), float(e), float(a)) for z, t, e, a in table.iterrows())
        return Evidence.of(runs, int(about["settings"]["num_particles"]), tuple(about["data"]))
    except Exception as error:  # of a damaged table astropy raises several kinds
        raise BayesdustError(f"{folder} holds no finished evidence that can be read.") from error
