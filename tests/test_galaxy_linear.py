"""The Milky Way without a shape: exact posterior, its algebra against dense formulae, the wrong models."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from galaxy_checks import assert_vertical_force
from scipy import stats

from bayesdust.catalogs.cartesian import read_milky_way
from bayesdust.errors import BayesdustError
from bayesdust.gate import verdict
from bayesdust.inference import galaxy_posterior, linear_posterior
from bayesdust.inference.programs import load, shipped
from bayesdust.potentials import milky_way_2014
from bayesdust.summary import summarise
from bayesdust.units import G

TRUTH = milky_way_2014()
POINTS = np.array([[-8.0, 0.0, 0.5], [-6.5, 1.0, -0.3]])
SMALL = {"bump": 1.7, "modes": 60, "dust_modes": 50}


@pytest.fixture(scope="module")
def data(dusty_stars):
    program = load("mw_cbe_linear")
    return program.prepare(dusty_stars, SMALL, POINTS)


@pytest.fixture(scope="module")
def tree(dusty_stars):
    return galaxy_posterior.fit(load("mw_cbe_linear"), dusty_stars, POINTS, options=SMALL, seed=1)


def test_the_true_force_is_found(tree):
    a = tree["posterior"]["acceleration"].values[0]
    truth = np.asarray(jax.vmap(TRUTH.acceleration)(POINTS))
    assert np.all(abs(a.mean(axis=0) - truth) < 4 * a.std(axis=0))
    # within a tenth of the radial force: the prior alone is no such thing
    before = tree["prior"]["acceleration"].values[0]
    assert np.all(a.std(axis=0)[:, 0] < 0.05 * np.linalg.norm(truth, axis=1))
    assert np.all(before.std(axis=0)[:, 0] > 0.2 * np.linalg.norm(truth, axis=1))


def test_the_true_vertical_force_is_found(tree):
    assert_vertical_force(tree["posterior"])


def test_tree_gate_and_rows(tree):
    assert tree.attrs["method"] == "exact"
    assert tree["posterior"].sizes["chain"] == 1
    assert json.loads(tree.attrs["parameters"])[0] == "sigma"
    for name, variable in tree["posterior"].data_vars.items():
        assert {"units", "long_name"} <= set(variable.attrs), name
    table = summarise(tree)
    assert {"rho_dm_sun", "v_circ[8kpc]", "acceleration[az,1]", "sigma_dust"} <= set(table["name"])
    assert verdict(tree, table).passed
    assert {"pareto_k", "fit"} <= {check.name for check in verdict(tree, table).checks}


def test_wrong_weights_fail_the_gate(dusty):
    """The wrong model, stars behind dust counted for less: no field likely before makes up for it."""
    wrong = dusty.stars(weights="epsilon")
    tree = galaxy_posterior.fit(load("mw_cbe_linear"), wrong, POINTS, options=SMALL)
    assert {check.name for check in verdict(tree).failures} & {"fit", "pareto_k"}


def test_the_centre_is_no_place_to_ask(dusty_stars):
    with pytest.raises(BayesdustError, match="Place 2 of the 2 asked for is the Galactic centre"):
        load("mw_cbe_linear").prepare(
            dusty_stars, SMALL, np.array([[-8.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        )


def test_stars_far_from_the_sun_are_asked_about(dusty):
    """Heliocentric x for Galactocentric: the stars' middle is eight kpc off."""
    table = dusty.table()
    table["x"] += 8.122
    notes = load("mw_cbe_linear").prepare(read_milky_way(table), SMALL, POINTS).notes
    assert any("are x, y, z Galactocentric" in note for note in notes)
    near = load("mw_cbe_linear").prepare(dusty.stars(), SMALL, POINTS).notes
    assert not any("Galactocentric" in note for note in near)


def test_the_networks_have_the_same_parts():
    """What Phi is made of beside its field, and the priors of that."""
    pages = [shipped()[f"mw_cbe_{name}"].read_text() for name in ("linear", "neural")]
    one, other = (page.split("PARTS = {")[1].split("def prepare")[0] for page in pages)
    assert one == other
    assert "SIZES = {" in one


