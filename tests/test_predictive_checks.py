"""Predictive p-values: right models raise no alarm more often than stated, wrong ones do."""

import fake_tree
import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom

from bayesdust.gate import verdict
from bayesdust.predictive_checks import alarms, as_metadata, find, predictive_pvalues
from bayesdust.report_rings import rows_of_rings

DRAWS, N = 200, 300
LOG_SIGMA = np.linspace(np.log(4.0), np.log(40.0), 461)
ALARM_RATE = 0.05  # chi2 and rings, tails both ways and rings: 1 + 1 + 2 + 1 %, if p were uniform


def places(rng, n=N):
    """Projected radii [kpc] of a Plummer sphere, and errors of 1 to 6 km/s."""
    return 0.25 * np.sqrt(1 / rng.uniform(0.08, 0.999, n) - 1), rng.uniform(1.0, 6.0, n)


def fitted(rng, radius, v, err, outside=None):
    """The result of a model of one sigma for all members, flat in ln sigma, about a mean of zero.

    The posterior on a grid, and velocities drawn from it. With `outside` = (p_member, sd) others follow a
    normal law of that sd, and the result says who is a member.
    """
    p, sd = (1.0, 1.0) if outside is None else outside

    def parts(sigma, v):
        inside, others = np.hypot(sigma, err), np.hypot(sd, err)
        return p * gauss(v, inside), (1 - p) * gauss(v, others)

    with np.errstate(divide="ignore"):
        ln_like = np.array([np.log(sum(parts(s, v))).sum() for s in np.exp(LOG_SIGMA)])
    weight = np.exp(ln_like - ln_like.max())
    assert ln_like.argmax() < len(ln_like) - 1  # the grid holds the posterior
    sigma = np.exp(rng.choice(LOG_SIGMA, DRAWS, p=weight / weight.sum()))[:, None]
    is_member = rng.random((DRAWS, v.size)) < p
    v_rep = rng.normal(size=is_member.shape) * np.hypot(np.where(is_member, sigma, sd), err)
    found = {"v_los": v_rep}
    if outside is not None:
        for name, at in (("member", v), ("member_predicted", v_rep)):
            inside, others = parts(sigma, at)
            found[name] = inside / (inside + others)
    groups = {
        "posterior_predictive": {
            k: (("chain", "draw", "star"), a.reshape(2, -1, v.size)) for k, a in found.items()
        },
        "observed_data": {"v_los": ("star", v)},
        "constant_data": {"R": ("star", radius), "v_los_err": ("star", err)},
    }
    return xr.DataTree.from_dict({name: xr.Dataset(group) for name, group in groups.items()})


def gauss(v, sd):
    return np.exp(-0.5 * (v / sd) ** 2) / (np.sqrt(2 * np.pi) * sd)


def right(rng, radius, err):
    return rng.normal(size=radius.size) * np.hypot(8.0, err)


def heavy(rng, radius, err):
    """Student's t of three degrees of freedom, whose kurtosis is infinite, of the same dispersion."""
    return 8.0 * rng.standard_t(3, radius.size) / np.sqrt(3) + err * rng.normal(size=err.size)


def flat(rng, radius, err):
    """Uniform, kurtosis 1.8."""
    return 8.0 * np.sqrt(3) * rng.uniform(-1, 1, err.size) + err * rng.normal(size=err.size)


def falling(rng, radius, err):
    """A dispersion from 14 km/s in the middle to 3 far out, where the model has one."""
    sigma = 14.0 * (1 + (radius / 0.3) ** 2) ** -0.7
    return rng.normal(size=err.size) * np.hypot(sigma, err)


def one_odd_ring(rng, radius, err):
    """The outermost tenth moves two and a half times as fast."""
    sigma = np.where(radius > np.quantile(radius, 0.9), 20.0, 8.0)
    return rng.normal(size=err.size) * np.hypot(sigma, err)


def tables(law, seeds, outside=None):
    for seed in seeds:
        rng = np.random.default_rng([seed, 7])
        radius, err = places(rng)
        v = law(rng, radius, err)
        if outside is not None:
            stranger = rng.random(N) > outside[0]
            v = np.where(stranger, rng.normal(size=N) * np.hypot(outside[1], err), v)
        yield predictive_pvalues(fitted(rng, radius, v, err, outside))


OUTSIDE = {"members": None, "foreground": (0.9, 80.0)}


