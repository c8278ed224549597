"""The collisionless Boltzmann equation at a point: accelerations, and dust, from the scores of f.

In equilibrium (Lim+2023, arXiv:2305.13358; Green & Ting 2020, arXiv:2011.04673)

    v . grad_x ln f + a . grad_v ln f = 0        for every v at x,                               (1)

linear in the acceleration a(x): at each place it is solved by least squares over many velocities. Of
stars observed with an efficiency epsilon(x) that does not depend on v, f_obs = epsilon f, and then
(Putney+2024, arXiv:2412.14236)

    v . grad_x ln f_obs - v . grad ln epsilon + a . grad_v ln f_obs = 0,                         (2)

linear in the six numbers (a, grad ln epsilon). For a zero-mean Gaussian grad_v ln f is a matrix times
v, and (2) cannot tell them apart: such a place is reported as degenerate and its answer is NaN.
Streaming and mixed populations break the degeneracy; `correlation` says by how much.

The velocities are points at which f is asked, not data: any number can be drawn from a flow, so
`covariance`, which falls as 1/K, is the error of the sum over K velocities only. What f itself is
uncertain by shows in the scatter between members of an ensemble.

Units: kpc, km/s; scores in 1/kpc and s/km; accelerations in (km/s)^2/kpc. Everything is written for
one place; the plural functions are `vmap`ped over places.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from bayesdust.arrays import Array, Real
from bayesdust.errors import BayesdustError

RCOND = 1e-5  # a smallest singular value below this part of the largest is no information


class Solution(NamedTuple):
    """The least-squares answer at one place; for n places every field has n in front.

    p is 3, or 6 with the dust. `residual` is the root mean square of the left side of (1) or (2)
    over the weighted velocities [km/s/kpc], `relative_residual` the same as a part of its first
    term's; `covariance` is the residual's variance times the inverse of `normal`; `condition` is
    the ratio of the singular values of the design with its columns scaled to one length.
    Where `degenerate`, values and covariance are NaN and `correlation` shows which pairs are tied.
    """

    values: Float[Array, "*n p"]
    covariance: Float[Array, "*n p p"]
    correlation: Float[Array, "*n p p"]
    normal: Float[Array, "*n p p"]
    residual: Float[Array, "*n"]
    relative_residual: Float[Array, "*n"]
    condition: Float[Array, "*n"]
    degenerate: Bool[Array, "*n"]

    @property
    def a(self) -> Float[Array, "*n 3"]:
        """The acceleration [(km/s)^2/kpc]."""
        return self.values[..., :3]

    @property
    def grad_ln_epsilon(self) -> Float[Array, "*n 3"]:
        """The gradient of the efficiency's logarithm [1/kpc]; empty where it was not asked for."""
        return self.values[..., 3:]


def acceleration(
    v: Float[Array, "K 3"],
    score_x: Float[Array, "K 3"],
    score_v: Float[Array, "K 3"],
    weights: Float[Array, " K"] | None = None,
) -> Solution:
    """a at one place by (1), from velocities v [km/s] and the scores grad_x ln f, grad_v ln f there.

    `weights` (K,) >= 0 (default one; see `tail_weights`); a row of weight zero is left out whatever
    is in it. Raises BayesdustError for fewer than three velocities.
    """
    return _least_squares(score_v, jnp.sum(v * score_x, axis=-1), weights)


def acceleration_and_dust(
    v: Float[Array, "K 3"],
    score_x: Float[Array, "K 3"],
    score_v: Float[Array, "K 3"],
    weights: Float[Array, " K"] | None = None,
) -> Solution:
    """(a, grad ln epsilon) at one place by (2), from the scores of f_obs; as `acceleration`.

    Raises BayesdustError for fewer than six velocities.
    """
    design = jnp.concatenate([score_v, -v], axis=-1)
    return _least_squares(design, jnp.sum(v * score_x, axis=-1), weights)


