"""What a model of the Milky Way is made of: its data, the likelihood of the sums over stars, the products.

Everything that can be computed once is computed here. The stars enter through sums that vanish in the true
potential behind the true dust (`dynamics/weak_form.py`); a model's force enters those through its values
at nodes (`dynamics/force_nodes.py`), so that a likelihood costs one small product.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float
from scipy.linalg import solve_triangular

from bayesdust.arrays import Array
from bayesdust.catalogs.cartesian import MAGNITUDES
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.dynamics.efficiency import DustMap, fit_dust
from bayesdust.dynamics.force_nodes import ForceNodes
from bayesdust.dynamics.weak_form import (
    Bumps,
    Moments,
    covariance,
    moments,
    own_star_pull,
    reweighted,
)
from bayesdust.errors import BayesdustError
from bayesdust.inference.options import refuse_unknown
from bayesdust.potentials.base import Potential
from bayesdust.potentials.discs import milky_way_2014
from bayesdust.units import DENSITY_GEV_CM3, G

#: Options every model of the Milky Way takes, with their defaults; `prepare` refuses any other.
OPTIONS: dict[str, Any] = {"efficiency": "auto", "limit": None, "magnitude": "auto", "bump": None}
CHOICES = {"efficiency": ("auto", "none", "given", "magnitudes")}
DUST_DRAWS = 64
FEWEST_A_SUM = 40  # stars: below, the covariance of the sums is poorly known
AT_ONCE = 16  # points; with some hundred draws beside each other their shells must fit the cache
SHELLS = np.geomspace(3.0, 30.0, 28)  # kpc, of the dark halo's radial profile
CIRCLES = np.sort(np.append(np.linspace(4.0, 12.0, 17), 8.122))  # kpc, of the rotation curve
HEIGHT = 1.1  # kpc, of Sigma
PC = 1e-3  # kpc
EDGE = 0.975  # of the ball's radius: bumps end within, where no star is missing


@dataclass(frozen=True, eq=False)
class GalaxyData:
    """Stars of the Milky Way, ready for a model.

    Attributes
    ----------
    nodes : where the models' forces are asked
    design, target : (p, p), (p,): the whitened sums are `design` @ node values + `target`, but for ...
    rest : ... what no axisymmetric force can change, its square
    pull : (p,) slope of the ln likelihood that undoes the stars' pull on their own sums
    number : how many sums there are
    sun : (3,) kpc
    points : (m, 3) kpc, places of the products
    epsilon : (d, m) draws of the efficiency there, or None where no dust was fitted
    options : every option, defaults filled in
    pilot : the sizes of the horizontal and vertical force of MWPotential2014 that the sums like best
    dust : the map behind `epsilon`, or None
    notes : sentences for the user
    """

    nodes: ForceNodes
    design: Float[np.ndarray, "p p"]
    target: Float[np.ndarray, " p"]
    rest: float
    pull: Float[np.ndarray, " p"]
    number: int
    sun: Float[np.ndarray, "3"]
    points: Float[np.ndarray, "m 3"]
    epsilon: Float[np.ndarray, "d m"] | None
    options: dict[str, Any]
    pilot: tuple[float, float]
    dust: DustMap | None = None
    notes: tuple[str, ...] = ()

    @property
    def R_sun(self) -> float:
        """Distance of the Sun from the axis [kpc]."""
        return float(np.hypot(self.sun[0], self.sun[1]))

    def to_predict(self) -> "GalaxyData":
        """The same: there are no velocities to be left open."""
        return self


def prepare(
    stars: MilkyWayStars,
    options: Mapping[str, Any],
    points: Float[np.ndarray, "m 3"] | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int, str], None] = lambda done, total, phase: None,
) -> GalaxyData:
    """Ready `stars` for a model; `points` (m, 3) [kpc] are where it is to give forces and densities.

    Raises BayesdustError on an unknown option or choice, magnitudes that are not there, or a ball that is
    too small for one test function.
    """
    chosen = _options(options, stars)
    centre = np.asarray(stars.centre if stars.radius else stars.sun.position, dtype=float)
    radius = stars.radius or float(np.linalg.norm(stars.x - centre, axis=1).max())
    points = np.zeros((0, 3)) if points is None else np.asarray(points, dtype=float)
    rng = np.random.default_rng(np.random.SeedSequence([seed, *b"dust"]))
    weights, dust, steps = _efficiency(stars, chosen, rng, on_progress)
    tests = Bumps.inside(centre, EDGE * radius, _rotation(stars), chosen["bump"] or radius / 3.0)
    nodes = ForceNodes.covering(centre, radius)
    on_progress(0, 3, "sums")
    found = moments(tests, stars.x, stars.v, nodes.basis, weights=weights)
    on_progress(1, 3, "sums")
    pilot, scatter = _scatter(tests, stars, weights, nodes, found)
    on_progress(2, 3, "sums")
    if dust is not None and weights is not None:
        scatter = scatter + _dust_scatter(tests, stars, pilot, weights, dust, steps)
    design, target, rest = _whitened(found, scatter)
    pull = own_star_pull(
        tests, stars.x, stars.v, _pilot(pilot), nodes.basis, np.linalg.inv(scatter), weights
    )
    on_progress(3, 3, "sums")
    offsets = points - stars.sun.position
    return GalaxyData(
        nodes=nodes,
        design=design,
        target=target,
        rest=rest,
        pull=np.asarray(pull),
        number=tests.number,
        sun=np.asarray(stars.sun.position, dtype=float),
        points=points,
        epsilon=None if dust is None else np.array([dust.efficiency(offsets, s) for s in steps]),
        options=chosen,
        pilot=(float(pilot[0]), float(pilot[1])),
        dust=dust,
        notes=tuple(_notes(chosen, tests.number, stars.n, _outside(points, centre, radius))),
    )


def weak_likelihood(data: GalaxyData, potential: Potential) -> None:
    """The likelihood of the sums over stars, factor "boltzmann"; chi2 is recorded.

    The sums are normal about zero with the covariance of a pilot solution: the stars' scatter, and what
    the dust is uncertain by.
    """
    force = data.nodes.values(potential)
    chi2 = jnp.sum((data.design @ force + data.target) ** 2) + data.rest
    numpyro.factor("boltzmann", -0.5 * chi2 + data.pull @ force)
    numpyro.deterministic("chi2", chi2)


def record(data: GalaxyData, potential: Potential, halo: Potential) -> dict[str, Array]:
    """Record the products as deterministic sites; `halo` is the dark part of `potential`.

    At the points phi, acceleration, rho and rho_dm; rho_dm_sun in the plane below the Sun; v_circ and
    rho_dm_r (mean over shells); sigma_1.1kpc = |a_z| / (2 pi G) at 1.1 kpc above the Sun [Msun/pc2].
    """
    points = jnp.asarray(data.points)
    plane = jnp.array([data.R_sun, 0.0, 0.0])
    above = jnp.array([data.R_sun, 0.0, HEIGHT])
    local = halo.density(plane)
    products = {
        "rho_dm_sun": local * DENSITY_GEV_CM3,
        "rho_dm_sun_msun_pc3": local * PC**3,
        "sigma_1.1kpc": -potential.acceleration(above)[2] / (2 * jnp.pi * G) * PC**2,
        "v_circ": jax.vmap(potential.circular_velocity)(jnp.asarray(CIRCLES)),
        "rho_dm_r": jax.vmap(lambda r: _shell_mean(halo, r))(jnp.asarray(SHELLS)),
    }
    if len(data.points):
        products |= jax.lax.map(
            lambda x: {
                "phi": potential.potential(x),
                "acceleration": potential.acceleration(x),
                "rho": potential.density(x),
                "rho_dm": halo.density(x),
            },
            points,
            batch_size=AT_ONCE,
        )
    for name, value in products.items():
        numpyro.deterministic(name, value)
    return products


_COSINES, _SHARES = np.polynomial.legendre.leggauss(8)


def _shell_mean(halo: Potential, r: Array) -> Array:
    """Mean of the density over the sphere of radius r, by Gauss-Legendre in cos(theta)."""
    sines = np.sqrt(1 - _COSINES**2)
    places = r * jnp.stack([jnp.asarray(sines), jnp.zeros(8), jnp.asarray(_COSINES)], axis=1)
    return jnp.sum(_SHARES * jax.vmap(halo.density)(places)) / 2


def _options(given: Mapping[str, Any], stars: MilkyWayStars) -> dict[str, Any]:
    refuse_unknown(given, OPTIONS, CHOICES)
    for key, value in given.items():
        if key in ("limit", "bump") and not (isinstance(value, int | float) and 0 < value < 100):
            raise BayesdustError(f"Option {key} cannot be {value!r}: give a positive number.")
    chosen = {**OPTIONS, **given}
    if chosen["efficiency"] == "auto":
        chosen["efficiency"] = "none" if stars.weights is None else "given"
        if chosen["limit"] is not None:
            chosen["efficiency"] = "magnitudes"
    if chosen["efficiency"] == "given" and stars.weights is None:
        raise BayesdustError(
            f"{stars.source}: efficiency=given needs the stars' weights: name their column, as "
            "weights='1/epsilon'."
        )
    if chosen["efficiency"] == "magnitudes":
        if chosen["limit"] is None:
            raise BayesdustError("efficiency=magnitudes needs the survey's limit, as limit=14.")
        if chosen["magnitude"] == "auto":
            chosen["magnitude"] = next(
                (b for b in MAGNITUDES if b in stars.photometry), MAGNITUDES[0]
            )
        if chosen["magnitude"] not in stars.photometry:
            known = ", ".join(stars.photometry) or "none"
            raise BayesdustError(
                f"{stars.source}: has no column of magnitudes {chosen['magnitude']} (known here: {known}); "
                "name the column G, or leave limit out and give weights='1/epsilon'."
            )
    elif chosen["limit"] is not None:
        raise BayesdustError(
            f"Option limit goes with efficiency=magnitudes, not with {chosen['efficiency']}: leave one out."
        )
    return chosen


def _efficiency(
    stars: MilkyWayStars, chosen: dict[str, Any], rng: np.random.Generator, on_progress: Any
) -> tuple[np.ndarray | None, DustMap | None, list[np.ndarray]]:
    """Weights 1/epsilon (n,) or None, the dust map and draws of it."""
    if chosen["efficiency"] == "none":
        return None, None, []
    if chosen["efficiency"] == "given":
        return np.asarray(stars.weights), None, []
    offsets = stars.x - stars.sun.position
    magnitude = stars.photometry[chosen["magnitude"]]
    dust = fit_dust(offsets, magnitude, float(chosen["limit"]), on_progress)
    return 1 / dust.efficiency(offsets), dust, list(dust.draws(DUST_DRAWS, rng))


def _rotation(stars: MilkyWayStars) -> float:
    """Mean of v_phi [km/s], positive from x to y."""
    x, v = stars.x, stars.v
    return float(np.mean((x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]) / np.hypot(x[:, 0], x[:, 1])))


def _pilot(sizes: np.ndarray) -> Callable[[Array], Array]:
    """MWPotential2014 with its horizontal and vertical force of other sizes."""
    galaxy = milky_way_2014()
    scale = jnp.array([sizes[0], sizes[0], sizes[1]])
    return lambda x: scale * galaxy.acceleration(x)


def _scatter(
    tests: Bumps,
    stars: MilkyWayStars,
    weights: np.ndarray | None,
    nodes: ForceNodes,
    found: Moments,
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the pilot's forces and the covariance of the sums there; twice, as the one needs the other."""
    values = np.asarray(nodes.values(milky_way_2014()))
    half = len(values) // 2
    pulls = np.stack([np.asarray(found.force[:, :half]) @ values[:half],
                      np.asarray(found.force[:, half:]) @ values[half:]], axis=1)  # fmt: skip
    sizes = np.ones(2)
    for _ in range(2):
        scatter = np.asarray(covariance(tests, stars.x, stars.v, _pilot(sizes), weights=weights))
        inverse = np.linalg.solve(scatter, pulls)
        before, sizes = (
            sizes,
            -np.linalg.solve(pulls.T @ inverse, inverse.T @ np.asarray(found.constant)),
        )
        if np.all(abs(sizes - before) < 0.05):
            break
    return sizes, scatter


