"""Flows of the Milky Way's stars: laws, training, scores, saving, judging and the command line."""

import dataclasses
import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from astropy.table import Table
from scipy.stats import chi

from bayesdust import flow_plots, flow_quality, train_run
from bayesdust.catalogs import cuts
from bayesdust.catalogs.cartesian import ROUNDING, read_milky_way
from bayesdust.catalogs.frames import OBSERVED, SolarFrame
from bayesdust.catalogs.gaia import read_gaia
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.cli import main
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.flows import store
from bayesdust.flows.autoregressive import Architecture, PhaseSpaceFlow, member, split
from bayesdust.flows.ball import Ball, stretch
from bayesdust.flows.layers import MaskedAffine
from bayesdust.flows.scores import ensemble_scores, scores
from bayesdust.flows.training import Schedule, train

CENTRE, RADIUS = (-8.0, 0.0, 0.0), 3.0
KEY = jax.random.key(1)
TINY = {"layers": 2, "widths": (8,)}
QUICK = Schedule(epochs=4, batch=100, learning_rate=1e-2)


def survey(n=600, seed=0, shift=0.0):
    """Stars evenly in a ball, streaming and hot: (x, v)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    x *= (RADIUS * rng.random(n) ** (1 / 3) / np.linalg.norm(x, axis=1))[:, None] * 0.999
    x += np.array(CENTRE)
    v = rng.normal(size=(n, 3)) * np.array([40.0, 30.0, 20.0]) + np.array([shift, 220.0, 0.0])
    return x, v


@pytest.fixture(scope="module")
def architecture():
    return Architecture.for_stars(*survey(), CENTRE, RADIUS, **TINY)


@pytest.fixture(scope="module")
def flow(architecture):
    """An untrained flow, its last weights made large enough to do something."""
    made = PhaseSpaceFlow.untrained(KEY, architecture)
    weights, rest = split(made)
    return paramax.unwrap(eqx.combine(jax.tree.map(lambda a: 1.5 * a, weights), rest))


@pytest.fixture(scope="module")
def trained(architecture):
    return train(*survey(), architecture, members=2, schedule=QUICK)


def in_double(tree):
    return jax.tree.map(lambda a: a.astype(float) if eqx.is_inexact_array(a) else a, tree)


def test_the_layers_are_autoregressive_and_exact():
    layer = in_double(MaskedAffine(KEY, (2, 0, 1), (8, 8), "silu", 2))
    y, condition = jnp.array([0.3, -1.2, 0.7]), jnp.array([0.4, -0.2])
    z, log_det = layer.transform_and_log_det(y, condition)
    jacobian = jax.jacfwd(lambda y: layer.transform(y, condition))(y)
    assert float(log_det) == pytest.approx(float(jnp.linalg.slogdet(jacobian)[1]), abs=1e-12)
    places = np.argsort(layer.order)
    in_order = np.asarray(jacobian)[np.ix_(places, places)]
    np.testing.assert_array_equal(np.triu(in_order, 1), 0.0)
    assert np.abs(np.tril(in_order, -1)).max() > 1e-4
    again, back = layer.inverse_and_log_det(z, condition)
    np.testing.assert_allclose(again, y, rtol=1e-12)
    assert float(back) == pytest.approx(-float(log_det), abs=1e-12)


def test_the_flow_is_a_density(flow):
    """Log-dets against the autodiff Jacobian; round trips; the integral over the ball and all velocities."""
    x, v = (jnp.asarray(a) for a in survey(20, seed=6))
    x = x.at[0].set(jnp.array([-8.0, 0.0, 0.9999 * RADIUS]))
    for bijection, at, condition in (
        (in_double(flow.n.bijection), x, None),
        (in_double(flow.p.bijection), v, x),
    ):
        where = None if condition is None else 0
        z, log_det = jax.vmap(bijection.inverse_and_log_det, (0, where))(at, condition)
        jacobian = jax.vmap(jax.jacfwd(bijection.inverse), (0, where))(at, condition)
        np.testing.assert_allclose(log_det, jnp.linalg.slogdet(jacobian)[1], atol=1e-6)
        back = jax.vmap(bijection.transform, (0, where))(z, condition)
        np.testing.assert_allclose(back, at, rtol=1e-6, atol=1e-6)
    draw = survey(40_000, seed=4)[0]
    density = np.exp(jax.jit(jax.vmap(flow.ln_n))(jnp.asarray(draw, jnp.float32)))
    volume = 4 / 3 * np.pi * (RADIUS * 0.999) ** 3
    error = volume * density.std() / np.sqrt(len(draw))
    assert volume * density.mean() == pytest.approx(1, abs=5 * error + 0.01)  # the rim left out
    assert error < 0.05
    wide = jnp.asarray(np.random.default_rng(0).standard_t(4, (40_000, 3)) * 60, jnp.float32)
    wide = wide + jnp.array([0.0, 220.0, 0.0], jnp.float32)
    ln_q = jnp.sum(jax.scipy.stats.t.logpdf(wide, 4, jnp.array([0.0, 220.0, 0.0]), 60.0), axis=1)
    ratio = np.exp(jax.jit(jax.vmap(lambda v: flow.ln_p(v, jnp.float32(x[1]))))(wide) - ln_q)
    assert ratio.mean() == pytest.approx(1, abs=5 * ratio.std() / np.sqrt(len(ratio)))


@pytest.mark.parametrize("precision", [jnp.float32, jnp.float64])
def test_the_ball_is_mapped_as_its_law_says(precision):
    """At the seam of the two formulae, q = 0.2, and to the rim: F(s) = rho^3, in either precision."""
    q = np.concatenate(
        [np.linspace(0.01, 0.99, 200), 0.2 + np.linspace(-1e-3, 1e-3, 21), [0.99999]]
    )
    q = np.asarray(q, precision)
    s = np.sqrt(q) * np.asarray(jax.vmap(stretch)(jnp.asarray(q)))
    truth = chi.isf(-np.expm1(1.5 * np.log(q.astype(float))), 3)
    np.testing.assert_allclose(s, truth, rtol=1e-12 if precision == jnp.float64 else 1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.2**0.5, 0.9, 0.999, 0.99999])
def test_the_ball_has_the_jacobian_it_says(rho):
    ball = Ball(jnp.array(CENTRE), jnp.array(RADIUS))
    x = jnp.array(CENTRE) + rho * RADIUS * jnp.array([0.6, 0.0, -0.8])
    y, log_det = ball.transform_and_log_det(x)
    assert float(log_det) == pytest.approx(
        float(jnp.linalg.slogdet(jax.jacfwd(ball.transform)(x))[1]), abs=1e-9
    )
    back, inverse = ball.inverse_and_log_det(y)
    np.testing.assert_allclose(back, x, atol=1e-12)
    assert float(inverse) == pytest.approx(-float(log_det), abs=1e-9)


def test_outside_the_ball_there_is_nothing(flow):
    assert float(flow.ln_n(jnp.array([-8.0, 0.0, 3.1], jnp.float32))) == -np.inf


def test_a_rotation_about_the_axis_leaves_velocities_alone(flow):
    """The frame's Jacobian is one and it does turn: v_R at y = 0 is -v_x where x < 0."""
    turn = flow.p.bijection.bijection.bijections[0]
    v = jnp.array([10.0, 200.0, 5.0])
    np.testing.assert_allclose(
        turn.transform(v, jnp.array([-8.0, 0.0, 0.3])), [-10, -200, 5], atol=1e-5
    )


