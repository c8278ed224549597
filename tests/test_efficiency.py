"""Dust from magnitudes: the parts of the sky, the luminosity function, the efficiency and its scatter."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.linalg import block_diag
from scipy.optimize import minimize

from bayesdust.dusty_mocks import dusty_survey
from bayesdust.dynamics import dust_fit, efficiency
from bayesdust.dynamics.dust_fit import fit_dust
from bayesdust.dynamics.dust_posterior import DustPosterior, Stars
from bayesdust.dynamics.dust_whitening import Whitened
from bayesdust.dynamics.efficiency import modulus
from bayesdust.dynamics.halved_walk import HalvedWalk
from bayesdust.dynamics.luminosity import Luminosity
from bayesdust.dynamics.sky_parts import Sky
from bayesdust.dynamics.tracer_counts import WAYS, Nodes, Region
from bayesdust.errors import BayesdustError

N = 12_800


@pytest.fixture(scope="module")
def survey():
    """Stars behind a dozen clouds and a layer, their efficiencies known."""
    return dusty_survey(N, seed=3)


@pytest.fixture(scope="module")
def offsets(survey):
    return survey.x - np.asarray(survey.galaxy.ball.centre)


@pytest.fixture(scope="module")
def region(survey):
    ball = survey.galaxy.ball
    return Region(np.asarray(ball.centre), np.asarray(ball.centre), ball.radius)


@pytest.fixture
def hasty(monkeypatch):
    """Fits of a few steps: where they end does not matter."""
    monkeypatch.setattr(dust_fit, "FIRST", (3,))


def test_parts_of_the_sky_are_even_and_found_again(offsets):
    sky = Sky.of(offsets, 6)
    counts = np.bincount(sky.cell(offsets), minlength=sky.cells)
    assert sky.cells == 64
    assert np.ptp(counts) <= 6  # a star for every halving
    # a part is a piece of the sky: where a star is nearer to the Sun does not matter
    np.testing.assert_array_equal(sky.cell(offsets), sky.cell(0.1 * offsets))


def test_stars_in_one_direction_stay_together(offsets):
    """Three directions, one of a star alone, and one place: parts may be uneven or empty."""
    tied = np.concatenate([np.repeat(offsets[:2], 50, axis=0), offsets[2:3]])
    sky = Sky.of(tied, 4)
    cell = sky.cell(tied)
    assert sorted(np.bincount(cell)[np.unique(cell)]) == [1, 50, 50]
    assert len(np.unique(Sky.of(np.zeros((10, 3)), 2).cell(np.zeros((10, 3))))) == 1


def test_luminosity_tables_are_normalised():
    luminosity = Luminosity(-4.0, 1.5)
    ln_phi = np.sin(luminosity.knots) + 0.6 * luminosity.knots
    ln, ln_share = (np.asarray(t) for t in luminosity.tables(ln_phi))
    for place in (-3.0, -0.5, 0.7):
        value = np.exp(luminosity.at(ln_share, np.array(place)))
        grid = np.linspace(-11.9, place, 20001)
        total = np.trapezoid(np.exp(luminosity.at(ln, grid)), grid)
        # what lies below -11.9, and straight lines between points a hundredth of a magnitude apart
        assert float(value) == pytest.approx(total, rel=5e-3)
    assert float(luminosity.at(ln_share, np.array(5.0))) == pytest.approx(0.0, abs=1e-9)
    # beyond the bright end both fall alike: the stars behind endless dust are still a law of sum one
    far = np.array([-11.0, -16.0])
    for table in (ln, ln_share):
        assert np.diff(luminosity.at(table, far)) == pytest.approx(-5 * 0.8, rel=1e-5)


@pytest.mark.slow
def test_the_efficiency_is_found(survey, offsets, region):
    """Within its errors, near the plane; the wrong models are no dust, and dust all alike."""
    dust = fit_dust(survey.x, survey.G, survey.limit, region)
    rng = np.random.default_rng(11)
    there = rng.uniform(-2.5, 2.5, (1000, 3)) * np.array([1.0, 1.0, 0.1])  # kpc
    draws = dust.in_sight(there, 4, rng)
    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    told = sd > 0.02
    truth = survey.efficiency(there + np.asarray(survey.galaxy.ball.centre))
    clear = survey.luminosity.share(survey.limit - modulus(np.linalg.norm(there, axis=1)))

    def rms_z(epsilon):
        return np.sqrt(np.mean(((truth - epsilon)[told] / sd[told]) ** 2))

    # 0.98 with a scatter of 0.22 between mocks of 20,000 stars (docs/results/dust.md), three times that
    most = 0.98 + 3 * 0.22
    assert rms_z(mean) < most < min(rms_z(clear), rms_z(truth.mean()))


@pytest.mark.slow
def test_a_sample_that_ends_at_an_absolute_magnitude(survey, offsets, region):
    """As one of `cuts.giants` does; told nothing of it, the fit takes dust for stars that never were."""
    end = 0.98  # where the luminosity function ends: dust alone takes stars beyond it
    looks = survey.G - modulus(np.linalg.norm(offsets, axis=1))
    kept = looks < end
    share = survey.luminosity.share
    faintest = efficiency.faintest_seen(offsets, survey.limit, end) - survey.A
    truth = (share(faintest) / share(np.array([end])))[kept]
    right, wrong = (
        fit_dust(
            survey.x[kept], survey.G[kept], survey.limit, region, absolute_limit=told
        ).efficiency(offsets[kept])
        for told in (end, np.inf)
    )
    rms = [np.sqrt(np.mean((found - truth) ** 2)) for found in (right, wrong)]
    assert rms[0] < 0.6 * np.std(truth)  # constant dust misses by the standard deviation
    assert rms[1] > np.std(truth)


def test_the_draws_are_of_their_seed(survey, region, hasty):
    one, again, other = (
        fit_dust(survey.x, survey.G, survey.limit, region, rounds=[(1, 3)], draws=2, seed=seed)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.draws, again.draws)
    assert not np.allclose(one.draws, other.draws)
    assert not np.allclose(one.draws[0], one.draws[1])


def test_the_efficiency_is_the_mean_of_the_draws(survey, offsets, region, hasty):
    """epsilon = S(limit - mu - A), by hand for one draw; a mean of the dust is another thing."""
    dust, some = (
        fit_dust(survey.x, survey.G, survey.limit, region, rounds=(), draws=3),
        offsets[:100],
    )
    every = dust.efficiencies(some)
    np.testing.assert_array_equal(dust.efficiency(some), every.mean(axis=0))
    smooth = replace(dust, patchiness=0.0)
    table = np.exp(smooth.luminosity.tables(jnp.asarray(dust.ln_phi))[1])
    distance = np.linalg.norm(some, axis=1)
    ways = np.minimum(np.maximum(distance[:, None] - dust.knots[:-1], 0), np.diff(dust.knots))
    extinction = np.sum(ways / np.diff(dust.knots) * dust.draws[1][dust.sky.cell(some)], axis=1)
    wanted = np.interp(survey.limit - modulus(distance) - extinction, dust.luminosity.grid, table)
    np.testing.assert_allclose(
        smooth.efficiencies(some)[1], np.maximum(wanted, efficiency.LEAST), atol=1e-4
    )
    mean = replace(dust, draws=dust.draws.mean(axis=0)[None])
    assert abs(mean.efficiency(some) - dust.efficiency(some)).max() > 0.01


def test_lines_of_sight_scatter_about_their_part(survey, offsets, region, hasty, monkeypatch):
    """By the patchiness, and not without; their mean is that of a rule of many nodes, and nearly of five."""
    dust = fit_dust(survey.x, survey.G, survey.limit, region, rounds=(), draws=2)
    dust, some = replace(dust, patchiness=0.3), offsets[:50]
    found = dust.in_sight(some, 4000, np.random.default_rng(8)).reshape(2, 4000, 50)
    error = found.std(axis=1) / np.sqrt(4000)
    five = dust.efficiencies(some)
    clear = five > 2 * efficiency.LEAST  # the floor is not for single lines
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    monkeypatch.setattr(efficiency, "_PATCHES", (nodes, weights / weights.sum()))
    many = dust.efficiencies(some)
    assert np.all(abs(found.mean(axis=1) - many)[clear] < (5 * error + 1e-4)[clear])
    assert abs(five - many)[clear].max() < 0.05  # where the clump is half hidden
    assert found.std(axis=1).max() > 0.05
    alike = replace(dust, patchiness=0.0).in_sight(some, 3, np.random.default_rng(8))
    np.testing.assert_array_equal(alike[0], alike[1])


def test_the_efficiency_has_a_floor(survey, offsets, region, hasty):
    dust = fit_dust(survey.x, survey.G, survey.limit, region, rounds=(), draws=1)
    behind = replace(dust, draws=np.full_like(dust.draws, 50.0))
    assert behind.efficiency(offsets).min() == efficiency.LEAST


@pytest.mark.slow
def test_the_rounds_come_nearer_to_the_posterior(survey, region, monkeypatch):
    """By the bound ln evidence >= entropy - <E> (Kullback & Leibler), <E> of (1) over pairs that no round
    has seen, each law's own. On the way to the maximum E itself is lower.

    n is of any size, so that in the mean over the law the stars that ought to be there are as many as there
    are: to twice the noise of their number.
    """
    kept = {}

    def keep(posterior, start, seen, rounds, rng, on_progress):
        kept[rounds] = (
            posterior,
            seen,
            *normal_law(posterior, start, seen, rounds, rng, on_progress),
        )
        return kept[rounds][2:]

    normal_law = dust_fit._normal_law
    monkeypatch.setattr(dust_fit, "_normal_law", keep)
    for rounds in ((), dust_fit.ROUNDS):
        fit_dust(survey.x, survey.G, survey.limit, region, rounds=rounds, draws=1)
    alone, lost, error, number = {}, {}, {}, {}
    for rounds, (posterior, seen, p, scatter) in kept.items():
        rng = np.random.default_rng(99)
        energy = jax.jit(posterior.energy)
        alone[rounds] = float(energy(p, jnp.zeros(posterior.shape), seen))
        pairs = []
        for noise in rng.standard_normal((8, *p.deltas.shape)):
            deltas = scatter.deltas(jnp.asarray(noise))
            x = posterior.walk.fields(deltas)
            # the mean of the prior's ln over +-x, which `energy` leaves out
            E = 0.5 * (energy(p, x, seen) + energy(p, -x, seen) + jnp.sum(deltas**2))
            pairs.append((float(E), expected(posterior, p, x, seen)))
        # of the walk's steps: in them each level's draw is triangular
        entropy = sum(np.log(abs(np.linalg.det(root))).sum() for root in scatter.roots)
        mean, number[rounds] = np.mean(pairs, axis=0)
        lost[rounds], error[rounds] = mean - entropy, np.std(pairs, axis=0)[0] / np.sqrt(8)
    assert lost[dust_fit.ROUNDS] + 5 * np.hypot(*error.values()) < lost[()]
    assert alone[()] < alone[dust_fit.ROUNDS]
    assert abs(number[dust_fit.ROUNDS] - N) < 2 * np.sqrt(N) < abs(number[()] - N)


def expected(posterior, p, x, seen):
    """How many stars ought to be there, the mean of u + x and u - x."""
    u, tables = posterior.walk.fields(p.deltas), posterior.luminosity.tables(p.ln_phi)
    return np.mean([float(np.sum(posterior.numbers(tables, p, u + y, seen[1]))) for y in (x, -x)])


@pytest.mark.slow
def test_whitened_coordinates_are_nearer_to_the_maximum(survey, region, monkeypatch):
    """Twice ten steps of L-BFGS in them lead lower than forty in the parameters themselves."""
    reached = {}

    def keep(posterior, start, seen, *_):
        none = jnp.zeros((1, *posterior.shape))
        p, _ = descended(posterior, Whitened.about(start, none, posterior, seen), seen, 10)
        _, reached["whitened"] = descended(
            posterior, Whitened.about(p, none, posterior, seen), seen, 10
        )
        _, reached["plain"] = descended(
            posterior, lambda xi: jax.tree.map(jnp.add, start, xi), seen, 40
        )
        raise KeyboardInterrupt

    def descended(posterior, chart, seen, steps):
        zero, shaped = ravel_pytree(
            jax.tree.map(jnp.zeros_like, posterior.start(np.zeros(seen[0].disc.shape[1])))
        )
        none = jnp.zeros((1, *posterior.shape))
        slope = jax.jit(
            jax.value_and_grad(lambda xi: posterior.energy(chart(shaped(xi)), none[0], seen))
        )
        found = minimize(
            slope, zero, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 20}
        )
        return chart(shaped(jnp.asarray(found.x))), found.fun

    monkeypatch.setattr(dust_fit, "_normal_law", keep)
    with pytest.raises(KeyboardInterrupt):
        fit_dust(survey.x, survey.G, survey.limit, region)
    assert reached["whitened"] < reached["plain"] - 100


def test_the_curvature_is_that_of_the_likelihood():
    """Stars at the quantiles of the intensity: ln L of (2) in `tracer_counts`, of as many stars as there
    were and the number there ought to be, loses h^T curvature h / 2 at a distance h."""
    luminosity = Luminosity(-4.0, 1.0)
    layer = jnp.array([[0.3, 0.5]])
    posterior = DustPosterior(luminosity, layer, HalvedWalk(0, 2.5))
    start, u = posterior.start(np.zeros(1)), jnp.array([[0.2, -0.1, 0.3, 0.0, -0.2, 0.1]])
    at = start._replace(ln_patchiness=np.log(0.2), deltas=u / 2.5)
    tables = luminosity.tables(at.ln_phi)
    ways = np.eye(len(WAYS))
    grids, chosen = [], []

    def intensity(u, *star):
        return np.exp(
            jax.vmap(
                lambda *star: posterior.ln_intensity(
                    tables, 0.2, posterior.steps(u)[0], posterior.departures(u)[0], star
                )
            )(*star)
        )

    for way, faintest, shares in zip(
        ways, (1.2, 0.6, 1.0, 0.8), ((1, 0.4), (1, 1), (0.5, 0), (1, 0.8)), strict=True
    ):
        looks = np.linspace(faintest - 10, faintest, 40_001)
        star = [
            looks,
            np.full_like(looks, faintest),
            *(np.tile(a, (40_001, 1)) for a in (shares, way)),
        ]
        found = intensity(u, *star)
        number = np.trapezoid(found, looks)
        total = np.cumsum(found)
        index = np.searchsorted(total / total[-1], (np.arange(2000) + 0.5) / 2000)
        grids.append((2000 / number, star))
        chosen.append([a[index] for a in star])
    looks, faintest, shares, way = map(np.concatenate, zip(*chosen, strict=True))
    many = [jnp.zeros(len(looks), int), *map(jnp.asarray, (looks, faintest, shares, way))]
    seen = Stars(*many, jnp.zeros((len(looks), 1))), counted(posterior, at, chosen, ways)

    def ln_likelihood(u):
        number = sum(n * np.trapezoid(intensity(u, *star), star[0]) for n, star in grids)
        return float(np.sum(np.log(intensity(u, *seen[0][1:5]))) - number)

    none = jnp.zeros((1, *posterior.shape))
    curvature = posterior.curvature(at, none, seen)[0]
    for h in np.array(
        [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0.7, -0.7, 0, 0, 0, 1], [0, 0, 2, 0, 1, 0]]
    ):
        h = 0.1 * h
        lost = ln_likelihood(u) - 0.5 * (ln_likelihood(u + h) + ln_likelihood(u - h))
        # to fourth order in h, of A's 0.04 mag over the clump's 0.15
        assert lost == pytest.approx(0.5 * h @ curvature @ h, rel=0.1)
    around = 0.3 * np.random.default_rng(5).normal(size=(3, *posterior.shape))
    each = [posterior.curvature(at._replace(deltas=(u + x) / 2.5), none, seen)[0] for x in around]
    np.testing.assert_allclose(
        posterior.curvature(at, around, seen)[0], np.mean(each, axis=0), rtol=1e-10
    )


def counted(posterior, at, chosen, ways):
    """Nodes at which as many stars ought to be as were chosen: 2000 each."""
    faintest, shares = (np.array([one[i][0] for one in chosen])[None] for i in (1, 2))
    nodes = Nodes(faintest, shares, ways[None], np.zeros((1, 4, 1)), np.zeros((1, 4, 1, 1)))
    u, tables = posterior.walk.fields(at.deltas), posterior.luminosity.tables(at.ln_phi)
    there = posterior.numbers(tables, at, u, nodes)
    return nodes._replace(ln_volume=jnp.log(2000 / there)[..., None])


def test_the_walk_and_its_scatter_are_exact():
    """Against dense matrices, all parts and steps at once."""
    walk, k = HalvedWalk(levels=3, spread=1.3), 2
    size = walk.parts * k
    slopes = jax.jacobian(lambda p: walk.fields(p.reshape(-1, k)).ravel())(jnp.zeros(size))
    prior = np.asarray(slopes @ slopes.T)
    np.testing.assert_allclose(np.diag(prior), 1.3**2)
    # sisters share three of four steps, parts of different halves of the sky the first alone
    np.testing.assert_allclose(prior[0, [2, 14]], 1.3**2 * np.array([3, 1]) / 4)
    roots = np.random.default_rng(4).normal(size=(8, k, k))
    curvature = roots @ roots.transpose(0, 2, 1)
    curvature[3] = 0.0  # a part without a say
    scatter = walk.scatter(curvature)
    noise = np.eye(size).reshape(size, -1, k)
    drawn = np.array([walk.fields(scatter.deltas(one)).ravel() for one in noise]).T
    exact = np.linalg.inv(np.linalg.inv(prior) + block_diag(*curvature))
    np.testing.assert_allclose(drawn @ drawn.T, exact, atol=1e-10)
    alone = np.linalg.inv(np.eye(k) / 1.3**2 + curvature[0])
    assert not np.allclose(exact[:k, :k], alone)  # parts that know nothing of each other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (np.nan, "its magnitude is nan"),
        (-np.inf, "its magnitude is -inf"),
        (-1e4, "its magnitude is -10000"),
        (14.5, "beyond the limit 14"),
    ],
)
def test_bad_magnitudes(survey, region, change, words):
    G = survey.G.copy()
    G[3] = change
    with pytest.raises(BayesdustError, match=f"star 4: .*{words}"):
        fit_dust(survey.x, G, survey.limit, region)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_places(survey, region, value):
    there = survey.x.copy()
    there[3, 1] = value
    with pytest.raises(BayesdustError, match="star 4: its place is"):
        fit_dust(there, survey.G, survey.limit, region)


@pytest.mark.parametrize("limits", [(np.nan, np.inf), (np.inf, np.inf), (14.0, np.nan)])
def test_limits_that_are_none(survey, region, limits):
    with pytest.raises(BayesdustError, match="are not magnitudes"):
        fit_dust(survey.x, survey.G, limits[0], region, absolute_limit=limits[1])


def test_too_few_stars_for_dust(survey, region):
    with pytest.raises(BayesdustError, match="of 10 stars: give 200 or more"):
        fit_dust(survey.x[:10], survey.G[:10], survey.limit, region)


def test_magnitudes_that_no_dust_explains(survey, region, monkeypatch):
    monkeypatch.setattr(DustPosterior, "energy", lambda self, p, *_: jnp.nan * p.disc.sum())
    with pytest.raises(BayesdustError, match="No dust makes the magnitudes probable"):
        fit_dust(survey.x, survey.G, survey.limit, region)
