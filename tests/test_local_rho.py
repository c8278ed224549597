"""A halo from a measured profile: tables and draws in, the posterior, its page, and what is refused."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.table import Table
from matplotlib.figure import Figure
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from scipy import stats
from test_cli import assert_refused
from test_report import Page

import bayesdust as bd
from bayesdust import cli, galaxy_plots, gate, summary
from bayesdust.catalogs.profile import read_profile
from bayesdust.errors import BayesdustError
from bayesdust.inference.posterior import fit
from bayesdust.inference.profile_draws import _without_prior, profile_of
from bayesdust.inference.programs import load
from bayesdust.report import write_report
from bayesdust.runs import Request, write_tree
from bayesdust.units import DENSITY_GEV_CM3

RADII = np.array([4.0, 5.5, 7.0, 8.5, 10.0, 14.0, 20.0, 28.0])
TRUTH = {"gamma": 1.2, "ln_r_s": np.log(12.0), "ln_rho_dm": np.log(9e6)}
NAMES = tuple(TRUTH)


def densities(gamma, ln_r_s, ln_rho_dm, r=RADII, r_sun=8.122):
    """The model's halo, written out: Msun/kpc3."""
    bend = (1 + r / np.exp(ln_r_s)) / (1 + r_sun / np.exp(ln_r_s))
    return np.exp(ln_rho_dm) * (r / r_sun) ** -gamma * bend ** (gamma - 3)


def table_of(rho, error):
    """A table in Msun/pc3 from Msun/kpc3."""
    return Table({"r": RADII[: len(rho)], "rho_dm": rho / 1e9, "rho_dm_err": error / 1e9})


@pytest.fixture(scope="module")
def exact():
    """The posterior of an exact profile, known to 0.5 %."""
    rho = densities(**TRUTH)
    return fit("local_rho_gnfw", read_profile(table_of(rho, 5e-3 * rho)), seed=1)


@pytest.fixture(scope="module")
def near():
    """That of six radii near the Sun, known to 15 %."""
    rho = densities(**TRUTH)[:5]
    return fit("local_rho_gnfw", read_profile(table_of(rho, 0.15 * rho)), num_warmup=500, seed=2)


def row_of(tree, name):
    table = summary.summarise(tree)
    return table[list(table["name"]).index(name)]


# The law


def test_an_exact_profile_gives_its_halo_back(exact):
    known = TRUTH | {
        "r_s": 12.0,
        "rho_dm_sun": 9e6 * DENSITY_GEV_CM3,
        "rho_dm_sun_msun_pc3": 0.009,
        "slope_sun": (1.2 * 12.0 + 3 * 8.122) / (12.0 + 8.122),
    }
    for name, value in known.items():
        row = row_of(exact, name)
        # the mean of a curved quantity is off by its second order, a part of the sd
        assert abs(row["mean"] - value) < 4 * row["mcse"] + 0.1 * row["sd"], name
        assert row["sd"] < 0.06 * max(1.0, abs(value)), name
    r = exact["posterior"]["r"].values
    np.testing.assert_allclose(
        exact["posterior"]["rho_dm_r"].mean(("chain", "draw")), densities(**TRUTH, r=r), rtol=0.03
    )
    assert gate.verdict(exact).failures == ()


@pytest.fixture(scope="module")
def ranks():
    """Normal scores (40, 3) of truths from the prior in their posteriors, given how they are measured.

    Posteriors by weighing 20,000 draws of the prior with the model's likelihood.
    """
    program, start = load("local_rho_gnfw"), densities(**TRUTH)
    data = program.prepare(read_profile(table_of(start, 0.1 * start)), {})
    draw = Predictive(program.model, num_samples=20_040, return_sites=NAMES, parallel=True)
    drawn = {k: np.asarray(v) for k, v in draw(jax.random.PRNGKey(3), data).items()}
    truths, cloud = (
        {k: v[rows] for k, v in drawn.items()} for rows in (slice(40), slice(40, None))
    )
    prior = jax.vmap(lambda point: log_density(_prior_alone, (), {}, point)[0])(cloud)

    def scores(measure):
        found = []
        for i in range(40):
            one = {k: v[i] for k, v in truths.items()}
            at = dataclasses.replace(data, profile=measure(one))
            left = jax.vmap(partial(log_densities, program.model, at))(cloud)
            weights = np.asarray(jax.nn.softmax(left - prior))
            found.append([weights @ (cloud[k] < one[k]) for k in NAMES])
        return stats.norm.ppf(np.clip(found, 1e-4, 1 - 1e-4))

    return scores


