"""Which of several fits foresees the velocity of a star left out: PSIS-LOO, by ArviZ.

    elpd_loo = sum_i ln p(v_i | all other stars' velocities)

by Pareto-smoothed importance sampling of the posterior's draws (Vehtari, Gelman & Gabry 2017, Stat. Comput.
27, 1413, eq. 4; Vehtari+2024, JMLR 25, 72), and its difference between fits of the same stars, with the
standard error of a sum of n paired differences (ibid., eq. 24). Only velocities are left out: positions,
photometric sample and facts stay.
"""

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesdust.errors import BayesdustError
from bayesdust.gate import PARETO_K_MAX, verdict
from bayesdust.summary import dataset, is_milky_way, parameters

if TYPE_CHECKING:
    from astropy.table import Table
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    DataTree = Table = Any

SIGMAS = 2.0  # standard errors within which fits are not told apart
SMALL = 4.0  # difference below which its standard error is not to be relied on (Sivula+2025)
FEW = 100  # stars, below which the same holds (ibid.)
GROUP, SITE = "log_likelihood", "v_los"
SAME = ("v_los", "v_los_err", "xi", "eta")  # what makes stars the same ones


class Comparison(NamedTuple):
    """Fits of the same stars, the best first.

    Attributes
    ----------
    table : one row a fit, columns as of `compare`
    doubts : sentences on what is not to be trusted; empty if all is well
    sentences : what the stars say, one sentence a fit after the first, and what was compared
    """

    table: Table
    doubts: tuple[str, ...]
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        shown = self.table["name", "elpd_loo", "se", "difference", "difference_se"]
        shown = shown.copy()
        for name in ("p_loo", "k_max", "k_high"):
            shown[name] = self.table[name]
        for name in ("elpd_loo", "se", "difference", "difference_se", "p_loo"):
            shown[name].format = ".1f"
        shown["k_max"].format = ".2f"
        lines = shown.pformat(max_lines=-1, max_width=-1, align=["<"] + [">"] * 7)
        return "\n".join([*self.doubts, *self.sentences, *lines])


def compare(trees: Mapping[str, DataTree]) -> Comparison:
    """PSIS-LOO of fits (name -> result) of the same stars, two or more.

    Columns of the table: name; elpd_loo and its standard error se; difference from the best and
    difference_se; p_loo, the effective number of parameters; k_max, the largest Pareto k, and k_high, how
    many stars have one above 0.7 (with S < 2200 draws above 1 - 1/log10 S); weight, of stacking.

    Raises BayesdustError where there are fewer than two fits, where two are the same, or of other stars,
    or know their stars by other positions, and where one has no likelihood star by star.
    """
    import arviz as az

    if len(trees) < 2:
        raise BayesdustError("A comparison needs two fits or more of the same stars: give another.")
    for name, tree in trees.items():
        _check(name, tree)
    for one, other in itertools.combinations(trees, 2):
        _check_pair(one, trees[one], other, trees[other])
    with warnings.catch_warnings():  # what ArviZ warns of is said here in words
        warnings.simplefilter("ignore")
        loos = {name: _loo(tree) for name, tree in trees.items()}
        found = az.compare(loos, round_to="none")
    table = _table(found, loos)
    doubts = [*_failed(trees, table), *_high(loos, table)]
    return Comparison(table, tuple(doubts), (*_differences(table, loos), *_left_out(trees)))


# --- what cannot be compared ---------------------------------------------------------------------


def _check(name: str, tree: DataTree) -> None:
    if is_milky_way(tree):
        raise BayesdustError(
            f"{name} is a fit of the Milky Way, whose likelihood is of sums and not of stars: only fits of "
            "dwarf galaxies can be compared."
        )
    if GROUP not in tree.children:
        raise BayesdustError(
            f"{name} holds no likelihood of each star: it was written by an older bayesdust, or its model "
            "has none at the site v_los; run the fit again, or leave it out."
        )
    values = dataset(tree, GROUP)[SITE]
    bad = int(np.sum(~np.isfinite(values.values).all(axis=(0, 1))))
    if bad:
        raise BayesdustError(
            f"{name}: the likelihood of {bad} stars is zero or not a number in some draws, so they cannot "
            "be left out: give their velocities wider tails, or a foreground."
        )


def _check_pair(one: str, first: DataTree, other: str, second: DataTree) -> None:
    for name in SAME:
        if not np.array_equal(_column(first, name), _column(second, name)):
            raise BayesdustError(
                f"{one} and {other} are fits of different stars (their {name} differ): only fits of the "
                "same table of stars can be compared."
            )
    if np.array_equal(dataset(first, GROUP)[SITE].values, dataset(second, GROUP)[SITE].values):
        raise BayesdustError(f"{one} and {other} are the same run: give two different ones.")
    if _positions(first) != _positions(second):
        raise BayesdustError(
            f"{one} fits its light to {_light(first)} and {other} to {_light(second)}: only velocities are "
            "compared, and they are foreseen from other data then; fit both with the same option light."
        )

    knows = ["pm" in _others(tree) for tree in (first, second)]
    if knows[0] != knows[1]:
        with_, without = (one, other) if knows[0] else (other, one)
        raise BayesdustError(
            f"{with_} knows the stars' proper motions and {without} does not: only velocities are compared, "
            "and they are foreseen from other data then; fit both with the same option proper_motions."
        )


