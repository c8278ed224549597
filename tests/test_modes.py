"""Modes of a box: derivatives, orthogonality, and the kernel that they sum up to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.dynamics.modes import Enveloped, Modes
from bayesdust.errors import BayesdustError

CENTRE, RADIUS = np.array([-8.1, 0.3, 0.02]), 4.0
LENGTHS = np.array([2.5, 2.5, 1.2])


def kernel(x, y, sigma, lengths):
    return sigma**2 * np.exp(-0.5 * np.sum(((x - y) / lengths) ** 2, axis=-1))


@pytest.fixture(scope="module")
def modes():
    return Modes.covering(CENTRE, RADIUS, LENGTHS, 600)


def places(n, seed, radius=RADIUS):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, 3))
    return CENTRE + radius * u / np.linalg.norm(u, axis=1)[:, None] * rng.random((n, 1)) ** (1 / 3)


def test_gradient_and_laplacian_are_those_of_the_values(modes):
    for x in places(5, 0):
        found = jax.jacfwd(modes.values)(jnp.asarray(x))
        np.testing.assert_allclose(modes.gradients(jnp.asarray(x)), found, rtol=1e-11, atol=1e-11)
        hessian = jax.jacfwd(jax.jacfwd(modes.values))(jnp.asarray(x))
        np.testing.assert_allclose(
            modes.laplacians(jnp.asarray(x)),
            jnp.trace(hessian, axis1=1, axis2=2),
            rtol=1e-10,
            atol=1e-10,
        )


def test_modes_are_orthonormal():
    few = Modes.covering(CENTRE, RADIUS, LENGTHS, 12)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    grid = np.stack(np.meshgrid(*3 * (nodes,), indexing="ij"), axis=-1).reshape(-1, 3)
    w = np.prod(np.stack(np.meshgrid(*3 * (weights,), indexing="ij"), axis=-1), axis=-1).ravel()
    phi = np.asarray(jax.vmap(few.values)(CENTRE + few.half * grid))
    overlap = (phi * (w * np.prod(few.half))[:, None]).T @ phi
    np.testing.assert_allclose(overlap, np.eye(12), atol=1e-10)


def test_they_sum_to_the_kernel(modes):
    """To what the modes left out can add, and the images of a place behind the walls."""
    x, y = places(40, 1, 0.3 * RADIUS), places(40, 2, 0.3 * RADIUS)
    S = np.asarray(modes.variances(3.0, LENGTHS))
    phi = [np.asarray(jax.vmap(modes.values)(p)) for p in (x, y)]
    found = np.sum(phi[0] * S * phi[1], axis=1)
    wanted = kernel(x, y, 3.0, LENGTHS)
    all_of_them = Modes.covering(CENTRE, RADIUS, LENGTHS, 8000).variances(3.0, LENGTHS)
    left = float(np.sum(all_of_them) - np.sum(S)) / np.prod(modes.half)
    nearest = 2 * (modes.half[0] - 0.3 * RADIUS)
    images = 6 * 9.0 * np.exp(-0.5 * (nearest / LENGTHS.max()) ** 2)
    assert left + images < 0.4
    assert np.max(abs(found - wanted)) < left + images
    # a kernel of half the length is not these modes' sum
    assert np.max(abs(found - kernel(x, y, 3.0, 0.5 * LENGTHS))) > 0.8


def test_the_modes_taken_are_those_of_the_largest_variance():
    few, many = (Modes.covering(CENTRE, RADIUS, LENGTHS, n) for n in (100, 2000))
    S = np.sort(np.asarray(many.variances(1.0, LENGTHS)))[::-1]
    np.testing.assert_allclose(np.sort(np.asarray(few.variances(1.0, LENGTHS)))[::-1], S[:100])
    assert len(np.unique(many.orders, axis=0)) == many.number == 2000
    with pytest.raises(BayesdustError, match="one or more"):
        Modes.covering(CENTRE, RADIUS, LENGTHS, 0)


def test_an_envelope_is_close_to_what_it_was_made_of_and_the_field_follows_it(modes):
    """A step at z = 0.5 kpc, as dust above which there is none, to the lengths that the modes resolve."""
    x = places(3000, 3)
    depth = 0.7 / (1 + np.exp((abs(x[:, 2]) - 0.8) / 0.3))
    made = Enveloped.like(modes, LENGTHS, x, depth)
    inside = places(200, 4, 0.8 * RADIUS)
    envelope = np.asarray(jax.vmap(lambda x: modes.values(x) @ made.heights)(inside))
    wanted = 0.7 / (1 + np.exp((abs(inside[:, 2]) - 0.8) / 0.3))
    assert np.sqrt(np.mean((envelope - wanted) ** 2)) < 0.02 < np.std(wanted) / 5
    one = jnp.asarray(inside[0])
    np.testing.assert_allclose(made.values(one), envelope[0] * modes.values(one), rtol=1e-10)
    slope = jax.jacfwd(made.values)(one)
    np.testing.assert_allclose(made.gradients(one), slope, rtol=1e-9, atol=1e-10)
    clear = np.array([[*CENTRE[:2], 2.5]])
    field = np.asarray(jax.vmap(made.values)(clear)) * np.sqrt(made.variances(1.0, LENGTHS))
    bare = np.asarray(jax.vmap(modes.values)(clear)) * np.sqrt(modes.variances(1.0, LENGTHS))
    assert np.linalg.norm(field) < 0.05 * np.linalg.norm(bare)
