"""The collisionless Boltzmann equation without a density: sums over stars that have to vanish.

A star's value of a smooth function g(x, v) changes along its orbit at the rate

    dg/dt = v . grad_x g + a(x) . grad_v g,                                                      (1)

and in equilibrium its mean over all stars is zero for every g that vanishes at the survey's edge: the
Boltzmann equation times g, integrated by parts. Of stars seen with an efficiency epsilon(x), either

    sum_i epsilon(x_i)^-1 dg/dt_i = 0                                                            (2)

or, with epsilon g for g (Putney+2024, arXiv:2412.14236, in its strong form),

    sum_i [ dg/dt_i + g_i v_i . grad ln epsilon(x_i) ] = 0.                                      (3)

No flow is needed, every star counts once, and the scatter of the terms is the covariance of the sums.
Both are linear in the acceleration and (3) in grad ln epsilon too: with a and ln epsilon written as sums
over basis functions, one pass over the stars (`moments`) leaves matrices whose size does not depend on
how many there are, and a likelihood costs two products with them.

Errors of the stars blur the sums. With normal errors of covariance Sigma the mean of a star's term t is
that of the true star plus 1/2 tr(Sigma t'') to second order, t'' its second derivatives; a copy of the
star with its errors put on once more shows the same again. So

    t(w) - 1/2 sum_j [t(w + e_j) + t(w - e_j) - 2 t(w)] / J                                      (4)

has the mean of the true star's, but for terms of fourth order (the first step of simulation-extrapolation,
Cook & Stefanski 1994, J. Am. Stat. Assoc. 89, 1314). A star is therefore a set of weighted copies
(`Sample`): one where there are no errors, two more for every pair of draws e_j.

Units: kpc, km/s, (km/s)^2/kpc.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from bayesdust.arrays import Array
from bayesdust.errors import BayesdustError
from bayesdust.flows.frames import CylindricalVelocity

CHUNK = 2000  # places at once
#: a function of one place x (3,), for each of p basis functions a vector (p, 3)
Basis = Callable[[Float[Array, "3"]], Float[Array, "p 3"]]


class Bumps(eqx.Module):
    """Test functions g = B_m(x) h_l(v): bumps in space times powers of the velocity.

    B = (1 - q)^3, q = |(x - `centres`)/`widths`|^2, within q < 1 and zero outside: twice continuously
    differentiable. h_l are the nine first and second powers of u = (v_R, v_phi - `v_phi`, v_z)/`v_scale`
    [km/s]: what the stars do together is taken off, so that it adds no noise. Times exp(-|w|^2/2), w the
    same velocities over `reach` [km/s], if that is not infinite: bare powers are largest for the hottest
    stars, which tell the least. `v_phi` is positive from x to y, and so about -220 for the Milky Way in axes
    where the Sun is at negative x. `centres`, `widths` (m, 3) [kpc].
    """

    centres: Float[np.ndarray, "m 3"]
    widths: Float[np.ndarray, "m 3"]
    v_phi: float
    v_scale: float = 50.0
    reach: float = np.inf

    @classmethod
    def inside(
        cls,
        centre: Float[np.ndarray, "3"],
        radius: float,
        v_phi: float,
        width: float = 1.3,
        layers: tuple[tuple[float, float], ...] = ((0.25, 0.45), (0.7, 0.7), (1.6, 1.2)),
        reach: float = np.inf,
    ) -> "Bumps":
        """Hexagons of bumps of `width` [kpc] in layers (height, width) on both sides of the plane.

        All lie wholly inside the ball, and below and above its `centre`'s height alike.
        Raises BayesdustError if not one fits.
        """
        places, widths = [], []
        step, count = 1.08 * width, int(radius / width) + 2
        i, j = (a.ravel() for a in np.mgrid[-count : count + 1, -count : count + 1])
        plane = step * np.column_stack([i + 0.5 * (j % 2), np.sqrt(0.75) * j])
        for height, thickness in (*layers, *((-h, t) for h, t in layers)):
            size = np.array([width, width, thickness])
            for x, y in plane:
                offset = np.array([x, y, height])
                if _farthest(offset, size) < radius:
                    places.append(offset + centre)
                    widths.append(size)
        if not places:
            raise BayesdustError(
                f"A ball of {radius:g} kpc holds no bump of {width:g} kpc: give a smaller bump, or a larger "
                "radius."
            )
        return cls(np.array(places), np.array(widths), v_phi, reach=reach)

    @property
    def number(self) -> int:
        """How many test functions there are."""
        return 9 * len(self.centres)

    def only(self, which: Bool[np.ndarray, " m"]) -> "Bumps":
        """Some of the bumps alone."""
        return Bumps(self.centres[which], self.widths[which], self.v_phi, self.v_scale, self.reach)

    def windows(self, x: Float[Array, "3"]) -> Float[Array, " m"]:
        """The bumps in place alone, one at their centres and zero from their edges on."""
        q = jnp.sum(((x - self.centres) / self.widths) ** 2, axis=1)
        return jnp.maximum(1 - q, 0.0) ** 3

    def values(self, x: Float[Array, "3"], v: Float[Array, "3"]) -> Float[Array, " k"]:
        """g of one star."""
        bumps = self.windows(x)
        cylindrical = CylindricalVelocity().transform(v, x)
        u = (cylindrical - jnp.array([0.0, self.v_phi, 0.0])) / self.v_scale
        squares = jnp.stack([u[i] * u[j] for i in range(3) for j in range(i, 3)])
        ratio = self.v_scale / self.reach
        powers = jnp.concatenate([u, squares]) * jnp.exp(-0.5 * ratio**2 * jnp.sum(u**2))
        return (bumps[:, None] * powers).ravel()


class Sample(eqx.Module):
    """Stars as weighted copies: places `x` [kpc] and velocities `v` [km/s] (n, c, 3), `weights` (n, c).

    A star's term is the weighted sum over its c copies; its scatter is one star's.
    """

    x: Float[np.ndarray, "n c 3"]
    v: Float[np.ndarray, "n c 3"]
    weights: Float[np.ndarray, "n c"]

    @classmethod
    def of(
        cls,
        x: Float[np.ndarray, "n ... 3"],
        v: Float[np.ndarray, "n ... 3"],
        weights: Float[np.ndarray, "n ..."] | None = None,
    ) -> "Sample":
        """Stars as they are (n, 3), or copies (n, c, 3), all of weight one if not given.

        Raises BayesdustError where a number is not finite.
        """
        x, v = np.asarray(x, dtype=float), np.asarray(v, dtype=float)
        w = np.ones(x.shape[:-1]) if weights is None else np.asarray(weights, dtype=float)
        if not (np.isfinite(x).all() and np.isfinite(v).all() and np.isfinite(w).all()):
            raise BayesdustError("Positions, velocities and weights of the stars must be finite.")
        copies = 1 if x.ndim == 2 else x.shape[1]
        return cls(x.reshape(-1, copies, 3), v.reshape(-1, copies, 3), w.reshape(-1, copies))

    @property
    def n(self) -> int:
        """Number of stars."""
        return len(self.x)

    def split(self, parts: int) -> list["Sample"]:
        """The stars in `parts` of one size, by chance, but the same for the same stars."""
        order = np.random.default_rng(0).permutation(self.n)
        rows = np.array_split(order, parts)
        return [Sample(self.x[row], self.v[row], self.weights[row]) for row in rows]


class Moments(NamedTuple):
    """The sums: `constant` (k,) + `force` (k, p) a + `dust` (k, q) e, for coefficients a and e."""

    constant: Float[Array, " k"]
    force: Float[Array, "k p"]
    dust: Float[Array, "k q"]

    def sums(
        self, a: Float[Array, " p"], e: Float[Array, " q"] | None = None
    ) -> Float[Array, " k"]:
        """The left side of (2), or with e of (3)."""
        total = self.constant + self.force @ a
        return total if e is None else total + self.dust @ e


class Pilot(eqx.Module):
    """A solution near the truth: `acceleration` at x (3,), and `grad_ln_epsilon` where (3) is used."""

    acceleration: Callable[[Float[Array, "3"]], Float[Array, "3"]]
    grad_ln_epsilon: Callable[[Float[Array, "3"]], Float[Array, "3"]] | None = None

    def terms(self, tests: Bumps, x: Array, v: Array) -> Array:
        """A star's terms (k,) of (2) or (3), without its weight."""
        drift, kick = _rates(tests, x, v)
        term = drift + kick @ self.acceleration(x)
        if self.grad_ln_epsilon is None:
            return term
        return term + tests.values(x, v) * (self.grad_ln_epsilon(x) @ v)


