"""The Boltzmann equation with networks: closed-form f stand in for flows, so that only the solve is tested.

Any function of the energy and the angular momentum is in equilibrium; a sum of exp(-(E - Omega L)/sigma^2)
is one whose scores are quick, and not Gaussian in v.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_galaxy import POTENTIAL

from bayesdust.disc_mocks import SURVEY
from bayesdust.dynamics import boltzmann_networks as bn
from bayesdust.dynamics.boltzmann import acceleration_and_dust
from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import Architecture, PhaseSpaceFlow
from bayesdust.flows.scores import scores, velocities_at
from bayesdust.potentials.networks import Network, PotentialNetwork

N, K = 800, 40
ASKED = (
    0.02  # of |a|: what is asked of a solve with dust; exact scores leave the networks' own error
)
CLOUD = jnp.array([-7.5, 0.3, 0.1])
#: share at the Sun, Omega [km/s/kpc], sigma [km/s]
KINDS = np.array([[0.7, 27.0, 40.0], [0.25, 20.0, 60.0], [0.05, 0.0, 130.0]])


def ln_f(x, v):
    energy = (
        jnp.sum(v**2) / 2 + POTENTIAL.potential(x) - POTENTIAL.potential(jnp.array(SURVEY.centre))
    )
    L = x[0] * v[1] - x[1] * v[0]
    share, omega, sigma = KINDS.T
    jacobi = energy + omega * L + (omega * SURVEY.R) ** 2 / 2  # rotation is towards -phi
    return jax.nn.logsumexp(jnp.log(share) - 3 * jnp.log(sigma) - jacobi / sigma**2)


def ln_epsilon(x):
    """A cloud that leaves a third of the light at its centre, 0.8 kpc wide."""
    return -1.1 * jnp.exp(-jnp.sum((x - CLOUD) ** 2) / (2 * 0.8**2))


@pytest.fixture(scope="module")
def places():
    """x (N, 3) within 3 kpc of the Sun and 1.2 of the plane, v (N, K, 3), the scores of f_obs there."""
    rng = np.random.default_rng(7)
    step = rng.normal(size=(N, 3))
    step *= 3 * rng.random((N, 1)) ** (1 / 3) / np.linalg.norm(step, axis=1, keepdims=True)
    x = jnp.asarray(np.array(SURVEY.centre) + step * [1, 1, 0.4])
    turn = jnp.stack([x[:, 1], -x[:, 0], 0 * x[:, 0]], axis=-1)
    kind = rng.integers(2, size=(N, K))
    v = KINDS[kind, 1, None] * turn[:, None] + KINDS[kind, 2, None] * rng.normal(size=(N, K, 3))
    observed = lambda x, v: ln_f(x, v) + ln_epsilon(x)  # noqa: E731
    at_one = jax.vmap(jax.grad(observed, argnums=(0, 1)), (None, 0))
    return x, v, *jax.jit(jax.vmap(at_one))(x, v)


@pytest.fixture(scope="module")
def equations(places):
    return bn.Equations.of(*places)


def fields(screen=bn.Efficiency, seed=1):
    keys = jax.random.split(jax.random.key(seed))
    phi, other = (
        Network.untrained(k, SURVEY.centre, SURVEY.radius, width=24, depth=2) for k in keys
    )
    return PotentialNetwork(phi), screen and screen(other)


def errors(potential, x):
    """|delta a|/|a| (n,)."""
    a, truth = (jax.vmap(p.acceleration)(x) for p in (potential, POTENTIAL))
    return np.asarray(jnp.linalg.norm(a - truth, axis=1) / jnp.linalg.norm(truth, axis=1))


@pytest.fixture(scope="module")
def solved(equations):
    return bn.solve(equations, *fields(), bn.Descent(first=600, steps=1000, batch=256))


def test_the_quadratic_form_is_the_mean_square_of_the_equation(places, equations):
    _, v, score_x, score_v = places
    y = jnp.asarray(np.random.default_rng(2).normal(size=(N, 6)) * [5e3, 5e3, 5e3, 1, 1, 1])
    left = jnp.sum(v * score_x, -1) + jnp.einsum("nki,ni->nk", score_v, y[:, :3])
    left = left - jnp.einsum("nki,ni->nk", v, y[:, 3:])
    first = jnp.mean(jnp.sum(v * score_x, -1) ** 2)
    np.testing.assert_allclose(equations.residual(y), jnp.mean(left**2, axis=1) / first, rtol=1e-7)
    # f is exact: the pointwise answers leave nothing
    assert float(jnp.max(equations.residual(equations.answer))) < 1e-12


def test_force_and_dust_are_recovered(places, solved):
    x = places[0]
    off = errors(solved.potential, x)
    assert np.median(off) < ASKED
    slope = jax.vmap(jax.grad(solved.screen.ln_epsilon))(x)
    truth = jax.vmap(jax.grad(ln_epsilon))(x)
    assert float(jnp.sqrt(jnp.mean((slope - truth) ** 2) / jnp.mean(truth**2))) < 0.1
    assert solved.residual < 0.05
    assert solved.losses.shape == (1600,)


def test_dust_ignored_is_rejected(places, equations, solved):
    x = places[0]
    without = bn.Equations.of(*places, dust=False)
    ignored = bn.solve(without, *fields(None), bn.Descent(first=300, steps=500, batch=256))
    near = np.asarray(jnp.linalg.norm(x - CLOUD, axis=1)) < 1.5
    assert np.median(errors(ignored.potential, x[near])) > 3 * np.median(
        errors(solved.potential, x[near])
    )
    # even the pointwise answers leave more than the networks do with the dust
    assert ignored.floor > 2 * solved.residual


def test_the_start_decides(places, equations):
    """As many steps from random weights leave a larger error than steps towards the pointwise answers."""
    runs = [bn.Descent(first=400, steps=0, batch=256), bn.Descent(first=0, steps=400, batch=256)]
    near, flat = (
        np.median(errors(bn.solve(equations, *fields(), d).potential, places[0])) for d in runs
    )
    assert flat > 1.2 * near


def test_the_conditional_form_is_the_same_equation(places, equations, solved):
    """ln p = ln f_obs - ln n_obs: forces agree, and grad ln n is grad ln n_obs - grad ln epsilon."""
    x, v, score_x, score_v = places
    n_obs = -0.1 * (x - CLOUD) * jnp.array([1.0, 1.0, 10.0])  # any gradient will do
    conditional = bn.Equations.of(x, v, score_x - n_obs[:, None], score_v)
    turned = equations.answer.at[:, 3:].add(-n_obs)
    scale = jnp.array([5e3] * 3 + [1.0] * 3)
    np.testing.assert_allclose(conditional.answer / scale, turned / scale, atol=1e-7)
    both = bn.solve(conditional, *fields(bn.TracerDensity), bn.Descent(600, 1000, 256))
    assert np.median(errors(both.potential, x)) < ASKED
    found = jax.vmap(jax.grad(both.screen.ln_n))(x)
    truth = n_obs - jax.vmap(jax.grad(ln_epsilon))(x)
    assert float(jnp.sqrt(jnp.mean((found - truth) ** 2) / jnp.mean(truth**2))) < 0.1


def test_a_flow_gives_its_conditional_scores():
    """grad of ln p(v | x) is that of ln f less that of ln n; both NaN outside the ball; no absurd speeds."""
    rng = np.random.default_rng(4)
    x = np.array(SURVEY.centre) + rng.normal(size=(300, 3))
    v = np.array([0.0, 220.0, 0.0]) + 40 * rng.normal(size=(300, 3))
    build = Architecture.for_stars(x, v, SURVEY.centre, 40.0, layers=1, widths=(8, 8))
    flow = PhaseSpaceFlow.untrained(jax.random.key(0), build)
    both, alone = scores(flow, x, v), scores(flow, x, v, conditional=True)
    ln_n = jax.vmap(jax.grad(flow.ln_n))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(both[0] - alone[0], ln_n, atol=2e-4)  # single precision
    np.testing.assert_allclose(both[1], alone[1], atol=1e-6)
    far = jnp.full((1, 3), 60.0)
    assert np.isnan(scores(flow, far, far, conditional=True)[0]).all()
    fastest, few = [
        velocities_at(flow, jax.random.key(1), jnp.asarray(x[:9]), 50, s) for s in (600.0, 310.0)
    ]
    assert few.shape == (9, 50, 3)
    assert np.max(np.linalg.norm(few, axis=-1)) < 310.0 < np.max(np.linalg.norm(fastest, axis=-1))


def test_negative_densities_cost(places, equations):
    """With equations that say nothing, the penalty alone makes a random network's density positive."""
    silent = equations._replace(root=0 * equations.root, target=0 * equations.target)
    x = places[0]

    def negative(positive):
        short = bn.Descent(first=0, steps=100, batch=64, positive=positive)
        found = bn.solve(silent, *fields(), short).potential
        return float(jnp.mean(jax.vmap(found.density)(x) < 0))

    assert negative(0.0) > 0.2
    assert negative(1.0) < 0.02


