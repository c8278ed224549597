"""A model of the Milky Way on a small mock: sums, likelihood, DataTree, options, the wrong models."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from astropy.table import Table
from galaxy_checks import assert_vertical_force
from numpyro import handlers
from scipy import stats

from bayesdust.catalogs.cartesian import read_places
from bayesdust.catalogs.cuts import CutReport
from bayesdust.dynamics import dust_fit
from bayesdust.dynamics.cross_fitting import Parts
from bayesdust.dynamics.weak_form import Bumps, Pilot, Sample, covariance, reweighted
from bayesdust.errors import BayesdustError
from bayesdust.inference import galaxy, galaxy_posterior, survey_flows
from bayesdust.inference.flow_likelihood import FlowForces
from bayesdust.inference.galaxy_data import BUMP, CHOICES, OPTIONS, Survey, options_of, pilot_force
from bayesdust.inference.programs import check, load
from bayesdust.potentials import Sum, milky_way_2014
from bayesdust.runs import Request, record
from bayesdust.summary import summarise
from bayesdust.workplace import EXTRAS

TRUTH = milky_way_2014()
POINTS = np.array([[-8.0, 0.0, 0.5], [-6.5, 1.0, -0.3]])


@pytest.fixture(scope="module")
def data(dusty_stars):
    """The efficiency given, and the largest bumps that fill the ball."""
    return galaxy.prepare(dusty_stars, {"bump": 1.7}, POINTS)


def sizes(data):
    """Sizes of the horizontal and vertical force of the truth that fit the sums best, and their errors."""
    values = np.asarray(data.nodes.values(TRUTH))
    half = len(values) // 2
    parts = np.zeros((len(values), 2))
    parts[:half, 0], parts[half:, 1] = values[:half], values[half:]
    design = data.design @ parts
    normal = np.linalg.inv(design.T @ design)
    return normal @ (parts.T @ data.pull - design.T @ data.target), np.sqrt(np.diag(normal))


def test_the_true_force_is_found(data):
    found, error = sizes(data)
    assert np.all(abs(found - 1) < 4 * error)
    assert error[0] < 0.03
    assert error[1] < 0.08
    left = data.design @ np.asarray(data.nodes.values(TRUTH)) + data.target
    chi2 = data.inflation * float(left @ left + data.rest)
    assert stats.chi2.sf(chi2, data.number) > 1e-3


@pytest.fixture
def asked(monkeypatch):
    """What flows were to be trained on; the true forces, with errors of 2 %, are in their place."""
    found = {"times": 0}

    def in_their_place(x, v, architecture, cells, *, weights, noisier, schedule, on_progress):
        found.update(x=x, weights=weights, cells=cells, seed=schedule.seed)
        found.update(radius=architecture.radius, noisier=noisier, times=found["times"] + 1)
        true = np.asarray(cells(jax.vmap(TRUTH.acceleration)(jax.numpy.asarray(cells.x))))
        rng = np.random.default_rng(1)
        repeats = true * (1 + 0.001 * rng.normal(size=(2, 8)))
        return FlowForces.of(cells, repeats, true * (1 + 0.02 * rng.normal(size=(30, 8))), repeats)

    monkeypatch.setattr(survey_flows, "flow_forces", in_their_place)
    return found


def test_flows_are_kept_and_reused(dusty_stars, asked, tmp_path):
    options = {"bump": 1.7, "likelihood": "flow"}
    first = galaxy.prepare(dusty_stars, options, folder=tmp_path).flow
    for where in ({"folder": tmp_path}, {"flows": tmp_path}, {"flows": tmp_path, "seed": 5}):
        again = galaxy.prepare(dusty_stars, options, **where).flow
        for name in ("values", "covariance", "bias", "scatter", "shrinkage", "members", "fitted"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        np.testing.assert_array_equal(again.cells.shares, first.cells.shares)
    assert asked["times"] == 1
    assert survey_flows.FLOW_FORCES in EXTRAS  # which a finished run keeps
    (tmp_path / "next").mkdir()
    galaxy.prepare(dusty_stars, options, flows=tmp_path, folder=tmp_path / "next")
    assert (tmp_path / "next" / "flow_forces.npz").exists()  # for the run after that
    others = dataclasses.replace(dusty_stars, v=dusty_stars.v + 1.0)
    with pytest.raises(BayesdustError, match=r"flow_forces\.npz is of other stars"):
        galaxy.prepare(others, options, flows=tmp_path)
    (tmp_path / "flow_forces.npz").write_bytes(b"PK nothing")
    with pytest.raises(
        BayesdustError, match=r"flow_forces\.npz cannot be read: train the flows again"
    ):
        galaxy.prepare(dusty_stars, options, flows=tmp_path)
    with pytest.raises(BayesdustError, match=r"elsewhere holds no flow_forces\.npz"):
        galaxy.prepare(dusty_stars, options, flows=tmp_path / "elsewhere")
    with pytest.raises(BayesdustError, match="no folder of flows"):
        galaxy_posterior.fit(load("mw_cbe_gnfw"), dusty_stars, flows=tmp_path / "elsewhere")


def test_flows_are_told_of_errors(dusty_stars, asked):
    """Of copies with the errors once more, of the weights there; a star that would leave the ball stays."""
    x, v, n = dusty_stars.x, dusty_stars.v, dusty_stars.n
    chosen = options_of({}, dusty_stars, OPTIONS, CHOICES)
    survey = Survey.of(dusty_stars, chosen, None, 0, lambda *_: None)
    places, motions = np.stack([x, 1.02 * x, 0.98 * x], axis=1), np.stack([v, v + 9, v - 9], axis=1)
    weights = np.random.default_rng(1).uniform(1, 2, (n, 3)) * np.array([2.0, -0.5, -0.5])
    survey = dataclasses.replace(survey, sample=Sample.of(places, motions, weights))
    survey_flows.trained(survey, lambda *_: None)
    moved_x, moved_v, moved_w = asked["noisier"]
    gone = np.linalg.norm(1.02 * x - survey.centre, axis=1) > survey.radius
    assert 0 < gone.sum() < n
    np.testing.assert_array_equal(moved_x[0], np.where(gone[:, None], x, 1.02 * x))
    np.testing.assert_array_equal(moved_v[0], np.where(gone[:, None], v, v + 9.0))
    np.testing.assert_allclose(moved_w[0], np.where(gone, weights[:, 0], -4 * weights[:, 1]))
    assert (np.linalg.norm(moved_x - survey.centre, axis=-1) <= survey.radius).all()


def test_flows_can_be_the_likelihood(dusty_stars, data, asked):
    """What flows say of the force decides, and the sums are still there to judge it."""
    by_flow = galaxy.prepare(dusty_stars, {"bump": 1.7, "likelihood": "flow"}, POINTS, seed=3)
    np.testing.assert_array_equal(by_flow.design, data.design)
    np.testing.assert_allclose(asked["weights"], dusty_stars.weights)
    assert asked["seed"] == 3
    assert asked["radius"] > np.linalg.norm(asked["x"] - dusty_stars.centre, axis=1).max()
    assert np.linalg.norm(asked["cells"].x - dusty_stars.centre, axis=1).max() < 3.0
    assert any("12,000 stars are too few" in note for note in by_flow.notes)

    def density(of, size):
        scaled = Sum((TRUTH, *([TRUTH] if size == 2 else [])))
        sites = handlers.trace(lambda: galaxy.weak_likelihood(of, scaled)).get_trace()
        factor = sites.get("flow") or sites["boltzmann"]
        return float(factor["fn"].log_factor), float(sites["chi2"]["value"]), sites.keys()

    (right, chi2, sites), (wrong, _, _) = density(by_flow, 1), density(by_flow, 2)
    assert right > wrong + 20  # twice the force, of errors of 2 %
    assert right == pytest.approx(0.0, abs=1.0)
    assert "boltzmann" not in sites
    assert chi2 == pytest.approx(density(data, 1)[1])
    with pytest.raises(BayesdustError, match="likelihood cannot be 'both'"):
        galaxy.prepare(dusty_stars, {"likelihood": "both"}, POINTS)


def test_flows_can_be_the_likelihood_without_a_shape(dusty_stars, asked):
    """The cells' forces are those that flows say, as well as these know them; no dust is left to be found."""
    options = {"bump": 1.7, "modes": 60, "likelihood": "flow"}
    program = load("mw_cbe_linear")
    prepared = program.prepare(dusty_stars, options, POINTS)
    assert prepared.dust_modes is None
    assert prepared.sums.shape[0] == prepared.number
    assert len(prepared.constant) == 8
    found = program.posterior(prepared, jax.random.PRNGKey(1)).posterior
    names = [f"size_{name}" for name in prepared.parts]
    parts = np.stack([found[name] for name in names], axis=1)
    assert abs(parts[:, 1].mean() - 0.6) < 0.4  # the prior's

    flow = prepared.flow
    assert {"sigma_dust", "length_dust"}.isdisjoint(found)
    cells = np.asarray(flow.cells(jax.vmap(TRUTH.acceleration)(jax.numpy.asarray(flow.cells.x))))
    sizes = np.zeros(prepared.slopes.shape[1])
    off = prepared.flow_chi2(sizes) - float(flow.chi2(0 * cells))
    assert abs(off) < 1e-6 * prepared.flow_chi2(sizes)  # of no force at all
    assert np.median(found["flow_chi2"]) < 8 + 5 * np.sqrt(2 * 8)
    wide = np.sqrt(np.diag(flow.normal_covariance))
    law = np.sqrt(np.diag(flow.covariance))
    np.testing.assert_array_less(law, wide)
    # the sums' chi2 is that of the sums: the truth's, as these forces are right
    assert np.median(found["chi2"]) < prepared.number + 5 * np.sqrt(2 * prepared.number)
    scaled = dataclasses.replace(prepared, constant=2 * prepared.constant)
    twice = program.posterior(scaled, jax.random.PRNGKey(1)).posterior
    assert np.median(twice["chi2"]) > prepared.number + 5 * np.sqrt(2 * prepared.number)
    ratio = twice["acceleration"][:, 0, 0].mean() / found["acceleration"][:, 0, 0].mean()
    assert 1.5 < ratio < 2.5  # the flows' forces decide, and not the sums
    truth = np.asarray(jax.vmap(TRUTH.acceleration)(POINTS))
    a = found["acceleration"]
    assert np.all(abs(a.mean(axis=0) - truth) < 4 * a.std(axis=0))
    networks = load("mw_cbe_neural").prepare(dusty_stars, options, POINTS)
    assert networks.smooth_dust is None
    check(load("mw_cbe_neural"), networks)