def effective_stars(tests: Bumps, stars: Sample, chunk: int = CHUNK) -> Float[np.ndarray, " m"]:
    """How many stars of one weight would tell as much of each bump in place: (sum w B)^2 / sum (w B)^2."""

    def part(x: Array, v: Array, w: Array) -> tuple[Array, Array]:
        inside = jnp.einsum("nc,ncm->nm", w, jax.vmap(jax.vmap(tests.windows))(x))
        return jnp.sum(inside, axis=0), jnp.sum(inside**2, axis=0)

    total, square = map(np.asarray, in_chunks(part, [stars], chunk)[0])
    return total**2 / np.maximum(square, np.finfo(float).tiny)


def two_forces(acceleration: Callable[[Float[Array, "3"]], Float[Array, "3"]]) -> Basis:
    """The horizontal and the vertical part (2, 3) of an acceleration, as two functions of free size."""

    def parts(x: Array) -> Array:
        a = acceleration(x)
        horizontal = a * jnp.array([1.0, 1.0, 0.0])
        return jnp.stack([horizontal, a - horizontal])

    return parts


def moments(
    tests: Bumps, stars: Sample, force: Basis, dust: Basis | None = None, chunk: int = CHUNK
) -> Moments:
    """One pass over the stars; memory does not grow with their number. See `moments_of_parts`."""
    return moments_of_parts(tests, [stars], force, dust, chunk)[0]