def test_a_backbone_stays_as_it_is(places, equations):
    network, screen = fields()
    tied = PotentialNetwork(network.network, POTENTIAL, scale=1e-3)
    solved = bn.solve(equations, tied, screen, bn.Descent(first=50, steps=50, batch=64))
    np.testing.assert_array_equal(solved.potential.backbone.parts[0].mass, POTENTIAL.parts[0].mass)
    assert errors(solved.potential, places[0]).max() < 1e-4


def test_the_same_seed_gives_the_same_fields_and_another_does_not(places, equations):
    runs = [
        bn.solve(equations, *fields(), bn.Descent(10, 10, 32, seed=s)).losses for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_what_does_not_fit_is_refused(places, equations):
    x, v, score_x, score_v = places
    with pytest.raises(BayesdustError, match="need a screen"):
        bn.solve(equations, *fields(None))
    with pytest.raises(BayesdustError, match="the first at row 3"):
        bn.Equations.of(x, v, score_x.at[2].set(jnp.nan), score_v)
    still = jnp.tile(jnp.asarray([[1.0, 2.0, 3.0]]), (1, K, 1))
    nowhere = bn.Equations.of(x[:1], still, 0 * still, 0 * still + 1.0)
    with pytest.raises(BayesdustError, match="first=0"):
        bn.solve(nowhere, *fields())
    with pytest.raises(BayesdustError, match="numbers above 0"):
        Network.untrained(jax.random.key(0), SURVEY.centre, -4.0)


def test_one_place_agrees_with_the_pointwise_solver(places, equations):
    one = acceleration_and_dust(*(a[5] for a in places[1:]))
    np.testing.assert_allclose(equations.answer[5], one.values, rtol=1e-9)
