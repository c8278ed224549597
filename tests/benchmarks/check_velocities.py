"""Coverage where velocities are not Gaussian: `make check-velocities` writes docs/results/velocities.md.

Parameters from the priors of `dsph_gnfw`, velocities from the exact f(x, v) of each galaxy at the places of
the demo's stars, and two fits to them: Gaussian, and with the kurtosis of the fourth Jeans equation. Where a
galaxy has no positive f its parameters are drawn anew. Every replica is kept in build/check-velocities: the
same command goes on where it stopped.
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

import numpy as np  # noqa: E402
from benchmarks.results import kept_json, provenance  # noqa: E402

from bayesdust.anisotropy import (  # noqa: E402
    Anisotropy,
    Constant,
    Isotropic,
    OsipkovMerritt,
    from_symmetrised,
)
from bayesdust.calibration_verdict import Calibration, judge  # noqa: E402
from bayesdust.catalogs.facts import Galaxy  # noqa: E402
from bayesdust.demo import request  # noqa: E402
from bayesdust.distribution import Distribution, solve  # noqa: E402
from bayesdust.errors import BayesdustError  # noqa: E402
from bayesdust.inference.calibration import Bench, Replica, Trial, bench_of  # noqa: E402
from bayesdust.inference.dwarf import light_profile  # noqa: E402
from bayesdust.inference.nuts import cores  # noqa: E402
from bayesdust.inference.programs import shipped  # noqa: E402
from bayesdust.mocks import draw_at, generator  # noqa: E402
from bayesdust.potentials import GNFW  # noqa: E402
from bayesdust.units import ARCMIN  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "velocities.md"
FOLDER = REPOSITORY / "build" / "check-velocities"
STARS, LIGHT_GAMMA, SEED = 300, 1.0, 700
LAWS = "gaussian", "kurtosis"
CASES = {
    "isotropic": {"anisotropy": "isotropic"},
    "tangential": {"anisotropy": "constant"},  # of a model whose prior has no others
    "radial": {"anisotropy": "osipkov_merritt"},
}
SHOWN = "log10_rho[0.15kpc]", "log10_mass[1.8rhalf]", "log10_J[0.5deg]", "gamma"


def model(case: str) -> str:
    """`dsph_gnfw`, or a copy of it whose orbits are tangential."""
    if case != "tangential":
        return "dsph_gnfw"
    text = shipped()["dsph_gnfw"].read_text()
    prior = "dist.Uniform(-0.6, 0.8)"
    assert text.count(prior) == 1
    path = FOLDER / "dsph_gnfw_tangential.py"
    path.write_text(text.replace(prior, "dist.Uniform(-0.6, 0.0)"))
    return str(path)


def trial(case: str, law: str) -> Trial:
    stars = dataclasses.replace(request(n=STARS).stars, source="the demo's catalogue")
    options = {"light_gamma": LIGHT_GAMMA, "velocities": law} | CASES[case]
    return Trial(model(case), stars, options, seed=SEED)


def orbits(known: dict[str, float], case: str) -> Anisotropy:
    if case == "isotropic":
        return Isotropic()
    if case == "radial":
        return OsipkovMerritt(np.exp(known["ln_r_a"]))
    return Constant(float(from_symmetrised(known["beta_tilde"])))


def galaxy_of(facts: Galaxy, known: dict[str, float], orbits: Anisotropy) -> Distribution:
    """f of a galaxy of `dsph_gnfw` with these parameters; BayesdustError where it is negative."""
    r_s, R_half = np.exp(known["ln_r_s"]), facts.distance * known["rhalf"] * ARCMIN
    pivot = 1.8 * facts.distance * facts.rhalf_circularised * ARCMIN
    rho_s = np.exp(known["ln_mass"]) / float(GNFW(1.0, r_s, known["gamma"]).enclosed_mass(pivot))
    return solve(GNFW(rho_s, r_s, known["gamma"]), light_profile(R_half, LIGHT_GAMMA), orbits)


class Exact:
    """Truths of a bench, velocities from f(x, v); `refused` counts galaxies that have none, by index."""

    def __init__(self, bench: Bench, case: str):
        self.bench, self.case, self.refused = bench, case, {}

    def __call__(self, index: int):
        for attempt in range(1000):
            theta, v = self.bench.draw(index + 10_000 * attempt)
            known = {n: float(value) for n, value in self.bench.known(theta, v).items()}
            try:
                galaxy = galaxy_of(self.bench.trial.stars.galaxy, known, orbits(known, self.case))
            except BayesdustError:
                continue
            self.refused[index] = attempt
            return theta, self._velocities(galaxy, known, index)
        raise RuntimeError("no galaxy has a positive f")

    def _velocities(self, galaxy: Distribution, known: dict[str, float], index: int):
        stars = self.bench.trial.stars
        v = draw_at(galaxy, stars.theta * stars.galaxy.distance, seed=SEED + index)
        noise = generator(SEED + index, "check_velocities").standard_normal(stars.n)
        return np.asarray(known["v_sys"] + v + stars.v_los_err * noise)


def fitted(case: str, law: str, number: int) -> tuple[dict[int, Replica], int]:
    """Replicas of one case, and how many galaxies had no f; those kept are read back."""

    def make() -> Callable[[int], dict]:
        bench = bench_of(trial(case, law))
        exact = Exact(bench, case)
        bench = dataclasses.replace(bench, draw=exact)
        return lambda i: bench.replicas([i])[0]._asdict() | {"refused": exact.refused[i]}

    every = kept_json(FOLDER / f"{case}-{law}", number, make, cores())
    refused = sum(one.pop("refused") for one in every)
    return {i: Replica(**one) for i, one in enumerate(every)}, refused


def rows(case: str, law: str, found: Calibration) -> list[str]:
    return [
        f"| {case} | {law} | {q.name} | {q.coverage('68'):.0%} | {q.coverage('95'):.0%} | "
        f"{np.mean(q.u > 0.5):.0%} | {q.rms_z:.2f} | {found.sd[q.name]:.3f} | "
        f"{'inside' if q.inside else 'LEFT'} |"
        for q in found.quantities
        if q.name in SHOWN or q.name.startswith(("beta", "ln_r_a"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=200)
    number = parser.parse_args().replicas
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines, notes = [], []
    for case in CASES:
        for law in LAWS:
            found, refused = fitted(case, law, number)
            calibration = judge(found)
            lines += rows(case, law, calibration)
            print(*lines[-5:], sep="\n", flush=True)
        notes.append(f"{case} {refused / (refused + number):.0%}")
    errors = [np.sqrt(p * (1 - p) / number) for p in (0.6827, 0.95)]
    page = [
        "# Velocities that are not Gaussian",
        "",
        f"{number} galaxies a case from the priors of `dsph_gnfw`, {STARS} velocities each from the exact "
        "f(x, v) with errors of 2 km/s, and the same fits with a Gaussian law of velocities "
        "(`velocities=gaussian`) and with the kurtosis of the fourth Jeans equation (`velocities=kurtosis`). "
        f"Shares of 68 and 95 % intervals that hold the truth (binomial errors {errors[0]:.1%} and "
        f"{errors[1]:.1%}) and of truths above the median, rms of z = (truth - mean)/sd, median sd. Galaxies "
        f"that have no positive f were drawn anew: {', '.join(notes)}. The band is that of "
        "`bayesdust calibrate`.",
        "",
        "| orbits | velocities | quantity | 68 % | 95 % | above | rms z | sd | band |",
        "|---|---|---|---|---|---|---|---|---|",
        *lines,
        "",
        provenance("make check-velocities"),
        "",
    ]
    PAGE.write_text("\n".join(page))
    print(f"see {PAGE}")


if __name__ == "__main__":
    main()