def test_density_is_the_divergence_of_the_force(data):
    """Of every part and mode: Poisson's equation, and the force is the gradient of phi."""
    x = jnp.array([-7.3, 0.6, 0.4])
    found = data.potentials(x)
    slope = jax.jacfwd(lambda x: data.potentials(x)["phi"])(x)
    np.testing.assert_allclose(found["acceleration"], -slope, rtol=1e-9, atol=1e-9)
    divergence = jnp.trace(
        jax.jacfwd(lambda x: data.potentials(x)["acceleration"])(x), axis1=1, axis2=2
    )
    wanted = -divergence / (4 * jnp.pi * G)
    np.testing.assert_allclose(found["rho"], wanted, rtol=1e-7, atol=1e-3)


def dense(data, normal, at):
    """Mean, covariance and ln evidence of the coefficients in the information form."""
    S = np.asarray(data.variances(normal[:, 1], at))
    m = np.zeros(len(S))
    m[: len(normal)] = normal[:, 0]
    F, c = data.slopes, data.constant
    precision = F.T @ F + np.diag(1 / S)
    slope = -F.T @ c + m / S + data.pull
    cov = np.linalg.inv(precision)
    mean = cov @ slope
    quadratic = 0.5 * slope @ mean - 0.5 * c @ c - 0.5 * np.sum(m**2 / S)
    size = -0.5 * np.linalg.slogdet(precision)[1] - 0.5 * np.sum(np.log(S))
    return mean, cov, quadratic + size


#: (mean, sd) of the parts' sizes: halo, three discs, bulge, and what other lengths would add
NORMAL = jnp.asarray([[1.0, 1.0]] * 4 + [[1.0, 0.25]] + [[0.0, 0.5]] * 4)


@pytest.fixture(scope="module")
def algebra(data):
    """The data with few coefficients, so that the information form loses no digits, and one prior."""
    at = {
        "sigma": 60.0,
        "length_R": 2.0,
        "length_phi": 3.0,
        "length_z": 0.7,
        "sigma_dust": 0.1,
        "length_dust": 0.8,
    }
    return data, NORMAL, {name: jnp.asarray(value) for name, value in at.items()}


def test_draws_are_those_of_the_normal_posterior(algebra):
    data, normal, at = algebra
    mean, cov, _ = dense(data, normal, at)
    many = {name: jnp.full(400, value) for name, value in at.items()}
    b = linear_posterior._conditioned(data, normal, many, jax.random.PRNGKey(3))
    n = len(b)
    p = len(mean)

    def surprise(mean):
        """Of the mean of n draws: chi2 of p."""
        off = b.mean(axis=0) - mean
        return stats.chi2.sf(n * off @ np.linalg.solve(cov, off), p)

    assert surprise(mean) > 1e-4
    ratio = b.var(axis=0) / np.diag(cov)
    assert np.max(abs(ratio - 1)) < stats.norm.isf(1e-4 / p) * np.sqrt(2 / n)
    bare = dataclasses.replace(data, pull=np.zeros(p))  # the stars' own pull is seen
    assert surprise(dense(bare, normal, at)[0]) < 1e-4


def test_evidence_is_the_integral(algebra):
    """Differences between two priors against the information form."""
    data, normal, at = algebra
    found, wanted = [], []
    for sigma in (30.0, 150.0):
        here = at | {"sigma": jnp.asarray(sigma)}
        found.append(float(linear_posterior._evidence(data, normal, here)))
        wanted.append(dense(data, normal, here)[2])
    assert found[1] - found[0] == pytest.approx(wanted[1] - wanted[0], abs=1e-4)
    assert abs(found[1] - found[0]) > 0.01