def assert_uniform(scores):
    assert (stats.chi2.sf(np.sum(scores**2, axis=0), 40) > 1e-3).all()
    assert (abs(scores.mean(axis=0)) < 3.3 / np.sqrt(40)).all()


def test_ranks_of_the_truth_are_uniform(ranks):
    """Errors that are said to be three times too small are the wrong model."""
    rng, noise = np.random.default_rng(8), 0.2

    def measure(truth, understated=1.0):
        rho = densities(**truth)
        seen = rho * (1 + noise * rng.normal(size=len(RADII)))
        return read_profile(table_of(seen, noise * rho / understated))

    assert_uniform(ranks(measure))
    wrong = ranks(partial(measure, understated=3.0))
    assert stats.chi2.sf(np.sum(wrong[:, 2] ** 2), 40) < 1e-6


def test_ranks_behind_another_fit_are_uniform(ranks):
    """Four densities measured, seen through draws of a fit whose prior is smooth and centred too low.

    Its posterior taken for data, the prior counted twice, is the wrong model.
    """
    rng, r = np.random.default_rng(9), np.linspace(5.0, 11.0, 10)
    C_0, m_0 = 3.5e6**2 * np.exp(-0.5 * (r[:, None] - r) ** 2 / 3.0**2), np.full(10, 3e6)
    C_0 = C_0 + 1e-6 * C_0[0, 0] * np.eye(10)
    A, S = np.eye(10)[[0, 3, 6, 9]], 4e6**2 * np.eye(4)
    gain = C_0 @ A.T @ np.linalg.inv(A @ C_0 @ A.T + S)
    C, before = C_0 - gain @ A @ C_0, rng.multivariate_normal(m_0, C_0, 4000)

    def measure(truth, twice=False):
        y = A @ densities(**truth, r=r) + 4e6 * rng.normal(size=4)
        after = rng.multivariate_normal(m_0 + gain @ (y - A @ m_0), C, 4000)
        found = profile_of(fake_run(after / 1e6, before / 1e6, chi2_dof=9), "runs/mw")
        if not twice:
            return found
        size = np.sqrt(np.diag(found.weights @ C @ found.weights.T))[:, None]
        weights = found.weights / size
        return dataclasses.replace(found, weights=weights, target=weights @ after.mean(axis=0))

    assert_uniform(ranks(measure))
    wrong = ranks(partial(measure, twice=True))
    assert stats.chi2.sf(np.sum(wrong[:, 2] ** 2), 40) < 1e-6


def log_densities(model, data, point):
    return log_density(model, (data,), {}, point)[0]


def _prior_alone():
    """The model without its profile."""
    import numpyro
    import numpyro.distributions as dist

    numpyro.sample("ln_rho_dm", dist.Normal(jnp.log(1e7), 1.0))
    numpyro.sample("ln_r_s", dist.Normal(jnp.log(16.0), 0.5))
    numpyro.sample(
        "gamma",
        dist.TransformedDistribution(
            dist.Beta(2.0, 2.0), dist.transforms.AffineTransform(0.0, 1.9)
        ),
    )


def test_covariances_and_units_make_the_same_likelihood():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(8, 8)) * 1e6
    C, rho = root @ root.T + 1e12 * np.eye(8), densities(**TRUTH)
    plain = table_of(rho, np.ones(8))
    plain.remove_column("rho_dm_err")
    dark = Table({"r": (RADII * u.kpc).to(u.pc), "rho_dm": rho * DENSITY_GEV_CM3})
    for i in range(8):
        plain[f"cov_{i + 1}"] = C[i] / 1e18
        dark[f"cov_{i + 1}"] = C[i] * DENSITY_GEV_CM3**2  # without a unit: rho_dm's, squared
    one = read_profile(plain)
    other = read_profile(dark, units={"rho_dm": "GeV/cm3"})
    assert other.units["cov_1"] == "GeV2 / cm6 (as rho_dm)"
    for profile in (one, other):
        np.testing.assert_allclose(profile.r, RADII, rtol=1e-12)
        np.testing.assert_allclose(profile.weights.T @ profile.weights @ C, np.eye(8), atol=1e-6)
        np.testing.assert_allclose(profile.weights @ rho, profile.target, rtol=1e-9)
        np.testing.assert_allclose(profile.error, np.sqrt(np.diag(C)), rtol=1e-9)


