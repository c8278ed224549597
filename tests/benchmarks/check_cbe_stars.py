"""More stars, other haloes and discs, unlike light: `make check-cbe-stars` writes docs/results/cbe-stars.md.

The errors of the two forces with a quarter of the mock's stars (all four quarters) and with all of them,
which are to be half as large; and the halo's parameters of mocks whose halo is not NFW, gamma = 0.5 and 1.5,
which are to lie inside their 95 % intervals; the same of galaxies of two discs, where the model has one; and
what breaks where the populations have luminosity functions
of their own, so that the efficiency depends on the velocity. Finished fits are kept in build/check-cbe-stars,
so that the same command goes on where it stopped.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from astropy.table import Table  # noqa: E402
from benchmarks.results import chi2_of, dusty_mock, force_sizes, provenance, reach, settled_run  # noqa: E402

from bayesdust.catalogs.cartesian import read_milky_way  # noqa: E402
from bayesdust.dusty_mocks import DustySurvey, LuminosityFunction, clouds, dusty_survey  # noqa: E402
from bayesdust.inference.programs import load  # noqa: E402
from bayesdust.potentials import (  # noqa: E402
    GNFW,
    MiyamotoNagai,
    SphericalAsPotential,
    Sum,
    milky_way_2014,
)
from bayesdust.runs import Request  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "cbe-stars.md"
FOLDER = REPOSITORY / "build" / "check-cbe-stars"
EVERY = 4  # of the file's places within reach
LARGE, LARGE_SEED = 400_000, 31
MODELS = ("mw_cbe_gnfw", "mw_cbe_linear")
HALOES = [(0.5, 11), (0.5, 12), (1.5, 11), (1.5, 12)]  # gamma, seed
STARS = 30_000
#: of thin disc, thick disc and halo: old and metal-poor stars have a weaker clump, and elsewhere
LIGHTS = {
    "one": None,
    "three": (
        LuminosityFunction(),
        LuminosityFunction(clump=0.35, clump_mean=0.55),
        LuminosityFunction(slope=0.30, clump=0.2, clump_mean=0.25, clump_sd=0.25),
    ),
}
LIGHT_SEEDS = (21, 22)
#: density at the Sun [Msun/pc3], length and height [kpc] of Miyamoto-Nagai discs
DISCS = {
    "one": ((0.084, 3.0, 0.28),),
    "gas of 0.12 kpc, stars of 0.38": ((0.041, 4.0, 0.12), (0.043, 3.0, 0.38)),
    "0.2 kpc, a thick one of 0.8": ((0.07, 3.0, 0.2), (0.014, 2.5, 0.8)),
}
DISC_SEEDS = (41, 42)
R_S = 16.0  # kpc


def large_mock() -> dict[str, np.ndarray]:
    """`LARGE` stars in MWPotential2014 and 2,000 places, under the names of the file."""
    survey = dusty_survey(LARGE, LARGE_SEED)
    offsets = np.random.default_rng(LARGE_SEED).uniform(-1, 1, (2000, 3)) * np.array(
        [3.0, 3.0, 1.0]
    )
    sun = np.array(survey.galaxy.ball.centre)
    columns = dict(zip(("x", "y", "z"), survey.x.T, strict=True))
    columns |= dict(zip(("vx", "vy", "vz"), survey.v.T, strict=True))
    places = {
        "sun_xyz": sun,
        "grid_xyz": sun + offsets,
        "grid_acc": survey.acceleration(sun + offsets),
    }
    return columns | {"epsilon": survey.epsilon} | places


def force_errors(model: str, mock: Any, rows: slice, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd (2,) of the sizes of the two forces, efficiency given: `rows` of the file."""
    columns = {c: mock[c][rows].astype(float) for c in ("x", "y", "z", "vx", "vy", "vz", "epsilon")}
    centre = [float(c) for c in mock["sun_xyz"]]
    stars = read_milky_way(Table(columns), radius=4.0, centre=centre, weights="1/epsilon")
    at = np.flatnonzero(reach(mock))[::EVERY]
    points, options = mock["grid_xyz"][at], {"bump": 1.7}
    request = Request(load(model), stars, "nuts", options, {"seed": 1}, points=points)
    tree, _ = settled_run(request, FOLDER / name)
    a = tree["posterior"]["acceleration"].values.reshape(-1, len(at), 3)
    sizes = force_sizes(a, mock["grid_acc"][at])
    return np.mean(sizes, axis=1), np.std(sizes, axis=1)


