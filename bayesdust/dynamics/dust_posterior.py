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

SPREAD = 1.0  # sd of u = ln of a step's dust over the layer's
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

        `steps` (k,) and `departures` (w,) of its part of the sky; (1) with `STRAYS`, times S.
        """
        looks, faintest, shares, ways = star
        extinction = patches(jnp.sum(shares * steps), patchiness)
        ln_phi, ln_share = tables
        seen = mean_of_patches(self.luminosity.at(ln_phi, looks - extinction))
        share = mean_of_patches(self.luminosity.at(ln_share, faintest - extinction))
        of_magnitude = jnp.logaddexp(jnp.log1p(-STRAYS) + seen - share, jnp.log(STRAYS * 0.1))
        return of_magnitude + share + ways @ departures if self.counts else of_magnitude

    def number(self, tables: Any, p: Parameters, u: Array, nodes: Nodes) -> Array:
        """How many stars ought to be there: the integral in (2) of `tracer_counts`."""
        extinction = jnp.einsum("cgk,ck->cg", nodes.shares, self.steps(u))
        below = nodes.faintest - patches(extinction, p.patchiness)
        share = mean_of_patches(self.luminosity.at(tables[1], below))
        arms = jnp.einsum("cgw,cw->cg", nodes.ways, self.departures(u))
        return jnp.sum(jnp.exp(nodes.ln_stars(p.disc) + share + arms))

    def ln_likelihood(self, tables: Any, p: Parameters, seen: Seen, u: Array) -> Array:
        """ln of (2) of `tracer_counts`, u (cells, k + w) in the place of `p.deltas`."""
        stars, nodes = seen
        steps, departures = self.steps(u), self.departures(u)
        intensity = jax.vmap(partial(self.ln_intensity, tables, p.patchiness))
        there = jnp.sum(intensity(steps[stars.cell], departures[stars.cell], stars[1:5]))
        if not self.counts:
            return there
        return there + jnp.sum(stars.disc @ p.disc) - self.number(tables, p, u, nodes)

    def energy(self, p: Parameters, around: Array, seen: Seen) -> Array:
        """Minus ln of the posterior, the likelihood its mean over u + x.

        The x are those of `around` (s, cells, k + w).
        """
        u, tables = self.walk.fields(p.deltas), self.luminosity.tables(p.ln_phi)
        told = jax.lax.map(lambda x: self.ln_likelihood(tables, p, seen, u + x), around)
        patchiness = (p.ln_patchiness - np.log(_PATCHINESS[0])) / _PATCHINESS[1]
        walk = 0.5 * (patchiness**2 + jnp.sum(p.deltas**2))
        return walk + luminosity_energy(p.ln_phi) + disc_energy(p.disc) - jnp.mean(told)

    def curvature(self, p: Parameters, stars: Stars) -> Float[np.ndarray, "cells p p"]:
        """The metric in u: the sum of the squared slopes of the ln intensity at the stars."""
        u, tables = self.walk.fields(p.deltas), self.luminosity.tables(p.ln_phi)
        total = np.zeros((*u.shape, u.shape[1]))
        for first in range(0, len(stars.cell), _CHUNK):
            cell, *some = (part[first : first + _CHUNK] for part in stars[:5])
            told = self._slopes(u[cell], self.layer[cell], tables, p.patchiness, *some)
            slope = np.asarray(told)[:, :, None]
            np.add.at(total, np.asarray(cell), slope * slope.swapaxes(1, 2))
        return total

    @cached_property
    def _slopes(self) -> Callable[..., Array]:
        """Of the ln intensities at stars, in their own u (n, k + w); compiled once."""

        def one(u: Array, layer: Array, tables: Any, patchiness: Array, *star: Any) -> Array:
            steps = layer * jnp.exp(u[: len(layer)])
            return self.ln_intensity(tables, patchiness, steps, self.departures(u), star)

        by_star = (0, 0, None, None, 0, 0, 0, 0)
        return jax.jit(jax.vmap(jax.grad(one), in_axes=by_star))


def luminosity_energy(ln_phi: Float[Array, " m"]) -> Array:
    """Minus ln of the prior of ln phi at its knots: any slope, small bends."""
    return 0.5 * (jnp.sum((jnp.diff(ln_phi, 2) / _BEND) ** 2) + ln_phi[-1] ** 2)
