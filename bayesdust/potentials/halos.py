"""Dark haloes: Zhao and its cases gNFW and NFW, Burkert, Einasto, coreNFWtides, and a truncation."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import gammainc, gammaln

from bayesdust import quadrature
from bayesdust.arrays import Array, Real
from bayesdust.potentials.base import SphericalHalo
from bayesdust.units import G

_Z, _W = quadrature.half_line()


class Zhao(SphericalHalo):
    """rho = rho_s x^-gamma (1 + x^alpha)^((gamma - beta)/alpha), x = r/r_s (Zhao 1996, eq. 1).

    `rho_s` [Msun/kpc3], `r_s` [kpc]; `alpha` > 0, `beta`, `gamma` < 3. M(<r) by
    quadrature.
    """

    rho_s: Real
    r_s: Real
    alpha: Real
    beta: Real
    gamma: Real

    @property
    def inner_slope(self) -> Real:
        return self.gamma

    def density(self, r: Real) -> Array:
        ln_x = jnp.log(r / self.r_s)
        turn = jax.nn.softplus(self.alpha * ln_x) / self.alpha
        return self.rho_s * jnp.exp(-self.gamma * ln_x - (self.beta - self.gamma) * turn)


class GNFW(SphericalHalo):
    """Generalised NFW: Zhao's (1, 3, gamma). `rho_s` [Msun/kpc3], `r_s` [kpc], `gamma` < 3."""

    rho_s: Real
    r_s: Real
    gamma: Real

    @property
    def inner_slope(self) -> Real:
        return self.gamma

    def density(self, r: Real) -> Array:
        x = jnp.asarray(r) / self.r_s
        return self.rho_s * jnp.exp(-self.gamma * jnp.log(x) - (3 - self.gamma) * jnp.log1p(x))


class NFW(SphericalHalo):
    """rho = rho_s / (x (1 + x)^2) (Navarro, Frenk & White 1997). `rho_s` [Msun/kpc3], `r_s` [kpc]."""

    closed_form_mass: ClassVar[bool] = True

    rho_s: Real
    r_s: Real

    @property
    def inner_slope(self) -> Real:
        return 1.0

    def density(self, r: Real) -> Array:
        x = jnp.asarray(r) / self.r_s
        return self.rho_s / (x * (1 + x) ** 2)

    def enclosed_mass(self, r: Real) -> Array:
        x = jnp.asarray(r) / self.r_s
        # below x = 1e-3 the two logarithms cancel: three terms of the series, error x^3
        series = x**2 * (1 / 2 - x * (2 / 3 - x * 3 / 4))
        mu = jnp.where(x < 1e-3, series, jnp.log1p(x) - x / (1 + x))
        return 4 * jnp.pi * self.rho_s * self.r_s**3 * mu

    def potential(self, r: Real) -> Array:
        x = jnp.asarray(r) / self.r_s
        return -4 * jnp.pi * G * self.rho_s * self.r_s**2 * jnp.log1p(x) / x


class Burkert(SphericalHalo):
    """rho = rho_s / ((1 + x)(1 + x^2)) (Burkert 1995, eq. 2). `rho_s` [Msun/kpc3], `r_s` [kpc]."""

    closed_form_mass: ClassVar[bool] = True

    rho_s: Real
    r_s: Real

    @property
    def inner_slope(self) -> Real:
        return 0.0

    def density(self, r: Real) -> Array:
        x = jnp.asarray(r) / self.r_s
        return self.rho_s / ((1 + x) * (1 + x**2))

    def enclosed_mass(self, r: Real) -> Array:
        x = jnp.asarray(r) / self.r_s
        # (1 + x)(1 + x^2) = (1 - x^4)/(1 - x) gives the series used where the closed form cancels
        small = jnp.minimum(x, 0.1)
        series = small**3 * (1 / 3 - small / 4 + small**4 * (1 / 7 - small / 8))
        closed = (jnp.log1p(x**2) / 2 + jnp.log1p(x) - jnp.arctan(x)) / 2
        return 4 * jnp.pi * self.rho_s * self.r_s**3 * jnp.where(x < 0.02, series, closed)


