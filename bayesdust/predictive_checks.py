"""Posterior predictive p-values: are the stars' dispersions and kurtoses, ring by ring, the model's?

Every draw theta of the posterior comes with velocities v_rep that the model would have seen. For a
discrepancy T(v, theta) the p-value is the share of draws with (Gelman, Meng & Stern 1996, Stat. Sinica 6,
733)

    T(v_rep, theta) > T(v, theta).                                                                    (1)

In a ring, with w the probability of membership that theta gives a star of that velocity (the observed one on
the right of (1), the predicted one on its left), d the velocity about the members' mean, e its error and
g = 1/(s^2 + e^2)^2 at a fixed s, the dispersion and kurtosis are

    S = sum w g (d^2 - e^2) / sum w g,          K = <z^4> / <z^2>^2,   z^2 = d^2 / (max(S, 0) + e^2),  (2)

averages weighted by w: the first is the best estimate of sigma^2 where sigma is s (g is then the Fisher
information of a normal law), and the second is near 3 for normal velocities, whatever the errors. For all
stars, T is K of the z of all rings and, of dispersions, the chi^2 of the profile: the sum of t_k^2 over the
rings, t_k being the logarithm of sum w g d^2 / sum w g less its mean over replicas, in its standard deviation
over them.

A ring's `p_adjusted` is corrected for the number of rings: the share of replicas in which the oddest of all
rings has a |t| as large as this one's in the data (single-step maxT of Westfall & Young 1993; of K, t is of
its logarithm). As the draws have seen the data, alarms of dispersions are rarer than the p-values claim.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from bayesdust import rings
from bayesdust.summary import dataset

if TYPE_CHECKING:
    from astropy.table import Table
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    DataTree = Table = Any

ODD = 0.01  # p-values below it are alarms, and of the kurtosis of all stars those above 1 - ODD
FEWEST = 100  # replicas, below which no p-value can be so small

type Profile = Float[np.ndarray, "draw ring"]


class Replicas(NamedTuple):
    """Velocities [km/s] and memberships, (draw, star): those observed and those predicted."""

    v: Float[np.ndarray, "draw star"]
    member: Float[np.ndarray, "draw star"]
    v_rep: Float[np.ndarray, "draw star"]
    member_rep: Float[np.ndarray, "draw star"]


class Moments(NamedTuple):
    """Of every draw and ring: S of (2) [(km/s)^2], ln of its sum with errors left in, K; and K of all."""

    variance: Profile
    ln_spread: Profile
    kurtosis: Profile
    overall: Float[np.ndarray, " draw"]


def predictive_pvalues(tree: DataTree) -> Table:
    """Posterior predictive p-values of the dispersion and kurtosis of a dwarf galaxy's member stars.

    One row a statistic ("dispersion" [km/s], "kurtosis", "chi2" of the profile of dispersions) and ring
    ("1", ... from the centre, as in the figure; "all"). Columns: statistic, ring, R_low and R_high [kpc]
    of its stars, members (expected number), observed, predicted (median) with predicted_16 and
    predicted_84, p, p_adjusted (corrected for the number of rings; of all stars it is p, two-sided for
    the kurtosis), odd (an alarm: p_adjusted below 0.01, two-sided below 0.02). p is no nearer to 0 or 1 than
    one replica in all.

    No rows where the result holds fewer than 100 predictive draws.
    """
    from astropy.table import Table

    found = _replicas(tree)
    rows = [] if found is None else _rows(tree, found)
    names = (
        *("statistic", "ring", "R_low", "R_high", "members", "observed", "predicted"),
        *("predicted_16", "predicted_84", "p", "p_adjusted", "odd"),
    )
    kinds = (str, str, *(float,) * 9, bool)
    if not rows:
        return Table(names=names, dtype=kinds)
    columns = {
        n: np.asarray([row[n] for row in rows], t) for n, t in zip(names, kinds, strict=True)
    }
    return Table(columns)


def alarms(table: Table) -> tuple[str, ...]:
    """Sentences on what `predictive_pvalues` finds odd; empty where nothing is."""
    return (*_of_dispersion(table), *_of_kurtosis(table))


def as_metadata(table: Table) -> dict[str, Any]:
    """p and p_adjusted by statistic and ring, to three figures, for the head of summary.ecsv."""
    found: dict[str, Any] = {}
    for row in table:
        numbers = {key: round(float(row[key]), 4) for key in ("p", "p_adjusted")}
        found.setdefault(str(row["statistic"]), {})[str(row["ring"])] = numbers
    return found


# --- the statistics ------------------------------------------------------------------------------


def _replicas(tree: DataTree) -> Replicas | None:
    """The predictive draws that are finite; every star is a member where the model tells of no others."""
    groups = {"posterior_predictive", "observed_data", "constant_data"}
    if not groups <= set(tree.children):
        return None
    data = dataset(tree, "posterior_predictive")
    observed = np.asarray(dataset(tree, "observed_data")["v_los"].values, dtype=float)
    if "v_los" not in data or data.sizes["star"] != observed.size:
        return None

    def flat(name: str) -> np.ndarray:
        values = data[name].transpose("chain", "draw", "star").values
        return np.asarray(values, dtype=float).reshape(-1, observed.size)

    v_rep = flat("v_los")
    everyone = np.ones_like(v_rep)
    told = "member" in data and "member_predicted" in data
    member, member_rep = map(flat, ("member", "member_predicted")) if told else (everyone, everyone)
    fine = np.isfinite(v_rep + member + member_rep).all(axis=1)
    if fine.sum() < FEWEST:
        return None
    v = np.broadcast_to(observed, v_rep.shape)
    return Replicas(v[fine], member[fine], v_rep[fine], member_rep[fine])


def moments(
    v: Float[np.ndarray, "draw star"],
    w: Float[np.ndarray, "draw star"],
    err: Float[np.ndarray, " star"],
    inside: Bool[np.ndarray, "star ring"],
    sigma: float,
) -> Moments:
    """Equation (2) for velocities `v` and errors [km/s] in the rings, at s = `sigma` [km/s]."""
    ring = inside.astype(float)
    g = 1 / (sigma**2 + err**2)
    mean = np.sum(w * g * v, axis=1) / np.sum(w * g, axis=1)
    square, weight = (v - mean[:, None]) ** 2, w * g**2
    total = weight @ ring
    spread = (weight * square) @ ring / total
    variance = spread - (weight * err**2) @ ring / total
    z2 = square / (np.maximum(variance, 0) @ ring.T + err**2 + 1e-12)
    second, fourth = (w * z2) @ ring, (w * z2**2) @ ring
    number = w @ ring
    overall = fourth.sum(axis=1) * number.sum(axis=1) / second.sum(axis=1) ** 2
    return Moments(variance, np.log(spread), fourth * number / second**2, overall)


def _rows(tree: DataTree, found: Replicas) -> list[dict[str, Any]]:
    radius, v, err, _ = rings.velocity_data(tree)
    p = found.member.mean(axis=0)
    number = rings.radial_bins(radius, p)
    inside = number[:, None] == np.unique(number)
    sigma = max(rings.RingFit(v, err, p).best(v, np.ones(v.size, dtype=bool)), 1e-3)
    data = moments(found.v, found.member, err, inside, sigma)
    predicted = moments(found.v_rep, found.member_rep, err, inside, sigma)
    t, t_rep = _standardised(data.ln_spread, predicted.ln_spread)
    k, k_rep = _standardised(np.log(data.kurtosis), np.log(predicted.kurtosis))
    places = _places(radius, p, inside)
    everywhere = {"ring": "all", **{key: f(pl[key] for pl in places) for key, f in _ENDS.items()}}
    chi2 = _row("chi2", np.sum(t**2, axis=1), np.sum(t_rep**2, axis=1))
    tails = _row("kurtosis", data.overall, predicted.overall)
    two_sided = 2 * min(tails["p"], 1 - tails["p"])
    return [
        *map(_rooted, _of_rings("dispersion", data.variance, predicted.variance, t, t_rep, places)),
        chi2 | everywhere | {"p_adjusted": chi2["p"], "odd": chi2["p"] < ODD},
        *_of_rings("kurtosis", data.kurtosis, predicted.kurtosis, k, k_rep, places),
        tails | everywhere | {"p_adjusted": two_sided, "odd": two_sided < 2 * ODD},
    ]


_ENDS: dict[str, Any] = {"R_low": min, "R_high": max, "members": sum}


def _standardised(data: Profile, predicted: Profile) -> tuple[Profile, Profile]:
    """Both less the mean of the replicas, in their standard deviation."""
    mean, sd = predicted.mean(axis=0), predicted.std(axis=0) + 1e-12
    return (data - mean) / sd, (predicted - mean) / sd


def _places(
    radius: np.ndarray, p: np.ndarray, inside: Bool[np.ndarray, "star ring"]
) -> list[dict[str, float]]:
    """Inner and outer radius [kpc] of each ring's stars, and how many members are expected there."""
    return [
        {"R_low": radius[i].min(), "R_high": radius[i].max(), "members": p[i].sum()}
        for i in inside.T
    ]


