"""The density by Gauss's law is the kernel's mean of Poisson's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.dynamics.gauss_law import GaussLaw
from bayesdust.errors import BayesdustError
from bayesdust.potentials import milky_way_2014
from bayesdust.units import G

SUN = jnp.array([-8.122, 0.0, 0.0208])


def test_a_force_that_grows_linearly_has_its_density_exactly():
    """a = -M x has div a = -tr M, whatever the widths."""
    rng = np.random.default_rng(1)
    matrix, law = rng.normal(size=(3, 3)), GaussLaw.within((0.7, 0.4, 0.2))
    a = -(np.asarray(SUN) + law.offsets) @ matrix.T + rng.normal(size=3)
    assert float(law.density(jnp.asarray(a))) == pytest.approx(np.trace(matrix) / (4 * np.pi * G))
    assert law.shares.sum() == pytest.approx(1.0)


def test_it_is_the_mean_of_the_density_and_not_the_density():
    """At the Sun and 0.5 kpc above it: the thin disc's peak is averaged, by the kernel and no more."""
    galaxy, law = milky_way_2014(), GaussLaw.within((0.5, 0.5, 0.4), (8, 12, 12))
    places = SUN + jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    around = (places[:, None] + law.offsets).reshape(-1, 3)
    a = jax.vmap(galaxy.acceleration)(around).reshape(2, -1, 3)
    rho = jax.vmap(galaxy.density)(around).reshape(2, -1)
    found, mean = law.density(a), law.mean(rho)
    # two quadratures of functions that a disc of 0.28 kpc bends, 12 nodes over 0.8 kpc
    np.testing.assert_allclose(found, mean, rtol=2e-3)
    assert abs(float(found[0]) / float(galaxy.density(places[0])) - 1) > 0.05


def test_noise_of_the_accelerations_averages_out():
    """The scatter of <rho> is that of the slopes' sum of squares."""
    law, draws = GaussLaw.within((0.5, 0.5, 0.5)), 4000
    noise = np.random.default_rng(3).normal(size=(draws, *law.slopes.shape))
    scatter = float(np.std(law.density(jnp.asarray(noise))))
    expected = np.sqrt(np.sum(law.slopes**2)) / (4 * np.pi * G)
    assert scatter == pytest.approx(expected, rel=4 / np.sqrt(2 * draws))


def test_kernels_of_no_size_are_refused():
    with pytest.raises(BayesdustError, match="widths above 0"):
        GaussLaw.within((0.5, 0.5, 0.0))
