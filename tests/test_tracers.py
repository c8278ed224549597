"""Laws of every registered tracer: one star in all, and nu(r), Sigma(R) and the fractions agree."""

import functools

import independent
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import Gradient
from jax.flatten_util import ravel_pytree
from registry_examples import TRACER_EXAMPLES, cases, identify
from scipy import integrate

from bayesdust.tracers import TRACERS, Exponential, Plummer, PlummerSum, Sersic, Tracer, ZhaoTracer

METHODS = ("density", "surface_density", "enclosed_fraction", "projected_fraction")
FAR = np.geomspace(1e-8, 1e4, 12)
NEAR = np.geomspace(0.01, 1.0, 12)  # at 8 R_e of a Gaussian 1e-19 of the centre is left
R = 0.25 * np.geomspace(0.003, 8.0, 12)  # the examples have scale radii of 0.15 to 0.4 kpc
CASES = [
    pytest.param(name, fields, id=f"{name}-{identify(fields)}")
    for name, fields in cases(TRACER_EXAMPLES)
]
EVERY = pytest.mark.parametrize(("name", "fields"), CASES)


class OnlyDensity(Tracer):
    """A tracer as a contributor writes one: the rest comes from the base class."""

    tracer: Tracer

    def density(self, r):
        return self.tracer.density(r)

    @property
    def half_light_radius(self):
        return self.tracer.half_light_radius


def make(name, fields):
    return TRACERS[name](**fields)


def by_quadrature(f, low, high):
    return integrate.quad(f, low, high, epsabs=0, epsrel=1e-11, limit=400)[0]


@EVERY
def test_one_star_in_all(name, fields):
    """Of the curves written out by hand; those of the package are compared with them below."""
    density, surface_density = independent.tracer(name, fields)
    shells = lambda x: 4 * np.pi * float(density(np.exp(x))) * np.exp(3 * x)  # noqa: E731
    rings = lambda x: 2 * np.pi * float(surface_density(np.exp(x))) * np.exp(2 * x)  # noqa: E731
    for f, precision in ((shells, 1e-8), (rings, 1e-7)):
        value = sum(by_quadrature(f, a, b) for a, b in ((-30, -4), (-4, -1), (-1, 2), (2, 25)))
        assert value == pytest.approx(1, rel=precision)


@EVERY
def test_density_and_projection_are_those_written_out_by_hand(name, fields):
    tracer = make(name, fields)
    density, surface_density = independent.tracer(name, fields)
    np.testing.assert_allclose(tracer.density(R), density(R), rtol=1e-8)
    np.testing.assert_allclose(tracer.surface_density(R), surface_density(R), rtol=1e-8)


@EVERY
def test_the_projection_of_nu_is_sigma(name, fields):
    density, surface_density = independent.tracer(name, fields)
    for radius in R[::3]:
        projected = independent.project(density, radius)
        assert projected == pytest.approx(float(surface_density(radius)), rel=1e-8)


@jax.jit  # once per class, with the parameters as arguments
def everything(tracer):
    """All that the laws are about, at R; what the base class makes of it at NEAR."""
    slope = lambda f: jax.jvp(f, (R,), (jnp.ones_like(R),))[1]  # noqa: E731
    found = {method: getattr(tracer, method)(R) for method in METHODS}
    found |= {f"{method}_slope": slope(getattr(tracer, method)) for method in METHODS[2:]}
    for method in METHODS[1:]:
        found[f"near_{method}"] = getattr(tracer, method)(NEAR)
        found[f"plain_{method}"] = getattr(OnlyDensity(tracer), method)(NEAR)
    return found


@pytest.fixture(scope="module", params=[pytest.param(c.values, id=c.id) for c in CASES])
def case(request):
    """A tracer's name and what it says of itself."""
    name, fields = request.param
    return name, {key: np.asarray(v) for key, v in everything(make(name, fields)).items()}


def test_enclosed_fraction_grows_by_the_density(case):
    name, found = case
    expected = 4 * np.pi * R**2 * found["density"]
    # the last term: an error in the fraction of all the stars, where hardly any are left; the edge
    # of a Gaussian is steep for steps of 0.3 in ln r
    precision = 1e-5 if name == "sersic" else 1e-8
    left = np.abs(found["enclosed_fraction_slope"] - expected)
    assert (left <= 1e-7 * expected + precision / R).all()


