"""Does the evidence tell that dust was forgotten? `make check-forgotten-dust` writes
docs/results/forgotten-dust.md.

`mw_cbe_linear` with efficiency=none and efficiency=free has the same sums over the stars, so that the
difference of its two ln_evidence weighs a galaxy without dust against one with. On mocks of 20,000 stars
behind the usual dust, a third of it, and none, with the chi2 that the diagnostics look at beside it. Twenty
minutes.
"""

import dataclasses
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import numpy as np  # noqa: E402
from benchmarks.results import kept_json, provenance  # noqa: E402

from bayesdust.dusty_mocks import clouds, dusty_survey  # noqa: E402
from bayesdust.gate import verdict  # noqa: E402
from bayesdust.inference.galaxy_posterior import fit  # noqa: E402
from bayesdust.inference.programs import load  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "forgotten-dust.md"
KEPT = REPOSITORY / "build" / "check-forgotten-dust"
SHARES = {"the usual dust": 1.0, "a third of it": 1 / 3, "none": 0.0}
STARS, FIRST, MOCKS = 20_000, 3000, 5  # seeds from FIRST on
HEADER = (
    "| dust | seed | stars below epsilon 0.6 [%] | chi2 / dof of none | its diagnostics | ln evidence of "
    "free less that of none |\n|---|---|---|---|---|---|"
)
INTRO = (
    f"`mw_cbe_linear` with `efficiency=none` and with `free`, whose sums are the same, on mocks of {STARS:,} "
    "stars: how much more probable dust makes the sums, as a difference of `ln_evidence`. Above 0 there is "
    "dust, unless something else is wrong with the equilibrium; 5 is odds of 150. The mocks without dust are "
    "the wrong ones: they must not be above 0 by much."
)


def result(share: float, mock: int) -> dict:
    """ln evidence with and without dust, and what the diagnostics say of the fit without."""
    seed, dust = FIRST + mock, clouds()
    dust = dataclasses.replace(dust, peaks=share * dust.peaks, strength=share * dust.strength)
    survey = dusty_survey(STARS, seed, dust=dust)
    stars, program = survey.stars(), load("mw_cbe_linear")
    found: dict = {"dusty": float(np.mean(survey.epsilon < 0.6))}
    for kind in ("none", "free"):
        tree = fit(program, stars, options={"efficiency": kind}, seed=seed)
        found[kind] = [float(tree.attrs[f"ln_evidence{x}"]) for x in ("", "_error")]
        if kind == "none":
            found["chi2"] = float(tree["posterior"]["chi2"].median())
            found["dof"], found["passed"] = int(tree.attrs["chi2_dof"]), verdict(tree).passed
    return found


def main() -> None:
    rows = []
    for label, share in SHARES.items():
        found = kept_json(KEPT / f"{share:.2f}", MOCKS, lambda share=share: partial(result, share))
        for seed, one in enumerate(found, FIRST):
            gain = one["free"][0] - one["none"][0]
            error = np.hypot(one["free"][1], one["none"][1])
            rows.append(
                f"| {label} | {seed} | {100 * one['dusty']:.1f} | {one['chi2']:.0f} / {one['dof']} | "
                f"{'pass' if one['passed'] else 'FAIL'} | {gain:+.1f} +- {error:.1f} |"
            )
            print(rows[-1], flush=True)
    text = [
        INTRO,
        "\n".join([HEADER, *rows]),
        provenance("make check-forgotten-dust"),
    ]
    PAGE.write_text("# Was dust forgotten?\n\n" + "\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
