"""Coordinates in which the posterior of the dust is about as wide in every direction.

Of thousands of parameters some are told by a handful of stars and others by all of them, which makes the way
of L-BFGS to where their energy is lowest a long one. It is half as long, or shorter, in coordinates xi with

    p = centre + R xi,        R R^T = M^-1,                                                       (1)

M about the metric: the walk's in the mean over its law, those of the disc and the luminosity function at the
centre, and nothing of what couples them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.dynamics.dust_posterior import (
    DustPosterior,
    Parameters,
    Seen,
    Stars,
    luminosity_energy,
)
from bayesdust.dynamics.halved_walk import Scatter
from bayesdust.dynamics.tracer_counts import disc_energy

_PATCHINESS = 0.1  # about what is known of it


class Whitened(NamedTuple):
    """(1): a `centre`, and the R of ln phi (m, m), of the disc (q, q) and of the walk."""

    centre: Parameters
    of_ln_phi: Array
    of_disc: Array
    scatter: Scatter

    @classmethod
    def about(
        cls, centre: Parameters, around: Array, posterior: DustPosterior, seen: Seen
    ) -> "Whitened":
        """The coordinates that are zero at `centre`, the walk's M its mean over u + x, x of `around`."""
        stars = seen[0]
        features = np.asarray(stars.disc)
        disc = features.T @ features + _hessian(disc_energy, centre.disc)
        return cls(
            centre,
            _root(_metric_of_ln_phi(centre, posterior, stars)),
            _root(disc),
            posterior.walk.scatter(posterior.curvature(centre, around, seen)),
        )

    def __call__(self, xi: Parameters) -> Parameters:
        """p."""
        return Parameters(
            self.centre.ln_phi + self.of_ln_phi @ xi.ln_phi,
            self.centre.ln_patchiness + _PATCHINESS * xi.ln_patchiness,
            self.centre.disc + self.of_disc @ xi.disc,
            self.centre.deltas + self.scatter.deltas(xi.deltas),
        )


def _metric_of_ln_phi(
    p: Parameters, posterior: DustPosterior, stars: Stars
) -> Float[np.ndarray, "m m"]:
    """That of a multinomial law of the stars' M, each at the knot next to it, without patches."""
    knots, steps = posterior.luminosity.knots, posterior.steps(posterior.walk.fields(p.deltas))
    magnitude = np.asarray(stars.looks - jnp.sum(stars.shares * steps[stars.cell], axis=1))
    number = np.bincount(
        np.searchsorted(0.5 * (knots[1:] + knots[:-1]), magnitude), minlength=len(knots)
    )
    multinomial = np.diag(number) - np.outer(number, number) / len(magnitude)
    return multinomial + _hessian(luminosity_energy, p.ln_phi)


def _hessian(energy: Callable[[Array], Array], at: Array) -> Float[np.ndarray, "m m"]:
    return np.asarray(jax.hessian(energy)(at))


def _root(metric: Float[np.ndarray, "m m"]) -> Array:
    """R."""
    return jnp.asarray(np.linalg.inv(np.linalg.cholesky(metric)).T)
