"""Disc galaxies: f obeys the Boltzmann equation exactly, and the stars drawn are stars of f.

Every statistical check is made twice: the draw must pass (a true one fails once in a thousand
seeds), and a draw that is wrong by a factor R must fail by far.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesdust import disc_mocks
from bayesdust.disc_distribution import Disc, IsothermalHalo
from bayesdust.disc_galaxy import Ball, mix
from bayesdust.errors import BayesdustError
from bayesdust.potentials import NFW, MiyamotoNagai, SphericalAsPotential, Sum

P_PASS, P_FAIL = 1e-3, 1e-12
N = 30_000
# quick to compile: neither part needs an incomplete gamma function
POTENTIAL = Sum((MiyamotoNagai(6.8e10, 3.0, 0.28), SphericalAsPotential(NFW(1.1e7, 16.0))))
COMPONENTS = {
    "thin": Disc(POTENTIAL, R_d=2.5, sigma_0=27.0, R_sigma=8.0),
    "thick": Disc(POTENTIAL, R_d=2.2, sigma_0=50.0, R_sigma=9.0),
    "halo": IsothermalHalo(POTENTIAL, sigma=130.0),
}
SHARES = {"thin": 0.5, "thick": 0.3, "halo": 0.2}
SURVEY = disc_mocks.SURVEY


@jax.jit  # once per class, with the parameters as arguments
def all_moments(component, x):
    return jax.lax.map(component.moments, x, batch_size=1440)


@jax.jit
def all_log_f(component, x, v):
    """ln f at one place, velocities (n, 3)."""
    return jax.vmap(lambda v: component.log_f(x, v))(v)


@pytest.fixture(scope="module")
def galaxy():
    return mix(COMPONENTS, SHARES, SURVEY)


@pytest.fixture(scope="module")
def stars(galaxy):
    return disc_mocks.draw(N, galaxy, seed=1)


@pytest.fixture(scope="module")
def scores(galaxy, stars):
    """For 3000 stars: ln f of the components (n, 3), its gradients (n, 3, 3), and -grad Phi."""
    x, v = jnp.asarray(stars.x[:3000]), jnp.asarray(stars.v[:3000])

    @jax.jit
    @jax.vmap
    def at(x, v):
        return galaxy.log_parts(x, v), *jax.jacrev(galaxy.log_parts, (0, 1))(x, v)

    return x, v, *at(x, v), jax.vmap(POTENTIAL.acceleration)(x)


def test_every_component_and_the_mixture_obey_the_boltzmann_equation(galaxy, scores):
    x, v, parts, by_x, by_v, a = scores
    whole_x, whole_v = jax.jit(jax.vmap(galaxy.scores))(x, v)
    by_x = jnp.concatenate([by_x, whole_x[:, None]], axis=1)
    by_v = jnp.concatenate([by_v, whole_v[:, None]], axis=1)
    terms = jnp.concatenate([v[:, None] * by_x, a[:, None] * by_v], axis=-1)
    left = jnp.abs(jnp.sum(terms, axis=-1)) / jnp.sum(jnp.abs(terms), axis=-1)
    finite = jnp.concatenate([jnp.isfinite(parts), jnp.ones((len(x), 1), bool)], axis=1)
    assert float(jnp.max(jnp.where(finite, left, 0.0))) < 1e-13
    assert bool(jnp.isfinite(by_x).all())
    assert bool(jnp.isfinite(by_v).all())
    assert 0 < np.sum(~finite) < 0.2 * len(x)  # retrograde halo stars: no disc there
    # the mixture's scores are its components', each by its share of the stars at (x, v)
    share = jax.nn.softmax(parts, axis=-1)[..., None]
    np.testing.assert_allclose(whole_x, jnp.sum(share * by_x[:, :3], axis=1), atol=1e-9)
    np.testing.assert_allclose(whole_v, jnp.sum(share * by_v[:, :3], axis=1), atol=1e-9)


def test_gradients_are_finite_differences_of_log_f(galaxy, scores):
    x, v, parts, by_x, by_v, _ = (a[:20] for a in scores)
    log_parts = jax.jit(jax.vmap(galaxy.log_parts))
    seen = jnp.isfinite(parts)
    for i, e in enumerate(jnp.eye(3)):
        slope_x = (log_parts(x + 1e-4 * e, v) - log_parts(x - 1e-4 * e, v)) / 2e-4
        slope_v = (log_parts(x, v + 1e-2 * e) - log_parts(x, v - 1e-2 * e)) / 2e-2
        np.testing.assert_allclose(by_x[..., i][seen], slope_x[seen], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(by_v[..., i][seen], slope_v[seen], rtol=1e-4, atol=1e-6)


def test_the_guiding_radius_has_its_angular_momentum():
    """From far inside to far outside, with its first and second derivatives."""
    disc = COMPONENTS["thin"]
    L = jnp.array([0.5, 30.0, 1800.0, 4e4])
    R_c = jax.jit(jax.vmap(disc.guiding_radius))(L)
    orbit = jax.jit(jax.vmap(disc.circular))(R_c)
    np.testing.assert_allclose(orbit.L, L, rtol=1e-12)
    slope = jax.jit(jax.vmap(jax.grad(disc.guiding_radius)))
    # below L = 10 the halo's second derivatives are rounded to 1e-8: see test_discs
    np.testing.assert_allclose(slope(L), 2 * orbit.omega / (R_c * orbit.kappa**2), rtol=1e-7)
    second = (slope(L * 1.0001) - slope(L * 0.9999)) / (2e-4 * L)
    bend = jax.jit(jax.vmap(jax.grad(jax.grad(disc.guiding_radius))))(L)
    np.testing.assert_allclose(bend[1:], second[1:], rtol=1e-5)


@pytest.mark.parametrize("name", COMPONENTS)
def test_moments_are_integrals_of_f_over_velocities(galaxy, name):
    """Trapezoidal sums of exp(ln f) on a grid in (v_R, v_phi, v_z): a second way to everything."""
    component = galaxy.components[galaxy.names.index(name)]
    R, place = 6.3, jnp.array([-6.0, 1.5, 0.4])
    place = place * jnp.array([1, 1, 1.0]).at[:2].set(R / jnp.hypot(place[0], place[1]))
    moments = jax.tree.map(lambda q: q[0], all_moments(component, place[None]))
    out = place * jnp.array([1, 1, 0]) / R
    along = jnp.array([out[1], -out[0], 0.0])
    reach = 8 * float(moments.sigma_R)
    w, v_phi = jnp.linspace(-reach, reach, 31), jnp.linspace(-reach, reach, 301) + moments.v_phi
    grid = w[:, None, None, None] * out + v_phi[:, None, None] * along
    grid = (grid + w[:, None] * jnp.array([0, 0, 1.0])).reshape(-1, 3)
    f = jnp.exp(all_log_f(component, place, grid))
    cell = (w[1] - w[0]) ** 2 * (v_phi[1] - v_phi[0])
    mean = lambda q: jnp.sum(f * q) / jnp.sum(f)  # noqa: E731
    assert float(jnp.log(jnp.sum(f) * cell)) == pytest.approx(float(moments.log_density), abs=1e-6)
    streaming = mean(grid @ along)
    assert float(streaming) == pytest.approx(float(moments.v_phi), abs=1e-3)
    spread = jnp.sqrt(mean((grid @ along - streaming) ** 2))
    assert float(spread) == pytest.approx(float(moments.sigma_phi), rel=1e-5)
    for axis in (out, jnp.array([0, 0, 1.0])):  # sigma_R = sigma_z
        assert float(jnp.sqrt(mean((grid @ axis) ** 2))) == pytest.approx(
            float(moments.sigma_R), rel=1e-5
        )


def test_the_ball_is_integrated_exactly():
    x, weights = SURVEY.nodes()
    assert float(jnp.sum(weights)) == pytest.approx(4 / 3 * np.pi * 64, rel=1e-13)
    z = SURVEY.centre[2]
    second = 4 / 15 * np.pi * 4.0**5 + 4 / 3 * np.pi * 64 * z**2
    assert float(weights @ x[:, 2] ** 2) == pytest.approx(second, rel=1e-12)
    R2 = 8 / 15 * np.pi * 4.0**5 + 4 / 3 * np.pi * 64 * SURVEY.R**2
    assert float(weights @ (x[:, 0] ** 2 + x[:, 1] ** 2)) == pytest.approx(R2, rel=1e-12)


def test_the_mixture_is_normalised_in_the_ball(galaxy):
    """By points drawn evenly in the ball, and the share of each component at its own points."""
    rng = np.random.default_rng(4)
    step = rng.normal(size=(20_000, 3))
    step *= 4 * rng.random((20_000, 1)) ** (1 / 3) / np.linalg.norm(step, axis=1, keepdims=True)
    x = jnp.asarray(step + np.array(SURVEY.centre))
    n = np.exp(jax.jit(jax.vmap(galaxy.log_density))(x)) * 4 / 3 * np.pi * 64
    assert abs(n.mean() - 1) < 3.3 * n.std() / np.sqrt(len(n))
    assert n.std() / np.sqrt(len(n)) < 0.02


# Stars against f


def probes(x, v):
    """Smooth functions of stars (n, 22): bumps in R and z, and velocities with and without R."""
    R = np.hypot(x[:, 0], x[:, 1])
    v_R = (x[:, 0] * v[:, 0] + x[:, 1] * v[:, 1]) / R
    v_phi = (x[:, 1] * v[:, 0] - x[:, 0] * v[:, 1]) / R
    columns = places(R, x[:, 2])
    columns += [v_phi, v_phi * R, v_phi**2, v_R, v_R**2, v[:, 2], v[:, 2] ** 2, v[:, 2] ** 2 * R]
    return np.stack(columns, axis=-1)


def places(R, z):
    bumps = [np.exp(-((R - c) ** 2) / 0.5) for c in (4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5)]
    return bumps + [np.exp(-((z - c) ** 2) / 0.18) for c in (-1.5, -0.8, -0.3, 0.3, 0.8, 1.5)]


def expected(component):
    """Means of the probes over f in the ball, by quadrature."""
    x, weights = SURVEY.nodes()
    moments = jax.tree.map(np.asarray, all_moments(component, x))
    p = np.asarray(weights) * np.exp(moments.log_density - moments.log_density.max())
    R, z = np.hypot(x[:, 0], x[:, 1]), np.asarray(x[:, 2])
    v2, s2 = moments.v_phi**2 + moments.sigma_phi**2, moments.sigma_R**2
    columns = places(R, z)
    columns += [moments.v_phi, moments.v_phi * R, v2, 0 * R, s2, 0 * R, s2, s2 * R]
    return np.array([p @ column for column in columns]) / p.sum()


def agreement(x, v, truth):
    """p of Hotelling's test that stars have the means `truth` of the probes."""
    seen = probes(x, v)
    off = seen.mean(axis=0) - truth
    scale = seen.std(axis=0)
    covariance = np.cov((seen / scale).T) / len(seen)
    return stats.chi2.sf(off / scale @ np.linalg.solve(covariance, off / scale), len(truth))


