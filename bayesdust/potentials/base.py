"""What every potential offers.

A new one writes Phi(x) at a point and inherits its forces and densities; a new spherical halo writes
`density` and inherits the rest.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from bayesdust import quadrature
from bayesdust.arrays import Array, Real
from bayesdust.units import G

_Z, _W = quadrature.half_line()


class Potential(eqx.Module):
    """A gravitational potential of any shape, in Cartesian coordinates about its centre.

    Methods take one point x (3,) [kpc] and are batched with `jax.vmap`. Subclasses give
    `potential`, smooth enough to be differentiated twice; `acceleration` and `density` follow by
    automatic differentiation unless a closed form replaces them.
    """

    @abc.abstractmethod
    def potential(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """Phi(x) [(km/s)^2] at x (3,) [kpc]."""

    def acceleration(self, x: Float[Array, "3"]) -> Float[Array, "3"]:
        """-grad Phi (3,) [(km/s)^2/kpc] at x (3,) [kpc]."""
        return -jax.grad(self.potential)(x)

    def density(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """rho = laplacian(Phi)/(4 pi G) [Msun/kpc3] at x (3,) [kpc] (Poisson's equation)."""
        return jnp.trace(jax.hessian(self.potential)(x)) / (4 * jnp.pi * G)

    def circular_velocity(self, R: Real) -> Float[Array, ""]:
        """v_circ = sqrt(R dPhi/dR) [km/s] at (x, y, z) = (R, 0, 0), R one radius [kpc].

        The speed of a circular orbit where the potential is symmetric about the z axis and the
        plane z = 0.
        """
        x = jnp.array([1.0, 0.0, 0.0]) * R
        return jnp.sqrt(-R * self.acceleration(x)[0])


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

    def slope(self, r: Real) -> Array:
        """-d ln rho / d ln r at r [kpc]."""
        ln_r = jnp.log(jnp.asarray(r, dtype=float))
        one = jnp.ones_like(ln_r)
        return -jax.jvp(lambda x: jnp.log(self.density(jnp.exp(x))), (ln_r,), (one,))[1]

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
