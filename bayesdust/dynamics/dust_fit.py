"""The dust in front of stars, from what it does to their magnitudes and their number.

Of a star at a known distance the magnitude less the distance modulus is c = M + A. Stars at x with such c
are a Poisson process of the intensity n(x) phi(c - A) down to c_max, where the sample ends
(`efficiency.faintest_seen`), phi = dS/dM the luminosity function and n their density before the dust
(`tracer_counts.py`). As a likelihood that is the product of

    p(c | x) = phi(c - A) / S(c_max - A)                                                          (1)

over the stars, in which the red clump is a mark that the extinction A moves, and of the counts of stars of
the density n(x) S(c_max - A): behind dust that hides the clump (1) no longer depends on A, and the counts do.
The dust of a step of the way is

    A_step = layer_step exp(u),                                                                   (2)

u a walk at random down the halvings of the sky (`halved_walk.py`), whose smallest parts are smaller than
most clouds; the departures of ln n from a smooth disc are another such walk, smaller by far. (1) is level
where A is small and where it is large, and the maximum of the posterior is where it falls: a normal law
about the maximum is too narrow and off. `fit_dust` therefore seeks a normal law about the mean m whose
surroundings are most probable,

    m = argmin over m' of < E(m' + x) >,        x ~ N(0, M(m)^-1),                                (3)

E minus ln of the posterior, M the sum of the stars' squared slopes plus the prior's curvature, at m; the mean
is over a few pairs +-x, held fixed while m' moves and drawn anew each round: metric Gaussian variational
inference (Knollmueller & Ensslin 2019, arXiv:1901.11033), with the metric of the stars there are. phi, the
patchiness and the disc are found along with m.

A shift of phi against A(0) = 0 cannot be told, and leaves epsilon as it is.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize

from bayesdust.arrays import Array
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.dynamics.efficiency import (
    DustMap,
    check_magnitudes,
    faintest_at,
    mean_of_patches,
    modulus,
    patches,
    shares_in_front,
)
from bayesdust.dynamics.halved_walk import HalvedWalk, Scatter
from bayesdust.dynamics.luminosity import Luminosity
from bayesdust.dynamics.sky_parts import Sky
from bayesdust.dynamics.tracer_counts import (
    WAYS,
    Nodes,
    Region,
    disc_energy,
    disc_features,
    first_disc,
    way_weights,
)
from bayesdust.errors import BayesdustError

Floats = NDArray[np.float64]

FEWEST = 200  # stars: fewer do not tell a luminosity function
STARS_A_PART = 25  # of the sky
STARS_TO_END = 200  # a part: that many tell where the luminosity function ends
# kpc; from the last on each is farther by `FAR` at most, to the far end of the stars' ball
KNOTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2, 2.6, 3.0, 3.5)
FAR = 1.2  # times: one star at hundreds of kpc adds some steps, not hundreds
SPREAD = 1.0  # sd of u = ln of a step's dust over the layer's
STRENGTH, HEIGHT = 0.5, 0.15  # mag/kpc and kpc, of the layer that is the prior's median
ARMS = 0.2  # sd of the departures of ln n from a smooth disc
STRAYS = 0.02  # of the stars may be anything, over ten magnitudes: a few behind a cloud's edge do not rule
FIRST, EACH = 150, 40  # steps of L-BFGS to the maximum, and of a round of (3)
ROUNDS, PAIRS = 3, 2
DRAWS = 64
_CHUNK = 65_536  # stars at a time


def _on_processor[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """`function` on the CPU: slopes of tables are sums into few places, for which a GPU waits in line.

    100,000 stars took one core 100 s, and a GPU more than 170 s (docs/results/speed.md).
    """

    @wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        try:
            processor = jax.default_device(jax.local_devices(backend="cpu")[0])
        except RuntimeError:  # JAX has been told to know the GPU alone
            processor = contextlib.nullcontext()
        with processor:
            return function(*args, **named)

    return call


@_on_processor
def fit_dust(
    x: Float[np.ndarray, "n 3"],
    magnitude: Float[np.ndarray, " n"],
    limit: float,
    region: Region,
    on_progress: OnProgress = unheard,
    *,
    absolute_limit: float = np.inf,
    counts: bool = True,
    rounds: int = ROUNDS,
    draws: int = DRAWS,
    seed: int = 0,
) -> DustMap:
    """The dust in front of all stars of a `region` at `x` [kpc] with apparent `magnitude` down to `limit`.

    A sample that also ends at m - mu = `absolute_limit`, as one of `catalogs.cuts.giants`, needs it: without,
    stars that dust has taken beyond it would pass for stars that never were.

    All stars of the region that the limits let through must be there: a hole in the footprint, or a cut that
    depends on the place, passes for dust. Without `counts` (1) alone tells, as it does of any stars.

    The prior of a step's extinction is (2), its ln of sd `SPREAD` about that of a layer exp(-|z|/h). With no
    `rounds` of (3) the normal law stays about the maximum. The luminosity function, the patchiness and the
    smooth disc are the same in all `draws`.

    Raises BayesdustError for fewer than `FEWEST` stars, a place or a magnitude that is not finite or beyond a
    limit, or where the fit finds no probable dust.
    """
    if len(x) < FEWEST:
        raise BayesdustError(
            f"Dust is not told by the magnitudes of {len(x)} stars: give {FEWEST} or more."
        )
    offsets = x - region.sun
    check_magnitudes(offsets, magnitude, limit, absolute_limit)
    distance = np.linalg.norm(offsets, axis=1)
    sky = Sky.of(offsets, max(0, round(np.log2(len(offsets) / STARS_A_PART))))
    knots = _knots(region.farthest)
    cell, looks = sky.cell(offsets), magnitude - modulus(distance)
    nodes = Nodes.of(sky, knots, region, (limit, absolute_limit))
    posterior = _Posterior(
        luminosity=Luminosity(float(np.quantile(looks, 0.001)), _faintest(sky, cell, looks)),
        layer=jnp.asarray(_layer(_heights(sky, cell, offsets, distance, knots)) * np.diff(knots)),
        walk=HalvedWalk(sky.levels, SPREAD),
        disc=first_disc(nodes, len(x)),
        counts=counts,
    )
    stars = _Stars(
        cell=jnp.asarray(cell),
        looks=jnp.asarray(looks),
        faintest=jnp.asarray(faintest_at(distance, limit, absolute_limit)),
        shares=jnp.asarray(shares_in_front(distance, knots)),
        ways=jnp.asarray(way_weights(distance)),
        disc=jnp.asarray(disc_features(x, region.sun)),
    )
    rng = np.random.default_rng(np.random.SeedSequence([seed, *b"dust"]))
    p, scatter = _normal_law(posterior, (stars, nodes), rounds, rng, on_progress)
    at = posterior.parts(p)
    return DustMap(
        sky=sky,
        knots=knots,
        draws=np.array([posterior.steps(at.u + scatter.draw(rng)) for _ in range(draws)]),
        luminosity=posterior.luminosity,
        ln_phi=np.asarray(at.ln_phi),
        patchiness=float(at.patchiness),
        limit=limit,
        absolute_limit=absolute_limit,
    )


class _Stars(NamedTuple):
    """Part of the sky (n,), M + A and `faintest_seen` (n,) [mag], and share of each step in front (n, k).

    `ways` (n, w) and `disc` (n, q) as of `tracer_counts`.
    """

    cell: Array
    looks: Array
    faintest: Array
    shares: Array
    ways: Array
    disc: Array


type _Seen = tuple[_Stars, Nodes]


class _Parameters(NamedTuple):
    """ln phi at its knots, the patchiness, the smooth disc, and u of the smallest parts (cells, k + w).

    Before the walk, the deltas (parts, k + w) are in the place of u.
    """

    ln_phi: Array
    patchiness: Array
    disc: Array
    u: Array


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Minus ln of the posterior of ln phi at the knots, the patchiness, the disc and the walk's deltas.

    The walk has the k steps of the dust, and then the departures of ln n at the w `WAYS`. `disc` is where
    the fit starts from. Without `counts` the likelihood is (1), and disc and departures are the prior's.
    """

    luminosity: Luminosity
    layer: Array
    walk: HalvedWalk
    disc: Float[np.ndarray, " q"]
    counts: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Of u: (cells, k + w)."""
        cells, steps = self.layer.shape
        return cells, steps + len(WAYS)

    def start(self) -> Array:
        """A plausible luminosity function behind the layer itself."""
        knots = self.luminosity.knots
        rise = 0.8 * (knots - knots[0]) - 8 * np.maximum(knots - knots[-1] + 0.4, 0.0)
        deltas = np.zeros(self.walk.parts * self.shape[1])
        return jnp.asarray(np.concatenate([rise, [0.3], self.disc, deltas]))

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Where L-BFGS may look: no delta beyond 5 sd."""
        free: tuple[float | None, float | None] = (None, None)
        deltas = [(-5.0, 5.0)] * (self.walk.parts * self.shape[1])
        return [
            *[free] * len(self.luminosity.knots),
            (0.02, 1.0),
            *[free] * len(self.disc),
            *deltas,
        ]

    def split(self, p: Array) -> _Parameters:
        """What the vector of L-BFGS stands for, the walk's deltas in the place of u."""
        q = len(self.luminosity.knots)
        ln_phi, patchiness, disc, deltas = jnp.split(p, (q, q + 1, q + 1 + len(self.disc)))
        return _Parameters(ln_phi, patchiness[0], disc, deltas.reshape(self.walk.parts, -1))

    def parts(self, p: Array) -> _Parameters:
        """The same with u."""
        found = self.split(p)
        return found._replace(u=self.walk.fields(found.u))

    def steps(self, u: Array) -> Array:
        """(2), (cells, k) [mag]."""
        return self.layer * jnp.exp(u[:, : self.layer.shape[1]])

    def departures(self, u: Float[Array, "*n p"]) -> Float[Array, "*n w"]:
        """Of ln n from the smooth disc."""
        return ARMS / SPREAD * u[..., self.layer.shape[1] :]

    def ln_intensity(
        self, tables: Any, patchiness: Array, steps: Array, departures: Array, star: Any
    ) -> Array:
        """ln of the intensity at one star, less the smooth disc's ln n, which no dust changes.

        `steps` (k,) and `departures` (w,) of its part of the sky; (1) with `STRAYS`, times S.
        """
        looks, faintest, shares, ways = star
        extinction = patches(jnp.sum(shares * steps), patchiness)
        ln_phi, ln_share = tables
        seen = mean_of_patches(self.luminosity.at(ln_phi, looks - extinction))
        share = mean_of_patches(self.luminosity.at(ln_share, faintest - extinction))
        of_magnitude = jnp.logaddexp(jnp.log1p(-STRAYS) + seen - share, jnp.log(STRAYS * 0.1))
        return of_magnitude + share + ways @ departures if self.counts else of_magnitude

    @cached_property
    def slopes(self) -> Callable[..., Array]:
        """Of the ln intensities at stars, in their own u (n, k + w); compiled once for all rounds."""

        def one(u: Array, layer: Array, tables: Any, patchiness: Array, *star: Any) -> Array:
            steps = layer * jnp.exp(u[: len(layer)])
            return self.ln_intensity(tables, patchiness, steps, self.departures(u), star)

        by_star = (0, 0, None, None, 0, 0, 0, 0)
        return jax.jit(jax.vmap(jax.grad(one), in_axes=by_star))

    def ln_likelihood(self, tables: Any, at: _Parameters, seen: _Seen) -> Array:
        """ln of (2) of `tracer_counts`."""
        stars, nodes = seen
        steps, departures = self.steps(at.u), self.departures(at.u)
        intensity = jax.vmap(partial(self.ln_intensity, tables, at.patchiness))
        there = jnp.sum(intensity(steps[stars.cell], departures[stars.cell], stars[1:5]))
        if not self.counts:
            return there
        extinction = patches(jnp.einsum("cgk,ck->cg", nodes.shares, steps), at.patchiness)
        share = mean_of_patches(self.luminosity.at(tables[1], nodes.faintest - extinction))
        arms = jnp.einsum("cgw,cw->cg", nodes.ways, departures)
        number = jnp.sum(jnp.exp(nodes.ln_stars(at.disc) + share + arms))
        return there + jnp.sum(stars.disc @ at.disc) - number

    def energy(self, p: Array, around: Array, seen: _Seen) -> Array:
        """<E> of (3), x those of `around` (s, cells, k + w); minus ln of the posterior of one zero."""
        ln_phi, _, disc, deltas = self.split(p)
        at, tables = self.parts(p), self.luminosity.tables(ln_phi)
        smooth = jnp.sum((jnp.diff(ln_phi, 2) / 0.5) ** 2) + ln_phi[-1] ** 2
        told = jax.lax.map(
            lambda x: self.ln_likelihood(tables, at._replace(u=at.u + x), seen), around
        )
        return 0.5 * (jnp.sum(deltas**2) + smooth) + disc_energy(disc) - jnp.mean(told)