def _column(tree: DataTree, name: str) -> np.ndarray:
    group = dataset(tree, "observed_data" if name == SITE else "constant_data")
    return np.asarray(group[name].values)


def _positions(tree: DataTree) -> tuple[str, str]:
    """Which stars' positions are in the likelihood beside the velocities."""
    if "light" not in _others(tree):
        return "", ""
    light = json.loads(tree.attrs["options"])["light"]
    return light, tree[GROUP].attrs["photometry_sha256"] if light == "joint" else ""


def _light(tree: DataTree) -> str:
    kind, digest = _positions(tree)
    if kind == "joint":
        return f"the photometric sample {digest[:8]}"
    return "its velocity stars' positions" if kind else "the table of facts"


def _others(tree: DataTree) -> list[str]:
    return [str(name) for name in json.loads(tree[GROUP].attrs.get("others", "[]"))]


# --- what is found -------------------------------------------------------------------------------


def _loo(tree: DataTree) -> Any:
    """ArviZ's ELPDData, in double precision; the draws' efficiency is that of the parameters alone."""
    import arviz as az
    import xarray as xr

    names = [name for name in parameters(tree) if name in tree["posterior"]]
    posterior = dataset(tree, "posterior")[names]
    values = dataset(tree, GROUP)[[SITE]].astype(float)
    alone = {"posterior": posterior, GROUP: values}
    return az.loo(xr.DataTree.from_dict(alone), pointwise=True, var_name=SITE)


def _table(found: Any, loos: Mapping[str, Any]) -> Table:
    from astropy.table import Table

    names = [str(name) for name in found.index]
    k = {name: np.asarray(loos[name].pareto_k.values, dtype=float) for name in names}
    columns = {"elpd_loo": "elpd", "se": "se", "difference": "elpd_diff", "difference_se": "dse"}
    return Table(
        {"name": names}
        | {ours: np.asarray(found[theirs], dtype=float) for ours, theirs in columns.items()}
        | {
            "p_loo": np.asarray(found["p"], dtype=float),
            "k_max": [float(k[name].max()) for name in names],
            "k_high": [int(np.sum(~(k[name] <= loos[name].good_k))) for name in names],
            "weight": np.asarray(found["weight"], dtype=float),
        }
    )


def _failed(trees: Mapping[str, DataTree], table: Table) -> Iterator[str]:
    for name in table["name"]:
        failures = verdict(trees[str(name)]).failures
        if failures:
            yield (
                f"{name} did not pass its diagnostics, so its numbers here are not to be used: "
                f"{failures[0].sentence}"
            )


def _high(loos: Mapping[str, Any], table: Table) -> Iterator[str]:
    for row in table[np.asarray(table["k_high"]) > 0]:
        loo = loos[str(row["name"])]
        worst = int(np.nanargmax(np.asarray(loo.pareto_k.values)))
        stars = "star has" if row["k_high"] == 1 else "stars have"
        yield (
            f"{row['name']}: {row['k_high']} {stars} a Pareto k above {min(loo.good_k, PARETO_K_MAX):.2f} "
            f"(the largest in row {worst + 1}, {row['k_max']:.2f}), so the posterior without them is not "
            "known from these draws, and elpd_loo is likely too high: look at these stars, or fit without "
            "them."
        )


def _differences(table: Table, loos: Mapping[str, Any]) -> Iterator[str]:
    best, n = table["name"][0], int(next(iter(loos.values())).n_data_points)
    for row in table[1:]:
        size, error = -float(row["difference"]), float(row["difference_se"])
        how = f"{size:.1f} +- {error:.1f} ({size / error:.1f} standard errors)"
        if size < SIGMAS * error:
            yield f"The stars do not tell {row['name']} from {best}: their elpd_loo differ by {how}."
        elif size < SMALL:
            yield (
                f"The stars hardly tell {row['name']} from {best}: their elpd_loo differ by {how}, and of "
                f"a difference below {SMALL:.0f} the standard error is not to be relied on."
            )
        else:
            yield f"{row['name']} foresees the stars' velocities worse than {best}, by {how}."
    if n < FEW:
        yield f"With {n} stars, fewer than {FEW}, standard errors of differences are too small."


def _left_out(trees: Mapping[str, DataTree]) -> Iterator[str]:
    """What the fits rest on beside the velocities that are compared."""
    first = next(iter(trees.values()))
    if _positions(first)[0]:
        yield (
            f"Compared are the velocities alone; the positions of the light, {_light(first)}, which all "
            "the fits know, are not."
        )
    for name, tree in trees.items():
        others = [other for other in _others(tree) if other != "light"]
        if others:
            yield (
                f"{name} has terms beside the velocities ({', '.join(others)}), which are not compared."
            )
    if len({tree.attrs.get("data_sha256") for tree in trees.values()}) > 1:
        yield (
            "The tables of stars are different files, with the same velocities, errors and places."
        )
