"""Core or cusp? `make check-slopes` writes docs/results/slopes.md: the slope of rho at R_half over mocks.

The two Osipkov-Merritt galaxies of the Gaia Challenge, drawn by ourselves: 1,000 velocities without errors
from the exact f(x, v), drawn again and again at the places of `FIELDS` draws, and fitted with `dsph_gnfw`,
by either law of velocities; and the core once more with velocities that the fitted law itself has drawn,
which tells what the prior does from what the law does. Every fit is kept in build/check-slopes: the same
command goes on where it stopped.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from astropy.table import Table  # noqa: E402
from benchmarks.results import kept_json, provenance  # noqa: E402
from numpyro import handlers  # noqa: E402

from bayesdust.anisotropy import OsipkovMerritt  # noqa: E402
from bayesdust.catalogs.dwarf import Stars, read_stars  # noqa: E402
from bayesdust.catalogs.facts import Galaxy  # noqa: E402
from bayesdust.distribution import Distribution, solve  # noqa: E402
from bayesdust.inference.calibration import Bench, Trial, bench_of  # noqa: E402
from bayesdust.inference.nuts import cores  # noqa: E402
from bayesdust.inference.posterior import prepared  # noqa: E402
from bayesdust.inference.programs import load  # noqa: E402
from bayesdust.mocks import draw_at, draw_from  # noqa: E402
from bayesdust.potentials import GNFW  # noqa: E402
from bayesdust.products import j_factor  # noqa: E402
from bayesdust.tracers import ZhaoTracer  # noqa: E402
from bayesdust.units import ARCMIN  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "slopes.md"
FOLDER = REPOSITORY / "build" / "check-slopes"
DISTANCE, STARS, SEED, LIGHT_GAMMA = 80.0, 1000, 4100, 0.1
FIELDS = 4  # sets of places
FARTHEST = (
    5.0  # kpc on the sky; a catalogue ends somewhere, and read_stars refuses what is degrees away
)
LAWS = "gaussian", "kurtosis"
EXACT, OWN = "exact f", "the law's own"  # where the velocities are from
CASES = [(name, law, EXACT) for name in ("cusp", "core") for law in LAWS]
CASES += [("core", law, OWN) for law in LAWS]
# halo, scale of the light (2, 5, 0.1), which is the radius of anisotropy too [kpc], and the wanted sd
GALAXIES = {
    "cusp": (GNFW(6.4e7, 1.0, 1.0), 0.1, 0.12),
    "core": (GNFW(4e8, 1.0, 0.0), 0.25, 0.25),
}
SHOWN = "slope_rhalf", "log10_rho[0.15kpc]", "log10_J[0.5deg]"


def tracer(name: str) -> ZhaoTracer:
    return ZhaoTracer(GALAXIES[name][1], 2.0, 5.0, LIGHT_GAMMA)


def stars(name: str, distribution: Distribution, seed: int) -> Stars:
    """Places of one draw, the first within `FARTHEST`; the light is fitted to them."""
    drawn = draw_from(distribution, 2 * STARS, seed=seed)
    x, v_los = drawn.x, drawn.v[:, 2]
    near = np.flatnonzero(np.hypot(x[:, 0], x[:, 1]) < FARTHEST)[:STARS]
    x, v_los = x[near], v_los[near]
    positions = Table({"x": x[:, 0], "y": x[:, 1], "p_member": np.ones(STARS)})
    table = Table({"x": x[:, 0], "y": x[:, 1], "v_los": v_los, "v_los_err": np.zeros(STARS)})
    rhalf = float(tracer(name).half_light_radius) / DISTANCE / ARCMIN
    facts = Galaxy(f"the {name}", DISTANCE, rhalf=rhalf, rhalf_err=0.1 * rhalf, v_sys=0.0)
    return read_stars(table, facts, photometry=positions)


def truths(name: str) -> dict[str, float]:
    halo = GALAXIES[name][0]
    return {
        "slope_rhalf": float(halo.slope(tracer(name).half_light_radius)),
        "log10_rho[0.15kpc]": float(np.log10(halo.density(0.15))),
        "log10_J[0.5deg]": float(np.log10(j_factor(halo, 0.5, DISTANCE))),
    }


def of_law(name: str, seen: Stars, options: dict) -> Callable[[int], jax.Array]:
    """Velocities of an index, drawn by the model itself at the galaxy's parameters."""
    program, (halo, scale, _) = load("dsph_gnfw"), GALAXIES[name]
    assert program.model is not None
    data = prepared(program, seen, options).to_predict()
    mass = float(halo.enclosed_mass(data.pivot))
    known = {
        "v_sys": 0.0,
        "rhalf": data.rhalf,
        "gamma": float(halo.gamma),
        "ln_r_s": float(np.log(halo.r_s)),
    }
    known |= {"ln_mass": np.log(mass), "ln_r_a": np.log(scale)}
    told = handlers.substitute(program.model, data={k: jnp.asarray(v) for k, v in known.items()})
    key = jax.random.PRNGKey(SEED)

    @jax.jit
    def draw(index: jax.Array) -> jax.Array:
        seeded = handlers.seed(told, jax.random.fold_in(key, index))
        return handlers.trace(seeded).get_trace(data)["v_los"]["value"]

    # before there are threads: NumPyro's handlers are global
    return draw.lower(jnp.asarray(0)).compile()


