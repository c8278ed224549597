"""A halo flattened along z: the potential of nested similar spheroids."""

import jax.numpy as jnp
from jaxtyping import Float

from bayesdust import quadrature
from bayesdust.arrays import Array, Real
from bayesdust.potentials.base import Potential, SphericalHalo
from bayesdust.units import G

_Z, _W = quadrature.half_line()


class Spheroid(Potential):
    """rho(m) of a spherical `halo` at m^2 = R^2 + z^2/`q`^2; q < 1 is oblate, q > 1 prolate.

    Chandrasekhar's integral over similar shells (Binney & Tremaine 2008, sec. 2.5.3), with
    1/(1 + tau) = s^2 for its variable: with e^2 = 1 - q^2 and m_s^2 = s^2 [R^2 + z^2/(1 - e^2 s^2)],

        a = -4 pi G q int_0^1 (x, y, z/(1 - e^2 s^2)) rho(m_s) s^2 ds / sqrt(1 - e^2 s^2),

    done uniformly in ln s, so that any structure of rho is resolved: relative error below 1e-5 for
    0.2 <= q <= 3, and 1e-7 near q = 1.
    """

    halo: SphericalHalo
    q: Real

    def potential(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        s, flat = self._shells()
        m = self._radii(x, s, flat)
        # of a spherical shell seen from inside: what all those beyond m add to the potential
        beyond = self.halo.potential(m) + G * self.halo.enclosed_mass(m) / m
        return self.q * jnp.sum(_W * s * beyond / jnp.sqrt(flat))

    def acceleration(self, x: Float[Array, "3"]) -> Float[Array, "3"]:
        s, flat = self._shells()
        rho = _W * s**3 * self.halo.density(self._radii(x, s, flat)) / jnp.sqrt(flat)
        across, along = jnp.sum(rho), jnp.sum(rho / flat)
        return -4 * jnp.pi * G * self.q * x * jnp.stack([across, across, along])

    def density(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        return self.halo.density(jnp.sqrt(x[0] ** 2 + x[1] ** 2 + (x[2] / self.q) ** 2))

    def _shells(self) -> tuple[Array, Array]:
        """s and 1 - e^2 s^2 at the nodes."""
        s = jnp.exp(-_Z)
        return s, 1 - (1 - jnp.asarray(self.q) ** 2) * s**2

    def _radii(self, x: Array, s: Array, flat: Array) -> Array:
        return s * jnp.sqrt(x[0] ** 2 + x[1] ** 2 + x[2] ** 2 / flat)
