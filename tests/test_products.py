"""J and D against direct quadrature over the cone and the line of sight, and their laws."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from bayesdust import products
from bayesdust.errors import BayesdustError
from bayesdust.potentials import GNFW, NFW, Burkert, Zhao
from bayesdust.units import D_GEV_CM2, J_GEV2_CM5

j_factor, d_factor = jax.jit(products.j_factor), jax.jit(products.d_factor)

LIMIT = 1e-4  # relative, of the issue; the method reaches 1e-7
CUSP, CORE = GNFW(6.4e7, 1.0, 1.0), GNFW(4e8, 1.0, 0.0)


def direct(source, angle, distance, r_trunc):
    """2 pi int sin(t) dt int source dl: the definition, by nested adaptive quadrature in numpy.

    Both integrals run in logarithms (l - l_centre = b sinh u, and ln t), where cusps are smooth.
    """

    def line_of_sight(ln_t):
        t = np.exp(ln_t)
        impact, centre = distance * np.sin(t), distance * np.cos(t)
        half = np.sqrt(max(r_trunc**2 - impact**2, 0.0))
        total = 0.0
        for end in (min(half, centre), half):  # towards the observer, away from the observer
            total += quad(
                lambda u: source(impact * np.cosh(u)) * impact * np.cosh(u),
                0.0,
                np.arcsinh(end / impact),
                epsabs=0,
                epsrel=1e-8,
                limit=200,
            )[0]
        return np.sin(t) * t * total

    top = np.log(min(np.radians(angle), np.arcsin(min(r_trunc / distance, 1.0))))
    edges = top - np.array([110.0, 28.0, 9.0, 4.0, 2.0, 1.0, 0.3, 0.0])
    return (
        2
        * np.pi
        * sum(
            quad(line_of_sight, a, b, epsabs=0, epsrel=1e-6, limit=200)[0]
            for a, b in pairwise(edges)
        )
    )


def zhao(r, rho_s, r_s, alpha, beta, gamma):
    x = r / r_s
    return rho_s * x**-gamma * (1 + x**alpha) ** ((gamma - beta) / alpha)


# data/README.md: six decimals of log10 J(0.5 deg) and three of log10 D(0.5 deg)
REFERENCE_DISTANCES = [50.0, 80.0, 100.0]  # kpc
REFERENCE_J = {"cusp": [19.353478, 19.006269, 18.832765], "core": [19.524841, 19.336187, 19.223664]}
REFERENCE_D = {"cusp": [18.627, 18.477, 18.396], "core": [18.949, 18.877, 18.831]}


@pytest.mark.parametrize(("name", "halo"), [("cusp", CUSP), ("core", CORE)])
def test_reference_values(name, halo):
    distance = jnp.array(REFERENCE_DISTANCES)
    J, D = (np.log10(f(halo, 0.5, distance)) for f in (j_factor, d_factor))
    np.testing.assert_allclose(J, REFERENCE_J[name], rtol=0, atol=1e-6)
    np.testing.assert_allclose(D, REFERENCE_D[name], rtol=0, atol=6e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.2])
@pytest.mark.parametrize(("angle", "distance"), [(0.05, 30.0), (0.5, 80.0), (8.0, 25.0)])
def test_against_the_definition(gamma, angle, distance):
    shape = (1e8, 0.8, 1.5, 4.0, gamma)

    def rho(r):
        return zhao(r, *shape)

    truth = J_GEV2_CM5 * direct(lambda r: rho(r) ** 2, angle, distance, 50.0)
    assert float(j_factor(Zhao(*shape), angle, distance, 50.0)) == pytest.approx(truth, rel=LIMIT)
    truth = D_GEV_CM2 * direct(rho, angle, distance, 50.0)
    assert float(d_factor(Zhao(*shape), angle, distance, 50.0)) == pytest.approx(truth, rel=LIMIT)


@pytest.mark.parametrize("r_trunc", [0.3, 2.0, 200.0])
def test_truncation(r_trunc):
    """Inside the cone, across it, and beyond the observer."""
    truth = J_GEV2_CM5 * direct(lambda r: zhao(r, 1e8, 1.0, 1.0, 3.0, 0.5) ** 2, 0.5, 80.0, r_trunc)
    assert float(j_factor(GNFW(1e8, 1.0, 0.5), 0.5, 80.0, r_trunc)) == pytest.approx(
        truth, rel=LIMIT
    )


def test_far_field():
    """A compact halo wholly in the cone: J = int rho^2 dV / D^2, up to (r_s/D)^2."""
    halo, distance = Zhao(1e8, 0.1, 1.0, 5.0, 0.5), 1e3
    r = np.geomspace(1e-7, 1e3, 20001)
    volume = np.trapezoid(4 * np.pi * r**3 * np.asarray(halo.density(r)) ** 2, np.log(r))
    value = float(j_factor(halo, 5.0, distance)) / J_GEV2_CM5
    assert value == pytest.approx(volume / distance**2, rel=1e-5)


def test_wrong_geometry_is_rejected():
    """What bit others: half a line of sight, and tan for sin at wide angles, are far outside the limit."""
    truth = float(j_factor(CUSP, 10.0, 20.0))
    half = truth / 2
    tangent = float(j_factor(CUSP, np.degrees(np.arcsin(np.tan(np.radians(10.0)))), 20.0))
    assert abs(half / truth - 1) > 100 * LIMIT
    assert abs(tangent / truth - 1) > LIMIT


def test_steep_cusps_diverge_and_plateaus_do_not():
    angles = jnp.array([0.1, 0.5])
    assert np.all(np.isfinite(j_factor(GNFW(1e8, 1.0, 1.49), angles, 80.0)))
    assert np.all(np.isinf(j_factor(GNFW(1e8, 1.0, 1.5), angles, 80.0)))
    flat = [float(j_factor(GNFW(1e8, 1.0, 1.5), 0.5, 80.0, rho_max=p)) for p in (1e14, 1e16, 1e18)]
    # J of a 1.5 cusp grows with the logarithm of the radius of its plateau
    assert flat[2] - flat[1] == pytest.approx(flat[1] - flat[0], rel=1e-3)


def test_inner_cusp_is_summed_to_the_centre():
    """gamma = 1.45: J of r < r_in falls like r_in^0.1, all of it counted."""
    halo, gamma = GNFW(1e8, 1.0, 1.45), 1.45
    edge = np.array([1e-4, 1e-5])
    inside = [float(j_factor(halo, 0.5, 80.0, e)) for e in edge]
    assert inside[0] / inside[1] == pytest.approx(10 ** (3 - 2 * gamma), rel=1e-3)
    exact = 4 * np.pi / 80.0**2 * 1e16 * edge[1] ** (3 - 2 * gamma) / (3 - 2 * gamma)
    assert inside[1] / J_GEV2_CM5 == pytest.approx(exact, rel=1e-3)  # (1 + x)^... is 1 - 3e-5 here


@pytest.mark.parametrize("product", [j_factor, d_factor])
def test_gradients(product):
    """Reverse mode against central differences, in every parameter and the distance."""

    def ln(p):
        return jnp.log(product(GNFW(p[0], p[1], p[2]), 0.5, p[3], p[4]))

    point = jnp.array([1e8, 0.7, 0.9, 80.0, 5.0])
    step = 1e-5 * point
    numeric = np.array(
        [
            (ln(point.at[i].add(step[i])) - ln(point.at[i].add(-step[i]))) / (2 * step[i])
            for i in range(5)
        ]
    )
    # central differences of a smooth function: 1e-10 of truncation, 1e-11 / step of rounding
    np.testing.assert_allclose(
        jax.grad(ln)(point) * point, numeric * np.array(point), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("halo", [CUSP, CORE, NFW(1e7, 2.0), Burkert(1e8, 0.5)])
def test_laws(halo):
    """More cone, more J; J scales as rho^2, D as rho; shapes broadcast; any angles at once."""
    angles = jnp.geomspace(0.01, 30.0, 12)
    j = j_factor(halo, angles, 80.0)
    assert j.shape == angles.shape
    assert np.all(np.diff(j) > 0)
    twice = jax.tree.map(lambda x: x, halo)
    object.__setattr__(twice, "rho_s", 2 * halo.rho_s)
    np.testing.assert_allclose(j_factor(twice, angles, 80.0), 4 * j, rtol=1e-12)
    np.testing.assert_allclose(
        d_factor(twice, angles, 80.0), 2 * d_factor(halo, angles, 80.0), rtol=1e-12
    )
    one = jnp.stack([j_factor(halo, a, 80.0) for a in angles[:3]])
    np.testing.assert_allclose(one, j[:3], rtol=1e-12)


@pytest.mark.parametrize("function", [products.j_factor, products.d_factor])
def test_what_is_no_cone_or_no_distance_is_refused(function):
    for angle in (0.0, -1.0, 90.0, 180.0, np.nan, [0.1, 0.0]):
        with pytest.raises(BayesdustError, match="between 0 and 90 deg"):
            function(CUSP, angle, 80.0)
    for distance in (0.0, -5.0, np.inf, jnp.array([80.0, -1.0])):
        with pytest.raises(BayesdustError, match="positive number of kpc"):
            function(CUSP, 0.5, distance)
    traced = jax.jit(lambda angle, distance: function(CUSP, angle, distance))
    assert float(traced(0.5, 80.0)) == pytest.approx(float(function(CUSP, 0.5, 80.0)), rel=1e-12)
    traced(-1.0, -1.0)  # raises nothing
