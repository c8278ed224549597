"""Forces by their values at nodes: interpolation, symmetry, and the sums they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.dynamics.force_nodes import ForceNodes
from bayesdust.dynamics.weak_form import Bumps, Sample, moments
from bayesdust.potentials import GNFW, MiyamotoNagai, Spheroid, milky_way_2014

CENTRE, RADIUS = np.array([-8.122, 0.0, 0.0208]), 4.0
NODES = ForceNodes.covering(CENTRE, RADIUS)
GALAXIES = {
    "MWPotential2014": milky_way_2014(),
    "thinner disc": MiyamotoNagai(6e10, 3.0, 0.2),
    "thinnest disc": MiyamotoNagai(6e10, 3.0, 0.15),
    "flat halo": Spheroid(GNFW(6e6, 18.0, 1.3), 0.7),
}


def ball(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return CENTRE + x * (RADIUS * rng.random(n) ** (1 / 3) / np.linalg.norm(x, axis=1))[:, None]


BOUNDS = {"thinner disc": 1.5e-3, "thinnest disc": 8e-3}  # of |a|; of others 3e-4


@pytest.mark.parametrize("name", GALAXIES)
def test_interpolation(name):
    """Likelihoods of 1 % need it; of the heights of `mw_cbe_gnfw`'s disc 1 in 1,000 is below the thinnest."""
    galaxy, x = GALAXIES[name], ball(2000)
    values = NODES.values(galaxy)
    got = jax.vmap(lambda x: values @ NODES.basis(x))(x)
    wanted = np.asarray(jax.vmap(galaxy.acceleration)(x))
    error = np.abs(got - wanted) / np.linalg.norm(wanted, axis=1)[:, None]
    assert error.max() < BOUNDS.get(name, 3e-4)
    size = np.sum((got - wanted)[:, 2] * wanted[:, 2]) / np.sum(wanted[:, 2] ** 2)
    assert abs(size) < 1e-3  # of the vertical force, whose size is known to a few percent


def test_at_the_nodes_and_below_the_plane():
    values = np.random.default_rng(1).normal(size=2 * len(NODES.places))
    half = len(NODES.places)
    t = np.sqrt(np.tile(NODES.t2, len(NODES.R)))
    for sign in (1, -1):
        places = NODES.places * np.array([1, 1, sign])
        a = np.asarray(jax.vmap(lambda x: values @ NODES.basis(x))(places))
        np.testing.assert_allclose(a[:, 0], values[:half], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(a[:, 2], sign * t * values[half:], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(a[:, 1], 0.0, atol=1e-12)


def test_sums_are_those_of_the_force_itself():
    x, v = ball(400, 3), np.random.default_rng(2).normal(size=(400, 3)) * 50
    tests = Bumps.inside(CENTRE, 3.9, v_phi=-220.0)
    galaxy = GALAXIES["MWPotential2014"]
    one = moments(tests, Sample.of(x, v), lambda x: galaxy.acceleration(x)[None])
    nodes = moments(tests, Sample.of(x, v), NODES.basis)
    direct, through = np.asarray(one.force[:, 0]), np.asarray(nodes.force @ NODES.values(galaxy))
    # of sums of 400 terms, each good to 3e-4
    assert np.max(abs(through - direct)) < 3e-4 * np.sqrt(400) * np.max(abs(direct))
    np.testing.assert_allclose(nodes.constant, one.constant, rtol=1e-12)


def test_nodes_are_differentiable():
    """The sums move with a parameter of the halo as finite differences say."""

    def total(gamma):
        return jnp.sum(NODES.values(Spheroid(GNFW(6e6, 18.0, gamma), 0.9)))

    slope = (total(1.0 + 1e-4) - total(1.0 - 1e-4)) / 2e-4
    assert float(jax.grad(total)(1.0)) == pytest.approx(float(slope), rel=1e-6)