def test_scores_are_the_gradients(flow):
    x, v = survey(50, seed=2)
    x = np.array(CENTRE) + 0.8 * (x - np.array(CENTRE))
    sx, sv = scores(flow, x, v, chunk=16)
    double, h = in_double(flow), 1e-5
    for got, move in ((sx, lambda e: (x + e, v)), (sv, lambda e: (x, v + 10 * e))):
        for axis in range(3):
            step = h * np.eye(3)[axis]
            up, down = (
                np.asarray(jax.vmap(double.n.log_prob)(a) + jax.vmap(double.p.log_prob)(b, a))
                for a, b in (move(step), move(-step))
            )
            size = 2 * h if got is sx else 20 * h
            # single precision: 1e-6 of terms of order a hundred
            np.testing.assert_allclose(got[:, axis], (up - down) / size, rtol=2e-3, atol=2e-3)
    assert sx.dtype == jnp.float32


def test_there_are_no_scores_outside_the_ball(flow):
    x = np.array(CENTRE) + np.array([[0.0, 0.0, 2.99], [0.0, 0.0, 3.0], [5.0, 0.0, 0.0]])
    for score in scores(flow, x, np.full((3, 3), 100.0)):
        np.testing.assert_array_equal(
            np.isnan(score), np.repeat([False, True, True], 3).reshape(3, 3)
        )