def test_the_normal_law_is_as_wide_as_students(asked, dusty_stars):
    """Its variance is that of (1), by draws of a multivariate t."""
    flow = galaxy.prepare(dusty_stars, {"bump": 1.7, "likelihood": "flow"}).flow
    free = flow.power - 8
    law = stats.multivariate_t(shape=flow.covariance * (flow.members - 1) / free, df=free, seed=1)
    x = law.rvs(200_000)
    at = np.array([float(flow.log_likelihood(flow.values + step)) for step in x[:20]])
    np.testing.assert_allclose(at - at[0], law.logpdf(x[:20]) - law.logpdf(x[0]), rtol=1e-6)
    ratio = x.var(axis=0) / np.diag(flow.normal_covariance)
    # of a t of some 18 degrees of freedom, whose fourth moment is 3.4 times the square of the second
    np.testing.assert_allclose(ratio, 1.0, atol=4.5 * np.sqrt(2.5 / 200_000))


@pytest.mark.slow
def test_without_the_dust_it_is_not(dusty_stars):
    """The wrong model: the sums cannot vanish, and the vertical force is too small."""
    bare = dataclasses.replace(dusty_stars, weights=None)
    wrong = galaxy.prepare(bare, {"efficiency": "none", "bump": 1.7}, POINTS)
    left = wrong.design @ np.asarray(wrong.nodes.values(TRUTH)) + wrong.target
    chi2 = wrong.inflation * float(left @ left + wrong.rest)
    assert stats.chi2.sf(chi2, wrong.number) < 1e-3
    assert any("No dust is allowed for" in note for note in wrong.notes)


