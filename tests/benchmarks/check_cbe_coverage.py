"""Can the Milky Way's posteriors be believed? `make check-cbe-coverage` fits independent dusty mocks and
writes docs/results/cbe-coverage.md.

Every mock is drawn anew: a galaxy of those that the models' priors allow (`galaxy`), its stars, their
magnitudes, and the clouds in front of them. In one galaxy alone a prior's pull would look like a bias.
Of each fit z = (truth - mean)/sd of the dark matter at the Sun, the circular velocity at 8 kpc, and
acceleration and efficiency at 30 places is kept in build/check-cbe-coverage; the same command goes on where
it stopped, so that `ARGS='--mocks 20'` and later `ARGS='--mocks 100'` make one proof in pieces. The networks,
which take longest, are asked for: `ARGS='--models mw_cbe_neural --mocks 40'`; and so is a model that is
wrong and must be rejected, `ARGS='--models dust_ignored --mocks 20'`.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks.results import pooled, provenance  # noqa: E402

from bayesdust.catalogs.tables import digest  # noqa: E402
from bayesdust.disc_mocks import SURVEY  # noqa: E402
from bayesdust.dusty_mocks import DustySurvey, clouds, dusty_survey  # noqa: E402
from bayesdust.inference import galaxy_data  # noqa: E402
from bayesdust.inference.posterior import fit  # noqa: E402
from bayesdust.inference.programs import load  # noqa: E402
from bayesdust.potentials import (  # noqa: E402
    GNFW,
    MiyamotoNagai,
    PowerLawCutoff,
    SphericalAsPotential,
    Spheroid,
    Sum,
)

PAGE = REPOSITORY / "docs" / "results" / "cbe-coverage.md"
FOLDER = REPOSITORY / "build" / "check-cbe-coverage"
STARS = 20_000
R_SUN = float(np.hypot(*SURVEY.centre[:2]))
PLACES = 30
CANDIDATES = 150  # of which the first `PLACES` count whose efficiency the fit calls uncertain
UNCERTAIN = 0.02
TOGETHER = 5  # mocks, before what was compiled is thrown away
DUSTY = {"limit": 14.0, "bump": 1.7}
NUTS = {"num_warmup": 300, "num_draws": 300}
WRONG = "dust_ignored"
#: name, or what else is fitted: model, options, settings
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    "mw_cbe_gnfw": ("mw_cbe_gnfw", DUSTY, NUTS),
    "mw_cbe_linear": ("mw_cbe_linear", DUSTY, {}),
    "mw_cbe_neural": ("mw_cbe_neural", DUSTY, NUTS),
    WRONG: ("mw_cbe_gnfw", {"efficiency": "none", "bump": 1.7}, NUTS),
}
QUICK = "mw_cbe_gnfw", "mw_cbe_linear"
CLASSES = ("rho_dm_sun", "v_circ", "a_x", "a_y", "a_z", "epsilon")
LIMITS = 0.3, (0.85, 1.15)  # of |mean z| and of rms z


NOTES = """\
`dust_ignored` is `mw_cbe_gnfw` with `efficiency=none`, a wrong model: the forces show
it, the local dark matter does not. Galaxies that the priors have drawn
show whether the likelihood is right, and nothing of baryons or haloes of another shape than the priors
allow: haloes that are not NFW, and galaxies of two discs, on four mocks each:
[cbe-stars.md](cbe-stars.md). The mocks are axisymmetric,
smooth discs of stars behind a layer and twelve clouds; what arms of the stars or a layer of another kind
do to the dust: [dust.md](dust.md). `mw_cbe_linear` allows for more than that, and its a_y and a_z are a
little too uncertain here. The largest z are of the efficiency, at a few places in the plane whose part of
the sky reaches far above it, behind clouds that are smaller.

