"""The dispersions of stars in rings: unbiased, covering, and blind to the foreground."""

import numpy as np
import pytest

from bayesdust import rings


def test_ring_dispersion_is_unbiased_and_its_interval_covers():
    """Many mock rings: the truth is within the 68 % interval in about 68 % of them."""
    rng = np.random.default_rng(1)
    n, sigma, trials = 60, 8.0, 200
    err = rng.uniform(1.0, 4.0, n)
    fit = rings.RingFit(rng.normal(0, 10, n), err, np.ones(n))
    fit.mean = 0.0
    everyone = np.ones(n, bool)
    found = [fit.interval(rng.normal(0, np.hypot(sigma, err)), everyone) for _ in range(trials)]
    best, low, high = (np.array([f[i] for f in found]) for i in range(3))
    assert best.mean() == pytest.approx(sigma, abs=4 * best.std() / np.sqrt(trials) + 0.1)
    assert np.mean((low < sigma) & (sigma < high)) == pytest.approx(0.68, abs=0.12)
    assert all(f[3] is None for f in found)


def test_coarse_to_fine_finds_the_same_maximum():
    rng = np.random.default_rng(2)
    err, everyone = np.full(50, 2.0), np.ones(50, bool)
    fit = rings.RingFit(rng.normal(0, 9, 50), err, np.ones(50))
    for _ in range(10):
        v = rng.normal(0, 9, 50)
        assert fit.best(v, everyone) == pytest.approx(fit.interval(v, everyone)[0], abs=0.15)


def test_membership_keeps_the_foreground_out_of_a_ring():
    rng = np.random.default_rng(3)
    member = np.arange(400) < 300
    v = np.where(member, rng.normal(0, 8, 400), rng.normal(40, 60, 400))
    err, p = np.full(400, 1.0), np.where(member, 0.9, 0.1)
    best = rings.RingFit(v, err, p).interval(v, np.ones(400, bool))[0]
    assert best == pytest.approx(8.0, abs=1.2)


def test_a_ring_below_its_errors_is_an_upper_limit():
    rng = np.random.default_rng(4)
    grid = np.linspace(0, 20, 400)
    offset = rng.normal(0, 4.5, 30)  # a little less than the errors make by themselves
    like = rings.log_likelihood(grid, offset, np.full(30, 5.0), np.ones(30), np.zeros(30))
    best, low, high, limit = rings.dispersion_interval(grid, like)
    assert low == 0.0
    assert best < high < limit


def test_rings_hold_equal_membership():
    rng = np.random.default_rng(5)
    radius, p = rng.uniform(size=500), rng.uniform(0.2, 1.0, 500)
    number = rings.radial_bins(radius, p, 6)
    share = np.array([p[number == k].sum() for k in range(6)])
    np.testing.assert_allclose(share, p.sum() / 6, rtol=0.05)
    assert all(radius[number == k].max() <= radius[number == k + 1].min() for k in range(5))
