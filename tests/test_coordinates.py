"""The sampler's coordinates: flat priors become normal, and the density is carried along exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.util import potential_energy
from scipy import integrate, stats

from bayesdust.inference.coordinates import coordinates_of
from bayesdust.inference.nuts import Plan, run_nuts


def model(data):
    numpyro.sample("share", dist.Uniform(-1.0, 3.0))
    numpyro.sample("pair", dist.Uniform(jnp.zeros(2), 2.0).to_event(1))
    numpyro.sample("free", dist.Normal(0.0, 2.0))
    numpyro.sample("scale", dist.LogNormal(0.0, 1.0))


def energy(z):
    return potential_energy(model, (None,), {}, z)


def point(value):
    return {
        "share": jnp.asarray(value),
        "pair": jnp.array([0.3, -1.0]),
        "free": jnp.asarray(0.4),
        "scale": jnp.asarray(-0.2),
    }


def test_only_intervals_are_moved_and_back():
    coordinates = coordinates_of(model, None)
    assert coordinates.bounded == {"share", "pair"}
    y = point(-7.5)
    back = coordinates.from_unconstrained(coordinates.to_unconstrained(y))
    for name, value in y.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-6)


def test_flat_prior_is_a_standard_normal():
    """The log-density along `share` is that of a unit normal, up to a constant; under the logit it is not."""
    coordinates = coordinates_of(model, None)
    moved = coordinates.potential(energy)
    grid = np.linspace(-6, 6, 25)
    values = np.array([-float(moved(point(v))) for v in grid])
    expected = stats.norm.logpdf(grid)
    np.testing.assert_allclose(values - values[12], expected - expected[12], atol=1e-8)
    plain = np.array([-float(energy(point(v))) for v in grid])
    assert np.abs(plain - plain[12] - expected + expected[12]).max() > 1


def test_gradients_are_finite_far_out():
    moved = coordinates_of(model, None).potential(energy)
    for value in (-30.0, 0.0, 30.0):
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(moved)(point(value))))


def bounded_target(data):
    gamma = numpyro.sample("gamma", dist.Uniform(0.0, 1.4))
    numpyro.factor("likelihood", -0.5 * ((gamma - 1.3) / 0.4) ** 2)


def test_posterior_that_leans_on_a_bound():
    """NUTS gives the mean of a normal cut off at its bounds, within Monte Carlo error."""
    draws = run_nuts(
        bounded_target, None, Plan(num_warmup=300, num_draws=1500, num_chains=2, seed=2)
    )
    gamma = 1.4 / (1 + np.exp(-draws.z["gamma"]))
    density = lambda g: np.exp(-0.5 * ((g - 1.3) / 0.4) ** 2)  # noqa: E731
    norm = integrate.quad(density, 0, 1.4)[0]
    mean = integrate.quad(lambda g: g * density(g), 0, 1.4)[0] / norm
    error = gamma.std() / np.sqrt(600)  # at least 600 of 3,000 draws count in so easy a target
    assert abs(gamma.mean() - mean) < 4 * error
    assert abs(0.7 - mean) > 4 * error  # what the flat prior alone would give
