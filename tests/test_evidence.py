"""The evidence against closed forms, against Savage and Dickey's ratio, and of models that are wrong."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import tiny
from numpyro.infer.util import potential_energy
from scipy import stats
from scipy.special import logsumexp

import bayesdust as bd
from bayesdust import evidence_run
from bayesdust.demo import request
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.inference import evidence, nuts, tempering
from bayesdust.inference.evidence import Evidence, Plan, evidence_of
from bayesdust.inference.posterior import prepared
from bayesdust.inference.programs import load
from bayesdust.inference.tempering import Run

SEEN = np.random.default_rng(2).normal(0.5, 1.5, 30)
DESIGN = np.random.default_rng(1).normal(size=(30, 4))
NOISE, PRIOR_SD = 0.7, 2.0


def conjugate(data):
    """Normal in four dimensions; an interval and a positive number of their own beside them."""
    x = numpyro.sample("x", dist.Normal(0.0, PRIOR_SD).expand([4]).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.asarray(DESIGN) @ x, NOISE), obs=SEEN)
    share = numpyro.sample("share", dist.Uniform(0.0, 1.4))
    numpyro.factor("seen share", dist.Normal(share, 0.2).log_prob(1.2))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    numpyro.sample("ln_scale", dist.Normal(jnp.log(scale), 0.5), obs=2.0)


def exact():
    """Its ln Z in closed form."""
    covariance = PRIOR_SD**2 * DESIGN @ DESIGN.T + NOISE**2 * np.eye(30)
    inside = stats.norm.cdf((1.4 - 1.2) / 0.2) - stats.norm.cdf(-1.2 / 0.2)
    return (
        stats.multivariate_normal(np.zeros(30), covariance).logpdf(SEEN)
        + np.log(inside / 1.4)
        + stats.norm.logpdf(2.0, 0.0, np.hypot(1.0, 0.5))
    )


def z_of(found: Evidence, truth: float) -> float:
    """How far ln Z is from the truth, in half-widths of its 99.9 % interval."""
    return abs(found.ln_z - truth) / (stats.t.ppf(0.9995, len(found.runs) - 1) * found.error)


PLAN = Plan(num_runs=8, num_particles=400)


def test_closed_form():
    found = evidence_of(conjugate, None, PLAN)
    assert z_of(found, exact()) < 1
    # the tolerance is small: eight runs, each of a variance of about temperatures (1/TARGET - 1)/N
    theory = np.sqrt(found.runs[0].temperatures * (1 / tempering.TARGET - 1) / 400 / 8)
    assert found.error < 2.5 * theory < 0.15
    assert not found.warnings
    assert found.num_particles == 400
    assert len({run.ln_z for run in found.runs}) == 8


def test_a_prior_without_its_jacobian_is_found_out(monkeypatch):
    """The same check rejects an estimator whose prior lacks the Jacobian of the scale."""
    right = tempering.target_of(conjugate, None, 400)
    order = jax.flatten_util.ravel_pytree({"scale": 1.0, "share": 0.0, "x": jnp.zeros(4)})[0]
    place = int(jnp.argmax(order))

    def wrong(y):
        return right.ln_prior(y) - y[place]  # d scale / d y = exp(y)

    target = right._replace(ln_prior=wrong)
    monkeypatch.setattr(evidence, "target_of", lambda *_: target)
    assert z_of(evidence_of(conjugate, None, PLAN), exact()) > 3


def test_prior_and_likelihood_make_up_the_joint_density():
    """Jacobians, which NumPyro adds as factors too, are the prior's; other factors the likelihood's."""
    target = tempering.target_of(conjugate, None, 5)
    y = target.draw(jax.random.PRNGKey(3))
    assert y.shape == (5, 6)
    for point in y:
        z = {"scale": point[0], "x": point[2:]}
        share = 1.4 * stats.norm.cdf(point[1])  # where a flat prior is a standard normal
        ln_likelihood = (
            stats.norm.logpdf(SEEN, DESIGN @ z["x"], NOISE).sum()
            + stats.norm.logpdf(1.2, share, 0.2)
            + stats.norm.logpdf(2.0, z["scale"], 0.5)
        )
        np.testing.assert_allclose(target.ln_likelihood(point), ln_likelihood, rtol=1e-6)
        ln_prior = stats.norm.logpdf([*point[:2], *point[2:] / PRIOR_SD]).sum()
        ln_prior -= 4 * np.log(PRIOR_SD)
        np.testing.assert_allclose(target.ln_prior(point), ln_prior, rtol=1e-6)


def test_a_prior_that_leaves_out_the_truth_is_rejected():
    def of(low):
        def model(data):
            x = numpyro.sample("x", dist.Uniform(low, low + 4.0))
            numpyro.sample("y", dist.Normal(x, 1.0), obs=SEEN)

        return evidence_of(model, None, dataclasses.replace(PLAN, num_particles=200))

    right, wrong = of(-1.5), of(2.5)
    difference = right.against(wrong)
    # int N(SEEN; x, 1) dx over each interval, what they share left out
    law = stats.norm(SEEN.mean(), 1 / np.sqrt(30))
    truth = np.log(law.cdf(2.5) - law.cdf(-1.5)) - law.logsf(2.5)
    assert abs(difference.value - truth) < 2 * difference.half_width
    assert difference.value - difference.half_width > 20


def runs_of(*ln_z):
    return tuple(Run(value, 12, 280.0, 0.9) for value in ln_z)


def test_error_of_the_runs():
    found = Evidence.of(runs_of(-10.1, -9.9, -10.0, -10.2), 400)
    assert found.ln_z == pytest.approx(logsumexp([-10.1, -9.9, -10.0, -10.2]) - np.log(4))
    assert found.error == pytest.approx(np.std([0.1, -0.1, 0.0, 0.2], ddof=1) / 2)
    assert found.half_width == pytest.approx(3.182 * found.error, rel=1e-3)
    assert "ln Z = -10.04 +- 0.06 (95 %: +- 0.21; 4 runs of 400 particles, 12 temp" in str(found)
    other = Evidence.of(runs_of(-12.1, -11.9, -12.0, -12.2), 400)
    value, error, width = found.against(other)
    assert value == pytest.approx(2.0)
    assert error == pytest.approx(np.sqrt(2) * found.error)
    assert width == pytest.approx(stats.t.ppf(0.975, 6) * error)


def test_what_speaks_against_it_is_said():
    assert "scatters by 0.85" in Evidence.of(runs_of(-1.0, -2.0, -3.0, -1.5), 400).warnings[0]
    poor = tuple(run._replace(ess=50.0, acceptance=0.2) for run in runs_of(1.0, 1.1, 1.2, 1.0))
    assert [s.split(" of the ")[0] for s in Evidence.of(poor, 400).warnings] == [
        "At one temperature only 20%",
        "At one temperature only 12%",
    ]


def test_other_data_are_not_compared():
    one = Evidence.of(runs_of(-1.0, -2.0, -3.0, -1.5), 400, ("a", "v_los"))
    with pytest.raises(BayesdustError, match="not of the same data"):
        one.against(dataclasses.replace(one, data=("a", "light", "v_los")))


def test_without_a_finite_likelihood():
    def model(data):
        numpyro.factor("nowhere", -jnp.inf * numpyro.sample("x", dist.Uniform(1.0, 2.0)))

    with pytest.raises(BayesdustError, match="No draw from the prior gives the stars a finite"):
        evidence_of(model, None, PLAN)


def test_where_much_of_the_prior_has_no_likelihood():
    """Z of a likelihood that is finite in a tenth of the prior, e^3 there."""

    def model(data):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.factor("cut", jnp.where(x > stats.norm.isf(0.1), 3.0, -jnp.inf))

    found = evidence_of(model, None, dataclasses.replace(PLAN, num_particles=500))
    assert z_of(found, 3.0 + np.log(0.1)) < 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_runs": 3}, "do not tell an error"),
        ({"num_particles": 50}, "too few to learn a covariance"),
        ({"particles": 50}, "no setting 'particles'"),
    ],
)
def test_settings_are_refused(settings, words):
    with pytest.raises(BayesdustError, match=words):
        bd.log_evidence("dsph_gnfw", request(n=20).stars, **settings)


def test_models_of_other_kinds_are_refused():
    with pytest.raises(BayesdustError, match="of kind milky_way: the evidence"):
        bd.log_evidence("mw_cbe_gnfw", request(n=20).stars)


# The command


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.lay_out(tmp_path)


WORDS = ["evidence", "tiny.py", "stars.ecsv", "--galaxy", "mock.toml", "--particles", "200"]


def test_the_command_prints_ln_z_and_how_far_it_is(here, call):
    code, out, err = call(*WORDS)
    assert code == 0
    assert out.startswith("ln Z = -368.")
    assert "tempering: " in err
    assert not (here / ".partial").exists()


def test_the_folder_and_going_on(here, call, monkeypatch):
    """A stopped run keeps what is done; the whole has the same ln Z as one that was not stopped."""
    monkeypatch.setattr(evidence, "cores", lambda: 1)
    whole, carried = tempering.carry, []

    def stopped(*arguments):
        carried.append(1)
        if len(carried) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(evidence, "carry", stopped)
    code, _, err = call(*WORDS, "--out", "out")
    assert code == 130
    assert "repeat the command to go on" in err
    assert sorted(p.name for p in (here / "out" / ".partial").glob("run-*")) == [
        "run-0000.json",
        "run-0001.json",
    ]
    monkeypatch.setattr(evidence, "carry", whole)
    code, out, _ = call(*WORDS, "--out", "out")
    assert code == 0
    assert out == call(*WORDS)[1]
    about = json.loads((here / "out" / "run.json").read_text())
    assert about["passed"]
    assert f"{about['ln_z']:.2f}" in out
    assert about["data"][1:] == ["v_los"]
    assert (here / "out" / "evidence.ecsv").read_text().count("\n") > 4
    assert not (here / "out" / ".partial").exists()
    assert str(evidence_run.load(here / "out")) == out.strip()
    with pytest.raises(BayesdustError, match="holds no finished evidence"):
        evidence_run.load(here)


def test_a_damaged_run_is_named(here):
    folder = here / "kept"
    folder.mkdir()
    (folder / "run-0001.json").write_text('{"ln_z": ')
    stars = bd.read_stars(here / "stars.ecsv", here / "mock.toml")
    with pytest.raises(ResumableError, match=r"run-0001\.json is damaged: remove"):
        bd.log_evidence(here / "tiny.py", stars, checkpoint=folder)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evidence", "mw_cbe_gnfw", "stars.ecsv"], "of kind milky_way"),
        ([*WORDS, "--option", "gamma=2"], "Option gamma cannot be 2.0"),
        (["evidence", "none", "stars.ecsv"], "There is no model 'none'"),
        ([*WORDS, "--runs", "2"], "Input should be greater than or equal to 4"),
        (WORDS[:3], "--galaxy"),
    ],
)
def test_bad_input(here, call, words, sentence):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.strip().count("\n") == 0


# Core and cusp


def test_against_another(here, call, tmp_path):
    """The difference is shown with its interval; of other stars there is none."""
    call(*WORDS, "--out", "one")
    code, out, _ = call(*WORDS, "--seed", "1", "--against", "one")
    assert code == 0
    shown, found = out.splitlines()[1], evidence_run.load("one")
    ours = bd.log_evidence(
        "tiny.py", bd.read_stars("stars.ecsv", "mock.toml"), num_particles=200, seed=1
    )
    assert shown == f"{ours.against(found)} against one"
    assert shown.startswith("ln K = ")
    table = tiny.stars()
    table["v_los"] *= 2
    again = bd.read_stars(table, "mock.toml")
    with pytest.raises(BayesdustError, match="not of the same data"):
        bd.log_evidence("tiny.py", again, num_particles=200).against(found)
    assert call(*WORDS, "--against", "none")[0] == 2


def test_scatter_makes_the_exit_code(here, call, monkeypatch):
    poor = Evidence.of(runs_of(-1.0, -2.0, -3.0, -1.5), 400)
    monkeypatch.setattr(evidence_run, "log_evidence", lambda *_, **__: poor)
    code, _, err = call(*WORDS)
    assert code == 3
    assert "scatters" in err


def savage_dickey(stars, gamma, seed):
    """ln K of gamma given against gamma free: ln p(gamma | stars) - ln p(gamma), and its error.

    Dickey 1971 (Ann. Math. Stat. 42, 204). The posterior's density is the mean over its draws of the
    density of gamma given all else (Gelfand & Smith 1990, JASA 85, 398), by quadrature in gamma.
    """
    program = load("dsph_gnfw")
    data = prepared(program, stars, {"light_gamma": 1.0})
    draws = nuts.run_nuts(program.model, data, nuts.Plan(num_draws=500, seed=seed))
    grid = 1.4 * (np.arange(56) + 0.5) / 56  # midpoints
    slopes = np.append(grid, gamma)

    def ln_conditional(z):
        def joint(g):
            at = {**z, "gamma": jnp.log(g) - jnp.log(1.4 - g)}
            # without the Jacobian of gamma: a density of gamma itself
            return -potential_energy(program.model, (data,), {}, at) - jnp.log(g * (1.4 - g))

        values = jax.lax.map(joint, jnp.asarray(slopes))
        cells = values[:-1] + jnp.log(1.4 / len(grid))
        return values[-1] - jax.scipy.special.logsumexp(cells)

    flat = {name: jnp.asarray(value[:, ::5]) for name, value in draws.z.items()}
    ln_p = np.array(jax.jit(jax.vmap(lambda z: jax.lax.map(ln_conditional, z)))(flat))
    each = np.exp(ln_p).mean(axis=1)  # of each chain
    value = float(np.log(each.mean() * 1.4))
    return value, float(each.std(ddof=1) / np.sqrt(len(each)) / each.mean())


@pytest.mark.slow
def test_savage_and_dickey():
    """ln K of a cusp against a free slope, from one posterior and from two ln Z."""
    stars = request(n=100).stars
    expected, error = savage_dickey(stars, 1.0, seed=4)
    found = [
        bd.log_evidence("dsph_gnfw", stars, options=o, num_runs=6, num_particles=300)
        for o in ({"light_gamma": 1.0, "gamma": 1.0}, {"light_gamma": 1.0})
    ]
    difference = found[0].against(found[1])
    assert difference.error < 0.15
    # three degrees of freedom of the chains, ten of the runs
    assert abs(difference.value - expected) < 4 * np.hypot(difference.error, error)


def test_a_given_slope_is_a_constant():
    """It is what gamma is in the products, and is reported as a constant."""
    program, stars = load("dsph_gnfw"), request(n=20).stars
    given = program.prepare(stars, {"gamma": 0.6})
    free = program.prepare(stars, {})
    values = {"rhalf": 9.5, "ln_r_s": -0.3, "ln_mass": 17.0, "v_sys": 4.0, "beta_tilde": 0.1}

    def trace(data, **more):
        seeded = numpyro.handlers.seed(program.model, 0)
        return numpyro.handlers.trace(numpyro.handlers.substitute(seeded, values | more)).get_trace(
            data
        )

    one, other = trace(given), trace(free, gamma=0.6)
    assert one["gamma"]["type"] == "deterministic"
    assert "gamma" not in nuts.latent_sites(program.model, given)
    for name in ("rho", "log10_J", "sigma_los", "gamma"):
        np.testing.assert_allclose(one[name]["value"], other[name]["value"], rtol=1e-12)
    for bad in (2.0, -0.1, "steep", True):
        with pytest.raises(BayesdustError, match=r"Option gamma cannot be .*: give a number"):
            program.prepare(stars, {"gamma": bad})
