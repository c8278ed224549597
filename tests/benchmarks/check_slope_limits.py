"""What can line-of-sight velocities tell of the slope at R_half? `make check-slope-limits` writes
docs/results/slope-limits.md: the errors that a law of velocities leaves, from its information.

For the galaxies of `check_slopes.py` and stars from their exact f(x, v): the curvature of ln L of 1,000
velocities, plus the prior's, is the inverse covariance of (gamma, ln r_s, ln M, ln r_a) that a posterior has;
of the exact law it is the mean outer product of the scores. The scores' mean, which vanishes for the exact
law, is how far a wrong one pulls.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from benchmarks.check_slopes import FARTHEST, GALAXIES, STARS, tracer  # noqa: E402
from benchmarks.results import provenance  # noqa: E402

from bayesdust.anisotropy import OsipkovMerritt  # noqa: E402
from bayesdust.distribution import solve  # noqa: E402
from bayesdust.dynamics import velocity_law  # noqa: E402
from bayesdust.dynamics.jeans import JeansGrid  # noqa: E402
from bayesdust.mocks import draw_from  # noqa: E402
from bayesdust.potentials import GNFW  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "slope-limits.md"
DRAWN, SEED = 12_000, 77
STEPS = np.array([0.03, 0.05, 0.03, 0.05])  # of the differences in gamma, ln r_s, ln M, ln r_a
# of dsph_gnfw: sd of a uniform gamma, of ln r_s and ln r_a; that of ln M hardly counts
PRIOR = np.diag(np.array([1.4 / np.sqrt(12), 1.0, 1.5, 1.0]) ** -2)
WANTED = {name: wanted for name, (_, _, wanted) in GALAXIES.items()}

type Law = Callable[[np.ndarray], jax.Array | np.ndarray]


class Stars:
    """Places and velocities from the exact f, and the laws that may be held against them."""

    def __init__(self, name: str):
        self.halo, scale, _ = GALAXIES[name]
        self.tracer = tracer(name)
        self.R_half = float(self.tracer.half_light_radius)
        drawn = draw_from(solve(self.halo, self.tracer, OsipkovMerritt(scale)), DRAWN, seed=SEED)
        R = np.hypot(drawn.x[:, 0], drawn.x[:, 1])
        self.R, self.v = R[R < FARTHEST], drawn.v[R < FARTHEST, 2]
        mass = float(self.halo.enclosed_mass(1.8 * self.R_half))
        self.truth = np.array([self.halo.gamma, np.log(self.halo.r_s), np.log(mass), np.log(scale)])

    def galaxy(self, theta: np.ndarray) -> tuple[GNFW, OsipkovMerritt]:
        gamma, r_s = theta[0], jnp.exp(theta[1])
        unit = GNFW(1.0, r_s, gamma)
        rho_s = jnp.exp(theta[2]) / unit.enclosed_mass(1.8 * self.R_half)
        return GNFW(rho_s, r_s, gamma), OsipkovMerritt(jnp.exp(theta[3]))

    def by_moments(self, law: str) -> Law:
        """ln of the density of each star's velocity, by its first two or four moments."""
        grid = JeansGrid.build(self.R, self.tracer, floor=0.0)

        @jax.jit
        def terms(theta: jax.Array) -> jax.Array:
            halo, orbits = self.galaxy(theta)
            variance, kurtosis = grid.variance_and_kurtosis(halo, self.tracer, orbits)
            if law == "gaussian":
                return -0.5 * (self.v**2 / variance + jnp.log(2 * jnp.pi * variance))
            away = self.v[:, None] - jnp.sqrt(variance)[:, None] * velocity_law.OFFSETS
            spread = variance[:, None] * velocity_law.VARIANCES
            each = -0.5 * (away**2 / spread + jnp.log(2 * jnp.pi * spread))
            return jax.nn.logsumexp(each, axis=-1, b=velocity_law.shares(kurtosis))

        return terms

    def exact(self, theta: np.ndarray) -> np.ndarray:
        """The same by f itself.

        Of Osipkov-Merritt orbits Q = Psi - v A v/2 with A = 1 along the radius and g = 1 + r^2/r_a^2 across.
        At a given v_z the integral over the other two components is 2 pi/sqrt(g A_xx) int_0^Qmax F dQ, with
        Qmax = Psi - g v_z^2/(2 A_xx) and A_xx = sin^2 + g cos^2 of the angle to the line of sight.
        """
        halo, orbits = self.galaxy(theta)
        distribution = solve(halo, self.tracer, OsipkovMerritt(float(orbits.r_a)))
        r = np.geomspace(1e-4, 1e4, 4000)
        Psi = -np.asarray(halo.potential(jnp.asarray(r)))
        Q = Psi[::-1]
        F = distribution.F(Q)
        below = np.concatenate([[0.0], np.cumsum(0.5 * (F[1:] + F[:-1]) * np.diff(Q))])
        z = np.concatenate([[0.0], np.geomspace(1e-3, 60.0, 160)]) * self.R_half
        there = np.sqrt(self.R[:, None] ** 2 + z**2)
        g, cos2 = 1 + (there / float(orbits.r_a)) ** 2, (z / there) ** 2
        across = 1 - cos2 + g * cos2
        most = np.interp(np.log(there), np.log(r), Psi) - g / (2 * across) * self.v[:, None] ** 2
        inner = np.where(most > 0, np.interp(most, Q, below), 0.0) / np.sqrt(g * across)
        column = 4 * np.pi * np.trapezoid(inner, z, axis=1)
        light = jax.vmap(self.tracer.surface_density)(jnp.asarray(self.R))
        return np.log(np.maximum(column / np.asarray(light), 1e-300))

    def information(self, law: Law, scores: np.ndarray) -> np.ndarray:
        """Minus the mean second derivatives (4, 4) of ln of a star's density."""
        if law == self.exact:
            return scores.T @ scores / len(scores)
        mean = jax.jit(jax.grad(lambda theta: -jnp.mean(law(theta))))
        found = self.derivatives(lambda theta: mean(jnp.asarray(theta)))
        return (found + found.T) / 2

    def derivatives(self, function: Callable[[np.ndarray], Any]) -> np.ndarray:
        """By differences (..., 4); one-sided where gamma ends."""
        columns = []
        for k, step in enumerate(np.diag(STEPS)):
            if k == 0 and self.truth[0] < STEPS[0]:
                at = [np.asarray(function(self.truth + i * step)) for i in range(3)]
                columns.append((-3 * at[0] + 4 * at[1] - at[2]) / (2 * STEPS[k]))
            else:
                one, other = function(self.truth + step), function(self.truth - step)
                columns.append(np.asarray(one - other) / (2 * STEPS[k]))
        return np.stack(columns, axis=-1)

    def slope(self, theta: np.ndarray) -> float:
        return float(self.galaxy(theta)[0].slope(jnp.asarray(self.R_half)))


