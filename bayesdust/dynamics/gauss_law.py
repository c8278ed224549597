"""The density of mass from accelerations at places, by Gauss's law: no derivative of them is taken.

Averaged over a kernel K about x_0 that vanishes with its slope at its edge, Poisson's equation is

    4 pi G <rho> = -int K div a d^3x = int a . grad K d^3x,                                           (1)

so that errors of a that change from place to place average out, where a derivative would raise them
(Lim+2023, arXiv:2305.13358, sec. 4.3, with a truncated Gaussian). Here K = (1 - q)^3 within the ellipsoid
q = sum ((x - x_0)/widths)^2 < 1, normalised to one.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.errors import BayesdustError
from bayesdust.units import G


class GaussLaw(eqx.Module):
    """Places about x_0 where accelerations are asked: `offsets` (m, 3) [kpc], and what (1) and the mean
    of any other function take them by, `slopes` (m, 3) [1/kpc] and `shares` (m,), which add up to one."""

    offsets: Float[np.ndarray, "m 3"]
    slopes: Float[np.ndarray, "m 3"]
    shares: Float[np.ndarray, " m"]

    @classmethod
    def within(
        cls, widths: tuple[float, float, float], number: tuple[int, int, int] = (6, 8, 12)
    ) -> "GaussLaw":
        """Semi-axes `widths` [kpc]; `number` of radii, of heights and of azimuths. Exact for accelerations
        that are polynomials of degree up to 2 `number`[0] - 7 and less than the other two allow.

        Raises BayesdustError for widths or numbers that are not positive.
        """
        if min(widths) <= 0 or min(number) < 2:
            raise BayesdustError(
                f"A kernel of {widths} kpc at {number} nodes cannot be made: give widths above 0 and two "
                "nodes or more."
            )
        r, w_r = np.polynomial.legendre.leggauss(number[0])
        r, w_r = (r + 1) / 2, w_r / 2
        cosine, w_cosine = np.polynomial.legendre.leggauss(number[1])
        phi = 2 * np.pi * np.arange(number[2]) / number[2]
        r, cosine, phi = (a.ravel() for a in np.meshgrid(r, cosine, phi, indexing="ij"))
        sine = np.sqrt(1 - cosine**2)
        u = r[:, None] * np.column_stack([sine * np.cos(phi), sine * np.sin(phi), cosine])
        w = np.einsum(
            "i,j,k->ijk", w_r, w_cosine, np.full(number[2], 2 * np.pi / number[2])
        ).ravel()
        w = w * r**2 * 315 / (64 * np.pi)  # the integral of (1 - q)^3 is 64 pi/315
        slopes = -6 * (w * (1 - r**2) ** 2)[:, None] * u / np.asarray(widths)
        return cls(u * np.asarray(widths), slopes, w * (1 - r**2) ** 3)

    def density(self, a: Float[Array, "*n m 3"]) -> Float[Array, "*n"]:
        """<rho> [Msun/kpc3] from accelerations [(km/s)^2/kpc] at the m places."""
        return jnp.sum(self.slopes * a, axis=(-2, -1)) / (4 * jnp.pi * G)

    def mean(self, values: Float[Array, "*n m"]) -> Float[Array, "*n"]:
        """The mean over the kernel of a function given at the m places."""
        return jnp.sum(self.shares * values, axis=-1)
