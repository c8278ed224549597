"""What the equation leaves: nothing but noise in equilibrium, and stars out of it are found."""

import jax.numpy as jnp
import numpy as np
import pytest
from quick_galaxy import POTENTIAL, quick_galaxy
from scipy import stats

from bayesdust import disc_mocks
from bayesdust.dynamics import stationarity
from bayesdust.dynamics.weak_form import Bumps, Sample
from bayesdust.errors import BayesdustError

CENTRE = np.array(disc_mocks.SURVEY.centre)
TESTS = Bumps.inside(CENTRE, 3.9, -200.0, width=1.7, layers=((0.35, 0.6), (1.3, 1.1)))
HALVES = stationarity.halves(TESTS, CENTRE)


@pytest.fixture(scope="module")
def sample():
    stars = disc_mocks.draw(20_000, quick_galaxy(), seed=21)
    return stars.x, stars.v


def worst(found):
    """The least likely bump's p-value, of so many."""
    return len(found.chi2) * stats.chi2.sf(found.chi2.max(), 9)


def test_stars_in_equilibrium_leave_noise(sample):
    found = stationarity.residuals(TESTS, Sample.of(*sample), POTENTIAL.acceleration)
    z = found.unbalanced / found.error
    assert worst(found) > 1e-3
    # bumps overlap by half, so that a third of them may count as independent
    assert np.mean(z**2) == pytest.approx(1.0, abs=3.3 * np.sqrt(2 / (z.size / 3)))
    assert np.median(found.error[:, 0]) < 1000  # (km/s)^2/kpc, where |a| is 6,000
    for split in stationarity.splits(
        TESTS, Sample.of(*sample), POTENTIAL.acceleration, HALVES
    ).values():
        assert stats.chi2.sf(split.chi2, 2) > 1e-3
        # two halves of the same stars: their mean is the truth as well
        assert (abs((split.first + split.second) / 2 - 1) < 4 * split.error).all()


def test_a_force_that_is_not_balanced_is_what_is_left(sample):
    """By an acceleration that is wrong by a constant, in every bump by as much."""
    shift = jnp.array([0.0, 0.0, 500.0])
    stars = Sample.of(*sample)
    right = stationarity.residuals(TESTS, stars, POTENTIAL.acceleration)
    wrong = stationarity.residuals(TESTS, stars, lambda x: POTENTIAL.acceleration(x) + shift)
    np.testing.assert_allclose(
        wrong.unbalanced - right.unbalanced, np.broadcast_to([0, 0, 500.0], (len(TESTS.centres), 3)),
        atol=1e-6,
    )  # fmt: skip


def test_a_clump_is_found_where_it_is(sample):
    """800 stars more, at rest within 0.3 kpc of a place, which do not stay there."""
    x, v = sample
    rng, place = np.random.default_rng(3), np.array([-6.2, 0.5, 0.4])
    x = np.vstack([x, place + 0.3 * rng.normal(size=(800, 3))])
    v = np.vstack([v, 20 * rng.normal(size=(800, 3))])
    found = stationarity.residuals(TESTS, Sample.of(x, v), POTENTIAL.acceleration)
    assert worst(found) < 1e-6
    away = (found.centres - place) / TESTS.widths
    nearest = np.sum(away**2, axis=1) < 0.4
    assert nearest[np.argmax(found.chi2)]
    far = np.sum((away * TESTS.widths) ** 2, axis=1) > (1.2 + TESTS.widths.max(axis=1)) ** 2
    assert far.sum() > 5
    assert far.sum() * stats.chi2.sf(found.chi2[far].max(), 9) > 1e-3


@pytest.mark.parametrize("name", ["north", "ahead"])
def test_halves_that_differ_are_told_apart(sample, name):
    """In one half the stars are twice as hot, as they would be in a deeper potential."""
    x, v = sample
    y = x[:, 2] if name == "north" else x[:, 1]
    hotter = v.copy()
    hotter[:, 2] *= np.where(y > 0, 2.0, 1.0)
    split = stationarity.splits(TESTS, Sample.of(x, hotter), POTENTIAL.acceleration, HALVES)[name]
    assert split.difference[1] > 0
    assert stats.chi2.sf(split.chi2, 2) < 1e-5


def test_errors_of_the_differences_count_what_both_halves_share():
    """Sums with a known covariance between the halves; without it the errors are wrong."""
    rng = np.random.default_rng(1)
    root, force = rng.normal(size=(18, 18)), np.tile(rng.normal(size=(18, 2)), (2, 1))
    C, side = np.kron([[1.0, 0.5], [0.5, 1.0]], root @ root.T), np.array([1.0, 1.0, -1.0, -1.0])
    truth = np.array([1.0, 1.3])
    draws = [
        stationarity._split("", side, c, force, C)
        for c in rng.multivariate_normal(-force @ truth, C, 2000)
    ]
    off = np.array([split.difference for split in draws]) / draws[0].error
    # 2,000 draws give an sd to 1.6 %
    np.testing.assert_allclose(off.std(axis=0), 1.0, atol=0.055)
    np.testing.assert_allclose(off.mean(axis=0), 0.0, atol=0.075)
    assert stats.kstest([split.chi2 for split in draws], stats.chi2(2).cdf).pvalue > 1e-3
    rows = np.repeat(side > 0, 9)
    apart = np.where(np.equal.outer(rows, rows), C, 0.0)
    wrong = stationarity._split("", side, -force @ truth, force, apart).error / draws[0].error
    np.testing.assert_allclose(wrong, np.sqrt(2), rtol=1e-6)


def test_ahead_is_where_the_rotation_goes():
    y, z = TESTS.centres.T[1:]
    np.testing.assert_array_equal(HALVES["ahead"], np.sign(y))  # the Sun at -x moves towards +y
    np.testing.assert_array_equal(HALVES["north"], np.sign(z))


def test_empty_bumps_and_sides_are_refused(sample):
    x, v = (a[:100] for a in sample)
    with pytest.raises(BayesdustError, match=r"stars about \(.*\) kpc, fewer than 30: take larger"):
        stationarity.residuals(TESTS, Sample.of(x, v), POTENTIAL.acceleration)
    sides = {"all": np.ones(len(TESTS.centres))}
    with pytest.raises(BayesdustError, match="One side of the split 'all' has no bump"):
        stationarity.splits(TESTS, Sample.of(*sample), POTENTIAL.acceleration, sides)
