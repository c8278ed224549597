"""Dispersions on the sky: closed forms, independent quadrature, identities, exact mocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import check_accuracy
from independent import sigma_los as quadrature
from registry_examples import ANISOTROPY_EXAMPLES, HALO_EXAMPLES, TRACER_EXAMPLES, cases
from scipy.stats import ks_2samp

from bayesdust.anisotropy import BaesVanHese, Constant, Isotropic, OsipkovMerritt
from bayesdust.distribution import solve
from bayesdust.dynamics.jeans import FINE_STEP, JeansGrid, sigma_los, sigma_pm, sigma_r
from bayesdust.errors import BayesdustError
from bayesdust.mocks import BENCHMARK, draw_at, draw_from, velocities_at
from bayesdust.potentials import GNFW
from bayesdust.tracers import Plummer, ZhaoTracer

LIMIT = check_accuracy.LIMIT  # of sigma_los, whose matrices these are
R = np.array([0.003, 0.1, 0.5, 2.4])
HALO, TRACER = GNFW(6.4e7, 1.0, 0.7), Plummer(0.25)
ORBITS = [Isotropic(), Constant(-1.0), Constant(0.4), OsipkovMerritt(0.25)]
NAMES = ["isotropic", "tangential", "constant", "radial"]
N = 40_000


def three(radii, halo, tracer, anisotropy):
    """Dispersions (3, n) along the line of sight, away from the centre and across."""
    sky = sigma_pm(radii, halo, tracer, anisotropy)
    return np.array([sigma_los(radii, halo, tracer, anisotropy), *sky])


def test_isotropic_dispersions_are_one():
    away, outward, across = three(R, HALO, TRACER, Isotropic())
    np.testing.assert_allclose(outward, away, rtol=1e-12)
    np.testing.assert_allclose(across, away, rtol=1e-12)
    assert abs(np.diff(three(R, HALO, TRACER, Constant(0.3)), axis=0)).max() > 0.1  # km/s


@pytest.mark.parametrize("beta", [-2.0, 0.0, 0.5, 0.9])
def test_power_laws(beta):
    """nu ~ r^-5 and M ~ r: sigma_r is the same everywhere, and y = R^2/r^2 is 4/5 on average."""
    stars = ZhaoTracer(1e-4, 2.0, 5.0, 0.0)  # whose core is a hundredth of the innermost R
    flat = GNFW(1e3, 1e6, 2.0)  # ends far beyond the last star
    radii = np.array([0.01, 0.05, 0.2])
    circular = np.array([float(flat.circular_velocity(r)) for r in radii])
    sigma_r2 = circular**2 / (5 - 2 * beta)
    wanted = np.array([1 - 0.8 * beta, 1 - beta + 0.8 * beta, 1 - beta])[:, None] * sigma_r2
    # the core changes the mean y by (r_s/R)^2, the halo's end M by R/r_s
    np.testing.assert_allclose(three(radii, flat, stars, Constant(beta)) ** 2, wanted, rtol=3e-4)


def random_cases(count, seed):
    """Haloes, tracers and orbits at random; each kind of orbits in its turn."""
    rng = np.random.default_rng(seed)
    halos, tracers = cases(HALO_EXAMPLES), cases(TRACER_EXAMPLES)
    halos = [one for one in halos if one[0] != "corenfwtides"]  # of the kink: `test_jeans.py`
    kinds = list(ANISOTROPY_EXAMPLES)
    for i in range(count):
        kind = kinds[i % len(kinds)]
        yield (
            halos[rng.integers(len(halos))],
            tracers[rng.integers(len(tracers))],
            (kind, ANISOTROPY_EXAMPLES[kind][rng.integers(len(ANISOTROPY_EXAMPLES[kind]))]),
        )


def key(combination):
    return "-".join(name for name, _ in combination)


@pytest.mark.parametrize("combination", list(random_cases(8, 1)), ids=key)
def test_against_adaptive_quadrature(combination):
    parts = check_accuracy.build([n for n, _ in combination], [f for _, f in combination])
    radii = check_accuracy.SCALE * np.array([0.05, 0.6, 4.0])
    for component, found in zip(("outward", "across"), sigma_pm(radii, *parts), strict=True):
        wanted = [quadrature(float(x), *combination, component=component) for x in radii]
        np.testing.assert_allclose(found, wanted, rtol=LIMIT)


def test_the_grid_of_the_models_is_as_good():
    grid = JeansGrid.build(R, TRACER, floor=0.0)
    for orbits in (Constant(-1.0), OsipkovMerritt(0.3), BaesVanHese(-0.5, 0.6, 0.3, 2.0)):
        found = np.sqrt(grid.sky_variances(HALO, TRACER, orbits))
        np.testing.assert_allclose(found, sigma_pm(R, HALO, TRACER, orbits), rtol=LIMIT)


@pytest.mark.parametrize("anisotropy", [*ORBITS, BaesVanHese(-0.5, 0.6, 0.3, 2.0)])
def test_the_three_components_sum_to_the_square_of_the_speed(anisotropy):
    """Sigma sum sigma^2 = 2 int (3 - 2 beta) nu sigma_r^2 r dr/sqrt(r^2 - R^2), by a rule of its own."""
    w = 0.02 * np.arange(600)
    total = np.sum(three(R, HALO, TRACER, anisotropy) ** 2, axis=0)
    for radius, found in zip(R, total, strict=True):
        r = radius * np.cosh(w)
        square = (3 - 2 * anisotropy.beta(r)) * sigma_r(r, HALO, TRACER, anisotropy) ** 2
        values = np.asarray(square * TRACER.density(r) * r)
        wanted = 2 * np.trapezoid(values, dx=0.02) / float(TRACER.surface_density(radius))
        assert found == pytest.approx(wanted, rel=2 * LIMIT)  # of squares


def test_scale_and_the_stars_own_mass():
    by_angle = JeansGrid.build(R / 80.0, Plummer(0.25 / 80.0), floor=0.0, step=FINE_STEP)
    found = by_angle.sky_variances(HALO, TRACER, Constant(0.2), 80.0, 1e7)
    wanted = sigma_pm(R, HALO, TRACER, Constant(0.2), stellar_mass=1e7)
    np.testing.assert_allclose(np.sqrt(found), wanted, rtol=1e-10)
    assert (np.array(wanted) > np.array(sigma_pm(R, HALO, TRACER, Constant(0.2)))).all()


def test_gradients_are_finite_and_right():
    grid = JeansGrid.build(R, TRACER)

    def total(beta):
        return sum(jnp.sum(v) for v in grid.sky_variances(HALO, TRACER, Constant(beta)))

    slope, h = float(jax.grad(total)(-0.7)), 1e-4
    assert slope == pytest.approx(float((total(-0.7 + h) - total(-0.7 - h)) / (2 * h)), rel=1e-6)


def test_traced_radii_are_refused():
    with pytest.raises(BayesdustError, match="sigma_pm needs R and the tracer as numbers"):
        jax.jit(lambda x: sigma_pm(x, HALO, TRACER, Isotropic())[0])(R)


# Exact stars


def off(v, wanted):
    """Mean squares of v (3, n, N) less `wanted`^2 (3, n), in standard errors."""
    square = v**2
    return (square.mean(axis=-1) - wanted**2) / (square.std(axis=-1) / np.sqrt(v.shape[-1]))


@pytest.mark.parametrize("anisotropy", ORBITS, ids=NAMES)
def test_exact_stars_have_these_dispersions(anisotropy):
    """At three radii N stars each; the two components on the sky must not be taken for each other."""
    radii = np.array([0.1, 0.25, 0.8])
    galaxy = solve(*BENCHMARK._replace(anisotropy=anisotropy))
    v = velocities_at(galaxy, np.repeat(radii, N), 1).T.reshape(3, 3, N)
    wanted = three(radii, BENCHMARK.halo, BENCHMARK.tracer, anisotropy)
    assert abs(off(v, wanted)).max() < 5
    if not isinstance(anisotropy, Isotropic):
        assert abs(off(v, wanted[[0, 2, 1]])).max() > 5


def test_whole_galaxies_have_these_dispersions():
    """Of whole galaxies drawn without any R in mind, and of two thirds of beta: rejected."""
    anisotropy = Constant(-1.0)
    phase = draw_from(solve(*BENCHMARK._replace(anisotropy=anisotropy)), N, seed=4)
    x, y = phase.x[:, 0], phase.x[:, 1]
    radius = np.hypot(x, y)
    out = (x * phase.v[:, 0] + y * phase.v[:, 1]) / radius
    side = (x * phase.v[:, 1] - y * phase.v[:, 0]) / radius
    grid = JeansGrid.build(radius, BENCHMARK.tracer)

    def z(orbits):
        """Sums over all stars of v^2/sigma^2 - 1, over their errors."""
        sigma2 = grid.sky_variances(BENCHMARK.halo, BENCHMARK.tracer, orbits)
        scaled = np.array([out**2 / sigma2[0], side**2 / sigma2[1]])
        return (scaled.mean(axis=1) - 1) / (scaled.std(axis=1) / np.sqrt(N))

    assert abs(z(anisotropy)).max() < 4.5
    assert abs(z(Constant(-0.67))).max() > 4.5


def test_the_three_velocities_are_of_one_star():
    """v_los is that of `draw_at`; no two components share a sign; speeds as of a whole galaxy."""
    galaxy = solve(*BENCHMARK._replace(anisotropy=Constant(-1.0)))
    radii = np.full(20_000, 0.3)
    v = velocities_at(galaxy, radii, seed=2)
    np.testing.assert_array_equal(v[:, 0], draw_at(galaxy, radii, seed=2))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        product = v[:, i] * v[:, j]
        assert abs(product.mean()) < 4.5 * product.std() / np.sqrt(len(v))

    whole = draw_from(galaxy, 400_000, seed=3)
    there = abs(np.hypot(whole.x[:, 0], whole.x[:, 1]) - 0.3) < 0.02
    speed = np.linalg.norm(whole.v[there], axis=1)
    assert ks_2samp(np.linalg.norm(v, axis=1), speed).pvalue > 1e-4
    rng = np.random.default_rng(0)
    apart = np.stack([rng.permutation(column) for column in v.T], axis=1)
    assert ks_2samp(np.linalg.norm(apart, axis=1), speed).pvalue < 1e-4
