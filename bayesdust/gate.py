"""The diagnostics gate: whether the draws of a posterior may be believed, and can be of these stars.

R-hat and effective sample sizes are the rank-normalised split-chain ones of Vehtari et al. (2021,
Bayesian Analysis 16, 667); E-BFMI is that of Betancourt (2016, arXiv:1604.00695); the Pareto k of
importance weights that of Vehtari et al. (2024, JMLR 25, 72).
"""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesdust.influence import dispersion
from bayesdust.literature import far_from_published
from bayesdust.predictive_checks import alarms, predictive_pvalues
from bayesdust.summary import (
    chain_draws,
    dataset,
    is_constant,
    is_independent,
    is_milky_way,
    is_profile,
    parameters,
    scalars,
    summarise,
)

if TYPE_CHECKING:
    from astropy.table import Table
    from xarray import DataTree
else:  # astropy and xarray are heavy, and only their objects are needed here
    DataTree = Table = Any

RHAT_MAX = 1.01
ESS_MIN = 400.0
EBFMI_MIN = 0.3
PARETO_K_MAX = 0.7
WEIGHED_ESS_MIN = 100.0  # of the draws from the prior that an exact posterior weighs
DISPERSION_FACTOR = 2.0  # between sigma_los at R_half and the published one
DISPERSION_MAX = 30.0  # km/s, where none is published
CHI2_SIGMAS = 5.0  # above the degrees of freedom, in the sd of chi2

# Name of the check of chi2, what it is of, and what it means where it is too large
_SUMS = (
    "fit",
    "The sums over the stars have",
    "the Boltzmann equation does not hold for these stars, this dust and this potential. The stars may "
    "be out of equilibrium or chosen by more than their place, or the dust or the potential may need "
    "more freedom.",
)
_PROFILE = (
    "profile",
    "The measured profile has",
    "no halo of this form has these densities. Their errors may be too small, or correlated (give "
    "covariances), or the densities may hold more than a halo.",
)


class Check(NamedTuple):
    """One line of the diagnostics gate."""

    name: str
    value: float
    threshold: float
    ok: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of the diagnostics gate: `passed` only if every check is ok.

    `warnings` are sentences on what is odd but fails nothing.
    """

    passed: bool
    checks: tuple[Check, ...]
    method: str
    warnings: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.ok)


def verdict(tree: DataTree, table: Table | None = None, published: Table | None = None) -> Verdict:
    """The diagnostics gate over the rows of `table` (`summarise(tree)`, made here if not given).

    Sampled posteriors: R-hat <= 1.01, bulk and tail ESS >= 400, no divergences, E-BFMI >= 0.3.
    Variational ones: Pareto k <= 0.7; exact ones that weigh draws from the prior: that, or 100 of
    the draws count. All: every draw finite, and every quantity that the prior lets vary has
    varied. A statistic that is absent or NaN fails its check, unless the quantity is a constant of
    the model.

    Converged draws can still be of the wrong stars: sigma_los at R_half must not lie, with its
    whole 95 % interval, beyond a factor 2 of the galaxy's published dispersion, or above 30 km/s
    where none is known. A J-factor far from all of `published` is only warned of, and so are stars whose
    dispersions or kurtosis are not those of the model (`predictive_checks`). For the Milky Way
    the sums of the weak form must fit: the median of chi2 is at most dof + 5 sqrt(2 dof).
    """
    table = summarise(tree) if table is None else table
    checks = [_check_finite(tree), _check_moved(tree, table)]
    if is_independent(tree):
        checks.append(_check_pareto(tree))
    else:
        checks += [_check_rhat(tree, table), _check_ess(table, "bulk"), _check_ess(table, "tail")]
        checks += [_check_divergences(tree), _check_ebfmi(tree)]
    checks += [_check_fit(tree)] if is_milky_way(tree) else _check_plausible(tree)
    method = str(tree.attrs.get("method", "unknown"))
    passed = all(check.ok for check in checks)
    odd = () if is_milky_way(tree) else alarms(predictive_pvalues(tree))
    warnings = (*far_from_published(table, published), *odd)
    return Verdict(passed, tuple(checks), method, warnings)


def _check_plausible(tree: DataTree) -> list[Check]:
    """Whether sigma_los at R_half can be that of the galaxy's stars; nothing without sigma_los."""
    found = dispersion(tree)
    if found is None:
        return []
    galaxy = json.loads(tree.attrs.get("galaxy", "{}"))
    name, known = galaxy.get("name") or "a dwarf galaxy", galaxy.get("sigma_los")
    if known:
        low, high = known / DISPERSION_FACTOR, known * DISPERSION_FACTOR
        beside = f"where {known:.3g} km/s is published for {name}"
    else:
        low, high = 0.0, DISPERSION_MAX
        beside = f"where a dwarf galaxy has less than {DISPERSION_MAX:.0f} km/s"
    here = (
        f"The dispersion of the member stars at R_half comes out at {found.median:.3g} km/s "
        f"({found.q025:.3g} to {found.q975:.3g}, 95 %)"
    )
    advice = ""
    if found.q025 > high:
        advice = (
            ": are foreground stars counted as members, or are the velocities in another unit? "
            "Give membership probabilities (p_member), choose membership=mixture, or remove the "
            "stars that are not members"
        )
    elif found.q975 < low:
        advice = ": check that velocities and errors are in km/s, and the errors not too large"
    threshold = high if found.median > low else low
    sentence = f"{here}, {beside}{advice}."
    return [Check("plausible", found.median, threshold, not advice, sentence)]


