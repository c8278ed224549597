"""Weights from other stars: the score has no mean in the truth, where that of least squares has one."""

import numpy as np
import pytest
from scipy import stats

from bayesdust.dynamics.cross_fitting import Parts

K, N, P = 12, 240, 6  # sums, stars, parts
REPEATS = 3000


def drawn(rng):
    """Terms (n, k), skewed and of mean zero, and slopes (n, k) that lean on them, as forces do."""
    terms = rng.exponential(size=(N, K)) - 1
    return terms, 1 + 0.5 * rng.normal(size=(N, K)) - 0.5 * terms


def parts_of(terms, slopes):
    groups = [a.reshape(P, N // P, K) for a in (terms, slopes)]
    scatters = np.stack([(N // P) * np.cov(part.T, bias=True) for part in groups[0]])
    sums, pulls = (part.sum(axis=1) for part in groups)
    return sums, Parts(np.full(P, N // P), pulls[..., None], scatters)


def test_the_score_has_no_mean_in_the_truth():
    """Over independent sets of stars; that of the sums with their own weights is rejected."""
    rng = np.random.default_rng(0)
    crossed, own = np.zeros((2, REPEATS))
    for i in range(REPEATS):
        sums, parts = parts_of(*drawn(rng))
        crossed[i] = parts.crossed(sums)[0]
        own[i] = parts.slopes.sum(axis=0)[:, 0] @ np.linalg.solve(
            parts.covariance, sums.sum(axis=0)
        )
    limit = stats.norm.isf(0.5e-3)

    def surprise(score):
        return abs(score.mean()) / (score.std() / np.sqrt(REPEATS))

    assert surprise(crossed) < limit
    assert surprise(own) > 3 * limit


def test_the_score_by_hand():
    rng = np.random.default_rng(1)
    sums, parts = parts_of(*drawn(rng))
    extra = np.diag(rng.random(K))
    parts = parts._replace(extra=extra)
    by_hand = 0.0
    for j in range(P):
        others = [i for i in range(P) if i != j]
        F = parts.slopes[others].sum(axis=0) * P / (P - 1)
        C = parts.scatters[others].sum(axis=0) * P / (P - 1) + extra
        by_hand += F.T @ np.linalg.inv(C) @ sums[j]
    assert parts.crossed(sums) == pytest.approx(by_hand, rel=1e-10)
    own = parts.slopes.sum(axis=0).T @ np.linalg.inv(parts.covariance) @ sums.sum(axis=0)
    assert parts.pull(sums) == pytest.approx(own - by_hand, rel=1e-9)


def test_sums_beside_each_other():
    rng = np.random.default_rng(2)
    sums, parts = parts_of(*drawn(rng))
    both = parts.crossed(np.stack([sums, 2 * sums], axis=-1))
    assert both == pytest.approx(parts.crossed(sums)[:, None] * [1, 2], rel=1e-12)


def test_the_inflation_by_hand():
    """Two coefficients, and a covariance that is not the stars': it is of the sums over all parts, so that
    a part's lever meets it in proportion to its stars."""
    rng = np.random.default_rng(4)
    terms, slopes = drawn(rng)
    _, parts = parts_of(terms, slopes)
    slopes = np.concatenate([parts.slopes, rng.normal(size=(P, K, 1)) * 10], axis=-1)
    stars = np.array([10, 20, 30, 40, 60, 80])  # N of them
    root = rng.normal(size=(K, K))
    extra = 20 * root @ root.T  # as large as the stars'
    V, slope, mean = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, K))
    for j in range(P):
        others, up = [i for i in range(P) if i != j], N / (N - stars[j])
        C = up * parts.scatters[others].sum(axis=0) + extra
        A = (np.linalg.inv(C) @ (up * slopes[others].sum(axis=0))).T
        V += A @ parts.scatters[j] @ A.T
        slope += A @ slopes[j]
        mean += stars[j] / N * A
    by_hand = np.trace(np.linalg.inv(slope) @ (V + mean @ extra @ mean.T)) / 2
    found = parts._replace(stars=stars, slopes=slopes, extra=extra).inflation
    assert found == pytest.approx(by_hand, rel=1e-10)
    assert found != pytest.approx(np.trace(np.linalg.inv(slope) @ V) / 2, rel=0.05)


def test_the_covariance_of_few_stars_is_inflated():
    """The score's variance, over independent sets of stars, is its slope's mean: C as it is falls short.

    240 stars in 12 sums, q = 1: V is the variance, and I / kappa the slope of a likelihood with kappa C.
    """
    rng = np.random.default_rng(3)
    score, slope, inflated = np.zeros((3, REPEATS))
    for i in range(REPEATS):
        terms, slopes = drawn(rng)
        sums, parts = parts_of(terms, np.ones_like(slopes))
        F, kappa = parts.slopes.sum(axis=0)[:, 0], parts.inflation
        slope[i] = F @ np.linalg.solve(parts.covariance, F)
        score[i], inflated[i] = parts.crossed(sums)[0] / kappa, slope[i] / kappa
        slope[i] /= kappa**2  # that of the same score, were C known
    limit = stats.norm.isf(0.5e-3)

    def surprise(expected):
        """Of the mean of score^2 - expected, in its standard error."""
        off = score**2 - expected
        return abs(off.mean()) / (off.std() / np.sqrt(REPEATS))

    assert surprise(inflated) < limit
    assert surprise(slope) > 2 * limit
