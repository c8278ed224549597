"""The dust in front of stars, from what it does to their magnitudes.

Of a star at a known distance the magnitude less the distance modulus is c = M + A, and among those that are
seen it is distributed as

    p(c) = phi(c - A) / S(c_max - A)        for c < c_max,                                        (1)

phi = dS/dM the luminosity function and c_max where the sample ends (`efficiency.faintest_seen`): its red
clump is a mark that the extinction A moves. The stars of one part of the sky therefore tell A along it,
whatever their motions. The dust of a step of the way is

    A_step = layer_step exp(u),                                                                   (2)

u a walk at random down the halvings of the sky (`halved_walk.py`), whose smallest parts are smaller than most
clouds. While the clump is in the sample (1) hardly depends on A, and falls where the clump is hidden: the
posterior of u is level and then steep, its maximum is at the edge, and a normal law about the maximum is too
narrow and off. `fit_dust` therefore seeks a normal law about the mean m whose surroundings are most probable,

    m = argmin over m' of < E(m' + x) >,        x ~ N(0, M(m)^-1),                                (3)

E minus ln of the posterior, M the sum of the stars' squared slopes plus the prior's curvature, at m; the mean
is over a few pairs +-x, held fixed while m' moves and drawn anew each round: metric Gaussian variational
inference (Knollmueller & Ensslin 2019, arXiv:1901.11033), with the metric of the stars there are. phi and the
patchiness are found along with m.

A shift of phi against A(0) = 0 is all that (1) cannot tell; it leaves epsilon as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
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
    faintest_seen,
    mean_of_patches,
    modulus,
    patches,
    shares_in_front,
)
from bayesdust.dynamics.halved_walk import HalvedWalk, Scatter
from bayesdust.dynamics.luminosity import Luminosity
from bayesdust.dynamics.sky_parts import Sky
from bayesdust.errors import BayesdustError

Floats = NDArray[np.float64]

FEWEST = 200  # stars: fewer do not tell a luminosity function
STARS_A_PART = 25  # of the sky
STARS_TO_END = 200  # a part: that many tell where the luminosity function ends
# kpc; one more lies just beyond the farthest star
KNOTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2, 2.6, 3.0, 3.5)
SPREAD = 1.25  # sd of u = ln of a step's dust over the layer's
STRENGTH, HEIGHT = 0.5, 0.15  # mag/kpc and kpc, of the layer that is the prior's median
STRAYS = 0.02  # of the stars may be anything, over ten magnitudes: a few behind a cloud's edge do not rule
FIRST, EACH = 150, 40  # steps of L-BFGS to the maximum, and of a round of (3)
ROUNDS, PAIRS = 3, 2
DRAWS = 64
_CHUNK = 65_536  # stars at a time


def fit_dust(
    offsets: Float[np.ndarray, "n 3"],
    magnitude: Float[np.ndarray, " n"],
    limit: float,
    on_progress: OnProgress = unheard,
    *,
    absolute_limit: float = np.inf,
    rounds: int = ROUNDS,
    draws: int = DRAWS,
    seed: int = 0,
) -> DustMap:
    """The dust between the Sun and stars at `offsets` [kpc] of apparent `magnitude`, seen down to `limit`.

    A sample that also ends at m - mu = `absolute_limit`, as one of `catalogs.cuts.giants`, needs it: without,
    stars that dust has taken beyond it would pass for stars that never were.

    The prior of a step's extinction is (2), its ln of sd `SPREAD` about that of a layer exp(-|z|/h). With no
    `rounds` of (3) the normal law stays about the maximum. The luminosity function and the patchiness are
    the same in all `draws`.

    Raises BayesdustError for fewer than `FEWEST` stars, a place or a magnitude that is not finite or beyond a
    limit, or where the fit finds no probable dust.
    """
    if len(offsets) < FEWEST:
        raise BayesdustError(
            f"Dust is not told by the magnitudes of {len(offsets)} stars: give {FEWEST} or more."
        )
    check_magnitudes(offsets, magnitude, limit, absolute_limit)
    distance = np.linalg.norm(offsets, axis=1)
    sky = Sky.of(offsets, max(0, round(np.log2(len(offsets) / STARS_A_PART))))
    knots = np.append(KNOTS, max(distance.max(), KNOTS[-1]) * 1.0001)
    cell, looks = sky.cell(offsets), magnitude - modulus(distance)
    posterior = _Posterior(
        luminosity=Luminosity(float(np.quantile(looks, 0.001)), _faintest(sky, cell, looks)),
        layer=jnp.asarray(_layer(_heights(sky, cell, offsets, distance, knots)) * np.diff(knots)),
        walk=HalvedWalk(sky.levels, SPREAD),
    )
    faintest = faintest_seen(offsets, limit, absolute_limit)
    stars = _Stars(*map(jnp.asarray, (cell, looks, faintest, shares_in_front(distance, knots))))
    rng = np.random.default_rng(np.random.SeedSequence([seed, *b"dust"]))
    p, scatter = _normal_law(posterior, stars, rounds, rng, on_progress)
    ln_phi, patchiness, u = posterior.parts(p)
    return DustMap(
        sky=sky,
        knots=knots,
        draws=np.array([posterior.steps(u + scatter.draw(rng)) for _ in range(draws)]),
        luminosity=posterior.luminosity,
        ln_phi=np.asarray(ln_phi),
        patchiness=float(patchiness),
        limit=limit,
        absolute_limit=absolute_limit,
    )


class _Stars(NamedTuple):
    """Part of the sky (n,), M + A and `faintest_seen` (n,) [mag], and share of each step in front (n, k)."""

    cell: Array
    looks: Array
    faintest: Array
    shares: Array


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Minus ln of (1) times the prior, over ln phi at the knots, the patchiness and the walk's deltas."""

    luminosity: Luminosity
    layer: Array
    walk: HalvedWalk

    def start(self) -> Array:
        """A plausible luminosity function behind the layer itself."""
        knots = self.luminosity.knots
        rise = 0.8 * (knots - knots[0]) - 8 * np.maximum(knots - knots[-1] + 0.4, 0.0)
        deltas = np.zeros(self.walk.parts * self.layer.shape[1])
        return jnp.asarray(np.concatenate([rise, [0.3], deltas]))

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Where L-BFGS may look: no delta beyond 5 sd."""
        free: list[tuple[float | None, float | None]] = [(None, None)] * len(self.luminosity.knots)
        return [*free, (0.02, 1.0), *[(-5.0, 5.0)] * (self.walk.parts * self.layer.shape[1])]

    def split(self, p: Array) -> tuple[Array, Array, Array]:
        q = len(self.luminosity.knots)
        return p[:q], p[q], p[q + 1 :].reshape(self.walk.parts, -1)

    def parts(self, p: Array) -> tuple[Array, Array, Array]:
        """ln phi, the patchiness, and u (cells, k)."""
        ln_phi, patchiness, deltas = self.split(p)
        return ln_phi, patchiness, self.walk.fields(deltas)

    def steps(self, u: Array) -> Array:
        """(2), cells by k [mag]."""
        return self.layer * jnp.exp(u)

    def ln_likelihood(
        self, tables: Any, patchiness: Array, steps: Array, stars: tuple[Array, ...]
    ) -> Array:
        """ln of (1) of stars: `steps` (..., k) of each one's part of the sky."""
        looks, faintest, shares = stars
        extinction = jnp.sum(shares * steps, axis=-1)
        ln_phi, ln_share = tables
        seen = self.luminosity.at(ln_phi, looks - patches(extinction, patchiness))
        share = self.luminosity.at(ln_share, faintest - patches(extinction, patchiness))
        expected = mean_of_patches(seen) - mean_of_patches(share)
        return jnp.logaddexp(jnp.log1p(-STRAYS) + expected, jnp.log(STRAYS * 0.1))

    @cached_property
    def slopes(self) -> Callable[..., Array]:
        """Of the ln likelihoods of stars, in their own u (n, k); compiled once for all rounds."""

        def one(u: Array, layer: Array, *rest: Any) -> Array:
            *star, tables, patchiness = rest
            return self.ln_likelihood(tables, patchiness, layer * jnp.exp(u), tuple(star))

        by_star = (0, 0, 0, 0, 0, None, None)
        return jax.jit(jax.vmap(jax.grad(one), in_axes=by_star))

    def energy(self, p: Array, around: Array, stars: _Stars) -> Array:
        """<E> of (3), x those of `around` (s, cells, k); minus ln of the posterior if that is one zero."""
        ln_phi, patchiness, deltas = self.split(p)
        u, tables = self.walk.fields(deltas), self.luminosity.tables(ln_phi)
        smooth = jnp.sum((jnp.diff(ln_phi, 2) / 0.5) ** 2) + ln_phi[-1] ** 2

        def told(x: Array) -> Array:
            each = self.steps(u + x)[stars.cell]
            return jnp.sum(self.ln_likelihood(tables, patchiness, each, stars[1:]))

        return 0.5 * (jnp.sum(deltas**2) + smooth) - jnp.mean(jax.lax.map(told, around))


