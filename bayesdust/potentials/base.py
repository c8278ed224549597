"""What every spherical halo offers; a new one writes `density` and inherits the rest."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from bayesdust import quadrature
from bayesdust.arrays import Array, Real
from bayesdust.units import G

_Z, _W = quadrature.half_line()


class SphericalHalo(eqx.Module):
    """A spherical mass distribution.

    Fields are scalars in kpc, Msun/kpc3 or pure numbers; methods broadcast over radii of any shape.
    Subclasses give `density`; `enclosed_mass` and `potential` follow by quadrature in
    ln r (relative error below 1e-8 for r up to 1e4 scale radii) unless a closed form
    replaces them.
    """

    #: `enclosed_mass` costs no more than `density`; the Jeans grid then takes it as it is.
    closed_form_mass: ClassVar[bool] = False

    @abc.abstractmethod
    def density(self, r: Real) -> Array:
        """Mass density rho(r) [Msun/kpc3] at r [kpc]."""

    @property
    @abc.abstractmethod
    def inner_slope(self) -> Real:
        """gamma = -d ln rho / d ln r as r goes to 0."""

    def enclosed_mass(self, r: Real) -> Array:
        """M(<r) = 4 pi int_0^r rho s^2 ds [Msun]."""
        r = jnp.asarray(r)
        inner = self.density(r[..., None] * jnp.exp(-_Z))
        return 4 * jnp.pi * r**3 * jnp.sum(_W * jnp.exp(-3 * _Z) * inner, axis=-1)

    def potential(self, r: Real) -> Array:
        """Phi(r) = -G M(<r)/r - 4 pi G int_r^inf rho s ds [(km/s)^2], zero at infinity."""
        r = jnp.asarray(r)
        outer = self.density(r[..., None] * jnp.exp(_Z))
        shells = r**2 * jnp.sum(_W * jnp.exp(2 * _Z) * outer, axis=-1)
        return -G * self.enclosed_mass(r) / r - 4 * jnp.pi * G * shells

    def circular_velocity(self, r: Real) -> Array:
        """v_circ = sqrt(G M(<r) / r) [km/s]."""
        return jnp.sqrt(G * self.enclosed_mass(r) / r)
