"""Forces from flows against a dusty mock whose truth is known: `make check-flow-likelihood` prints the rows
of "The flow likelihood" and "Networks" in docs/results/flow-forces.md.

`--what likelihood`: sizes of the horizontal and the vertical force from bootstrap and iterated flows, with
the efficiency `--efficiency given`, solved for beside the force (`motions`) or ignored (`none`); ten times
the `--places` or the `--velocities` are to change little. `--what networks`: Phi and epsilon (or the density
of all stars) as networks, from both starts. `--mock file` is the mock in BAYESDUST_DATA, `drawn` one of
`dusty_mocks` with the seed; `--errors` takes the file's stars as they are seen, and tells the flows or not.
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

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks.check_boltzmann import stars_of  # noqa: E402
from benchmarks.results import dusty_mock  # noqa: E402

from bayesdust.disc_mocks import SURVEY  # noqa: E402
from bayesdust.dusty_mocks import dusty_survey  # noqa: E402
from bayesdust.dynamics import boltzmann_networks as bn  # noqa: E402
from bayesdust.flows.autoregressive import Architecture  # noqa: E402
from bayesdust.flows.training import Schedule, train  # noqa: E402
from bayesdust.inference import galaxy, survey_flows  # noqa: E402
from bayesdust.inference.flow_likelihood import Cells, FlowForces, flow_forces  # noqa: E402
from bayesdust.inference.galaxy_data import Survey, options_of  # noqa: E402
from bayesdust.potentials import Network, PotentialNetwork, milky_way_2014  # noqa: E402

SUN, RADIUS = np.array(SURVEY.centre), SURVEY.radius * (1 + 1e-5)
PLACES = 600  # of the networks' comparison


def stars(mock: str, number: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, v and epsilon of a mock's first stars; both mocks are in MWPotential2014."""
    if mock == "drawn":
        survey = dusty_survey(number, seed=seed)
        return survey.x, survey.v, survey.epsilon
    file = dusty_mock(number)
    columns = [file[c].astype(float) for c in ("x", "y", "z", "vx", "vy", "vz")]
    return np.column_stack(columns[:3]), np.column_stack(columns[3:]), file["epsilon"].astype(float)