@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_right_model_raises_few_alarms(outside):
    """In 100 samples no more than the stated rate allows, at its one-in-a-thousand quantile."""
    found = [bool(alarms(table)) for table in tables(right, range(100), OUTSIDE[outside])]
    assert sum(found) <= binom.ppf(0.999, 100, ALARM_RATE)


def test_p_values_of_a_right_model_are_as_stated():
    """p of the kurtosis, whose law does not hang on sigma, is uniform: mean and spread of 100 of them."""
    p = np.array([find(table, "kurtosis")["p"] for table in tables(right, range(100, 200))])
    assert abs(p.mean() - 0.5) < 5 / np.sqrt(12 * 100)
    # of the variance 1/12 of a uniform law the standard error is its sd 1/sqrt(180) over 10
    assert abs(p.var() - 1 / 12) < 5 / np.sqrt(180 * 100)


WRONG = {  # law of the stars, the statistic that must tell, words of the sentence
    "heavy tails": (heavy, "kurtosis", "heavier tails than the model's"),
    "flat": (flat, "kurtosis", "lighter tails than the model's"),
    "falling dispersion": (falling, "chi2", "dispersions are not those that the model expects"),
    "one odd ring": (one_odd_ring, "chi2", "ring 12, "),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_model_raises_one(case):
    """In 20 samples 14 times or more, which a power of 0.5 does once in seventeen."""
    law, statistic, words = WRONG[case]
    found = list(tables(law, range(20)))
    assert sum(find(table, statistic)["odd"] for table in found) >= 14
    assert any(words in sentence for sentence in alarms(next(t for t in found if alarms(t))))


def test_memberships_keep_a_foreground_from_passing_for_tails():
    """Told nothing of it, the same stars are of a kurtosis that no normal law has."""
    rng = np.random.default_rng(2)
    radius, err = places(rng)
    v = np.where(rng.random(N) > 0.9, rng.normal(size=N) * 80.0, right(rng, radius, err))
    assert alarms(predictive_pvalues(fitted(rng, radius, v, err, (0.9, 80.0)))) == ()
    sentences = alarms(predictive_pvalues(fitted(rng, radius, v, err)))
    assert any("a foreground" in sentence for sentence in sentences)


def test_errors_left_out_of_the_replicas_would_be_seen():
    """Errors count in data and replicas alike: replicas without them are of a smaller dispersion."""
    rng = np.random.default_rng(3)
    radius, err = places(rng)[0], np.full(N, 8.0)
    tree = fitted(rng, radius, right(rng, radius, err), err)
    before = find(predictive_pvalues(tree), "dispersion", "1")
    # sigma^2 of m stars is known to (sigma^2 + err^2) sqrt(2/m)
    error = (64 + 64) * np.sqrt(2 / before["members"])
    assert abs(before["observed"] ** 2 - 64) < 4 * error
    bare = 8.0 * rng.normal(size=tree["posterior_predictive"]["v_los"].shape)
    wrong = fake_tree.with_variable(tree, "posterior_predictive", "v_los", bare)
    assert find(predictive_pvalues(wrong), "chi2")["odd"]


def test_where_it_is_told():
    """In the verdict's warnings, in the table of the report, and in what goes to summary.ecsv."""
    tree = fake_tree.healthy()
    assert verdict(tree).warnings == ()
    table = predictive_pvalues(tree)
    numbers = as_metadata(table)
    assert set(numbers) == {"dispersion", "chi2", "kurtosis"}
    assert set(numbers["kurtosis"]) == {*map(str, range(1, 13)), "all"}
    rows = list(rows_of_rings(table))
    assert len(rows) == 13
    assert not any(odd for row in rows for _, odd in row)
    v = tree["observed_data"]["v_los"].values.copy()
    v[::20] += 60.0  # a twentieth of the stars, seven standard deviations off
    wrong = fake_tree.with_variable(tree, "observed_data", "v_los", v)
    assert any("kurtosis" in sentence for sentence in verdict(wrong).warnings)
    assert any(odd for row in rows_of_rings(predictive_pvalues(wrong)) for _, odd in row)


@pytest.mark.parametrize("gone", ["posterior_predictive", "observed_data", "constant_data"])
def test_no_table_without_what_it_is_made_of(gone):
    tree = fake_tree.without(fake_tree.healthy(), gone)
    assert len(predictive_pvalues(tree)) == 0
    assert alarms(predictive_pvalues(tree)) == ()
    few = fake_tree.healthy()
    few["posterior_predictive"] = few["posterior_predictive"].isel(draw=slice(20))
    assert len(predictive_pvalues(few)) == 0
