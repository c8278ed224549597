"""Reference posteriors: `make check-reference` fits every shipped model and makes models/reference/NAME.ecsv
(means, Monte Carlo errors, ESS; seed, data and model hash, command).

Dwarfs: the demo's stars. The Milky Way: 20,000 stars of a dusty mock, their efficiency given. Finished fits
are kept in build/check-reference, so the same command goes on where it stopped.
"""

import argparse
import dataclasses
import functools
import hashlib
import os
import sys
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import numpy as np  # noqa: E402
from astropy.table import Table  # noqa: E402
from benchmarks.results import settled_run  # noqa: E402

from bayesdust.catalogs.milky_way import MilkyWayStars  # noqa: E402
from bayesdust.catalogs.profile import Profile, read_profile  # noqa: E402
from bayesdust.demo import request as demo_request  # noqa: E402
from bayesdust.dusty_mocks import dusty_survey  # noqa: E402
from bayesdust.inference.posterior import versions  # noqa: E402
from bayesdust.inference.programs import load, shipped  # noqa: E402
from bayesdust.runs import Request  # noqa: E402
from bayesdust.summary import summarise  # noqa: E402

SEED = 11
#: options that make each model's light that of the mock, where the model takes them
OPTIONS = {"dsph_gnfw": {"light_gamma": 1.0}, "dsph_nfw_om": {"light_gamma": 1.0}}
DRAWS = {"mw_cbe_neural": 500}  # a chain, where not 2,000
PLACES = np.array([[-8.0, 0.0, 0.5], [-6.5, 1.0, -0.3]])  # kpc
COLUMNS = ["name", "unit", "mean", "mcse", "sd", "ess_bulk", "rhat"]


def reference_request(name: str, **settings: int) -> Request:
    """The fit whose posterior is the model's reference, no truth."""
    program, chosen = load(name), {"seed": SEED} | settings
    if program.kind == "milky_way":
        return Request(program, milky_way(), "nuts", {}, chosen, points=PLACES)
    if program.kind == "milky_way_profile":
        return Request(program, halo_profile(), "nuts", {}, chosen)
    stars = dataclasses.replace(demo_request(0).stars, source="demo, seed 0")
    return Request(program, stars, "nuts", OPTIONS.get(name, {}), chosen)


@functools.cache
def milky_way() -> MilkyWayStars:
    """Stars of a dusty mock, with their efficiency."""
    survey = dusty_survey(20_000, seed=0)
    stars = survey.stars(weights="1/epsilon")
    return dataclasses.replace(stars, source="dusty_survey(20_000, seed=0)")


def halo_profile() -> Profile:
    """Densities of an NFW halo of r_s = 16 kpc at eight radii, known to 10 %."""
    r = np.array([5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0])
    rho = 0.009 * (8 / r) * ((16 + 8) / (16 + r)) ** 2
    profile = read_profile(Table({"r": r, "rho_dm": rho, "rho_dm_err": 0.1 * rho}))
    return dataclasses.replace(profile, source="NFW, r_s = 16 kpc, known to 10 %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(shipped()))
    for name in parser.parse_args().models:
        print(name, flush=True)
        exact = load(name).posterior is not None
        request = reference_request(name, **({} if exact else {"num_draws": DRAWS.get(name, 2000)}))
        tree, passed = settled_run(request, REPOSITORY / "build" / "check-reference" / name)
        table = summarise(tree)[COLUMNS]
        table.meta = {
            "model": name,
            "model_sha256": hashlib.sha256(request.program.path.read_bytes()).hexdigest(),
            "stars": request.stars.source,
            "stars_sha256": request.stars.sha256,
            "options": dict(request.options),
            "settings": dict(request.settings),
            "diagnostics": "passed" if passed else "FAILED",
            "versions": versions(),
            "command": f"make check-reference ARGS={name}",
        }
        target = REPOSITORY / "models" / "reference" / f"{name}.ecsv"
        target.parent.mkdir(exist_ok=True)
        table.write(target, format="ascii.ecsv", overwrite=True)
        print(table, flush=True)


if __name__ == "__main__":
    main()
