"""Dusty mocks: extinctions are integrals, and as many stars are seen as epsilon says.

Statistical checks of the light are made twice: the mock must pass (a true one fails once in a thousand
seeds), and a model that is wrong by a tenth of a magnitude, or has forgotten the dust, must fail by far.
"""

import dataclasses
from itertools import pairwise

import jax
import numpy as np
import pytest
from quick_galaxy import POTENTIAL, quick_galaxy
from scipy import stats
from scipy.integrate import quad

from bayesdust import disc_mocks
from bayesdust.catalogs.cartesian import read_milky_way
from bayesdust.catalogs.frames import SolarFrame, icrs
from bayesdust.dusty_mocks import SUN, Dust, LuminosityFunction, clouds, dusty_survey, observe
from bayesdust.errors import BayesdustError

P_PASS, P_FAIL = 1e-3, 1e-12
N = 30_000
LIGHT = LuminosityFunction()
CLEAR = Dust(np.zeros((0, 3)), np.zeros(0), np.zeros(0), strength=0.0)


def shifted(by):
    """`LIGHT`, fainter by `by` [mag]."""
    return dataclasses.replace(
        LIGHT, clump_mean=LIGHT.clump_mean + by, faintest=LIGHT.faintest + by
    )


@pytest.fixture(scope="module")
def parents():
    return disc_mocks.draw(N, quick_galaxy(), seed=1)


@pytest.fixture(scope="module")
def survey(parents):
    return observe(parents, seed=2)


@pytest.fixture(scope="module")
def bright():
    """A survey of so low a limit that its stars come from several draws."""
    return dusty_survey(2000, seed=3, potential=POTENTIAL, limit=13.0)


# Dust


def column(dust, place):
    """Adaptive quadrature of the density between the Sun and a place (3,)."""
    step = place - SUN
    d = np.linalg.norm(step)
    ray = step / d
    hard = [*(dust.centres - SUN) @ ray, -SUN[2] / ray[2] if ray[2] else 0.0]
    edges = np.unique(np.clip([0.0, *hard, d], 0.0, d))
    along = lambda s: dust.density((SUN + s * ray)[None])[0]  # noqa: E731
    pieces = [quad(along, a, b, epsabs=1e-12, limit=200)[0] for a, b in pairwise(edges)]
    return sum(pieces)


@pytest.mark.parametrize(
    "dust", [clouds(), clouds(5, 3), clouds(0, 0)], ids=["default", "3 clouds", "layer"]
)
def test_the_extinction_is_the_integral_of_the_density(parents, dust):
    special = SUN + np.array([[2.0, -1.0, 0.0], [0, 0, 3.0], [0, 0, -3.0], [1.0, 0, -SUN[2]]])
    nearly_level = SUN + np.array([[-3.0, 0.5, 1e-9], [-3.0, 0.5, -1e-9]])
    x = np.concatenate([parents.x[:40], special, nearly_level, dust.centres])
    np.testing.assert_allclose(dust.extinction(x), [column(dust, p) for p in x], atol=1e-10)


def test_no_dust_lies_in_front_of_the_sun():
    np.testing.assert_array_equal(clouds().extinction(SUN[None]), [0.0])


def test_the_default_clouds_are_where_they_are_said_to_be(survey):
    dust = clouds()
    away = np.linalg.norm((dust.centres - SUN)[:, :2], axis=1)
    assert ((away > 0.8) & (away < 3.5)).all()
    assert ((dust.sizes > 0.1) & (dust.sizes < 0.4)).all()
    assert 0.08 < np.mean(survey.epsilon < 0.4) < 0.12
    np.testing.assert_array_equal(dust.centres, clouds().centres)
    assert not np.isin(dust.sizes, clouds(3).sizes).any()


# Light


def test_shares_are_integrals_of_the_luminosity_function():
    for M in (-4.0, 0.0, 0.45, 0.7, 0.98, 1.5):
        end = min(M, LIGHT.faintest)
        edges = [-60.0, -1.0, 0.45, end] if end > 0.45 else [-60.0, min(-1.0, end), end]
        density = lambda m: LIGHT.density(np.array([m]))[0]  # noqa: E731
        total = sum(quad(density, a, b, epsabs=1e-13)[0] for a, b in pairwise(edges))
        assert LIGHT.share(np.array([M]))[0] == pytest.approx(total, abs=1e-10)
    assert LIGHT.share(np.array([LIGHT.faintest]))[0] == 1.0
    assert LIGHT.density(np.array([LIGHT.faintest + 1e-9]))[0] == 0.0


