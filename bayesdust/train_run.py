"""`bayesdust train`: from a catalogue to an ensemble of flows in a folder, resumed where it was stopped."""

import datetime
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bayesdust.callbacks import OnProgress, unheard
from bayesdust.catalogs.cartesian import ROUNDING
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.catalogs.tables import digest, fault
from bayesdust.errors import BayesdustError
from bayesdust.files import write_atomically
from bayesdust.flow_quality import Quality, measure
from bayesdust.flows import store
from bayesdust.flows.autoregressive import Architecture
from bayesdust.flows.training import Schedule, Trained, train
from bayesdust.inference.posterior import versions
from bayesdust.workplace import has_work, workplace

RESULTS = (store.WEIGHTS, "quality.html", store.RECORD)


@dataclass(frozen=True)
class Request:
    """What a training is asked to do; the same request resumes the same run.

    `errors` has every member but the first see a copy of the stars resampled within their errors.
    """

    stars: MilkyWayStars
    members: int = 1
    schedule: Schedule = field(default_factory=Schedule)
    errors: bool = False
    build: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _away(self) -> np.ndarray:
        """Distances from the centre of the survey, (n,) kpc."""
        return np.linalg.norm(self.stars.x - np.asarray(self.stars.centre), axis=1)

    @property
    def radius(self) -> float:
        """Of the survey [kpc], declared or such that it just holds the stars."""
        declared = self.stars.radius
        return 1.001 * float(self._away.max()) if declared is None else declared

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What the flows are trained on, of `copies`."""
        stars = replace(self.stars, radius=self.radius)  # so that no copy of a star leaves the ball
        return copies(stars, self.members, self.schedule.seed, self.errors)

    @cached_property
    def architecture(self) -> Architecture:
        """Standardised by the stars, in their declared ball or in the one that just holds them.

        Raises BayesdustError for a star outside the declared ball, or a coordinate that all stars share.
        """
        stars = self.stars
        # stars on the rim, as the readers allow them, lie inside after rounding to single precision
        radius = self.radius * (1 + 1e-5) + 2 * ROUNDING
        if (wrong := self._away >= radius).any():
            first = int(np.argmax(wrong))
            problem = (
                f"the star is {self._away[first]:.6g} kpc from the centre of the survey, outside its "
                f"radius of {self.radius:g} kpc"
            )
            raise fault(
                stars.source, problem, "remove it or declare a larger radius", stars.row(first)
            )
        for name, values in zip(
            ("x", "y", "z", "vx", "vy", "vz"), [*stars.x.T, *stars.v.T], strict=True
        ):
            if np.ptp(values) == 0.0:
                problem = f"every star has the same {name}, {values[0]:g}"
                raise fault(
                    stars.source, problem, "a density of six dimensions needs all six", column=name
                )
        return Architecture.for_stars(stars.x, stars.v, stars.centre, radius, **self.build)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the flows, for JSON; the numbers too, for one file can be read in many ways."""
        import jax

        x, v, weights = self.arrays
        return {
            "stars": self.stars.sha256,
            "positions": digest(x),
            "velocities": digest(v),
            "weights": digest(weights),
            "members": self.members,
            "errors": self.errors,
            "schedule": asdict(self.schedule),
            "architecture": json.loads(json.dumps(self.architecture.to_dict())),
            "versions": versions(),
            "device": jax.default_backend(),
        }


def run(
    request: Request,
    out: str | Path,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = unheard,
    command: Sequence[str] = (),
) -> Quality:
    """Train and write flows.eqx, quality.html and run.json into the folder `out`.

    Raises BayesdustError for a request that cannot be done, leaving nothing behind.
    """
    from bayesdust.flow_report import write_page

    clock, stars = time.perf_counter(), request.stars
    architecture = request.architecture
    x, v, weights = request.arrays
    with workplace(Path(out), request.fingerprint(), overwrite, RESULTS) as partial:
        resumed = has_work(partial)
        trained = train(
            x,
            v,
            architecture,
            members=request.members,
            weights=weights,
            schedule=request.schedule,
            checkpoint=partial,
            on_progress=on_progress,
        )
        on_progress(0, 0, "judging")
        quality = measure(trained, stars)
        flows = store.save(trained.flows, architecture, request.members, partial)
        about = {"flows": flows} | record(request, trained, quality)
        about |= {"command": shlex.join(command), "resumed": resumed}
        about["wall_seconds"] = round(time.perf_counter() - clock, 1)
        write_page(quality, trained, stars, about, partial / RESULTS[1])
        text = json.dumps(_plain(about), indent=1, default=str, allow_nan=False)
        write_atomically(partial / store.RECORD, text + "\n")
    return quality


def copies(
    stars: MilkyWayStars, members: int, seed: int, errors: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x, v and weights for the training: the stars, or a resampled copy for every member but the first.

    A star that its errors carry out of the survey keeps its place, with weight zero.
    """
    if not errors:
        return stars.x, stars.v, stars.weights
    if members < 2:
        raise BayesdustError(
            "Every member but the first sees stars resampled within their errors: ask for 2 members or "
            "more, or leave that option out."
        )
    if stars.observed is None:
        raise BayesdustError(f"{stars.source} has no errors to resample: leave that option out.")
    x, v = (np.repeat(a[None], members, axis=0) for a in (stars.x, stars.v))
    even = np.ones(stars.n) if stars.weights is None else stars.weights
    weights = np.tile(even, (members, 1))
    for number in range(1, members):
        copy = stars.resampled(seed + number)
        places = np.searchsorted(stars.rows, copy.rows)
        x[number, places], v[number, places] = copy.x, copy.v
        lost = np.ones(stars.n, dtype=bool)
        lost[places] = False
        weights[number, lost] = 0.0
    return x, v, weights


def _plain(value: Any) -> Any:
    """For JSON, which knows no NaN: null in its place."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def record(request: Request, trained: Trained, quality: Quality) -> dict[str, Any]:
    """The contents of run.json, but for the flows, times and command."""
    stars = request.stars
    return {
        "seed": request.schedule.seed,
        "schedule": asdict(request.schedule),
        "errors_resampled": request.errors,
        "source": stars.source,
        "data_sha256": stars.sha256,
        "stars": stars.n,
        "weights": stars.weights_from,
        "units": dict(stars.units),
        "warnings": list(stars.warnings),
        "cuts": None if stars.cuts is None else stars.cuts.as_rows(),
        "held_out_loss": trained.losses[-1, 1].tolist(),
        "epochs": len(trained.losses),
        "quality": quality.to_dict(),
        "versions": versions(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
