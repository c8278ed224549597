"""The fixed rules: exact where they promise to be, converging as fast as they promise to."""

import numpy as np
import pytest
from scipy import special

from bayesdust import quadrature


@pytest.mark.parametrize("k", [1.0, 1.1, 2.5, 3.0, 7.0])
def test_half_line_integrates_exponentials(k):
    z, weights = quadrature.half_line()
    assert weights @ np.exp(-k * z) == pytest.approx(1 / k, rel=1e-9)


def test_half_line_does_not_mind_the_end():
    """z^(-1/2) e^-z: an integrable singularity at the end point costs little."""
    z, weights = quadrature.half_line(low=-4.0)
    assert weights @ (np.exp(-z) / np.sqrt(z)) == pytest.approx(np.sqrt(np.pi), rel=1e-7)


def test_half_line_converges_exponentially():
    def error(step):
        z, weights = quadrature.half_line(step=step, low=-4.0, high=60.0)
        return abs(weights @ (np.exp(-z) / (1 + np.exp(-2 * z))) / (np.pi / 4) - 1)

    coarse, fine = error(1.6), error(0.8)
    assert fine < 10 * coarse**2


def test_even_trapezoid_converges_exponentially():
    """int_0^inf dw / cosh w = pi/2; the error is that of the nearest pole, 4 exp(-pi^2/step)."""
    for step in (1.6, 0.8, 0.4):
        w, weights = quadrature.even_trapezoid(step=step, count=int(60 / step))
        error = abs(weights @ (1 / np.cosh(w)) / (np.pi / 2) - 1)
        assert error < 5 * np.exp(-(np.pi**2) / step) + 1e-14


def test_even_trapezoid_projects_a_plummer_sphere():
    w, weights = quadrature.even_trapezoid()
    for R in (0.01, 1.0, 30.0):
        r = R * np.cosh(w)
        sigma = 2 * weights @ (3 / (4 * np.pi) * (1 + r**2) ** -2.5 * r)
        assert sigma == pytest.approx(1 / (np.pi * (1 + R**2) ** 2), rel=1e-8)


@pytest.mark.parametrize("order", [2, 4, 10])
def test_interpolation_is_exact_for_polynomials(order):
    x = np.array([0.0, 0.3, 4.0, 7.77, 12.5, 15.0])
    matrix = quadrature.local_interpolation(16, x, order)
    for power in range(order):
        nodes = (np.arange(16) / 8 - 1) ** power
        np.testing.assert_allclose(matrix @ nodes, (x / 8 - 1) ** power, atol=1e-12)
    assert (np.count_nonzero(matrix, axis=1) <= order).all()


def test_interpolation_is_zero_outside():
    matrix = quadrature.local_interpolation(16, np.array([-0.1, 15.1, 99.0]), 10)
    assert not matrix.any()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_collocation_integrates_polynomials_from_zero(count):
    nodes = (special.roots_legendre(count)[0] + 1) / 2
    matrix = quadrature.collocation(count)
    for power in range(count):
        expected = nodes ** (power + 1) / (power + 1)
        np.testing.assert_allclose(matrix @ nodes**power, expected, atol=1e-14)