def observed(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """x, v and epsilon of the file's first stars as they are seen, and copies with their errors once more."""
    seen = stars_of(dusty_mock(number), "1/epsilon", errors=True)
    chosen = options_of({"efficiency": "given"}, seen, galaxy.OPTIONS, galaxy.CHOICES)
    survey = Survey.of(seen, chosen, None, 0, lambda *_: None)
    return seen.x, seen.v, 1 / seen.weights, survey_flows.noisier(survey)


def sizes(forces: FlowForces, parts: np.ndarray) -> str:
    """Mean and sd of the sizes of the cells' horizontal and vertical forces `parts` (p, 2), flat priors."""
    h, z = np.linspace(0.8, 1.2, 161), np.linspace(0.5, 1.5, 201)
    H, Z = np.meshgrid(h, z, indexing="ij")
    off = forces.values - H[..., None] * parts[:, 0] - Z[..., None] * parts[:, 1]
    chi2 = np.einsum("...i,ij,...j", off, np.linalg.inv(forces.covariance), off)
    weights = (1 + chi2 / (forces.members - 1)) ** (-forces.power / 2)
    weights /= weights.sum()
    means = [np.sum(weights * G) for G in (H, Z)]
    sds = [np.sqrt(np.sum(weights * (G - m) ** 2)) for G, m in zip((H, Z), means, strict=True)]
    chi2 = float(forces.chi2(jnp.asarray(parts.sum(axis=1))))
    cells = [f"{m:.3f} +- {s:.3f}" for m, s in zip(means, sds, strict=True)]
    return " | ".join([*cells, f"{chi2:.0f} / {len(parts)}"])


def likelihood(arguments: argparse.Namespace) -> None:
    noisier = None
    if arguments.errors == "none":
        x, v, epsilon = stars(arguments.mock, arguments.stars, arguments.seed)
    else:
        x, v, epsilon, noisier = observed(arguments.stars)
    clock, seed = time.perf_counter(), arguments.seed
    near = np.flatnonzero((np.linalg.norm(x - SUN, axis=1) < 3.0) & (abs(x[:, 2]) < 1.5))
    cells = Cells.of(x[np.random.default_rng(8).choice(near, arguments.places, replace=False)])
    forces = flow_forces(
        x,
        v,
        Architecture.for_stars(x, v, SURVEY.centre, RADIUS),
        cells,
        weights=1 / epsilon if arguments.efficiency == "given" else None,
        velocities=arguments.velocities,
        dust=arguments.efficiency == "motions",
        noisier=noisier if arguments.errors == "deconvolved" else None,
        schedule=Schedule(seed=seed),
    )
    a = np.asarray(jax.vmap(milky_way_2014().acceleration)(jnp.asarray(cells.x)))
    parts = np.column_stack([cells(jnp.asarray(a * part)) for part in ([1, 1, 0], [0, 0, 1])])
    label = f"{arguments.mock}, {len(x):,} stars, efficiency {arguments.efficiency}, seed {seed}, "
    label += f"{arguments.places} places with {arguments.velocities} velocities each"
    label += f", errors {arguments.errors}"
    seconds = time.perf_counter() - clock
    print(f"| {label} | {sizes(forces, parts)} | {seconds:.0f} |")
    print(f"| the same, bootstrap alone | {sizes(forces.without_bias(), parts)} | |")
    truth = parts.sum(axis=1)
    for name, values in (
        ("raw", forces.values + forces.bias + forces.blur - truth),
        ("of errors", forces.blur),
        ("bias found", forces.bias),
        ("its error", forces.bias_error),
        ("bootstrap sd", np.sqrt(np.diagonal(forces.scatter))),
    ):
        print(f"{name} [%]: " + " ".join(f"{100 * c:.1f}" for c in values / abs(truth)))


def networks(arguments: argparse.Namespace) -> None:
    x, v, _ = stars(arguments.mock, arguments.stars, arguments.seed)
    build = Architecture.for_stars(x, v, SURVEY.centre, RADIUS)
    flows = train(x, v, build, members=4, schedule=Schedule(seed=arguments.seed)).flows
    rng = np.random.default_rng(8)
    at = x[(np.linalg.norm(x - SUN, axis=1) < 3.0) & (abs(x[:, 2]) < 1.0)]
    at = jnp.asarray(at[rng.choice(len(at), PLACES, replace=False)])
    truth = np.asarray(jax.vmap(milky_way_2014().acceleration)(at))
    for conditional, first in ((False, 1000), (False, 0), (True, 1000)):
        equations = bn.flow_equations(flows, jax.random.key(3), 4000, conditional=conditional)
        keys = jax.random.split(jax.random.key(arguments.seed))
        phi, other = (
            Network.untrained(k, SURVEY.centre, SURVEY.radius, arguments.width, arguments.depth)
            for k in keys
        )
        screen = (bn.TracerDensity if conditional else bn.Efficiency)(other)
        descent = bn.Descent(first=first, steps=3000 - first, seed=arguments.seed)
        found = bn.solve(equations, PotentialNetwork(phi), screen, descent)
        off = np.asarray(jax.vmap(found.potential.acceleration)(at)) - truth
        error = np.median(abs(off) / np.linalg.norm(truth, axis=1)[:, None], axis=0)
        start = "pointwise" if first else "random"
        print(f"| {'p(v given x)' if conditional else 'f_obs'} | {start} | "
              + " / ".join(f"{100 * e:.1f}" for e in error)
              + f" | {found.residual:.3f} ({found.floor:.3f}) |", flush=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=("likelihood", "networks"), default="likelihood")
    parser.add_argument("--mock", choices=("file", "drawn"), default="file")
    parser.add_argument("--efficiency", choices=("given", "motions", "none"), default="given")
    parser.add_argument("--stars", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--errors", choices=("none", "ignored", "deconvolved"), default="none")
    parser.add_argument("--places", type=int, default=600)
    parser.add_argument("--velocities", type=int, default=128, help="at each place")
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--depth", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.errors != "none" and (arguments.mock, arguments.efficiency) != ("file", "given"):
        parser.error("--errors goes with --mock file and --efficiency given")
    (likelihood if arguments.what == "likelihood" else networks)(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