def test_evidence_is_that_of_the_sums_where_the_gauge_holds(algebra):
    """For one set of fields the normal law of the sums, given that of the gauge."""
    data, normal, at = algebra
    bare = dataclasses.replace(data, pull=np.zeros_like(data.pull))
    one = {name: value[None] for name, value in at.items()}
    evidences = np.asarray(linear_posterior._evidences(bare, normal, one))
    found, error = linear_posterior._ln_evidence(bare, normal, one, evidences)
    S = np.asarray(bare.variances(normal[:, 1], at))
    m = np.zeros(len(S))
    m[: len(normal)] = normal[:, 0]
    mean, cov = (
        bare.constant + bare.slopes @ m,
        np.eye(len(bare.constant)) + (bare.slopes * S) @ bare.slopes.T,
    )
    across, gauge = cov[:-1, -1], cov[-1, -1]
    given = stats.multivariate_normal(
        mean[:-1] - across * mean[-1] / gauge, cov[:-1, :-1] - np.outer(across, across) / gauge
    )
    assert found == pytest.approx(given.logpdf(np.zeros(len(mean) - 1)), abs=1e-6)
    assert error == 0.0
    free = stats.multivariate_normal(mean[:-1], cov[:-1, :-1]).logpdf(np.zeros(len(mean) - 1))
    assert abs(found - free) > 1e-4  # the gauge counts


def test_error_of_the_evidence_is_its_scatter(algebra):
    data, normal, _ = algebra
    fields = linear_posterior.Fields(*[stats_of(name) for name in linear_posterior.Fields._fields])
    found = []
    for seed in range(30):
        some = fields.draw(jax.random.PRNGKey(seed), 60)
        evidences = np.asarray(linear_posterior._evidences(data, normal, some))
        found.append(linear_posterior._ln_evidence(data, normal, some, evidences))
    values, errors = np.array(found).T
    # that of 30 values has an error of 13 %, and each of the errors one of its own
    assert values.std(ddof=1) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.5)


def stats_of(name):
    """Narrow priors, that 60 draws stand for."""
    middle = {
        "sigma": 50.0,
        "length_phi": 6.0,
        "length_z": 0.8,
        "sigma_dust": 0.1,
        "length_dust": 1.0,
    }
    return dist.LogNormal(np.log(middle.get(name, 3.0)), 0.2)


def test_gauge_holds_epsilon_at_the_sun(data):
    at = {
        "sigma": 60.0,
        "length_R": 2.0,
        "length_phi": 3.0,
        "length_z": 0.7,
        "sigma_dust": 0.5,
        "length_dust": 0.8,
    }
    many = {name: jnp.full(50, value) for name, value in at.items()}
    b = linear_posterior._conditioned(data, NORMAL, many, jax.random.PRNGKey(0))
    field = b[:, -data.dust_modes.number :]
    here = field @ np.asarray(data.dust_modes.values(jnp.asarray(data.sun)))
    away = field @ np.asarray(
        data.dust_modes.values(jnp.asarray(data.sun + np.array([2.0, 0.0, 0.0])))
    )
    assert here.std() < 0.012
    assert away.std() > 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modes": 0}, "modes cannot be 0: give a whole number"),
        ({"dust_modes": 1.5}, "dust_modes cannot be 1.5"),
        ({"fields": 3}, "no option 'fields'"),
        ({"efficiency": "guess"}, "choose from auto, none, given, magnitudes, free"),
        ({"likelihood": "flow", "efficiency": "free"}, "the dust cannot be free"),
        ({"errors": "guess"}, "choose from auto, ignored, deconvolved"),
    ],
)
def test_bad_options(dusty_stars, options, words):
    with pytest.raises(BayesdustError, match=words):
        load("mw_cbe_linear").prepare(dusty_stars, options, POINTS)


def test_a_posterior_that_returns_something_else(dusty_stars, tmp_path):
    path = tmp_path / "mine.py"
    text = load("mw_cbe_linear").path.read_text()
    text = text.replace("def posterior(", "def theirs(")
    path.write_text(text + "\n\ndef posterior(data, key):\n    return 3\n")
    with pytest.raises(BayesdustError, match="must return a bayesdust"):
        galaxy_posterior.fit(load(path), dusty_stars, POINTS, options=SMALL)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_draws": 100}, "without setting 'num_draws'"),
        ({"method": "vi"}, "without setting 'method'"),
    ],
)
def test_settings_of_samplers_are_refused(dusty_stars, settings, words):
    with pytest.raises(BayesdustError, match=words):
        galaxy_posterior.fit(load("mw_cbe_linear"), dusty_stars, POINTS, options=SMALL, **settings)
