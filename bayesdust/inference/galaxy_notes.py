"""What the draws of a Milky Way say of themselves, in sentences: baryons, degeneracy, oscillations."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from bayesdust.dynamics.modes import Enveloped, Modes
from bayesdust.inference.galaxy_data import HEIGHTS, SurveyData

Draws = Mapping[str, np.ndarray]  # (n, ...) by name

OF_BARYONS = "rho_baryons_sun_msun_pc3", "sigma_baryons_1.1kpc"
HELD = 0.01  # of |a|: a force along the rotation that is known better than that before the stars
OPEN = 0.05  # 1/kpc, of the sd of grad ln epsilon: where it is less there is no dust to be told from a force
TIED = 200  # places at most, at which force and dust are compared
STEP = 0.25  # kpc to either side, of the map's slopes: far below the size of the test functions
# sds of a rise of the density: the largest of 190 correlated ones exceeds it in under 1 % of right posteriors
RISE = 3.0


def notes(
    data: SurveyData,
    draws: Draws,
    before: Draws,
    answer: np.ndarray | None,
    field: np.ndarray | None,
) -> tuple[str, ...]:
    """Sentences for the user, from draws of the posterior and, `before`, of the prior.

    `answer` (n, d) is what the dust map's draws answer for, `field` (n, m, 3) [1/kpc] the gradient of what a
    model's own field adds to ln epsilon, at the points or the first `TIED` of them; None where there is none.
    """
    tied = _tied(data, draws, answer, field)
    held = _axisymmetric(data, before)
    return (*_baryons(draws), *held, *tied, *_rising(draws), *_below_zero(draws))


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


def _axisymmetric(data: SurveyData, before: Draws) -> Iterator[str]:
    """Whether the prior leaves the stars nothing to say of the force along the rotation."""
    if "acceleration" not in before or not len(data.points):
        return
    a = before["acceleration"]
    x, y = data.points[:, 0], data.points[:, 1]
    along = np.stack([-y, x, 0 * x], axis=1) / np.hypot(x, y)[:, None]
    sd = float(np.median(np.std(np.einsum("nmi,mi->nm", a, along), axis=0)))
    if sd < 0.5:
        yield "The model is axisymmetric: of bar and arms the fit knows nothing."
    elif sd < HELD * np.median(np.linalg.norm(np.median(a, axis=0), axis=1)):
        yield (
            f"The prior holds the force along the rotation at 0 +- {sd:.0f} (km/s)^2/kpc, close to "
            "axisymmetry: of bar and arms the fit knows nothing."
        )


def _tied(
    data: SurveyData, draws: Draws, answer: np.ndarray | None, field: np.ndarray | None
) -> Iterator[str]:
    """How far the stars cannot tell a force from a slope of ln epsilon."""
    if "acceleration" not in draws or (answer is None and field is None):
        return
    a = draws["acceleration"][:, :TIED]
    r, sd = correlation(a, field, answer, None if answer is None else map_slopes(data))
    open_ = np.linalg.norm(sd, axis=1) > OPEN
    if not open_.any():
        return
    x, y, z = (f"{r:.2f}" for r in np.max(abs(r[open_]), axis=0))
    yield (
        "Force and gradient of ln epsilon are correlated in the posterior, along x, y and z by up to "
        f"{x}, {y} and {z} at the {open_.sum()} points where the gradient is uncertain by {OPEN:g}/kpc or "
        f"more; {len(a):,} independent draws without correlation would show "
        f"{_noise(len(a), open_.sum()):.2f}."
    )


def _noise(draws: int, places: int) -> float:
    """The median of the largest, without sign, of `places` correlations of so many independent draws."""
    return float(norm.isf((1 - 0.5 ** (1 / places)) / 2) / np.sqrt(draws))


def correlation(
    a: Float[np.ndarray, "n m 3"],
    field: Float[np.ndarray, "n m 3"] | None,
    answer: Float[np.ndarray, "n d"] | None = None,
    by_map: Float[np.ndarray, "d m 3"] | None = None,
) -> tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "m 3"]]:
    """Correlation of draws a with grad ln epsilon, which is the model's `field` and the dust map's together,
    and the sd of the latter [1/kpc].

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
    return cov / np.maximum(np.sqrt(var) * a.std(axis=0), 1e-30), np.sqrt(var)


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
            "potential oscillates there, or they lie outside the survey."
        )


def field_slopes(
    dust_modes: Modes | Enveloped, points: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m q 3"]:
    """Gradients [1/kpc] of the dust's modes at the first `TIED` points."""
    return np.asarray(jax.vmap(dust_modes.gradients)(jnp.asarray(points[:TIED])))
