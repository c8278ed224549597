"""Stellar tracer profiles, normalised to one star: nu(r) [1/kpc3] and its projection Sigma(R) [1/kpc2].

A new tracer writes `density`; projection, enclosed fraction and half-light radius follow by
quadrature unless a closed form replaces them.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, gammainc, gammaln
from jaxtyping import Float

from bayesdust import quadrature
from bayesdust.arrays import Array, Real

_W, _W_WEIGHTS = quadrature.even_trapezoid(step=0.22, count=80)
_COSH = np.cosh(_W)
# a Sersic profile falls so steeply that its deprojection needs finer steps near w = 0
_W_FINE, _W_FINE_WEIGHTS = quadrature.even_trapezoid(step=0.1, count=180)
_Z, _Z_WEIGHTS = quadrature.half_line()


class Tracer(eqx.Module):
    """A spherical distribution of tracer stars; radii in kpc, any shape."""

    @abc.abstractmethod
    def density(self, r: Real) -> Array:
        """nu(r) [1/kpc3], integrating to one over all space."""

    def surface_density(self, R: Real) -> Array:
        """Sigma(R) = 2 int_R^inf nu r dr / sqrt(r^2 - R^2) [1/kpc2], with r = R cosh w."""
        R = jnp.asarray(R)
        nu = self.density(R[..., None] * _COSH)
        return 2 * R * jnp.sum(_W_WEIGHTS * _COSH * nu, axis=-1)

    def enclosed_fraction(self, r: Real) -> Array:
        """Fraction of the stars inside the sphere of radius r."""
        r = jnp.asarray(r)
        nu = self.density(r[..., None] * jnp.exp(-_Z))
        return 4 * jnp.pi * r**3 * jnp.sum(_Z_WEIGHTS * jnp.exp(-3 * _Z) * nu, axis=-1)

    def projected_fraction(self, R: Real) -> Array:
        """Fraction of the stars inside the cylinder of radius R.

        The sphere plus what the cylinder cuts from the shells outside it,
        4 pi int_R^inf nu r^2 (1 - sqrt(1 - R^2/r^2)) dr.
        """
        R = jnp.asarray(R)
        nu = self.density(R[..., None] * jnp.cosh(_Z))
        shells = jnp.cosh(_Z) ** 2 * jnp.exp(-_Z) * jnp.tanh(_Z)
        outside = 4 * jnp.pi * R**3 * jnp.sum(_Z_WEIGHTS * shells * nu, axis=-1)
        return self.enclosed_fraction(R) + outside

    @property
    @abc.abstractmethod
    def half_light_radius(self) -> Array:
        """R_half [kpc]: the projected radius that holds half the stars."""


class Plummer(Tracer):
    """nu = 3/(4 pi a^3) (1 + r^2/a^2)^(-5/2) (Plummer 1911); `a` [kpc] is the half-light radius."""

    a: Real

    def density(self, r: Real) -> Array:
        u = 1 + (jnp.asarray(r) / self.a) ** 2
        return 3 / (4 * jnp.pi * self.a**3) / (u * u * jnp.sqrt(u))

    def surface_density(self, R: Real) -> Array:
        return 1 / (jnp.pi * self.a**2 * (1 + (jnp.asarray(R) / self.a) ** 2) ** 2)

    def enclosed_fraction(self, r: Real) -> Array:
        return (1 + (self.a / jnp.asarray(r)) ** 2) ** -1.5

    def projected_fraction(self, R: Real) -> Array:
        return 1 / (1 + (self.a / jnp.asarray(R)) ** 2)

    @property
    def half_light_radius(self) -> Array:
        return jnp.asarray(self.a)


class ZhaoTracer(Tracer):
    """nu ~ x^-gamma (1 + x^alpha)^((gamma - beta)/alpha), x = r/r_s; `r_s` [kpc], beta > 3 > gamma."""

    r_s: Real
    alpha: Real
    beta: Real
    gamma: Real

    @property
    def _exponents(self) -> tuple[Real, Real]:
        return (3 - self.gamma) / self.alpha, (self.beta - 3) / self.alpha

    def density(self, r: Real) -> Array:
        ln_x = jnp.log(r / self.r_s)
        turn = jax.nn.softplus(self.alpha * ln_x) / self.alpha
        ln_norm = jnp.log(4 * jnp.pi * self.r_s**3 / self.alpha) + betaln(*self._exponents)
        return jnp.exp(-self.gamma * ln_x - (self.beta - self.gamma) * turn - ln_norm)

    @property
    def half_light_radius(self) -> Array:
        return solve_half_light_radius(self, self.r_s)


class Sersic(Tracer):
    """Sigma ~ exp(-b (R/R_e)^(1/m)) (Sersic 1968), deprojected exactly; `R_e` [kpc], 0.5 <= m <= 10."""

    R_e: Real
    m: Real

    @property
    def _b(self) -> Array:
        """b with half the light inside R_e: Ciotti & Bertin (1999, eq. 18), then Newton steps."""
        m = jnp.asarray(self.m, dtype=float)
        b = 2 * m - 1 / 3 + 4 / (405 * m) + 46 / (25515 * m**2)
        for _ in range(2):
            slope = jnp.exp((2 * m - 1) * jnp.log(b) - b - gammaln(2 * m))
            b = b - (gammainc(2 * m, b) - 0.5) / slope
        return b

    def surface_density(self, R: Real) -> Array:
        b, m = self._b, self.m
        ln_norm = jnp.log(2 * jnp.pi * m * self.R_e**2) - 2 * m * jnp.log(b) + gammaln(2 * m)
        return jnp.exp(-b * (R / self.R_e) ** (1 / m) - ln_norm)

    def density(self, r: Real) -> Array:
        """Abel's nu(r) = -(1/pi) int_r^inf (dSigma/dR) dR / sqrt(R^2 - r^2), with R = r cosh w."""
        r = jnp.asarray(r)[..., None]
        # far out the integrand is a Gaussian in w of variance m/X, X = b (r/R_e)^(1/m)
        width = 1 / jnp.sqrt(1 + self._b / 10 * (r / self.R_e) ** (1 / self.m))
        R = r * jnp.cosh(width * _W_FINE)
        slope = -self._b / self.m * (R / self.R_e) ** (1 / self.m) / R
        nu = -jnp.sum(_W_FINE_WEIGHTS * slope * self.surface_density(R), axis=-1) / jnp.pi
        return nu * width[..., 0]

    def projected_fraction(self, R: Real) -> Array:
        return gammainc(2 * self.m, self._b * (R / self.R_e) ** (1 / self.m))

    @property
    def half_light_radius(self) -> Array:
        return jnp.asarray(self.R_e)


