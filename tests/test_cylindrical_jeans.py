"""The cylindrical Jeans equations: exact for exact moments, and within their errors for stars."""

import jax
import numpy as np
import pytest
from quick_galaxy import POTENTIAL, quick_galaxy
from scipy import stats

from bayesdust import disc_mocks
from bayesdust.disc_galaxy import Ball
from bayesdust.dynamics import cylindrical_jeans as jeans
from bayesdust.errors import BayesdustError

BALL = disc_mocks.SURVEY
# their kernels do not overlap
PLACES = np.array([[R, z] for R in (6.6, 9.7) for z in (-1.0, -0.1, 0.8)])


@pytest.fixture(scope="module")
def galaxy():
    return quick_galaxy()


@pytest.fixture(scope="module")
def sample(galaxy):
    """40,000 stars without dust."""
    stars = disc_mocks.draw(40_000, galaxy, seed=11)
    return stars.x, stars.v


def truth(places):
    x = np.column_stack([places[:, 0], 0 * places[:, 0], places[:, 1]])
    return np.asarray(jax.vmap(POTENTIAL.acceleration)(x))[:, [0, 2]]


def chi2(found, exact):
    left = found.a - exact
    return float(
        sum(d @ np.linalg.solve(C, d) for d, C in zip(left, found.covariance, strict=True))
    )


# Exact moments in place of stars


def fitted(place, h, fields):
    """p of the six fields, where nu times the moments is known: (m, 2) -> (m, 6)."""
    t, w = np.polynomial.legendre.leggauss(24)
    u = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
    share = np.outer(w, w).ravel() * jeans.kernel(u) * np.prod(h)
    sums = np.einsum("n,nf,ni->fi", share, fields(place + u * h), jeans._basis(u))
    return np.array([jeans.fit(s, h)[0] for s in sums])


def test_densities_whose_logarithm_is_quadratic_are_exact():
    """nu = exp(-R/2.5 - z^2/0.3), and moments that go as exp of R and z: (1) is a closed form."""
    place, h = np.array([8.0, 0.5]), np.array([1.5, 0.4])

    def nu(R, z):
        return np.exp(-R / 2.5 - z**2 / 0.3)

    def fields(q):
        R, z = q.T
        up, down = 1500 * np.exp(-R / 9 + z / 5), 900 * np.exp(-R / 7 - z / 8)
        one = [1 + 0 * R, 1200 * np.exp(-R / 8), 4e4 + 0 * R, 700 * np.exp(z / 3), up, down]
        return np.stack(one, axis=1) * nu(R, z)[:, None]

    R, z = place
    s_R, s_z = 1200 * np.exp(-R / 8), 700 * np.exp(z / 3)
    up, down = 1500 * np.exp(-R / 9 + z / 5) / 4, 900 * np.exp(-R / 7 - z / 8) / 4
    mixed_R = up * (-1 / 2.5 - 1 / 9) - down * (-1 / 2.5 - 1 / 7)
    mixed_z = up * (-2 * z / 0.3 + 1 / 5) - down * (-2 * z / 0.3 - 1 / 8)
    a_R = s_R * (-1 / 2.5 - 1 / 8) + mixed_z + (s_R - 4e4) / R
    a_z = s_z * (-2 * z / 0.3 + 1 / 3) + mixed_R + (up - down) / R
    found = jeans._solve(fitted(place, h, fields), place, h)
    np.testing.assert_allclose(found, [a_R, a_z], rtol=1e-6)


def exact_fields(galaxy):
    """nu times the moments of the mock, whose v_R and v_z have one dispersion and are independent."""

    @jax.jit
    def moments(x):
        parts = [jax.lax.map(c.moments, x, batch_size=576) for c in galaxy.components]
        shares = zip(galaxy.fractions, galaxy.log_norms, strict=True)
        return [
            (share * jax.numpy.exp(m.log_density - norm), m.sigma_R**2, m.v_phi**2 + m.sigma_phi**2)
            for m, (share, norm) in zip(parts, shares, strict=True)
        ]

    def fields(q):
        total = 0.0
        for nu, s2, p2 in moments(np.column_stack([q[:, 0], 0 * q[:, 0], q[:, 1]])):
            nu, s2, p2 = map(np.asarray, (nu, s2, p2))
            total = total + nu[:, None] * np.stack([1 + 0 * s2, s2, p2, s2, 2 * s2, 2 * s2], axis=1)
        return total

    return fields


def test_what_the_second_degree_leaves_out_is_small(galaxy):
    """Of the mock's own moments; without the gradients of the dispersions (1) is wrong by more."""
    fields = exact_fields(galaxy)
    places = np.array([[8.0, 0.6], [6.6, 1.2]])
    for place, exact in zip(places, truth(places), strict=True):
        p = fitted(place, jeans.WIDTHS, fields)
        a = jeans._solve(p, place, jeans.WIDTHS)
        assert abs(a[0] / exact[0] - 1) < 0.003
        assert abs(a[1] / exact[1] - 1) < 0.03
        cold = p.copy()
        cold[1:, 1:3] = p[0, 1:3]  # every field falls off as nu does
        wrong = jeans._solve(cold, place, jeans.WIDTHS)
        assert abs(wrong[0] / exact[0] - 1) > 0.03
        assert abs(wrong[1] / exact[1] - 1) > 0.1


