"""Stars that are not members: told from members, or said so at the top; never silently weighed."""

import json
import logging

import fake_tree
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from astropy.table import Table
from scipy import stats
from test_dwarf_models import stars_of, v_los_terms
from tiny import MODEL

from bayesdust import gate, influence, literature, mocks, rings, summary
from bayesdust.catalogs.dwarf import read_stars
from bayesdust.catalogs.facts import Galaxy
from bayesdust.errors import BayesdustError
from bayesdust.inference import dwarf, posterior, programs
from bayesdust.products import j_factor
from bayesdust.report import write_report
from bayesdust.tracers import Plummer
from bayesdust.units import ARCMIN

ONE_NORMAL = """    mean = numpyro.sample("v_foreground", dist.Normal(0.0, 150.0))
    scale = numpyro.sample("sigma_foreground", dist.LogNormal(jnp.log(80.0), 0.7))
    foreground = dist.Normal(mean, scale)
"""


# A model heeds the probabilities, or it is said that it does not


@pytest.mark.parametrize("name", programs.shipped("dwarf"))
def test_every_shipped_model_heeds_probabilities(name):
    """The likelihood falls to that of the foreground as a star's probability falls to nought."""
    program = programs.load(name)
    p = np.full(40, 0.9)
    p[7] = 0.0
    data = program.prepare(stars_of(p_member=p), {})
    assert data.notes == program.prepare(stars_of(), {}).notes
    assert data.options["membership"] == "given"
    assert posterior._is_mixture(program.model, data)
    none = program.prepare(stars_of(p_member=p), {"membership": "none"})
    assert not posterior._is_mixture(program.model, none)


@pytest.mark.parametrize("name", [n for n in programs.shipped("dwarf") if n != "dsph_gnfw"])
def test_a_mixture_is_refused_by_models_that_have_none(name):
    with pytest.raises(BayesdustError, match=f"{name} has no foreground"):
        posterior.prepared(programs.load(name), stars_of(p_member=0.9), {"membership": "mixture"})


def test_a_model_without_the_option_says_that_it_ignores_them():
    data = dwarf.prepare(stars_of(p_member=0.9), {}, takes=("light",))
    assert "p_member" in data.notes[0]
    assert "counts every star as a member" in data.notes[0]
    assert dwarf.prepare(stars_of(), {}, takes=("light",)).notes == ()


def test_a_model_that_takes_the_option_and_forgets_it_is_found_out(tmp_path, caplog):
    (tmp_path / "tiny.py").write_text(MODEL)
    program = programs.load(tmp_path / "tiny.py")
    with caplog.at_level(logging.WARNING):
        data = posterior.prepared(program, stars_of(p_member=0.9), {})
        posterior.prepared(program, stars_of(), {})
    assert len(data.notes) == 1
    assert [record.message for record in caplog.records] == [f"warning: {data.notes[0]}"]


# A result that no dwarf galaxy can have is not green


def with_facts(tree, **facts):
    tree.attrs = tree.attrs | {"galaxy": json.dumps(fake_tree.GALAXY | facts)}
    return tree