def tail_weights(v: Float[Array, "K 3"], cut: Real = 2.5) -> Float[Array, " K"]:
    """Weights (K,) that fall as (cut/d)^2 for velocities at d > `cut` from the mean, one within.

    d is Mahalanobis' distance with the mean and covariance of v (K, 3) itself. A flow's scores are
    worst in the tails, where it saw few stars and where the terms of (1) are largest.
    """
    off = v - jnp.mean(v, axis=0)
    distance2 = jnp.sum(off * jnp.linalg.solve(off.T @ off / len(v), off.T).T, axis=-1)
    return jnp.minimum(1.0, cut**2 / jnp.maximum(distance2, 1e-30))


@jax.jit
def accelerations(
    v: Float[Array, "n K 3"],
    score_x: Float[Array, "n K 3"],
    score_v: Float[Array, "n K 3"],
    weights: Float[Array, "n K"] | None = None,
) -> Solution:
    """`acceleration` at n places."""
    return jax.vmap(acceleration)(v, score_x, score_v, weights)


@jax.jit
def accelerations_and_dust(
    v: Float[Array, "n K 3"],
    score_x: Float[Array, "n K 3"],
    score_v: Float[Array, "n K 3"],
    weights: Float[Array, "n K"] | None = None,
) -> Solution:
    """`acceleration_and_dust` at n places."""
    return jax.vmap(acceleration_and_dust)(v, score_x, score_v, weights)


def principal(
    normal: Float[Array, "p p"],
) -> tuple[Float[Array, " p"], Float[Array, " p"], Float[Array, "p p"]]:
    """Lengths of a design's columns, and of the design with columns of length one, from A^T A: squared
    singular values, the smallest first, and their axes (p, p), one a column."""
    length = jnp.sqrt(jnp.diagonal(normal))
    return length, *jnp.linalg.eigh(normal / jnp.outer(length, length))


def informative(squares: Float[Array, " p"]) -> Bool[Array, " p"]:
    """Which of `principal`'s directions the velocities tell, by RCOND."""
    return squares > RCOND**2 * squares[-1]


def _least_squares(
    design: Float[Array, "K p"], known: Float[Array, " K"], weights: Float[Array, " K"] | None
) -> Solution:
    """y (p,) that makes the weighted sum of (known + design y)^2 least.

    By the normal equations, in float64 whatever the flow's type, with columns of one length: they
    then lose condition^2 of 1e16, and RCOND^2 stays far above their rounding.
    """
    K, p = design.shape
    if K < p:
        raise BayesdustError(f"{K} velocities cannot give {p} numbers: ask at more of them")
    w = jnp.ones(K) if weights is None else jnp.asarray(weights, dtype=float)
    present = w > 0
    A = jnp.where(present[:, None], design, 0.0).astype(float)
    t = jnp.where(present, known, 0.0).astype(float)
    normal = A.T @ (w[:, None] * A)
    length, squares, axes = principal(normal)
    degenerate = ~informative(squares)[0]
    # at a degenerate place the floor lets the tied directions rule the correlation
    squares = jnp.maximum(squares, jnp.finfo(float).eps * squares[-1])
    inverse = (axes / squares) @ axes.T
    values = -(inverse @ (A.T @ (w * t) / length)) / length
    residual2 = jnp.sum(w * (t + A @ values) ** 2)
    # weights of mean one over the rows that are present: unequal ones are not variances
    count = jnp.sum(present)
    variance = residual2 * count / jnp.sum(w) / jnp.maximum(count - p, 1)
    spread = jnp.sqrt(jnp.diagonal(inverse))
    blank = jnp.where(degenerate, jnp.nan, 1.0)
    return Solution(
        values=blank * values,
        covariance=blank * variance * inverse / jnp.outer(length, length),
        correlation=inverse / jnp.outer(spread, spread),
        normal=normal,
        residual=jnp.sqrt(residual2 / jnp.sum(w)),
        relative_residual=jnp.sqrt(residual2 / jnp.sum(w * t**2)),
        condition=jnp.sqrt(squares[-1] / squares[0]),
        degenerate=degenerate,
    )
