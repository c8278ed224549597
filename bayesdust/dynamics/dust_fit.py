"""The dust in front of stars: a normal law near its posterior, and draws of it.

The posterior (`dust_posterior.py`) is level where the extinction A is small and where it is large, and its
maximum is where it falls: a normal law about the maximum is too narrow and off. `fit_dust` therefore seeks a
normal law about the mean m whose surroundings are most probable,

    m = argmin over m' of < E(m' + x) >,        x ~ N(0, M^-1),        M = < M(m + x) >,              (1)

E minus ln of the posterior, M(u) its metric at u: the squared slopes of the laws of the stars' magnitudes and
numbers, plus the prior's curvature. The means are over a few pairs +-x, held fixed while m' moves and drawn
anew each round: metric Gaussian variational inference (Knollmueller & Ensslin 2019, arXiv:1901.11033), but
with the mean of the metric, as the best normal law has the mean curvature of E (Opper & Archambeau 2009,
Neural Comput. 21, 786). M(m) alone knows of no star that the dust at m hides: that law is too wide, and m
flees from the steep side. The luminosity function phi, the patchiness and the disc are found along with m.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import wraps

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize

from bayesdust.arrays import Array
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.dynamics.dust_posterior import SPREAD, DustPosterior, Parameters, Seen, Stars
from bayesdust.dynamics.dust_whitening import Whitened
from bayesdust.dynamics.efficiency import (
    DustMap,
    check_magnitudes,
    faintest_at,
    modulus,
    shares_in_front,
)
from bayesdust.dynamics.halved_walk import HalvedWalk, Scatter
from bayesdust.dynamics.luminosity import Luminosity
from bayesdust.dynamics.sky_parts import Sky
from bayesdust.dynamics.tracer_counts import Nodes, Region, disc_features, first_disc, way_weights
from bayesdust.errors import BayesdustError

Floats = NDArray[np.float64]
type Rounds = Sequence[tuple[int, int]]

FEWEST = 200  # stars: fewer do not tell a luminosity function
STARS_A_PART = 25  # of the sky
STARS_TO_END = 200  # a part: that many tell where the luminosity function ends
# kpc; from the last on each is farther by `FAR` at most, to the far end of the stars' ball
KNOTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2, 2.6, 3.0, 3.5)
FAR = 1.2  # times: one star at hundreds of kpc adds some steps, not hundreds
STRENGTH, HEIGHT = 0.5, 0.15  # mag/kpc and kpc, of the layer that is the prior's median
# Steps of L-BFGS towards the maximum, each time in coordinates of its own; at the maximum itself the walk
# takes all that the patches ought to have
FIRST = (10, 10)
# Of (1): how many pairs, and steps. With other pairs the mean of u is elsewhere by 0.3 of its sd, with two in
# the last round by 0.4 (6,000 stars)
ROUNDS = ((2, 10), (2, 10), (8, 20))
DRAWS = 64
IMPROBABLE = (
    "No dust makes the magnitudes probable: are they of these stars, and the places in kpc?"
)


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
    rounds: Rounds = ROUNDS,
    draws: int = DRAWS,
    seed: int = 0,
) -> DustMap:
    """The dust in front of all stars of a `region` at `x` [kpc] with apparent `magnitude` down to `limit`.

    A sample that also ends at m - mu = `absolute_limit`, as one of `catalogs.cuts.giants`, needs it: without,
    stars that dust has taken beyond it would pass for stars that never were.

    All stars of the region that the limits let through must be there, or a random part: a hole in the
    footprint, or a cut that depends on the place, passes for dust. Without `counts` the magnitudes alone
    tell, as those of any stars.

    The prior of a step's extinction is (2) of `dust_posterior.py`, its ln of sd `SPREAD` about that of a
    layer exp(-|z|/h). With no `rounds` of (1) the normal law stays on the way to the maximum. The luminosity
    function, the patchiness and the smooth disc are the same in all `draws`.

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
    posterior = DustPosterior(
        luminosity=Luminosity(float(np.quantile(looks, 0.001)), _faintest(sky, cell, looks)),
        layer=jnp.asarray(_layer(_heights(sky, cell, offsets, distance, knots)) * np.diff(knots)),
        walk=HalvedWalk(sky.levels, SPREAD),
        counts=counts,
    )
    stars = Stars(
        cell=jnp.asarray(cell),
        looks=jnp.asarray(looks),
        faintest=jnp.asarray(faintest_at(distance, limit, absolute_limit)),
        shares=jnp.asarray(shares_in_front(distance, knots)),
        ways=jnp.asarray(way_weights(distance)),
        disc=jnp.asarray(disc_features(x, region.sun)),
    )
    rng = np.random.default_rng(np.random.SeedSequence([seed, *b"dust"]))
    start = posterior.start(first_disc(nodes, len(x)))
    try:
        p, scatter = _normal_law(posterior, start, (stars, nodes), rounds, rng, on_progress)
    except np.linalg.LinAlgError as error:  # of a metric that is not finite
        raise BayesdustError(IMPROBABLE) from error
    walk, u = posterior.walk, posterior.walk.fields(p.deltas)
    return DustMap(
        sky=sky,
        knots=knots,
        draws=np.array([posterior.steps(u + walk.draw(scatter, rng)) for _ in range(draws)]),
        luminosity=posterior.luminosity,
        ln_phi=np.asarray(p.ln_phi),
        patchiness=float(p.patchiness),
        limit=limit,
        absolute_limit=absolute_limit,
    )


