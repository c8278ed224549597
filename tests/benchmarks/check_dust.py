"""Is the dust told by magnitudes believable? `make check-dust` writes docs/results/dust.md.

`fit_dust` alone, on mocks of 20,000 and 100,000 stars behind clouds of their own: draws of epsilon at
random places near the plane against the truth, z = (truth - mean)/sd, where they scatter by 0.02 or more, and
how often it is wrong where they do not; and the mean of the stars' weights 1/epsilon over the true one. Also
behind layers and with light that are not those of the prior. Half an hour.
"""

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import numpy as np  # noqa: E402
from benchmarks.results import provenance  # noqa: E402

from bayesdust.dusty_mocks import (  # noqa: E402
    SUN,
    DustySurvey,
    LuminosityFunction,
    clouds,
    dusty_survey,
)
from bayesdust.dynamics.dust_fit import ROUNDS, Rounds, fit_dust  # noqa: E402
from bayesdust.dynamics.dust_posterior import SPREAD  # noqa: E402
from bayesdust.dynamics.efficiency import faintest_seen, modulus  # noqa: E402
from bayesdust.dynamics.tracer_counts import Region  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "dust.md"
PLACES, SIGHTS = 1500, 4
UNCERTAIN = 0.02  # sd of epsilon
WRONG = 3 * UNCERTAIN  # an error where the sd is below that
DUSTY, LEAST = 0.8, 0.1  # epsilon below


@dataclass(frozen=True)
class Case:
    """Mocks of one kind. Seeds 2020, 2021, 2023, 2024, 2027, 2045, 2046 chose the prior."""

    label: str
    stars: int
    seeds: range
    end: float = np.inf  # an absolute magnitude at which the sample ends too
    layer: tuple[float, float] = (0.3, 0.15)  # mag/kpc and kpc, of the true dust beside its clouds
    luminosity: LuminosityFunction | None = None  # that of `dusty_survey`
    rounds: Rounds = ROUNDS
    arms: float = 0.0  # of the density of the stars, which the fit takes for a smooth disc


CASES = (
    Case("20,000", 20_000, range(2020, 2026)),
    Case("20,000, `rounds=()`", 20_000, range(2020, 2026), rounds=()),
    Case("100,000", 100_000, range(2026, 2029)),
    Case("20,000, cut at 0.98", 20_000, range(2029, 2033), end=0.98),
    Case("100,000, cut at 0.98", 100_000, range(2033, 2034), end=0.98),
    Case("20,000, thick layer", 20_000, range(2040, 2044), layer=(0.15, 0.4)),
    Case("20,000, thin layer", 20_000, range(2044, 2048), layer=(0.8, 0.07)),
    Case(
        "20,000, other light",
        20_000,
        range(2048, 2052),
        luminosity=LuminosityFunction(slope=0.25, clump=0.3, clump_sd=0.25),
    ),
    Case("20,000, arms of 20 %", 20_000, range(2052, 2056), arms=0.2),
)


def places(seed: int) -> np.ndarray:
    """Random offsets from the Sun within 3 kpc and 0.3 kpc of the plane [kpc]."""
    rng = np.random.default_rng(seed)
    offsets = rng.uniform(-1, 1, (4 * PLACES, 3)) * np.array([3.0, 3.0, 1.0])
    return offsets[np.linalg.norm(offsets, axis=1) < 3][:PLACES] * np.array([1.0, 1.0, 0.3])


def cut_survey(case: Case, seed: int) -> tuple[DustySurvey, np.ndarray]:
    """A mock and, of its stars, as many as the case has."""
    drawn = int((1.7 if case.end < np.inf else 1.0) * (1 + case.arms) * case.stars) + 500
    strength, height = case.layer
    dust = replace(clouds(seed), strength=strength, height=height)
    survey = dusty_survey(drawn, seed, dust=dust, luminosity=case.luminosity)
    looks = survey.G - modulus(np.linalg.norm(survey.x - SUN, axis=1))
    kept = np.random.default_rng(seed).uniform(size=drawn) * (1 + case.arms) < arms(
        survey.x, case.arms
    )
    return survey, np.flatnonzero((looks < case.end) & kept)[: case.stars]


def arms(x: np.ndarray, contrast: float) -> np.ndarray:
    """The density of the stars over the smooth disc's: two arms in ln R, some 2.5 kpc apart at the Sun."""
    phase = 2 * np.arctan2(x[:, 1], x[:, 0]) - 20.0 * np.log(np.hypot(x[:, 0], x[:, 1]) / 8.122)
    return 1 + contrast * np.cos(phase)


