"""Free of families: `make check-flow-dwarf` fits the benchmark of Lim+2025 and real dwarfs with `dsph_flow`
and writes docs/results/flow-dwarf.md.

n(r), M(<r) and rho(r) of the Gaia Challenge file against the truth, with the anisotropy given, given
wrongly and marginalised; the same n(r) and M(<r) from a bootstrap ensemble trained on the smeared
cross-entropy; n(r) from positions alone, there and on twenty mocks of our own; Draco and Fornax with the
halo family and the anisotropy relaxed in turn. Finished fits are kept in
build/check-flow-dwarf, so the same command goes on where it stopped.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import numpy as np  # noqa: E402
import numpyro  # noqa: E402
from astropy.table import Table  # noqa: E402
from benchmarks.check_dwarfs import COLUMNS, FILES, REPORTED, draws_of  # noqa: E402
from benchmarks.check_gaia_challenge import stars_of  # noqa: E402
from benchmarks.results import data_folder, provenance, seconds_of, settled_run  # noqa: E402

from bayesdust import mocks  # noqa: E402
from bayesdust.anisotropy import Isotropic  # noqa: E402
from bayesdust.catalogs.dwarf import Stars, read_stars  # noqa: E402
from bayesdust.catalogs.facts import Galaxy  # noqa: E402
from bayesdust.catalogs.placement import FARTHEST  # noqa: E402
from bayesdust.flows.smeared import Training, of_members, train  # noqa: E402
from bayesdust.inference.draws import constrain  # noqa: E402
from bayesdust.inference.nuts import Plan, run_nuts  # noqa: E402
from bayesdust.inference.programs import load  # noqa: E402
from bayesdust.runs import Request  # noqa: E402
from bayesdust.units import ARCMIN  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "flow-dwarf.md"
FOLDER = REPOSITORY / "build" / "check-flow-dwarf"
BENCHMARK = "gs100_bs050_rcrs025_rarcinf_cusp_0064mpc3_df_1000_0.xyvz.txt"
TRUTH = mocks.BENCHMARK
RANGES = {"nu": (0.05, 1.0), "rho": (0.1, 1.0), "mass": (0.1, 1.0)}  # kpc
#: orbits of the benchmark's fits: given rightly, marginalised, given wrongly
ORBITS: dict[str, dict[str, Any]] = {
    "beta_ani = 0, given": {"anisotropy": "isotropic"},
    "beta_ani free": {"anisotropy": "constant"},
    "beta_ani = 0.4, given wrongly": {"beta_ani": 0.4},
}
#: halo family and anisotropy relaxed in turn
RELAXED: list[tuple[str, str, dict[str, Any]]] = [
    ("gNFW, Plummer light, isotropic", "dsph_gnfw", {"anisotropy": "isotropic"}),
    ("gNFW, Plummer light, beta_ani free", "dsph_gnfw", {}),
    (
        "free halo, Plummer light, isotropic",
        "dsph_flow",
        {"light": "facts", "anisotropy": "isotropic"},
    ),
    ("free halo, Plummer light, beta_ani free", "dsph_flow", {"light": "facts"}),
    ("free halo, flow light, beta_ani free", "dsph_flow", {"light": "members"}),
]
DRAWS = {"num_warmup": 400, "num_draws": 500}  # of each of four chains
ALONE = {"num_chains": 2, "num_warmup": 400, "num_draws": 400}
COMPARED = np.array([0.1, 0.15, 0.25, 0.4, 0.6])  # kpc


def true_profile(name: str, r: np.ndarray) -> np.ndarray:
    """n(r), rho(r) or M(<r) of the benchmark."""
    functions = {
        "nu": TRUTH.tracer.density,
        "rho": TRUTH.halo.density,
        "mass": TRUTH.halo.enclosed_mass,
    }
    return np.asarray(functions[name](r))


def against_truth(name: str, r: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    """Share of radii whose 95 % band holds the truth, largest error of the median, half-width at R_half."""
    low, high = RANGES[name]
    used = (r >= low) & (r <= high)
    off = np.log10(draws[:, used] / true_profile(name, r[used]))
    q = np.quantile(off, [0.025, 0.5, 0.975], axis=0)
    middle = int(np.argmin(abs(r[used] - float(TRUTH.tracer.half_light_radius))))
    return {
        "inside": float(np.mean((q[0] <= 0) & (q[2] >= 0))),
        "median": float(np.max(abs(10 ** q[1] - 1))),
        "half_width": float((q[2] - q[0])[middle] / 2),
    }


def light_alone(data: Any) -> None:
    """dsph_flow without its velocities: the flow of the positions."""
    sample_light = load("dsph_flow").model.__globals__["sample_light"]
    tracer = sample_light(data, data.galaxy.distance)
    numpyro.deterministic("nu", tracer.density(data.r))


def light_draws(stars: Stars, seed: int, settings: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Radii (n_r,) and n(r) draws (n, n_r) from positions alone."""
    data = load("dsph_flow").prepare(stars, {})
    draws = run_nuts(light_alone, data, Plan(seed=seed, **settings))
    nu = constrain(light_alone, data, draws.z)["nu"]
    return data.r, nu.reshape(-1, len(data.r))