def test_products_stay_in_single_precision(flow):
    """In a double-precision session something promotes easily, at twice the time."""

    def program(x, v):
        return jax.vmap(jax.grad(paramax.unwrap(flow).log_prob, argnums=(0, 1)))(x, v)

    stars = [jnp.zeros((7, 3), t) for t in (jnp.float32, jnp.float64)]
    single, double = (str(jax.make_jaxpr(program)(a, a)) for a in stars)
    pattern = re.compile(r"f64\[[\d,]+\] = dot_general")
    assert "dot_general" in single
    assert not pattern.search(single)
    assert pattern.search(double)  # the pattern does find them


def test_training_learns_and_members_differ(architecture, trained):
    first, last = trained.losses[0, 1], trained.losses[-1, 1]
    assert np.all(last < first)
    x, v = (jnp.asarray(a[:20], jnp.float32) for a in survey(seed=7))
    sx, _ = ensemble_scores(trained.flows, x, v)
    assert sx.shape == (2, 20, 3)
    one, _ = scores(member(trained.flows, 1), x, v)
    np.testing.assert_allclose(sx[1], one, rtol=1e-5)
    assert np.abs(sx[0] - sx[1]).max() > 1e-3


def test_a_killed_training_goes_on_to_the_same_flows(architecture, trained, tmp_path):
    def stop(done, total, phase):
        if done == 2:
            raise KeyboardInterrupt

    settings = {"members": 2, "schedule": QUICK, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        train(*survey(), architecture, on_progress=stop, **settings)
    again = train(*survey(), architecture, **settings)
    for a, b in zip(jax.tree.leaves(trained.flows), jax.tree.leaves(again.flows), strict=True):
        np.testing.assert_array_equal(a, b)
    file = tmp_path / "training.eqx"
    for spoilt in (file.read_bytes()[:200], overwritten(file.read_bytes())):
        file.write_bytes(spoilt)
        with pytest.raises(ResumableError, match="damaged"):
            train(*survey(), architecture, **settings)


def overwritten(content):
    """Of the same length, with other numbers in the middle."""
    start = len(content) // 2
    return content[:start] + b"\xff" * 400 + content[start + 400 :]


def test_saved_flows_are_those_that_were_trained(architecture, trained, tmp_path):
    """Neither other numbers nor another description of the same shape is believed."""
    record = {"flows": store.save(trained.flows, architecture, 2, tmp_path)}
    flows, described = tmp_path / "flows.eqx", tmp_path / "run.json"
    described.write_text(json.dumps(record))
    for a, b in zip(
        jax.tree.leaves(trained.flows), jax.tree.leaves(store.load(tmp_path)[0]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    for change in ({"activation": "tanh"}, {"frame": "cartesian"}, {"radius": 4.0}):
        other = record["flows"] | {"architecture": architecture.to_dict() | change}
        described.write_text(json.dumps({"flows": other}))
        with pytest.raises(BayesdustError, match="train again"):
            store.load(tmp_path)
    described.write_text(json.dumps(record))
    flows.write_bytes(overwritten(flows.read_bytes()))
    with pytest.raises(BayesdustError, match="damaged or was changed: train again"):
        store.load(tmp_path)
    described.write_text(json.dumps({"flows": record["flows"] | {"schema_version": 1}}))
    with pytest.raises(BayesdustError, match="version 1, not 2: train again"):
        store.load(tmp_path)


def test_the_record_is_json_where_a_training_went_astray():
    lost = {"losses": [1.0, np.nan], "quality": {"gain": -np.inf, "stars": 3}, "place": (1.0, "x")}
    known = {"losses": [1.0, None], "quality": {"gain": None, "stars": 3}, "place": [1.0, "x"]}
    assert train_run._plain(lost) == known


def test_one_step_is_a_training(architecture):
    """As short as it is, it ends without an error."""
    x, v = survey(120)
    assert len(train(x, v, architecture, schedule=Schedule(epochs=1)).losses) == 1


def test_weights_count_as_so_many_stars(architecture):
    """Two populations: with weight zero on the second, the flow is that of the first."""
    x, v = survey(800)
    other = v + np.array([0.0, 0.0, 150.0])
    both = np.concatenate([x, x]), np.concatenate([v, other])
    weights = np.repeat([1.0, 0.0], 800)
    schedule = dataclasses.replace(QUICK, epochs=12)
    light, heavy = (
        train(*both, architecture, weights=w, schedule=schedule, bootstrap=False).flows
        for w in (weights, None)
    )
    place = jnp.array([-8.0, 0.3, 0.2], jnp.float32)
    vz = [
        float(paramax.unwrap(member(f, 0)).velocities(KEY, place, 2000)[:, 2].mean())
        for f in (light, heavy)
    ]
    assert abs(vz[0]) < 20  # a tenth of the way to the mixture's 75
    assert vz[1] > 40


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, v, w: (x[:50], v[:50], w), "at least 100 stars, and there are 50"),
        (lambda x, v, w: (x + 1.0, v, w), "Row .* from the centre of a survey of 3 kpc"),
        (lambda x, v, w: (x, np.where(v > 300, np.nan, v) * np.nan, w), "not finite"),
        (lambda x, v, w: (x, v, np.full(len(x), -1.0)), "weights must be"),
        (lambda x, v, w: (x, v, np.zeros(len(x))), "not all zero"),
        (lambda x, v, w: (x, v, np.ones(7)), r"weights of shape \(7,\) do not fit 600 stars"),
        (lambda x, v, w: (x, v[:-1], w), r"velocities of shape \(599, 3\) do not fit"),
        (lambda x, v, w: (x[:, 0], v[:, 0], w), r"Positions of shape \(600,\)"),
    ],
)
def test_bad_stars(architecture, spoil, message):
    x, v, w = spoil(*survey(), None)
    with pytest.raises(BayesdustError, match=message):
        train(x, v, architecture, weights=w, schedule=QUICK)


