"""sigma_r and sigma_los: accuracy against independent quadrature, laws, gradients, limits.

The whole grid of parameters is `make check-accuracy`; here a seeded sample of it goes through the
same code.
"""

import independent
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import check_accuracy
from registry_examples import combinations
from scipy import integrate

from bayesdust.anisotropy import (
    BaesVanHese,
    Constant,
    Isotropic,
    OsipkovMerritt,
    from_symmetrised,
)
from bayesdust.dynamics.jeans import JeansGrid, sigma_los, sigma_r
from bayesdust.errors import BayesdustError
from bayesdust.potentials.halos import GNFW, HALOS, NFW
from bayesdust.tracers import Exponential, Plummer, PlummerSum, ZhaoTracer
from bayesdust.units import G

LIMIT = check_accuracy.LIMIT
R_SAMPLE = check_accuracy.SCALE * np.array([0.01, 0.3, 1.7, 8.0])
COMBINATIONS = list(combinations())
SCALE = check_accuracy.SCALE

# data/README.md: Plummer tracer of 0.25 kpc in the cusp halo, by adaptive quadrature
README_RADII = np.array([0.02, 0.05, 0.1, 0.25, 0.5, 1, 2])
README_SIGMA = {
    Isotropic(): [12.72793, 12.3417, 11.76665, 11.19538, 11.56292, 12.14614, 12.1353],
    OsipkovMerritt(0.25): [15.80156, 15.26393, 14.1477, 11.31853, 9.10777, 7.79529, 7.00625],
}


def key(combination):
    return "-".join(name for name, _ in combination)


def sample(count, seed=0):
    """Combinations at random, every entry of every registry once when `count` allows it."""
    order = np.random.default_rng(seed).permutation(len(COMBINATIONS))
    chosen, seen = [], set()
    for fresh in (True, False):  # first those with something new in them, then any
        for i in order:
            kinds = {(place, spec[0]) for place, spec in enumerate(COMBINATIONS[i])}
            if len(chosen) < count and i not in chosen and (not fresh or kinds - seen):
                chosen.append(i)
                seen |= kinds
    return [pytest.param(COMBINATIONS[i], id=key(COMBINATIONS[i])) for i in chosen]


def make(combination):
    return check_accuracy.build([n for n, _ in combination], [f for _, f in combination])


@pytest.mark.parametrize("anisotropy", README_SIGMA, ids=repr)
def test_the_reference_dispersions(anisotropy):
    got = sigma_los(README_RADII, NFW(6.4e7, 1.0), Plummer(0.25), anisotropy)
    np.testing.assert_allclose(got, README_SIGMA[anisotropy], rtol=1e-6)


@pytest.mark.parametrize("anisotropy", README_SIGMA, ids=repr)
def test_the_yardstick_gives_the_reference_dispersions(anisotropy):
    spec = ("isotropic", {}) if anisotropy == Isotropic() else ("osipkov_merritt", {"r_a": 0.25})
    halo, tracer = ("nfw", {"rho_s": 6.4e7, "r_s": 1.0}), ("plummer", {"a": 0.25})
    got = [independent.sigma_los(R, halo, tracer, spec) for R in README_RADII]
    np.testing.assert_allclose(got, README_SIGMA[anisotropy], rtol=1e-6)


def test_the_accuracy_on_a_sample_of_the_grid():
    """The code of `make check-accuracy` on a seeded corner of its grid."""
    full, rng = check_accuracy.Grid(), np.random.default_rng(1)
    pick = lambda specs, n: [specs[i] for i in rng.choice(len(specs), n, replace=False)]  # noqa: E731
    halos = [pick([s for s in full.halos if s[0] == name], 1)[0] for name in ("gnfw", "zhao")]
    grid = check_accuracy.Grid(
        halos=halos,
        tracers=pick([s for s in full.tracers if s[0] == "zhao"], 1),
        anisotropies=pick([s for s in full.anisotropies if s[0] == "constant"], 3),
        radii=full.radii[::4],
    )
    worst = check_accuracy.errors_of_tracer(grid, 0, check_accuracy.references(grid))
    assert len(worst) == 2
    for name, row in worst.items():
        assert row["error"] < LIMIT, (name, row)