class Exponential(Tracer):
    """Sigma = exp(-R/R_d) / (2 pi R_d^2): a Sersic profile of index 1; `R_d` [kpc], R_half = 1.678 R_d."""

    R_d: Real

    @property
    def _sersic(self) -> Sersic:
        return Sersic(self.half_light_radius, 1.0)

    def density(self, r: Real) -> Array:
        return self._sersic.density(r)

    def surface_density(self, R: Real) -> Array:
        return jnp.exp(-R / self.R_d) / (2 * jnp.pi * self.R_d**2)

    def projected_fraction(self, R: Real) -> Array:
        x = R / self.R_d
        return -jnp.expm1(-x) - x * jnp.exp(-x)

    @property
    def half_light_radius(self) -> Array:
        return 1.6783469900166612 * jnp.asarray(self.R_d)


class PlummerSum(Tracer):
    """A weighted sum of Plummer spheres: `a` (k,) [kpc], `weights` (k,) >= 0, normalised here."""

    a: Float[Array, " k"]
    weights: Float[Array, " k"]

    def _mix(self, values: Array) -> Array:
        return values @ (self.weights / jnp.sum(self.weights))

    def _components(self, r: Real) -> tuple[Plummer, Array]:
        return Plummer(self.a), jnp.asarray(r)[..., None]

    def density(self, r: Real) -> Array:
        plummer, r = self._components(r)
        return self._mix(plummer.density(r))

    def surface_density(self, R: Real) -> Array:
        plummer, R = self._components(R)
        return self._mix(plummer.surface_density(R))

    def enclosed_fraction(self, r: Real) -> Array:
        plummer, r = self._components(r)
        return self._mix(plummer.enclosed_fraction(r))

    def projected_fraction(self, R: Real) -> Array:
        plummer, R = self._components(R)
        return self._mix(plummer.projected_fraction(R))

    @property
    def half_light_radius(self) -> Array:
        return solve_half_light_radius(self, jnp.max(self.a))


def solve_half_light_radius(tracer: Tracer, scale: Real) -> Array:
    """R_half [kpc], the root of projected_fraction = 1/2, searched from `scale` [kpc].

    By Newton's method on its logit, which is near linear in ln R.
    The last step, the only one differentiated, carries the gradient of the implicit function.
    """
    frozen = jax.lax.stop_gradient(tracer)

    def improve(_: int, R: Array) -> Array:
        inside = frozen.projected_fraction(R)
        slope = 2 * jnp.pi * R**2 * frozen.surface_density(R) / (inside * (1 - inside))
        return R * jnp.exp(-jnp.clip(jnp.log(inside / (1 - inside)) / slope, -2.0, 2.0))

    start = jax.lax.stop_gradient(jnp.asarray(scale, dtype=float))
    R = jax.lax.fori_loop(0, 10, improve, start)
    slope = 2 * jnp.pi * R * frozen.surface_density(R)
    return R - (tracer.projected_fraction(R) - 0.5) / slope


TRACERS: dict[str, type[Tracer]] = {
    "plummer": Plummer,
    "zhao": ZhaoTracer,
    "exponential": Exponential,
    "sersic": Sersic,
    "plummer_sum": PlummerSum,
}