def test_projected_fraction_grows_by_the_surface_density(case):
    _, found = case
    expected = 2 * np.pi * R * found["surface_density"]
    left = np.abs(found["projected_fraction_slope"] - expected)
    assert (left <= 1e-7 * expected + 1e-8 / R).all()


def test_the_base_class_agrees(case):
    _, found = case
    for method in METHODS[1:]:
        np.testing.assert_allclose(
            found[f"plain_{method}"], found[f"near_{method}"], rtol=1e-6, err_msg=method
        )


@EVERY
def test_fractions_run_from_none_to_all(name, fields):
    tracer = make(name, fields)
    for fraction in (tracer.enclosed_fraction, tracer.projected_fraction):
        ends = fraction(np.array([1e-9, 1e6]))
        np.testing.assert_allclose(ends, [0, 1], atol=1e-5)


@EVERY
def test_half_the_light_inside_the_half_light_radius(name, fields):
    half = float(make(name, fields).half_light_radius)
    surface_density = independent.tracer(name, fields)[1]
    rings = lambda x: 2 * np.pi * float(surface_density(np.exp(x))) * np.exp(2 * x)  # noqa: E731
    inside = by_quadrature(rings, np.log(half) - 25, np.log(half))
    assert inside == pytest.approx(0.5, rel=1e-7)


@EVERY
def test_shapes(name, fields):
    tracer = make(name, fields)
    for method in METHODS:
        assert jax.eval_shape(getattr(tracer, method), 0.3).shape == ()
        assert jax.eval_shape(getattr(tracer, method), np.full((2, 3), 0.3)).shape == (2, 3)
    assert jax.eval_shape(lambda: tracer.half_light_radius).shape == ()


@functools.cache
def gradient_of(name):
    """Of all that a tracer can be asked for, in its parameters."""
    unflatten = ravel_pytree(floats(TRACER_EXAMPLES[name][0]))[1]

    def f(p, r):
        tracer = make(name, unflatten(p))
        values = [r**2 * getattr(tracer, method)(r) for method in METHODS]
        return jnp.append(jnp.concatenate(values), jnp.log(tracer.half_light_radius))

    return Gradient(f)


def floats(fields):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype=float), fields)


@EVERY
def test_gradients_against_finite_differences(name, fields):
    p, gradient = ravel_pytree(floats(fields))[0], gradient_of(name)
    expected = gradient.differences(p, NEAR)
    np.testing.assert_allclose(gradient.reverse(p, NEAR), expected, rtol=1e-6, atol=1e-6)


@EVERY
def test_gradients_are_finite_far_in_and_far_out(name, fields):
    p = ravel_pytree(floats(fields))[0]
    assert np.isfinite(gradient_of(name).reverse(p, FAR)).all()


def test_plummer_is_the_zhao_2_5_0():
    plummer, zhao = Plummer(0.25), ZhaoTracer(0.25, 2.0, 5.0, 0.0)
    for method in METHODS:
        np.testing.assert_allclose(getattr(zhao, method)(R), getattr(plummer, method)(R), rtol=1e-8)
    assert float(zhao.half_light_radius) == pytest.approx(0.25, rel=1e-9)


def test_exponential_is_the_sersic_of_index_one():
    exponential = Exponential(0.2)
    sersic = Sersic(exponential.half_light_radius, 1.0)
    for method in METHODS:
        np.testing.assert_allclose(
            getattr(sersic, method)(R), getattr(exponential, method)(R), rtol=1e-8
        )


def test_a_gaussian_is_the_sersic_of_index_a_half():
    sigma = 0.25 / np.sqrt(2 * np.log(2))
    expected = np.exp(-((R / sigma) ** 2) / 2) / (2 * np.pi * sigma**2) ** 1.5
    np.testing.assert_allclose(Sersic(0.25, 0.5).density(R), expected, rtol=1e-8)


def test_a_sum_of_one_plummer_is_a_plummer_whatever_its_weight():
    single = PlummerSum(jnp.array([0.25]), jnp.array([7.0]))
    for method in METHODS:
        np.testing.assert_allclose(getattr(single, method)(R), getattr(Plummer(0.25), method)(R))
