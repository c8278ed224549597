"""The ball of a survey, mapped smoothly and one to one onto all of R^3.

Flows model a density badly where it ends at a wall. With u = (x - centre) / radius and rho = |u| < 1,
the map is y = g(rho^2) u, where s = g rho solves

    F(s) = rho^3,    F(s) = erf(s / sqrt 2) - sqrt(2 / pi) s exp(-s^2 / 2),

the distribution function of chi with three degrees of freedom: stars spread evenly through the ball
become standard normal. The Jacobian is therefore the ratio of the two densities,
ln |dy/dx| = s^2 / 2 + ln 3 + ln(pi / 2) / 2 - 3 ln radius.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from jax.scipy.special import erf, erfc
from jaxtyping import Array, Float
from paramax import NonTrainable

_ROOT = np.sqrt(2 / np.pi)
_G0_CUBED = float(3 / _ROOT)  # g(0)^3, from F(s) = sqrt(2/pi) s^3 / 3 + ...
_TERMS = 20  # of both series; g's nearest singularity, q = 1, is five times farther
_NEAR = 0.2  # q below which g is its Taylor series
_NEAR_T = 1.0  # s^2 below which F / s^3 is its Taylor series


def _series_of_g() -> np.ndarray:
    """Taylor coefficients of g in q = rho^2, from 2 q g^2 g' + g^3 = g0^3 exp(q g^2 / 2).

    The coefficient of q^n in the left side is (2 n / 3 + 1) times that of g^3, for g^2 g' is a third
    of the derivative of g^3: with G = g^3 known to order n - 1, exp(q g^2 / 2) is known to order n.
    """
    cube = np.zeros(_TERMS)
    cube[0] = _G0_CUBED
    for n in range(1, _TERMS):
        square = _power(cube, 2 / 3)
        exponent = np.concatenate([[0.0], 0.5 * square[:n]])
        cube[n] = _G0_CUBED * _exp(exponent)[n] / (2 * n / 3 + 1)
    return _power(cube, 1 / 3)


def _exp(a: np.ndarray) -> np.ndarray:
    """The power series of exp(a)."""
    out = np.zeros_like(a)
    out[0] = np.exp(a[0])
    for n in range(1, len(a)):
        out[n] = sum(k * a[k] * out[n - k] for k in range(1, n + 1)) / n
    return out


def _power(a: np.ndarray, p: float) -> np.ndarray:
    """The power series of a^p, for a[0] > 0."""
    out = np.zeros_like(a)
    out[0] = a[0] ** p
    for n in range(1, len(a)):
        terms = ((p * k - (n - k)) * a[k] * out[n - k] for k in range(1, n + 1))
        out[n] = sum(terms) / (n * a[0])
    return out


_G = _series_of_g()
# F / s^3 = sqrt(2/pi) sum_n (-t/2)^n / (n! (2n + 3)), with t = s^2
_F = _ROOT * np.array(
    [(-0.5) ** n / (float(np.prod(range(1, n + 1))) * (2 * n + 3)) for n in range(_TERMS)]
)


def _evaluate(coefficients: np.ndarray, x: Array) -> Array:
    total = jnp.zeros_like(x)
    for c in coefficients[::-1]:
        total = total * x + float(c)
    return total


@jax.custom_jvp
def stretch(q: Float[Array, ""]) -> Float[Array, ""]:
    """g(q) = s / rho for q = rho^2 in [0, 1): Newton's steps on the logarithm of 1 - F."""
    safe = jnp.clip(q, _NEAR, None)
    ln_beyond = jnp.log(-jnp.expm1(1.5 * jnp.log(safe)))
    s = 0.35 + 1.414 * jnp.sqrt(-ln_beyond) + 0.0041 * ln_beyond  # within 0.05 of the root
    for _ in range(4 if q.dtype == jnp.float64 else 3):
        beyond, slope = _survival(s)
        s = s + (jnp.log(beyond) - ln_beyond) * beyond / slope
    return jnp.where(q < _NEAR, _evaluate(_G, jnp.minimum(q, _NEAR)), s / jnp.sqrt(safe))


@stretch.defjvp
def _stretch_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """From the equation itself, so that every order of derivative is as good as g."""
    (q,), (dq,) = primals, tangents
    g = stretch(q)
    safe = jnp.where(q < _NEAR, 0.5, q)
    far = (_G0_CUBED * jnp.exp(0.5 * safe * g**2) / g**2 - g) / (2 * safe)
    slope = np.arange(1, _TERMS) * _G[1:]
    near = _evaluate(slope, jnp.where(q < _NEAR, q, 0.0))
    return g, jnp.where(q < _NEAR, near, far) * dq


def _survival(s: Array) -> tuple[Array, Array]:
    """1 - F(s) and the density F'(s)."""
    bell = float(_ROOT) * s * jnp.exp(-0.5 * s**2)
    return erfc(s * float(np.sqrt(0.5))) + bell, bell * s


def shrink(t: Float[Array, ""]) -> Float[Array, ""]:
    """rho / s = (F(s) / s^3)^(1/3) for t = s^2."""
    far = jnp.where(t < _NEAR_T, 1.0, t)
    s = jnp.sqrt(far)
    direct = (erf(s * float(np.sqrt(0.5))) - float(_ROOT) * s * jnp.exp(-0.5 * far)) / (far * s)
    series = _evaluate(_F, jnp.minimum(t, _NEAR_T))
    return jnp.where(t < _NEAR_T, series, direct) ** (1 / 3)


class Ball(AbstractBijection):
    """From the open ball (`centre`, `radius`) [kpc] onto R^3; even filling becomes standard normal.

    Outside the ball there is no image: the log-determinant is -inf there, and so is a log-density.
    """

    centre: Array | NonTrainable  # (3,)
    radius: Array | NonTrainable  # ()
    shape: tuple[int, ...] = (3,)
    cond_shape: None = None

    def transform_and_log_det(self, x, condition=None):
        u = (x - self.centre) / self.radius
        q = jnp.sum(u**2)
        # the last float before the edge: a star on it would be sent to infinity
        inside = jnp.minimum(q, 1 - jnp.finfo(q.dtype).eps)
        g = stretch(inside)
        log_det = self._log_det(inside * g**2)
        return g * u, jnp.where(q < 1, log_det, -jnp.inf)

    def inverse_and_log_det(self, y, condition=None):
        t = jnp.sum(y**2)
        return self.centre + self.radius * shrink(t) * y, -self._log_det(t)

    def _log_det(self, t: Array) -> Array:
        return 0.5 * t + float(np.log(3) - np.log(_ROOT)) - 3 * jnp.log(self.radius)
