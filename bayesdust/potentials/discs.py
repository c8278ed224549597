"""Galaxies with discs: a Miyamoto-Nagai disc, a bulge, spherical haloes in three dimensions, sums."""

import jax.numpy as jnp
from jax.scipy.special import gammainc, gammaincc, gammaln
from jaxtyping import Float

from bayesdust.arrays import Array, Real
from bayesdust.potentials.base import Potential, SphericalHalo
from bayesdust.potentials.halos import NFW
from bayesdust.units import G


class MiyamotoNagai(Potential):
    """Phi = -G M / sqrt(R^2 + (a + sqrt(z^2 + b^2))^2) (Miyamoto & Nagai 1975, eq. 4).

    `mass` [Msun], the disc's scale length `a` and height `b` > 0 [kpc].
    """

    mass: Real
    a: Real
    b: Real

    def potential(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        height = self.a + jnp.sqrt(x[2] ** 2 + self.b**2)
        return -G * self.mass / jnp.sqrt(x[0] ** 2 + x[1] ** 2 + height**2)

    def density(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """Their eq. 5."""
        R2, s = x[0] ** 2 + x[1] ** 2, jnp.sqrt(x[2] ** 2 + self.b**2)
        height = self.a + s
        shape = self.a * R2 + (self.a + 3 * s) * height**2
        return self.b**2 * self.mass / (4 * jnp.pi) * shape / ((R2 + height**2) ** 2.5 * s**3)


class PowerLawCutoff(SphericalHalo):
    """rho = rho_s x^-alpha exp(-x^2), x = r/r_c: a bulge (galpy's PowerSphericalPotentialwCutoff).

    `rho_s` [Msun/kpc3], `r_c` [kpc], `alpha` < 2. Mass and potential are incomplete gamma functions
    of x^2, any derivative of which in r is elementary.
    """

    rho_s: Real
    r_c: Real
    alpha: Real

    @property
    def inner_slope(self) -> Real:
        return self.alpha

    def density(self, r: Real) -> Array:
        x = jnp.asarray(r) / self.r_c
        return self.rho_s * jnp.exp(-self.alpha * jnp.log(x) - x**2)

    def enclosed_mass(self, r: Real) -> Array:
        a = (3 - self.alpha) / 2
        scale = 2 * jnp.pi * self.rho_s * self.r_c**3 * jnp.exp(gammaln(a))
        return scale * gammainc(a, (jnp.asarray(r) / self.r_c) ** 2)

    def potential(self, r: Real) -> Array:
        a = 1 - self.alpha / 2
        scale = 2 * jnp.pi * G * self.rho_s * self.r_c**2 * jnp.exp(gammaln(a))
        shells = scale * gammaincc(a, (jnp.asarray(r) / self.r_c) ** 2)
        return -G * self.enclosed_mass(r) / r - shells


class SphericalAsPotential(Potential):
    """A spherical `halo` about the origin, at points; finite and smooth everywhere but at x = 0."""

    halo: SphericalHalo

    def potential(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        return self.halo.potential(_radius(x))

    # The halo's own mass and density are as exact as its potential and cheaper than its derivatives.
    def acceleration(self, x: Float[Array, "3"]) -> Float[Array, "3"]:
        r = _radius(x)
        return -G * self.halo.enclosed_mass(r) / r**3 * x

    def density(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        return self.halo.density(_radius(x))


class Sum(Potential):
    """The potential of several `parts` together."""

    parts: tuple[Potential, ...]

    def potential(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        return sum((part.potential(x) for part in self.parts), jnp.zeros(()))

    def acceleration(self, x: Float[Array, "3"]) -> Float[Array, "3"]:
        return sum((part.acceleration(x) for part in self.parts), jnp.zeros(3))

    def density(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        return sum((part.density(x) for part in self.parts), jnp.zeros(()))


def milky_way_2014(ro: Real = 8.0, vo: Real = 220.0) -> Sum:
    """MWPotential2014 of galpy (Bovy 2015, table 1): disc, NFW halo and bulge, in that order.

    They give 0.60, 0.35 and 0.05 of the squared circular velocity `vo` [km/s] at `ro` [kpc]. Unlike
    galpy's, whose bulge vanishes at the centre, the potential vanishes at infinity.
    """
    a, b = 3.0, 0.28
    disc = 0.60 * vo**2 * (ro**2 + (a + b) ** 2) ** 1.5 / (G * ro**2)
    halo = 0.35 * vo**2 * ro / (G * NFW(1.0, 16.0).enclosed_mass(ro))
    bulge = 0.05 * vo**2 * ro / (G * PowerLawCutoff(1.0, 1.9, 1.8).enclosed_mass(ro))
    return Sum(
        (
            MiyamotoNagai(disc, a, b),
            SphericalAsPotential(NFW(halo, 16.0)),
            SphericalAsPotential(PowerLawCutoff(bulge, 1.9, 1.8)),
        )
    )


def _radius(x: Float[Array, "3"]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.sum(x**2))
