"""Free of families: a halo whose slope runs freely, light that is a flow, velocities along lines of sight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, interpolate, stats

from bayesdust.anisotropy import Constant, Isotropic, OsipkovMerritt
from bayesdust.dynamics.jeans import JeansGrid, sigma_r
from bayesdust.dynamics.projection import LinesOfSight
from bayesdust.flows import light
from bayesdust.flows.light import FlowTracer
from bayesdust.flows.spherical import RampField, spherical_flow
from bayesdust.potentials import GNFW
from bayesdust.potentials.freeform import FreeSlope
from bayesdust.tracers import Exponential, Plummer, ZhaoTracer

SLOPES = jnp.array([0.6, 0.9, 1.6, 2.2, 3.0])
HALO = FreeSlope(1e8, 0.05, SLOPES, 0.7)
FIELD = RampField(jnp.array([0.45, 0.05, -0.1, -0.05, -0.2, -0.1]), 0.75)
R = np.array([0.003, 0.02, 0.1, 0.25, 0.7, 2.0])


def test_the_slope_is_that_of_the_density():
    r = jnp.geomspace(1e-4, 1e3, 15)
    slope = jax.vmap(jax.grad(lambda x: -jnp.log(HALO.density(jnp.exp(x)))))(jnp.log(r))
    np.testing.assert_allclose(HALO.slope(r), slope, rtol=1e-10)
    assert float(HALO.slope(1e-6)) == pytest.approx(float(HALO.inner_slope), abs=1e-6)
    assert float(HALO.slope(1e5)) == pytest.approx(3.0, abs=1e-6)


def test_its_mass_is_the_integral_of_its_density():
    for r in (0.01, 0.3, 5.0):
        shells = lambda s: 4 * np.pi * float(HALO.density(s)) * s**2  # noqa: E731
        expected = sum(
            integrate.quad(shells, a, b, epsrel=1e-10)[0] for a, b in ((0, 0.1 * r), (0.1 * r, r))
        )
        assert float(HALO.enclosed_mass(r)) == pytest.approx(expected, rel=1e-6)


def test_equal_slopes_are_a_power_law():
    halo = FreeSlope(1e8, 0.05, jnp.full(5, 1.3))
    np.testing.assert_allclose(halo.density(R), 1e8 * (R / 0.05) ** -1.3, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.8])
def test_the_table_is_the_flow(gamma):
    """The tracer's density is that of the flowjax distribution with the same field."""
    tracer = FlowTracer.from_field(FIELD, 0.2, gamma)
    flow = spherical_flow(FIELD, 0.2, gamma, steps=light.STEPS, invert=True)
    x = R[:, None] * np.array([0.0, 0.6, 0.8])
    np.testing.assert_allclose(jnp.log(tracer.density(R)), jax.vmap(flow.log_prob)(x), atol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.8])
def test_the_light_is_normalised(gamma):
    tracer = FlowTracer.from_field(FIELD, 0.2, gamma)
    ln_r = np.linspace(np.log(1e-8), np.log(1e5), 4000)
    shells = 4 * np.pi * np.exp(3 * ln_r) * np.asarray(tracer.density(np.exp(ln_r)))
    inside = np.cumsum(shells) * (ln_r[1] - ln_r[0])
    assert inside[-1] == pytest.approx(1, abs=1e-4)
    places = np.searchsorted(ln_r, np.log(R))
    # the running sum is of first order in the step
    np.testing.assert_allclose(tracer.enclosed_fraction(R), inside[places], rtol=3 * 0.01)
    assert float(tracer.projected_fraction(1e4)) == pytest.approx(1, abs=1e-5)
    half = float(tracer.half_light_radius)
    assert float(tracer.projected_fraction(half)) == pytest.approx(0.5, abs=1e-6)


TRACERS = {
    "plummer": Plummer(0.25),
    "cusp": ZhaoTracer(0.25, 2.0, 5.0, 1.0),
    "steep": Exponential(0.15),
    "flow": FlowTracer.from_field(FIELD, 0.2, 0.5),
}


@pytest.mark.parametrize("orbits", [Isotropic(), Constant(-0.5), OsipkovMerritt(0.3)], ids=repr)
@pytest.mark.parametrize("name", TRACERS)
def test_the_mixture_has_the_dispersion_of_the_jeans_equation(name, orbits):
    tracer, halo = TRACERS[name], GNFW(6.4e7, 1.0, 0.7)
    inner = R[:-1] if name == "steep" else R  # one star in a million lies outside 13 scale lengths
    grid = JeansGrid.build(inner, tracer)
    shares, variances = LinesOfSight.build(grid).components(halo, tracer, orbits)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    # the flow's table, of 6-point polynomials, is not as smooth as the projection asks for
    limit = 5e-4 if name == "flow" else 2e-4
    expected = grid.variance(halo, tracer, orbits)
    np.testing.assert_allclose((shares * variances).sum(axis=1), expected, rtol=limit)


@pytest.mark.parametrize("orbits", [Isotropic(), OsipkovMerritt(0.1)], ids=repr)
def test_the_mixture_is_the_velocity_distribution(orbits):
    """Against Simpson's rule along the line of sight, out to where s is a fiftieth of sigma_r at w = 0."""
    tracer, halo = Plummer(0.25), GNFW(6.4e7, 1.0, 0.7)
    radii = np.array([0.02, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0])
    grid = JeansGrid.build(radii, tracer)
    shares, variances = LinesOfSight.build(grid).components(halo, tracer, orbits)
    nodes = np.geomspace(1e-3, 1e4, 800)
    ln_sigma = interpolate.CubicSpline(np.log(nodes), np.log(sigma_r(nodes, halo, tracer, orbits)))
    w = np.concatenate([np.linspace(0, 0.5, 6001), np.linspace(0.5, 12, 11501)[1:]])
    sigma_los = np.sqrt(grid.variance(halo, tracer, orbits))
    for i, radius in enumerate(radii):
        v = np.array([0.0, 1.0, 2.0]) * float(sigma_los[i])
        got = stats.norm.pdf(v[:, None], 0, np.sqrt(variances[i])) @ np.asarray(shares[i])
        r = radius * np.cosh(w)
        s = np.sqrt(1 - np.asarray(orbits.beta(r)) / np.cosh(w) ** 2) * np.exp(ln_sigma(np.log(r)))
        light = r * np.asarray(tracer.density(r))
        expected = integrate.simpson(light * stats.norm.pdf(v[:, None], 0, s), x=w, axis=1)
        expected /= integrate.simpson(light, x=w)
        np.testing.assert_allclose(got, expected, rtol=1e-3)
    # one normal law of the same variance is seen to be wrong for radial orbits
    assert (
        orbits == Isotropic()
        or abs(stats.norm.pdf(v[2], 0, float(sigma_los[i])) / expected[2] - 1) > 0.02
    )