def test_likelihood_is_that_of_the_sums(dusty_stars, data):
    """Node values and whitening away, -2 ln L is s^T C^-1 s, over the inflation of few stars."""
    survey = Survey.of(dusty_stars, data.options, None, 0, lambda *_: None)
    pilot = Pilot(pilot_force(np.array(data.pilot)))
    C = np.asarray(covariance(survey.tests, survey.sample, pilot))
    same = np.ones((1, dusty_stars.n, 1))
    s = np.asarray(reweighted(survey.tests, survey.sample, Pilot(TRUTH.acceleration), same))[0]
    left = data.design @ np.asarray(data.nodes.values(TRUTH)) + data.target
    # the pilot's sizes were found in two rounds; the covariance is of the last but one
    chi2 = data.inflation * float(left @ left + data.rest)
    assert chi2 == pytest.approx(float(s @ np.linalg.solve(C, s)), rel=0.05)
    assert data.inflation > 1.3
    assert data.notes[-1].startswith(
        "The stars are few for 270 sums: their covariance is taken as 1."
    )
    assert data.notes[-1].endswith("times what the stars show.")
    assert survey._few(1.29) == ()
    smaller = dataclasses.replace(survey, options=data.options | {"bump": 1.3})
    assert smaller._few(1.6)[0].endswith("Larger test functions tell more: bump=1.7 (kpc).")