def more_stars(model: str, mock: Any, name: str) -> str:
    """One row: four quarters against all."""
    quarters = [
        force_errors(model, mock, slice(i, None, 4), f"{model}-{name}quarter-{i}") for i in range(4)
    ]
    whole, all_of_them = force_errors(model, mock, slice(None), f"{model}-{name}all")
    sizes, sds = (np.array(found) for found in zip(*quarters, strict=True))
    few = sds.mean(axis=0)
    off = np.vstack([(sizes - 1) / sds, (whole - 1) / all_of_them])
    number = len(mock["x"])
    ratio = few / all_of_them
    ok = np.all(abs(ratio / 2 - 1) <= 0.15)
    known = (4 / few**2 - 1 / all_of_them**2) / 3  # 1/sd^2 = known + stars * constant
    prior = " / ".join(f"{k**-0.5:.3f}" if k > 0 else "none" for k in known)
    both = " | ".join(f"{sd[0]:.4f} / {sd[1]:.4f}" for sd in (few, all_of_them))
    away = " | ".join(", ".join(f"{z:+.1f}" for z in part) for part in off.T)
    return (
        f"| {model} | {number // 4:,} to {number:,} | {both} | {ratio[0]:.2f} / {ratio[1]:.2f} | "
        f"{'holds' if ok else 'MISSED'} | {prior} | {away} |"
    )


def survey_with(gamma: float, seed: int) -> tuple[DustySurvey, float]:
    """Stars in MWPotential2014 with a halo of that slope, as dense at the Sun as before [Msun/pc3]."""
    disc, halo, bulge = milky_way_2014().parts
    R = 8.122
    local = float(halo.density(jnp.array([R, 0.0, 0.0])))
    other = GNFW(local / GNFW(1.0, R_S, gamma).density(R), R_S, gamma)
    potential = Sum((disc, SphericalAsPotential(other), bulge))
    return dusty_survey(STARS, seed, potential=potential, dust=clouds(seed)), local / 1e9


def halo_row(gamma: float, seed: int) -> str:
    """95 % intervals of the halo's parameters, and whether the truth is in them."""
    survey, local = survey_with(gamma, seed)
    stars = survey.stars()
    request = Request(load("mw_cbe_gnfw"), stars, "nuts", {"limit": 14.0}, {"seed": seed})
    tree, passed = settled_run(request, FOLDER / f"gamma-{gamma}-{seed}")
    posterior = tree["posterior"]
    truths = {"gamma": gamma, "r_s": R_S, "q": 1.0, "rho_dm_sun_msun_pc3": local}
    cells, inside = [], True
    for name, truth in truths.items():
        low, high = np.quantile(posterior[name].values, [0.025, 0.975])
        inside &= bool(low <= truth <= high)
        cells.append(f"{low:.3g} to {high:.3g} ({truth:.3g})")
    v = posterior["v_circ"].sel(R=8.0).values
    cells.append(
        f"{v.mean():.1f} +- {v.std():.1f} ({float(survey.galaxy.potential.circular_velocity(8.0)):.1f})"
    )
    return (
        f"| {gamma} | {seed} | {' | '.join(cells)} | {chi2_of(tree)} | {'pass' if passed else 'FAIL'} | "
        f"{'inside' if inside else 'MISSED'} |"
    )


def disc_row(name: str, seed: int) -> str:
    """The dark matter of a galaxy of such discs, whether the truth is in its 95 % interval."""
    sun = jnp.array([8.122, 0.0, 0.0])
    discs = [
        MiyamotoNagai(1e9 * local / MiyamotoNagai(1.0, a, b).density(sun), a, b)
        for local, a, b in DISCS[name]
    ]
    _, halo, bulge = milky_way_2014().parts
    potential = Sum((*discs, halo, bulge))
    survey = dusty_survey(STARS, seed, potential=potential, dust=clouds(seed))
    request = Request(load("mw_cbe_gnfw"), survey.stars(), "nuts", {"limit": 14.0}, {"seed": seed})
    tree, passed = settled_run(request, FOLDER / f"discs-{list(DISCS).index(name)}-{seed}")
    local, v = (tree["posterior"][n] for n in ("rho_dm_sun_msun_pc3", "v_circ"))
    low, high = np.quantile(local.values, [0.025, 0.975])
    truth, v = float(halo.density(sun)) / 1e9, v.sel(R=8.0).values
    return (
        f"| {name} | {seed} | {local.values.mean():.4f}, {low:.4f} to {high:.4f} ({truth:.4f}) | "
        f"{v.mean():.1f} +- {v.std():.1f} ({float(potential.circular_velocity(8.0)):.1f}) | {chi2_of(tree)} "
        f"| {'pass' if passed else 'FAIL'} | {'inside' if low <= truth <= high else 'MISSED'} |"
    )