@pytest.mark.parametrize("index", range(3), ids=COMPONENTS)
def test_stars_have_the_moments_of_f(galaxy, stars, index):
    mine = stars.component == index
    x, v = stars.x[mine], stars.v[mine]
    truth = expected(galaxy.components[index])
    assert agreement(x, v, truth) > P_PASS
    # what a factor R too much in dR dz would have drawn
    R = np.hypot(x[:, 0], x[:, 1])
    wrong = np.random.default_rng(0).random(len(R)) < R / R.max()
    assert agreement(x[wrong], v[wrong], truth) < P_FAIL


def test_velocities_have_the_scores_of_f(stars, scores):
    """Integrating by parts, <d ln f/d v> = 0 and <v d ln f/d v> = -1: no quadrature is needed.

    Each component is weighed by its posterior share, so that the identities hold one by one.
    """
    _, v, parts, _, by_v, _ = scores
    share = jax.nn.softmax(parts, axis=-1)[..., None]
    for values in (share * by_v, share * (v[:, None] * by_v + 1)):
        error = np.std(values, axis=0) / np.sqrt(len(v))
        assert (np.abs(np.mean(values, axis=0)) < 4.2 * error).all()  # nine numbers, once in 4000


def test_stars_are_shared_out_and_inside(stars):
    assert SURVEY.contains(stars.x).all()
    counts = np.bincount(stars.component)
    assert stats.chisquare(counts, N * np.array(list(SHARES.values()))).pvalue > P_PASS
    sun_like = (stars.component == 0) & (np.linalg.norm(stars.x - SURVEY.centre, axis=1) < 1.5)
    assert stars.v[sun_like, 1].mean() > 150  # rotation towards +y at negative x
    # the order is random: the first half has its share of each component
    half = np.bincount(stars.component[: N // 2])
    assert stats.chi2_contingency([half, counts - half]).pvalue > P_PASS


def test_a_survey_elsewhere_turns_with_it():
    """A ball at another azimuth, off the plane: stars there rotate the same way round."""
    ball = Ball((3.0, 6.0, -0.5), 2.0)
    disc = {"disc": COMPONENTS["thick"]}
    stars = disc_mocks.draw(4000, mix(disc, {"disc": 1.0}, ball), seed=2)
    assert ball.contains(stars.x).all()
    assert ((stars.x[:, 1] * stars.v[:, 0] - stars.x[:, 0] * stars.v[:, 1]) > 0).all()
    x, weights = ball.nodes()
    moments = all_moments(stars.galaxy.components[0], x)
    p = weights * jnp.exp(moments.log_density)
    R = np.hypot(stars.x[:, 0], stars.x[:, 1])
    for seen, value in ((R, jnp.hypot(x[:, 0], x[:, 1])), (stars.x[:, 2], x[:, 2])):
        off = seen.mean() - float(p @ value / p.sum())
        assert abs(off) < 3.9 * seen.std() / np.sqrt(len(seen))


def test_the_seed_decides(galaxy):
    one, same, other = (disc_mocks.draw(500, galaxy, seed) for seed in (3, 3, 4))
    for name in ("x", "v", "component"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.isclose(one.x[:, 0], other.x[:, 0]).any()


def test_an_envelope_that_is_too_low_is_noticed(galaxy, monkeypatch):
    monkeypatch.setattr(disc_mocks, "_MARGIN", -0.3)
    with pytest.raises(BayesdustError, match="'thin' is above the envelope"):
        disc_mocks.draw(100, galaxy)


@pytest.mark.slow
def test_the_default_milky_way_is_drawn():
    stars = disc_mocks.draw(20_000, seed=5)
    assert stars.galaxy.names == ("thin", "thick", "halo")
    for i in range(3):
        mine = stars.component == i
        truth = expected(stars.galaxy.components[i])
        assert agreement(stars.x[mine], stars.v[mine], truth) > P_PASS


WRONG = {
    "another share": (COMPONENTS, {"thin": 0.5, "thick": 0.5}, SURVEY, "give each its share"),
    "shares of 1.1": (COMPONENTS, SHARES | {"thin": 0.6}, SURVEY, "adding up to 1"),
    "on the axis": (COMPONENTS, SHARES, Ball((-3.0, 0.0, 0.0), 4.0), "must not reach it"),
    "cold": (
        {"ring": Disc(POTENTIAL, 2.5, sigma_0=3.0, R_sigma=8.0)},
        {"ring": 1.0},
        SURVEY,
        "'ring' is too cold",
    ),
    "two potentials": (
        {"thin": COMPONENTS["thin"], "halo": IsothermalHalo(POTENTIAL.parts[0], 130.0)},
        {"thin": 0.5, "halo": 0.5},
        SURVEY,
        "another potential",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_mixed_is_refused(case):
    components, fractions, ball, sentence = WRONG[case]
    with pytest.raises(BayesdustError, match=sentence):
        mix(components, fractions, ball)


def test_no_stars_are_refused(galaxy):
    with pytest.raises(BayesdustError, match="at least one"):
        disc_mocks.draw(0, galaxy)
