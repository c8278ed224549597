"""What the sums over the stars say by themselves: `make check-sums` writes docs/results/sums.md.

The sizes of the true horizontal and vertical force that the sums of the weak form like best (the truth is 1),
without a prior and without a sampler: with test functions of several sizes; with errors of the stars; over
independent samples of one galaxy; with the dust told by magnitudes, against the true efficiency of the same
stars. The wrong model is that of no dust. What is finished is kept in build/check-sums, so that the same
command goes on where it stopped; three quarters of an hour on two cores.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks import check_boltzmann, check_cbe_coverage  # noqa: E402
from benchmarks.results import dusty_mock, kept_json, pooled, provenance  # noqa: E402

from bayesdust.callbacks import unheard  # noqa: E402
from bayesdust.catalogs.milky_way import MilkyWayStars  # noqa: E402
from bayesdust.dusty_mocks import clouds, dusty_survey  # noqa: E402
from bayesdust.dynamics.weak_form import Bumps, two_forces  # noqa: E402
from bayesdust.inference.galaxy_data import CHOICES, OPTIONS, Survey, options_of  # noqa: E402
from bayesdust.potentials import Potential, milky_way_2014  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "sums.md"
FOLDER = REPOSITORY / "build" / "check-sums"
FEW = 20_000  # stars
#: of the file; bump [kpc], or the usual one and no dust, which is wrong
SIZES = [(stars, bump) for stars in (FEW, None) for bump in (1.0, 1.33, 1.5, 1.7, 1.9, None)]
SAMPLES, FIRST_SAMPLE = 50, 5000
MOCKS, FIRST_MOCK = 16, 6000
FORCES = "horizontal", "vertical"
DUSTS = {"magnitudes": "magnitudes and counts", "ignored": "ignored (the wrong model)"}
Result = dict[str, Any]


def told(
    stars: MilkyWayStars,
    options: dict[str, Any],
    truth: Potential | None = None,
    tests: Bumps | None = None,
) -> Result:
    """Sizes of the two forces of `truth` (MWPotential2014) with their sds, and how well they fit."""
    survey = prepared(stars, options)
    survey = survey if tests is None else replace(survey, tests=tests)
    truth = milky_way_2014() if truth is None else truth
    found = survey.weigh(two_forces(truth.acceleration), None, unheard)
    white = found.whitened()
    slopes, constant = white[:, :-1], white[:, -1]
    inverse = np.linalg.inv(slopes.T @ slopes)
    sizes = inverse @ (found.pull - slopes.T @ constant)
    chi2 = found.inflation * np.sum((constant + slopes @ sizes) ** 2)
    return {
        "sizes": sizes.tolist(),
        "sds": np.sqrt(np.diag(inverse)).tolist(),
        "chi2": float(chi2),
        "number": survey.tests.number,
        "inflation": found.inflation,
    }


def prepared(stars: MilkyWayStars, options: dict[str, Any]) -> Survey:
    """The stars as the models take them."""
    chosen = options_of({"sun": "fixed"} | options, stars, OPTIONS, CHOICES)
    return Survey.of(stars, chosen, None, 1, unheard)


def by_size(index: int) -> Result:
    """One of `SIZES`."""
    number, bump = SIZES[index]
    weights, options = (None, {}) if bump is None else ("1/epsilon", {"bump": bump})
    return told(check_boltzmann.stars_of(dusty_mock(number), weights, False), options)


def with_errors(index: int) -> Result:
    """One of `ERRORS`."""
    mock = dusty_mock()
    _, errors, option, same = ERRORS[index]
    seen = check_boltzmann.stars_of(mock, "1/epsilon", True)
    stars = seen if errors else check_boltzmann.stars_of(mock, "1/epsilon", False)
    tests = prepared(seen, {"errors": "deconvolved"}).tests if same else None
    return told(stars, {"errors": option}, tests=tests)


#: label, whether the stars have errors, the option, whether with the bumps of the second row
ERRORS = (
    ("ignored", True, "ignored", False),
    ("deconvolved (bumps end two errors inside)", True, "deconvolved", False),
    ("ignored, the same bumps", True, "ignored", True),
    ("stars without errors, the same bumps", False, "ignored", True),
)


def sample(index: int) -> Result:
    """One galaxy and its dust, seen again."""
    seed = FIRST_SAMPLE + index
    return told(dusty_survey(FEW, seed, dust=clouds(FIRST_SAMPLE)).stars("1/epsilon"), {})


def dusty(index: int) -> Result:
    """A galaxy and clouds of their own: efficiency given, from magnitudes, ignored."""
    survey = check_cbe_coverage.mock(FIRST_MOCK + index)
    stars, truth = survey.stars("1/epsilon"), survey.galaxy.potential
    return {
        "given": told(stars, {}, truth),
        "magnitudes": told(stars, {"limit": 14.0}, truth),
        "ignored": told(stars, {"efficiency": "none"}, truth),
    }


def cells(found: Result) -> str:
    """value +- sd of both sizes."""
    pairs = zip(found["sizes"], found["sds"], strict=True)
    return " | ".join(f"{size:.3f} +- {sd:.3f}" for size, sd in pairs)


def by_size_rows(found: list[Result]) -> list[str]:
    rows = []
    for (number, bump), one in zip(SIZES, found, strict=True):
        label = bump or "1.7, dust ignored (the wrong model)"
        rows.append(
            f"| {f'{number:,}' if number else 'all'} | {label} | {one['number']} | "
            f"{one['inflation']:.2f} | {cells(one)} | {one['chi2']:.0f} |"
        )
    return rows


def error_rows(found: list[Result]) -> list[str]:
    return [
        f"| {label} | {one['number']} | {cells(one)} | {one['chi2']:.0f} |"
        for (label, *_), one in zip(ERRORS, found, strict=True)
    ]


def scatter(z: np.ndarray) -> tuple[str, str]:
    """Mean and rms of one number a mock, with their errors."""
    mean, mean_error, rms, rms_error = pooled(z[:, None])
    return f"{mean:+.2f} +- {mean_error:.2f}", f"{rms:.2f} +- {rms_error:.2f}"


def sample_rows(found: list[Result]) -> list[str]:
    z = np.array([(np.array(one["sizes"]) - 1) / one["sds"] for one in found])
    widened = np.sqrt([one["inflation"] for one in found])
    return [
        f"| {force} | {' | '.join(scatter(z[:, i]))} | {scatter(z[:, i] * widened)[1]} |"
        for i, force in enumerate(FORCES)
    ]


def dust_rows(found: list[Result]) -> list[str]:
    """What the dust costs each force, in percent and in its sd."""
    rows = []
    for kind, label in DUSTS.items():
        for i, force in enumerate(FORCES):
            off = np.array([one[kind]["sizes"][i] - one["given"]["sizes"][i] for one in found])
            sd = np.array([one[kind]["sds"][i] for one in found])
            mean, rms = scatter(off / sd)
            rows.append(f"| {label} | {force} | {scatter(100 * off)[0]} % | {mean} | {rms} |")
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(FOLDER / "xla"))
    sizes = kept_json(FOLDER / "sizes", len(SIZES), lambda: by_size)
    errors = kept_json(FOLDER / "errors", len(ERRORS), lambda: with_errors)
    samples = kept_json(FOLDER / "samples", SAMPLES, lambda: sample, workers=2)
    dust = kept_json(FOLDER / "dust", MOCKS, lambda: dusty, workers=2)
    lines = [
        "# What the sums say by themselves",
        "",
        "The sizes of the true horizontal and vertical force that the sums over the stars like best "
        "(`dynamics/weak_form.py`, `dynamics/cross_fitting.py`), without priors; the truth is 1. The sds "
        "hold the inflation of the covariance, chi2 does not.",
        "",
        "## The size of the test functions",
        "",
        f"The dusty mock of 100,000 stars and its first {FEW:,}, the efficiency given.",
        "",
        "| stars | bump [kpc] | sums | inflation | horizontal | vertical | chi2 |",
        "|---|---|---|---|---|---|---|",
        *by_size_rows(sizes),
        "",
        "## Stars with errors",
        "",
        "The 100,000 stars in Gaia's columns, with errors of 0.02 mas, 0.02 mas/yr and 0.6 to 5 km/s, one "
        "realisation of them, the efficiency given.",
        "",
        "| errors | sums | horizontal | vertical | chi2 |",
        "|---|---|---|---|---|",
        *error_rows(errors),
        "",
        "## Independent samples of one galaxy",
        "",
        f"{SAMPLES} samples of {FEW:,} stars of MWPotential2014 behind one dust, the efficiency given: "
        "z = (size - 1)/sd.",
        "",
        "| force | mean z | rms z | rms z without the inflation |",
        "|---|---|---|---|",
        *sample_rows(samples),
        "",
        "## What the dust costs",
        "",
        f"{MOCKS} mocks of `make check-cbe-coverage`'s kind ({check_cbe_coverage.STARS:,} stars in galaxies "
        "and behind clouds of their own): the sizes less those with the true efficiency of the same stars.",
        "",
        "| dust | force | difference | in its sd: mean | rms |",
        "|---|---|---|---|---|",
        *dust_rows(dust),
        "",
        provenance("make check-sums"),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
