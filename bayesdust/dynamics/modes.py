"""Smooth random fields of three dimensions as sums of a few hundred sines with normal coefficients.

A Gaussian process with the squared-exponential kernel

    k(x, x') = sigma^2 exp[-1/2 sum_d ((x_d - x'_d)/l_d)^2]

is, well inside a box of half-widths L_d, the sum of the box's modes (the eigenfunctions of its Laplacian)

    phi_j(x) = prod_d sin[omega_jd (x_d - c_d + L_d)] / sqrt(L_d),    omega_jd = pi m_jd / (2 L_d),

with independent normal coefficients whose variance is the kernel's spectral density at omega_j (Solin &
Sarkka 2020, Statistics and Computing 30, 419, eqs. 5, 8 and 56 for a box):

    S(omega) = sigma^2 (2 pi)^(3/2) l_1 l_2 l_3 exp[-1/2 sum_d (omega_d l_d)^2].

Gradient and Laplacian of a mode are closed forms, so that a potential of this kind has its forces and its
density exactly.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.errors import BayesdustError

MARGIN = 1.3  # half-width of the box over the ball's radius: the field vanishes at its walls


class Modes(eqx.Module):
    """Modes of a box: its `centre` (3,) and half-widths `half` (3,) [kpc], `orders` (p, 3) from 1 on."""

    centre: Float[np.ndarray, "3"]
    half: Float[np.ndarray, "3"]
    orders: np.ndarray

    @classmethod
    def covering(
        cls,
        centre: Float[np.ndarray, "3"],
        radius: float,
        lengths: Float[np.ndarray, "3"],
        number: int,
    ) -> "Modes":
        """The `number` modes with the largest variance at `lengths` [kpc], in a box about a ball [kpc].

        Raises BayesdustError for a number below one.
        """
        if number < 1:
            raise BayesdustError(f"A field of {number} modes was asked for: give one or more.")
        half = np.full(3, MARGIN * radius)
        # all that may be among the first: ellipsoids hold fewer modes than the boxes around them
        most = np.ceil(4 * half / lengths * (number / 30.0) ** (1 / 3)).astype(int) + 2
        orders = np.stack(np.meshgrid(*(np.arange(1, m + 1) for m in most), indexing="ij"), axis=-1)
        orders = orders.reshape(-1, 3)
        size = np.sum((orders * np.pi / (2 * half) * lengths) ** 2, axis=1)
        return cls(
            np.asarray(centre, dtype=float), half, orders[np.argsort(size, kind="stable")[:number]]
        )

    @property
    def number(self) -> int:
        """How many modes there are."""
        return len(self.orders)

    @property
    def omega(self) -> Float[np.ndarray, "p 3"]:
        """Wave numbers [1/kpc]."""
        return self.orders * np.pi / (2 * self.half)

    def variances(self, sigma: Array | float, lengths: Array) -> Float[Array, " p"]:
        """Prior variances of the coefficients for a kernel of sd `sigma` and `lengths` (3,) [kpc]."""
        scale = sigma**2 * (2 * jnp.pi) ** 1.5 * jnp.prod(jnp.asarray(lengths))
        return scale * jnp.exp(-0.5 * jnp.sum((self.omega * lengths) ** 2, axis=1))

    def values(self, x: Float[Array, "3"]) -> Float[Array, " p"]:
        """phi (p,) at x (3,) [kpc]."""
        a, b, c = self._sines(x)[0]
        return a * b * c

    def gradients(self, x: Float[Array, "3"]) -> Float[Array, "p 3"]:
        """grad phi (p, 3) [1/kpc]."""
        (a, b, c), (da, db, dc) = self._sines(x)
        return jnp.stack([da * b * c, a * db * c, a * b * dc], axis=1)

    def laplacians(self, x: Float[Array, "3"]) -> Float[Array, " p"]:
        """laplacian of phi (p,) [1/kpc2] = -|omega|^2 phi."""
        return -jnp.sum(self.omega**2, axis=1) * self.values(x)

    def _sines(self, x: Array) -> tuple[list[Array], list[Array]]:
        """The factors of every mode along the axes, and their slopes.

        Each order's sine once, dealt out to the modes by a product with zeros and ones: three times
        faster than indexing.
        """
        sines, slopes = [], []
        for axis in range(3):
            L, order = self.half[axis], np.arange(1, self.orders[:, axis].max() + 1)
            deal = (self.orders[:, axis] == order[:, None]) / np.sqrt(L)
            omega = order * np.pi / (2 * L)
            angle = omega * (x[axis] - self.centre[axis] + L)
            sines.append(jnp.sin(angle) @ deal)
            slopes.append((omega * jnp.cos(angle)) @ deal)
        return sines, slopes


class Enveloped(eqx.Module):
    """The field of `modes` times a smooth envelope, itself a sum of the same modes with `heights` (p,).

    Where the envelope is zero the field is known to be.
    """

    modes: Modes
    heights: Float[np.ndarray, " p"]

    @classmethod
    def like(
        cls,
        modes: Modes,
        lengths: Float[np.ndarray, "3"],
        x: Float[np.ndarray, "n 3"],
        values: Float[np.ndarray, " n"],
    ) -> "Enveloped":
        """An envelope close to `values` at x (n, 3) [kpc], and no rougher than `lengths` [kpc].

        The mean of a Gaussian process of those lengths, whose sd at a place is ten times the errors there.
        """
        found = jax.jit(jax.vmap(modes.values))(jnp.asarray(x))
        sd = jnp.sqrt(modes.variances(10.0, jnp.asarray(lengths)))
        design = found * sd
        normal = design.T @ design + jnp.eye(modes.number)
        return cls(modes, np.asarray(sd * jnp.linalg.solve(normal, design.T @ values)))

    @property
    def number(self) -> int:
        """How many modes there are."""
        return self.modes.number

    def variances(self, sigma: Array | float, lengths: Array) -> Float[Array, " p"]:
        """Prior variances of the coefficients; `sigma` is relative to the envelope."""
        return self.modes.variances(sigma, lengths)

    def values(self, x: Float[Array, "3"]) -> Float[Array, " p"]:
        """Envelope times phi (p,) at x (3,) [kpc]."""
        phi = self.modes.values(x)
        return (phi @ self.heights) * phi

    def gradients(self, x: Float[Array, "3"]) -> Float[Array, "p 3"]:
        """The gradients (p, 3) [1/kpc] of that."""
        phi, slopes = self.modes.values(x), self.modes.gradients(x)
        return phi[:, None] * (self.heights @ slopes) + (phi @ self.heights) * slopes