def _dust_scatter(
    tests: Bumps,
    stars: MilkyWayStars,
    sizes: np.ndarray,
    weights: np.ndarray,
    dust: DustMap,
    steps: list[np.ndarray],
) -> np.ndarray:
    """Covariance (k, k) of the sums between draws of the dust, about those with the map's `weights`."""
    offsets = stars.x - stars.sun.position
    others = np.array([1 / dust.efficiency(offsets, s) - weights for s in steps])
    shifts = np.asarray(reweighted(tests, stars.x, stars.v, _pilot(sizes), others))
    return shifts.T @ shifts / len(shifts)


def _whitened(found: Moments, scatter: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Design (p, p), target (p,) and rest: |design a + target|^2 + rest is chi2 of the sums."""
    both = np.column_stack([np.asarray(found.force), np.asarray(found.constant)])
    white = solve_triangular(np.linalg.cholesky(scatter), both, lower=True)
    force, constant = white[:, :-1], white[:, -1]
    turn, design = np.linalg.qr(force)
    target = turn.T @ constant
    return design, target, float(constant @ constant - target @ target)


def _outside(points: np.ndarray, centre: np.ndarray, radius: float) -> int:
    """How many places lie where there are no stars."""
    return int(np.sum(np.linalg.norm(points - centre, axis=1) > radius))


def _notes(chosen: dict[str, Any], number: int, n: int, outside: int) -> list[str]:
    notes = []
    if outside:
        notes.append(
            f"{outside} of the places asked for lie outside the survey: what is said of them is the model's "
            "extrapolation (are they in kpc?)."
        )
    if chosen["efficiency"] == "none":
        notes.append(
            "No dust is allowed for (efficiency=none): behind dust the vertical force comes out too small."
        )
    if chosen["efficiency"] == "magnitudes":
        notes.append(
            "The intervals of epsilon are those of the mean over a part of the sky; the dust on one line of "
            "sight scatters about it by some 10 % of its extinction."
        )
    if n < FEWEST_A_SUM * number:
        notes.append(
            f"{number} sums of {n:,} stars: their covariance is poorly known; larger bumps (option bump, in "
            "kpc) make fewer sums."
        )
    return notes