def mock_stars(n: int, seed: int) -> Stars:
    """`n` stars of the benchmark galaxy of our own drawing, less any so far out that no catalogue has it."""
    table = mocks.observe(mocks.benchmark(n, seed), 80.0, v_err=0.0, seed=seed)
    table = table[np.hypot(table["x"], table["y"]) < 80.0 * np.tan(FARTHEST)]
    x, y = np.asarray(table["x"]), np.asarray(table["y"])
    rhalf = float(np.median(np.hypot(x, y))) / 80.0 / ARCMIN
    galaxy = Galaxy("Mock", 80.0, rhalf=rhalf, rhalf_err=0.1 * rhalf, v_sys=0.0)
    positions = Table({"x": x, "y": y, "p_member": np.ones(len(x))})
    return read_stars(table, galaxy, photometry=positions)


def benchmark_run(stars: Stars, label: str, seed: int) -> tuple[Any, bool, float]:
    """The benchmark with one of `ORBITS`: its DataTree, whether its diagnostics passed, its seconds."""
    settings = {"seed": seed, **DRAWS}
    request = Request(load("dsph_flow"), stars, "nuts", ORBITS[label], settings)
    folder = FOLDER / f"benchmark-{label.replace(' ', '')}"
    return *settled_run(request, folder), seconds_of(folder)


