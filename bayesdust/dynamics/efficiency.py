"""The share of stars that the dust lets through, from what dust does to their magnitudes.

A survey that ends at the apparent magnitude `limit` sees of the stars at x the share

    epsilon(x) = S(limit - mu(d) - A(x)),                                                        (1)

S(M) the share of the sample's stars brighter than the absolute magnitude M, mu the distance modulus and
A = int_0^d rho_d ds >= 0 the extinction of the dust rho_d along the line of sight. Of a star at a known
distance the magnitude less mu is M + A, and among those that are seen it is distributed as

    p(M + A = c) = phi(c - A) / S(limit - mu - A)        for c < limit - mu,                     (2)

phi = dS/dM the luminosity function: its red clump is a mark that the extinction moves. The stars of one
part of the sky therefore tell A along it, whatever their motions. The dust of a step of the way is

    A_step = layer_step exp(u),                                                                   (3)

u a walk at random down the halvings of the sky (`halved_walk.py`), whose smallest parts are smaller than most
clouds. `fit_dust` finds phi and all u together, by the maximum of (2) times the prior, and draws u from the
normal law of the curvature there.

A sample that also ends at an absolute magnitude, as it looks behind the dust (M + A < `absolute_limit`), has
min(limit - mu, absolute_limit) in place of limit - mu.

A shift of phi against A(0) = 0 is all that (2) cannot tell; it leaves epsilon as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from bayesdust.arrays import Array, Real
from bayesdust.dynamics.halved_walk import HalvedWalk
from bayesdust.dynamics.luminosity import Luminosity
from bayesdust.dynamics.sky_parts import Sky
from bayesdust.errors import BayesdustError

Floats = NDArray[np.float64]

STARS_A_PART = 25  # of the sky
STARS_TO_END = 200  # a part: that many tell where the luminosity function ends
# kpc; the last knot is the farthest star
KNOTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2, 2.6, 3.0, 3.5)
SPREAD = 2.5  # sd of u = ln of a step's dust over the layer's
CLOUD = 4.0  # times the layer's: more dust than that in a step grows exponentially rare
STRENGTH, HEIGHT = 0.7, 0.15  # mag/kpc and kpc, of the layer that the prior is about
STRAYS = 0.02  # of the stars may be anything, over ten magnitudes: a few behind a cloud's edge do not rule
DRAWS = 64
ROUNDING = 1e-3  # mag, of magnitudes and distances read from a table
LEAVE_OUT = "give the limits of the sample, or leave the star out"
FAINTEST = 0.02  # no efficiency is taken to be below: one star would stand for fifty
_CHUNK = 65_536  # stars at a time
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

    def extinction(
        self, offsets: Float[np.ndarray, "n 3"], steps: Floats | None = None
    ) -> Float[np.ndarray, " n"]:
        """A (n,) [mag] at `offsets` from the Sun [kpc], for one draw of the `steps`, else their mean."""
        steps = self.draws.mean(axis=0) if steps is None else steps
        shares = _shares(np.linalg.norm(offsets, axis=1), self.knots)
        return np.sum(shares * steps[self.sky.cell(offsets)], axis=1)

    def efficiency(
        self, offsets: Float[np.ndarray, "n 3"], steps: Floats | None = None
    ) -> Float[np.ndarray, " n"]:
        """epsilon (n,) by (1), the mean over the lines of sight of a part, not below `FAINTEST`.

        Of one draw of the `steps`; the mean over all draws if none is given.
        """
        if steps is None:
            return np.mean([self.efficiency(offsets, one) for one in self.draws], axis=0)
        extinction = jnp.asarray(self.extinction(offsets, steps))
        ln_share = self._ln_share(offsets, patches(extinction, self.patchiness))
        return np.maximum(np.asarray(jnp.exp(_mean_of_patches(ln_share))), FAINTEST)

    def efficiency_in_sight(
        self,
        offsets: Float[np.ndarray, "n 3"],
        deviates: Float[np.ndarray, " n"],
        steps: Floats,
    ) -> Float[np.ndarray, " n"]:
        """epsilon (n,) on single lines of sight, of ln A `deviates` times `patchiness` off the part's."""
        shift = self.patchiness * deviates - 0.5 * self.patchiness**2
        extinction = self.extinction(offsets, steps) * np.exp(shift)
        return np.asarray(jnp.exp(self._ln_share(offsets, jnp.asarray(extinction))))

    def _ln_share(self, offsets: Float[np.ndarray, "n 3"], extinction: Array) -> Array:
        """ln S of (1) for A (..., n)."""
        faintest = jnp.asarray(faintest_seen(offsets, self.limit, self.absolute_limit))
        return self.luminosity.at(
            self.luminosity.tables(jnp.asarray(self.ln_phi))[1], faintest - extinction
        )


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


