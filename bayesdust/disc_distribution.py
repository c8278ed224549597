"""Exact phase-space densities f(x, v) of a disc galaxy's stars in any axisymmetric potential.

By Jeans' theorem any function of the energy E and of the angular momentum L is in equilibrium. A disc
is (Shu 1969, eq. 8, with Binney 1987's dispersions that fall with radius)

    f = F(L) exp(-(E - E_c(L)) / sigma^2(L)),     L > 0,                                         (1)

with E_c the energy of the circular orbit that has L, whose radius is R_c. As d^3x d^3v is
dR dz dphi dv_R dv_z dL, without a factor R, the stars of one L have

    p(R, z | L)   ~ exp(-(Phi(R, z) + L^2/(2 R^2) - E_c) / sigma^2)  in dR dz,                    (2)
    p(v_R, v_z)   = N(0, sigma^2),   v_phi = L/R,

and sigma_R = sigma_z everywhere, unlike in the Galaxy. A halo is f = exp(-E/sigma^2).

L is counted along the rotation of the Galaxy, towards +y at x < 0 as in astropy's Galactocentric
frame: L = y v_x - x v_y. Lengths in kpc, velocities in km/s.
"""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from bayesdust.arrays import Array, Real
from bayesdust.potentials.base import Potential

_NEWTON = 7  # steps towards R_c(L); L from 0.3 to 1e5 kpc km/s needs 4
_EMPTY = 25.0  # below R_in/_EMPTY the taper has made f smaller than exp(-_EMPTY^2): zero
_OUTERMOST = 100.0  # kpc: circular orbits beyond carry no stars to a survey
COLDEST = 0.02  # sigma/(kappa R_c) that the steps in ln R_c of `ladder` resolve


class Circular(NamedTuple):
    """A circular orbit: scalars, or one array for many."""

    L: Array  # kpc km/s
    energy: Array  # (km/s)^2
    omega: Array  # angular speed, radial and vertical epicyclic frequency [km/s/kpc]
    kappa: Array
    nu: Array


class Moments(NamedTuple):
    """Stars of one component at a point: ln of their number density and moments of v [km/s]."""

    log_density: Array  # unnormalised as log_f is
    v_phi: Array  # mean streaming along the rotation
    sigma_phi: Array
    sigma_R: Array  # equal to sigma_z


class Component(eqx.Module):
    """Stars of one kind in a potential; methods take one point x (3,) [kpc], v (3,) [km/s]."""

    potential: eqx.AbstractVar[Potential]

    @abc.abstractmethod
    def log_f(self, x: Float[Array, "3"], v: Float[Array, "3"]) -> Float[Array, ""]:
        """ln f(x, v) up to a constant; -inf where there are no stars."""

    @abc.abstractmethod
    def moments(self, x: Float[Array, "3"]) -> Moments:
        """Number density, f integrated over v, and velocity moments at x."""