class Einasto(SphericalHalo):
    """rho = rho_s exp(-(2/alpha)(x^alpha - 1)), d ln rho/d ln r = -2 at r_s (Einasto 1965).

    `rho_s` [Msun/kpc3] is the density at `r_s` [kpc]; `alpha` > 0.
    """

    rho_s: Real
    r_s: Real
    alpha: Real

    @property
    def inner_slope(self) -> Real:
        return 0.0

    def density(self, r: Real) -> Array:
        return self.rho_s * jnp.exp(-2 / self.alpha * jnp.expm1(self.alpha * jnp.log(r / self.r_s)))

    def slope(self, r: Real) -> Array:
        # far out the density is zero in floating point, and no slope could be read off it
        return 2 * jnp.exp(self.alpha * jnp.log(r / self.r_s))

    def enclosed_mass(self, r: Real) -> Array:
        a = 3 / self.alpha
        ln_norm = 2 / self.alpha - a * jnp.log(2 / self.alpha) + gammaln(a) - jnp.log(self.alpha)
        s = 2 / self.alpha * jnp.exp(self.alpha * jnp.log(r / self.r_s))
        return 4 * jnp.pi * self.rho_s * self.r_s**3 * jnp.exp(ln_norm) * gammainc(a, s)


class CoreNFWTides(SphericalHalo):
    """coreNFWtides (Read, Walker & Steger 2018, sec. 3): an NFW halo cored inside and stripped outside.

    M = M_NFW tanh(r/r_c)^n up to the tidal radius `r_t` [kpc], beyond which rho falls as
    (r/r_t)^-delta. `rho_s` [Msun/kpc3] and `r_s` [kpc] are those of the NFW halo; `n` = 0 is a
    cusp, 1 a full core of size `r_c` [kpc].
    """

    closed_form_mass: ClassVar[bool] = True

    rho_s: Real
    r_s: Real
    r_c: Real
    n: Real
    r_t: Real
    delta: Real

    @property
    def inner_slope(self) -> Array:
        return jnp.maximum(1.0 - self.n, 0.0)

    def _untruncated(self, r: Real) -> tuple[Array, Array]:
        """Density and mass of the cored halo before stripping."""
        nfw = NFW(self.rho_s, self.r_s)
        f = jnp.tanh(r / self.r_c)
        # (1 - f^2) f^(n-1) / r_c written with sech^2 so that it stays exact where f -> 1
        sech2 = 1 / jnp.cosh(jnp.minimum(r / self.r_c, 300.0)) ** 2
        mass = nfw.enclosed_mass(r)
        core = self.n * f ** (self.n - 1) * sech2 / self.r_c * mass / (4 * jnp.pi * r**2)
        return f**self.n * nfw.density(r) + core, f**self.n * mass

    def density(self, r: Real) -> Array:
        inside, _ = self._untruncated(jnp.minimum(r, self.r_t))
        return inside * jnp.maximum(r / self.r_t, 1.0) ** -self.delta

    def enclosed_mass(self, r: Real) -> Array:
        rho_t, _ = self._untruncated(self.r_t)
        _, inside = self._untruncated(jnp.minimum(r, self.r_t))
        stretch = jnp.log(jnp.maximum(r / self.r_t, 1.0))
        return inside + 4 * jnp.pi * rho_t * self.r_t**3 * _decay_integral(self.delta - 3, stretch)

    def potential(self, r: Real) -> Array:
        """As in the base class but split at r_t, where fixed nodes would see the kink; delta > 2."""
        r = jnp.asarray(r)

        def beyond(x: Array) -> Array:
            """int_x^inf rho s ds before stripping."""
            rho, _ = self._untruncated(x[..., None] * jnp.exp(_Z))
            return x**2 * jnp.sum(_W * jnp.exp(2 * _Z) * rho, axis=-1)

        rho_t, _ = self._untruncated(self.r_t)
        tail = jnp.maximum(r / self.r_t, 1.0) ** (2 - self.delta) / (self.delta - 2)
        shells = beyond(jnp.minimum(r, self.r_t)) - beyond(jnp.asarray(self.r_t, dtype=float))
        shells = shells + rho_t * self.r_t**2 * tail
        return -G * self.enclosed_mass(r) / r - 4 * jnp.pi * G * shells


class Truncated(SphericalHalo):
    """Any halo times (r_t^2 / (r^2 + r_t^2))^2: a smooth edge at `r_t` [kpc] (Baltz+2009, eq. A1, n=2)."""

    halo: SphericalHalo
    r_t: Real

    @property
    def inner_slope(self) -> Real:
        return self.halo.inner_slope

    def density(self, r: Real) -> Array:
        return self.halo.density(r) / (1 + (r / self.r_t) ** 2) ** 2


def _decay_integral(k: Real, t: Array) -> Array:
    """int_0^t e^(-k s) ds, smooth through k = 0."""
    kt = k * t
    small = jnp.abs(kt) < 1e-4
    safe = jnp.where(small, 1.0, kt)
    return t * jnp.where(small, 1 - kt / 2 * (1 - kt / 3), -jnp.expm1(-safe) / safe)


HALOS: dict[str, type[SphericalHalo]] = {
    "zhao": Zhao,
    "gnfw": GNFW,
    "nfw": NFW,
    "burkert": Burkert,
    "einasto": Einasto,
    "corenfwtides": CoreNFWTides,
}
