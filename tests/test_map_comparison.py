"""Inferred efficiency against a map: the numbers of agreement, and structure by scale."""

import numpy as np
import pytest

from bayesdust.dynamics.map_comparison import agreement, contrasts
from bayesdust.errors import BayesdustError

RNG = np.random.default_rng(0)
PLACES = np.stack(np.meshgrid(np.arange(0, 3.0, 0.15), np.arange(0, 3.0, 0.15), [0.0]), -1).reshape(
    -1, 3
)
EDGES = np.array([0.1, 0.3, 0.6, 1.0, 1.5, 2.0])
N = len(PLACES)


def kernel(length, size=0.3):
    away = np.linalg.norm(PLACES[:, None] - PLACES[None], axis=-1)
    return size**2 * np.exp(-(away**2) / (2 * length**2))


def drawn(covariance, number, rng):
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return rng.normal(size=(number, N)) @ root.T


MAP = drawn(kernel(0.4), 1, RNG)[0]


def test_the_map_itself_and_half_of_it():
    for part in (1.0, 0.5, -1.0):
        found = contrasts(PLACES, np.tile(part * MAP + 0.2, (3, 1)), MAP, EDGES)
        np.testing.assert_allclose(found.response, part, rtol=1e-9)
        np.testing.assert_allclose(found.contrast, part**2, rtol=1e-9)
    assert np.all(np.diff(found.separation) > 0)
    assert found.resolution == np.inf  # nothing of it is found


def test_contrast_is_the_mean_square_of_differences():
    """As written, pair by pair."""
    draws = RNG.normal(size=(2, N))
    found = contrasts(PLACES, draws, MAP, EDGES)
    i, j = np.triu_indices(N, 1)
    away = np.linalg.norm(PLACES[i] - PLACES[j], axis=1)
    for s in range(len(EDGES) - 1):
        use = (away >= EDGES[s]) & (away < EDGES[s + 1])
        change, mean = MAP[i] - MAP[j], (draws.mean(axis=0)[i] - draws.mean(axis=0)[j])[use]
        below = np.mean(change[use] ** 2)
        for draw, contrast in zip(draws, found.contrast[:, s], strict=True):
            assert contrast == pytest.approx(np.mean((draw[i] - draw[j])[use] ** 2) / below)
        assert found.response[s] == pytest.approx(np.mean(mean * change[use]) / below)
        assert found.separation[s] == pytest.approx(away[use].mean())


def test_a_blurred_wave_responds_by_its_transfer():
    """A Gaussian of sd b leaves exp(-(k b)^2/2) of a wave of wave number k, at every separation."""
    k, b = 2.5, 0.4
    wave = np.cos(k * PLACES[:, 0])
    transfer = np.exp(-((k * b) ** 2) / 2)
    blurred = wave * transfer
    found = contrasts(PLACES, np.tile(blurred, (2, 1)), wave, EDGES)
    np.testing.assert_allclose(found.response, transfer, rtol=1e-9)
    assert found.smoother.all()


def test_an_honest_posterior_has_the_contrast_of_the_truth_and_a_smoothed_one_less():
    """Fields of a known law seen with noise: posterior draws, against draws from a law that is too smooth."""
    prior, wrong, noise = kernel(0.4), kernel(1.2), 0.5
    rng = np.random.default_rng(2)
    honest, smoothed, agreed = [], [], []
    for _ in range(20):
        truth = drawn(prior, 1, rng)[0]
        data = truth + noise * rng.normal(size=N)
        for law, kept in ((prior, honest), (wrong, smoothed)):
            gain = np.linalg.solve(law + noise**2 * np.eye(N), law).T
            draws = gain @ data + drawn(law - gain @ law, 60, rng)
            kept.append(contrasts(PLACES, draws, truth, EDGES))
            if law is prior:
                agreed.append(agreement(draws, truth, np.zeros(N)).rms_z)
    contrast = np.array([c.contrast.mean(axis=0) for c in honest])
    # ratios of few modes scatter by a tenth or two from truth to truth
    error = contrast.std(axis=0, ddof=1) / np.sqrt(len(contrast))
    assert np.all(abs(contrast.mean(axis=0) - 1) < 4 * error + 0.05)
    assert np.mean([c.smoother.mean() for c in honest]) < 0.2
    assert np.mean([c.smoother[0] for c in smoothed]) == 1.0
    # the posterior mean is blurred all the same
    assert np.mean([c.response[0] for c in honest]) < 0.9
    assert np.mean([c.response[0] for c in smoothed]) < 0.5 * np.mean(
        [c.response[0] for c in honest]
    )
    assert np.mean(np.square(agreed)) == pytest.approx(1.0, abs=0.1)


def test_agreement_in_numbers():
    noise = RNG.normal(size=(4000, N)) * 0.1
    found = agreement(MAP + 0.03 + noise - noise.mean(axis=0), MAP, np.full(N, 0.2))
    assert found.bias == pytest.approx(0.03)
    assert found.scatter == pytest.approx(0.03)
    assert found.rms_z == pytest.approx(0.03 / np.hypot(0.1, 0.2), rel=0.02)
    assert found.correlation == pytest.approx(1.0)
    assert found.number == N
    nothing = np.zeros(N)
    assert agreement(np.stack([MAP, MAP]), MAP, nothing).rms_z == 0.0
    assert agreement(np.stack([MAP, MAP]) + 1.0, MAP, nothing).rms_z == np.inf
    gaps = MAP.copy()
    gaps[:10] = np.nan
    assert agreement(noise, gaps, np.full(N, 0.2)).number == N - 10


def test_what_cannot_be_compared():
    draws = np.zeros((2, N))
    with pytest.raises(BayesdustError, match="two are needed"):
        agreement(draws, np.full(N, np.nan), np.ones(N))
    with pytest.raises(BayesdustError, match="same everywhere"):
        contrasts(PLACES, draws, np.ones(N), EDGES)
    with pytest.raises(BayesdustError, match="other edges"):
        contrasts(PLACES, draws, MAP, np.array([50.0, 60.0]))
