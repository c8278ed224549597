"""Laws of every registered anisotropy: d ln g/d ln r = 2 beta, limits, the symmetrised form."""

import independent
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry_examples import ANISOTROPY_EXAMPLES, cases, identify

from bayesdust.anisotropy import (
    ANISOTROPIES,
    BaesVanHese,
    Constant,
    Isotropic,
    OsipkovMerritt,
    from_symmetrised,
    to_symmetrised,
)

R = np.geomspace(1e-5, 1e4, 25)
EVERY = pytest.mark.parametrize(("name", "fields"), cases(ANISOTROPY_EXAMPLES), ids=identify)


@EVERY
def test_log_g_is_the_integrating_factor(name, fields):
    anisotropy = ANISOTROPIES[name](**fields)
    slope = jax.vmap(jax.grad(lambda x: anisotropy.log_g(jnp.exp(x))))(jnp.log(R))
    np.testing.assert_allclose(slope, 2 * anisotropy.beta(R), rtol=1e-10, atol=1e-12)


@EVERY
def test_the_same_as_written_out_by_hand(name, fields):
    anisotropy = ANISOTROPIES[name](**fields)
    beta, log_g = independent.anisotropy(name, fields)
    np.testing.assert_allclose(anisotropy.beta(R), [beta(r) for r in R], rtol=1e-10, atol=1e-12)
    ours = anisotropy.log_g(R) - anisotropy.log_g(R[0])  # free up to a constant
    np.testing.assert_allclose(ours, [log_g(r) - log_g(R[0]) for r in R], rtol=1e-10, atol=1e-12)


@EVERY
def test_shapes_bounds_and_gradients(name, fields):
    anisotropy = ANISOTROPIES[name](**fields)
    for method in (anisotropy.beta, anisotropy.log_g):
        assert method(0.3).shape == ()
        assert method(np.full((2, 3), 0.3)).shape == (2, 3)
        assert method(2.0) == pytest.approx(float(method(jnp.array([2.0]))[0]))
    assert (anisotropy.beta(R) <= 1).all()
    numbers = {key: jnp.asarray(value) for key, value in fields.items()}
    total = lambda f: jnp.sum(ANISOTROPIES[name](**f).beta(R) + ANISOTROPIES[name](**f).log_g(R))  # noqa: E731
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(total)(numbers)))


@pytest.mark.parametrize(
    ("general", "special"),
    [
        (BaesVanHese(0.0, 1.0, 0.3, 2.0), OsipkovMerritt(0.3)),
        (BaesVanHese(0.4, 0.4, 0.3, 1.7), Constant(0.4)),
        (BaesVanHese(0.0, 0.0, 0.3, 1.0), Isotropic()),
        (Constant(0.0), Isotropic()),
        (OsipkovMerritt(1e9), Isotropic()),
    ],
    ids=repr,
)
def test_limits(general, special):
    np.testing.assert_allclose(general.beta(R), special.beta(R), atol=1e-9)
    np.testing.assert_allclose(general.log_g(R), special.log_g(R), atol=1e-9)


def test_baes_van_hese_runs_from_inside_to_outside():
    anisotropy = BaesVanHese(-0.7, 0.5, 1.0, 2.0)
    np.testing.assert_allclose(anisotropy.beta(np.array([1e-8, 1.0, 1e8])), [-0.7, -0.1, 0.5])


def test_symmetrised_parameter():
    beta = jnp.array([-100.0, -3.0, -0.5, 0.0, 0.3, 0.9, 1.0])
    np.testing.assert_allclose(from_symmetrised(to_symmetrised(beta)), beta, atol=1e-12)
    # (sigma_r^2 - sigma_t^2)/(sigma_r^2 + sigma_t^2) by its definition
    np.testing.assert_allclose(to_symmetrised(beta), (1 - (1 - beta)) / (1 + (1 - beta)))
    tilde = jnp.linspace(-0.99, 0.99, 7)
    np.testing.assert_allclose(
        to_symmetrised(1 - 1 / (1 - from_symmetrised(tilde))), -tilde, atol=1e-12
    )  # radial and tangential exchanged: sigma_t^2/sigma_r^2 -> its inverse
    corners = jax.vmap(jax.grad(from_symmetrised))(jnp.array([-0.999999, 0.0, 1.0]))
    assert np.isfinite(corners).all()