def test_magnitudes_follow_the_luminosity_function():
    """By Kolmogorov's distance, which for N stars is below 1.95/sqrt(N) but once in a thousand."""
    M = LIGHT.draw(np.random.default_rng(4), N)
    assert M.max() <= LIGHT.faintest
    assert stats.kstest(M, LIGHT.share).pvalue > P_PASS
    assert stats.kstest(M, shifted(0.1).share).pvalue < P_FAIL


# What is seen


def test_without_dust_every_star_is_seen(parents):
    """The luminosity function ends at what the limit sees at the edge of the ball."""
    clear = observe(parents, CLEAR)
    np.testing.assert_array_equal(clear.x, parents.x)
    np.testing.assert_array_equal(clear.epsilon, 1.0)
    assert len(observe(parents, CLEAR, limit=13.9).x) < N


def counts_p(truth, seen):
    """p of the numbers of stars seen in bins of epsilon `truth` (n,), with binomial errors."""
    part = truth < 1
    assert seen[~part].all()
    truth, seen = truth[part], seen[part]
    place = np.digitize(truth, np.linspace(0.1, 0.9, 9))
    expected, found, variance = (np.bincount(place, w) for w in (truth, seen, truth * (1 - truth)))
    assert len(expected) == 10
    assert variance.min() > 20  # enough to be nearly normal
    return stats.chi2.sf(np.sum((found - expected) ** 2 / variance), 10)


def test_as_many_stars_are_seen_as_epsilon_says(parents, survey):
    seen = np.isin(parents.x[:, 0], survey.x[:, 0])
    assert seen.sum() == len(survey.x)
    assert counts_p(survey.efficiency(parents.x), seen) > P_PASS
    brighter = dataclasses.replace(survey, luminosity=shifted(-0.1))
    truth = survey.efficiency(parents.x)
    wrong = np.where(truth < 1, np.minimum(brighter.efficiency(parents.x), 1 - 1e-9), 1.0)
    assert counts_p(wrong, seen) < P_FAIL


def test_those_seen_are_the_bright_end_of_the_luminosity_function(survey):
    """S(M)/epsilon is even between 0 and 1 behind the true dust, and not with the dust forgotten."""
    share = LIGHT.share(survey.absolute_magnitude)
    assert stats.kstest(share / survey.epsilon, "uniform").pvalue > P_PASS
    assert stats.kstest(share, "uniform").pvalue < P_FAIL


def test_columns_belong_together(bright):
    distance = np.linalg.norm(bright.x - SUN, axis=1)
    assert disc_mocks.SURVEY.contains(bright.x).all()
    G = bright.absolute_magnitude + 5 * np.log10(distance / 0.01) + bright.A
    np.testing.assert_allclose(bright.G, G, rtol=1e-13)
    assert (bright.G < bright.limit).all()
    np.testing.assert_array_equal(bright.A, bright.dust.extinction(bright.x))
    np.testing.assert_allclose(bright.epsilon, bright.efficiency(bright.x), rtol=1e-13)


def test_several_draws_make_one_survey(bright):
    """No star comes twice, and the first half is like the second."""
    assert len(bright.x) == len(np.unique(bright.x[:, 0])) == 2000
    for values in (bright.epsilon, bright.x[:, 2], bright.v[:, 1]):
        assert stats.ks_2samp(values[:1000], values[1000:]).pvalue > P_PASS
    assert bright.galaxy.names == ("thin", "thick", "halo")
    half = [np.bincount(c, minlength=3) for c in np.split(bright.component, 2)]
    assert stats.chi2_contingency(half).pvalue > P_PASS


