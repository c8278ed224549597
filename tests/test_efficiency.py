"""Dust from magnitudes: the parts of the sky, the luminosity function, the efficiency and its scatter."""

import numpy as np
import pytest
from scipy.stats import norm

from bayesdust.dynamics import efficiency
from bayesdust.dynamics.efficiency import Luminosity, Sky, fit_dust, modulus
from bayesdust.errors import BayesdustError

LIMIT = 14.0
CLUMP, WIDTH, SHARE, RISE, FAINT = 0.4, 0.15, 0.45, 0.35 * np.log(10), 0.98


def phi(M):
    """A luminosity function of giants, normalised below M = `FAINT`."""
    slope = RISE * np.exp(RISE * (M - FAINT))
    clump = norm.pdf(M, CLUMP, WIDTH) / norm.cdf(FAINT, CLUMP, WIDTH)
    return np.where(M < FAINT, (1 - SHARE) * slope + SHARE * clump, 0.0)


def share(M):
    """The stars brighter than M."""
    M = np.minimum(M, FAINT)
    clump = norm.cdf(M, CLUMP, WIDTH) / norm.cdf(FAINT, CLUMP, WIDTH)
    return (1 - SHARE) * np.exp(RISE * (M - FAINT)) + SHARE * clump


def survey(n=20_000, seed=0, cloud=2.0):
    """Offsets, magnitudes and true efficiencies: a cloud over the half with y > 0 at 0.8 to 1.2 kpc."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(n, 3)) * np.array([1, 1, 0.3])
    offsets = (
        direction * (4.0 * rng.random(n) ** (1 / 3) / np.linalg.norm(direction, axis=1))[:, None]
    )
    distance = np.linalg.norm(offsets, axis=1)
    bright = rng.random(n) < 1 - SHARE
    M = np.where(bright, FAINT - rng.exponential(1 / RISE, n), rng.normal(CLUMP, WIDTH, n))
    M = np.where(M < FAINT, M, CLUMP)
    A = cloud * np.clip((distance - 0.8) / 0.4, 0, 1) * (offsets[:, 1] > 0)
    G = M + modulus(distance) + A
    seen = G < LIMIT
    epsilon = share(LIMIT - modulus(distance) - A)
    return offsets[seen], G[seen], epsilon[seen], A[seen]


def test_parts_of_the_sky_are_even_and_found_again():
    offsets = survey(5000)[0]
    sky = Sky.of(offsets, 6)
    counts = np.bincount(sky.cell(offsets), minlength=sky.cells)
    assert sky.cells == 64
    assert np.ptp(counts) <= 6  # a star for every halving
    # a part is a piece of the sky: where a star is nearer to the Sun does not matter
    np.testing.assert_array_equal(sky.cell(offsets), sky.cell(0.1 * offsets))


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


@pytest.mark.slow
def test_a_cloud_is_found_and_its_absence_is_not():
    offsets, G, epsilon, _ = survey()
    dust = fit_dust(offsets, G, LIMIT)
    found = dust.efficiency(offsets)
    behind = (np.linalg.norm(offsets, axis=1) > 1.5) & (offsets[:, 1] > 0)
    clear = offsets[:, 1] < -0.2
    # 0.1 mag, where ln S rises by 1.2 a magnitude
    assert abs(found[behind].mean() / epsilon[behind].mean() - 1) < 0.12
    assert found[clear].mean() > 0.97 * epsilon[clear].mean()
    contrast = dust.extinction(offsets)[behind].mean() - dust.extinction(offsets)[clear].mean()
    assert contrast == pytest.approx(2.0, abs=0.2)
    # the wrong model: no dust at all
    assert abs(share(LIMIT - modulus(np.linalg.norm(offsets[behind], axis=1))).mean()
               / epsilon[behind].mean() - 1) > 0.3  # fmt: skip
    draws = np.array([dust.efficiency(offsets[behind], s).mean()
                      for s in dust.draws(30, np.random.default_rng(0))])  # fmt: skip
    assert draws.std() < 0.05
    assert abs(draws.mean() - found[behind].mean()) < 0.02


def test_the_efficiency_has_a_floor():
    offsets, G, _, _ = survey(2000, cloud=0.0)
    dust = fit_dust(offsets, G, LIMIT, steps=3)
    steps = np.full_like(dust.steps, 50.0)
    assert dust.efficiency(offsets, steps).min() == efficiency.FAINTEST


@pytest.mark.parametrize(
    ("change", "words"), [(np.nan, "its magnitude is nan"), (14.5, "beyond the limit 14")]
)
def test_bad_magnitudes(change, words):
    offsets, G, _, _ = survey(1000)
    G[3] = change
    with pytest.raises(BayesdustError, match=words) as error:
        fit_dust(offsets, G, LIMIT)
    assert "star 4" in str(error.value)
