"""The weak form: sums that vanish in the true potential behind the true dust, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_galaxy import POTENTIAL, quick_galaxy
from scipy import stats

from bayesdust import disc_mocks
from bayesdust.dynamics.weak_form import Bumps, Pilot, Sample, covariance, moments
from bayesdust.errors import BayesdustError

CENTRE = np.array(disc_mocks.SURVEY.centre)
LAYERS = ((0.3, 0.6), (1.1, 1.0))


def ln_epsilon(x):
    """A cloud on the far side of the Sun and a layer in the plane."""
    off = x - jnp.asarray(CENTRE) - jnp.array([1.0, 0.8, 0.1])
    return -0.8 * jnp.exp(-jnp.sum(off**2) / 0.9) - 0.6 * jnp.exp(-((x[2] / 0.3) ** 2))


@pytest.fixture(scope="module")
def tests_():
    return Bumps.inside(CENTRE, 3.9, -200.0, width=1.6, layers=LAYERS)


@pytest.fixture(scope="module")
def stars():
    """x, v and epsilon of the stars that are seen."""
    drawn = disc_mocks.draw(40_000, quick_galaxy(), seed=3)
    epsilon = np.exp(np.asarray(jax.vmap(ln_epsilon)(jnp.asarray(drawn.x))))
    seen = np.random.default_rng(4).random(len(epsilon)) < epsilon
    return drawn.x[seen], drawn.v[seen], epsilon[seen]


def pull(x):
    return POTENTIAL.acceleration(x)[None]


def parts(x):
    """Horizontal and vertical force as two basis functions."""
    a = POTENTIAL.acceleration(x)
    return jnp.stack([a.at[2].set(0.0), a * jnp.array([0.0, 0.0, 1.0])])


def dim(x):
    return jax.grad(ln_epsilon)(x)[None]


def chi2(sums, cov):
    return float(sums @ jnp.linalg.solve(cov, sums))


def test_bumps_lie_inside_the_survey(tests_):
    u = np.random.default_rng(0).normal(size=(2000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    edges = tests_.centres[:, None] + u * tests_.widths[:, None]
    assert np.linalg.norm(edges - CENTRE, axis=2).max() < 3.9
    assert tests_.number == 9 * len(tests_.centres) > 100
    with pytest.raises(BayesdustError, match="holds no bump"):
        Bumps.inside(CENTRE, 1.0, -200.0, width=2.0)


def test_rates_are_those_along_orbits(tests_, stars):
    """Against differences of g along a star's path."""
    x, v, _ = (a[:20] for a in stars)
    sums = moments(tests_, Sample.of(x, v), pull, chunk=7).sums(jnp.ones(1))
    dt = 1e-6  # kpc/(km/s)
    a = np.asarray(jax.vmap(POTENTIAL.acceleration)(x))
    after, before = (
        jax.vmap(tests_.values)(x + s * dt * v, v + s * dt * a).sum(axis=0) for s in (1, -1)
    )
    np.testing.assert_allclose(sums, (after - before) / (2 * dt), rtol=1e-6, atol=1e-4)


def test_sums_vanish_in_the_true_potential_behind_the_true_dust(tests_, stars):
    """Both forms; not with the dust ignored, nor in a potential that is too strong by a quarter."""
    x, v, epsilon = stars
    one = jnp.ones(1)
    seen = Sample.of(x, v, 1 / epsilon)
    weighted = moments(tests_, seen, pull)
    cov = covariance(tests_, seen, Pilot(POTENTIAL.acceleration))
    # a sum of k squared normals; its five-sigma point
    limit = stats.chi2.isf(3e-7, tests_.number)
    assert chi2(weighted.sums(one), cov) < limit
    assert chi2(weighted.sums(1.25 * one), cov) > limit

    even = Sample.of(x, v)
    plain = moments(tests_, even, pull, dim)
    dusty = covariance(tests_, even, Pilot(POTENTIAL.acceleration, jax.grad(ln_epsilon)))
    assert chi2(plain.sums(one, one), dusty) < limit
    ignored = covariance(tests_, even, Pilot(POTENTIAL.acceleration))
    assert chi2(plain.sums(one), ignored) > limit


def test_the_forces_scale_is_found(tests_, stars):
    """Generalised least squares for the size of the horizontal and the vertical force."""
    x, v, epsilon = stars
    seen = Sample.of(x, v, 1 / epsilon)
    weighted = moments(tests_, seen, parts)
    cov = covariance(tests_, seen, Pilot(POTENTIAL.acceleration))
    normal = weighted.force.T @ jnp.linalg.solve(cov, weighted.force)
    found = -jnp.linalg.solve(normal, weighted.force.T @ jnp.linalg.solve(cov, weighted.constant))
    sd = np.sqrt(np.diag(np.linalg.inv(normal)))
    assert np.all(sd < [0.02, 0.06])
    # four sd, and the attenuation of k = 270 moments from 25,000 stars, about k/n
    assert np.all(np.abs(np.asarray(found) - 1) < 4 * sd + tests_.number / len(x))


def test_chunks_do_not_matter(tests_, stars):
    x, v, epsilon = (a[:500] for a in stars)
    some = Sample.of(x, v, 1 / epsilon)
    many, few = (moments(tests_, some, parts, dim, chunk=c) for c in (500, 64))
    for a, b in zip(many, few, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-9 * float(jnp.abs(a).max()))


def test_stars_that_are_not_finite(tests_):
    with pytest.raises(BayesdustError, match="must be finite"):
        Sample.of(np.full((5, 3), np.nan), np.zeros((5, 3)))


def test_copies_take_errors_out():
    """Equation (4): the mean over noise is the true stars' sum; that of the noisy stars is not."""
    rng = np.random.default_rng(5)
    n, skies = 60, 4000
    x = rng.normal(size=(n, 3)) * 0.5 + CENTRE
    v = rng.normal(size=(n, 3)) * 40 + np.array([0, 200.0, 0])
    one = Bumps(CENTRE[None], np.array([[3.0, 3.0, 3.0]]), -200.0)
    pilot = Pilot(POTENTIAL.acceleration)
    terms = jax.jit(jax.vmap(lambda x, v: pilot.terms(one, x, v)))
    noise = [s * rng.normal(size=(2, skies * n, 3)) for s in (0.15, 15.0)]
    seen, e = zip(*((np.tile(a, (skies, 1)) + q[0], q[1]) for a, q in zip((x, v), noise, strict=True)),
                  strict=True)  # fmt: skip
    bare, ahead, behind = (
        np.asarray(terms(*(a + sign * b for a, b in zip(seen, e, strict=True))))
        for sign in (0, 1, -1)
    )
    truth = np.asarray(terms(x, v)).sum(axis=0)

    def surprise(terms):
        """The largest offset of a sum's mean over the skies, in its error."""
        off = terms.reshape(skies, n, -1).sum(axis=1) - truth
        return float(np.max(abs(off.mean(axis=0) / off.std(axis=0)))) * np.sqrt(skies)

    limit = stats.norm.isf(0.5e-3 / one.number)
    assert surprise(2 * bare - 0.5 * (ahead + behind)) < limit
    assert surprise(bare) > 2 * limit
