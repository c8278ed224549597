"""Accelerations from scores: exact f gives them to rounding; what cannot be told apart is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_galaxy import POTENTIAL, quick_galaxy

from bayesdust import disc_mocks
from bayesdust.dynamics import boltzmann
from bayesdust.errors import BayesdustError

N, K = 12, 200


@pytest.fixture(scope="module")
def galaxy():
    return quick_galaxy()


@pytest.fixture(scope="module")
def places(galaxy):
    """x (N, 3) within 3 kpc of the Sun, v (N, K, 3) there, and the scores of the exact f."""
    rng = np.random.default_rng(5)
    step = rng.normal(size=(N, 3))
    step *= 3 * rng.random((N, 1)) ** (1 / 3) / np.linalg.norm(step, axis=1, keepdims=True)
    x = jnp.asarray(np.array(disc_mocks.SURVEY.centre) + step)
    turn = jnp.stack([x[:, 1], -x[:, 0], 0 * x[:, 0]], axis=-1) / jnp.hypot(x[:, :1], x[:, 1:2])
    v = 190 * turn[:, None] + jnp.asarray(rng.normal(size=(N, K, 3)) * 60)
    at_one_place = jax.vmap(galaxy.scores, (None, 0))
    return x, v, *jax.jit(jax.vmap(at_one_place))(x, v)


def test_exact_scores_give_the_exact_acceleration(places):
    x, v, score_x, score_v = places
    solution = boltzmann.accelerations(v, score_x, score_v)
    truth = jax.vmap(POTENTIAL.acceleration)(x)
    scale = jnp.linalg.norm(truth, axis=-1, keepdims=True)
    np.testing.assert_allclose(solution.a / scale, truth / scale, atol=1e-11)
    assert float(jnp.max(solution.relative_residual)) < 1e-11
    assert not solution.degenerate.any()
    assert solution.grad_ln_epsilon.shape == (N, 0)


def test_dust_and_force_are_both_recovered(places):
    """f_obs = epsilon f with ln epsilon = -A exp(-|x - c|^2/2), a cloud whose gradient is known."""
    x, v, score_x, score_v = places
    off = x - jnp.array([-7.5, 0.3, 0.1])
    dust = 1.5 * off * jnp.exp(-jnp.sum(off**2, axis=-1, keepdims=True) / 2)
    solution = boltzmann.accelerations_and_dust(v, score_x + dust[:, None], score_v)
    truth = jax.vmap(POTENTIAL.acceleration)(x)
    scale = jnp.linalg.norm(truth, axis=-1, keepdims=True)
    # rounding grows by the square of the condition, up to about 1e2 here
    np.testing.assert_allclose(solution.a / scale, truth / scale, atol=1e-10)
    np.testing.assert_allclose(solution.grad_ln_epsilon, dust, atol=1e-10)
    assert float(jnp.max(solution.condition)) < 1e3
    ignored = boltzmann.accelerations(v, score_x + dust[:, None], score_v)
    assert float(jnp.max(jnp.abs(ignored.a - truth) / scale)) > 0.05
    assert float(jnp.max(ignored.relative_residual)) > 0.01


def test_the_covariance_is_that_of_the_noise(places):
    """Noise on one term of (2): pulls have the covariance of a unit normal, correlations too."""
    _, v, score_x, score_v = places
    one = [a[0] for a in (v, score_x, score_v)]
    exact = boltzmann.acceleration_and_dust(*one).values
    draws = 4000
    # v . noise has the variance s^2 at every velocity
    noise = 20 * np.random.default_rng(2).normal(size=(draws, K))
    shift = noise[..., None] * one[0] / jnp.sum(one[0] ** 2, axis=-1, keepdims=True)
    many = boltzmann.accelerations_and_dust(
        jnp.broadcast_to(one[0], shift.shape),
        one[1] + shift,
        jnp.broadcast_to(one[2], shift.shape),
    )
    off = np.asarray(many.values - exact)
    root = np.linalg.inv(np.linalg.cholesky(np.mean(many.covariance, axis=0)))
    white = np.cov((off @ root.T).T)
    # entries of a sample covariance scatter by 1/sqrt(draws), by sqrt(2) more on the diagonal
    np.testing.assert_allclose(white, np.eye(6), atol=5 * np.sqrt(2 / draws))
    np.testing.assert_allclose(many.correlation[0], np.corrcoef(off.T), atol=5 / np.sqrt(draws))
    assert float(jnp.mean(many.residual)) == pytest.approx(20 * np.sqrt(1 - 6 / K), rel=0.01)


def gaussian_place(mean):
    """A single Gaussian population at one place: scores of n(x) N(v; mean, C), C constant."""
    rng = np.random.default_rng(3)
    root = np.array([[40.0, 0, 0], [5, 25, 0], [-8, 3, 20]])
    mean = np.array(mean)
    v = mean + rng.normal(size=(K, 3)) @ root.T
    force, slope = np.array([5000.0, 100.0, -800.0]), np.linalg.inv(root @ root.T)
    score_v = -(v - mean) @ slope
    score_x = np.broadcast_to(slope @ force, (K, 3))  # hydrostatic: grad ln n = C^-1 a
    return tuple(map(jnp.asarray, (v, score_x, score_v))), force


def test_a_gaussian_at_rest_is_exactly_degenerate_and_said_to_be():
    data, force = gaussian_place([0.0, 0.0, 0.0])
    both = boltzmann.acceleration_and_dust(*data)
    assert bool(both.degenerate)
    assert bool(jnp.isnan(both.values).all())
    assert bool(jnp.isnan(both.covariance).all())
    # a = C grad ln epsilon leaves (2) as it is: three of six directions are free
    spectrum = np.linalg.eigvalsh(both.correlation)
    assert (spectrum[:3] < 1e-6).all()
    assert (spectrum[3:] > 1e-2).all()
    alone = boltzmann.acceleration(*data)
    assert not bool(alone.degenerate)
    np.testing.assert_allclose(alone.a, force, rtol=1e-9)


def test_streaming_breaks_the_degeneracy():
    """With a mean velocity, (2) fixes grad ln epsilon along it; across it is still degenerate."""
    (v, _, score_v), _ = gaussian_place([0.0, 220.0, 0.0])
    normal = boltzmann.acceleration_and_dust(v, 0 * v, score_v).normal
    length = jnp.sqrt(jnp.diagonal(normal))
    squares = np.linalg.eigvalsh(normal / jnp.outer(length, length))
    assert (squares[:2] < 1e-12).all()
    assert squares[2] > 1e-3


def test_float32_scores_of_a_gaussian_are_still_called_degenerate():
    data, _ = gaussian_place([0.0, 0.0, 0.0])
    narrow = tuple(a.astype(jnp.float32) for a in data)
    assert bool(boltzmann.acceleration_and_dust(*narrow).degenerate)


def test_rows_of_weight_zero_are_left_out_whatever_they_hold(places):
    _, v, score_x, score_v = (a[0] for a in places)
    short = boltzmann.acceleration(v[5:], score_x[5:] + 0.1, score_v[5:])
    weights = jnp.ones(K).at[:5].set(0.0)
    spoiled = (score_x + 0.1).at[:5].set(jnp.nan)
    blanked = boltzmann.acceleration(v, spoiled, score_v.at[:5].set(jnp.inf), weights)
    for name in ("values", "covariance", "residual", "relative_residual"):
        np.testing.assert_allclose(getattr(blanked, name), getattr(short, name), rtol=1e-9)


def test_tail_weights_tame_scores_that_are_wrong_in_the_tails(places):
    x, v, score_x, score_v = places
    distance = jnp.linalg.norm(v - jnp.mean(v, axis=1, keepdims=True), axis=-1, keepdims=True) / 60
    wrong = score_x * (1 + 0.3 * jnp.maximum(distance - 2, 0) ** 2)
    truth = jax.vmap(POTENTIAL.acceleration)(x)

    def error(weights):
        a = boltzmann.accelerations(v, wrong, score_v, weights).a
        return float(jnp.median(jnp.linalg.norm(a - truth, axis=-1)))

    weights = jax.vmap(lambda u: boltzmann.tail_weights(u, 1.5))(v)
    assert error(weights) < 0.75 * error(None)
    assert float(jnp.max(weights)) == 1.0
    gentle = boltzmann.tail_weights(v[0], 100.0)
    np.testing.assert_array_equal(gentle, np.ones(K))


def test_too_few_velocities_are_refused():
    v = jnp.ones((5, 3))
    with pytest.raises(BayesdustError, match="5 velocities cannot give 6"):
        boltzmann.acceleration_and_dust(v, v, v)
