"""What an ensemble of flows says of the force, and of the dust, place by place, and how uncertain that is.

The Boltzmann equation is solved at each place for each member (`dynamics/boltzmann.py`). Flows of bootstrap
resamples, which `bayesdust train` and `flows.training.train` make but for the first, scatter as the catalogue
and the training do; what all of them smooth away alike shows in no scatter (`flow_likelihood.py` has a term
for it).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.dynamics.boltzmann import accelerations, accelerations_and_dust, tail_weights
from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import PhaseSpaceFlow, member
from bayesdust.flows.scores import ensemble_scores, velocities_at

VELOCITIES = 512  # at a place


class PointForces(NamedTuple):
    """`by_member` (m, n, p): the p numbers at n places of every member: a [(km/s)^2/kpc] and, where p is 6,
    grad ln epsilon [1/kpc]. NaN where a place has no answer: outside the flow's ball, or degenerate."""

    by_member: Float[np.ndarray, "m n p"]

    @property
    def values(self) -> Float[np.ndarray, "n p"]:
        """The mean over the members."""
        return self.by_member.mean(axis=0)

    @property
    def a(self) -> Float[np.ndarray, "n 3"]:
        """The acceleration."""
        return self.values[:, :3]

    @property
    def grad_ln_epsilon(self) -> Float[np.ndarray, "n 3"]:
        """The gradient of the efficiency's logarithm; empty where it was not asked for."""
        return self.values[:, 3:]

    @property
    def covariance(self) -> Float[np.ndarray, "n p p"]:
        """Of the numbers of each place: the scatter between the members.

        With fewer than two members NaN; with a few more than p it is known badly.
        """
        members = len(self.by_member)
        if members < 2:
            return np.full((*self.values.shape, self.values.shape[-1]), np.nan)
        off = self.by_member - self.values
        return np.einsum("mnp,mnq->npq", off, off) / (members - 1)

    @property
    def correlation(self) -> Float[np.ndarray, "n p p"]:
        """The same with its diagonal one: how far the force and the dust are told from each other."""
        C = self.covariance
        sd = np.sqrt(np.diagonal(C, axis1=1, axis2=2))
        return C / (sd[:, :, None] * sd[:, None, :])


def point_forces(
    flows: PhaseSpaceFlow,
    key: Array,
    x: Float[np.ndarray, "n 3"],
    number: int = VELOCITIES,
    dust: bool = False,
) -> PointForces:
    """The force at places x [kpc] by every member of `flows`, at `number` velocities drawn from the first.

    With `dust` the gradient of ln epsilon is solved for beside it. Raises BayesdustError for fewer velocities
    than numbers asked for.
    """
    return forces_at(flows, x, velocities_at(member(flows, 0), key, jnp.asarray(x), number), dust)


def forces_at(
    flows: PhaseSpaceFlow,
    x: Float[np.ndarray, "n 3"],
    v: Float[Array, "n K 3"],
    dust: bool = False,
) -> PointForces:
    """The same at velocities v [km/s] of the places."""
    at = jnp.repeat(jnp.asarray(x, jnp.float32), v.shape[1], axis=0), v.reshape(-1, 3)
    score_x, score_v = (s.reshape(-1, *v.shape) for s in ensemble_scores(flows, *at))
    v = jnp.asarray(v, float)
    weights, solver = jax.vmap(tail_weights)(v), accelerations_and_dust if dust else accelerations
    found = [
        solver(v, one.astype(float), other.astype(float), weights).values
        for one, other in zip(score_x, score_v, strict=True)
    ]
    return PointForces(np.array(found))


def all_answered(forces: PointForces) -> PointForces:
    """`forces`, or a BayesdustError where a place has no answer."""
    if not np.isfinite(forces.by_member).all():
        raise BayesdustError(
            "The flows have no acceleration at some of the places: take them farther inside the survey."
        )
    return forces