def test_no_member_is_no_ensemble(architecture):
    with pytest.raises(BayesdustError, match="ensemble of 0 flows"):
        train(*survey(), architecture, members=0)


def stars_of(x, v):
    return MilkyWayStars(
        x, v, SolarFrame(), "mock", "0" * 64, centre=CENTRE, radius=RADIUS, rows=np.arange(len(x))
    )


def test_the_judge_rejects_a_wrong_flow(trained):
    """The same flow, asked about stars that stream 60 km/s faster: every test must see it."""
    x, v = survey(3000, seed=9, shift=60.0)
    wrong = trained._replace(held_out=np.arange(1500))
    quality = flow_quality.measure(wrong, stars_of(x, v))
    assert min(quality.pit.values()) < 1e-6
    assert quality.accuracy > 0.5 + 5 * quality.accuracy_error
    assert len(quality.failures) >= 2


def test_the_judge_finds_nothing_in_a_right_flow(architecture):
    """Stars drawn from the flow itself."""
    flows = store.template(architecture, 1)
    x, v = (np.asarray(a, dtype=float) for a in member(flows, 0).stars(KEY, 4000))
    losses = np.zeros((1, 2, 1))
    trained = train_run.Trained(flows, losses, np.arange(2000))
    quality = flow_quality.measure(trained, stars_of(x, v))
    assert min(quality.pit.values()) > flow_quality.LEVEL / 6
    assert quality.accuracy < 0.5 + 3.5 * quality.accuracy_error


def test_moments_leave_out_what_lies_beyond_the_bins():
    place, v = (
        np.array([0.0, 0.5, 1.5, 2.0, 7.0, -1.0]),
        np.array([1.0, 3.0, 5.0, 7.0, 900.0, 900.0]),
    )
    mean, _ = flow_plots._moments(place, v, np.ones(6), np.array([0.0, 1.0, 2.0]), "mean")
    np.testing.assert_allclose(mean, [2.0, 6.0])
    mean, _ = flow_plots._moments(place, v, np.ones(6), np.array([0.0, 1.0, 1.2, 2.0]), "mean")
    np.testing.assert_allclose(mean, [2.0, np.nan, 6.0])  # nothing in the second


NOTHING_WRONG = flow_quality.Quality(300, -20.0, 1.0, 0.1, {"x": 0.5}, {"x": 0.02}, 0.5, 0.03)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"gain": 0.2}, "no better"),
        ({"ln_f": np.nan, "gain": np.nan, "gain_error": np.nan}, "not finite"),
        ({"pit": {"x": np.nan}}, "not normal in the base variable of x"),
        ({"pit": {"x": 1e-5}}, "not normal in the base variable of x"),
        ({"accuracy": np.nan}, "A classifier"),
        ({"stars": 99}, "count as 99"),
    ],
)
def test_the_judge_passes_only_what_it_knows(found, message):
    assert not NOTHING_WRONG.failures
    assert message in " ".join(dataclasses.replace(NOTHING_WRONG, **found).failures)