def faintest_seen(
    offsets: Float[np.ndarray, "n 3"], limit: float, absolute_limit: float = np.inf
) -> Float[np.ndarray, " n"]:
    """The M + A (n,) [mag] at which the sample ends at `offsets` from the Sun [kpc]."""
    return np.minimum(limit - modulus(np.linalg.norm(offsets, axis=1)), absolute_limit)


def fit_dust(
    offsets: Float[np.ndarray, "n 3"],
    magnitude: Float[np.ndarray, " n"],
    limit: float,
    on_progress: Callable[[int, int, str], None] = lambda done, total, phase: None,
    *,
    absolute_limit: float = np.inf,
    iterations: int = 400,
    draws: int = DRAWS,
    seed: int = 0,
) -> DustMap:
    """The dust between the Sun and stars at `offsets` [kpc] of apparent `magnitude`, seen down to `limit`.

    A sample that also ends at m - mu = `absolute_limit`, as one of `catalogs.cuts.giants`, needs it: without,
    stars that dust has taken beyond it would pass for stars that never were.

    The prior of a step's extinction is (3), of sd `SPREAD` about a layer exp(-|z|/h), and falls as
    exp(-A/(`CLOUD` layer)): where the clump is hidden the likelihood is level in A, and only the prior ends
    it. `iterations` are the most that L-BFGS takes, `draws` and `seed` are those of the posterior, in which
    the luminosity function and the patchiness stay as they are.

    Raises BayesdustError for a magnitude that is not finite or beyond a limit.
    """
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
    stars = _Stars(*map(jnp.asarray, (cell, looks, faintest, _shares(distance, knots))))
    ln_phi, patchiness, u = posterior.parts(
        _most_probable(posterior, stars, iterations, on_progress)
    )
    curvature = _curvature(posterior, ln_phi, patchiness, u, stars)
    scatter = posterior.walk.scatter(curvature)
    rng = np.random.default_rng(np.random.SeedSequence([seed, *b"dust"]))
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
    """Minus ln of (2) times the prior, over ln phi at the knots, the patchiness and the walk's deltas."""

    luminosity: Luminosity
    layer: Array
    walk: HalvedWalk

    def start(self) -> Floats:
        """A plausible luminosity function behind the layer itself."""
        knots = self.luminosity.knots
        rise = 0.8 * (knots - knots[0]) - 8 * np.maximum(knots - knots[-1] + 0.4, 0.0)
        return np.concatenate([rise, [0.3], np.zeros(self.walk.parts * self.layer.shape[1])])

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Where L-BFGS may look; deltas beyond 5 sd would overflow on the way."""
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
        """(3), cells by k [mag]."""
        return self.layer * jnp.exp(u)

    def clouds(self, u: Array) -> Array:
        """What keeps clouds finite: minus the prior's ln, and its curvature in u too."""
        return jnp.exp(u) / CLOUD

    def ln_likelihood(
        self, tables: Any, patchiness: Array, steps: Array, stars: tuple[Array, ...]
    ) -> Array:
        """ln of (2) of stars: `steps` (..., k) of each one's part of the sky."""
        looks, faintest, shares = stars
        extinction = jnp.sum(shares * steps, axis=-1)
        ln_phi, ln_share = tables
        seen = self.luminosity.at(ln_phi, looks - patches(extinction, patchiness))
        share = self.luminosity.at(ln_share, faintest - patches(extinction, patchiness))
        expected = _mean_of_patches(seen) - _mean_of_patches(share)
        return jnp.logaddexp(jnp.log1p(-STRAYS) + expected, jnp.log(STRAYS * 0.1))

    def energy(self, p: Array, stars: _Stars) -> Array:
        ln_phi, patchiness, deltas = self.split(p)
        u = self.walk.fields(deltas)
        smooth = jnp.sum((jnp.diff(ln_phi, 2) / 0.5) ** 2) + ln_phi[-1] ** 2
        prior = 0.5 * (jnp.sum(deltas**2) + smooth) + jnp.sum(self.clouds(u))
        each = self.steps(u)[stars.cell]
        tables = self.luminosity.tables(ln_phi)
        return prior - jnp.sum(self.ln_likelihood(tables, patchiness, each, stars[1:]))


