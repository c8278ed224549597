"""How probable dust is, given what it does to the magnitudes of stars and to their number.

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
most clouds; the departures of ln n from a smooth disc are another such walk, smaller by far.

A shift of phi against A(0) = 0 cannot be told, and leaves epsilon as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.dynamics.efficiency import mean_of_patches, patches
from bayesdust.dynamics.halved_walk import HalvedWalk
from bayesdust.dynamics.luminosity import Luminosity
from bayesdust.dynamics.tracer_counts import WAYS, Nodes, disc_energy

SPREAD = 1.4  # sd of u = ln of a step's dust over the layer's
ARMS = 0.2  # sd of the departures of ln n from a smooth disc
STRAYS = 0.02  # of the stars may be anything, over ten magnitudes: a few behind a cloud's edge do not rule
_BEND = 0.5  # sd of the second differences of ln phi
_PATCHINESS = 0.3, 0.5  # median, and sd of its ln
_CHUNK = 65_536  # stars at a time


class Stars(NamedTuple):
    """Part of the sky (n,), M + A and `faintest_seen` (n,) [mag], and share of each step in front (n, k).

    `ways` (n, w) and `disc` (n, q) as of `tracer_counts`.
    """

    cell: Array
    looks: Array
    faintest: Array
    shares: Array
    ways: Array
    disc: Array


type Seen = tuple[Stars, Nodes]


class Parameters(NamedTuple):
    """ln phi at its knots (m,), ln of the patchiness, the smooth disc (q,), and the walk's deltas.

    `deltas` (parts, k + w) are of the k steps of the dust, and then of the departures of ln n at the w
    `WAYS`.
    """

    ln_phi: Array
    ln_patchiness: Array
    disc: Array
    deltas: Array

    @property
    def patchiness(self) -> Array:
        """Of `efficiency.patches`."""
        return jnp.exp(self.ln_patchiness)


@dataclass(frozen=True, eq=False)
class DustPosterior:
    """The posterior of `Parameters`, and its metric.

    `layer` (cells, k) [mag] is the prior's median. Without `counts` the likelihood is (1), and disc and
    departures are the prior's.
    """

    luminosity: Luminosity
    layer: Array
    walk: HalvedWalk
    counts: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Of u: (cells, k + w)."""
        cells, steps = self.layer.shape
        return cells, steps + len(WAYS)

    def start(self, disc: Float[np.ndarray, " q"]) -> Parameters:
        """A plausible luminosity function behind the layer itself, and a `disc`."""
        knots = self.luminosity.knots
        rise = 0.8 * (knots - knots[0]) - 8 * np.maximum(knots - knots[-1] + 0.4, 0.0)
        deltas = np.zeros((self.walk.parts, self.shape[1]))
        return Parameters(*map(jnp.asarray, (rise, np.log(_PATCHINESS[0]), disc, deltas)))

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

        `steps` (k,) and `departures` (w,) of its part of the sky.
        """
        looks, faintest, shares, ways = star
        extinction = jnp.sum(shares * steps)
        of_magnitude = self.ln_magnitude(tables, patchiness, extinction, looks, faintest)
        if not self.counts:
            return of_magnitude
        return (
            of_magnitude
            + self.ln_share(tables, patchiness, extinction, faintest)
            + ways @ departures
        )

    def ln_share(self, tables: Any, patchiness: Array, extinction: Array, faintest: Array) -> Array:
        """ln S behind a mean extinction [mag] of any shape."""
        below = faintest - patches(extinction, patchiness)
        return mean_of_patches(self.luminosity.at(tables[1], below))

    def ln_magnitude(
        self, tables: Any, patchiness: Array, extinction: Array, looks: Array, faintest: Array
    ) -> Array:
        """ln of (1), with `STRAYS`, of one star behind a mean extinction [mag]."""
        seen = mean_of_patches(
            self.luminosity.at(tables[0], looks - patches(extinction, patchiness))
        )
        share = self.ln_share(tables, patchiness, extinction, faintest)
        return jnp.logaddexp(jnp.log1p(-STRAYS) + seen - share, jnp.log(STRAYS * 0.1))

    def numbers(self, tables: Any, p: Parameters, u: Array, nodes: Nodes) -> Array:
        """How many stars ought to be at each node (cells, g): of the integral in (2) of `tracer_counts`."""
        extinction = jnp.einsum("cgk,ck->cg", nodes.shares, self.steps(u))
        share = self.ln_share(tables, p.patchiness, extinction, nodes.faintest)
        arms = jnp.einsum("cgw,cw->cg", nodes.ways, self.departures(u))
        return jnp.exp(nodes.ln_stars(p.disc) + share + arms)

    def ln_likelihood(self, tables: Any, p: Parameters, seen: Seen, u: Array) -> Array:
        """ln of (2) of `tracer_counts`, u (cells, k + w) in the place of `p.deltas`."""
        stars, nodes = seen
        steps, departures = self.steps(u), self.departures(u)
        intensity = jax.vmap(partial(self.ln_intensity, tables, p.patchiness))
        there = jnp.sum(intensity(steps[stars.cell], departures[stars.cell], stars[1:5]))
        if not self.counts:
            return there
        return there + jnp.sum(stars.disc @ p.disc) - jnp.sum(self.numbers(tables, p, u, nodes))

    def energy(self, p: Parameters, x: Array, seen: Seen) -> Array:
        """Minus ln of the posterior, its likelihood that of u + x, x (cells, k + w)."""
        u, tables = self.walk.fields(p.deltas), self.luminosity.tables(p.ln_phi)
        patchiness = (p.ln_patchiness - np.log(_PATCHINESS[0])) / _PATCHINESS[1]
        walk = 0.5 * (patchiness**2 + jnp.sum(p.deltas**2))
        prior = walk + luminosity_energy(p.ln_phi) + disc_energy(p.disc)
        return prior - self.ln_likelihood(tables, p, seen, u + x)

    def curvature(self, p: Parameters, around: Array, seen: Seen) -> Float[np.ndarray, "cells p p"]:
        """The metric in u, its mean over u + x: the squared slopes of (1) at the stars, and those of the
        counts, also where there ought to be stars and are none.

        The x are those of `around` (s, cells, k + w).
        """
        stars, nodes = seen
        u, tables = self.walk.fields(p.deltas) + around, self.luminosity.tables(p.ln_phi)
        total = np.zeros((*self.shape, self.shape[1]))
        steps = self.layer.shape[1]
        for first in range(0, len(stars.cell), _CHUNK):
            some = Stars(*(part[first : first + _CHUNK] for part in stars))
            total[:, :steps, :steps] += np.asarray(self._magnitudes(tables, p, u, some))
        if self.counts:
            total += np.asarray(self._counts(tables, p, u, nodes))
        return total

    # Of each posterior its own, that they may be forgotten together

    @cached_property
    def _magnitudes(self) -> Callable[..., Array]:
        return jax.jit(self._told_by_magnitudes)

    @cached_property
    def _counts(self) -> Callable[..., Array]:
        return jax.jit(self._told_by_counts)

    def _told_by_magnitudes(self, tables: Any, p: Parameters, u: Array, stars: Stars) -> Array:
        """(cells, k, k)."""
        slope = jax.vmap(jax.grad(partial(self.ln_magnitude, tables, p.patchiness)))

        def at(u: Array) -> Array:
            steps = stars.shares * self.steps(u)[stars.cell]
            steps *= slope(jnp.sum(steps, axis=1), stars.looks, stars.faintest)[:, None]
            return jax.ops.segment_sum(
                steps[:, :, None] * steps[:, None], stars.cell, self.shape[0]
            )

        return _mean_of(at, u)

    def _told_by_counts(self, tables: Any, p: Parameters, u: Array, nodes: Nodes) -> Array:
        """(cells, k + w, k + w)."""

        def at(u: Array) -> Array:
            steps = nodes.shares * self.steps(u)[:, None]

            def ln_share(extinction: Array) -> Array:
                return jnp.sum(self.ln_share(tables, p.patchiness, extinction, nodes.faintest))

            slope = jax.grad(ln_share)(jnp.sum(steps, axis=-1))[..., None] * steps
            both = jnp.concatenate([slope, ARMS / SPREAD * nodes.ways], axis=-1)
            return jnp.einsum("cg,cgi,cgj->cij", self.numbers(tables, p, u, nodes), both, both)

        return _mean_of(at, u)


def _mean_of(at: Callable[[Array], Array], every: Array) -> Array:
    """The mean of `at` over the first axis, none of its values kept."""
    start = jnp.zeros(jax.eval_shape(at, every[0]).shape)
    total, _ = jax.lax.scan(lambda total, one: (total + at(one), None), start, every)
    return total / len(every)


def luminosity_energy(ln_phi: Float[Array, " m"]) -> Array:
    """Minus ln of the prior of ln phi at its knots: any slope, small bends."""
    return 0.5 * (jnp.sum((jnp.diff(ln_phi, 2) / _BEND) ** 2) + ln_phi[-1] ** 2)
