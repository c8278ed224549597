"""Laws of every registered halo: mass, density, potential and slopes belong together."""

import dataclasses
import functools

import independent
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import Gradient
from registry_examples import HALO_EXAMPLES, REGISTRIES, cases, identify
from scipy import integrate

from bayesdust.potentials.base import SphericalHalo
from bayesdust.potentials.halos import (
    GNFW,
    HALOS,
    NFW,
    CoreNFWTides,
    Einasto,
    Truncated,
    Zhao,
)
from bayesdust.units import G

R = np.geomspace(1e-4, 300.0, 12)  # r_s = 0.8 kpc in the examples
R_MIDDLE = np.geomspace(0.03, 8.0, 12)
FAR_INSIDE = np.array([1e-12, 1e-4])


class OnlyDensity(SphericalHalo):
    """A halo as a contributor writes one: mass and potential come from the base class."""

    halo: SphericalHalo

    @property
    def inner_slope(self):
        return self.halo.inner_slope

    def density(self, r):
        return self.halo.density(r)


CASES = [pytest.param(HALOS[n](**f), id=f"{n}-{identify(f)}") for n, f in cases(HALO_EXAMPLES)]
CASES += [
    pytest.param(Truncated(GNFW(6.4e7, 0.8, 1.2), r_t=3.0), id="truncated-gnfw"),
    pytest.param(Truncated(Zhao(6.4e7, 0.8, 1.0, 2.5, 0.3), r_t=3.0), id="truncated-zhao"),
]


