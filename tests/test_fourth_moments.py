"""The kurtosis of line-of-sight velocities against closed forms and exact mocks, and the law that has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gamma
from scipy.stats import ks_2samp, norm

from bayesdust.anisotropy import (
    ANISOTROPIES,
    BaesVanHese,
    Constant,
    Isotropic,
    OsipkovMerritt,
)
from bayesdust.demo import request
from bayesdust.distribution import solve
from bayesdust.dynamics import velocity_law
from bayesdust.dynamics.jeans import FINE_STEP, JeansGrid
from bayesdust.inference import dwarf
from bayesdust.inference.programs import load
from bayesdust.mocks import BENCHMARK, draw_at, draw_from
from bayesdust.potentials import NFW
from bayesdust.tracers import Plummer

RADII = np.array([0.1, 0.25, 0.8])
ORBITS = [Isotropic(), OsipkovMerritt(0.25), Constant(-1.0), Constant(0.4)]
NAMES = ["isotropic", "radial", "tangential", "constant"]
N = 40_000


def moments(R, anisotropy):
    grid = JeansGrid.build(R, BENCHMARK.tracer, floor=0.0, step=FINE_STEP)
    found = grid.variance_and_kurtosis(BENCHMARK.halo, BENCHMARK.tracer, anisotropy)
    return [np.asarray(part) for part in found]


def test_a_plummer_sphere_of_its_own_gravity():
    """f ~ Q^(7/2): v^2 over the escape speed's square is Beta(3/2, 9/2), and the kurtosis is one number."""

    def column(k):  # int (1 + z^2)^-k dz, of places with 1 + R^2 = 1
        return np.sqrt(np.pi) * gamma(k - 0.5) / gamma(k)

    square, fourth = 1.5 / 6, 1.5 * 2.5 / (6 * 7)
    second = 2 * square / 3 * column(3) / column(2.5)
    wanted = 4 * fourth / 5 * column(3.5) / column(2.5) / second**2
    nothing = NFW(1e-12, 1.0)
    grid = JeansGrid.build(np.geomspace(0.02, 3.0, 12), Plummer(0.5), floor=0.0, step=FINE_STEP)
    _, kurtosis = grid.variance_and_kurtosis(nothing, Plummer(0.5), Isotropic(), 1.0, 1e7)
    np.testing.assert_allclose(kurtosis, wanted, rtol=2e-4)  # sigma_los to 1e-4
    assert wanted < 2.8


@pytest.mark.parametrize("anisotropy", ORBITS, ids=NAMES)
def test_the_fourth_moment_of_exact_stars(anisotropy):
    """At three radii, N stars each; that of isotropic orbits is rejected."""
    galaxy = solve(BENCHMARK.halo, BENCHMARK.tracer, anisotropy)
    v = draw_at(galaxy, np.repeat(RADII, N), 1).reshape(3, N)

    def off(orbits):
        """Errors of the second and fourth moments, in standard errors, (2, 3)."""
        variance, kurtosis = moments(RADII, orbits)
        return np.array(
            [
                (np.mean(v**power, axis=1) - wanted) / (np.std(v**power, axis=1) / np.sqrt(N))
                for power, wanted in ((2, variance), (4, kurtosis * variance**2))
            ]
        )

    assert abs(off(anisotropy)).max() < 5
    if not isinstance(anisotropy, Isotropic):
        assert abs(off(Isotropic())[1]).max() > 5


def test_the_turn_of_beta_matters():
    """Osipkov-Merritt outside r_a, where beta' is largest: constant beta of the same value is rejected."""
    anisotropy, R = OsipkovMerritt(0.25), np.array([0.3])
    v = draw_at(solve(BENCHMARK.halo, BENCHMARK.tracer, anisotropy), np.full(2 * N, R[0]), 5)
    error = np.std(v**4) / np.sqrt(len(v))
    variance, kurtosis = moments(R, anisotropy)
    assert abs(np.mean(v**4) - (kurtosis * variance**2)[0]) < 5 * error

    class Still(OsipkovMerritt):
        def beta_slope(self, r):
            return jnp.zeros_like(r)

    variance, kurtosis = moments(R, Still(0.25))
    assert abs(np.mean(v**4) - (kurtosis * variance**2)[0]) > 5 * error


def test_stars_drawn_at_their_radii_are_those_of_the_galaxy():
    galaxy = solve(BENCHMARK.halo, BENCHMARK.tracer, OsipkovMerritt(0.25))
    whole = draw_from(galaxy, 20_000, seed=1)
    R = np.hypot(whole.x[:, 0], whole.x[:, 1])
    v = draw_at(galaxy, R, seed=2)
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, np.inf)):
        there = (low <= R) & (high > R)
        assert ks_2samp(v[there], whole.v[there, 2]).pvalue > 1e-4
    assert ks_2samp(draw_at(galaxy, np.full(20_000, 0.05), 3), whole.v[:, 2]).pvalue < 1e-4
    np.testing.assert_array_equal(v, draw_at(galaxy, R, seed=2))


