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
    known = {name: _Known.of(name, tree) for name, tree in trees.items()}
    for one, other in itertools.combinations(trees, 2):
        _check_pair(one, known[one], other, known[other])
        _check_draws(one, trees[one], other, trees[other])
    with warnings.catch_warnings():  # what ArviZ warns of is said here in words
        warnings.simplefilter("ignore")
        loos = {name: _loo(tree) for name, tree in trees.items()}
        found = az.compare(loos, round_to="none")
    table = _table(found, loos)
    doubts = [*_failed(trees, table), *_high(loos, table)]
    return Comparison(table, tuple(doubts), (*_differences(table, loos), *_left_out(trees, known)))


# --- what cannot be compared ---------------------------------------------------------------------


class _Known(NamedTuple):
    """What a fit knows of its stars.

    Attributes
    ----------
    columns : `SAME`
    p_member : where the fit was given it
    light : which positions are in the likelihood beside the velocities, and their digest
    motions : digest of the proper motions, where they are
    others : names of the likelihood's other terms
    """

    columns: dict[str, np.ndarray]
    p_member: np.ndarray | None
    light: tuple[str, str]
    motions: str
    others: list[str]

    @classmethod
    def of(cls, name: str, tree: DataTree) -> "_Known":
        """Raises BayesdustError for a result that cannot be compared with any."""
        if is_milky_way(tree):
            raise BayesdustError(
                f"{name} is a fit of the Milky Way, whose likelihood is of sums and not of stars: only fits "
                "of dwarf galaxies can be compared."
            )
        if GROUP not in tree.children or "numbers" not in tree[GROUP].attrs:
            raise BayesdustError(
                f"{name} holds no likelihood of each star: it was written by an older bayesdust, or its "
                "model has none at the site v_los; run the fit again, or leave it out."
            )
        try:
            known = cls._read(tree)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BayesdustError(f"{name} is not whole: run the fit again.") from error
        values = dataset(tree, GROUP)[SITE].values
        bad = int(np.sum(~np.isfinite(values).all(axis=(0, 1))))
        if bad:
            raise BayesdustError(
                f"{name}: the likelihood of {bad} stars is zero or not a number in some draws, so they "
                "cannot be left out: give their velocities wider tails, or a foreground."
            )
        return known

    @classmethod
    def _read(cls, tree: DataTree) -> "_Known":
        columns = {column: _column(tree, column) for column in SAME}
        chosen = json.loads(tree.attrs["options"])
        numbers = json.loads(tree[GROUP].attrs["numbers"])
        others = [str(other) for other in json.loads(tree[GROUP].attrs["others"])]
        terms = dataset(tree, GROUP)[SITE]
        light = chosen["light"] if "light" in others else ""
        if not parameters(tree) or terms.shape[2:] != columns[SITE].shape:
            raise ValueError("parameters or stars are missing")
        return cls(
            columns,
            _column(tree, "p_member") if chosen.get("membership") == "given" else None,
            (light, numbers["photometry"] if light == "joint" else ""),
            numbers["proper motions"] if "pm" in others else "",
            others,
        )

    @property
    def light_in_words(self) -> str:
        kind, digest = self.light
        if kind == "joint":
            return f"the photometric sample {digest[:8]}"
        return "its velocity stars' positions" if kind else "the table of facts"


def _column(tree: DataTree, name: str) -> np.ndarray:
    group = dataset(tree, "observed_data" if name == SITE else "constant_data")
    return np.asarray(group[name].values)


def _check_pair(one: str, first: _Known, other: str, second: _Known) -> None:
    """Raises BayesdustError where the two know different things."""
    for name in SAME:
        if not np.array_equal(first.columns[name], second.columns[name]):
            raise BayesdustError(
                f"{one} and {other} are fits of different stars (their {name} differ): only fits of the "
                "same table of stars can be compared."
            )
    why = "only velocities are compared, and they are foreseen from other data then"
    p, q = first.p_member, second.p_member
    if p is not None and q is not None and not np.array_equal(p, q):
        raise BayesdustError(
            f"{one} and {other} know different probabilities of membership (p_member): {why}; fit both to "
            "the same table."
        )
    if first.light != second.light:
        raise BayesdustError(
            f"{one} fits its light to {first.light_in_words} and {other} to {second.light_in_words}: {why}; "
            "fit both with the same option light."
        )
    if bool(first.motions) != bool(second.motions):
        with_, without = (one, other) if first.motions else (other, one)
        raise BayesdustError(
            f"{with_} knows the stars' proper motions and {without} does not: {why}; fit both with the same "
            "option proper_motions."
        )
    if first.motions != second.motions:
        raise BayesdustError(
            f"{one} and {other} know different proper motions: {why}; fit both to the same table."
        )


def _check_draws(one: str, first: DataTree, other: str, second: DataTree) -> None:
    if np.array_equal(dataset(first, GROUP)[SITE].values, dataset(second, GROUP)[SITE].values):
        raise BayesdustError(f"{one} and {other} are the same run: give two different ones.")


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


def _left_out(trees: Mapping[str, DataTree], known: Mapping[str, _Known]) -> Iterator[str]:
    """What the fits rest on beside the velocities that are compared."""
    first = next(iter(known.values()))
    if first.light[0]:
        yield (
            f"Compared are the velocities alone; the positions of the light, {first.light_in_words}, which "
            "all the fits know, are not."
        )
    for name, one in known.items():
        others = [other for other in one.others if other != "light"]
        if others:
            yield (
                f"{name} has terms beside the velocities ({', '.join(others)}), which are not compared."
            )
    told = [name for name, one in known.items() if one.p_member is not None]
    if told:
        yield (
            f"{' and '.join(told)} {'know' if len(told) > 1 else 'knows'} each star's probability of "
            "membership (p_member): if it was worked out with the star's velocity, a star left out is not "
            "quite left out."
        )
    if len({tree.attrs.get("data_sha256") for tree in trees.values()}) > 1:
        yield (
            "The tables of stars are different files, with the same velocities, errors and places."
        )