def _normal_law(
    posterior: _Posterior,
    seen: _Seen,
    rounds: int,
    rng: np.random.Generator,
    on_progress: OnProgress,
) -> tuple[Array, Scatter]:
    """Mean of the normal law (3), from the maximum on, and its scatter about it."""
    slope = jax.jit(jax.value_and_grad(posterior.energy))
    total, done = FIRST + rounds * EACH * 2 * PAIRS, 0  # passes over the stars

    def counted(p: Floats, around: Array) -> tuple[float, Floats]:
        nonlocal done
        done += len(around)
        on_progress(min(done, total), total, "dust")
        value, gradient = slope(p, around, seen)
        return float(value), np.asarray(gradient)

    def descended(p: Array, around: Array, steps: int) -> Array:
        """Where <E> is lowest, or so many steps of L-BFGS towards it."""
        found = minimize(
            counted,
            p,
            args=(around,),
            jac=True,
            method="L-BFGS-B",
            bounds=posterior.bounds(),
            options={"maxiter": steps, "maxcor": 20},
        )
        if not np.isfinite(found.fun):
            raise BayesdustError(
                "No dust makes the magnitudes probable: are they of these stars, and the places in kpc?"
            )
        return jnp.asarray(found.x)

    def scatter(p: Array) -> Scatter:
        return posterior.walk.scatter(_curvature(posterior, posterior.parts(p), seen[0]))

    p = descended(posterior.start(), jnp.zeros((1, *posterior.shape)), FIRST)
    for _ in range(rounds):
        law = scatter(p)
        x = np.array([law.draw(rng) for _ in range(PAIRS)])
        p = descended(p, jnp.concatenate([x, -x]), EACH)
    return p, scatter(p)