CASES = {  # scale of the mass (sigma is 8 km/s at 1), published dispersion, words where it fails
    "as published": (1.0, 9.1, ""),
    "none published": (1.0, None, ""),
    "half as much again": (2.0, 8.0, ""),
    "foreground": (40.0, 9.1, "where 9.1 km/s is published for Fakeone I: are foreground stars"),
    "foreground, none published": (40.0, None, "a dwarf galaxy has less than 30 km/s: are foregro"),
    "wrong unit": (0.01, 9.1, "check that velocities and errors are in km/s"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_implausible_dispersion_fails(case):
    scale, published, words = CASES[case]
    tree = with_facts(fake_tree.healthy(scale=scale, error=0.1), sigma_los=published)
    failures = gate.verdict(tree).failures
    assert [check.name for check in failures] == (["plausible"] if words else [])
    assert all(words in check.sentence for check in failures)


def test_an_implausible_result_says_so_first(tmp_path, monkeypatch):
    missing = {"src": "", "missing": "not asked for"}
    monkeypatch.setattr("bayesdust.report_figures._picture", lambda *_: missing)
    tree = with_facts(fake_tree.healthy(scale=40.0), sigma_los=9.1)
    tree.attrs = tree.attrs | {"notes": json.dumps(["p_member is not used"])}
    published = Table(
        rows=[("log10_J[0.5deg]", 18.8, 0.1, 0.1, "One 2019")],
        names=("quantity", "value", "err_minus", "err_plus", "reference"),
    )
    assert not write_report(tree, tmp_path / "report.html", published=published).passed
    page = (tmp_path / "report.html").read_text()
    top = page[: page.index("Results")]
    for words in ("Implausible for a dwarf", "p_member", "more than 0.5 dex above the value"):
        assert words in top


def test_a_j_factor_far_from_all_published_is_warned_of():
    row = {"name": "log10_J[0.5deg]", "q025": 18.0, "q975": 18.4}

    def warned(*values):
        rows = [("log10_J[0.5deg]", value, 0.1, 0.1, "x") for value in values]
        names = ("quantity", "value", "err_minus", "err_plus", "reference")
        return literature.far_from_published(Table([row]), Table(rows=rows, names=names))

    assert warned(18.89) == ()
    assert warned(19.5, 18.8) == ()
    assert "below every one of the 2 values" in warned(19.5, 18.95)[0]
    assert "above the value" in warned(17.0)[0]
    assert "away from every" in warned(17.0, 19.0)[0]
    assert literature.far_from_published(Table([row]), None) == ()


# Figures and limits count the members that the fit found


def test_members_are_told_by_bayes_theorem():
    program = programs.load("dsph_nfw_om")
    stars = stars_of(p_member=0.7)
    data = program.prepare(stars, {})
    values = {"ln_r_s": -0.3, "ln_r_a": 0.0, "ln_mass": 17.0, "v_sys": 4.0}
    values |= {"v_foreground": -20.0, "sigma_foreground": 60.0}
    values = {k: jnp.asarray(v) for k, v in values.items()}
    found = posterior._members(program.model, data, values, stars.v_los + 500.0)
    total = np.exp(v_los_terms(data, program.model, values))
    other = 0.3 * stats.norm.pdf(stars.v_los, -20.0, np.hypot(60.0, stars.v_los_err))
    np.testing.assert_allclose(found["member"], 1 - other / total, atol=1e-9)
    assert np.asarray(found["member_predicted"]).max() < 1e-6


def test_the_figure_counts_stars_as_the_fit_does():
    tree = fake_tree.healthy(draws=20)
    catalogue = tree["constant_data"]["p_member"].values
    predictive = tree["posterior_predictive"].to_dataset(inherit=False)[["v_los"]]
    tree["posterior_predictive"] = xr.DataTree(predictive)  # a result that does not say
    np.testing.assert_array_equal(rings.membership(tree, 400), catalogue)
    tree.attrs = tree.attrs | {"options": json.dumps({"membership": "none"})}
    assert (rings.membership(tree, 400) == 1).all()
    tree.attrs = tree.attrs | {"options": json.dumps({"membership": "mixture"})}
    member = np.broadcast_to(np.where(catalogue > 0.5, 0.8, 0.0), predictive["v_los"].shape)
    predictive = predictive.assign(
        member=(predictive["v_los"].dims, member),
        member_predicted=(predictive["v_los"].dims, 0.5 * member),
    )
    tree["posterior_predictive"].dataset = predictive
    np.testing.assert_allclose(rings.membership(tree, 400), member[0, 0])
    sample, p = rings.replicas(tree, 400)[0]
    np.testing.assert_array_equal(sample, predictive["v_los"].values[0, 0])
    np.testing.assert_array_equal(p, 0.5 * member[0, 0])
    _, v, err, p = rings.velocity_data(tree)
    best = rings.RingFit(v, err, p).best(v, np.ones(400, bool))
    assert best == pytest.approx(8.0, abs=1.5)  # and not the 25 km/s of all stars together
    floor = influence.dispersion_floor(err, member[0, 0])
    assert influence.dispersion(tree).floor == pytest.approx(floor)


# A foreground that is no normal law


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.5, 2.0])
def test_far_out_no_star_is_a_member_whatever_the_slope(slope):
    """The old odds, exponential all the way, rise again from some radius on."""
    theta = np.geomspace(0.01, 40.0, 60) * 0.2 / 80.0
    table = {"x": theta * 80.0, "y": np.zeros(60), "v_los": np.arange(60.0), "v_los_err": 60 * [1]}
    data = dwarf.prepare(
        read_stars(Table(table), Galaxy("Mock", 80.0, rhalf=10.0)), {"membership": "mixture"}
    )
    p = np.asarray(dwarf.membership(data, Plummer(0.2), 80.0, 2.0, slope))
    x = theta * 80.0 / 0.2
    assert p[-1] < 0.1 or slope > 1
    assert (np.diff(p[x > 15]) < 0).all()


def contaminated(seed=1):
    """150 members of the benchmark and 300 stars of a foreground with two parts."""
    mock = mocks.observe(mocks.benchmark(150, seed=seed), 80.0, v_sys=-290.0, v_err=2.0, seed=seed)
    rng = np.random.default_rng(seed)
    R, angle = 3 * np.sqrt(rng.random(300)), 2 * np.pi * rng.random(300)
    narrow, wide = rng.normal(-60, 50, 300), rng.normal(-180, 110, 300)
    v = np.where(rng.random(300) < 0.75, narrow, wide)
    columns = {
        "x": np.r_[np.asarray(mock["x"]), R * np.cos(angle)],
        "y": np.r_[np.asarray(mock["y"]), R * np.sin(angle)],
        "v_los": np.r_[np.asarray(mock["v_los"]), v],
        "v_los_err": np.full(450, 2.0),
    }
    rhalf = 0.19 / 80 / ARCMIN
    return read_stars(
        Table(columns), Galaxy("Mock", 80.0, rhalf=rhalf, rhalf_err=0.4, v_sys=-290.0)
    )


@pytest.mark.slow
def test_a_foreground_in_two_parts_does_not_weigh_the_galaxy_down(tmp_path):
    """J within the 95 % interval; the wrong model, one normal law, is beyond it by 0.5 dex."""
    text = programs.shipped()["dsph_gnfw"].read_text()
    start = text.index('    weights = numpyro.sample("foreground"')
    end = text.index('    if data.options["membership"] == "given":', start)
    (tmp_path / "wrong.py").write_text(text[:start] + ONE_NORMAL + text[end:])
    truth = float(np.log10(j_factor(mocks.BENCHMARK.halo, 0.5, 80.0)))
    options = {"light_gamma": 1.0, "membership": "mixture", "anisotropy": "isotropic"}
    sizes = {"num_warmup": 200, "num_draws": 100, "num_chains": 2, "seed": 1}
    found = {}
    for model in ("dsph_gnfw", tmp_path / "wrong.py"):
        tree = posterior.fit(model, contaminated(), options=options, **sizes)
        draws = tree["posterior"]["log10_J"].sel(angle=0.5).values
        found[str(model)] = np.quantile(draws, [0.025, 0.975])
    right, wrong = found.values()
    assert right[0] < truth < right[1]
    assert wrong[0] > truth + 0.5
    assert "foreground" not in summary.scalars(tree)
