"""How many stars a survey of a smooth disc counts behind the dust.

Stars at x of the magnitude less distance modulus c = M + A are a Poisson process of the intensity

    lambda(x, c) = n(x) phi(c - A(x)),        c < c_max(x),                                      (1)

n their number density before the dust, so that

    ln L = sum_i ln lambda(x_i, c_i) - integral n(x) S(c_max - A) dx.                            (2)

Here n is a disc with a plane of symmetry and an axis:

    ln n = f(|z|) + g(|z|) (R - R_sun) + h (R - R_sun)^2,                                        (3)

f and g straight between knots, times departures along every line of sight (`WAYS`), because real
discs have arms. The integral is taken over the parts of the sky, two points in each step of the way
and at least four directions in each part (Gauss's rules). Where the ball begins and ends is taken to be the
same in all of a part: exact for a ball about the Sun, good to 2 % for one that holds it.

Of the stars of the ball that are bright enough all must be there, or a random part: a hole in the footprint
passes for dust.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.dynamics.efficiency import faintest_at, shares_in_front
from bayesdust.dynamics.sky_parts import Sky

HEIGHTS = np.array([0.0, 0.1, 0.2, 0.35, 0.55, 0.8, 1.2, 1.7, 2.4, 3.3, 4.5])  # kpc, of f
TILTS = np.array([0.0, 0.5, 1.5, 4.0])  # kpc, of g
WAYS = np.array(
    [0.5, 1.5, 2.5, 3.5]
)  # kpc from the Sun, between which a departure of ln n is straight
HEIGHT, LENGTH = 0.5, 3.0  # kpc, of the disc the fit starts from
# Priors' sd: of a change of f' [1/kpc], of g about -1/LENGTH and of its changes [1/kpc], of h [1/kpc2]
BEND, TILT, TILT_CHANGE, CURVE = 1.5, 0.3, 0.2, 0.1
_SIDES, _ = np.polynomial.legendre.leggauss(2)
_FINE = 0.08  # rad, between directions
_LEAST = 1e-300  # kpc3


class Region(NamedTuple):
    """The ball in which the stars were looked for, and from where: `sun` and `centre` (3,), `radius`, kpc."""

    sun: Float[np.ndarray, "3"]
    centre: Float[np.ndarray, "3"]
    radius: float

    @property
    def farthest(self) -> float:
        """Distance [kpc] of the ball's far end from the Sun."""
        return float(np.linalg.norm(self.sun - self.centre)) + self.radius

    def through(
        self, ray: Float[np.ndarray, "*n 3"]
    ) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
        """Distances [kpc] at which rays from the Sun, unit vectors, enter and leave the ball."""
        away = self.sun - self.centre
        nearest = -ray @ away
        half = np.sqrt(np.maximum(nearest**2 + self.radius**2 - away @ away, 0.0))
        return np.maximum(nearest - half, 0.0), np.maximum(nearest + half, 0.0)


class Nodes(NamedTuple):
    """Where the integral of (2) is taken: g distances in each part of the sky, s directions each.

    `faintest` (cells, g) is c_max [mag], `shares` (cells, g, k) of the steps in front, `ways` (cells, g, w)
    the weights of the departures, `ln_volume` (cells, g, s) [kpc3], `disc` (cells, g, s, q) as of
    `disc_features`.
    """

    faintest: Array
    shares: Array
    ways: Array
    ln_volume: Array
    disc: Array

    @classmethod
    def of(
        cls, sky: Sky, knots: Float[np.ndarray, " k"], region: Region, limits: tuple[float, float]
    ) -> "Nodes":
        """Those in the steps between `knots` [kpc], of a sample with `limits` as of `faintest_seen`."""
        ray, angle = _directions(sky)  # angle is that of each ray
        enter, leave = (edge.mean(axis=1)[:, None] for edge in region.through(ray))
        ends = np.clip(knots, enter, leave)
        middle, half = 0.5 * (ends[:, 1:] + ends[:, :-1]), 0.5 * np.diff(ends, axis=1)
        distance = (middle[..., None] + half[..., None] * _SIDES).reshape(sky.cells, -1)
        volume = distance**2 * np.repeat(half, 2, axis=1)
        offsets = distance[..., None, None] * ray[:, None]
        return cls(
            faintest=jnp.asarray(faintest_at(distance, *limits)),
            shares=jnp.asarray(shares_in_front(distance, knots)),
            ways=jnp.asarray(way_weights(distance)),
            ln_volume=jnp.asarray(np.log(np.maximum(volume[..., None] * angle[:, None], _LEAST))),
            disc=jnp.asarray(disc_features(region.sun + offsets, region.sun)),
        )

    def ln_stars(self, disc: Float[Array, " q"]) -> Float[Array, "cells g"]:
        """ln of n times the volume of each node, of the coefficients of (3)."""
        return jax.nn.logsumexp(self.ln_volume + self.disc @ disc, axis=-1)


