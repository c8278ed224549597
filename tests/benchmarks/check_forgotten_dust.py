"""Does the evidence tell that dust was forgotten? `make check-forgotten-dust` writes
docs/results/forgotten-dust.md.

`mw_cbe_linear` with efficiency=none and efficiency=free has the same sums over the stars, so that the
difference of its two ln_evidence weighs a galaxy without dust against one with. On mocks of 20,000 stars
behind the usual dust, a third of it, and none, and on five parts of the file's, with the chi2 that the
diagnostics look at beside it. A quarter of an hour.
"""

import dataclasses
import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import numpy as np  # noqa: E402
from benchmarks import check_boltzmann  # noqa: E402
from benchmarks.results import dusty_mock, kept_json, provenance  # noqa: E402

from bayesdust.catalogs.milky_way import MilkyWayStars  # noqa: E402
from bayesdust.dusty_mocks import clouds, dusty_survey  # noqa: E402
from bayesdust.gate import verdict  # noqa: E402
from bayesdust.inference.galaxy_posterior import fit  # noqa: E402
from bayesdust.inference.programs import load  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "forgotten-dust.md"
KEPT = REPOSITORY / "build" / "check-forgotten-dust"
#: of the dust of `dusty_survey`; the file's mock has its own
KINDS = {"the usual dust": 1.0, "a third of it": 1 / 3, "none": 0.0, "that of the file": None}
STARS, FIRST, MOCKS = 20_000, 3000, 5  # seeds from FIRST on, or parts of the file
HEADER = (
    "| dust | seed or part | stars below epsilon 0.6 [%] | vertical force | chi2 / dof | diagnostics | "
    "ln evidence of dust |\n|---|---|---|---|---|---|---|"
)
INTRO = (
    f"`mw_cbe_linear` on {STARS:,} stars of mocks, with the dust ignored (`efficiency=none`): the size of "
    "the vertical force that the sums like best (truth 1), their chi2, and what the diagnostics say. And how "
    "much more probable the same sums are with dust (`efficiency=free`), as the difference of the two "
    "`ln_evidence`: 5, odds of about 150, is taken for telling. The mocks without dust are the wrong ones "
    "for that; two parts of the file lie above all of them, and below 5."
)


def mock_of(share: float | None, number: int) -> tuple[MilkyWayStars, np.ndarray]:
    """Stars, and the true efficiency of each."""
    if share is None:
        part = slice(STARS * number, STARS * (number + 1))
        mock = dusty_mock()
        some = {name: mock[name][part] for name in (*"xyz", "vx", "vy", "vz", "G", "epsilon")}
        return check_boltzmann.stars_of(mock | some, None, False), some["epsilon"]
    dust = clouds()
    dust = dataclasses.replace(dust, peaks=share * dust.peaks, strength=share * dust.strength)
    survey = dusty_survey(STARS, FIRST + number, dust=dust)
    return survey.stars(), survey.epsilon


def result(share: float | None, number: int) -> dict:
    """ln evidence with and without dust, and what the diagnostics say of the fit without."""
    (stars, epsilon), program = mock_of(share, number), load("mw_cbe_linear")
    found: dict = {"dusty": float(np.mean(epsilon < 0.6))}
    for kind in ("none", "free"):
        tree = fit(program, stars, options={"efficiency": kind}, seed=number)
        found[kind] = [float(tree.attrs[f"ln_evidence{x}"]) for x in ("", "_error")]
        if kind == "none":
            found |= {"chi2": float(tree["posterior"]["chi2"].median())}
            found |= {"dof": int(tree.attrs["chi2_dof"]), "passed": verdict(tree).passed}
            found |= {"vertical": json.loads(tree.attrs["pilot"])[1]}
    return found


def row(label: str, number: int, share: float | None, one: dict) -> str:
    gain = one["free"][0] - one["none"][0]
    error = np.hypot(one["free"][1], one["none"][1])
    return (
        f"| {label} | {number if share is None else FIRST + number} | {100 * one['dusty']:.1f} | "
        f"{one['vertical']:.2f} | {one['chi2']:.0f} / {one['dof']} | "
        f"{'pass' if one['passed'] else 'FAIL'} | {gain:+.1f} +- {error:.1f} |"
    )


def main() -> None:
    rows = []
    for label, share in KINDS.items():
        kept = KEPT / label.replace(" ", "-")
        found = kept_json(kept, MOCKS, lambda share=share: partial(result, share))
        rows += [row(label, number, share, one) for number, one in enumerate(found)]
        print("\n".join(rows[-MOCKS:]), flush=True)
    table = "\n".join([HEADER, *rows])
    text = "\n\n".join([INTRO, table, provenance("make check-forgotten-dust")])
    PAGE.write_text(f"# Was dust forgotten?\n\n{text}\n")


if __name__ == "__main__":
    main()