@pytest.mark.parametrize("combination", sample(9))
def test_sigma_los_against_quadrature_in_the_other_order(combination):
    R = R_SAMPLE
    halo, tracer, anisotropy = make(combination)
    got = JeansGrid.build(R, tracer, floor=0.0).variance(halo, tracer, anisotropy) ** 0.5
    expected = [independent.sigma_los(float(x), *combination) for x in R]
    np.testing.assert_allclose(got, expected, rtol=LIMIT)


@pytest.mark.parametrize("combination", sample(3, seed=3))
def test_a_wrong_projection_is_seen(combination):
    """Leaving beta R^2/r^2 out moves sigma_los by far more than the tolerance of the test above."""
    spec = ("constant", {"beta_0": 0.4})
    wrong = independent.sigma_los(0.25, *combination[:2], spec, component="unprojected")
    right = independent.sigma_los(0.25, *combination[:2], spec)
    assert abs(wrong / right - 1) > 1000 * LIMIT


@pytest.mark.parametrize("combination", sample(12, seed=2))
def test_jeans_equation(combination):
    """d(nu sigma_r^2)/dr + 2 beta nu sigma_r^2/r = -nu G M/r^2."""
    # the kink of coreNFWtides at its tidal radius costs the fixed nodes of sigma_r digits
    limit = 1e-3 if combination[0][0] == "corenfwtides" else 1e-6
    assert check_accuracy.jeans_residual(combination) < limit


@pytest.mark.parametrize("combination", sample(2, seed=5))
def test_the_grid_projects_sigma_r(combination):
    """The two routes of the package, pointwise integral and matrices, agree."""
    halo, tracer, anisotropy = make(combination)
    R = R_SAMPLE[1]
    w = 0.05 * np.arange(100)  # a Sersic profile has nothing left beyond
    r = R * np.cosh(w)
    p = tracer.density(r) * sigma_r(r, halo, tracer, anisotropy) ** 2
    seen = 1 - anisotropy.beta(r) / np.cosh(w) ** 2
    variance = 2 * integrate.trapezoid(seen * p * r, dx=0.05) / tracer.surface_density(R)
    got = JeansGrid.build(R_SAMPLE, tracer).variance(halo, tracer, anisotropy)
    assert float(got[1]) == pytest.approx(float(variance), rel=2 * LIMIT)


@pytest.mark.parametrize("combination", sample(2, seed=7))
def test_gradients(combination):
    """In every parameter: reverse mode against finite differences and against forward mode."""
    errors = check_accuracy.gradient_errors(combination, R_SAMPLE, compiled=True)
    assert errors["finite_differences"] < 1e-6
    assert errors["forward"] < 1e-10


def test_gradients_against_differences_of_the_yardstick():
    """The derivative itself is right, not only that of our approximation."""
    R, h = R_SAMPLE[1], 1e-3
    grid = JeansGrid.build(R_SAMPLE, Plummer(0.25))

    def ours(gamma, r_s, beta):
        return jnp.sqrt(grid.variance(GNFW(6.4e7, r_s, gamma), Plummer(0.25), Constant(beta))[1])

    def theirs(gamma, r_s, beta):
        halo = ("gnfw", {"rho_s": 6.4e7, "r_s": r_s, "gamma": gamma})
        return independent.sigma_los(
            R, halo, ("plummer", {"a": 0.25}), ("constant", {"beta_0": beta})
        )

    point = np.array([0.8, 1.0, 0.3])
    for i, slope in enumerate(jax.grad(ours, (0, 1, 2))(*point)):
        step = h * np.eye(3)[i]
        difference = (theirs(*(point + step)) - theirs(*(point - step))) / (2 * h)
        assert float(slope) == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize(
    "wanted", [("nfw", "plummer", "constant"), ("burkert", "zhao", "isotropic")]
)
def test_galpy_agrees(wanted):
    combination = next(c for c in COMBINATIONS if tuple(n for n, _ in c) == wanted)
    assert abs(check_accuracy.galpy_difference(combination, check_accuracy.RADII[7])) < LIMIT