# From the draws of a fit


@pytest.fixture(scope="module")
def smooth():
    """A smooth normal prior over ten radii, three of which were measured: draws of prior and posterior."""
    rng, r = np.random.default_rng(4), np.linspace(5.0, 11.0, 10)
    C_0 = 4.0 * np.exp(-0.5 * (r[:, None] - r) ** 2 / 2.0**2) + 1e-9 * np.eye(10)
    m_0, A = np.full(10, 5.0), np.eye(10)[[1, 4, 8]]
    y, S = np.array([8.0, 6.0, 3.0]), np.diag([0.3, 0.2, 0.5])
    gain = C_0 @ A.T @ np.linalg.inv(A @ C_0 @ A.T + S)
    m, C = m_0 + gain @ (y - A @ m_0), C_0 - gain @ A @ C_0
    before = rng.multivariate_normal(m_0, C_0, 20_000)
    return rng.multivariate_normal(m, C, 20_000), before, m, C, m_0, C_0


def test_what_the_stars_said_times_the_prior_is_the_posterior(smooth):
    """In every direction kept; the draws taken for data, the prior counted twice, are rejected."""
    after, before, m, C, m_0, C_0 = smooth
    w, t = _without_prior(after, before)
    assert w.shape == (3, 10)  # as many directions as there were measurements, not ten
    C_0 = C_0 + 1e-6 * np.eye(10)

    def together(w, t):
        precision = np.linalg.inv(C_0) + w.T @ w
        return np.linalg.solve(precision, np.linalg.solve(C_0, m_0) + w.T @ t), precision

    mean, precision = together(w, t)
    error = np.sqrt(np.diag(w @ C @ w.T))
    # 20,000 draws give a variance to 1 %, a mean to 0.7 % of the sd; the jitter is 1 % of the variance
    assert (abs(w @ (mean - m)) < 0.1 * error).all()
    ratio = np.diag(w @ np.linalg.inv(precision) @ w.T) / error**2
    np.testing.assert_allclose(ratio, 1.0, atol=0.08)
    twice = w / np.sqrt(np.diag(w @ C @ w.T))[:, None]
    _, precision = together(twice, twice @ m)
    assert (np.diag(w @ np.linalg.inv(precision) @ w.T) / error**2).min() < 0.85


def fake_run(after, before, **attrs):
    groups = {}
    for name, draws in (("posterior", after), ("prior", before)):
        rho = (("chain", "draw", "r"), np.asarray(draws)[None] * 1e6)
        chi2 = (("chain", "draw"), np.random.default_rng(0).chisquare(9.0, (1, len(draws))))
        r = np.linspace(5.0, 11.0, 10)
        groups[name] = xr.Dataset({"rho_dm_r": rho, "chi2": chi2}, coords={"r": r})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {"kind": "milky_way", "model": "mw_cbe_linear", "method": "exact"}
    tree.attrs |= {"sun": "[-8.122, 0.0, 0.0208]", "pareto_k": 0.1, "psis_ess": 900.0} | attrs
    return tree


def test_a_run_becomes_a_profile(smooth):
    after, before = smooth[0][:2000], smooth[1][:2000]
    profile = profile_of(fake_run(after, before), "runs/mw")
    assert not profile.logarithmic  # some draws are negative
    assert "3 independent numbers" in profile.notes[0]
    assert "failed its diagnostics (fit)" in profile.notes[-1]  # its chi2 has no degrees of freedom
    assert len(profile_of(fake_run(after, before, chi2_dof=9)).notes) == 1
    up = profile_of(fake_run(np.exp(after / 5), np.exp(before / 5)), "runs/mw")
    assert up.logarithmic
    # the weights are of ln(rho/5), so to say: the same directions, five times as long
    np.testing.assert_allclose(
        np.linalg.norm(up.weights) / np.linalg.norm(profile.weights) / 1e6, 5.0, rtol=1e-6
    )


def test_the_folder_of_a_run_is_read(smooth, tmp_path):
    """Named itself, or by its posterior.nc; names of columns have no meaning there."""
    tree = fake_run(smooth[0][:500], smooth[1][:500], schema_version=1, chi2_dof=9)
    write_tree(tree, tmp_path / "posterior.nc")
    (tmp_path / "run.json").write_text("{}")
    there = profile_of(tree)
    for source in (tmp_path, tmp_path / "posterior.nc"):
        found = cli._profile(source, {}, {})
        assert (found.source, found.sha256) == (str(tmp_path), there.sha256)
        np.testing.assert_array_equal(found.target, there.target)
    with pytest.raises(BayesdustError, match="are for tables, and a run was given"):
        cli._profile(tmp_path, {"r": "R"}, {})