def _check_fit(tree: DataTree) -> Check:
    """Whether the sums over the stars vanish within their errors, as the equation wants."""
    found, dof = scalars(tree).get("chi2"), float(tree.attrs.get("chi2_dof", math.nan))
    if found is None or not dof > 0:
        sentence = "chi2 of the sums and its degrees of freedom are not known: the fit is unproven."
        return Check("fit", math.nan, math.nan, False, sentence)
    value, limit = float(np.median(found.draws)), dof + CHI2_SIGMAS * math.sqrt(2 * dof)
    ok = value <= limit
    name, what, reason = _PROFILE if is_profile(tree) else _SUMS
    sentence = (
        f"{what} chi2 = {value:.0f} (median) for {dof:.0f} degrees of freedom "
        f"(at most {limit:.0f} wanted)"
    )
    if math.isnan(value):
        sentence = "chi2 is not finite in every draw, so the fit is unproven."
    else:
        sentence += "." if ok else f": {reason}"
    return Check(name, value, limit, ok, sentence)


def _worst(table: Table, column: str, sign: float) -> tuple[str, float]:
    """Name and value of the worst row that varies; NaN is worse than any number."""
    live = table[np.asarray(table["sd"]) != 0]
    if len(live) == 0:
        return "(nothing varies)", math.nan
    values = np.asarray(live[column], dtype=float)
    index = int(np.argmax(np.where(np.isnan(values), math.inf, sign * values)))
    missing = np.flatnonzero(np.isnan(values))  # an infinite R-hat must not hide a missing one
    index = int(missing[0]) if missing.size else index
    return str(live["name"][index]), float(values[index])


def _check_finite(tree: DataTree) -> Check:
    bad = {n: int(np.sum(~np.isfinite(s.draws))) for n, s in scalars(tree).items()}
    name = max(bad, key=lambda key: bad[key])
    if bad[name] == 0:
        return Check("finite", 0.0, 0.0, True, "Every draw of every quantity is finite.")
    sentence = (
        f"{bad[name]} draws of {name} are not finite: the model leaves its domain there; "
        "narrow its priors."
    )
    return Check("finite", float(bad[name]), 0.0, False, sentence)


def _check_moved(tree: DataTree, table: Table) -> Check:
    fixed = [str(name) for name in table["name"][np.asarray(table["sd"]) == 0]]
    prior = scalars(tree, "prior") if "prior" in tree.children else {}
    sampled = set(parameters(tree))
    stuck = [
        name
        for name in fixed
        if (not is_constant(prior[name].draws) if name in prior else name in sampled)
    ]
    if not stuck:
        return Check("moved", 0.0, 0.0, True, "Every quantity that may vary did.")
    sentence = f"The sampler never moved in {', '.join(stuck)}: there is no posterior here."
    return Check("moved", float(len(stuck)), 0.0, False, sentence)