def efficiency(survey: DustySurvey, x: np.ndarray, end: float) -> np.ndarray:
    """The true share of the stars at x that such a sample has."""
    if end == np.inf:
        return survey.efficiency(x)
    share = survey.luminosity.share
    faintest = faintest_seen(x - SUN, survey.limit, end) - survey.dust.extinction(x)
    return share(faintest) / share(np.array([end]))


def measure(case: Case, seed: int) -> np.ndarray:
    """Share of uncertain places, mean and rms of z, share inside 95 %, share of wrong ones among the other
    places, mean error where dusty, mean epsilon over the true one where that is least, weights."""
    (survey, kept), offsets = cut_survey(case, seed), places(seed)
    x = survey.x[kept]
    region = Region(SUN, np.asarray(survey.galaxy.ball.centre), survey.galaxy.ball.radius)
    dust = fit_dust(
        x, survey.G[kept], survey.limit, region, absolute_limit=case.end, rounds=case.rounds
    )
    draws = dust.in_sight(offsets, SIGHTS, np.random.default_rng(0))
    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    truth = efficiency(survey, offsets + SUN, case.end)
    told = sd >= UNCERTAIN
    z = (truth - mean)[told] / sd[told]
    true_weights, least = 1 / efficiency(survey, x, case.end), truth < LEAST
    return np.array(
        [
            told.mean(),
            z.mean(),
            np.sqrt(np.mean(z**2)),
            np.mean(abs(z) < 1.96),
            np.mean(abs(mean - truth)[~told] > WRONG) if not told.all() else np.nan,
            (mean - truth)[truth < DUSTY].mean(),
            mean[least].sum() / truth[least].sum() if least.any() else np.nan,
            np.mean(1 / dust.efficiency(x - SUN)) / np.mean(true_weights),
        ]
    )


def row(label: str, found: np.ndarray) -> str:
    told, mean, rms, inside, wrong, error, least, weights = found
    return (
        f"| {label} | {told:.0%} | {mean:+.2f} | {rms:.2f} | {inside:.0%} | {wrong:.1%} | {error:+.2f} | "
        f"{least:.1f} | {weights:.2f} |"
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = []
    for case in CASES:
        found = []
        for seed in case.seeds:
            found.append(measure(case, seed))
            rows.append(row(f"{case.label} | {seed}", found[-1]))
            print(rows[-1], flush=True)
        rows.append(row(f"{case.label} | mean", np.nanmean(found, axis=0)))
    lines = [
        "# The dust told by magnitudes",
        "",
        "`fit_dust` on mocks behind clouds of their own, no motions used. Draws of "
        f"epsilon at {PLACES:,} places within 3 kpc and 0.3 kpc of the plane: z = (truth - mean)/sd where "
        f"the sd is {UNCERTAIN} or more. Right intervals have a mean z of 0, an rms of 1, and 95 % inside. "
        f"Wrong: of the places where the sd is less, the share that is off by more than {WRONG:.2f}. "
        f"Error: mean of epsilon less the truth where that is below {DUSTY}. Least: the mean of epsilon "
        f"where the truth is below {LEAST}, over that of the truth. Weights: the mean of the stars' "
        "1/epsilon over the true one.",
        "",
        "| stars | seed | uncertain | mean z | rms z | inside 95 % | wrong | error where dusty | least | "
        "weights |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"The draws are those of a normal law near the posterior, the steps' prior {SPREAD} wide. That was "
        "chosen on the mocks of seeds 2020, 2021, 2023, 2024, 2027, 2045 and 2046 and on fourteen others "
        "([boltzmann.md](../boltzmann.md#dust-from-magnitudes)): intervals are too wide rather than that "
        "those behind a thin layer are narrower still. A cut sample also ends at that "
        "absolute magnitude, as it looks behind the dust (`absolute_limit`), where the luminosity "
        "function ends: the clump is half a magnitude brighter, and more dust than that hides it. "
        "`rounds=()`: a normal law on the way to the maximum. The layer of the mocks is as thick as the "
        "prior's, and their giants as many at the bright end, but not in some: layers of 0.15 mag/kpc and "
        "0.4 kpc, and of 0.8 mag/kpc and 0.07 kpc; giants of slope 0.25, 30 % of them in a clump of 0.25 "
        "mag. Arms: the density of the stars is that of the smooth disc times 1 +- 0.2, in two arms 2.5 "
        "kpc apart.",
        "",
        provenance("make check-dust"),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print(f"see {PAGE}")


if __name__ == "__main__":
    main()
