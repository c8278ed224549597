"""Can the Milky Way's posteriors be believed? `make check-cbe-coverage` fits independent dusty mocks and
writes docs/results/cbe-coverage.md.

Every mock is drawn anew: its stars, their magnitudes, and the clouds in front of them, in MWPotential2014.
Of each fit z = (truth - mean)/sd of the dark matter at the Sun, the circular velocity at 8 kpc, and
acceleration and efficiency at 30 places is kept in build/check-cbe-coverage; the same command goes on where
it stopped, so that `ARGS='--mocks 20'` and later `ARGS='--mocks 100'` make one proof in pieces.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks.results import provenance  # noqa: E402

from bayesdust.catalogs.cartesian import read_milky_way  # noqa: E402
from bayesdust.dusty_mocks import DustySurvey, clouds, dusty_survey  # noqa: E402
from bayesdust.inference.posterior import fit  # noqa: E402
from bayesdust.inference.programs import load  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "cbe-coverage.md"
FOLDER = REPOSITORY / "build" / "check-cbe-coverage"
STARS = 20_000
PLACES = 30
OPTIONS = {"limit": 14.0, "bump": 1.7}
MODELS = {
    "mw_cbe_gnfw": {"num_warmup": 500, "num_draws": 500},
    "mw_cbe_linear": {},
}
CLASSES = ("rho_dm_sun", "v_circ", "a_x", "a_y", "a_z", "epsilon")
LIMITS = 0.3, (0.85, 1.15)  # of |mean z| and of rms z


def places(survey: DustySurvey, seed: int) -> np.ndarray:
    """Thirty places within 3 kpc and 1 kpc of the plane, other ones for every mock."""
    rng = np.random.default_rng([seed, 30])
    found: list[np.ndarray] = []
    while len(found) < PLACES:
        offset = rng.uniform([-3, -3, -1], [3, 3, 1])
        if np.linalg.norm(offset) < 3:
            found.append(offset + np.array(survey.galaxy.ball.centre))
    return np.array(found)


def scores(model: str, survey: DustySurvey, seed: int) -> dict[str, np.ndarray]:
    """z of every class of product, (1,) or (PLACES,)."""
    ball, points = survey.galaxy.ball, places(survey, seed)
    stars = read_milky_way(survey.table(), radius=ball.radius, centre=ball.centre)
    tree = fit(load(model), stars, options=OPTIONS, points=points, seed=seed, **MODELS[model])
    posterior, truth = tree["posterior"], survey.galaxy.potential
    a = survey.acceleration(points)
    R_sun = float(np.hypot(*ball.centre[:2]))
    dark = truth.parts[1].density(np.array([R_sun, 0.0, 0.0])) / 1e9
    known = {
        "rho_dm_sun": (posterior["rho_dm_sun_msun_pc3"], np.array([float(dark)])),
        "v_circ": (posterior["v_circ"].sel(R=8.0), np.array([float(truth.circular_velocity(8.0))])),
        "epsilon": (posterior["epsilon"], survey.efficiency(points)),
    } | {f"a_{c}": (posterior["acceleration"].sel(component=f"a{c}"), a[:, i])
         for i, c in enumerate("xyz")}  # fmt: skip
    found = {}
    for name, (draws, exact) in known.items():
        flat = draws.values.reshape(-1, len(exact))
        sd = np.maximum(flat.std(axis=0), 0.01 if name == "epsilon" else 0.0)
        found[name] = (exact - flat.mean(axis=0)) / sd
    return found


def pooled(z: np.ndarray) -> tuple[float, float, float, float]:
    """Mean z and rms z over (mock, place), each with its error from the scatter between mocks."""
    count = len(z)
    mean, square = z.mean(axis=1), (z**2).mean(axis=1)
    rms = float(np.sqrt(square.mean()))
    error = float(square.std(ddof=1) / np.sqrt(count) / (2 * rms))
    return float(mean.mean()), float(mean.std(ddof=1) / np.sqrt(count)), rms, error


def rows(model: str, kept: list[dict[str, np.ndarray]]) -> list[str]:
    """One row a class of product."""
    found = []
    for name in CLASSES:
        z = np.array([one[name] for one in kept])
        mean, mean_error, rms, rms_error = pooled(z)
        ok = abs(mean) <= LIMITS[0] and LIMITS[1][0] <= rms <= LIMITS[1][1]
        inside = float(np.mean(abs(z) < 1.96))
        found.append(
            f"| {model} | {len(z)} | {name} | {mean:+.2f} +- {mean_error:.2f} | {rms:.2f} +- "
            f"{rms_error:.2f} | {inside:.0%} | {'holds' if ok else 'MISSED'} |"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mocks", type=int, default=100)
    parser.add_argument("--first", type=int, default=1000, help="seed of the first mock")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept: dict[str, list[dict[str, np.ndarray]]] = {model: [] for model in MODELS}
    clock, done = time.perf_counter(), 0
    for number in range(arguments.mocks):
        seed = arguments.first + number
        files = {model: FOLDER / f"{model}-{seed}.npz" for model in MODELS}
        missing = [model for model, path in files.items() if not path.exists()]
        survey = dusty_survey(STARS, seed, dust=clouds(seed)) if missing else None
        for model in missing:
            assert survey is not None
            np.savez(files[model], **scores(model, survey, seed))
        for model, path in files.items():
            with np.load(path) as archive:
                kept[model].append(dict(archive))
        if missing:
            jax.clear_caches()  # every mock has constants of its own
            done += 1
            left = (time.perf_counter() - clock) / done * (arguments.mocks - number - 1) / 60
            print(f"mock {number + 1} of {arguments.mocks}, {left:.0f} min left", flush=True)
    lines = [
        "# Coverage of the Milky Way's posteriors",
        "",
        f"Independent mocks of {STARS:,} stars behind clouds of their own, dust from magnitudes, bumps of "
        f"1.7 kpc. z = (truth - mean)/sd, pooled over {PLACES} places within a mock; errors from the scatter "
        "between mocks. Wanted: |mean z| at most 0.3 and rms z from 0.85 to 1.15. An efficiency is taken to "
        "be uncertain by 0.01 at least.",
        "",
        "| model | mocks | product | mean z | rms z | inside 95 % | |",
        "|---|---|---|---|---|---|---|",
        *[row for model in MODELS for row in rows(model, kept[model])],
        "",
        provenance(f"make check-cbe-coverage ARGS='--mocks {arguments.mocks}'"),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