def row(name: str, stars: Stars, label: str, law: Law) -> str:
    scores, slope = stars.derivatives(law), stars.derivatives(stars.slope)
    covariance = np.linalg.inv(STARS * stars.information(law, scores) + PRIOR)
    known = stars.slope(stars.truth)
    sd = np.sqrt(slope @ covariance @ slope)
    pull = slope @ covariance @ scores.T * STARS
    error = pull.std(ddof=1) / np.sqrt(len(pull))
    return (
        f"| {name} | {label} | {known:.3f} | {sd:.3f} | {sd / known:.1%} | {WANTED[name]:.0%} | "
        f"{pull.mean():+.3f} +- {error:.3f} |"
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = []
    for name in GALAXIES:
        stars = Stars(name)
        for label, law in {
            "exact f": stars.exact,
            "kurtosis": stars.by_moments("kurtosis"),
            "gaussian": stars.by_moments("gaussian"),
        }.items():
            rows.append(row(name, stars, label, law))
            print(rows[-1], flush=True)
    page = [
        "# What velocities can tell of the slope at R_half",
        "",
        f"The galaxies of [slopes.md](slopes.md): the sd of -d ln rho/d ln r at R_half that {STARS:,} "
        "velocities without errors leave a posterior, where it is nearly normal, by the information of the "
        "exact law of velocities, which no analysis of them can beat, and of the two laws that are fitted. "
        "gamma, r_s, the mass and r_a are free, with the widths of their priors in `dsph_gnfw`; "
        f"{DRAWN:,} stars stand for the mean over samples. Pull: how far the law moves the slope in the "
        "mean, because stars do not follow it.",
        "",
        "| galaxy | law | slope | sd | of the slope | wanted | pull |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        provenance("make check-slope-limits"),
        "",
    ]
    PAGE.write_text("\n".join(page))
    print(f"see {PAGE}")


if __name__ == "__main__":
    main()