def _normal_law(
    posterior: _Posterior,
    stars: _Stars,
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
        value, gradient = slope(p, around, stars)
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
        return posterior.walk.scatter(_curvature(posterior, *posterior.parts(p), stars))

    p = descended(posterior.start(), jnp.zeros((1, *posterior.layer.shape)), FIRST)
    for _ in range(rounds):
        law = scatter(p)
        x = np.array([law.draw(rng) for _ in range(PAIRS)])
        p = descended(p, jnp.concatenate([x, -x]), EACH)
    return p, scatter(p)


def _curvature(
    posterior: _Posterior, ln_phi: Array, patchiness: Array, u: Array, stars: _Stars
) -> Float[np.ndarray, "cells k k"]:
    """The metric of (1) in u: the sum of the stars' squared slopes."""
    tables = posterior.luminosity.tables(ln_phi)
    total = np.zeros((*u.shape, u.shape[1]))
    for first in range(0, len(stars.cell), _CHUNK):
        some = [part[first : first + _CHUNK] for part in stars]
        cell = some[0]
        told = posterior.slopes(u[cell], posterior.layer[cell], *some[1:], tables, patchiness)
        slope = np.asarray(told)
        np.add.at(total, np.asarray(cell), slope[:, :, None] * slope[:, None, :])
    return total


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
