"""Laws of every potential in three dimensions, closed forms, and galpy's MWPotential2014."""

import galpy.potential
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from bayesdust.potentials import (
    NFW,
    Burkert,
    MiyamotoNagai,
    Potential,
    PowerLawCutoff,
    SphericalAsPotential,
    Sum,
    milky_way_2014,
)
from bayesdust.units import G

RO, VO = 8.0, 220.0
DISC = MiyamotoNagai(6.8e10, 3.0, 0.28)
BULGE = PowerLawCutoff(6e8, 1.9, 1.8)
POTENTIALS = {
    "disc": DISC,
    "nfw": SphericalAsPotential(NFW(8e6, 16.0)),
    "bulge": SphericalAsPotential(BULGE),
    "by quadrature": SphericalAsPotential(Burkert(2e7, 9.0)),
    "sum": milky_way_2014(),
}
RNG = np.random.default_rng(1)
X = jnp.asarray(RNG.normal(size=(20, 3)) * np.array([6.0, 6.0, 2.0]))
X_NEAR = jnp.asarray(RNG.normal(size=(20, 3)))


class OnlyPotential(Potential):
    """A potential as a contributor writes one: its forces and density come from the base class."""

    whole: Potential

    def potential(self, x):
        return self.whole.potential(x)


@jax.jit
def everything(potential, x):
    """Phi (n,), a (n, 3) and rho (n,) at x (n, 3)."""
    return tuple(
        jax.vmap(method)(x)
        for method in (potential.potential, potential.acceleration, potential.density)
    )


