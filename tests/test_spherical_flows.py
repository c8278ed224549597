"""Equivariant flows: the laws that hold for each of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.anisotropy import Constant, Isotropic, OsipkovMerritt
from bayesdust.flows.spherical import (
    STEPS,
    CoredField,
    NetworkField,
    RadialFlow,
    RadialPower,
    RampField,
    spherical_flow,
    stretch,
    tanhc,
    velocity_flow,
)

KEY = jax.random.key(3)
RAMPS = jnp.array([-0.3, 0.2, -0.1, 0.15, 0.1, -0.2])
FIELDS = {
    "network": NetworkField(KEY),
    "cored": CoredField(NetworkField(KEY), 0.7),
    "ramps": RampField(RAMPS),
}
# None: the flow without a radial power
CASES = [
    ("network", None),
    ("network", 1.5),
    ("cored", None),
    ("ramps", None),
    ("ramps", 0.5),
    ("cored", 1.0),
]


def flow(name, gamma, scale=0.3):
    return spherical_flow(FIELDS[name], scale, gamma)


def points(n=6, size=0.4, seed=0):
    """Points at many distances from the centre."""
    x = jax.random.normal(jax.random.key(seed), (n, 3))
    return x * size * jnp.geomspace(1e-3, 20, n)[:, None] / jnp.linalg.norm(x, axis=1)[:, None]


@pytest.mark.parametrize(("name", "gamma"), CASES)
def test_log_det_is_that_of_the_jacobian(name, gamma):
    bijection = flow(name, gamma).bijection

    def both(z):
        _, log_det = bijection.transform_and_log_det(z)
        return log_det, jnp.linalg.slogdet(jax.jacfwd(bijection.transform)(z))[1]

    got, expected = jax.jit(jax.vmap(both))(points(size=1.0))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "gamma"), CASES)
def test_there_and_back(name, gamma):
    bijection = flow(name, gamma).bijection
    z = points(size=1.0)
    x, forward = jax.jit(jax.vmap(bijection.transform_and_log_det))(z)
    again, backward = jax.jit(jax.vmap(bijection.inverse_and_log_det))(x)
    np.testing.assert_allclose(again, z, rtol=1e-9)
    np.testing.assert_allclose(backward, -forward, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "gamma"), CASES)
def test_rotations_change_nothing(name, gamma):
    distribution = flow(name, gamma)
    rotation, _ = jnp.linalg.qr(jax.random.normal(KEY, (3, 3)))
    x = points()
    ln_n = jax.jit(jax.vmap(distribution.log_prob))
    np.testing.assert_allclose(ln_n(x @ rotation.T), ln_n(x), rtol=1e-10, atol=1e-10)
    z = points(size=1.0)
    moved = jax.jit(jax.vmap(distribution.bijection.transform))
    np.testing.assert_allclose(moved(z @ rotation.T), moved(z) @ rotation.T, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("name", "gamma"), CASES)
def test_it_is_normalised(name, gamma):
    """4 pi int n r^2 dr by the trapezoidal rule in ln r, spectral for a smooth density."""
    distribution = flow(name, gamma)
    ln_r = np.linspace(np.log(1e-6), np.log(1e5), 3000)
    x = np.exp(ln_r)[:, None] * np.array([0.0, 0.6, 0.8])
    n = np.exp(jax.jit(jax.vmap(distribution.log_prob))(x))
    total = 4 * np.pi * np.sum(n * np.exp(3 * ln_r)) * (ln_r[1] - ln_r[0])
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("name", "gamma"), CASES)
def test_the_inner_slope_is_the_one_asked_for(name, gamma):
    """At 1e-4 of the scale, in float64."""
    distribution = flow(name, gamma)

    def ln_n(ln_r):
        return distribution.log_prob(0.3 * jnp.exp(ln_r) * jnp.array([0.6, 0.0, 0.8]))

    slope = jax.jit(jax.grad(ln_n))(jnp.log(1e-4))
    assert float(slope) == pytest.approx(-(gamma or 0.0), abs=0.01)


def test_a_field_with_a_push_at_the_centre_is_no_cored_flow():
    """dx/dt = r_hat f with f(0) != 0, in this notation g = f/r, tears a hole: the law above sees it."""
    torn = RadialFlow(lambda s, t: 0.5 / jnp.sqrt(s + 1e-12), steps=64)
    inmost = jax.vmap(torn.transform)(points(size=1e-3))
    assert float(jnp.min(jnp.linalg.norm(inmost, axis=1))) > 0.4  # nothing is left inside


@pytest.mark.parametrize("name", FIELDS)
def test_steps_converge_at_fourth_order(name):
    """Half the step, 2^4 = 16 times less error: third order would give 8, fifth 32."""
    for s in (0.3, 2.0, 30.0):
        fine = stretch(FIELDS[name], jnp.asarray(s), True, 256)[0]
        of_steps = (stretch(FIELDS[name], jnp.asarray(s), True, n)[0] for n in (4, 8))
        errors = [abs(float(D - fine)) for D in of_steps]
        assert errors[0] / errors[1] == pytest.approx(16, rel=0.1)
        assert errors[1] < 1e-6


def test_too_coarse_steps_are_no_map_and_more_steps_mend_it():
    """A violent field folds space in 8 steps, where ln|det| says so; its true orbits never cross."""
    radii = jnp.geomspace(0.05, 20, 100)[:, None] * jnp.array([0.0, 0.6, 0.8])

    def violent(s, t):
        return 10 * jnp.sin(jnp.log1p(s)) * jnp.cos(3 * t)

    coarse, fine = RadialFlow(violent, 8), RadialFlow(violent, 64)
    assert np.isnan(jax.vmap(coarse.transform_and_log_det)(radii)[1]).any()
    moved, log_det = jax.vmap(fine.transform_and_log_det)(radii)
    assert np.isfinite(log_det).all()
    np.testing.assert_allclose(jax.vmap(fine.inverse)(moved), radii, rtol=1e-6)


def test_against_diffrax():
    """An independent solver of the plain equation dx/dt = x g, with the divergence integrated along."""
    diffrax = pytest.importorskip("diffrax")
    field = FIELDS["network"]

    def rate(t, state, _):
        x = state[:3]
        move = lambda x: x * field(x @ x, jnp.asarray(t))  # noqa: E731
        return jnp.append(move(x), jnp.trace(jax.jacfwd(move)(x)))

    x = jnp.array([0.3, -0.5, 0.8])
    control = diffrax.PIDController(rtol=1e-10, atol=1e-12)
    term, solver = diffrax.ODETerm(rate), diffrax.Dopri8()
    end = diffrax.diffeqsolve(
        term, solver, 0.0, 1.0, 0.1, jnp.append(x, 0.0), stepsize_controller=control
    ).ys[0]
    y, log_det = RadialFlow(field, 64).transform_and_log_det(x)
    np.testing.assert_allclose(y, end[:3], rtol=1e-8)
    np.testing.assert_allclose(log_det, end[3], rtol=1e-6)
    rough, _ = RadialFlow(field, STEPS).transform_and_log_det(x)
    np.testing.assert_allclose(rough, end[:3], rtol=1e-5)


def test_series_near_the_centre():
    x = jnp.array([0.0, 1e-8, 1e-3, 0.0547, 0.0548, 0.3, 5.0])
    expected = np.where(x > 0, np.tanh(x) / np.where(x > 0, x, 1), 1.0)
    np.testing.assert_allclose(tanhc(x**2), expected, rtol=1e-14)
    assert np.isfinite(jax.grad(tanhc)(jnp.asarray(0.0)))


def test_the_power_alone():
    """Of a normal law: slope 3 c/(1 + c) and a stretched exponential outside."""
    bijection = RadialPower(0.5)
    z = jnp.array([0.0, 0.0, 1.7])
    y, log_det = bijection.transform_and_log_det(z)
    assert float(y[2]) == pytest.approx(1.7**1.5)
    assert float(log_det) == pytest.approx(np.log(1.5) + 1.5 * np.log(1.7))


def test_the_density_at_the_centre():
    """A cusp of slope 0 is a core, there and in its gradients; a steeper one is infinite, a hole empty."""
    centre = jnp.zeros(3)
    core = flow("network", None)
    flat = flow("network", 0.0)
    assert float(flat.log_prob(centre)) == pytest.approx(float(core.log_prob(centre)), rel=1e-12)
    np.testing.assert_array_equal(flat.bijection.transform(centre), centre)
    assert np.isfinite(jax.grad(flat.log_prob)(centre)).all()
    of_weights = eqx.filter_grad(lambda d: d.log_prob(centre))
    leaves = jax.tree.leaves(eqx.filter(of_weights(flat), eqx.is_inexact_array))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert flow("network", 1.0).log_prob(centre) == jnp.inf
    assert flow("network", -0.5).log_prob(centre) == -jnp.inf


def test_velocities_at_the_centre():
    """The limit from near by where orbits become isotropic; no law where they do not."""
    field, v, centre = (
        NetworkField(KEY, conditional=True),
        jnp.array([3.0, -5.0, 9.0]),
        jnp.zeros(3),
    )
    near = jnp.array([1e-7, 0.0, 0.0])
    for anisotropy in (Isotropic(), Constant(0.0), OsipkovMerritt(0.3)):
        p = velocity_flow(field, anisotropy, 8.0)
        assert float(p.log_prob(v, centre)) == pytest.approx(float(p.log_prob(v, near)), rel=1e-9)
        assert np.isfinite(jax.grad(p.log_prob)(v, centre)).all()
    isotropic = velocity_flow(field, Isotropic(), 8.0)
    assert np.isfinite(jax.grad(isotropic.log_prob, argnums=1)(v, centre)).all()
    assert velocity_flow(field, Constant(0.3), 8.0).log_prob(v, centre) == -jnp.inf


@pytest.mark.parametrize(
    "anisotropy", [Constant(-0.5), Constant(0.4), OsipkovMerritt(0.3)], ids=repr
)
def test_velocities_have_the_anisotropy_asked_for(anisotropy):
    distribution = velocity_flow(NetworkField(KEY, conditional=True), anisotropy, 8.0)
    place = jnp.array([0.1, -0.25, 0.2])
    v = distribution.sample(KEY, (20_000,), condition=place)
    radial = v @ place / jnp.linalg.norm(place)
    tangential = (jnp.sum(v**2, axis=1) - radial**2) / 2
    beta = 1 - tangential.mean() / (radial**2).mean()
    expected = float(anisotropy.beta(jnp.linalg.norm(place)))
    # both variances have a relative error of about sqrt(2/n) and sqrt(1/n), tails heavier than normal
    assert float(beta) == pytest.approx(expected, abs=5 * np.sqrt(4 / len(v)) * (1 - expected))
    # both tangential directions alike, and nothing tilted towards them
    one = jnp.cross(place, jnp.array([0.0, 0.0, 1.0]))
    axes = jnp.stack([place, one, jnp.cross(place, one)])
    correlation = jnp.corrcoef((v @ axes.T).T)
    np.testing.assert_allclose(correlation, np.eye(3), atol=5 / np.sqrt(len(v)))
    _, first, second = jnp.var(v @ (axes / jnp.linalg.norm(axes, axis=1)[:, None]).T, axis=0)
    assert float(first / second) == pytest.approx(1, abs=5 * np.sqrt(4 / len(v)))


@pytest.mark.parametrize("anisotropy", [Isotropic(), Constant(-0.5), OsipkovMerritt(0.3)], ids=repr)
def test_rotating_place_and_velocity_changes_nothing(anisotropy):
    """p(Qv | Qx) = p(v | x); turning the velocity alone changes it unless the orbits are isotropic."""
    distribution = velocity_flow(NetworkField(KEY, conditional=True), anisotropy, 8.0)
    rotation, _ = jnp.linalg.qr(jax.random.normal(KEY, (3, 3)))
    v, places = points(size=10.0), points(seed=1)
    ln_p = jax.vmap(distribution.log_prob)
    turned = ln_p(v @ rotation.T, places @ rotation.T)
    np.testing.assert_allclose(turned, ln_p(v, places), rtol=1e-9)
    alone = np.abs(ln_p(v @ rotation.T, places) - ln_p(v, places)).max()
    assert alone < 1e-8 if isinstance(anisotropy, Isotropic) else alone > 0.01
    z = points(size=1.0)
    moved = jax.vmap(distribution.bijection.transform)
    together = moved(z @ rotation.T, places @ rotation.T)
    np.testing.assert_allclose(together, moved(z, places) @ rotation.T, rtol=1e-9, atol=1e-12)


def test_velocities_are_a_density():
    """The laws with a condition: log-det, inverse, normalisation by importance sampling."""
    distribution = velocity_flow(NetworkField(KEY, conditional=True), OsipkovMerritt(0.3), 8.0)
    place = jnp.array([0.1, -0.25, 0.2])
    bijection = distribution.bijection
    z = points(size=1.0)
    v, log_det = jax.vmap(lambda z: bijection.transform_and_log_det(z, place))(z)
    jacobian = jax.vmap(jax.jacfwd(lambda z: bijection.transform(z, place)))(z)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-10, atol=1e-10)
    back = jax.vmap(lambda v: bijection.inverse(v, place))(v)
    np.testing.assert_allclose(back, z, rtol=1e-9)
    scale = 1.5 * jnp.std(distribution.sample(KEY, (1000,), condition=place))
    wide = scale * jax.random.t(KEY, 4.0, (40_000, 3))
    ln_q = jnp.sum(jax.scipy.stats.t.logpdf(wide / scale, 4.0) - jnp.log(scale), axis=1)
    ratio = jnp.exp(jax.vmap(lambda v: distribution.log_prob(v, place))(wide) - ln_q)
    error = float(ratio.std()) / np.sqrt(len(wide))
    assert float(ratio.mean()) == pytest.approx(1, abs=5 * error)
    assert error < 0.02


def test_it_trains_like_any_flowjax_distribution():
    """A gradient reaches every weight."""
    distribution = flow("network", 1.0)
    loss = eqx.filter_grad(lambda d: -jnp.mean(jax.vmap(d.log_prob)(points())))
    leaves = jax.tree.leaves(eqx.filter(loss(distribution), eqx.is_inexact_array))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any((leaf != 0).any() for leaf in leaves)
