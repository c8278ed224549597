"""The share of stars that the dust lets through, from what dust does to their magnitudes.

A survey that ends at the apparent magnitude `limit` sees of the stars at x the share

    epsilon(x) = S(limit - mu(d) - A(x)),                                                        (1)

S(M) the share of the sample's stars brighter than the absolute magnitude M, mu the distance modulus and
A = int_0^d rho_d ds >= 0 the extinction of the dust rho_d along the line of sight. Of a star at a known
distance the magnitude less mu is M + A, and among those that are seen it is distributed as

    p(M + A = c) = phi(c - A) / S(limit - mu - A)        for c < limit - mu,                     (2)

phi = dS/dM the luminosity function: its red clump is a mark that the extinction moves. The stars of one
part of the sky therefore tell A along it, whatever their motions; `fit_dust` finds phi and A of every part
together, by the maximum of (2) times the prior, and the scatter about it from the curvature there.

A shift of phi against A(0) = 0 is all that (2) cannot tell; it leaves epsilon as it is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from bayesdust.arrays import Array, Real
from bayesdust.errors import BayesdustError

Floats = NDArray[np.float64]

STARS_A_PART = 200  # of the sky
# kpc; the last knot is the farthest star
KNOTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2, 2.6, 3.0, 3.5)
SPREAD = 1.5  # sd of ln of a step's dust about the layer's
CLOUD = 4.0  # times the layer's: more dust than that in a step grows exponentially rare
STRENGTH, HEIGHT = 0.7, 0.15  # mag/kpc and kpc, of the layer that the prior is about
STRAYS = 0.02  # of the stars may be anything, over ten magnitudes: a few behind a cloud's edge do not rule
FAINTEST = 0.02  # no efficiency is taken to be below: one star would stand for fifty
STEP = 0.01  # mag, of the tables
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_PATCHES = _NODES, _WEIGHTS / _WEIGHTS.sum()
_FALL = 0.8, 20.0  # slope of ln phi beyond its knots, bright and faint [1/mag]


class Luminosity:
    """Luminosity functions that are straight in ln phi between knots a tenth of a magnitude apart.

    `low`, `high` [mag]: between them lie the stars' magnitudes less distance modulus and extinction.
    """

    def __init__(self, low: float, high: float):
        self.knots = np.arange(low, high + 0.1, 0.1)
        self.grid = np.arange(low - 8.0, high + 1.0, STEP)

    def tables(self, ln_phi: Float[Array, " q"]) -> tuple[Float[Array, " g"], Float[Array, " g"]]:
        """ln phi, normalised, and ln S on the grid, from ln phi at the knots."""
        bright = jnp.minimum(self.grid - self.knots[0], 0.0)
        faint = jnp.maximum(self.grid - self.knots[-1], 0.0)
        ln = jnp.interp(self.grid, self.knots, ln_phi) + _FALL[0] * bright - _FALL[1] * faint
        phi = jnp.exp(ln)
        steps = jnp.cumsum(0.5 * (phi[1:] + phi[:-1])) * STEP + phi[0] / _FALL[0]
        ln_share = jnp.log(jnp.concatenate([phi[:1] / _FALL[0], steps]))
        return ln - ln_share[-1], ln_share - ln_share[-1]

    def at(self, table: Float[Array, " g"], magnitude: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """A table at any magnitude, flat beyond its ends."""
        place = jnp.clip((magnitude - self.grid[0]) / STEP, 0.0, len(self.grid) - 1.001)
        first = place.astype(int)
        return table[first] + (place - first) * (table[first + 1] - table[first])


@dataclass(frozen=True, eq=False)
class Sky:
    """Parts of the sky with equally many stars: halves of halves, each cut across its longer side.

    `axis` (cells - 1,) is 0 where a part is cut in longitude and 1 in sin(latitude), `edge` where; the
    halves of part i are the parts 2 i + 1 and 2 i + 2.
    """

    axis: Int[np.ndarray, " c"]
    edge: Float[np.ndarray, " c"]
    levels: int

    @classmethod
    def of(cls, offsets: Float[np.ndarray, "n 3"], levels: int) -> "Sky":
        """The parts that halve stars at `offsets` from the Sun [kpc] `levels` times."""
        places = _directions(offsets)
        axis, edge = np.zeros(2**levels - 1, dtype=int), np.zeros(2**levels - 1)
        parts = {0: np.arange(len(offsets))}
        for i in range(2**levels - 1):
            mine = places[parts.pop(i)] if i in parts else places[:0]
            members = mine[:, 2].astype(int)
            latitude = np.arcsin(mine[:, 1])
            wide = np.ptp(mine[:, 0]) * np.cos(np.median(latitude))
            axis[i] = int(wide < np.ptp(latitude))
            edge[i] = _between(mine[:, axis[i]])
            above = mine[:, axis[i]] > edge[i]
            parts[2 * i + 1], parts[2 * i + 2] = members[~above], members[above]
        return cls(axis, edge, levels)

    @property
    def cells(self) -> int:
        """How many parts there are."""
        return 2**self.levels

    def cell(self, offsets: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """The part (n,) in which each place lies."""
        places, i = _directions(offsets), np.zeros(len(offsets), dtype=int)
        for _ in range(self.levels):
            above = places[np.arange(len(i)), self.axis[i]] > self.edge[i]
            i = 2 * i + 1 + above
        return i - (self.cells - 1)


@dataclass(frozen=True, eq=False)
class DustMap:
    """Extinction along every part of the sky, and the efficiency that it leaves.

    Attributes
    ----------
    sky : the parts
    knots : (k + 1,) kpc, distances between which the dust is even
    steps : (cells, k) extinction of each step [mag], the most probable in its logarithm
    roots : (cells, k, k) matrices that make normal deviates the scatter of the posterior about them
    luminosity, ln_phi : the luminosity function
    patchiness : sd of ln A between the lines of sight of one part
    limit : mag, the survey's
    """

    sky: Sky
    knots: Floats
    steps: Floats
    roots: Floats
    luminosity: Luminosity
    ln_phi: Floats
    patchiness: float
    limit: float

    def extinction(
        self, offsets: Float[np.ndarray, "n 3"], steps: Floats | None = None
    ) -> Float[np.ndarray, " n"]:
        """A (n,) [mag] at `offsets` from the Sun [kpc]."""
        steps = self.steps if steps is None else steps
        shares = _shares(np.linalg.norm(offsets, axis=1), self.knots)
        return np.sum(shares * steps[self.sky.cell(offsets)], axis=1)

    def efficiency(
        self, offsets: Float[np.ndarray, "n 3"], steps: Floats | None = None
    ) -> Float[np.ndarray, " n"]:
        """epsilon (n,) by (1), the mean over the lines of sight of a part, not below `FAINTEST`."""
        extinction = jnp.asarray(self.extinction(offsets, steps))
        ln_share = self._ln_share(offsets, patches(extinction, self.patchiness))
        return np.maximum(np.asarray(jnp.exp(_mean_of_patches(ln_share))), FAINTEST)

    def efficiency_in_sight(
        self,
        offsets: Float[np.ndarray, "n 3"],
        deviates: Float[np.ndarray, " n"],
        steps: Floats | None = None,
    ) -> Float[np.ndarray, " n"]:
        """epsilon (n,) on single lines of sight, of ln A `deviates` times `patchiness` off the part's."""
        shift = self.patchiness * deviates - 0.5 * self.patchiness**2
        extinction = np.maximum(self.extinction(offsets, steps), 0.0) * np.exp(shift)
        return np.asarray(jnp.exp(self._ln_share(offsets, jnp.asarray(extinction))))

    def _ln_share(self, offsets: Float[np.ndarray, "n 3"], extinction: Array) -> Array:
        """ln S(limit - mu - A) for A (..., n)."""
        faintest = jnp.asarray(self.limit - modulus(np.linalg.norm(offsets, axis=1)))
        return self.luminosity.at(
            self.luminosity.tables(jnp.asarray(self.ln_phi))[1], faintest - extinction
        )

    def draws(self, number: int, rng: np.random.Generator) -> Iterator[Floats]:
        """`number` draws of the steps, normal about the most probable; single ones may fall below zero.

        The luminosity function and the patchiness stay as they are.
        """
        for _ in range(number):
            scatter = np.einsum("ckj,cj->ck", self.roots, rng.standard_normal(self.steps.shape))
            yield self.steps + scatter


