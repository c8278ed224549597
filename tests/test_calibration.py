"""Simulation-based calibration: right models pass, wrong ones do not, and it resumes."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

import bayesdust as bd
from bayesdust import calibration_run
from bayesdust.calibration_plots import shares
from bayesdust.calibration_verdict import FEWEST, band, judge
from bayesdust.demo import request
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.inference import calibration
from bayesdust.inference.calibration import Replica, Trial, _share_below, replicas

#: The velocities' mean and spread about it, given; an errors-in-data model whose posterior is quick
MODEL = """
import numpyro
import numpyro.distributions as dist
from bayesdust.inference import dwarf

KIND = "dwarf"

def prepare(stars, options):
    return dwarf.prepare(stars, options, takes=())

def model(data):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.LogNormal(2.0, 0.5))
    variance = spread**2 + {errors} * data.v_los_err**2
    numpyro.sample("v_los", dist.Normal(mean, variance**0.5){expanded}, obs=data.v_los)
"""
N = 40


@pytest.fixture(scope="module")
def stars():
    found = request(n=N).stars
    return dataclasses.replace(found, v_los_err=np.full(N, 8.0), source="some stars")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Paths of the right model and of the one that leaves errors out."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, errors, expanded in (("right", 1, ""), ("wrong", 0, ".expand([40])")):
        paths[name] = folder / f"{name}.py"
        paths[name].write_text(MODEL.format(errors=errors, expanded=expanded))
    return {name: str(path) for name, path in paths.items()}


def trial(models, stars, name="right", **more):
    return Trial(models[name], stars, num_warmup=200, num_draws=400, **more)


@pytest.fixture(scope="module")
def right(models, stars):
    return dict(replicas(trial(models, stars, seed=3), range(200)))


def test_a_right_model_is_calibrated(right):
    found = judge(right)
    assert found.passed
    assert {q.name for q in found.quantities} == {"mean", "spread", "ln_likelihood"}
    for q in found.quantities:  # five binomial standard errors
        assert abs(q.coverage("68") - 0.6827) < 5 * np.sqrt(0.6827 * 0.3173 / 200)
    assert found.lost == found.poor == 0


def test_a_model_that_leaves_errors_out_is_rejected(models, stars):
    wrong = dict(replicas(trial(models, stars, "wrong", drawn_by=models["right"]), range(60)))
    found = judge(wrong)
    assert not found.passed
    assert any(sentence.startswith("spread: 68 % intervals hold") for sentence in found.failures)


def test_a_posterior_that_is_the_prior_is_rejected(right, models, stars):
    """Its parameters are calibrated all the same: what tells is the likelihood (Modrak+2023)."""
    rng = np.random.default_rng(4)
    bench = calibration.bench_of(trial(models, stars, seed=3))
    prior = [bench.draw(i) for i in range(300)]
    found = {}
    for index in range(60):
        theta, v = prior[index]
        truth = bench.known(theta, v)
        others = [bench.known(z, v) for z, _ in prior[100:]]
        u = {
            n: _share_below(np.array([float(o[n]) for o in others]), float(truth[n]), 200, rng)
            for n in truth
        }
        found[index] = Replica(u, u, u, 200.0, 0)
    inside = {q.name: q.inside for q in judge(found).quantities}
    assert inside == {"mean": True, "spread": True, "ln_likelihood": False}


def test_replicas_do_not_depend_on_each_other(right, models, stars):
    """Nor on what runs them: an executor, as Dask gives one, draws the same."""
    with ThreadPoolExecutor(1) as pool:
        again = dict(replicas(trial(models, stars, seed=3), [7, 3], pool))
    assert again == {3: right[3], 7: right[7]}
    other = dict(replicas(trial(models, stars, seed=4), [3]))
    assert other[3].u != right[3].u


def test_shares_are_uniform_whatever_the_draws():
    """Few draws, correlated ones, ties."""
    rng = np.random.default_rng(5)
    for draw in (
        lambda n: rng.normal(size=n),
        lambda n: rng.integers(0, 3, n).astype(float),
        lambda n: np.repeat(rng.normal(size=-(-n // 4)), 4)[:n],
    ):
        u = [_share_below(draw(40), draw(1)[0], 10, rng) for _ in range(2000)]
        # 2,000 uniform numbers: 1.95/sqrt(2000) is left once in a thousand times
        distance = abs(np.sort(u) - (np.arange(2000) + 0.5) / 2000).max()
        assert distance < 1.95 / np.sqrt(2000)
    assert np.isnan(_share_below(np.array([1.0, np.nan]), 0.0, 2, rng))


def test_the_band_is_left_as_often_as_it_says():
    n, level, times = 50, 0.9, 2000
    points, lower, upper = band(n, level)
    rng = np.random.default_rng(6)
    u = np.sort(rng.random((times, n)))
    ecdf = np.array([np.searchsorted(row, points, side="right") / n for row in u])
    inside = np.mean(np.all((lower <= ecdf) & (ecdf <= upper), axis=1))
    # its own edge is known from 2,000 simulations
    assert abs(inside - level) < 5 * np.sqrt(2 * level * (1 - level) / times)


def uniform(number, shift=1.0):
    rng = np.random.default_rng(7)
    return {
        i: Replica({"a": float(rng.random() ** shift)}, {"a": 0.0}, {"a": 1.0}, 200.0, 0)
        for i in range(number)
    }


def test_the_verdict_says_what_is_wrong():
    assert judge(uniform(100)).passed
    low = judge(uniform(100, 2.0))
    assert low.failures[0].startswith("a: 68 % intervals hold the truth in")
    bad = Replica({"a": np.nan}, {"a": np.nan}, {"a": np.nan}, 1.0, 3)
    lost = judge(uniform(100) | {200 + i: bad for i in range(5)})
    assert lost.doubts == ("5 of 105 fits had draws that are not numbers.",)
    assert lost.diverged == 5
    slow = judge({i: r._replace(ess=10.0) for i, r in uniform(100).items()})
    assert "100 of 100 chains are worth fewer than 50 draws" in slow.doubts[0]
    # short chains are no miscalibration, and no calibration either
    assert (slow.verdict, slow.failures, slow.passed) == ("NOT TOLD", (), False)
    assert (low.verdict, judge(uniform(100)).verdict) == ("MISCALIBRATED", "calibrated")
    with pytest.raises(BayesdustError, match="19 replicas tell nothing: ask for 20 or more"):
        judge(uniform(FEWEST - 1))


def test_a_figure_shows_every_quantity(right):
    figure = shares(judge(right))
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert len(shown) == 3
    u = np.array([r.u["mean"] for r in right.values()])
    ax = next(ax for ax in shown if ax.get_title() == "mean")
    x, excess = ax.lines[0].get_data()
    assert excess[100] == pytest.approx(np.mean(u <= x[100]) - x[100])


def test_a_run_goes_on_where_it_stopped(models, stars, tmp_path, monkeypatch):
    asked, out = trial(models, stars), tmp_path / "out"
    whole = calibration_run.run(asked, 20, tmp_path / "whole")
    genuine = calibration_run.write_atomically

    def fail(path, content):
        if path.name == "replica-00012.json":
            raise KeyboardInterrupt
        genuine(path, content)

    monkeypatch.setattr(calibration_run, "write_atomically", fail)
    with pytest.raises(KeyboardInterrupt):
        calibration_run.run(asked, 20, out)
    assert not (out / "run.json").exists()
    kept = sorted((out / ".partial").glob("replica-*.json"))
    assert kept
    monkeypatch.undo()
    kept[0].write_text("{")
    with pytest.raises(ResumableError, match="damaged: remove that file"):
        calibration_run.run(asked, 20, out)
    kept[0].unlink()
    again = calibration_run.run(asked, 20, out)
    for one, other in zip(whole.quantities, again.quantities, strict=True):
        np.testing.assert_array_equal(np.sort(one.u), np.sort(other.u))
    assert sorted(p.name for p in out.iterdir()) == sorted(calibration_run.RESULTS)
    about = json.loads((out / "run.json").read_text())
    assert about["replicas"] == 20
    assert about["passed"] is again.passed
    table = Table.read(out / "calibration.ecsv", format="ascii.ecsv")
    assert list(table["name"]) == [q.name for q in again.quantities]
    found, record = calibration_run.load(out)
    assert record == about
    assert judge(found).quantities[1].rms_z == again.quantities[1].rms_z
    with pytest.raises(BayesdustError, match="holds no finished calibration"):
        calibration_run.load(tmp_path)
    page = (out / "report.html").read_text()
    assert "20 fits of 40 stars" in page


def test_in_python(models, stars, tmp_path):
    told = []
    found = bd.calibrate(
        models["right"],
        stars,
        replicas=20,
        num_draws=400,
        num_warmup=200,
        on_progress=lambda *a: told.append(a),
    )
    assert found.replicas == 20
    assert told[-1] == (20, 20, "fitting")
    kept = bd.calibrate(
        models["right"], stars, replicas=20, num_draws=400, num_warmup=200, out=tmp_path / "a"
    )
    assert (tmp_path / "a" / "run.json").exists()
    assert kept.quantities[0].rms_z == found.quantities[0].rms_z


def test_on_the_command_line(call, models, tmp_path):
    out = tmp_path / "out"
    words = ["calibrate", models["right"], "--replicas", "20", "--draws", "500", "--out", out]
    code, told, _ = call(*words, "--warmup", "200")
    assert (code, told) == (0, f"{out / 'report.html'}: calibrated\n")
    code, _, error = call(*words, "--warmup", "200")
    assert code == 2
    assert "holds a finished run: add --overwrite" in error


def test_a_finished_run_goes_on_to_more(models, stars, tmp_path, monkeypatch):
    asked = trial(models, stars)
    calibration_run.run(asked, 20, tmp_path / "out")
    wanted = []
    genuine = calibration_run.fits

    def counted(trial, missing, executor):
        wanted.extend(missing)
        return genuine(trial, missing, executor)

    monkeypatch.setattr(calibration_run, "fits", counted)
    more = calibration_run.run(asked, 24, tmp_path / "out")
    assert wanted == [20, 21, 22, 23]
    whole = calibration_run.run(asked, 24, tmp_path / "whole")
    assert more.quantities[0].rms_z == whole.quantities[0].rms_z
    for number, other in ((24, asked), (30, dataclasses.replace(asked, seed=1))):
        with pytest.raises(BayesdustError, match="holds a finished run: add --overwrite"):
            calibration_run.run(other, number, tmp_path / "out")


def test_truths_are_not_drawn_from_chains_that_disagree():
    together = np.random.default_rng(8).normal(size=(4, 250, 3))
    calibration._check_pool({"slopes": together})
    apart = together + np.array([0.0, 0.0, 1.0, 1.0])[:, None, None]
    with pytest.raises(BayesdustError, match=r"leave slopes so open that 1000 draws do not settle"):
        calibration._check_pool({"slopes": apart})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dsph_gnfw", "--replicas", "5"], "greater than or equal to 20"),
        (["dsph_gnfw", "--photometry", "light.ecsv"], "--photometry has no meaning"),
        (["mw_cbe_gnfw"], "no NumPyro model of a dwarf galaxy"),
        (["dsph_gnfw", "--galaxy", "draco"], "--galaxy has no meaning"),
        (["dsph_gnfw", "--option", "dust=1"], "no option 'dust'"),
    ],
)
def test_what_cannot_be_done(call, tmp_path, words, message):
    code, _, error = call("calibrate", *words, "--out", tmp_path / "out")
    assert code == 2
    assert message in error
    assert not (tmp_path / "out").exists()


def test_the_shipped_wrong_model_is_that_model_without_errors(stars):
    from bayesdust.inference.programs import folder, load

    wrong = load(str(folder() / "wrong" / "dsph_gnfw_no_errors.py"))
    data = wrong.prepare(stars, {})
    assert not data.v_los_err.any()
    assert load("dsph_gnfw").prepare(stars, {}).v_los_err.all()


def test_what_is_fitted_beside_the_velocities_stays_as_it_is(models, stars, tmp_path):
    """theta is drawn given that: here the mean is told to be 3 +- 1 by something else."""
    text = Path(models["right"]).read_text()
    told = '    numpyro.factor("light", dist.Normal(3.0, 1.0).log_prob(mean))\n'
    path = tmp_path / "told.py"
    path.write_text(text.replace("    spread =", told + "    spread ="))
    side = calibration._Side.of(str(path), stars, {})
    draws = side.pool(1)["mean"]
    sd = np.sqrt(25 / 26)
    assert abs(draws.mean() - 3 * sd**2) < 5 * sd / np.sqrt(calibration.POOL / 2)
    assert draws.std() == pytest.approx(sd, rel=0.15)
    assert calibration._Side.of(models["right"], stars, {}).pool(1) is None
    asked = Trial(str(path), stars, num_warmup=200, num_draws=400)
    assert judge(dict(replicas(asked, range(60)))).passed
