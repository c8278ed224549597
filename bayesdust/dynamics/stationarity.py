"""Is the sample in equilibrium? What the Boltzmann equation leaves, place by place and half by half.

With an acceleration a(x) the sums of `weak_form` vanish if the stars are stationary in it, and those of one
bump look at one place. The sums of a bump times (v_R, v_phi, v_z) are the rates at which the bump's momentum
changes: over the number of its stars they are accelerations that nothing balances, zero in equilibrium. The
nine sums of a bump together have a chi2 of nine degrees of freedom.

Halves of the survey, north and south, ahead of the Sun and behind, are bumps on either side; each half says
how large the horizontal and the vertical force have to be, as parts of a. In a stationary galaxy that is
symmetric about its axis and plane both halves say the same. Stars near the border count on both sides, which
the errors of the differences know.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.dynamics.weak_form import Bumps, Pilot, Sample, covariance, moments, two_forces
from bayesdust.errors import BayesdustError

FEWEST = 30  # stars of a bump
_EACH = 9  # sums of a bump
_CHUNK = 4000  # stars

Force = Callable[[Float[Array, "3"]], Float[Array, "3"]]


class Residual(NamedTuple):
    """What is left of the equation within each of m bumps at `centres` [kpc].

    `unbalanced` and `error` [(km/s)^2/kpc] along (R, phi, z), and `chi2` of the bump's nine sums.
    """

    centres: Float[np.ndarray, "m 3"]
    unbalanced: Float[np.ndarray, "m 3"]
    error: Float[np.ndarray, "m 3"]
    chi2: Float[np.ndarray, " m"]


class Split(NamedTuple):
    """Sizes of the horizontal and the vertical force (2,) that two halves ask for, as parts of the one given.

    `differences` of the first from the second, with their `error`; `chi2` of both, of two degrees of freedom.
    """

    first: Float[np.ndarray, " 2"]
    second: Float[np.ndarray, " 2"]
    difference: Float[np.ndarray, " 2"]
    error: Float[np.ndarray, " 2"]
    chi2: float


def residuals(
    tests: Bumps,
    stars: Sample,
    acceleration: Force,
    extra: Float[np.ndarray, "k k"] | None = None,
) -> Residual:
    """What the equation leaves in each bump, with `acceleration` at x (3,) [(km/s)^2/kpc].

    `extra` is added to the covariance of the sums: what the weights are uncertain by. Raises
    BayesdustError for a bump with fewer than 30 stars.
    """
    counts = _counts(tests, stars)
    found = moments(tests, stars, lambda x: acceleration(x)[None])
    sums = np.asarray(found.sums(jnp.ones(1))).reshape(-1, _EACH)
    C = _covariance(tests, stars, acceleration, extra)
    blocks = C.reshape(len(sums), _EACH, len(sums), _EACH)
    blocks = np.stack([blocks[i, :, i] for i in range(len(sums))])
    scale = tests.v_scale / counts[:, None]
    return Residual(
        centres=tests.centres,
        unbalanced=scale * sums[:, :3],
        error=scale * np.sqrt(np.einsum("mii->mi", blocks)[:, :3]),
        chi2=np.einsum("mi,mi->m", sums, np.linalg.solve(blocks, sums[..., None])[..., 0]),
    )


def halves(tests: Bumps, sun: Float[np.ndarray, " 3"]) -> dict[str, Float[np.ndarray, " m"]]:
    """On which side each bump is: 1 north of the plane (ahead of the Sun), -1 south (behind), 0 across."""
    x, y, z = tests.centres.T
    ahead = (x * sun[1] - y * sun[0]) / np.hypot(sun[0], sun[1]) * -np.sign(tests.v_phi)
    return {"north": np.sign(np.round(z, 6)), "ahead": np.sign(np.round(ahead, 6))}


def splits(
    tests: Bumps,
    stars: Sample,
    acceleration: Force,
    sides: Mapping[str, Float[np.ndarray, " m"]],
    extra: Float[np.ndarray, "k k"] | None = None,
) -> dict[str, Split]:
    """The forces that the bumps on either side ask for, sides as of `halves`; the rest as `residuals`.

    Raises BayesdustError where a side has no bump.
    """
    found = moments(tests, stars, two_forces(acceleration))
    C = _covariance(tests, stars, acceleration, extra)
    constant, force = np.asarray(found.constant), np.asarray(found.force)
    return {name: _split(name, side, constant, force, C) for name, side in sides.items()}


def _split(
    name: str, side: np.ndarray, constant: np.ndarray, force: np.ndarray, C: np.ndarray
) -> Split:
    if not ((side > 0).any() and (side < 0).any()):
        raise BayesdustError(f"One side of the split {name!r} has no bump: take smaller ones.")
    sizes, pulls = [], []
    for rows in (np.repeat(side > 0, _EACH), np.repeat(side < 0, _EACH)):
        turned = np.linalg.solve(C[np.ix_(rows, rows)], force[rows]).T
        # the change of the sizes with each of all the sums, so that both halves share one covariance
        pull = np.zeros((2, len(rows)))
        pull[:, rows] = -np.linalg.solve(turned @ force[rows], turned)
        pulls.append(pull)
        sizes.append(pull @ constant)
    across = pulls[0] - pulls[1]
    scatter, difference = across @ C @ across.T, sizes[0] - sizes[1]
    return Split(
        first=sizes[0],
        second=sizes[1],
        difference=difference,
        error=np.sqrt(np.diag(scatter)),
        chi2=float(difference @ np.linalg.solve(scatter, difference)),
    )


def _covariance(
    tests: Bumps, stars: Sample, acceleration: Force, extra: np.ndarray | None
) -> Float[np.ndarray, "k k"]:
    C = np.asarray(covariance(tests, stars, Pilot(acceleration)))
    return C if extra is None else C + extra


def _counts(tests: Bumps, stars: Sample) -> Float[np.ndarray, " m"]:
    """Weighted number of stars in each bump, by its own weight; BayesdustError where they are few."""
    windows = jax.jit(jax.vmap(tests.windows))
    x, w = stars.x.reshape(-1, 3), stars.weights.ravel()
    weighted, plain = np.zeros((2, len(tests.centres)))
    for first in range(0, len(x), _CHUNK):
        part = slice(first, first + _CHUNK)
        inside = np.asarray(windows(x[part]))
        weighted += w[part] @ inside
        plain += (inside > 0).sum(axis=0) / stars.x.shape[1]
    if plain.min() < FEWEST:
        place = ", ".join(f"{value:.3g}" for value in tests.centres[int(np.argmin(plain))])
        raise BayesdustError(
            f"There are {plain.min():.0f} stars about ({place}) kpc, fewer than {FEWEST}: take larger bumps."
        )
    return weighted