class Disc(Component):
    """Equation (1) with F = nu Omega / (kappa sigma^4) exp(-R_c/R_d - (R_in/R_c)^2).

    As far as epicycles go, stars then have guiding radii p(R_c) ~ R_c exp(-R_c/R_d) (Dehnen 1999,
    eq. 6, with the vertical motion integrated too). `R_d` [kpc]; sigma = `sigma_0` exp(-(R_c -
    R_0)/`R_sigma`) [km/s]. The taper `R_in` > 0 [kpc] empties the centre, and makes f vanish smoothly,
    with all its derivatives, as L goes to 0.
    """

    potential: Potential
    R_d: Real
    sigma_0: Real
    R_sigma: Real
    R_0: Real = 8.0
    R_in: Real = 1.0

    def circular(self, R_c: Real) -> Circular:
        """The circular orbit of one radius R_c [kpc]."""

        def phi(R: Array, z: Array) -> Array:
            return self.potential.potential(jnp.array([1.0, 0, 0]) * R + jnp.array([0, 0, 1.0]) * z)

        R, z = jnp.asarray(R_c, dtype=float), jnp.zeros(())
        energy, slope = jax.value_and_grad(phi)(R, z)
        bend = jax.grad(jax.grad(phi))(R, z)
        lift = jax.grad(jax.grad(phi, 1), 1)(R, z)
        return Circular(
            L=R * jnp.sqrt(R * slope),
            energy=energy + R * slope / 2,
            omega=jnp.sqrt(slope / R),
            kappa=jnp.sqrt(bend + 3 * slope / R),
            nu=jnp.sqrt(lift),
        )

    def guiding_radius(self, L: Real) -> Float[Array, ""]:
        """R_c [kpc] of one L > 0 [kpc km/s], by Newton's method in logarithms.

        Its derivatives, of any order, are those of the implicit function L(R_c) = L.
        """
        ln_L = jnp.log(L)

        def excess(y: Array) -> Array:
            """ln L of the circular orbit at ln R_c = y, less what is wanted."""
            x = jnp.array([1.0, 0.0, 0.0]) * jnp.exp(y)
            return 1.5 * y + jnp.log(jax.grad(self.potential.potential)(x)[0]) / 2 - ln_L

        def solve(f: Callable[[Array], Array], y: Array) -> Array:
            def improve(_: int, y: Array) -> Array:
                value, slope = jax.jvp(f, (y,), (jnp.ones_like(y),))
                return y - jnp.clip(value / slope, -2.0, 2.0)

            return jax.lax.fori_loop(0, _NEWTON, improve, y)

        start = ln_L - jnp.log(200.0)  # km/s, of no consequence
        y = jax.lax.custom_root(
            excess, start, solve, lambda linear, b: b / linear(jnp.ones_like(b))
        )
        return jnp.exp(y)

    def sigma(self, R_c: Real) -> Array:
        """sigma [km/s] of the stars with guiding radius R_c [kpc]."""
        return self.sigma_0 * jnp.exp(-(R_c - self.R_0) / self.R_sigma)

    def log_f(self, x: Float[Array, "3"], v: Float[Array, "3"]) -> Float[Array, ""]:
        L = x[1] * v[0] - x[0] * v[1]
        some = self.circular(self.R_in / _EMPTY).L < L
        R_c = self.guiding_radius(jnp.where(some, L, 200.0 * self.R_0))  # any L that is safe
        orbit, sigma = self.circular(R_c), self.sigma(R_c)
        energy = jnp.sum(v**2) / 2 + self.potential.potential(x)
        ln_F = jnp.log(orbit.nu * orbit.omega / orbit.kappa) - 4 * jnp.log(sigma)
        ln_F = ln_F - R_c / self.R_d - (self.R_in / R_c) ** 2
        return jnp.where(some, ln_F - (energy - orbit.energy) / sigma**2, -jnp.inf)

    def log_weight(self, R_c: Real, orbit: Circular, R: Real, phi: Real) -> Array:
        """ln of the stars per d ln(R_c) dR dz dphi: equation (2) times F dL/d ln R_c.

        For the guiding radius R_c with its circular orbit, where the potential at (R, z) is `phi`;
        any shapes that broadcast. The velocities v_R and v_z are integrated over, 2 pi sigma^2.
        """
        sigma = self.sigma(R_c)
        ln_stars = jnp.log(jnp.pi * R_c**2 * orbit.kappa * orbit.nu / sigma**2)
        ln_stars = ln_stars - R_c / self.R_d - (self.R_in / R_c) ** 2
        return ln_stars - (phi + (orbit.L / R) ** 2 / 2 - orbit.energy) / sigma**2

    def ladder(self, count: int = 400) -> tuple[Array, Circular]:
        """ln R_c (count,), evenly spaced over all the stars, and their circular orbits."""
        ln_R_c = jnp.linspace(jnp.log(self.R_in / 8), jnp.log(_OUTERMOST), count)
        return ln_R_c, jax.vmap(self.circular)(jnp.exp(ln_R_c))

    def moments(self, x: Float[Array, "3"]) -> Moments:
        """By the trapezoidal rule in ln R_c, spectral where sigma > COLDEST kappa R_c."""
        ln_R_c, orbits = self.ladder()
        R, R_c = jnp.sqrt(x[0] ** 2 + x[1] ** 2), jnp.exp(ln_R_c)
        ln_w = self.log_weight(R_c, orbits, R, self.potential.potential(x))
        p = jax.nn.softmax(ln_w)
        v_phi = orbits.L / R
        mean = jnp.sum(p * v_phi)
        return Moments(
            log_density=jax.nn.logsumexp(ln_w) + jnp.log((ln_R_c[1] - ln_R_c[0]) / R),
            v_phi=mean,
            sigma_phi=jnp.sqrt(jnp.sum(p * (v_phi - mean) ** 2)),
            sigma_R=jnp.sqrt(jnp.sum(p * self.sigma(R_c) ** 2)),
        )


class IsothermalHalo(Component):
    """f = exp(-E/sigma^2): density ~ exp(-Phi/sigma^2), no rotation, `sigma` [km/s] everywhere.

    Its Gaussian velocities are not cut at the escape speed.
    """

    potential: Potential
    sigma: Real

    def log_f(self, x: Float[Array, "3"], v: Float[Array, "3"]) -> Float[Array, ""]:
        return -(jnp.sum(v**2) / 2 + self.potential.potential(x)) / self.sigma**2

    def moments(self, x: Float[Array, "3"]) -> Moments:
        gauss = 1.5 * jnp.log(2 * jnp.pi * jnp.square(self.sigma))
        sigma = jnp.asarray(self.sigma, dtype=float)
        log_density = gauss - self.potential.potential(x) / sigma**2
        return Moments(log_density, jnp.zeros(()), sigma, sigma)
