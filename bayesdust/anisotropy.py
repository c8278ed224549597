"""Velocity anisotropy beta_ani(r) = 1 - sigma_t^2 / sigma_r^2 and its integrating factor g(r).

sigma_t^2 is one tangential component. g solves d ln g / d ln r = 2 beta_ani, which turns the Jeans
equation into a plain integral (van der Marel 1994; Mamon & Lokas 2005, eq. A1). A new profile
writes `beta` and `log_g`.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from bayesdust.arrays import Array, Real


class Anisotropy(eqx.Module):
    """beta_ani(r), r in kpc, any shape."""

    @abc.abstractmethod
    def beta(self, r: Real) -> Array:
        """beta_ani(r), below 1."""

    @abc.abstractmethod
    def log_g(self, r: Real) -> Array:
        """ln g(r), up to a constant."""

    def beta_slope(self, r: Real) -> Array:
        """d beta_ani / d ln r."""
        ln_r = jnp.log(jnp.asarray(r, dtype=float))
        return jax.jvp(lambda x: self.beta(jnp.exp(x)), (ln_r,), (jnp.ones_like(ln_r),))[1]


class Isotropic(Anisotropy):
    """beta_ani = 0."""

    def beta(self, r: Real) -> Array:
        return jnp.zeros_like(jnp.asarray(r, dtype=float))

    def log_g(self, r: Real) -> Array:
        return jnp.zeros_like(jnp.asarray(r, dtype=float))


class Constant(Anisotropy):
    """The same `beta_0` < 1 at every radius."""

    beta_0: Real

    def beta(self, r: Real) -> Array:
        return self.beta_0 * jnp.ones_like(jnp.asarray(r, dtype=float))

    def log_g(self, r: Real) -> Array:
        return 2 * self.beta_0 * jnp.log(r)


class OsipkovMerritt(Anisotropy):
    """beta_ani = r^2 / (r^2 + r_a^2) (Osipkov 1979; Merritt 1985); `r_a` [kpc]."""

    r_a: Real

    def beta(self, r: Real) -> Array:
        return 1 / (1 + (self.r_a / jnp.asarray(r)) ** 2)

    def log_g(self, r: Real) -> Array:
        return jnp.log1p((r / self.r_a) ** 2)


class BaesVanHese(Anisotropy):
    """(beta_0 + beta_inf y) / (1 + y), y = (r/r_a)^eta (Baes & van Hese 2007, sec. 4).

    Runs from `beta_0` inside to `beta_inf` outside `r_a` [kpc] with sharpness `eta` > 0;
    Osipkov-Merritt is (0, 1, r_a, 2).
    """

    beta_0: Real
    beta_inf: Real
    r_a: Real
    eta: Real

    def beta(self, r: Real) -> Array:
        outside = 1 / (1 + (self.r_a / jnp.asarray(r)) ** self.eta)
        return self.beta_0 + (self.beta_inf - self.beta_0) * outside

    def log_g(self, r: Real) -> Array:
        turn = jnp.log1p((r / self.r_a) ** self.eta) / self.eta
        return 2 * self.beta_0 * jnp.log(r) + 2 * (self.beta_inf - self.beta_0) * turn


def from_symmetrised(beta_tilde: Real) -> Array:
    """beta_ani from beta_tilde = (sigma_r^2 - sigma_t^2)/(sigma_r^2 + sigma_t^2).

    beta_tilde = beta_ani/(2 - beta_ani) lies in (-1, 1), 0 is isotropic, and radial and tangential
    are treated alike (Read+2006, eq. 5).
    """
    beta_tilde = jnp.asarray(beta_tilde)
    return 2 * beta_tilde / (1 + beta_tilde)


def to_symmetrised(beta_ani: Real) -> Array:
    """beta_tilde = beta_ani / (2 - beta_ani), the inverse of `from_symmetrised`."""
    beta_ani = jnp.asarray(beta_ani)
    return beta_ani / (2 - beta_ani)


ANISOTROPIES: dict[str, type[Anisotropy]] = {
    "isotropic": Isotropic,
    "constant": Constant,
    "osipkov_merritt": OsipkovMerritt,
    "baes_van_hese": BaesVanHese,
}