def _most_probable(
    posterior: _Posterior,
    stars: _Stars,
    iterations: int,
    on_progress: Callable[[int, int, str], None],
) -> Array:
    """The parameters of the highest posterior, by L-BFGS."""
    from scipy.optimize import minimize

    slope = jax.jit(jax.value_and_grad(lambda p: posterior.energy(p, stars)))
    done = 0

    def counted(p: Floats) -> tuple[float, Floats]:
        nonlocal done
        done += 1
        on_progress(min(done, iterations), iterations, "dust")
        value, gradient = slope(p)
        return float(value), np.asarray(gradient)

    found = minimize(
        counted,
        posterior.start(),
        jac=True,
        method="L-BFGS-B",
        bounds=posterior.bounds(),
        options={"maxiter": iterations, "maxcor": 20},
    )
    return jnp.asarray(found.x)


def _curvature(
    posterior: _Posterior, ln_phi: Array, patchiness: Array, u: Array, stars: _Stars
) -> Float[np.ndarray, "cells k k"]:
    """Minus the curvature of ln (2) in u, and that of the prior's clouds.

    Of (2) it is the sum of the stars' squared slopes, in the mean the same as that of second derivatives,
    and positive.
    """
    tables = posterior.luminosity.tables(ln_phi)

    @jax.jit
    def slopes(u: Array, *star: Array) -> Array:
        def one(u: Array, layer: Array, *star: Array) -> Array:
            return posterior.ln_likelihood(tables, patchiness, layer * jnp.exp(u), star)

        return jax.vmap(jax.grad(one))(u, *star)

    total = np.asarray(posterior.clouds(u))[:, :, None] * np.eye(u.shape[1])
    for first in range(0, len(stars.cell), _CHUNK):
        some = [part[first : first + _CHUNK] for part in stars]
        cell = some[0]
        slope = np.asarray(slopes(u[cell], posterior.layer[cell], *some[1:]))
        np.add.at(total, np.asarray(cell), slope[:, :, None] * slope[:, None, :])
    return total


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


def first_unseen(
    offsets: Float[np.ndarray, "n 3"],
    magnitude: Float[np.ndarray, " n"],
    limit: float,
    absolute_limit: float = np.inf,
) -> tuple[int, str] | None:
    """Index of the first star that the sample cannot have, and why not."""
    looks = magnitude - modulus(np.linalg.norm(offsets, axis=1))
    seen = np.isfinite(magnitude) & (magnitude <= limit) & (looks <= absolute_limit + ROUNDING)
    if seen.all():
        return None
    first = int(np.argmin(seen))
    value = magnitude[first]
    if not np.isfinite(value):
        return first, f"its magnitude is {value}"
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
    """Raises BayesdustError for the first star that the sample cannot have."""
    first = first_unseen(offsets, magnitude, limit, absolute_limit)
    if first is not None:
        star, problem = first
        raise BayesdustError(f"star {star + 1}: {problem}; {LEAVE_OUT}.")