Of 71 mocks of earlier models the vertical force of `mw_cbe_gnfw` was right (z +0.03 +- 0.10, rms 0.94 +-
0.07), and before 2026-11-27 too weak by 0.87 +- 0.11 sd:
[boltzmann.md](../boltzmann.md#in-sums-over-the-stars-without-a-flow). Round haloes in the mocks made
rho_dm_sun of `mw_cbe_gnfw`, which does not know its halo's axis ratio, look too uncertain (rms 0.71 +-
0.07 of 40); and with parts of `mw_cbe_linear` that differ less in length a_x was too certain (1.24 +-
0.12 of 30). Its parts were therefore changed on what mocks of seeds up to 1069 had shown. On the thirty
of 1070 to 1099 alone all classes of it hold (|mean z| <= 0.21, rms 0.88 to 1.13); of `mw_cbe_gnfw`
rho_dm_sun has 1.21 +- 0.14 there, the others hold."""


def galaxy(seed: int) -> Sum:
    """Disc, dark halo and bulge, drawn from the models' priors.

    The halo is of `mw_cbe_gnfw`'s, and 0.01 Msun/pc3 at the Sun within a factor of 1.65 at 68 %: of what
    that model (2.7) and the others (0 to 0.02) think possible.
    """
    rng = np.random.default_rng([seed, 2014])
    local, a, b, dark, length, bulge, flattening = rng.standard_normal(7)
    disc = MiyamotoNagai(1.0, 3.0 * np.exp(0.2 * a), 0.28 * np.exp(0.2 * b))
    sun = jnp.array([R_SUN, 0.0, 0.0])
    disc = MiyamotoNagai((0.084 + 0.013 * local) * 1e9 / disc.density(sun), disc.a, disc.b)
    halo = GNFW(1.0, 16 * np.exp(0.5 * length), 1.9 * rng.beta(2, 2))
    halo = GNFW(1e7 * np.exp(0.5 * dark) / halo.density(R_SUN), halo.r_s, halo.gamma)
    unit = PowerLawCutoff(1.0, 1.9, 1.8)
    light = PowerLawCutoff(4.5e9 * np.exp(0.25 * bulge) / unit.enclosed_mass(30.0), 1.9, 1.8)
    halo = Spheroid(halo, float(np.exp(0.2 * flattening)))  # the same in the plane
    return Sum((disc, halo, SphericalAsPotential(light)))


def places(survey: DustySurvey, seed: int) -> np.ndarray:
    """Random places within 3 kpc, other ones for every mock: `PLACES` within 1 kpc of the plane, for the
    acceleration, and `CANDIDATES` within 0.3 kpc of it, for the efficiency."""
    rng = np.random.default_rng([seed, 30])
    offsets = rng.uniform(-1, 1, (20 * CANDIDATES, 3)) * np.array([3.0, 3.0, 1.0])
    offsets = offsets[np.linalg.norm(offsets, axis=1) < 3]
    near = offsets[PLACES : PLACES + CANDIDATES] * np.array([1.0, 1.0, 0.3])
    return np.concatenate([offsets[:PLACES], near]) + np.array(survey.galaxy.ball.centre)


def mock(seed: int) -> DustySurvey:
    """Stars that are seen in a galaxy and behind clouds of their own."""
    return dusty_survey(STARS, seed, potential=galaxy(seed), dust=clouds(seed))


def scores(model: str, survey: DustySurvey, seed: int) -> dict[str, np.ndarray]:
    """z of every class of product, (1,) or (PLACES,); NaN where fewer places were uncertain.

    Those of the acceleration are counted along the true one: a force that is too weak has z above zero on
    both sides of the plane.
    """
    stars, points = survey.stars(), places(survey, seed)
    program, options, settings = MODELS[model]
    tree = fit(load(program), stars, options=options, points=points, seed=seed, **settings)
    posterior, truth = tree["posterior"], survey.galaxy.potential
    a = survey.acceleration(points[:PLACES])
    acceleration = posterior["acceleration"][:, :, :PLACES]
    dark = truth.parts[1].density(np.array([R_SUN, 0.0, 0.0])) / 1e9
    known = {
        "rho_dm_sun": (posterior["rho_dm_sun_msun_pc3"], np.array([float(dark)])),
        "v_circ": (posterior["v_circ"].sel(R=8.0), np.array([float(truth.circular_velocity(8.0))])),
    } | {f"a_{c}": (acceleration.sel(component=f"a{c}"), a[:, i]) for i, c in enumerate("xyz")}
    found = {}
    for name, (draws, exact) in known.items():
        flat = draws.values.reshape(-1, len(exact))
        along = np.sign(exact)  # all else is positive
        found[name] = along * (exact - flat.mean(axis=0)) / flat.std(axis=0)
    if "epsilon" not in posterior:
        return found
    flat = posterior["epsilon"][:, :, PLACES:].values.reshape(-1, CANDIDATES)
    uncertain = np.flatnonzero(flat.std(axis=0) >= UNCERTAIN)[:PLACES]
    flat, exact = flat[:, uncertain], survey.efficiency(points[PLACES:][uncertain])
    found["epsilon"] = np.full(PLACES, np.nan)
    found["epsilon"][: len(uncertain)] = (exact - flat.mean(axis=0)) / flat.std(axis=0)
    return found


def rows(model: str) -> list[str]:
    """One row a class of product, of all mocks that are kept."""
    found, kept = [], []
    for path in sorted(FOLDER.glob(f"{model}-[0-9]*[0-9].npz")):
        with np.load(path) as archive:
            kept.append(dict(archive))
    if len(kept) < 2:
        return []
    words = ("rejected", "not rejected") if model == WRONG else ("MISSED", "holds")
    for name in [name for name in CLASSES if name in kept[0]]:
        z = np.array([one[name] for one in kept])
        mean, mean_error, rms, rms_error = pooled(z)
        ok = abs(mean) <= LIMITS[0] and LIMITS[1][0] <= rms <= LIMITS[1][1]
        inside = float(np.mean(abs(z[np.isfinite(z)]) < 1.96))
        found.append(
            f"| {model} | {len(z)} | {name} | {mean:+.2f} +- {mean_error:.2f} | {rms:.2f} +- "
            f"{rms_error:.2f} | {inside:.0%} | {words[ok]} |"
        )
    return found


def remembering(dust_fit: Callable) -> Callable:
    """The last fit again where stars and magnitudes are the same: models of one mock share the dust."""
    kept: dict[str, Any] = {}

    def call(x: np.ndarray, magnitude: np.ndarray, *more: Any, **named: Any) -> Any:
        key = digest(x, magnitude)
        if kept.get("key") != key:
            kept.update(key=key, dust=dust_fit(x, magnitude, *more, **named))
        return kept["dust"]

    return call


def scored(model: str, seed: int, survey: DustySurvey | None) -> DustySurvey | None:
    """Score a mock and keep it, unless that is done; the mock is drawn if it is not given, and returned."""
    path = FOLDER / f"{model}-{seed}.npz"
    if path.exists():
        return survey
    survey = survey or mock(seed)
    found = scores(model, survey, seed)
    half = path.with_suffix(".part.npz")
    np.savez(half, **found)
    half.rename(path)
    return survey


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mocks", type=int, default=100)
    parser.add_argument("--models", nargs="+", default=list(QUICK), choices=list(MODELS))
    parser.add_argument("--first", type=int, default=1000, help="seed of the first mock")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(FOLDER / "xla"))
    galaxy_data.fit_dust = remembering(galaxy_data.fit_dust)
    clock, done = time.perf_counter(), 0
    seeds = range(arguments.first, arguments.first + arguments.mocks)
    for seed in seeds:
        survey = None
        for model in arguments.models:
            survey = scored(model, seed, survey)
        if survey is not None:
            done += 1
            if done % TOGETHER == 0:
                jax.clear_caches()  # every fit is compiled anew: its data are constants
            left = (time.perf_counter() - clock) / done * (seeds[-1] - seed) / 60
            print(f"mock {seed}, of {seeds[0]} to {seeds[-1]}: {left:.0f} min left", flush=True)
    lines = [
        "# Coverage of the Milky Way's posteriors",
        "",
        f"Independent mocks of {STARS:,} stars in galaxies and behind clouds of their own, the galaxies "
        "drawn from the priors of the models (of the dark matter's density, from half of it), dust from "
        f"magnitudes, bumps of 1.7 kpc. z = (truth - mean)/sd, pooled over {PLACES} places within a mock, of "
        "accelerations along the true one, so that too weak a force has z above zero everywhere; errors "
        "from the scatter between mocks. Wanted: |mean z| at most 0.3 and rms z from 0.85 to 1.15. Of "
        f"the efficiency count the first {PLACES} of {CANDIDATES} places within 0.3 kpc of the plane at "
        f"which its posterior has an sd of {UNCERTAIN} or more; at most of the others it is one, and known "
        "to be.",
        "",
        "| model | mocks | product | mean z | rms z | inside 95 % | |",
        "|---|---|---|---|---|---|---|",
        *[row for model in MODELS for row in rows(model)],
        "",
        NOTES,
        "",
        provenance(f"make check-cbe-coverage ARGS='--mocks {arguments.mocks}'"),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
