"""Reference posteriors: `make check-reference` fits every shipped model to the demo's stars and writes
models/reference/NAME.ecsv (means, Monte Carlo errors, ESS; seed, data and model hash, command).

Finished fits are kept in build/check-reference, so the same command goes on where it stopped.
"""

import argparse
import dataclasses
import hashlib
import os
import sys
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

from benchmarks.results import settled_run  # noqa: E402

from bayesdust.demo import request as demo_request  # noqa: E402
from bayesdust.inference.posterior import versions  # noqa: E402
from bayesdust.inference.programs import load, shipped  # noqa: E402
from bayesdust.runs import Request  # noqa: E402
from bayesdust.summary import summarise  # noqa: E402

SEED = 11
#: options that make each model's light that of the mock, where the model takes them
OPTIONS = {"dsph_gnfw": {"light_gamma": 1.0}, "dsph_nfw_om": {"light_gamma": 1.0}}
COLUMNS = ["name", "unit", "mean", "mcse", "sd", "ess_bulk", "rhat"]


def reference_request(name: str, **settings: int) -> Request:
    """The fit whose posterior is the model's reference: the demo's stars, no truth."""
    stars = dataclasses.replace(demo_request(0).stars, source="demo, seed 0")
    return Request(load(name), stars, "nuts", OPTIONS.get(name, {}), {"seed": SEED} | settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(shipped("dwarf")))
    for name in parser.parse_args().models:
        print(name, flush=True)
        request = reference_request(name, num_draws=2000)
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
