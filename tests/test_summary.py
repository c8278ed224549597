"""The summary table, the gate and what is said about priors and upper limits."""

import json
import math

import fake_tree
import numpy as np
import pytest
import xarray as xr
from astropy.table import Table
from scipy import stats

from bayesdust import gate, influence, summary
from bayesdust.errors import BayesdustError


def row_of(table, name):
    return table[list(table["name"]).index(name)]


def judge(tree):
    return gate.verdict(tree, summary.summarise(tree))


def failed(tree):
    return {check.name for check in judge(tree).failures}


@pytest.fixture(scope="module")
def tree():
    return fake_tree.healthy()


@pytest.fixture(scope="module")
def table(tree):
    return summary.summarise(tree)


def rank_normal(draws):
    """Rank-normalised split chains, from the definition in Vehtari et al. (2021)."""
    half = draws.shape[1] // 2
    split = np.concatenate([draws[:, :half], draws[:, -half:]])
    rank = stats.rankdata(split).reshape(split.shape)
    return stats.norm.ppf((rank - 3 / 8) / (split.size + 1 / 4)), split


def plain_rhat(z):
    n = z.shape[1]
    within = z.var(axis=1, ddof=1).mean()
    return math.sqrt((n - 1) / n + z.mean(axis=1).var(ddof=1) / within)


def test_rows_and_columns_are_those_promised(table):
    places = [f"{q}[{a}deg]" for q in ("log10_J", "log10_D") for a in ("0.1", "0.2", "0.5", "1")]
    places += [f"log10_{q}[{r}]" for q in ("rho", "mass") for r in ("0.15kpc", "rhalf", "1.8rhalf")]
    assert list(table["name"]) == [*fake_tree.TRUTH, "distance", *places]
    wanted = "name unit mean sd q025 q05 q16 median q84 q95 q975 rhat ess_bulk ess_tail mcse"
    assert table.colnames == wanted.split()
    assert row_of(table, "log10_J[0.5deg]")["unit"] == "GeV2 cm-5"
    assert row_of(table, "log10_rho[0.15kpc]")["unit"] == "Msun/kpc3"


def test_one_row_recomputed_from_its_definitions(tree, table):
    draws = np.log10(tree["posterior"]["rho"].sel(r=0.15, method="nearest").values)
    row = row_of(table, "log10_rho[0.15kpc]")
    assert row["mean"] == pytest.approx(draws.mean(), rel=1e-12)
    assert row["sd"] == pytest.approx(draws.std(ddof=1), rel=1e-12)
    for name, level in (("q025", 2.5), ("q05", 5), ("q16", 16), ("q84", 84), ("q975", 97.5)):
        assert row[name] == pytest.approx(np.percentile(draws, level), rel=1e-12)
    z, split = rank_normal(draws)
    folded, _ = rank_normal(abs(split - np.median(split)))
    folded = stats.norm.ppf(
        (stats.rankdata(abs(split - np.median(split))) - 0.375) / (split.size + 0.25)
    )
    expected = max(plain_rhat(z), plain_rhat(folded.reshape(split.shape)))
    assert row["rhat"] == pytest.approx(expected, rel=1e-9)
    assert row["mcse"] == pytest.approx(row["sd"] / math.sqrt(draws.size), rel=0.2)
    assert row["ess_bulk"] == pytest.approx(draws.size, rel=0.2)


def test_ess_of_an_autoregressive_chain():
    """An AR(1) chain of correlation c has (1 - c)/(1 + c) of its draws in effect."""
    tree = fake_tree.healthy(rho=0.6, draws=2000)
    row = row_of(summary.summarise(tree), "v_sys")
    assert row["ess_bulk"] == pytest.approx(8000 * 0.4 / 1.6, rel=0.15)


def test_healthy_passes_and_names_the_worst(tree, table):
    verdict = gate.verdict(tree, table)
    assert verdict.passed
    assert not verdict.failures
    assert {c.name for c in verdict.checks} == {
        *("finite", "moved", "rhat", "ess_bulk", "ess_tail", "divergences", "ebfmi"),
        "plausible",
    }
    live = table[np.asarray(table["sd"]) > 0]
    worst = live["name"][np.argmax(live["rhat"])]
    assert worst in next(c.sentence for c in verdict.checks if c.name == "rhat")


def test_a_constant_neither_warns_nor_fails(table):
    row = row_of(table, "distance")
    assert (row["mean"], row["sd"], row["q025"], row["mcse"]) == (81.55, 0.0, 81.55, 0.0)
    assert math.isnan(row["rhat"])