def benchmark_rows(data: Path, seed: int) -> list[str]:
    """The benchmark, with each of `ORBITS`."""
    stars = stars_of(data / "gaia_challenge" / BENCHMARK)
    rows = ["| orbits | profile | truth inside 95 % at | worst median | 95 % half-width at R_half | log10 "
            "J(0.5 deg), 95 % | diagnostics | s |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for label in ORBITS:
        tree, passed, spent = benchmark_run(stars, label, seed)
        posterior = tree["posterior"]
        J = np.quantile(posterior["log10_J"].sel(angle=0.5), [0.025, 0.5, 0.975])
        for name in RANGES:
            r = posterior["r"].values
            found = against_truth(name, r, posterior[name].values.reshape(-1, len(r)))
            rows.append(
                f"| {label} | {name} | {found['inside']:.0%} of radii | {found['median']:.0%} | "
                f"{found['half_width']:.3f} dex | {J[1]:.2f} ({J[0]:.2f} to {J[2]:.2f}) | "
                f"{'pass' if passed else 'FAIL'} | {spent:.0f} |"
            )
            print(rows[-1], flush=True)
    return rows


def ensemble(sample: np.ndarray, members: int, seed: int) -> dict[str, np.ndarray]:
    """n and M at `COMPARED` for every member of a bootstrap ensemble, and the seconds it took; kept."""
    kept = FOLDER / f"ensemble-{members}-{seed}.npz"
    if not kept.exists():
        clock = time.perf_counter()
        flows, _ = train(
            sample, anisotropy=Isotropic(), gamma=1.0, members=members, training=Training(seed=seed)
        )
        nu = np.asarray(of_members(lambda g: g.density(COMPARED), flows))
        mass = np.asarray(of_members(lambda g: g.enclosed_mass(COMPARED), flows))
        np.savez(kept, nu=nu, mass=mass, seconds=time.perf_counter() - clock)
    with np.load(kept) as old:
        return dict(old)


def ensemble_rows(data: Path, seed: int, members: int) -> list[str]:
    """The smeared ensemble beside the posterior of the flow's weights, anisotropy given rightly in both."""
    stars = stars_of(data / "gaia_challenge" / BENCHMARK)
    posterior = benchmark_run(stars, "beta_ani = 0, given", seed)[0]["posterior"]
    places = stars.galaxy.distance * np.column_stack([stars.xi, stars.eta])
    sample = np.column_stack([places, stars.v_los - np.mean(stars.v_los)])
    alone, found = ensemble(sample, 1, seed), ensemble(sample, members, seed)
    r = posterior["r"].values
    rows = [
        f"One member took {float(alone['seconds']):.0f} s, {members} members together "
        f"{float(found['seconds']):.0f} s, compiling included. In dex from the truth, median and half the "
        "width of the central 68 %:",
        "",
        "| profile | r [kpc] | posterior | ensemble |",
        "|---|---|---|---|",
    ]
    for name in ("nu", "mass"):
        exact = np.log10(true_profile(name, COMPARED))
        draws = np.log10(posterior[name].values.reshape(-1, len(r)))
        at = np.array([np.interp(np.log(COMPARED), np.log(r), row) for row in draws]) - exact
        other = np.log10(np.maximum(found[name], 1e-30)) - exact
        for number, place in enumerate(COMPARED):
            cells = []
            for values in (at[:, number], other[:, number]):
                q = np.quantile(values, [0.16, 0.5, 0.84])
                cells.append(f"{q[1]:+.3f} +- {(q[2] - q[0]) / 2:.3f}")
            rows.append(f"| {name} | {place:g} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    return rows


def positions_rows(data: Path, seed: int, count: int) -> list[str]:
    """n(r) from positions alone: the benchmark file, and `count` mocks together."""
    rows = []
    r, draws = light_draws(stars_of(data / "gaia_challenge" / BENCHMARK), seed, ALONE)
    found = against_truth("nu", r, draws)
    rows.append(
        f"The benchmark file from (x, y) alone: truth inside 95 % at {found['inside']:.0%} of radii, "
        f"median off by at most {found['median']:.0%}."
    )
    print(rows[-1], flush=True)
    r_out = np.geomspace(*RANGES["nu"], 20)
    offsets, inside = [], []
    for number in range(count):
        kept = FOLDER / f"positions-{seed}-{number}.npz"
        if kept.exists():
            with np.load(kept) as old:
                r, draws = old["r"], old["draws"]
        else:
            r, draws = light_draws(mock_stars(1000, 1000 + seed * 100 + number), seed, ALONE)
            np.savez(kept, r=r, draws=draws)
        found = against_truth("nu", r, draws)
        median = np.interp(np.log(r_out), np.log(r), np.median(np.log(draws), axis=0))
        offsets.append(median - np.log(true_profile("nu", r_out)))
        inside.append(found["inside"])
        print(f"mock {number + 1} of {count}: {found}", flush=True)
    mean = np.mean(offsets, axis=0)
    error = np.std(offsets, axis=0, ddof=1) / np.sqrt(count)
    worst = int(np.argmax(abs(mean)))
    rows.append(
        f"{count} mocks of 1,000 stars: the median's mean offset from the truth is largest at "
        f"{r_out[worst]:.2f} kpc, {np.expm1(mean[worst]):+.1%} +- {error[worst]:.1%} (wanted: 5 %); "
        f"the truth is inside the 95 % band at {np.mean(inside):.0%} of radii; one mock's median scatters by "
        f"{np.std(offsets, axis=0, ddof=1).mean():.1%} on average."
    )
    if np.mean(inside) < 0.9:
        rows.append("The bands are too narrow by this; why is not known yet.")
    print(rows[-1], flush=True)
    return rows


def dwarf_rows(data: Path, seed: int) -> list[str]:
    """Draco and Fornax with assumptions relaxed in turn."""
    rows = ["| galaxy | model | log10 J(0.5 deg), 68 % | log10 rho(150 pc), 68 % | diagnostics |",
            "|---|---|---|---|---|"]  # fmt: skip
    moved: dict[str, list[float]] = {"draco": [], "fornax": []}
    for name in moved:
        stars = read_stars(
            data / "dwarfs" / f"{FILES[name]}_justin1_spec.dat", name, columns=COLUMNS
        )
        for number, (label, model, options) in enumerate(RELAXED):
            request = Request(load(model), stars, "nuts", options, {"seed": seed, **DRAWS})
            tree, passed = settled_run(request, FOLDER / f"{name}-{number}")
            cells = []
            for quantity in REPORTED:
                q = np.quantile(draws_of(tree, quantity), [0.16, 0.5, 0.84])
                cells.append(f"{q[1]:.2f} ({q[0]:.2f} to {q[2]:.2f})")
            moved[name].append(float(np.median(draws_of(tree, next(iter(REPORTED))))))
            rows.append(f"| {name.title()} | {label} | {' | '.join(cells)} | "
                        f"{'pass' if passed else 'FAIL'} |")  # fmt: skip
            print(rows[-1], flush=True)
    far = ", ".join(f"{np.ptp(J):.2f} dex in {name.title()}" for name, J in moved.items())
    rows += ["", f"The median of J moves by {far}, whatever is relaxed."]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mocks", type=int, default=20)
    parser.add_argument("--members", type=int, default=12)
    arguments = parser.parse_args()
    data = data_folder()
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Free of families: light as a flow, a halo of free slope",
        "",
        "`dsph_flow`: the stars' density a rotation-equivariant flow, the halo's slope free, velocities "
        "projected exactly; 4 chains of 500 draws.",
        "",
        "## The benchmark of Lim+2025",
        "",
        "1,000 stars of the Gaia Challenge (gs100, cusp, isotropic), no errors. Wanted with beta_ani = 0 "
        "given: truth inside the 95 % band at 90 % of radii or more (n from 0.05 to 1 kpc, M and rho from "
        "0.1), the median of n within 20 %, half-widths at R_half at most 0.08 dex (M) and 0.2 dex (rho). "
        "The truth is log10 J(0.5 deg) = 19.006. Seconds count compiling, on two cores.",
        "",
        *benchmark_rows(data, arguments.seed),
        "",
        "## A bootstrap ensemble beside the posterior",
        "",
        "Bayesian-bootstrap members trained on the smeared cross-entropy of the same stars "
        "(`flows/smeared.py`), cusp of slope 1 given.",
        "",
        *ensemble_rows(data, arguments.seed, arguments.members),
        "",
        "## n(r) from positions alone",
        "",
        *positions_rows(data, arguments.seed, arguments.mocks),
        "",
        "## Draco and Fornax, assumptions relaxed in turn",
        "",
        *dwarf_rows(data, arguments.seed),
        "",
        provenance("make check-flow-dwarf"),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print(f"see {PAGE}")


if __name__ == "__main__":
    main()