def bench(name: str, law: str, source: str, field: int) -> Bench:
    """The fit at one set of places, with velocities of the known galaxy in place of the prior's."""
    halo, scale, _ = GALAXIES[name]
    distribution = solve(halo, tracer(name), OsipkovMerritt(scale))
    seen = stars(name, distribution, SEED + 1000 * field)
    options = {
        "anisotropy": "osipkov_merritt",
        "light": "joint",
        "light_gamma": LIGHT_GAMMA,
        "velocities": law,
    }
    made, R = bench_of(Trial("dsph_gnfw", seen, options, seed=SEED)), seen.theta * DISTANCE
    own = of_law(name, seen, options)

    def draw(index: int) -> tuple[dict, jax.Array]:
        if source == OWN:
            return {}, own(jnp.asarray(index))
        return {}, draw_at(distribution, R, seed=SEED + index)

    return dataclasses.replace(made, draw=draw, known=lambda theta, v: truths(name))


def fitted(name: str, law: str, source: str, number: int) -> list[dict]:
    """z, sd and divergences of every mock; those kept are read back."""

    def make() -> Callable[[int], dict]:
        made = [bench(name, law, source, field) for field in range(FIELDS)]
        return lambda i: made[i % FIELDS].replicas([i])[0]._asdict()

    folder = FOLDER / f"{name}-{law}{'-own' if source == OWN else ''}"
    return kept_json(folder, number, make, cores())


def rows(name: str, law: str, source: str, found: list[dict]) -> list[str]:
    known, wanted, lines = truths(name), GALAXIES[name][2], []
    for quantity in SHOWN:
        u, z, sd = (np.array([one[key][quantity] for one in found]) for key in ("u", "z", "sd"))
        inside = int(np.sum((u > 0.025) & (u < 0.975)))
        size, error = np.median(sd), 1.25 * sd.std(ddof=1) / np.sqrt(len(sd))
        verdict = ""
        if quantity == "slope_rhalf" and source == EXACT:
            share = size / abs(known[quantity])
            verdict = f"{share:.1%} +- {error / abs(known[quantity]):.1%} of the slope, wanted {wanted:.0%}: "
            verdict += "holds" if share <= wanted else "MISSED"
        lines.append(
            f"| {name} | {source} | {law} | {quantity} | {known[quantity]:.3f} | {inside} of {len(found)} | "
            f"{z.mean():+.2f} +- {z.std(ddof=1) / np.sqrt(len(z)):.2f} | {np.sqrt(np.mean(z**2)):.2f} | "
            f"{size:.3f} | {verdict} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mocks", type=int, default=24)
    number = parser.parse_args().mocks
    lines, troubled = [], 0
    for name, law, source in CASES:
        found = fitted(name, law, source, number)
        troubled += sum(one["ess"] < 100 or one["diverging"] > 10 for one in found)
        lines += rows(name, law, source, found)
        print(*lines[-len(SHOWN) :], sep="\n", flush=True)
    page = [
        "# Core or cusp: the slope at R_half",
        "",
        f"{number} mocks each of the Gaia Challenge's two Osipkov-Merritt galaxies, {STARS:,} velocities "
        f"without errors from the exact f(x, v) at one of {FIELDS} sets of places, to which the light is "
        "fitted; `dsph_gnfw` with anisotropy=osipkov_merritt, one chain of 1,000 draws. slope_rhalf is "
        "-d ln rho/d ln r at R_half; mean and rms of z = (truth - mean)/sd; median sd. Wanted is what "
        "GravSphere2 (arXiv:2509.24103) reports from line-of-sight velocities. Fits with fewer than 100 "
        "effective draws of a quantity, or more than 10 divergences: "
        f"{troubled} of {number * len(CASES)}.",
        "",
        "| galaxy | velocities from | fitted with | quantity | truth | inside 95 % | mean z | rms z | sd | |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *lines,
        "",
        provenance("make check-slopes"),
        "",
    ]
    PAGE.write_text("\n".join(page))
    print(f"see {PAGE}")


if __name__ == "__main__":
    main()
