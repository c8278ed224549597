"""A profile of dark matter from the draws of a fit to stars: what the stars said, without its prior.

Draws of the density in n shells are strongly correlated, and they hold the prior of their own model. Taking
both groups as normal, N(m, C) after and N(m_0, C_0) before, the directions w with C w = l C_0 w are
independent in both. In the unit in which the prior's variance is one the posterior's is l, and as inverse
variances add, the stars alone said

    w.rho = (w.m - l w.m_0) / (1 - l)    with the variance    l / (1 - l).                        (1)

Kept are the directions in which the stars weigh more than the prior, l < 1/2 or so: the rest is prior, or
too little known to be divided. Both matrices first get a hundredth of the mean of C's diagonal, so that what
hardly varies in either (a smooth model has a few numbers, not n) counts as untold rather than as exact.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from bayesdust.catalogs.profile import Profile
from bayesdust.catalogs.tables import digest
from bayesdust.errors import BayesdustError
from bayesdust.gate import verdict
from bayesdust.influence import MOSTLY_PRIOR
from bayesdust.summary import dataset, is_milky_way

if TYPE_CHECKING:
    from xarray import DataTree
else:  # heavy, and only its objects are needed here
    DataTree = Any

JITTER = 0.01  # of the mean variance
FEWEST_DRAWS = 400


def profile_of(tree: DataTree, source: str | Path = "<draws>") -> Profile:
    """The profile that the stars behind a fit of the Milky Way measured, from its draws of `rho_dm_r`.

    Logarithms are taken where no draw, of posterior or prior, is negative. Raises BayesdustError for
    draws of something else, without a prior, fewer than 400, or in which nothing is told by the stars.
    """
    after, before = (_draws(tree, group, source) for group in ("posterior", "prior"))
    logarithmic = bool((after > 0).all() and (before > 0).all())
    shown = after
    if logarithmic:
        after, before = np.log(after), np.log(before)
    weights, target = _without_prior(after, before)
    if not len(target):
        raise BayesdustError(
            f"{source}: its stars say less of the dark matter's profile than its prior does: there is "
            "nothing to fit."
        )
    r = dataset(tree, "posterior")["r"].values
    return Profile(
        r=np.asarray(r, dtype=float),
        rho=shown.mean(axis=0),
        error=shown.std(axis=0),
        weights=weights,
        target=target,
        source=str(source),
        sha256=digest(r, after, before),
        sun=np.array(json.loads(tree.attrs["sun"]), dtype=float),
        logarithmic=logarithmic,
        units={"r": "kpc", "rho_dm": "Msun/kpc3"},
        notes=tuple(_notes(tree, len(target), len(r))),
    )


def _draws(tree: DataTree, group: str, source: str | Path) -> Float[np.ndarray, "d n"]:
    if group not in tree.children or "rho_dm_r" not in tree[group] or not is_milky_way(tree):
        raise BayesdustError(
            f"{source}: holds no {group} draws of rho_dm_r, which a fit of mw_cbe_linear or mw_cbe_gnfw "
            "leaves: give its folder, or a table of a profile."
        )
    found = dataset(tree, group)["rho_dm_r"].transpose("chain", "draw", "r").values
    draws = np.asarray(found, dtype=float).reshape(-1, found.shape[-1])
    draws = draws[np.isfinite(draws).all(axis=1)]
    if len(draws) < FEWEST_DRAWS:
        raise BayesdustError(
            f"{source}: {len(draws)} {group} draws are too few for covariances: make {FEWEST_DRAWS} or more."
        )
    return draws


def _without_prior(
    after: Float[np.ndarray, "d n"], before: Float[np.ndarray, "e n"]
) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, " k"]]:
    """Directions and their values by (1), in the unit of their errors."""
    C, C_0 = np.cov(after.T), np.cov(before.T)
    jitter = JITTER * np.trace(C) / len(C) * np.eye(len(C))
    left, directions = eigh(C + jitter, C_0 + jitter)
    told = left < MOSTLY_PRIOR**2
    left, w = left[told], directions[:, told].T
    value = (w @ after.mean(axis=0) - left * (w @ before.mean(axis=0))) / (1 - left)
    error = np.sqrt(left / (1 - left))
    return w / error[:, None], value / error


def _notes(tree: DataTree, told: int, n: int) -> list[str]:
    model = str(tree.attrs.get("model", "a fit"))
    notes = [
        f"The profile is that of {model}: of its {n} shells the stars tell {told} independent number"
        f"{'s' * (told > 1)} better than that fit's prior, which is divided out (of the points drawn it is "
        "a part); the rest is left out."
    ]
    if "gamma" in dataset(tree, "posterior"):
        notes.append(
            f"{model} has a gNFW halo itself: this fit can only say what that one said, with other priors."
        )
    outcome = verdict(tree)
    if not outcome.passed:
        failed = ", ".join(check.name for check in outcome.failures)
        notes.append(
            f"The run behind this profile failed its diagnostics ({failed}): its profile is not to be used."
        )
    return notes