@jax.jit  # once per class, with the parameters as arguments
def everything(halo):
    """All that the laws are about, at R; the Laplacian at R_MIDDLE."""
    slope = lambda f, r: jax.jvp(f, (r,), (jnp.ones_like(r),))[1]  # noqa: E731
    flux = lambda r: r**2 * slope(halo.potential, r)  # noqa: E731
    step = jnp.exp(1e-4)
    return {
        "density": halo.density(R),
        "mass": halo.enclosed_mass(R),
        "mass_slope": slope(halo.enclosed_mass, R),
        "potential": halo.potential(R),
        "force": slope(halo.potential, R),
        "velocity": halo.circular_velocity(R),
        "laplacian": slope(flux, R_MIDDLE) / R_MIDDLE**2,
        "density_in_the_middle": halo.density(R_MIDDLE),
        "log_slope": halo.slope(FAR_INSIDE),
        "slope": halo.slope(R_MIDDLE),
        "differences": -jnp.log(halo.density(R_MIDDLE * step) / halo.density(R_MIDDLE / step))
        / 2e-4,
        "plain_mass": OnlyDensity(halo).enclosed_mass(R),
        "plain_potential": OnlyDensity(halo).potential(R),
    }


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A halo and what it says of itself."""
    return request.param, {name: np.asarray(v) for name, v in everything(request.param).items()}


@pytest.mark.parametrize(("registry", "examples"), REGISTRIES)
def test_every_entry_of_a_registry_has_an_example(registry, examples):
    assert set(examples) == set(registry)
    for name, many in examples.items():
        assert many
        for fields in many:
            assert set(fields) == {field.name for field in dataclasses.fields(registry[name])}


@pytest.mark.parametrize(("name", "fields"), cases(HALO_EXAMPLES), ids=identify)
def test_density_and_mass_are_those_written_out_by_hand(name, fields):
    halo = HALOS[name](**fields)
    density, mass = independent.halo(name, fields)
    np.testing.assert_allclose(halo.density(R), density(R), rtol=1e-10, atol=1e-290)
    np.testing.assert_allclose(halo.enclosed_mass(R), mass(R), rtol=1e-9)


@pytest.mark.parametrize(("name", "fields"), cases(HALO_EXAMPLES), ids=identify)
def test_those_written_out_by_hand_are_right(name, fields):
    """The yardstick itself: M against adaptive quadrature of rho."""
    density, mass = independent.halo(name, fields)
    kinks = [fields[key] for key in ("r_t", "r_s") if key in fields]
    for r in (1e-3, 0.1, 0.79, 3.0, 40.0):
        total = integrate.quad(
            lambda x: 4 * np.pi * float(density(np.exp(x))) * np.exp(3 * x),
            np.log(r) - 40,
            np.log(r),
            epsabs=0,
            epsrel=1e-11,
            limit=500,
            points=[np.log(k) for k in kinks if k < r] + [np.log(r) - 3],
        )[0]
        assert mass(r) == pytest.approx(total, rel=1e-9)


def test_mass_grows_by_the_density(case):
    _, found = case
    left = np.abs(found["mass_slope"] - 4 * np.pi * R**2 * found["density"])
    # where M no longer grows, what counts is the error of M: its stated 1e-8, a radius apart
    assert (left <= 1e-7 * found["mass_slope"] + 1e-8 * found["mass"] / R).all()


def test_force_is_the_gradient_of_the_potential(case):
    halo, found = case
    force = G * found["mass"] / R**2
    # deep in a core the force is a small difference: there the error is that of the potential,
    # which for a halo of r^-2.5 is what the nodes do not reach
    precision = 2e-6 if getattr(halo, "beta", 3) < 3 else 1e-9
    allowed = 1e-7 * force + precision * np.abs(found["potential"]) / R
    assert (np.abs(found["force"] - force) <= allowed).all()


def test_poisson(case):
    """(1/r^2) d/dr(r^2 dPhi/dr) = 4 pi G rho, by differentiating the potential twice."""
    _, found = case
    expected = 4 * np.pi * G * found["density_in_the_middle"]
    np.testing.assert_allclose(found["laplacian"], expected, rtol=1e-5)


def test_circular_velocity(case):
    _, found = case
    np.testing.assert_allclose(found["velocity"] ** 2 * R / G, found["mass"], rtol=1e-12)


def test_inner_slope_is_the_slope_found_inside(case):
    halo, found = case
    inner, outer = found["log_slope"]
    slope = float(halo.inner_slope)
    assert abs(inner - slope) <= abs(outer - slope) + 1e-9
    # an Einasto profile flattens like r^alpha, slowly
    assert inner == pytest.approx(slope, abs=0.1 if isinstance(halo, Einasto) else 1e-5)


def test_the_slope_is_that_of_differences(case):
    """To h^2/6 times the third derivative of ln rho, and rounding of 1e-12 over h."""
    halo, found = case
    if isinstance(halo, CoreNFWTides):
        pytest.skip("its slope jumps at r_t, and differences across it are of neither side")
    np.testing.assert_allclose(found["slope"], found["differences"], atol=1e-6, rtol=1e-6)


def test_the_base_class_agrees(case):
    """Quadrature of the base class against the closed forms: what a new halo starts from."""
    halo, found = case
    if isinstance(halo, CoreNFWTides):
        pytest.skip("a kink in the density costs fixed nodes their accuracy (2e-3): it has its own")
    np.testing.assert_allclose(found["plain_mass"], found["mass"], rtol=1e-8)
    np.testing.assert_allclose(found["plain_potential"], found["potential"], rtol=2e-7)


@pytest.mark.parametrize("name", HALOS)
def test_shapes(name):
    halo = HALOS[name](**HALO_EXAMPLES[name][0])
    for method in (halo.density, halo.enclosed_mass, halo.potential, halo.circular_velocity):
        assert jax.eval_shape(method, 0.3).shape == ()
        assert jax.eval_shape(method, np.full((2, 3), 0.3)).shape == (2, 3)
    assert float(halo.density(0.3)) == float(halo.density(jnp.asarray(0.3)))


@functools.cache
def gradient_of(name):
    """Of all that a halo can be asked for, in its parameters."""
    keys = tuple(HALO_EXAMPLES[name][0])

    def f(p, r):
        halo = HALOS[name](**dict(zip(keys, p, strict=True)))
        return jnp.concatenate([jnp.log(halo.enclosed_mass(r)), r**2 * halo.density(r) / 1e8])

    return Gradient(f)


def parameters(fields):
    return jnp.array([float(value) for value in fields.values()])


@pytest.mark.parametrize(("name", "fields"), cases(HALO_EXAMPLES), ids=identify)
def test_gradients_against_finite_differences(name, fields):
    p, gradient = parameters(fields), gradient_of(name)
    if name == "corenfwtides":  # differences taken across the kink would see it
        p = p.at[list(fields).index("r_t")].set(R_MIDDLE[7:9].mean())
    expected = gradient.differences(p, R_MIDDLE)
    np.testing.assert_allclose(gradient.reverse(p, R_MIDDLE), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "fields"), cases(HALO_EXAMPLES), ids=identify)
def test_gradients_are_finite_far_in_and_far_out(name, fields):
    r = np.geomspace(1e-10, 1e5, len(R_MIDDLE))
    assert np.isfinite(gradient_of(name).reverse(parameters(fields), r)).all()


def test_special_cases_of_zhao():
    for gamma in (0.0, 0.6, 1.0, 1.9):
        general, special = Zhao(1e7, 2.0, 1.0, 3.0, gamma), GNFW(1e7, 2.0, gamma)
        np.testing.assert_allclose(general.density(R), special.density(R), rtol=1e-12)
        np.testing.assert_allclose(general.enclosed_mass(R), special.enclosed_mass(R), rtol=1e-12)
    np.testing.assert_allclose(GNFW(1e7, 2.0, 1.0).enclosed_mass(R), NFW(1e7, 2.0).enclosed_mass(R))
    np.testing.assert_allclose(GNFW(1e7, 2.0, 1.0).potential(R), NFW(1e7, 2.0).potential(R))


def test_a_corenfw_halo_without_core_and_tides_is_nfw():
    halo, nfw = CoreNFWTides(1e7, 2.0, 0.5, 0.0, 1e6, 5.0), NFW(1e7, 2.0)
    np.testing.assert_allclose(halo.density(R), nfw.density(R), rtol=1e-12)
    np.testing.assert_allclose(halo.enclosed_mass(R), nfw.enclosed_mass(R), rtol=1e-12)


def test_truncation_far_out_changes_nothing():
    halo = GNFW(1e7, 2.0, 0.8)
    r = np.minimum(R, 20.0)
    far = Truncated(halo, r_t=1e7)
    np.testing.assert_allclose(far.enclosed_mass(r), halo.enclosed_mass(r), rtol=1e-8)


def test_masses_known_from_the_literature():
    """The Gaia Challenge cusp and core, to the four digits published with them (data/README)."""
    for gamma, rho_s, expected in (
        (1.0, 6.4e7, [1.861e7, 5.801e7, 1.553e8]),
        (0.0, 4e8, [1.580e7, 8.332e7, 3.426e8]),
    ):
        mass = GNFW(rho_s, 1.0, gamma).enclosed_mass(np.array([0.25, 0.5, 1.0]))
        np.testing.assert_allclose(mass, expected, rtol=3e-4)