def _curvature(
    posterior: _Posterior, at: _Parameters, stars: _Stars
) -> Float[np.ndarray, "cells p p"]:
    """The metric in u: the sum of the squared slopes of the ln intensity at the stars."""
    tables = posterior.luminosity.tables(at.ln_phi)
    total = np.zeros((*at.u.shape, at.u.shape[1]))
    for first in range(0, len(stars.cell), _CHUNK):
        cell, *some = (part[first : first + _CHUNK] for part in stars[:5])
        told = posterior.slopes(at.u[cell], posterior.layer[cell], tables, at.patchiness, *some)
        slope = np.asarray(told)
        np.add.at(total, np.asarray(cell), slope[:, :, None] * slope[:, None, :])
    return total


def _knots(farthest: float) -> Floats:
    """`KNOTS`, and on to just beyond `farthest` [kpc]."""
    end = max(farthest, KNOTS[-1]) * 1.0001
    more = int(np.ceil(np.log(end / KNOTS[-1]) / np.log(FAR)))
    return np.append(KNOTS, np.geomspace(KNOTS[-1], end, more + 1)[1:])


def _heights(
    sky: Sky, cell: np.ndarray, offsets: np.ndarray, distance: np.ndarray, knots: Floats
) -> Float[np.ndarray, "cells k"]:
    """|z| [kpc] of the middle of every step of every part, from the Sun's height."""
    counts = np.maximum(np.bincount(cell, minlength=sky.cells), 1)
    sine = np.bincount(cell, offsets[:, 2] / np.maximum(distance, 1e-12), sky.cells) / counts
    return abs(sine[:, None] * 0.5 * (knots[1:] + knots[:-1]))


def _faintest(sky: Sky, cell: np.ndarray, looks: np.ndarray) -> float:
    """Where the luminosity function ends: what nearly all stars are brighter than where the sky is clear.

    A few tenths fainter and it could take stars behind dust for faint ones.
    """
    large = max(0, round(np.log2(len(looks) / STARS_TO_END)))
    part = cell >> max(0, sky.levels - large)
    faint = [np.quantile(looks[part == i], 0.97) for i in np.unique(part)]
    return float(np.quantile(faint, 0.2))


def _layer(height: Floats) -> Floats:
    """Median of the prior [mag/kpc] at heights |z| [kpc]: a layer, and a little everywhere."""
    return STRENGTH * np.exp(-height / HEIGHT) + 0.01