R_SOME = R_SAMPLE  # one shape all through: each new one compiles anew
HALO = GNFW(6.4e7, 1.0, 0.7)
TRACER = Plummer(0.25)


@pytest.mark.parametrize(
    ("general", "special"),
    [
        (BaesVanHese(0.0, 1.0, 0.3, 2.0), OsipkovMerritt(0.3)),
        (BaesVanHese(0.4, 0.4, 0.3, 1.7), Constant(0.4)),
        (Constant(0.0), Isotropic()),
        (OsipkovMerritt(1e5), Isotropic()),
    ],
    ids=repr,
)
def test_limits_of_the_anisotropy(general, special):
    for function, rtol in ((sigma_los, 1e-8), (sigma_r, 1e-8)):
        a, b = (function(R_SOME, HALO, TRACER, x) for x in (general, special))
        np.testing.assert_allclose(a, b, rtol=rtol)


def test_scaling_laws():
    grid = JeansGrid.build(R_SOME, TRACER)
    beta = OsipkovMerritt(0.4)
    variance = grid.variance(HALO, TRACER, beta)
    # mass -> sigma^2
    heavy = grid.variance(GNFW(3 * 6.4e7, 1.0, 0.7), TRACER, beta)
    np.testing.assert_allclose(heavy, 3 * variance, rtol=1e-12)
    # all lengths k times longer at the same density -> sigma^2 k^2 times larger
    k = 2.5
    big = grid.variance(GNFW(6.4e7, k, 0.7), Plummer(0.25 * k), OsipkovMerritt(0.4 * k), scale=k)
    np.testing.assert_allclose(big, k**2 * variance, rtol=1e-12)


def test_scale_is_a_change_of_units():
    """Radii in angles times a distance are radii in kpc; and the distance can be differentiated."""
    distance = 80.0
    by_angle = JeansGrid.build(R_SOME / distance, Plummer(0.25 / distance))
    a = by_angle.variance(HALO, TRACER, Constant(0.2), scale=distance)
    b = JeansGrid.build(R_SOME, TRACER).variance(HALO, TRACER, Constant(0.2))
    np.testing.assert_allclose(a, b, rtol=1e-10)

    def at(d):
        return by_angle.variance(HALO, TRACER, Constant(0.2), scale=d)

    slope, h = jax.jacfwd(at)(distance), 1e-3
    np.testing.assert_allclose(slope, (at(distance + h) - at(distance - h)) / (2 * h), rtol=1e-6)


def test_the_stars_own_mass():
    """A halo plus the stars' mass is what a halo of the stars' own profile would add."""
    stars = PlummerSum(jnp.array([0.25]), jnp.array([1.0]))  # any tracer whose M(<r) is known
    mass = 2e7

    class Both(GNFW):
        def density(self, r):
            return super().density(r) + mass * stars.density(r)

    args = (TRACER, Constant(0.3))
    for function in (sigma_los, sigma_r):
        expected = function(R_SOME, Both(6.4e7, 1.0, 0.7), *args)
        got = function(R_SOME, HALO, *args, stellar_mass=mass)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        none = function(R_SOME, HALO, *args, stellar_mass=jnp.asarray(0.0))
        np.testing.assert_allclose(none, function(R_SOME, HALO, *args), rtol=1e-12)
        assert (got > none).all()


def test_massless_halo_leaves_the_stars():
    """An isotropic Plummer sphere by itself: sigma_los^2 = 3 pi G M/(64 a) (1 + R^2/a^2)^-1/2."""
    a, mass = 0.25, 1e7
    got = sigma_los(R_SOME, GNFW(0.0, 1.0, 1.0), Plummer(a), Isotropic(), stellar_mass=mass)
    expected = 3 * np.pi * G * mass / (64 * a) / np.sqrt(1 + (R_SOME / a) ** 2)
    np.testing.assert_allclose(got**2, expected, rtol=LIMIT / 10)