BROKEN = {
    "stuck chain": (fake_tree.stuck_chain, {"rhat", "ess_bulk"}),
    "frozen": (fake_tree.frozen, {"moved", "rhat", "ess_bulk", "ess_tail"}),
    "diverging": (fake_tree.diverging, {"divergences"}),
    "bad energies": (fake_tree.low_ebfmi, {"ebfmi"}),
    "NaN draws": (fake_tree.nan_draws, {"finite", "rhat", "ess_bulk", "ess_tail"}),
    "few draws": (lambda: fake_tree.healthy(draws=60), {"ess_bulk", "ess_tail", "rhat"}),
    "slow chains": (lambda: fake_tree.healthy(rho=0.97), {"ess_bulk", "ess_tail", "rhat"}),
    "one chain": (lambda: fake_tree.healthy(chains=1, draws=2000), {"rhat"}),
    "three draws": (
        lambda: fake_tree.healthy(draws=3),
        {"rhat", "ess_bulk", "ess_tail"},
    ),
    "no statistics": (
        lambda: fake_tree.without(fake_tree.healthy(), "sample_stats"),
        {"divergences", "ebfmi"},
    ),
    "guide too narrow": (lambda: fake_tree.variational(0.9), {"pareto_k"}),
    "k unknown": (lambda: fake_tree.variational(math.nan), {"pareto_k"}),
    "few weighed draws": (
        lambda: fake_tree.variational(0.9, method="exact", psis_ess=99.0),
        {"pareto_k"},
    ),
    "many weighed draws, k unknown": (
        lambda: fake_tree.variational(math.nan, method="exact", psis_ess=300.0),
        {"pareto_k"},
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_seen(case):
    make, expected = BROKEN[case]
    assert failed(make()) == expected
    assert not judge(make()).passed


def test_k_of_weights_of_which_many_count_fails_nothing():
    assert not failed(fake_tree.variational(0.9, method="exact", psis_ess=101.0))
    assert not failed(fake_tree.variational(0.6, method="exact", psis_ess=20.0))


def test_the_culprit_is_named():
    sentences = " ".join(check.sentence for check in judge(fake_tree.nan_draws()).failures)
    assert "12 draws of gamma" in sentences
    sentences = " ".join(check.sentence for check in judge(fake_tree.diverging()).failures)
    assert "3 of 2000 transitions" in sentences


def test_a_chain_that_is_constant_is_not_a_constant_of_the_model():
    """Without prior draws the list of sampled parameters tells the two apart."""
    tree = fake_tree.without(fake_tree.frozen(), "prior")
    assert "moved" in failed(tree)
    tree.attrs = tree.attrs | {"parameters": json.dumps([])}
    assert "moved" not in failed(tree)


def test_statistics_leave_out_what_is_not_finite():
    tree = fake_tree.nan_draws()
    row = row_of(summary.summarise(tree), "gamma")
    draws = tree["posterior"]["gamma"].values
    assert row["mean"] == pytest.approx(np.nanmean(draws), rel=1e-12)
    assert math.isnan(row["rhat"])
    assert math.isnan(row["mcse"])


def test_variational_has_no_rhat_and_borrows_its_ess():
    bare = row_of(summary.summarise(fake_tree.variational()), "gamma")
    assert math.isnan(bare["rhat"])
    assert math.isnan(bare["ess_bulk"])
    tree = fake_tree.variational(psis_ess=900.0)
    row = row_of(summary.summarise(tree), "gamma")
    assert row["ess_bulk"] == row["ess_tail"] == 900.0
    assert row["mcse"] == pytest.approx(row["sd"] / 30.0, rel=1e-12)
    assert judge(tree).passed


def test_posterior_file_gives_the_same_table(tree, table, tmp_path):
    tree.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf") as stored:
        again = summary.summarise(stored.load())
    table.write(tmp_path / "summary.ecsv")
    written = Table.read(tmp_path / "summary.ecsv").filled("")  # "" is read back as missing
    for name in table.colnames:
        for other in (again, written):
            if name in ("name", "unit"):
                assert list(other[name]) == list(table[name])
            else:
                np.testing.assert_array_equal(other[name], table[name])


def test_radii_are_found_without_their_indices(tree, table):
    bare = tree.copy(deep=True)
    data = bare["posterior"].to_dataset(inherit=False)
    data["r"].attrs = {"rhalf": fake_tree.R_HALF}
    bare["posterior"] = xr.DataTree(data)
    assert list(summary.summarise(bare)["name"]) == list(table["name"])


def test_a_tree_without_profiles_has_only_its_parameters(tree):
    data = tree["posterior"].to_dataset(inherit=False)[["gamma", "v_sys"]]
    small = xr.DataTree.from_dict({"posterior": data})
    small.attrs = tree.attrs
    assert list(summary.summarise(small)["name"]) == ["gamma", "v_sys"]
    assert influence.dispersion(small) is None
    assert len(influence.prior_share(small)) == 0
    with pytest.raises(BayesdustError, match="no group 'posterior'"):
        summary.summarise(xr.DataTree())


def test_prior_share_of_data_and_of_prior():
    informed = influence.prior_share(fake_tree.healthy())
    row = row_of(informed, "ln_r_s")
    assert row["ratio"] == pytest.approx(0.4 / 1.2, rel=0.1)
    assert not row["mostly_prior"]
    expected = 2 * stats.norm.cdf(1.96 / 3) - 1
    assert row["prior_in_95"] == pytest.approx(expected, abs=0.05)
    told = influence.prior_share(fake_tree.mostly_prior())
    flags = {r["name"]: bool(r["mostly_prior"]) for r in told}
    assert flags["log10_J[0.5deg]"]
    assert not flags["v_sys"]
    assert not flags["distance"]
    assert "mostly prior" in row_of(told, "log10_J[0.5deg]")["sentence"]
    assert row_of(told, "beta_ani")["prior_in_95"] == pytest.approx(0.95, abs=0.02)


def test_j_is_mostly_prior_where_only_the_mass_was_measured():
    """Against the whole prior J looks known: its amplitude is. The shape that J hangs on is prior."""
    tree = fake_tree.healthy(posterior_sd=fake_tree.PRIOR_SD | {"ln_mass": 0.1})
    rows = influence.prior_share(tree)
    J = row_of(rows, "log10_J[0.5deg]")
    assert J["mostly_prior"]
    assert J["ratio"] == pytest.approx(1.0, abs=0.15)
    assert not row_of(rows, "log10_mass[1.8rhalf]")["mostly_prior"]
    posterior, prior = (summary.scalars(tree, group) for group in ("posterior", "prior"))
    whole = [
        np.ptp(np.quantile(s["log10_J[0.5deg]"].draws, [0.16, 0.84])) for s in (posterior, prior)
    ]
    assert whole[0] / whole[1] < influence.MOSTLY_PRIOR  # what hid it


@pytest.mark.parametrize(("mass_error", "at_mass"), [(0.02, True), (0.5, False)])
def test_a_shape_that_the_data_tell_is_not_called_prior(mass_error, at_mass):
    """Known to 0.4 of the prior at the measured mass, whatever the mass's own error adds."""
    known = {name: 0.4 * sd for name, sd in fake_tree.PRIOR_SD.items()} | {"ln_mass": mass_error}
    rows = influence.prior_share(fake_tree.healthy(posterior_sd=known))
    J = row_of(rows, "log10_J[0.5deg]")
    assert not J["mostly_prior"]
    assert J["at_mass"] == at_mass
    if at_mass:
        assert J["ratio"] == pytest.approx(0.4, abs=0.08)


def test_dispersion_floor_is_where_the_likelihood_stops_seeing():
    """A dispersion at the floor changes the expected ln L by 1/2, one standard deviation."""
    err = np.full(4000, 3.0)
    floor = influence.dispersion_floor(err)
    assert floor == pytest.approx(2**0.25 * 3 / 4000**0.25, rel=1e-12)
    s = floor**2
    divergence = 0.5 * err.size * (math.log1p(s / 9) + 1 / (1 + s / 9) - 1)
    assert divergence == pytest.approx(0.5, rel=0.1)
    assert influence.dispersion_floor(np.array([0.0, 2.0])) == 0.0
    assert influence.dispersion_floor(np.array([2.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(
        2 * 2**0.25
    )


def test_a_swamped_dispersion_is_an_upper_limit():
    measured = influence.dispersion(fake_tree.healthy())
    assert not measured.is_upper_limit
    assert measured.floor < measured.q025 < measured.median < measured.q975
    swamped = influence.dispersion(fake_tree.swamped())
    assert swamped.is_upper_limit
    assert f"below {swamped.limit:.2f} km/s" in swamped.sentence


def test_noise_free_stars_always_give_an_interval():
    tree = fake_tree.swamped()
    tree = fake_tree.with_variable(tree, "constant_data", "v_los_err", np.zeros(400))
    assert not influence.dispersion(tree).is_upper_limit


def test_a_low_end_that_is_the_prior_is_an_upper_limit():
    """Errors above the dispersion, and a posterior as low as the prior though above the floor."""
    tree = fake_tree.healthy(posterior_sd=fake_tree.PRIOR_SD | {"ln_mass": 1.8})
    err = np.repeat([3.0, 15.0], 200)
    tree = fake_tree.with_variable(tree, "constant_data", "v_los_err", err)
    found = influence.dispersion(tree)
    assert found.floor < found.q025
    assert found.is_upper_limit
    assert not influence.dispersion(fake_tree.without(tree, "prior")).is_upper_limit


def test_truth_of_a_mock_in_the_names_of_the_table(tree):
    truth = summary.true_values(tree)
    assert truth["gamma"] == 1.0
    assert 10 ** truth["log10_mass[1.8rhalf]"] == pytest.approx(4.6e7, rel=1e-9)
    assert summary.true_values(fake_tree.without(tree, "truth")) == {}
