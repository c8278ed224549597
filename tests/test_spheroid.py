"""A flattened halo: Poisson's equation, the gradient, the sphere, and galpy."""

import galpy.potential
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.potentials import GNFW, NFW, SphericalAsPotential, Spheroid
from bayesdust.units import G

RNG = np.random.default_rng(2)
X = jnp.asarray(RNG.normal(size=(8, 3)) * np.array([6.0, 6.0, 2.0]))
HALO = NFW(8e6, 16.0)


@pytest.mark.parametrize("q", [0.2, 0.7, 1.0, 1.5, 3.0])
def test_laws(q):
    spheroid = Spheroid(HALO, q)
    a = jax.vmap(spheroid.acceleration)(X)
    slope = -jax.vmap(jax.grad(spheroid.potential))(X)
    np.testing.assert_allclose(a, slope, rtol=1e-5)
    divergence = jax.vmap(lambda x: jnp.trace(jax.jacfwd(spheroid.acceleration)(x)))(X)
    density = jax.vmap(spheroid.density)(X)
    np.testing.assert_allclose(-divergence / (4 * jnp.pi * G), density, rtol=1e-5)


def test_a_round_one_is_the_sphere():
    sphere, spheroid = SphericalAsPotential(HALO), Spheroid(HALO, 1.0)
    for name in ("potential", "acceleration", "density"):
        np.testing.assert_allclose(
            jax.vmap(getattr(spheroid, name))(X), jax.vmap(getattr(sphere, name))(X), rtol=1e-7
        )


@pytest.mark.parametrize("q", [0.6, 1.3])
def test_galpy_agrees(q):
    """TwoPowerTriaxialPotential of slope 0.5 inside, in units with G = 1 as galpy has them."""
    theirs = galpy.potential.TwoPowerTriaxialPotential(
        amp=1.0, a=1.5, alpha=0.5, beta=3.0, b=1.0, c=q, glorder=100
    )
    x, unit = jnp.array([1.0, 0.0, 0.3]), Spheroid(GNFW(1.0, 1.5, 0.5), q)
    rho_s = float(theirs.dens(1.0, 0.3)) / float(unit.density(x))
    a = Spheroid(GNFW(rho_s, 1.5, 0.5), q).acceleration(x) / G
    expected = [float(theirs.Rforce(1.0, 0.3)), float(theirs.zforce(1.0, 0.3))]
    np.testing.assert_allclose(a[jnp.array([0, 2])], expected, rtol=1e-6)


def test_gradients_in_the_flattening():
    """Against differences: the parameter of a fit."""

    def force(q):
        return Spheroid(GNFW(8e6, 16.0, 0.8), q).acceleration(X[0])

    slope = jax.jacfwd(force)(0.8)
    h = 1e-5
    np.testing.assert_allclose(slope, (force(0.8 + h) - force(0.8 - h)) / (2 * h), rtol=1e-6)
