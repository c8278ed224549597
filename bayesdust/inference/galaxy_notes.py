"""What the draws of a Milky Way say of themselves, in sentences: baryons, degeneracy, oscillations."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.dynamics.modes import Enveloped, Modes
from bayesdust.inference.galaxy_data import HEIGHTS, SurveyData

Draws = Mapping[str, np.ndarray]  # (n, ...) by name

OF_BARYONS = "rho_baryons_sun_msun_pc3", "sigma_baryons_1.1kpc"
TIED = 200  # places at most, at which force and dust are compared
STEP = 0.25  # kpc to either side, of the map's slopes: far below the size of the test functions
# sds of a rise of the density: the largest of 190 correlated ones exceeds it in under 1 % of right posteriors
RISE = 3.0


def notes(
    data: SurveyData, draws: Draws, answer: np.ndarray | None, field: np.ndarray | None
) -> tuple[str, ...]:
    """Sentences for the user.

    `answer` (n, d) is what the dust map's draws answer for, `field` (n, m, 3) [1/kpc] the gradient of what a
    model's own field adds to ln epsilon, at the points or the first `TIED` of them; None where there is none.
    """
    tied = _tied(data, draws, answer, field)
    return (*_baryons(draws), *tied, *_rising(draws), *_below_zero(draws))


def _baryons(draws: Draws) -> Iterator[str]:
    """What the baryons add to the error of the local dark matter: the share that goes linearly with them."""
    dark = draws.get("rho_dm_sun_msun_pc3", np.zeros(1))
    under = [draws[name] for name in OF_BARYONS if name in draws]
    if np.std(dark) > 0 and under:
        design = np.column_stack([np.ones_like(dark), *under])
        left = dark - design @ np.linalg.lstsq(design, dark)[0]
        share = max(0.0, 1 - np.var(left) / np.var(dark))
        yield (
            f"What the baryons are uncertain by is {share:.0%} of the variance of the dark matter in the "
            "plane at the Sun."
        )


def _tied(
    data: SurveyData, draws: Draws, answer: np.ndarray | None, field: np.ndarray | None
) -> Iterator[str]:
    """How far the stars cannot tell a force from a slope of ln epsilon."""
    if "acceleration" not in draws or (answer is None and field is None):
        return
    a = draws["acceleration"][:, :TIED]
    r = correlation(a, field, answer, None if answer is None else map_slopes(data))
    strongest = np.median(abs(r), axis=0)
    yield (
        "Force and gradient of ln epsilon are correlated in the posterior: along x, y and z by "
        f"{strongest[0]:.2f}, {strongest[1]:.2f} and {strongest[2]:.2f} (median, without sign)."
    )


def correlation(
    a: Float[np.ndarray, "n m 3"],
    field: Float[np.ndarray, "n m 3"] | None,
    answer: Float[np.ndarray, "n d"] | None = None,
    by_map: Float[np.ndarray, "d m 3"] | None = None,
) -> Float[np.ndarray, "m 3"]:
    """Correlation of draws a with grad ln epsilon, which is the model's `field` and the dust map's together.

    The map's gradient is its mean plus sum_d w_d (`by_map`_d - mean) / sqrt(d), w a priori N(0, 1), and the
    sums are told by their covariance that w is not known: `answer`, the mean of w given a draw, is all of w
    that a is correlated with.
    """
    a = a - a.mean(axis=0)
    cov, var = np.zeros(a.shape[1:]), np.zeros(a.shape[1:])
    if field is not None:
        field = field - field.mean(axis=0)
        cov, var = np.mean(a * field, axis=0), np.mean(field**2, axis=0)
    if answer is not None and by_map is not None:
        off = (by_map - by_map.mean(axis=0)) / np.sqrt(len(by_map))
        told = np.einsum("nmi,nd->dmi", a, answer - answer.mean(axis=0)) / len(a)
        cov, var = cov + np.sum(told * off, axis=0), var + np.sum(off**2, axis=0)
    return cov / np.maximum(np.sqrt(var) * a.std(axis=0), 1e-30)


def map_slopes(data: SurveyData) -> Float[np.ndarray, "d m 3"]:
    """Gradient [1/kpc] of ln epsilon of every draw of the dust map, over `STEP` to both sides of points."""
    assert data.dust is not None
    offsets = data.points[:TIED] - data.sun
    found = []
    for step in STEP * np.eye(3):
        ahead, behind = (np.log(data.dust.efficiencies(offsets + s)) for s in (step, -step))
        found.append((ahead - behind) / (2 * STEP))
    return np.stack(found, axis=-1)


def _rising(draws: Draws) -> Iterator[str]:
    """Whether the density rises away from the plane, which no galaxy's does: the sign of oscillations."""
    if "rho_z" not in draws:
        return
    size, low, high = largest_rise(draws["rho_z"])
    if size > RISE:
        yield (
            f"The density above the plane at the Sun rises from {HEIGHTS[low]:.1f} to {HEIGHTS[high]:.1f} "
            f"kpc by {size:.1f} of its sds: the potential oscillates, or the stars are not in equilibrium."
        )


def largest_rise(rho: Float[np.ndarray, "n h"]) -> tuple[float, int, int]:
    """The rise between any two heights that is largest in its sds, and the indices of the two."""
    mean, cov = rho.mean(axis=0), np.cov(rho.T)
    variance = np.add.outer(np.diag(cov), np.diag(cov)) - 2 * cov
    rise = (mean - mean[:, None]) / np.sqrt(np.maximum(variance, 1e-30))
    rise[np.tril_indices(len(mean))] = -np.inf
    low, high = np.unravel_index(np.argmax(rise), rise.shape)
    return float(rise[low, high]), int(low), int(high)


def _below_zero(draws: Draws) -> Iterator[str]:
    """At how many points nearly all draws have less than no mass."""
    if "rho" not in draws or not draws["rho"].shape[-1]:
        return
    below = np.quantile(draws["rho"], 0.975, axis=0) < 0
    if below.any():
        yield (
            f"At {below.sum()} of {below.size} points 97.5 % of the draws have a density below zero: the "
            "potential oscillates there."
        )


def field_slopes(
    dust_modes: Modes | Enveloped, points: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m q 3"]:
    """Gradients [1/kpc] of the dust's modes at the first `TIED` points."""
    return np.asarray(jax.vmap(dust_modes.gradients)(jnp.asarray(points[:TIED])))