# Stars


def test_stars_give_the_true_accelerations(sample):
    found = jeans.accelerations(*sample, PLACES, BALL)
    assert stats.chi2.sf(chi2(found, truth(PLACES)), 2 * len(PLACES)) > 1e-3
    error = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert error[1, 0] < 300  # of 7,500 (km/s)^2/kpc, near the plane at 6.6 kpc
    # a galaxy with a horizontal force 15 % weaker is told apart
    weaker = truth(PLACES) * [0.85, 1.0]
    assert stats.chi2.sf(chi2(found, weaker), 2 * len(PLACES)) < 1e-6


def test_dust_is_undone_by_the_weights_and_seen_without(sample):
    """Seen is exp(-1.5 |z + 0.5|) of the stars."""
    x, v = sample
    epsilon = np.exp(-1.5 * abs(x[:, 2] + 0.5))
    seen = np.random.default_rng(5).random(len(x)) < epsilon
    x, v, weights = x[seen], v[seen], 1 / epsilon[seen]
    near = PLACES[[1, 4]]
    right = jeans.accelerations(x, v, near, BALL, weights)
    assert stats.chi2.sf(chi2(right, truth(near)), 4) > 1e-3
    wrong = jeans.accelerations(x, v, near, BALL)
    assert stats.chi2.sf(chi2(wrong, truth(near)), 4) < 1e-6


def test_the_covariance_is_that_of_other_stars(sample):
    """Against 400 copies of the stars, each with Poisson weights."""
    rng = np.random.default_rng(2)
    x, v = (a[:10_000] for a in sample)
    place = np.array([[7.5, 0.4]])
    one = jeans.accelerations(x, v, place, BALL)
    copies = [
        jeans.accelerations(x, v, place, BALL, rng.poisson(1.0, len(x)).astype(float)).a[0]
        for _ in range(400)
    ]
    root = np.linalg.inv(np.linalg.cholesky(one.covariance[0]))
    white = np.cov((np.array(copies) @ root.T).T)
    # 400 copies give a variance to 7 %
    np.testing.assert_allclose(white, np.eye(2), atol=0.3)


def test_density_and_moments_are_those_of_the_galaxy(sample, galaxy):
    """Within what 60 copies with Poisson weights scatter."""
    place, rng = np.array([[8.0, 0.3]]), np.random.default_rng(3)
    fields = exact_fields(galaxy)(place)[0]
    exact = np.array([40_000 * fields[0], *fields[1:4] / fields[0], 0.0])

    def estimate(weights):
        found = jeans.accelerations(*sample, place, BALL, weights)
        return np.array([found.nu[0], *found.moments[0]])

    copies = [estimate(rng.poisson(1.0, 40_000).astype(float)) for _ in range(60)]
    error = np.std(copies, axis=0)
    assert (abs(estimate(None) - exact) < 3.5 * error).all()
    assert (error[:3] < 0.15 * exact[:3]).all()


def test_arcs_add_up_to_the_ball():
    """The integral of the arc over R and z is the ball's volume, that of a ball about the axis too."""
    for centre, radius in (((-8.0, 0.0, 0.0), 4.0), ((-1.0, 1.0, 0.3), 3.0)):
        ball = Ball(centre, radius)
        R = np.linspace(1e-6, ball.R + radius, 2001)
        z = centre[2] + np.linspace(-radius, radius, 2001)
        grid = jeans.arc(*(a.ravel() for a in np.meshgrid(R, z, indexing="ij")), ball)
        volume = np.trapezoid(np.trapezoid(grid.reshape(2001, 2001), z, axis=1), R)
        assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=1e-4)


def test_few_stars_give_no_answer_and_bad_requests_are_refused(sample):
    x, v = (a[:200] for a in sample)
    found = jeans.accelerations(x, v, PLACES[:1], BALL)
    assert np.isnan(found.a).all()
    assert found.stars[0] < jeans.FEWEST
    for bad, words in (
        ({"widths": np.array([0.0, 1.0])}, "widths must be positive"),
        ({"weights": -np.ones(200)}, "weights not negative"),
        ({"places": np.array([[11.0, 0.0]])}, "R = 11, z = 0 kpc reaches beyond 0.95"),
        ({"places": np.array([[8.0, 3.6]])}, "take a place farther in"),
    ):
        with pytest.raises(BayesdustError, match=words):
            jeans.accelerations(**{"x": x, "v": v, "places": PLACES, "ball": BALL} | bad)