def test_the_score_is_deflated_whole(dusty_stars, data, monkeypatch):
    """Twice the inflation halves the slope of ln L at any force, what undoes the stars' pull included."""
    monkeypatch.setattr(Parts, "inflation", 2 * data.inflation)
    twice = galaxy.prepare(dusty_stars, {"bump": 1.7}, POINTS)
    values = np.asarray(data.nodes.values(TRUTH))

    def score(of):
        return of.pull - of.design.T @ (of.design @ values + of.target)

    np.testing.assert_allclose(score(twice), score(data) / 2, rtol=1e-6, atol=1e-9)
    assert not np.allclose(score(twice) + twice.pull, score(data) / 2, rtol=1e-2)  # undivided


def test_what_is_not_known_of_the_dust(dusty_stars):
    """The sums' covariance behind dust of which only the law is known: wedges of efficiency 0.9, or of 0.09
    in one of four. Against the scatter of the sums of stars that such efficiencies leave.

    With the number of the stars held fixed in place of their f the sums would be said to scatter more.
    """
    chosen = options_of({"bump": 1.7}, dusty_stars, OPTIONS, CHOICES)
    survey = Survey.of(dusty_stars, chosen, None, 0, lambda *_: None)
    pilot, rng, every = Pilot(TRUTH.acceleration), np.random.default_rng(6), survey.sample
    x = every.x[:, 0] - survey.centre
    wedge = np.floor(8 * np.arctan2(x[:, 1], x[:, 0]) / np.pi).astype(int) + 8
    efficiencies = np.where(rng.uniform(size=(600, 17)) < 0.25, 0.09, 0.9)[:, wedge]
    draws, truths = efficiencies[:64], efficiencies[64:]
    mean = draws.mean(axis=0)
    seen = rng.poisson(truths)  # of stars of the same f as the sample's
    sums = np.asarray(
        reweighted(survey.tests, every, pilot, (seen / mean - 1)[..., None])
    )  # about those of all
    scatter = np.mean(sums**2, axis=0)
    ratios = []
    for counts in seen[:8]:
        rows = np.repeat(np.arange(every.n), counts)
        left = Sample.of(every.x[rows], every.v[rows], every.weights[rows] / mean[rows, None])
        behind = dataclasses.replace(survey, sample=left, by_draw=draws[:, rows, None])
        stars = np.diag(covariance(survey.tests, left, pilot))
        fixed = mean[rows] / draws[:, rows] - 1
        held = np.asarray(reweighted(survey.tests, left, pilot, fixed[..., None]))
        dust = np.sum(behind._dust_shifts(pilot) ** 2, axis=0), np.mean(held**2, axis=0), 0.0
        ratios.append([np.median((stars + more) / scatter) for more in dust])
    right, wrong, none = np.mean(ratios, axis=0)
    error = np.std(ratios, axis=0)[0] / np.sqrt(len(ratios))
    own = np.mean((draws / mean - 1) ** 2)  # what a star's noise adds to the dust's share at most
    assert 1 - 3 * error < right < 1 + own + 3 * error
    assert wrong > 1.5 + own
    assert none < 0.8