def moments_of_parts(
    tests: Bumps,
    parts: Sequence[Sample],
    force: Basis,
    dust: Basis | None = None,
    chunk: int = CHUNK,
) -> list[Moments]:
    """The sums over each of some parts of the stars.

    `force` gives the accelerations of its basis functions, `dust` the gradients of those of ln epsilon;
    the stars' weights are 1/epsilon in (2) and one in (3).
    """

    def part(x: Array, v: Array, w: Array) -> Moments:
        x, v, w = x.reshape(-1, 3), v.reshape(-1, 3), w.ravel()
        drift, kick = jax.vmap(lambda x, v: _rates(tests, x, v))(x, v)
        kick = (w[:, None, None] * kick).transpose(1, 0, 2).reshape(tests.number, -1)
        pull = jnp.zeros((tests.number, 0))
        if dust is not None:
            g = w[:, None] * jax.vmap(tests.values)(x, v)
            pull = g.T @ jax.vmap(lambda x, v: dust(x) @ v)(x, v)
        basis = jax.vmap(force)(x).transpose(0, 2, 1).reshape(kick.shape[1], -1)
        return Moments(w @ drift, kick @ basis, pull)

    return in_chunks(part, parts, chunk)


def covariance(
    tests: Bumps, stars: Sample, pilot: Pilot, chunk: int = CHUNK
) -> Float[Array, "k k"]:
    """Covariance of the sums at a pilot solution. See `covariance_of_parts`."""
    return covariance_of_parts(tests, [stars], pilot, chunk)[0]