@pytest.mark.parametrize("name", POTENTIALS)
def test_forces_and_densities_are_derivatives_of_the_potential(name):
    """What a class replaces by a closed form is what automatic differentiation gives."""
    # differentiated twice, log1p(x)/x loses eps/x^3 of itself: 1e-8 at r = 0.1 kpc of a 16 kpc halo
    for x in (X, X_NEAR):
        whole = everything(POTENTIALS[name], x)
        derived = everything(OnlyPotential(POTENTIALS[name]), x)
        np.testing.assert_allclose(whole[1], derived[1], rtol=1e-7, atol=1e-7)
        # the absolute part is the rounding of G M/r^3 where the density itself has run out
        np.testing.assert_allclose(whole[2], derived[2], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_force_is_a_finite_difference_of_the_potential(name):
    phi = jax.jit(jax.vmap(POTENTIALS[name].potential))
    h = 1e-4
    step = h * jnp.eye(3)
    slope = jnp.stack([(phi(X + e) - phi(X - e)) / (2 * h) for e in step], axis=-1)
    a = everything(POTENTIALS[name], X)[1]
    # rounding of Phi, eps |Phi|/h; the scheme's own error, h^2 Phi''', is below it
    np.testing.assert_allclose(a, -slope, atol=1e-3, rtol=1e-6)


@pytest.mark.parametrize(("name", "radius"), [("disc", 8.0), ("bulge", 0.5), ("sum", 8.0)])
def test_gauss_law(name, radius):
    """The flux through a sphere is 4 pi G times the mass integrated inside it.

    Gauss-Legendre in cos(theta) and in a power of r that takes the bulge's cusp away; the disc, thin
    at 8 kpc, needs its nodes near the plane: cos(theta) = u^3.
    """
    nodes, weights = np.polynomial.legendre.leggauss(100)
    cos, w_cos = nodes**3, 3 * nodes**2 * weights
    sin = np.sqrt(1 - cos**2)
    normal = jnp.asarray(np.stack([sin, np.zeros_like(sin), cos], axis=-1))
    flux = (
        -2
        * np.pi
        * radius**2
        * w_cos
        @ jnp.sum(everything(POTENTIALS[name], radius * normal)[1] * normal, axis=-1)
    )
    t, w_t = (nodes + 1) / 2, weights / 2
    r, w_r = radius * t**5, 5 * radius * t**4 * w_t
    points = jnp.asarray(r[:, None, None] * normal).reshape(-1, 3)
    rho = np.asarray(everything(POTENTIALS[name], points)[2]).reshape(len(r), -1)
    mass = 2 * np.pi * (w_r * r**2) @ rho @ w_cos
    np.testing.assert_allclose(flux, 4 * np.pi * G * mass, rtol=1e-5)


def test_miyamoto_nagai_density_is_that_of_its_authors():
    """Miyamoto & Nagai (1975), eq. 5."""
    R2, root = X[:, 0] ** 2 + X[:, 1] ** 2, jnp.sqrt(X[:, 2] ** 2 + DISC.b**2)
    top = DISC.a * R2 + (DISC.a + 3 * root) * (DISC.a + root) ** 2
    rho = DISC.b**2 * DISC.mass / (4 * np.pi) * top
    rho = rho / ((R2 + (DISC.a + root) ** 2) ** 2.5 * root**3)
    np.testing.assert_allclose(everything(DISC, X)[2], rho, rtol=1e-9)


def test_miyamoto_nagai_limits():
    """Plummer's sphere for a = 0, and a circular velocity in closed form."""
    plummer = MiyamotoNagai(1e10, 0.0, 0.7)
    r2 = jnp.sum(X**2, axis=-1)
    rho = 3e10 / (4 * np.pi * 0.7**3) * (1 + r2 / 0.49) ** -2.5
    np.testing.assert_allclose(everything(plummer, X)[2], rho, rtol=1e-8)
    v2 = G * DISC.mass * 64.0 / (64.0 + 3.28**2) ** 1.5
    assert float(DISC.circular_velocity(8.0)) == pytest.approx(np.sqrt(v2), rel=1e-13)


def test_bulge_mass_and_potential_are_integrals_of_its_density():
    for r in (1e-3, 0.3, 1.9, 8.0):
        mass, _ = quad(lambda s: float(BULGE.density(s)) * 4 * np.pi * s**2, 0, r, epsrel=1e-10)
        shells, _ = quad(lambda s: float(BULGE.density(s)) * s, r, r + 15, epsrel=1e-10, limit=200)
        assert float(BULGE.enclosed_mass(r)) == pytest.approx(mass, rel=1e-8)
        phi = -G * mass / r - 4 * np.pi * G * shells
        assert float(BULGE.potential(r)) == pytest.approx(phi, rel=1e-8)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_bulge_is_differentiable_twice_either_way(mode):
    r = jnp.array(1.3)
    second = mode(jax.grad(BULGE.potential))(r)
    force = G * BULGE.enclosed_mass(r) / r**2
    expected = 4 * np.pi * G * BULGE.density(r) - 2 * force / r
    assert float(second) == pytest.approx(float(expected), rel=1e-11)


def test_milky_way_2014_is_that_of_galpy():
    """Potential differences, accelerations and densities at 20 places within tens of kpc."""
    phi, a, rho = everything(milky_way_2014(), X)
    parts = galpy.potential.MWPotential2014
    R, z = np.hypot(X[:, 0], X[:, 1]) / RO, np.asarray(X[:, 2]) / RO

    def galpy_sum(f):
        values = [[float(f(part, *where)) for part in parts] for where in zip(R, z, strict=True)]
        return np.sum(values, axis=1)

    theirs = VO**2 * galpy_sum(lambda part, *where: part(*where, use_physical=False))
    np.testing.assert_allclose(phi - phi[0], theirs - theirs[0], rtol=1e-9, atol=1e-6)
    radial = galpy_sum(lambda part, *where: part.Rforce(*where, use_physical=False))
    vertical = galpy_sum(lambda part, *where: part.zforce(*where, use_physical=False))
    force = np.stack([radial * X[:, 0] / R / RO, radial * X[:, 1] / R / RO, vertical], axis=-1)
    np.testing.assert_allclose(a, force * VO**2 / RO, rtol=1e-9)
    density = galpy_sum(lambda part, *where: part.dens(*where, use_physical=False))
    np.testing.assert_allclose(rho, density * VO**2 / (G * RO**2), rtol=1e-9)
    assert float(milky_way_2014().circular_velocity(RO)) == pytest.approx(VO, rel=1e-12)


def test_milky_way_2014_is_that_of_the_dusty_mock(data_dir):
    """Its truth was written by another program (agama), with its own constant G."""
    mock = np.load(data_dir / "milky_way" / "dev_mock_100k.npz")
    phi, a, rho = everything(milky_way_2014(), jnp.asarray(mock["grid_xyz"]))
    shift = phi - mock["grid_phi"]
    assert float(jnp.std(shift)) < 1e-6 * float(jnp.std(phi))
    scale = np.linalg.norm(mock["grid_acc"], axis=1, keepdims=True)
    np.testing.assert_allclose(a / scale, mock["grid_acc"] / scale, atol=1e-6)
    np.testing.assert_allclose(rho, mock["grid_rho"], rtol=1e-4)


def test_parameters_can_be_differentiated():
    """A fit moves the disc: gradients reach every field, through the force and the density."""

    def size(potential):
        return jnp.sum(potential.acceleration(X[0]) ** 2) + potential.density(X[0])

    potential = Sum((DISC, SphericalAsPotential(NFW(8e6, 16.0))))
    gradient = jax.jit(jax.grad(size))(jax.tree.map(jnp.asarray, potential))
    assert all(jnp.isfinite(g) and g != 0 for g in jax.tree.leaves(gradient))