def _check_rhat(tree: DataTree, table: Table) -> Check:
    name, value = _worst(table, "rhat", 1.0)
    ok = value <= RHAT_MAX
    chains = dataset(tree, "posterior").sizes.get("chain", 0)
    if chains < 2:
        sentence = "There is one chain only, so R-hat cannot be computed: run at least four."
    elif math.isnan(value):
        sentence = f"R-hat of {name} cannot be computed."
    elif ok:
        sentence = f"Largest R-hat is {value:.4f}, of {name} (at most {RHAT_MAX} wanted)."
    else:
        sentence = (
            f"Largest R-hat is {value:.3f}, of {name} (at most {RHAT_MAX} wanted): "
            "the chains disagree; look at its trace, and warm up longer."
        )
    return Check("rhat", value, RHAT_MAX, ok, sentence)


def _check_ess(table: Table, kind: str) -> Check:
    name, value = _worst(table, f"ess_{kind}", -1.0)
    ok = value >= ESS_MIN
    if math.isnan(value):
        sentence = f"{kind.capitalize()} ESS of {name} cannot be computed."
    else:
        sentence = f"Smallest {kind} ESS is {value:.0f}, of {name} (at least {ESS_MIN:.0f} wanted)"
        sentence += "." if ok else ": draw more samples."
    return Check(f"ess_{kind}", value, ESS_MIN, ok, sentence)


def _sampler_statistic(tree: DataTree, name: str) -> np.ndarray | None:
    if "sample_stats" not in tree.children or name not in dataset(tree, "sample_stats"):
        return None
    return chain_draws(dataset(tree, "sample_stats")[name])


def _check_divergences(tree: DataTree) -> Check:
    diverging = _sampler_statistic(tree, "diverging")
    if diverging is None:
        sentence = "Divergences were not recorded, so their absence cannot be shown."
        return Check("divergences", math.nan, 0.0, False, sentence)
    count = int(np.sum(diverging))
    if count == 0:
        return Check("divergences", 0.0, 0.0, True, "No transition diverged.")
    sentence = (
        f"{count} of {diverging.size} transitions diverged: parts of the posterior were not "
        "reached; raise the target acceptance or change the parametrisation."
    )
    return Check("divergences", float(count), 0.0, False, sentence)


def _check_ebfmi(tree: DataTree) -> Check:
    import arviz as az

    energy = _sampler_statistic(tree, "energy")
    value = math.nan
    if energy is not None and energy.shape[1] > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(np.min(az.bfmi(energy)))
    ok = value >= EBFMI_MIN
    if math.isnan(value):
        sentence = "E-BFMI cannot be computed: energies are missing or did not change."
    else:
        sentence = f"Smallest E-BFMI of a chain is {value:.2f} (at least {EBFMI_MIN} wanted)"
        sentence += "." if ok else ": the tails are explored badly; change the parametrisation."
    return Check("ebfmi", value, EBFMI_MIN, ok, sentence)


def _check_pareto(tree: DataTree) -> Check:
    """Of a guide's draws, or of the draws by which an exact posterior weighs its own settings."""
    exact = str(tree.attrs.get("method", "")) == "exact"
    value = float(tree.attrs.get("pareto_k", math.nan))
    what = "weighing the draws from the prior" if exact else "the guide"
    sentence = f"Pareto k of {what} is {value:.2f} (at most {PARETO_K_MAX} wanted)"
    ok = value <= PARETO_K_MAX
    if math.isnan(value):
        sentence = f"Pareto k of {what} is not known, so it cannot be trusted."
    elif exact:
        # k of some hundred weights is noise where many of them count
        ess = float(tree.attrs.get("psis_ess", math.nan))
        ok = ok or ess >= WEIGHED_ESS_MIN
        sentence += f", or {WEIGHED_ESS_MIN:.0f} that count; {ess:.0f} do"
        sentence += (
            "."
            if ok
            else ": few are what the stars ask for. The dust or the equilibrium may be taken wrongly; else "
            "give the fields priors nearer to it, in a copy of the model."
        )
    elif ok:
        sentence += "."
    else:
        sentence += (
            ": the guide does not cover the posterior and is not to be trusted; use NUTS or a flow "
            "guide."
        )
    return Check("pareto_k", value, PARETO_K_MAX, ok, sentence)