def test_special_cases_of_the_general_anisotropy():
    for general, special in (
        (BaesVanHese(0.0, 1.0, 0.25, 2.0), OsipkovMerritt(0.25)),
        (BaesVanHese(0.3, 0.3, 0.25, 2.0), Constant(0.3)),
    ):
        np.testing.assert_allclose(moments(RADII, general)[1], moments(RADII, special)[1])


@pytest.mark.parametrize("name", list(ANISOTROPIES))
def test_the_slope_of_beta(name):
    kind = {
        "isotropic": Isotropic(),
        "constant": Constant(-0.4),
        "osipkov_merritt": OsipkovMerritt(0.3),
        "baes_van_hese": BaesVanHese(-0.3, 0.6, 0.3, 2.5),
    }[name]
    r, h = np.array([0.05, 0.3, 2.0]), 1e-5
    wanted = (kind.beta(r * np.exp(h)) - kind.beta(r * np.exp(-h))) / (2 * h)
    np.testing.assert_allclose(kind.beta_slope(r), wanted, atol=1e-9)


@pytest.mark.parametrize("kurtosis", [2.2, 2.5, 3.0, 3.01, 4.0, 6.0])
def test_the_law_has_its_moments(kurtosis):
    p = np.asarray(velocity_law.shares(jnp.array([kurtosis])))[0]
    mean, variance = velocity_law.OFFSETS, velocity_law.VARIANCES
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1)
    assert p @ (mean**2 + variance) == pytest.approx(1)
    fourth = p @ (mean**4 + 6 * mean**2 * variance + 3 * variance**2)
    assert fourth == pytest.approx(kurtosis)


def test_beyond_its_kurtoses_the_law_stays_what_it_is():
    p = velocity_law.shares(jnp.array([1.5, 2.2, 6.0, 20.0]))
    np.testing.assert_allclose(p[0], p[1])
    np.testing.assert_allclose(p[2], p[3])


def test_the_flat_law_is_a_smeared_uniform_one():
    """To what the six points of the rule leave, 2 % of its height."""
    v = np.linspace(-3, 3, 301)
    mean, sd = velocity_law.OFFSETS[3:], np.sqrt(velocity_law.VARIANCES[3])
    p = np.asarray(velocity_law.shares(jnp.array([2.2])))[0, 3:]
    half = mean.max() / np.polynomial.legendre.leggauss(6)[0].max()
    wanted = (norm.cdf((v + half) / sd) - norm.cdf((v - half) / sd)) / (2 * half)
    found = norm.pdf(v[:, None], mean, sd) @ p
    assert abs(found - wanted).max() < 0.02 * wanted.max()


def test_a_model_with_kurtosis_knows_orbits_better():
    """The mean ln likelihood of exact stars gains by it at the truth, and errors are smeared in."""
    stars = request(n=200).stars
    program = load("dsph_gnfw")
    data = program.prepare(stars, {"velocities": "kurtosis"})
    assert program.prepare(stars, {}).options["velocities"] == "gaussian"
    sources = BENCHMARK.halo, BENCHMARK.tracer, Constant(-1.0), 80.0
    variance, kurtosis = dwarf.velocity_moments(data, *sources)
    offsets = jnp.sqrt(variance)[:, None] * velocity_law.OFFSETS
    variances = variance[:, None] * velocity_law.VARIANCES
    law = dwarf.line_of_sight_velocities(
        data, jnp.zeros(()), velocity_law.shares(kurtosis), variances, offsets
    )
    v = draw_at(
        solve(BENCHMARK.halo, BENCHMARK.tracer, Constant(-1.0)),
        np.tile(stars.theta * 80.0, 200),
        seed=9,
    ).reshape(200, -1)
    v = v + data.v_los_err * np.random.default_rng(9).normal(size=v.shape)
    plain = norm.logpdf(v, 0, np.sqrt(variance + data.v_los_err**2))
    gain = np.asarray(jax.vmap(law.log_prob)(v)) - plain
    assert gain.mean() > 5 * gain.std() / np.sqrt(gain.size)
    draws = law.sample(jax.random.PRNGKey(1), (4000,))
    spread = np.asarray(variance + data.v_los_err**2)
    error = np.sqrt(2 / 4000)
    assert np.all(abs(np.var(draws, axis=0) / spread - 1) < 6 * error)