def patches(extinction: Float[Array, "*n"], patchiness: Real) -> Array:
    """A at the nodes of a log-normal law of mean `extinction`: what lies unresolved in a part of the sky."""
    deviates = _PATCHES[0].reshape(-1, *[1] * jnp.ndim(extinction))
    return extinction * jnp.exp(patchiness * deviates - 0.5 * patchiness**2)


def _mean_of_patches(ln_values: Array) -> Array:
    """ln of the mean over `patches`."""
    return jax.nn.logsumexp(ln_values.T + jnp.log(_PATCHES[1]), axis=-1).T


def modulus(distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """mu = 5 log10(d / 10 pc) of distances [kpc]; from 1 pc on."""
    return 5 * np.log10(100 * np.maximum(distance, 1e-3))


def fit_dust(
    offsets: Float[np.ndarray, "n 3"],
    magnitude: Float[np.ndarray, " n"],
    limit: float,
    on_progress: Callable[[int, int, str], None] = lambda done, total, phase: None,
    steps: int = 400,
) -> DustMap:
    """The dust between the Sun and stars at `offsets` [kpc] of apparent `magnitude`, seen down to `limit`.

    The prior of a step's extinction is log-normal (`SPREAD`) about a layer exp(-|z|/h), and falls as
    exp(-A/(`CLOUD` layer)): where the clump is hidden the likelihood is level in A, and only the prior ends
    it. `steps` is the most that L-BFGS takes.

    Raises BayesdustError for a magnitude that is not finite or beyond the limit.
    """
    from scipy.optimize import minimize

    check_magnitudes(magnitude, limit)
    distance = np.linalg.norm(offsets, axis=1)
    levels = max(0, round(np.log2(len(offsets) / STARS_A_PART)))
    sky = Sky.of(offsets, levels)
    knots = np.append(KNOTS, max(distance.max(), KNOTS[-1]) * 1.0001)
    cell, colour = sky.cell(offsets), magnitude - modulus(distance)
    luminosity = Luminosity(float(np.quantile(colour, 0.001)), _faintest(sky, cell, colour))
    heights = _heights(sky, cell, offsets, distance, knots)
    stars = tuple(
        map(jnp.asarray, (cell, colour, limit - modulus(distance), _shares(distance, knots)))
    )
    layer = _layer(heights) * np.diff(knots)
    posterior = _Posterior(luminosity, jnp.asarray(layer))
    slope = jax.jit(jax.value_and_grad(lambda p: posterior.energy(p, stars)))
    done = 0

    def counted(p: Floats) -> tuple[float, Floats]:
        nonlocal done
        done += 1
        on_progress(min(done, steps), steps, "dust")
        value, gradient = slope(p)
        return float(value), np.asarray(gradient)

    found = minimize(
        counted,
        posterior.start(),
        jac=True,
        method="L-BFGS-B",
        bounds=posterior.bounds(),
        options={"maxiter": steps, "maxcor": 20},
    )
    ln_phi, patchiness, u = posterior.parts(jnp.asarray(found.x))
    best = posterior.steps(u)
    return DustMap(
        sky=sky,
        knots=knots,
        steps=np.asarray(best),
        roots=_roots(posterior, ln_phi, patchiness, best, stars),
        luminosity=luminosity,
        ln_phi=np.asarray(ln_phi),
        patchiness=float(patchiness),
        limit=limit,
    )


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Minus ln of (2) times the prior, over ln phi at the knots, the patchiness and u (cells, k).

    The extinction of a step is `layer` exp(`SPREAD` u).
    """

    luminosity: Luminosity
    layer: Array

    def start(self) -> Floats:
        """A plausible luminosity function behind the layer itself."""
        knots = self.luminosity.knots
        rise = 0.8 * (knots - knots[0]) - 8 * np.maximum(knots - knots[-1] + 0.4, 0.0)
        return np.concatenate([rise, [0.3], np.zeros(self.layer.size)])

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Where L-BFGS may look; u beyond 4 sd would overflow on the way."""
        free: list[tuple[float | None, float | None]] = [(None, None)] * len(self.luminosity.knots)
        return [*free, (0.02, 1.0), *[(-4.0, 4.0)] * self.layer.size]

    def parts(self, p: Array) -> tuple[Array, Array, Array]:
        q = len(self.luminosity.knots)
        return p[:q], p[q], p[q + 1 :].reshape(self.layer.shape)

    def steps(self, u: Array) -> Array:
        return self.layer * jnp.exp(SPREAD * u)

    def ln_likelihood(
        self, tables: Any, patchiness: Array, steps: Array, star: tuple[Array, ...]
    ) -> Array:
        """ln of (2) of stars: `steps` (..., k) of each one's part of the sky."""
        colour, faintest, shares = star
        extinction = jnp.sum(shares * steps, axis=-1)
        ln_phi, ln_share = tables
        seen = self.luminosity.at(ln_phi, colour - patches(extinction, patchiness))
        share = self.luminosity.at(ln_share, faintest - patches(extinction, patchiness))
        expected = _mean_of_patches(seen) - _mean_of_patches(share)
        return jnp.logaddexp(jnp.log1p(-STRAYS) + expected, jnp.log(STRAYS * 0.1))

    def energy(self, p: Array, stars: tuple[Array, ...]) -> Array:
        ln_phi, patchiness, u = self.parts(p)
        steps = self.steps(u)
        smooth = jnp.sum((jnp.diff(ln_phi, 2) / 0.5) ** 2) + ln_phi[-1] ** 2
        prior = 0.5 * (jnp.sum(u**2) + smooth) + jnp.sum(steps / (CLOUD * self.layer))
        tables = self.luminosity.tables(ln_phi)
        return prior - jnp.sum(self.ln_likelihood(tables, patchiness, steps[stars[0]], stars[1:]))


def _roots(
    posterior: _Posterior, ln_phi: Array, patchiness: Array, steps: Array, stars: tuple[Array, ...]
) -> Float[np.ndarray, "cells k k"]:
    """`DustMap.roots`: of the inverse curvature in u, carried to the steps by their slope in u.

    The likelihood's curvature is the sum of the stars' squared slopes, in the mean the same as that of
    second derivatives, and positive.
    """
    tables = posterior.luminosity.tables(ln_phi)

    @jax.jit
    def slopes(steps: Array, *star: Array) -> Array:
        def one(steps: Array, *star: Array) -> Array:
            return posterior.ln_likelihood(tables, patchiness, steps, star)

        return jax.vmap(jax.grad(one))(steps, *star)

    change = SPREAD * np.asarray(steps)
    gradient = np.asarray(slopes(steps[stars[0]], *stars[1:])) * change[stars[0]]
    curvature = np.tile(np.eye(steps.shape[1]), (len(steps), 1, 1))
    np.add.at(curvature, np.asarray(stars[0]), gradient[:, :, None] * gradient[:, None, :])
    inverse = np.linalg.inv(np.linalg.cholesky(curvature))
    return np.asarray(change[:, :, None] * inverse.transpose(0, 2, 1))


def _between(values: Floats) -> float:
    """A number between the lower and the upper half, none of them itself."""
    ordered, half = np.sort(values), len(values) // 2
    return float(0.5 * (ordered[half - 1] + ordered[half])) if half else 0.0


def _directions(offsets: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Longitude from the direction of x, sin(latitude), and the number of each place."""
    distance = np.maximum(np.linalg.norm(offsets, axis=1), 1e-12)
    longitude = np.arctan2(offsets[:, 1], offsets[:, 0])
    return np.stack([longitude, offsets[:, 2] / distance, np.arange(len(offsets))], axis=1)


def _shares(distance: Float[np.ndarray, " n"], knots: Floats) -> Float[np.ndarray, "n k"]:
    """How much of each step lies in front of a star."""
    return np.clip((distance[:, None] - knots[:-1]) / np.diff(knots), 0.0, 1.0)


def _heights(
    sky: Sky, cell: np.ndarray, offsets: np.ndarray, distance: np.ndarray, knots: Floats
) -> Float[np.ndarray, "cells k"]:
    """|z| [kpc] of the middle of every step of every part, from the Sun's height."""
    counts = np.maximum(np.bincount(cell, minlength=sky.cells), 1)
    sine = np.bincount(cell, offsets[:, 2] / np.maximum(distance, 1e-12), sky.cells) / counts
    return abs(sine[:, None] * 0.5 * (knots[1:] + knots[:-1]))


def _faintest(sky: Sky, cell: np.ndarray, colour: np.ndarray) -> float:
    """Where the luminosity function ends: what nearly all stars are brighter than where the sky is clear.

    A few tenths fainter and it could take stars behind dust for faint ones.
    """
    faint = [np.quantile(colour[cell == i], 0.97) for i in range(sky.cells) if np.any(cell == i)]
    return float(np.quantile(faint, 0.2))


def _layer(height: Floats) -> Floats:
    """Median of the prior [mag/kpc] at heights |z| [kpc]: a layer, and a little everywhere."""
    return STRENGTH * np.exp(-height / HEIGHT) + 0.01


def first_unseen(magnitude: Float[np.ndarray, " n"], limit: float) -> int | None:
    """Index of the first star that the survey cannot have seen: no magnitude, or one beyond the limit."""
    seen = np.isfinite(magnitude) & (magnitude <= limit)
    return None if seen.all() else int(np.argmin(seen))


def check_magnitudes(magnitude: Float[np.ndarray, " n"], limit: float) -> None:
    """Raises BayesdustError for the first star that the survey cannot have seen."""
    first = first_unseen(magnitude, limit)
    if first is None:
        return
    value = magnitude[first]
    if not np.isfinite(value):
        raise BayesdustError(f"star {first + 1}: its magnitude is {value}; leave it out.")
    raise BayesdustError(
        f"star {first + 1}: its magnitude {value:.6g} is beyond the limit {limit:g}; give the "
        "survey's limit, or leave the star out."
    )