def disc_features(
    x: Float[np.ndarray, "*n 3"], sun: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*n q"]:
    """What the coefficients of (3), f and g at their knots and h, are multiplied by at places x [kpc]."""
    out = np.hypot(x[..., 0], x[..., 1])[..., None] - np.hypot(sun[0], sun[1])
    height = abs(x[..., 2])
    return np.concatenate([_hats(height, HEIGHTS), out * _hats(height, TILTS), out**2], axis=-1)


def way_weights(distance: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n w"]:
    """Of the departures at `WAYS`, at distances [kpc] from the Sun; level before the first and beyond."""
    return _hats(np.clip(distance, WAYS[0], WAYS[-1]), WAYS)


def first_disc(nodes: Nodes, number: int) -> Float[np.ndarray, " q"]:
    """Coefficients of a plausible disc of so many stars."""
    disc = np.concatenate([-HEIGHTS / HEIGHT, np.full(len(TILTS), -1 / LENGTH), [0.0]])
    disc[: len(HEIGHTS)] += np.log(number) - float(
        jax.nn.logsumexp(nodes.ln_stars(jnp.asarray(disc)))
    )
    return disc


def disc_energy(disc: Float[Array, " q"]) -> Array:
    """Minus ln of the prior of the coefficients."""
    f, g, h = jnp.split(disc, (len(HEIGHTS), len(disc) - 1))
    bends = jnp.diff(jnp.diff(f) / np.diff(HEIGHTS)) / BEND
    tilts = jnp.concatenate([(g + 1 / LENGTH) / TILT, jnp.diff(g) / TILT_CHANGE])
    return 0.5 * (jnp.sum(bends**2) + jnp.sum(tilts**2) + jnp.sum((h / CURVE) ** 2))


def _directions(
    sky: Sky,
) -> tuple[Float[np.ndarray, "cells s 3"], Float[np.ndarray, "cells s"]]:
    """Rays in each part of the sky, and the solid angle [sr] that each stands for."""
    sides = max(2, int(np.ceil(np.sqrt(4 * np.pi / sky.cells) / _FINE)))
    point, weight = np.polynomial.legendre.leggauss(sides)
    low, high = np.moveaxis(sky.bounds, -1, 0)
    middle, half = 0.5 * (high + low), 0.5 * (high - low)
    longitude = middle[:, 0, None] + half[:, 0, None] * np.repeat(point, sides)
    sine = middle[:, 1, None] + half[:, 1, None] * np.tile(point, sides)
    cosine = np.sqrt(1 - sine**2)
    ray = np.stack([cosine * np.cos(longitude), cosine * np.sin(longitude), sine], axis=-1)
    return ray, half.prod(axis=1)[:, None] * np.outer(weight, weight).ravel()


def _hats(x: Float[np.ndarray, "*n"], knots: Float[np.ndarray, " q"]) -> Float[np.ndarray, "*n q"]:
    """Weights of linear interpolation between knots, straight on beyond them."""
    i = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)[..., None]
    t = (x[..., None] - knots[i]) / (knots[i + 1] - knots[i])
    found = np.zeros((*x.shape, len(knots)))
    np.put_along_axis(found, i, 1 - t, axis=-1)
    np.put_along_axis(found, i + 1, t, axis=-1)
    return found