def test_runs_that_tell_nothing_are_refused(smooth):
    after, before = smooth[0], smooth[1]
    for tree, words in (
        (fake_run(before, before[::-1]), "say less of the dark matter's profile than its prior"),
        (fake_run(after[:300], before), "300 posterior draws are too few"),
        (fake_run(after, before, kind="dwarf"), "holds no posterior draws of rho_dm_r"),
    ):
        with pytest.raises(BayesdustError, match=f"runs/mw: .*{words}"):
            profile_of(tree, "runs/mw")
    bare = fake_run(after, before)
    del bare["prior"]
    with pytest.raises(BayesdustError, match="holds no prior draws"):
        profile_of(bare, "runs/mw")


# The page, and the gate


def test_the_page_says_first_what_is_prior(near, tmp_path):
    outcome = write_report(near, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    top = page.text[: page.text.index("Results")]
    assert outcome.passed
    assert "Milky Way: the dark halo" in top
    assert "inner slope of the dark halo, gamma (" in top
    assert "The profile is fitted with chi2 = " in top
    assert "fit of the profile" in page.text
    assert "Eilers+2019" in page.text[page.text.index("Beside published") :]
    titles = [image["alt"].split(".")[0] for image in page.images]
    assert titles == ["Radial profile", "Parameters", "Chains"]
    for words in ("Not drawn", "Accelerations", "sums over the stars", "At the points"):
        assert words not in page.text


def test_a_profile_that_no_halo_has_fails(near, tmp_path):
    bad = near.copy()
    bad["posterior"]["chi2"] = near["posterior"]["chi2"] + 40.0
    check = next(check for check in gate.verdict(bad).checks if check.name == "profile")
    assert not check.ok
    assert "no halo of this form has these densities" in check.sentence


def test_everything_of_the_tree_has_a_unit_and_a_name(near):
    for group in near.children.values():
        for name, variable in group.data_vars.items():
            if group.name not in ("sample_stats",):
                assert {"units", "long_name"} <= set(variable.attrs), name
    assert near.attrs["chi2_dof"] == 5
    np.testing.assert_array_equal(near["observed_data"]["radius"], RADII[:5])


def test_models_and_tables_of_one_kind():
    columns = dict.fromkeys(("x", "y", "z", "vx", "vy", "vz"), np.arange(100.0) / 100)
    stars = bd.read_milky_way(Table(columns))
    profile = read_profile(table_of(densities(**TRUTH), np.full(8, 1e6)))
    with pytest.raises(
        BayesdustError, match="mw_cbe_gnfw is a model of the Milky Way, and <table>"
    ):
        Request(load("mw_cbe_gnfw"), profile)
    with pytest.raises(BayesdustError, match="is a model of a profile of the Milky Way's dark"):
        Request(load("local_rho_gnfw"), stars)
    with pytest.raises(BayesdustError, match="no option 'limit'"):
        bd.fit("local_rho_gnfw", profile, options={"limit": 14})


# Bad input


def put(name, row, value):
    def change(table):
        table[name][row] = value

    return change


def covariances(change):
    """Six covariance columns in place of the errors, then changed."""

    def apply(table):
        table.remove_column("rho_dm_err")
        for i in range(len(table)):
            table[f"cov_{i + 1}"] = np.eye(len(table))[i] * 1e-6
        change(table)

    return apply


TABLES = {
    "no radius": (lambda t: t.rename_column("r", "radius"), "has no column r;"),
    "no error": (lambda t: t.remove_column("rho_dm_err"), "has no column rho_dm_err;"),
    "error of 1e-170": (
        put("rho_dm_err", 2, 1e-170),
        "row 3, column rho_dm_err: the error comes out at",
    ),
    "error of 1e170": (
        put("rho_dm_err", 2, 1e170),
        "row 3, column rho_dm_err: the value is 1e+170",
    ),
    "negative error": (put("rho_dm_err", 2, -1e-3), "row 3, column rho_dm_err: the error is zero"),
    "zero radius": (put("r", 1, 0.0), "row 2, column r: the radius is 0 kpc"),
    "parsecs": (put("r", 4, 8000.0), "row 5, column r: the radius is 8000 kpc"),
    "nan": (put("rho_dm", 3, np.nan), "row 4, column rho_dm: the value is nan"),
    "nan error": (put("rho_dm_err", 0, np.nan), "row 1, column rho_dm_err: the value is nan"),
    "per kpc3": (put("rho_dm", 5, 1e7), "row 6, column rho_dm: the density comes out at 1e+07"),
    "two rows": (lambda t: t.remove_rows(slice(2, None)), "holds 2 radii, fewer than 3"),
    "both": (
        lambda t: t.add_column(t["rho_dm_err"], name="cov_1"),
        "has no column cov_2",
    ),
    "not symmetric": (covariances(put("cov_2", 0, 1e-7)), "row 1, column cov_2: the covariance"),
    "variance": (covariances(put("cov_3", 2, 0.0)), "row 3, column cov_3: the variance is not"),
}


@pytest.mark.parametrize("case", TABLES)
def test_bad_tables(tmp_path, monkeypatch, call, case):
    change, words = TABLES[case]
    monkeypatch.chdir(tmp_path)
    rho = densities(**TRUTH)
    table = table_of(rho, 0.1 * rho)
    change(table)
    table.write("profile.csv", format="ascii.csv")
    outcome = call("fit", "local_rho_gnfw", "profile.csv", "--out", "out")
    assert_refused(outcome, tmp_path, words)
    assert "profile.csv" in outcome[2]


WORDS = {
    "unknown unit": (["--unit", "rho_dm=furlong"], "'furlong' is not a unit"),
    "another unit": (["--unit", "rho_dm=km/s"], "is not that of a density"),
    "galaxy": (["--galaxy", "draco"], "--galaxy has no meaning"),
    "radius": (["--radius", "4"], "--radius has no meaning"),
    "column": (["--column", "mass=rho_dm"], "columns names 'mass'"),
    "option": (["--option", "limit=14"], "no option 'limit'"),
}


@pytest.mark.parametrize("case", WORDS)
def test_bad_words(tmp_path, monkeypatch, call, case):
    more, words = WORDS[case]
    monkeypatch.chdir(tmp_path)
    rho = densities(**TRUTH)
    table_of(rho, 0.1 * rho).write("profile.csv", format="ascii.csv")
    outcome = call("fit", "local_rho_gnfw", "profile.csv", *more, "--out", "out")
    assert_refused(outcome, tmp_path, words.replace("columns names", "--column names"))


def test_a_folder_that_is_no_run(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    outcome = call("fit", "local_rho_gnfw", "empty", "--out", "out")
    assert_refused(outcome, tmp_path, "empty holds no finished run")


def test_matrices_that_are_none_and_units_that_look_wrong():
    rho = densities(**TRUTH)
    table = table_of(rho, 0.1 * rho)
    table.remove_column("rho_dm_err")
    for i in range(8):
        table[f"cov_{i + 1}"] = np.ones(8) * 1e-6
    with pytest.raises(BayesdustError, match="not those of independent measurements"):
        read_profile(table)
    table["rho_dm_err"] = 1e-3
    with pytest.raises(BayesdustError, match="has both rho_dm_err and covariances"):
        read_profile(table)
    bare = read_profile(table_of(rho * 38.0, rho))
    assert "is it in GeV/cm3?" in bare.warnings[0]
    assert read_profile(table_of(rho, rho)).warnings == ()


def test_the_figure_is_of_what_was_measured(near):
    ax = galaxy_plots.halo(near, Figure().subplots())
    measured = next(c for c in ax.containers if c.get_label() == "measured")
    np.testing.assert_allclose(measured.lines[0].get_ydata(), densities(**TRUTH)[:5], rtol=1e-9)
    slope = next(line for line in ax.lines if "NFW" in str(line.get_label()))
    x, y = slope.get_data()
    assert np.diff(np.log(y))[0] / np.diff(np.log(x))[0] == pytest.approx(-1.0, rel=1e-12)
    assert "Eilers+2019" in ax.get_legend_handles_labels()[1]
    mock = near.copy()
    mock["truth"] = xr.DataTree(xr.Dataset({"gamma": 1.2}))
    ax = galaxy_plots.halo(mock, Figure().subplots())
    assert "Eilers+2019" not in ax.get_legend_handles_labels()[1]  # of another galaxy