def test_model_and_tree(data, dusty_stars):
    program = load("mw_cbe_gnfw")
    tree = galaxy_posterior.fit(
        program,
        dusty_stars,
        POINTS,
        options={"bump": 1.7},
        num_warmup=200,
        num_draws=100,
        num_chains=2,
    )
    posterior = tree["posterior"]
    assert posterior["acceleration"].dims == ("chain", "draw", "point", "component")
    for name, variable in posterior.data_vars.items():
        assert {"units", "long_name"} <= set(variable.attrs), name
    for name, coordinate in posterior.coords.items():
        assert name in ("chain", "draw") or {"units", "long_name"} <= set(coordinate.attrs), name
    rows = set(summarise(tree)["name"])
    wanted = {
        "rho_dm_sun",
        "rho_dm_sun_msun_pc3",
        "v_circ[8kpc]",
        "acceleration[ax,0]",
        "gamma",
        "rho[1]",
    }
    assert wanted <= rows
    a = posterior["acceleration"].values.reshape(-1, 2, 3)
    truth = np.asarray(jax.vmap(TRUTH.acceleration)(POINTS))
    assert np.all(abs(a.mean(axis=0) - truth) < 5 * a.std(axis=0) + 1e-9)
    assert_vertical_force(posterior)
    assert json.loads(tree.attrs["options"])["efficiency"] == "given"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dust": "yes"}, "no option 'dust'"),
        ({"efficiency": "guess"}, "choose from auto, none, given, magnitudes"),
        ({"efficiency": "magnitudes"}, "needs the survey's limit"),
        ({"limit": -3.0}, "give a positive number"),
        ({"limit": 14.0, "magnitude": "V"}, r"no column of magnitudes V.*columns=\{'G': 'NAME'\}"),
        ({"limit": 8.0}, r"row \d+, column G: its magnitude [\d.]+ is beyond the limit 8"),
        (
            {"limit": 14.0, "absolute_limit": 0.0},
            r"row \d+, column G: .* beyond the absolute limit 0",
        ),
        ({"limit": 14.0, "absolute_limit": "far"}, "give a magnitude, auto or none"),
        ({"limit": 14.0, "absolute_limit": True}, "give a magnitude, auto or none"),
        ({"limit": 14.0, "absolute_limit": np.nan}, "give a magnitude, auto or none"),
        ({"limit": True}, "give a positive number"),
        (
            {"absolute_limit": 0.99},
            "goes with efficiency=magnitudes and the survey's limit.*add limit=14",
        ),
        ({"errors": "deconvolved"}, "has no errors"),
        ({"counts": "used"}, "counts goes with efficiency=magnitudes"),
        ({"counts": "some"}, "choose from auto, used, ignored"),
        ({"limit": 14.0, "efficiency": "none"}, "limit goes with efficiency=magnitudes"),
    ],
)
def test_bad_options(dusty_stars, options, words):
    with pytest.raises(BayesdustError, match=words):
        galaxy.prepare(dusty_stars, options, POINTS)


def test_few_stars_tell_no_dust(dusty_stars):
    few = dataclasses.replace(
        dusty_stars,
        x=dusty_stars.x[:150],
        v=dusty_stars.v[:150],
        weights=None,
        photometry={"G": dusty_stars.photometry["G"][:150]},
        source="few.csv",
    )
    with pytest.raises(
        BayesdustError, match=r"few\.csv: has 150 stars, and the dust is told by .* 200"
    ):
        galaxy.prepare(few, {"limit": 14.0}, POINTS)


def test_the_limits_are_those_of_the_cuts(dusty_stars):
    """A sample cut at an absolute magnitude brings it along, and its band."""
    light = dusty_stars.photometry["G"]
    cut = dataclasses.replace(
        dusty_stars, photometry={"G": light, "grvs_mag": light}, absolute_limits={"grvs_mag": 9.0}
    )

    def chosen(stars, **given):
        return options_of({"limit": 14.0} | given, stars, OPTIONS, CHOICES)

    assert chosen(cut)["magnitude"] == "grvs_mag"
    assert chosen(cut)["absolute_limit"] == 9.0
    assert chosen(cut, magnitude="G")["absolute_limit"] == "none"
    assert chosen(cut, absolute_limit="none")["absolute_limit"] == "none"
    assert chosen(dusty_stars)["absolute_limit"] == "none"
    assert chosen(dusty_stars, absolute_limit=9.5)["absolute_limit"] == 9.5


def test_stars_are_counted_where_it_is_said_which_ball_they_fill(dusty_stars):
    def counts(stars, **given):
        return options_of({"limit": 14.0} | given, stars, OPTIONS, CHOICES)["counts"]

    anywhere = dataclasses.replace(dusty_stars, radius=None)
    centre = np.asarray(dusty_stars.centre) + np.array([5.0, 0.0, 0.0])
    without_sun = dataclasses.replace(dusty_stars, centre=centre)
    assert counts(dusty_stars) == "used"
    assert counts(dusty_stars, counts="ignored") == "ignored"
    for stars in (anywhere, without_sun):
        assert counts(stars) == "ignored"
        with pytest.raises(BayesdustError, match="counts=used needs the ball"):
            counts(stars, counts="used")