def covariance_of_parts(
    tests: Bumps, parts: Sequence[Sample], pilot: Pilot, chunk: int = CHUNK
) -> list[Float[Array, "k k"]]:
    """That of the sums over each of some parts of the stars, from the scatter of the stars' own terms.

    Terms of independent stars add in quadrature; what their mean is off zero, which a good pilot makes
    small, is taken off.
    """

    def squares(x: Array, v: Array, w: Array) -> tuple[Array, Array]:
        terms = _star_terms(tests, pilot, x, v, w)
        return jnp.sum(terms, axis=0), terms.T @ terms

    found = in_chunks(squares, parts, chunk)
    return [
        square - jnp.outer(total, total) / stars.n
        for stars, (total, square) in zip(parts, found, strict=True)
    ]


def reweighted(
    tests: Bumps,
    stars: Sample,
    pilot: Pilot,
    factors: Float[np.ndarray, "d n c"],
    chunk: int = CHUNK,
) -> Float[Array, "d k"]:
    """The pilot's sums for d sets of weights, the stars' own times `factors`: how they move with the dust.

    Their scatter over draws of the efficiency is a covariance to be added to that of the stars.
    """

    def sums(x: Array, v: Array, w: Array, factors: Array) -> Array:
        return jnp.einsum("ncd,nc,nck->dk", factors, w, _copy_terms(tests, pilot, x, v))

    by_star = np.ascontiguousarray(np.moveaxis(factors, 0, -1))
    return in_chunks(sums, [stars], chunk, by_star)[0]


def _star_terms(tests: Bumps, pilot: Pilot, x: Array, v: Array, w: Array) -> Array:
    """Terms (n, k) of stars whose copies are (n, c, 3)."""
    return jnp.einsum("nc,nck->nk", w, _copy_terms(tests, pilot, x, v))


def _copy_terms(tests: Bumps, pilot: Pilot, x: Array, v: Array) -> Array:
    """Terms (n, c, k) of every copy, without its weight."""
    return jax.vmap(jax.vmap(lambda x, v: pilot.terms(tests, x, v)))(x, v)


def _rates(tests: Bumps, x: Array, v: Array) -> tuple[Array, Array]:
    """v . grad_x g (k,) and grad_v g (k, 3) of one star."""
    drift = jax.jvp(lambda x: tests.values(x, v), (x,), (v,))[1]
    return drift, jax.jacfwd(lambda v: tests.values(x, v))(v)


def in_chunks(
    part: Callable, parts: Sequence[Sample], chunk: int, *more: Float[np.ndarray, "n ..."]
) -> list[Any]:
    """The sums of `part` over the stars of every Sample, some at a time, compiled once.

    `more` are arrays by star of all of them, which `part` is given after x, v and the weights. The last
    chunk is filled up with stars of weight zero.
    """
    compiled, found, before = jax.jit(part), [], 0
    for stars in parts:
        own = [a[before : before + stars.n] for a in more]
        found.append(_summed(compiled, [stars.x, stars.v, stars.weights, *own], chunk))
        before += stars.n
    return found


def _summed(compiled: Callable, arrays: list[np.ndarray], chunk: int) -> Any:
    total, (n, copies) = None, arrays[2].shape
    chunk = max(1, chunk // copies)
    for first in range(0, n, chunk):
        some = [a[first : first + chunk] for a in arrays]
        missing = chunk - len(some[0])
        some = [np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) for a in some]
        some[2][chunk - missing :] = 0.0
        new = compiled(*some)
        total = new if total is None else jax.tree.map(jnp.add, total, new)
    assert total is not None
    return total


def _farthest(offset: np.ndarray, size: np.ndarray) -> float:
    """Distance of the farthest point of an ellipsoid about `offset` from the origin, 0.2 % added."""
    angle = np.linspace(0, np.pi, 33)
    z, ring = np.cos(angle), np.sin(angle)
    around = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    u = np.stack([*np.broadcast_arrays(ring[:, None] * np.cos(around), ring[:, None] * np.sin(around),
                                       z[:, None])], axis=-1)  # fmt: skip
    return 1.002 * float(np.linalg.norm(offset + u * size, axis=-1).max())