def test_the_judge_weighs_stars(architecture):
    """A right flow of stars of which many were not seen, which the weights mend; and a few heavy ones."""
    flows = store.template(architecture, 1)
    x, v = (np.asarray(a, dtype=float) for a in member(flows, 0).stars(KEY, 8000))
    rng = np.random.default_rng(2)
    ln_w = 1.0 * np.tanh(v[:, 2] / 20)
    seen = rng.random(8000) < np.exp(-ln_w - 1)
    x, v, ln_w = x[seen], v[seen], ln_w[seen]
    trained = train_run.Trained(flows, np.zeros((1, 2, 1)), np.arange(len(x) // 2))
    stars = dataclasses.replace(stars_of(x, v), weights=np.exp(ln_w))
    quality = flow_quality.measure(trained, stars)
    assert 500 < quality.stars < len(x) // 2
    assert min(quality.pit.values()) > flow_quality.LEVEL / 6
    assert quality.accuracy < 0.5 + 3.5 * quality.accuracy_error
    heavy = dataclasses.replace(stars, weights=np.exp(8 * rng.normal(size=len(x))))
    blind = flow_quality.measure(trained, heavy)
    assert blind.stars < 100
    assert abs(blind.gain) < 100
    assert "count as" in blind.failures[0]


@pytest.fixture(scope="module")
def gaia():
    """Stars of Gaia with errors, cut only to 4 kpc."""
    rng = np.random.default_rng(3)
    table = Table({"ra": rng.uniform(0, 360, 200), "dec": rng.uniform(-60, 60, 200)})
    table["parallax"] = 1 / rng.uniform(0.5, 2.0, 200)
    for name in ("pmra", "pmdec", "radial_velocity"):
        table[name] = rng.normal(size=200) * 5
    for name in OBSERVED:
        table[f"{name}_error"] = 0.02
    return read_gaia(table, cuts=(cuts.within(4.0),))


@pytest.mark.parametrize("change", ["weights", "positions", "errors"])
def test_another_request_is_not_resumed(gaia, change):
    """The file is the same: its columns may be read in another way."""
    one = dataclasses.replace(gaia, weights=np.ones(gaia.n))
    errors = dataclasses.replace(gaia.observed, errors=2 * gaia.observed.errors)
    other = {
        "weights": {"weights": np.linspace(1, 2, gaia.n)},
        "positions": {"x": gaia.x + 0.1},
        "errors": {"observed": errors},
    }[change]
    first, second = (
        train_run.Request(stars, 2, QUICK, errors=True).fingerprint()
        for stars in (one, dataclasses.replace(one, **other))
    )
    assert {k for k in first if first[k] != second[k]} - {"architecture"} >= {
        "positions" if change == "errors" else change
    }


def test_stars_on_the_rim_are_stars(architecture):
    """As far out as the readers let them be, and a little more by rounding to single precision."""
    x, v = survey(200)
    away = np.linalg.norm(x - np.array(CENTRE), axis=1)[:, None]
    rim = np.array(CENTRE) + (x - np.array(CENTRE)) / away * (RADIUS + ROUNDING)
    built = train_run.Request(stars_of(rim, v), build=TINY).architecture
    flow = PhaseSpaceFlow.untrained(KEY, built)
    assert np.isfinite(jax.vmap(flow.ln_n)(jnp.asarray(rim, jnp.float32))).all()
    train(rim, v, built, schedule=Schedule(epochs=1))


def test_a_star_off_the_ball_is_named_by_its_row():
    x, v = survey(200)
    stars = dataclasses.replace(stars_of(x, v), radius=2.9, rows=np.arange(200) + 1000)
    first = int(np.argmax(np.linalg.norm(x - np.array(CENTRE), axis=1) > 2.901)) + 1000
    with pytest.raises(
        BayesdustError, match=f"mock: row {first}: .* outside its radius of 2.9 kpc"
    ):
        _ = train_run.Request(stars).architecture


def test_without_a_radius_the_ball_holds_the_stars():
    """It is centred where the survey is, which need not be the Sun."""
    x, v = survey(200)
    table = Table(dict(zip(("x", "y", "z", "vx", "vy", "vz"), np.hstack([x, v]).T, strict=True)))
    built = train_run.Request(read_milky_way(table, centre=(-6.0, 1.0, 0.0))).architecture
    away = np.linalg.norm(x - np.array([-6.0, 1.0, 0.0]), axis=1).max()
    assert away < built.radius < 1.002 * away


def test_copies_of_stars_stay_in_the_ball(gaia):
    """Also where no cut declares one."""
    request = train_run.Request(dataclasses.replace(gaia, radius=None), 3, QUICK, errors=True)
    x, _, weights = request.arrays
    away = np.linalg.norm(x - np.array(gaia.centre), axis=-1)
    assert away.max() < request.architecture.radius
    assert (weights[1:] == 0).any()


def test_one_member_resamples_nothing(gaia):
    with pytest.raises(BayesdustError, match="2 members or more"):
        train_run.Request(gaia, 1, QUICK, errors=True).fingerprint()


def npz(path, x, v, **more):
    columns = dict(zip(("x", "y", "z"), x.T, strict=True))
    columns |= dict(zip(("vx", "vy", "vz"), v.T, strict=True))
    np.savez(path, **columns, **more)
    return str(path)


def command(monkeypatch, capsys, *words):
    """Exit code and standard error of the command line."""
    monkeypatch.setattr("sys.argv", ["bayesdust", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code, capsys.readouterr().err


@pytest.mark.slow
def test_the_command_and_what_it_leaves(monkeypatch, capsys, tmp_path):
    x, v = survey(400)
    file = npz(tmp_path / "stars.npz", x, v)
    out = tmp_path / "flows"
    asked = ("train", file, "--members", 2, "--epochs", 2, "--out", out)
    code, _ = command(monkeypatch, capsys, *asked)
    assert code in (0, 3)  # so short a training may fail its tests
    assert {p.name for p in out.iterdir()} == {"flows.eqx", "quality.html", "run.json"}
    flows, record = store.load(out)
    assert record["flows"]["members"] == 2
    assert record["stars"] == 400
    assert member(flows, 1).log_prob(jnp.float32(x[0]), jnp.float32(v[0])).shape == ()
    assert record["weights"] == "none"
    assert "<script" not in (out / "quality.html").read_text()
    assert "member 0 of 2" in (out / "quality.html").read_text()
    code, said = command(monkeypatch, capsys, *asked)
    assert code == 2
    assert "finished run" in said

    spoilt = json.loads((out / "run.json").read_text())
    spoilt["flows"]["architecture"]["widths"] = [16, 16]
    (out / "run.json").write_text(json.dumps(spoilt))
    with pytest.raises(BayesdustError, match="train again"):
        store.load(out)
    (out / "flows.eqx").write_bytes((out / "flows.eqx").read_bytes()[:300])
    with pytest.raises(BayesdustError, match="damaged"):
        store.load(out)
    (out / "run.json").write_text("{}")
    with pytest.raises(BayesdustError, match="describes no flows"):
        store.load(out)
    with pytest.raises(BayesdustError, match="no finished flows"):
        store.load(tmp_path)


@pytest.mark.parametrize(
    ("n", "spoil", "message"),
    [
        (50, lambda v: v, "50"),
        (300, lambda v: np.where(np.arange(300)[:, None] == 7, np.nan, v), "row 8"),
    ],
)
def test_bad_catalogues_leave_nothing(monkeypatch, capsys, tmp_path, n, spoil, message):
    x, v = survey(n)
    file = npz(tmp_path / "stars.npz", x, spoil(v))
    code, said = command(monkeypatch, capsys, "train", file, "--out", tmp_path / "flows")
    assert code == 2
    assert message in said
    assert "stars.npz" in said
    assert not (tmp_path / "flows").exists()


def test_a_star_outside_the_volume_is_named(monkeypatch, capsys, tmp_path):
    x, v = survey(300)
    file = npz(tmp_path / "stars.npz", x, v)
    words = ("train", file, "--radius", 1.0, "--out", tmp_path / "flows")
    code, said = command(monkeypatch, capsys, *words)
    assert code == 2
    assert "row" in said
    assert not (tmp_path / "flows").exists()


def test_a_coordinate_that_all_stars_share_is_refused():
    """Before the training, not after it."""
    from astropy.table import Table

    from bayesdust.catalogs.cartesian import read_milky_way
    from bayesdust.train_run import Request

    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=200) for name in ("x", "y", "z", "vx", "vy", "vz")}
    columns["z"] = np.zeros(200)
    stars = read_milky_way(Table(columns), radius=9.0, centre=(0.0, 0.0, 0.0))
    with pytest.raises(BayesdustError, match="every star has the same z"):
        _ = Request(stars, 1).architecture