def test_the_seed_decides(bright):
    same = dusty_survey(2000, seed=3, potential=POTENTIAL, limit=13.0)
    for name in ("x", "v", "component", "G", "absolute_magnitude", "A", "epsilon"):
        np.testing.assert_array_equal(getattr(bright, name), getattr(same, name))
    other = dusty_survey(2000, seed=4, potential=POTENTIAL, limit=13.0)
    assert not np.isin(other.G, bright.G).any()


# The truth, and what is made of the stars


def test_the_truth_is_that_of_the_potential(bright):
    x = bright.x[:50]
    force = jax.vmap(POTENTIAL.acceleration)(x)
    np.testing.assert_allclose(bright.acceleration(x), force, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(bright.density(x), jax.vmap(POTENTIAL.density)(x), rtol=1e-9)


def test_the_table_is_read_as_milky_way_stars(bright):
    table = bright.table()
    assert table.colnames == ["x", "y", "z", "vx", "vy", "vz", "G", "epsilon"]
    stars = read_milky_way(table, weights="1/epsilon", radius=4.0, centre=list(SUN))
    np.testing.assert_array_equal(stars.x, bright.x)
    np.testing.assert_array_equal(stars.v, bright.v)
    np.testing.assert_allclose(stars.weights, 1 / bright.epsilon)
    assert str(table["G"].unit) == "mag"
    assert bright.stars(weights="1/epsilon").sha256 == stars.sha256
    with pytest.raises(BayesdustError, match="outside"):
        bright.with_errors().stars()


def test_errors_have_the_size_of_gaias(bright):
    sun = SolarFrame(distance=float(np.linalg.norm(SUN)), z_sun=SUN[2])
    moved, again, other = (bright.with_errors(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(moved.x, again.x)
    assert not np.isclose(moved.x, other.x).all(axis=1).any()
    off = icrs(moved.x, moved.v, sun) - icrs(bright.x, bright.v, sun)
    assert abs(off[:, :2]).max() < 1e-9
    pull = off[:, 2:] / np.array([0.02, 0.02, 0.02, 2.0])
    assert (abs(pull.mean(axis=0)) < 3.7 / np.sqrt(2000)).all()
    assert (abs(pull.std(axis=0) - 1) < 3.7 / np.sqrt(4000)).all()
    assert abs(np.corrcoef(pull.T) - np.eye(4)).max() < 3.7 / np.sqrt(2000)
    np.testing.assert_array_equal(moved.epsilon, bright.epsilon)


def test_what_makes_no_survey_is_refused():
    with pytest.raises(BayesdustError, match="at least one"):
        dusty_survey(0)
    with pytest.raises(BayesdustError, match="thinner dust"):
        dusty_survey(100, potential=POTENTIAL, limit=4.0)
    for wrong in ({"sizes": np.zeros(12)}, {"peaks": -np.ones(12)}, {"height": 0.0}):
        with pytest.raises(BayesdustError, match="above 0"):
            dataclasses.replace(clouds(), **wrong)


# Populations of different light


def test_one_luminosity_function_each_is_one_for_all_where_they_are_alike(parents, survey):
    again = observe(parents, seed=2, luminosity=(LIGHT,) * 3)
    np.testing.assert_array_equal(again.G, survey.G)
    with pytest.raises(BayesdustError, match="2 luminosity functions were given for 3"):
        observe(parents, luminosity=(LIGHT, LIGHT))


def test_epsilon_of_populations_is_their_mean(parents):
    """Of a faint halo and thick disc; that of the thin disc alone, the wrong model, is far off."""
    mixed = observe(parents, seed=4, luminosity=(LIGHT, shifted(0.8), shifted(0.8)))
    seen = len(mixed.x)

    def surprise(epsilon):
        expected, variance = epsilon.sum(), np.sum(epsilon * (1 - epsilon))
        return 2 * stats.norm.sf(abs(seen - expected) / np.sqrt(variance))

    # an average over the components at each place: of the parents' own it is less certain, not biased
    assert surprise(mixed.efficiency(parents.x)) > P_PASS
    alone = dataclasses.replace(mixed, luminosity=LIGHT)
    assert surprise(alone.efficiency(parents.x)) < P_FAIL
    old = mixed.component > 0
    assert mixed.epsilon[old].mean() < mixed.epsilon[~old].mean()
