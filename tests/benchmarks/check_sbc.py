"""Do the dwarf models' posteriors mean what they say? `make check-sbc` writes docs/results/sbc.md.

Simulation-based calibration (`bayesdust calibrate`) of every shipped model under its own priors and
likelihood, and of two wrong ones that must be rejected. Every replica is kept in build/check-sbc: the same
command goes on where it stopped.
"""

import argparse
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import numpy as np  # noqa: E402
from benchmarks.results import provenance  # noqa: E402

from bayesdust.calibration_run import load, run  # noqa: E402
from bayesdust.calibration_verdict import ALARM, Calibration, judge  # noqa: E402
from bayesdust.demo import request  # noqa: E402
from bayesdust.files import as_json  # noqa: E402
from bayesdust.inference.calibration import Trial  # noqa: E402
from bayesdust.progress import Progress  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "sbc.md"
FOLDER = REPOSITORY / "build" / "check-sbc"
SEED = 500


@dataclass(frozen=True)
class Case:
    """A model, what draws its stars if that is another one, and how many."""

    model: str
    label: str
    right: bool = True
    stars: int = 300
    options: dict[str, Any] = field(default_factory=dict)
    drawn_by: str | None = None
    drawn_options: dict[str, Any] | None = None

    def trial(self) -> Trial:
        stars = replace(request(n=self.stars).stars, source="the demo's catalogue")
        return Trial(self.model, stars, self.options, self.drawn_by, self.drawn_options, seed=SEED)


CASES = {
    "dsph_nfw_om": Case("dsph_nfw_om", "`dsph_nfw_om`"),
    "dsph_gnfw": Case("dsph_gnfw", "`dsph_gnfw`"),
    "kurtosis": Case(
        "dsph_gnfw", "`dsph_gnfw`, velocities=kurtosis", options={"velocities": "kurtosis"}
    ),
    "dsph_zhao": Case("dsph_zhao", "`dsph_zhao`"),
    "dsph_flow": Case("dsph_flow", "`dsph_flow`", stars=100),
    "no-errors": Case(
        str(REPOSITORY / "models" / "wrong" / "dsph_gnfw_no_errors.py"),
        "wrong: errors left out",
        right=False,
        drawn_by="dsph_gnfw",
    ),
    "isotropic": Case(
        "dsph_gnfw",
        "wrong: orbits held isotropic",
        right=False,
        options={"anisotropy": "isotropic"},
        drawn_options={"anisotropy": "constant"},
    ),
}


def calibrated(name: str, replicas: int) -> Calibration:
    """The calibration of a case; a finished one is read back."""
    trial, folder = CASES[name].trial(), FOLDER / name
    alarm = ALARM / sum(case.right for case in CASES.values())
    if (folder / "run.json").exists():
        found, about = load(folder)
        same = about["fingerprint"] == as_json(trial.fingerprint())
        if same and len(found) == replicas:
            return judge(found, alarm)
    with Progress() as show:
        return run(trial, replicas, folder, overwrite=True, alarm=alarm, on_progress=show)


def rows(case: Case, found: Calibration) -> list[str]:
    """One row a quantity."""
    return [
        f"| {case.label} | {q.name} | {len(q.u)} | {q.coverage('68'):.0%} | {q.coverage('95'):.0%} | "
        f"{np.mean(q.u > 0.5):.0%} | {q.mean_z:+.2f} | {q.rms_z:.2f} | {'inside' if q.inside else 'LEFT'} |"
        for q in found.quantities
    ]


def verdict(case: Case, found: Calibration) -> str:
    """One line a case: a right model is to be calibrated, a wrong one to be found out."""
    ok = found.passed is case.right
    told = "calibrated" if found.passed else f"rejected ({len(found.failures)} quantities)"
    return (
        f"| {case.label} | {case.stars} | {found.replicas} | {len(found.quantities)} | {found.diverged} | "
        f"{found.poor} | {told} | {'as it must' if ok else 'MISSED'} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), help="of the page, by name")
    parser.add_argument("--replicas", type=int, default=200)
    arguments = parser.parse_args()
    verdicts, every = [], []
    for name in arguments.cases:
        case = CASES[name]
        print(name, flush=True)
        found = calibrated(name, arguments.replicas)
        verdicts.append(verdict(case, found))
        every += rows(case, found)
        print(verdicts[-1], flush=True)
    lines = [
        "# Simulation-based calibration of the dwarf models",
        "",
        "Parameters from each model's own priors, velocities from its own likelihood at the places and with "
        "the errors (2 km/s) of the demo's stars, and a fit to them; of `dsph_flow`, which fits the light to "
        "the stars' places, parameters given those places. If posteriors are right the share u of draws "
        "below the truth is uniform: its distribution stays inside a band that right models leave anywhere, "
        f"in any quantity of any model, with a probability of {ALARM:.0%}. This is "
        "what `bayesdust calibrate` does. It says nothing of stars that are not as the model draws them.",
        "",
        "| model | stars | fits | quantities | with divergences | of fewer than 50 draws | found | |",
        "|---|---|---|---|---|---|---|---|",
        *verdicts,
        "",
        "| model | quantity | fits | 68 % intervals hold it in | 95 % in | truth above the median in | "
        "mean z | rms z | |",
        "|---|---|---|---|---|---|---|---|---|",
        *every,
        "",
        provenance("make check-sbc"),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print(f"see {PAGE}")


if __name__ == "__main__":
    main()
