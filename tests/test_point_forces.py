"""Forces at places from an ensemble of flows: those of its members, their scatter, and what has no answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.disc_mocks import SURVEY
from bayesdust.dynamics.boltzmann import accelerations_and_dust, tail_weights
from bayesdust.dynamics.gauss_law import GaussLaw
from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import Architecture, member
from bayesdust.flows.scores import scores, velocities_at
from bayesdust.flows.training import Schedule, train
from bayesdust.inference.point_forces import PointForces, all_answered, forces_at, point_forces

SUN = np.array(SURVEY.centre)


@pytest.fixture(scope="module")
def flows():
    """Four small ones of few stars, of bootstrap resamples."""
    rng = np.random.default_rng(7)
    x = SUN + rng.normal(size=(600, 3)) * [1.0, 1.0, 0.4]
    v = np.array([0.0, 220.0, 0.0]) + rng.normal(size=(600, 3)) * 40
    build = Architecture.for_stars(x, v, SURVEY.centre, 8.0, layers=1, widths=(8, 8))
    return train(x, v, build, members=4, schedule=Schedule(epochs=2, batch=200)).flows


def test_each_member_answers_for_itself(flows):
    x, key = SUN + np.array([[0.3, 0.0, 0.2], [-0.5, 0.4, -0.3]]), jax.random.key(2)
    found = point_forces(flows, key, x, number=64, dust=True)
    assert found.by_member.shape == (4, 2, 6)
    v = velocities_at(member(flows, 0), key, x, 64)
    one = member(flows, 2)
    slopes = [
        s.reshape(2, 64, 3).astype(float)
        for s in scores(one, np.repeat(x, 64, axis=0), v.reshape(-1, 3))
    ]
    v = v.astype(float)
    alone = accelerations_and_dust(v, *slopes, jax.vmap(tail_weights)(v))
    # scores are float32, in whose last digits a map over members may differ
    np.testing.assert_allclose(found.by_member[2], alone.values, rtol=1e-3, atol=1e-3)
    assert not np.allclose(found.by_member[1], alone.values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.a, found.by_member[..., :3].mean(axis=0))
    np.testing.assert_allclose(found.grad_ln_epsilon, found.by_member[..., 3:].mean(axis=0))
    assert point_forces(flows, key, x, number=64).grad_ln_epsilon.shape == (2, 0)


def test_covariance_is_the_scatter_of_the_members():
    rng = np.random.default_rng(3)
    found = PointForces(rng.normal(size=(30, 2, 6)) @ rng.normal(size=(6, 6)))
    for i in range(2):
        np.testing.assert_allclose(found.covariance[i], np.cov(found.by_member[:, i].T))
        np.testing.assert_allclose(found.correlation[i], np.corrcoef(found.by_member[:, i].T))
    assert np.isnan(PointForces(found.by_member[:1]).covariance).all()


def test_density_follows_with_its_scatter(flows):
    """Gauss's law is linear in the force, so that every member has a density."""
    law = GaussLaw.within((0.5, 0.5, 0.3))
    found = forces_at(
        flows, SUN + law.offsets, jnp.zeros((len(law.offsets), 8, 3)) + 200 * jnp.eye(8, 3)
    )
    rho = np.array([law.density(jnp.asarray(a)) for a in found.by_member])
    assert rho.mean() == pytest.approx(float(law.density(jnp.asarray(found.a))))
    assert rho.std() > 0


def test_what_has_no_answer(flows):
    outside = point_forces(flows, jax.random.key(1), SUN + np.array([[9.0, 0.0, 0.0]]), number=16)
    assert np.isnan(outside.a).all()
    with pytest.raises(BayesdustError, match="take them farther inside the survey"):
        all_answered(outside)
    with pytest.raises(BayesdustError, match="4 velocities cannot give 6 numbers"):
        point_forces(flows, jax.random.key(1), SUN[None], number=4, dust=True)