def _normal_law(
    posterior: DustPosterior,
    start: Parameters,
    seen: Seen,
    rounds: Rounds,
    rng: np.random.Generator,
    on_progress: OnProgress,
) -> tuple[Parameters, Scatter]:
    """Mean of the normal law (1), and its scatter about it."""
    total = sum(FIRST) + len(FIRST) + sum(2 * pairs * (steps + 1) for pairs, steps in rounds)
    done = 0  # passes over the stars
    zero, shaped = ravel_pytree(jax.tree.map(jnp.zeros_like, start))

    @jax.value_and_grad
    def at(xi: Array, x: Array, chart: Whitened, seen: Seen) -> Array:
        return posterior.energy(chart(shaped(xi)), x, seen)

    @jax.jit
    def slope(xi: Array, chart: Whitened, around: Array, seen: Seen) -> tuple[Array, Array]:
        # the slope of each x by itself: that of their mean would keep what all of them passed through
        value, gradient = jax.lax.map(lambda x: at(xi, x, chart, seen), around)
        return jnp.mean(value), jnp.mean(gradient, axis=0)

    def counted(xi: Floats, chart: Whitened, around: Array) -> tuple[float, Floats]:
        nonlocal done
        done += len(around)
        on_progress(min(done, total), total, "dust")
        value, gradient = slope(xi, chart, around, seen)
        return float(value), np.asarray(gradient)

    def descended(chart: Whitened, around: Array, steps: int) -> Parameters:
        """Where <E> is lowest, or so many steps of L-BFGS towards it."""
        found = minimize(
            counted,
            zero,
            args=(chart, around),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "maxcor": steps},
        )
        if not np.isfinite(found.fun):
            raise BayesdustError(IMPROBABLE)
        return chart(shaped(jnp.asarray(found.x)))

    p, around = start, jnp.zeros((1, *posterior.shape))
    for steps in FIRST:
        p = descended(Whitened.about(p, around, posterior, seen), around, steps)
    for pairs, steps in rounds:
        chart = Whitened.about(p, around, posterior, seen)
        x = jnp.stack([posterior.walk.draw(chart.scatter, rng) for _ in range(pairs)])
        around = jnp.concatenate([x, -x])
        p = descended(chart, around, steps)
    on_progress(total, total, "dust")
    return p, posterior.walk.scatter(posterior.curvature(p, around, seen))


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