def light_row(name: str, seed: int) -> str:
    """Forces and dark matter, the dust from magnitudes, of populations with such luminosity functions."""
    survey = dusty_survey(STARS, seed, dust=clouds(seed), luminosity=LIGHTS[name])
    stars, rng = survey.stars(), np.random.default_rng(seed)
    offsets = rng.uniform(-1, 1, (2000, 3)) * np.array([3.0, 3.0, 1.0])
    points = offsets[np.linalg.norm(offsets, axis=1) < 3][:200] + np.array(
        survey.galaxy.ball.centre
    )
    request = Request(
        load("mw_cbe_gnfw"), stars, "nuts", {"limit": 14.0}, {"seed": seed}, points=points
    )
    tree, passed = settled_run(request, FOLDER / f"light-{name}-{seed}")
    posterior, truth = tree["posterior"], survey.acceleration(points)
    a = posterior["acceleration"].values.reshape(-1, len(points), 3)
    cells = [f"{s.mean():.3f} +- {s.std():.3f}" for s in force_sizes(a, truth)]
    local, v = posterior["rho_dm_sun_msun_pc3"].values, posterior["v_circ"].sel(R=8.0).values
    cells += [f"{local.mean():.4f} +- {local.std():.4f}", f"{v.mean():.1f} +- {v.std():.1f}"]
    return f"| {name} | {seed} | {' | '.join(cells)} | {chi2_of(tree)} | {'pass' if passed else 'FAIL'} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    haloes = []
    for case in HALOES:
        haloes.append(halo_row(*case))
        print(haloes[-1], flush=True)
    discs = [disc_row(name, seed) for name in DISCS for seed in DISC_SEEDS]
    print("\n".join(discs), flush=True)
    lights = [light_row(name, seed) for name in LIGHTS for seed in LIGHT_SEEDS]
    print("\n".join(lights), flush=True)
    stars = []
    for name, these in (("", dusty_mock()), ("large-", large_mock())):
        for model in MODELS:
            stars.append(more_stars(model, these, name))
            print(stars[-1], flush=True)
    lines = [
        "# More stars; other haloes and discs",
        "",
        "## Four times the stars",
        "",
        "sd of the sizes of the two forces (horizontal / vertical; sum(a_true a)/sum(a_true^2) over places "
        "within 3 kpc and 1 kpc of the plane), the efficiency given, bumps of 1.7 kpc: the mean over four "
        "quarters of the dusty mock's 100,000 stars, and all of them; and of "
        f"{LARGE:,} stars in MWPotential2014. Wanted: a ratio of 2 within 15 %. "
        "prior: the sd of a prior that, with stars whose information grows as their number, leaves these "
        "two. Last: (size - 1)/sd of the two forces for the four quarters and for all.",
        "",
        "| model | stars | a quarter | all | ratio | | prior | horizontal | vertical |",
        "|---|---|---|---|---|---|---|---|---|",
        *stars,
        "",
        "## Haloes that are not NFW",
        "",
        f"`mw_cbe_gnfw` on mocks of {STARS:,} stars in MWPotential2014's disc and bulge and a spherical halo "
        f"of slope gamma and r_s = {R_S:.0f} kpc, dust from magnitudes, clouds of their own: 95 % intervals, "
        "the truth in brackets. Wanted: all inside. rho_DM(Sun) in Msun/pc3, v_circ(8 kpc) in km/s.",
        "",
        "| gamma | seed | gamma | r_s [kpc] | q | rho_DM(Sun) | v_circ | chi2 / dof | diagnostics | |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *haloes,
        "",
        "## Two discs",
        "",
        f"`mw_cbe_gnfw`, which has one disc of free length and height, on mocks of {STARS:,} stars in "
        "galaxies of other discs with 0.084 Msun/pc3 at the Sun in all, MWPotential2014's halo and bulge, "
        "dust from magnitudes, clouds of their own: mean and 95 % interval of rho_DM(Sun) in Msun/pc3 and "
        "v_circ(8 kpc) in km/s, the truth in brackets. Wanted: inside.",
        "",
        "| discs | seed | rho_DM(Sun) | v_circ | chi2 / dof | diagnostics | |",
        "|---|---|---|---|---|---|---|",
        *discs,
        "",
        "## Populations of unlike light",
        "",
        f"`mw_cbe_gnfw` on mocks of {STARS:,} stars in MWPotential2014, dust from magnitudes, clouds of "
        "their own. With one luminosity function the efficiency is the same for all stars of a place; with "
        "three the thick disc's and the halo's clump are weaker and elsewhere, and the efficiency depends "
        "on the velocity, which no model here knows of. Truth: 1, 1, 0.0074 Msun/pc3, 220.0 km/s.",
        "",
        "| luminosity functions | seed | horizontal | vertical | rho_DM(Sun) | v_circ(8 kpc) | chi2 / dof | "
        "diagnostics |",
        "|---|---|---|---|---|---|---|---|",
        *lights,
        "",
        provenance("make check-cbe-stars"),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print(f"see {PAGE}")


if __name__ == "__main__":
    main()