@pytest.fixture(scope="module")
def corner_gradient():
    grid = JeansGrid.build(np.array([1e-4, 0.25, 5.0]), TRACER)

    def f(p):
        halo = GNFW(jnp.exp(p[0]), jnp.exp(p[1]), p[2])
        tracer = ZhaoTracer(p[3], 2.0, 5.0, p[4])
        return jnp.sum(jnp.log(grid.variance(halo, tracer, Constant(from_symmetrised(p[5])))))

    return jax.jit(jax.value_and_grad(f))


@pytest.mark.parametrize("tilde", [-0.95, -0.6, 0.0, 0.6, 0.95])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.9])
@pytest.mark.parametrize("ln_r_s", [-4.0, 5.0])
def test_no_nan_at_the_corners(corner_gradient, tilde, gamma, ln_r_s):
    value, slope = corner_gradient(jnp.array([17.0, ln_r_s, gamma, 0.25, 0.0, tilde]))
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_a_python_float_is_an_array():
    grid = JeansGrid.build(R_SOME, TRACER)
    plain = grid.variance(GNFW(6.4e7, 1, 0), Plummer(0.25), BaesVanHese(0, 1, 1, 2))
    numbers = jax.tree.map(
        lambda x: jnp.asarray(float(x)), (GNFW(6.4e7, 1, 0), Plummer(0.25), BaesVanHese(0, 1, 1, 2))
    )
    np.testing.assert_allclose(plain, grid.variance(*numbers), rtol=1e-13)


def test_one_radius_and_many_radii_agree():
    """The grid is made for the radii it is given: a single star must not shorten it."""
    many = np.geomspace(0.005, 4.0, 30)
    together = sigma_los(many, HALO, TRACER, OsipkovMerritt(0.3))
    for i in (0, 29):
        alone = sigma_los(many[i : i + 1], HALO, TRACER, OsipkovMerritt(0.3))
        np.testing.assert_allclose(alone, together[i : i + 1], rtol=LIMIT)


def test_sigma_los_makes_its_grid_for_the_tracer():
    """Far out an exponential falls too steeply for a grid made for another tracer."""
    spec = ("exponential", {"R_d": 0.25})
    halo = ("nfw", {"rho_s": 6.4e7, "r_s": 1.0})
    R = SCALE * np.array([0.01, 1.0, 12.0, 20.0])
    got = sigma_los(R, NFW(6.4e7, 1.0), Exponential(0.25), Constant(0.3))
    expected = [independent.sigma_los(x, halo, spec, ("constant", {"beta_0": 0.3})) for x in R]
    np.testing.assert_allclose(got, expected, rtol=LIMIT)


def test_the_centre_and_the_floor():
    grid = JeansGrid.build(np.array([0.0, 1e-5, 0.2, 0.3]), TRACER)
    sigma = jnp.sqrt(grid.variance(HALO, TRACER, Isotropic()))
    assert np.isfinite(sigma).all()
    assert float(sigma[0]) == float(sigma[1])


@pytest.mark.parametrize("R", [[0.1, np.nan], [0.1, np.inf], [-0.1, 0.2], [0.0, 0.0]])
def test_radii_that_make_no_sense(R):
    with pytest.raises(BayesdustError, match="Projected radii must be finite"):
        JeansGrid.build(R)


def test_fine_step_resolves_the_kink_of_corenfwtides():
    """Around r_t the default step errs by 1e-3; `sigma_los`, which takes the fine one, keeps to the limit."""
    fields = {"rho_s": 6.4e7, "r_s": 1.0, "r_c": 0.25, "n": 1.0, "r_t": 0.5, "delta": 5.0}
    tracer, orbits = ("plummer", {"a": 0.25}), ("constant", {"beta_0": -1.0})
    R = 0.5 * np.array([0.5, 0.8, 1.0, 1.3])
    got = sigma_los(R, HALOS["corenfwtides"](**fields), Plummer(0.25), Constant(-1.0))
    expected = [
        independent.sigma_los(float(x), ("corenfwtides", fields), tracer, orbits) for x in R
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-4)