def _of_rings(
    name: str, data: Profile, predicted: Profile, t: Profile, t_rep: Profile, places: list[Any]
) -> Iterator[dict[str, Any]]:
    """The rows of all rings; `t`, `t_rep` are what p_adjusted goes by."""
    oddest = np.abs(t_rep).max(axis=1)
    for i, place in enumerate(places):
        row = _row(name, data[:, i], predicted[:, i])
        adjusted = _share(oddest >= np.abs(t[:, i]))
        yield row | place | {"ring": str(i + 1), "p_adjusted": adjusted, "odd": adjusted < ODD}


def _rooted(row: dict[str, Any]) -> dict[str, Any]:
    """A row of variances with dispersions in their place, zero where a variance is below it."""
    names = ("observed", "predicted", "predicted_16", "predicted_84")
    return row | {name: math.sqrt(max(row[name], 0.0)) for name in names}


def _row(name: str, data: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    low, middle, high = np.quantile(predicted, [0.16, 0.5, 0.84])
    return {
        "statistic": name,
        "observed": float(np.median(data)),
        "predicted": middle,
        "predicted_16": low,
        "predicted_84": high,
        "p": _share(predicted > data),
    }


def _share(hits: Bool[np.ndarray, " draw"]) -> float:
    """Share of the draws, no nearer to 0 or 1 than one in all of them."""
    least = 1 / (hits.size + 1)
    return float(np.clip(np.mean(hits), least, 1 - least))


# --- what is said --------------------------------------------------------------------------------


def find(table: Table, statistic: str, ring: str = "all") -> Any:
    """One row of `predictive_pvalues`, None if it has none."""
    hits = [r for r in table if r["statistic"] == statistic and r["ring"] == ring]
    return hits[0] if hits else None


def _of_dispersion(table: Table) -> Iterator[str]:
    chi2, odd = find(table, "chi2"), _odd_rings(table, "dispersion")
    if chi2 is None or not (chi2["odd"] or odd):
        return
    yield (
        f"The stars' dispersions are not those that the model expects ({_p(chi2['p'])} for the profile"
        f"{_listed(odd, ' km/s')}): another halo, light or anisotropy, a foreground or other errors may fit."
    )


def _of_kurtosis(table: Table) -> Iterator[str]:
    row, odd = find(table, "kurtosis"), _odd_rings(table, "kurtosis")
    if row is None or not (row["odd"] or odd):
        return
    tails = (  # rings alone may be odd: the first of them says which way
        "heavier tails than the model's: a foreground, binaries, errors too small or another law of "
        "velocities (velocities=kurtosis) may be the reason"
        if (row if row["odd"] else odd[0])["p"] < 0.5
        else "lighter tails than the model's: orbits (velocities=kurtosis) or errors too large may be the "
        "reason"
    )
    yield (
        f"The members' velocities have a kurtosis of {row['observed']:.2f}, where the model expects "
        f"{row['predicted_16']:.2f} to {row['predicted_84']:.2f}, 68 % ({_p(row['p'])}"
        f"{_listed(odd)}): {tails}."
    )


def _odd_rings(table: Table, statistic: str) -> list[Any]:
    return [r for r in table if r["statistic"] == statistic and r["ring"] != "all" and r["odd"]]


def _listed(odd: list[Any], unit: str = "") -> str:
    """The oddest of the odd rings in words, after a semicolon, and how many there are."""
    if not odd:
        return ""
    worst = min(odd, key=lambda row: row["p_adjusted"])
    many = f"; {len(odd)} rings are odd, such as" if len(odd) > 1 else ";"
    return (
        f"{many} ring {worst['ring']}, {worst['R_low']:.2g} to {worst['R_high']:.2g} kpc, with "
        f"{worst['observed']:.3g}{unit} for {worst['predicted']:.3g}{unit}, as odd as any ring of a sample "
        f"is with {_p(worst['p_adjusted'])}"
    )


def _p(value: float) -> str:
    return f"p = {value:.3f}"
