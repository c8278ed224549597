"""Variational inference: right where the answer is known, and flagged where the guide is wrong."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import tiny
from benchmarks import check_vi
from flowjax.distributions import MultivariateNormal, Normal

from bayesdust.catalogs.dwarf import read_stars
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.gate import PARETO_K_MAX, verdict
from bayesdust.inference import variational
from bayesdust.inference.importance import resample, smooth, weigh
from bayesdust.inference.nuts import latent_sites
from bayesdust.inference.posterior import fit
from bayesdust.inference.variational import Plan, approximate, laplace, negative_elbo, run_vi
from bayesdust.summary import summarise

MEAN = np.array([1.0, -20.0, 0.3])
ROOT = np.array([[0.2, 0.0, 0.0], [4.0, 3.0, 0.0], [-0.5, 0.1, 0.3]])
COVARIANCE = ROOT @ ROOT.T
LN_EVIDENCE = 4.0
KEY = jax.random.key(0)


def gaussian(x):
    """A correlated normal law times exp(LN_EVIDENCE)."""
    return jax.scipy.stats.multivariate_normal.logpdf(x, MEAN, COVARIANCE) + LN_EVIDENCE


def banana(x):
    """x0 is standard normal, and x1 normal about x0^2 / 2 with sd 0.5; mean (0, 0.5)."""
    bent = jax.scipy.stats.norm.logpdf(x[1], 0.5 * x[0] ** 2, 0.5)
    return jax.scipy.stats.norm.logpdf(x[0]) + bent


#: ELBO of the best normal guide on `banana`, independent with sds a and 1/2: the maximum over a of
#: 1/2 + ln a - a^2/2 - a^4, where 4 a^4 + a^2 = 1
_A2 = (np.sqrt(17) - 1) / 8
BEST_NORMAL = 0.5 + 0.5 * np.log(_A2) - 0.5 * _A2 - _A2**2


def test_the_mode_and_the_width_there():
    mode, root = laplace(gaussian, jnp.asarray([MEAN + 3, MEAN - 5]))
    np.testing.assert_allclose(mode, MEAN, atol=1e-4)
    np.testing.assert_allclose(root @ root.T, COVARIANCE, rtol=1e-3, atol=1e-4)


def test_nowhere_finite():
    with pytest.raises(BayesdustError, match="not finite at any starting point"):
        laplace(lambda x: jnp.log(-jnp.sum(x**2)), jnp.ones((2, 3)))


def test_the_sign_of_the_elbo():
    """Its loss is minus ln evidence for the exact guide, and more for any other, by the K-L distance."""
    exact = MultivariateNormal(MEAN, COVARIANCE)
    assert negative_elbo(exact, gaussian, KEY, 100) == pytest.approx(-LN_EVIDENCE, abs=1e-9)
    wide = MultivariateNormal(MEAN, 4 * COVARIANCE)
    distance = 1.5 * (4 - 1 - np.log(4))
    found = float(negative_elbo(wide, gaussian, KEY, 20_000))
    assert found == pytest.approx(distance - LN_EVIDENCE, abs=0.1)


def distance_to_the_law(u):
    """K-L distance of a normal guide from the standard normal, of its draws u (d, n); its error.

    The error is that of the mean of ln q - ln p over the draws, whose sd for a normal guide of
    covariance C and mean m is sqrt(tr (C - 1)^2 / 2 + m C m).
    """
    mean, cov = u.mean(axis=1), np.cov(u)
    excess = cov - np.eye(len(mean))
    distance = (np.trace(excess) + mean @ mean - np.linalg.slogdet(cov)[1]) / 2
    variance = np.trace(excess @ excess) / 2 + mean @ cov @ mean
    return distance, np.sqrt(variance / u.shape[1])


FULL_RANK = Plan(guide="normal", num_steps=250, num_proposals=10_000)


@pytest.fixture(scope="module")
def full_rank():
    """What a full-rank normal finds on a normal law, and the progress it told."""
    steps = []
    plan = dataclasses.replace(FULL_RANK, on_progress=lambda *state: steps.append(state))
    return approximate(gaussian, jnp.zeros((1, 3)), plan), steps


def test_full_rank_normal_on_a_normal_law(full_rank):
    found, steps = full_rank
    u = np.linalg.solve(ROOT, (found.x - MEAN).T)
    error = 1 / np.sqrt(found.ess)
    np.testing.assert_allclose(u @ found.weights, 0.0, atol=5 * error)
    np.testing.assert_allclose(
        np.cov(u, aweights=found.weights), np.eye(3), atol=5 * np.sqrt(2) * error
    )
    assert found.pareto_k < PARETO_K_MAX
    # half of the weights' worth is kept even by a guide twice as wide in every direction
    assert found.ess > len(found.x) / 2
    distance, error = distance_to_the_law(u)
    assert found.elbo == pytest.approx(LN_EVIDENCE - distance, abs=5 * error)
    assert distance > 10 * error  # so that an ELBO without the distance would be seen
    phases = list(dict.fromkeys(phase for _, _, phase in steps))
    assert phases == ["looking for the mode", "compiling", "training", "weighing"]
    assert [s[:2] for s in steps if s[2] == "training"] == [(n, 300) for n in (0, 100, 200, 300)]


@pytest.mark.slow
def test_a_flow_bends_where_a_normal_cannot():
    """The flow of middle k among three: training is chaotic, and k of one run the work of few draws."""
    start = jnp.zeros((1, 2))
    normal = approximate(banana, start, Plan(guide="normal", num_steps=300))
    flows = [approximate(banana, start, Plan(num_steps=1200, seed=seed)) for seed in range(3)]
    flow = sorted(flows, key=lambda found: found.pareto_k)[1]
    errors = [5 * np.std(g.log_weights) / np.sqrt(len(g.x)) for g in (flow, normal)]
    assert flow.pareto_k <= PARETO_K_MAX
    assert flow.ess > normal.ess
    assert flow.elbo < errors[0]  # ln evidence is 0
    assert normal.elbo < BEST_NORMAL + errors[1]
    assert flow.elbo > BEST_NORMAL + errors[0]
    # after weighing, to the Monte Carlo error; fourth moments: 3 of a normal, at most 7 of the sum
    mean = flow.weights @ flow.x
    sd = np.sqrt(flow.weights @ (flow.x - mean) ** 2)
    exact = np.sqrt([1.0, 0.5**2 + 0.5])
    error = 1 / np.sqrt(flow.ess)
    np.testing.assert_allclose((mean - [0.0, 0.5]) / exact, 0.0, atol=5 * error)
    np.testing.assert_allclose(sd / exact, 1.0, atol=5 * np.sqrt(6) / 2 * error)


def test_a_narrow_guide_is_flagged_and_a_wide_one_corrected():
    narrow = weigh(gaussian, MultivariateNormal(MEAN, COVARIANCE / 4), 10_000, KEY)
    assert narrow.pareto_k > PARETO_K_MAX
    wide = weigh(gaussian, MultivariateNormal(MEAN + 0.1, 2 * COVARIANCE), 10_000, KEY)
    assert wide.pareto_k < PARETO_K_MAX
    kept = wide.x[resample(wide.weights, 4000, KEY)]
    np.testing.assert_allclose(np.cov(kept.T), COVARIANCE, rtol=0.1, atol=0.03)


def test_a_mean_field_guide_is_flagged():
    """Independent normal laws as reverse K-L makes them: sds of the conditionals."""
    target = jnp.eye(2) * 0.05 + 0.95
    log_density = partial(jax.scipy.stats.multivariate_normal.logpdf, mean=jnp.zeros(2), cov=target)
    sds = 1 / jnp.sqrt(jnp.diag(jnp.linalg.inv(target)))
    assert weigh(log_density, Normal(jnp.zeros(2), sds), 10_000, KEY).pareto_k > PARETO_K_MAX


@pytest.mark.parametrize("k", [0.2, 0.9])
def test_pareto_k_of_known_tails(k):
    """exp(k E) with E exponential has a Pareto tail of shape k."""
    rng = np.random.default_rng(1)
    weights, found = smooth(k * rng.exponential(size=40_000))
    assert found == pytest.approx(k, abs=0.15)
    assert np.sum(weights) == pytest.approx(1)


def test_weights_without_a_tail():
    assert smooth(np.zeros(100))[1] == 0
    weights, k = smooth(np.full(100, -np.inf))
    assert k == np.inf
    assert np.sum(weights) == pytest.approx(1)
    some = np.where(np.arange(1000) % 2, -np.inf, 0.1 * np.random.default_rng(0).normal(size=1000))
    weights, k = smooth(some)
    assert k < PARETO_K_MAX
    assert np.sum(weights[1::2]) == 0


def test_resampling_follows_the_weights():
    weights = np.array([0.5, 0.0, 0.3, 0.2])
    counts = np.bincount(resample(weights, 1000, KEY), minlength=4)
    np.testing.assert_allclose(counts, 1000 * weights, atol=1)


def bounded_model(data):
    """A uniform prior with data that say nothing: the longest tails there are."""
    numpyro.sample("flat", dist.Uniform(-2.0, 3.0).expand([2]))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    numpyro.sample("y", dist.Normal(0.0, scale), obs=data)


def test_a_uniform_prior_is_a_normal_law_to_the_guide():
    data = np.random.default_rng(0).normal(size=20)
    draws, facts = run_vi(bounded_model, data, Plan(guide="normal", num_steps=200, num_draws=2000))
    assert latent_sites(bounded_model, data) == ["flat", "scale"]
    assert draws.z["flat"].shape == (1, 2000, 2)
    assert draws.z["scale"].shape == (1, 2000)
    assert draws.stats == {}
    flat = np.sort(jax.nn.sigmoid(draws.z["flat"][0]), axis=0)
    np.testing.assert_allclose(flat, np.linspace(0, 1, 2000)[:, None] * np.ones(2), atol=0.05)
    assert facts["pareto_k"] < 0.5
    assert 1500 < facts["psis_ess"] < 2000


def test_stopped_training_goes_on_to_the_same_draws(full_rank, tmp_path):
    class Stop:
        def __call__(self, done, total, phase):
            if done == 200:
                raise KeyboardInterrupt

    start, seen = jnp.zeros((1, 3)), []
    kept = dataclasses.replace(FULL_RANK, checkpoint=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        approximate(gaussian, start, dataclasses.replace(kept, on_progress=Stop()))
    kept = dataclasses.replace(kept, on_progress=lambda *state: seen.append(state))
    again = approximate(gaussian, start, kept)
    assert (200, 300, "training") in seen
    assert (100, 300, "training") not in seen
    np.testing.assert_array_equal(full_rank[0].x, again.x)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ResumableError, match="damaged"):
        approximate(gaussian, start, kept)


def test_a_fit_from_stars_to_verdict(tmp_path):
    folder = tiny.lay_out(tmp_path)
    stars = read_stars(tiny.stars(), str(folder / "mock.toml"))
    tree = fit(folder / "tiny.py", stars, method="vi-normal", num_steps=300, num_draws=500, seed=1)
    assert tree.attrs["method"] == "vi-normal"
    assert "sample_stats" not in tree.children
    assert tree["posterior"].sizes == {"chain": 1, "draw": 500}
    assert {"prior", "posterior_predictive", "observed_data"} <= set(tree.children)
    assert json.loads(tree.attrs["parameters"]) == ["v_sys", "ln_sigma"]
    table = summarise(tree)
    assert verdict(tree, table).passed
    width = np.hypot(np.exp(tree["posterior"]["ln_sigma"]).mean(), 2.0)
    assert width == pytest.approx(np.std(stars.v_los), rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "mcmc"}, "no method 'mcmc': choose from nuts, vi, vi-flow, vi-normal"),
        ({"method": "vi", "num_chains": 4}, "Method vi has no setting 'num_chains'"),
        ({"method": "nuts", "num_steps": 4}, "Method nuts has no setting 'num_steps'"),
        ({"method": "vi", "guide": "normal"}, "no setting 'guide'"),
    ],
)
def test_unknown_methods_and_settings(tmp_path, settings, message):
    folder = tiny.lay_out(tmp_path)
    stars = read_stars(tiny.stars(), str(folder / "mock.toml"))
    with pytest.raises(BayesdustError, match=message):
        fit(folder / "tiny.py", stars, **settings)


def test_unknown_guide():
    with pytest.raises(BayesdustError, match="no guide 'planar'"):
        variational.Plan(guide="planar")


def test_the_check_tells_good_from_bad():
    """The page of `make check-vi`, on draws made up: one guide right, one wrong in every way."""
    rng = np.random.default_rng(0)
    reference = {name: rng.normal(5.0, 2.0, (4, 2000)) for name in ("gamma", "v_sys")}
    right = {name: rng.normal(5.0, 2.0, (1, 8000)) for name in reference}
    wrong = {name: rng.normal(6.0, 1.0, (1, 8000)) for name in reference}
    flow = check_vi.Outcome("flow", 0, 0.5, 9000.0, -10.0, 20.0, wrong, right)
    normal = check_vi.Outcome("normal", 0, 0.9, 900.0, -11.0, 10.0, wrong, wrong)
    found = check_vi.deviations(wrong, reference)["gamma"]
    assert found == pytest.approx((0.5, 0.5), abs=0.03)
    assert check_vi.within(flow, reference)
    assert not check_vi.within(flow._replace(pareto_k=0.8), reference)
    assert not check_vi.within(flow._replace(after=wrong), reference)
    text = check_vi.page([flow, normal], reference, {"gamma": 4500.0, "v_sys": 9000.0}, "make it")
    assert "smallest bulk ESS 4,500" in text
    assert "so in 1 of 1 runs" in text
    assert text.count("**not to be trusted**") == 1
    assert "| v_sys |" in text
