"""The share of stars that the dust lets through.

A survey that ends at the apparent magnitude `limit` sees of the stars at x the share

    epsilon(x) = S(limit - mu(d) - A(x)),                                                        (1)

S(M) the share of the sample's stars brighter than the absolute magnitude M, mu the distance modulus and
A = int_0^d rho_d ds >= 0 the extinction of the dust rho_d along the line of sight.

A sample that also ends at an absolute magnitude, as it looks behind the dust (M + A < `absolute_limit`), has
min(limit - mu, absolute_limit) in place of limit - mu.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from bayesdust.arrays import Array, Real
from bayesdust.dynamics.luminosity import Luminosity
from bayesdust.dynamics.sky_parts import Sky
from bayesdust.errors import BayesdustError

Floats = NDArray[np.float64]

ROUNDING = 1e-3  # mag, of magnitudes and distances read from a table
BRIGHTEST = -30.0  # mag; the Sun is fainter
LEAVE_OUT = "give the limits of the sample, or leave the star out"
LEAST = 0.02  # no efficiency is taken to be below: one star would stand for fifty
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_PATCHES = _NODES, _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True, eq=False)
class DustMap:
    """Extinction along every part of the sky, and the efficiency that it leaves.

    Attributes
    ----------
    sky : the parts
    knots : (k + 1,) kpc, distances between which the dust is even
    draws : (d, cells, k) of the posterior: extinction of each step [mag]
    luminosity, ln_phi : the luminosity function
    patchiness : sd of ln A between the lines of sight of one part
    limit, absolute_limit : mag, where the sample ends: `faintest_seen`
    """

    sky: Sky
    knots: Floats
    draws: Floats
    luminosity: Luminosity
    ln_phi: Floats
    patchiness: float
    limit: float
    absolute_limit: float = np.inf

    def efficiencies(self, offsets: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "d n"]:
        """epsilon by (1) of every draw, the mean over the lines of sight of a part, not below `LEAST`.

        `offsets` from the Sun [kpc].
        """
        in_front, ln_share = self._in_front(offsets), self._ln_share(offsets)
        found = np.empty((len(self.draws), len(offsets)))
        for i, steps in enumerate(self.draws):
            extinction = patches(jnp.asarray(in_front(steps)), self.patchiness)
            found[i] = jnp.exp(mean_of_patches(ln_share(extinction)))
        return np.maximum(found, LEAST)

    def efficiency(self, offsets: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """The mean (n,) of `efficiencies`."""
        return self.efficiencies(offsets).mean(axis=0)

    def in_sight(
        self, offsets: Float[np.ndarray, "n 3"], sights: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "s n"]:
        """epsilon of every draw on `sights` lines of sight of each place, which have a patch of their own."""
        in_front, ln_share = self._in_front(offsets), self._ln_share(offsets)
        found = []
        for steps in self.draws:
            deviates = rng.standard_normal((sights, len(offsets)))
            patch = np.exp(self.patchiness * deviates - 0.5 * self.patchiness**2)
            found.append(np.exp(ln_share(jnp.asarray(in_front(steps) * patch))))
        return np.concatenate(found)

    def _in_front(self, offsets: Float[np.ndarray, "n 3"]) -> Callable[[Floats], Floats]:
        """A (n,) of steps (cells, k)."""
        shares = shares_in_front(np.linalg.norm(offsets, axis=1), self.knots)
        cell = self.sky.cell(offsets)
        return lambda steps: np.einsum("nk,nk->n", shares, steps[cell])

    def _ln_share(self, offsets: Float[np.ndarray, "n 3"]) -> Callable[[Array], Array]:
        """ln S of (1) of A (..., n)."""
        faintest = jnp.asarray(faintest_seen(offsets, self.limit, self.absolute_limit))
        table = self.luminosity.tables(jnp.asarray(self.ln_phi))[1]
        return lambda extinction: self.luminosity.at(table, faintest - extinction)


def patches(extinction: Float[Array, "*n"], patchiness: Real) -> Array:
    """A at the nodes of a log-normal law of mean `extinction`: what lies unresolved in a part of the sky.

    Five nodes put epsilon off by 0.04 at most, where the clump is half hidden.
    """
    deviates = _PATCHES[0].reshape(-1, *[1] * jnp.ndim(extinction))
    return extinction * jnp.exp(patchiness * deviates - 0.5 * patchiness**2)


def mean_of_patches(ln_values: Array) -> Array:
    """ln of the mean over `patches`."""
    return jax.nn.logsumexp(ln_values.T + jnp.log(_PATCHES[1]), axis=-1).T


def modulus(distance: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """mu = 5 log10(d / 10 pc) of distances [kpc]; from 1 pc on."""
    return 5 * np.log10(100 * np.maximum(distance, 1e-3))


def faintest_seen(
    offsets: Float[np.ndarray, "n 3"], limit: float, absolute_limit: float = np.inf
) -> Float[np.ndarray, " n"]:
    """The M + A (n,) [mag] at which the sample ends at `offsets` from the Sun [kpc]."""
    return faintest_at(np.linalg.norm(offsets, axis=1), limit, absolute_limit)


def faintest_at(
    distance: Float[np.ndarray, "*n"], limit: float, absolute_limit: float = np.inf
) -> Float[np.ndarray, "*n"]:
    """The same at a `distance` from the Sun [kpc]."""
    return np.minimum(limit - modulus(distance), absolute_limit)


def shares_in_front(distance: Float[np.ndarray, "*n"], knots: Floats) -> Float[np.ndarray, "*n k"]:
    """How much of each step lies in front of a star."""
    return np.clip((distance[..., None] - knots[:-1]) / np.diff(knots), 0.0, 1.0)


def first_unseen(
    offsets: Float[np.ndarray, "n 3"],
    magnitude: Float[np.ndarray, " n"],
    limit: float,
    absolute_limit: float = np.inf,
) -> tuple[int, str] | None:
    """Index of the first star that the sample cannot have, and why not."""
    looks = magnitude - modulus(np.linalg.norm(offsets, axis=1))
    known = np.isfinite(looks) & (magnitude > BRIGHTEST)
    seen = known & (magnitude <= limit) & (looks <= absolute_limit + ROUNDING)
    if seen.all():
        return None
    first = int(np.argmin(seen))
    value = magnitude[first]
    if not np.isfinite(offsets[first]).all():
        return first, f"its place is {offsets[first]} kpc from the Sun"
    if not known[first]:
        return first, f"its magnitude is {value:g}"
    if value > limit:
        return first, f"its magnitude {value:.6g} is beyond the limit {limit:g}"
    return first, (
        f"it looks {looks[first]:.6g} mag bright at 10 pc, beyond the absolute limit {absolute_limit:g}"
    )


def check_magnitudes(
    offsets: Float[np.ndarray, "n 3"],
    magnitude: Float[np.ndarray, " n"],
    limit: float,
    absolute_limit: float = np.inf,
) -> None:
    """Raises BayesdustError for limits that are none, and for the first star that the sample cannot have."""
    if not np.isfinite(limit) or np.isnan(absolute_limit):
        raise BayesdustError(
            f"limit {limit:g} and absolute_limit {absolute_limit:g} are not magnitudes."
        )
    first = first_unseen(offsets, magnitude, limit, absolute_limit)
    if first is not None:
        star, problem = first
        raise BayesdustError(f"star {star + 1}: {problem}; {LEAVE_OUT}.")