def test_bumps_with_too_few_stars_are_left_out(dusty_stars):
    """A bump that one heavy star fills tells nothing; where all are so, that is said."""
    weights = np.asarray(dusty_stars.weights).copy()
    low = (dusty_stars.x[:, 2] < 0) & (dusty_stars.x[:, 0] < dusty_stars.centre[0])
    weights[np.flatnonzero(low)[::20]] *= 1e3
    heavy = dataclasses.replace(dusty_stars, weights=weights)
    options = options_of({"bump": 1.7}, heavy, OPTIONS, CHOICES)
    some, every = (
        Survey.of(stars, options, None, 0, lambda *_: None) for stars in (heavy, dusty_stars)
    )
    assert 0 < some.tests.number < every.tests.number
    assert some.left_out == (every.tests.number - some.tests.number) / 9
    assert "test functions hold fewer than 30 effective stars" in some._notes()[-1]
    assert every.left_out == 0
    few = dataclasses.replace(
        dusty_stars, x=dusty_stars.x[:40], v=dusty_stars.v[:40], weights=dusty_stars.weights[:40]
    )
    with pytest.raises(BayesdustError, match="40 stars are too few, or their weights too uneven"):
        Survey.of(few, options, None, 0, lambda *_: None)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"limit": 14.0}, []),
        ({"limit": 20.0}, ["limit is 20.00"]),
        ({"limit": 14.0, "absolute_limit": 9.0}, ["absolute_limit is 9.00"]),
    ],
)
def test_a_limit_beyond_every_star_is_told(dusty_stars, monkeypatch, limits, named):
    monkeypatch.setattr(dust_fit, "FIRST", (1,))
    prepared = galaxy.prepare(dusty_stars, {"bump": 1.7, **limits}, POINTS)
    told = [note for note in prepared.notes if "goes unseen" in note]
    assert len(told) == len(named)
    assert all(words in note for words, note in zip(named, told, strict=True))


def test_the_survey_is_on_record(dusty_stars):
    survey = record(Request(load("mw_cbe_gnfw"), dusty_stars))["survey"]
    assert survey["ball"] == [*dusty_stars.centre, dusty_stars.radius]
    assert survey["weights"] == "1/epsilon"
    assert survey["cuts"] == []
    cut = CutReport(5, (("within", "d < 4 kpc", 1, 4),))
    there = dataclasses.replace(dusty_stars, cuts=cut)
    assert record(Request(load("mw_cbe_gnfw"), there))["survey"]["cuts"][0]["removed"] == 1


def test_given_needs_weights(dusty_stars):
    with pytest.raises(BayesdustError, match="weights='1/epsilon'"):
        galaxy.prepare(dataclasses.replace(dusty_stars, weights=None), {"efficiency": "given"})


def test_stars_and_models_of_one_kind(dusty_stars):
    with pytest.raises(BayesdustError, match="dsph_gnfw is a model of a dwarf galaxy"):
        Request(load("dsph_gnfw"), dusty_stars)


def test_places_are_read_and_bad_ones_refused(tmp_path):
    path = tmp_path / "places.csv"
    Table({"x": [-8.0], "y": [0.0], "z": [0.5]}).write(path, format="ascii.csv")
    np.testing.assert_array_equal(read_places(path), [[-8.0, 0.0, 0.5]])
    Table({"x": [-8.0], "y": [np.nan], "z": [0.5]}).write(path, format="ascii.csv", overwrite=True)
    with pytest.raises(BayesdustError, match=r"places.csv: row 1, column y"):
        read_places(path)
    Table({"x": [-8.0], "y": [0.0]}).write(path, format="ascii.csv", overwrite=True)
    with pytest.raises(BayesdustError, match="has no column z"):
        read_places(path)


@pytest.mark.parametrize("edge", [2.5, 3.0, 3.4, 3.9, 6.0])
def test_usual_bumps_fill_the_ball(edge):
    """Seven or more in the layers next to the plane, wherever errors of the stars make the bumps end; with
    larger ones there would be one."""
    usual, large = (
        Bumps.inside(np.zeros(3), edge, -220.0, size * BUMP * edge).centres[:, 2]
        for size in (1.0, 1.25)
    )
    assert np.sum(usual == usual[usual > 0].min()) >= 7
    assert np.sum(large == large[large > 0].min()) < 7
