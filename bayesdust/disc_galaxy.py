"""Stars of several kinds in one axisymmetric potential, seen inside a ball: f(x, v), normalised."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from bayesdust.arrays import Array
from bayesdust.disc_distribution import COLDEST, Component, Disc
from bayesdust.errors import BayesdustError
from bayesdust.potentials.base import Potential


class Ball(NamedTuple):
    """The volume of a survey: a ball off the axis of the galaxy [kpc]."""

    centre: tuple[float, float, float]
    radius: float

    @property
    def R(self) -> float:
        """Cylindrical radius of the centre [kpc]."""
        return float(np.hypot(self.centre[0], self.centre[1]))

    def contains(self, x: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points x (n, 3) are inside."""
        return np.sum((x - np.asarray(self.centre)) ** 2, axis=-1) < self.radius**2

    def nodes(self, n: tuple[int, int, int] = (60, 12, 20)) -> tuple[Array, Array]:
        """Points (m, 3) [kpc] and weights (m,) [kpc3] that integrate axisymmetric functions over it.

        Slices in z = h sinh(t), crowded about the plane, and discs in each, by Gauss-Legendre in
        the square of their radius and the trapezoidal rule in angle: spectral, no edge is cut. By
        symmetry the centre is moved to azimuth 0 and half of each disc is enough.
        """
        t, w_t = np.polynomial.legendre.leggauss(n[0])
        low, high = (np.arcsinh((self.centre[2] + s * self.radius) / 0.3) for s in (-1, 1))
        t = low + (high - low) * (t + 1) / 2
        z, w_z = 0.3 * np.sinh(t), 0.3 * np.cosh(t) * w_t * (high - low) / 2
        u, w_u = np.polynomial.legendre.leggauss(n[1])
        size2 = self.radius**2 - (z - self.centre[2]) ** 2
        s = np.sqrt(size2[:, None] * (u + 1) / 2)[..., None]
        angle = np.linspace(0, np.pi, n[2])
        w_angle = np.full(n[2], 2 * np.pi / (n[2] - 1))
        w_angle[[0, -1]] /= 2
        weights = (w_z * size2 / 4)[:, None, None] * w_u[:, None] * w_angle
        x = np.broadcast_arrays(self.R + s * np.cos(angle), s * np.sin(angle), z[:, None, None])
        return jnp.asarray(np.stack(x, axis=-1).reshape(-1, 3)), jnp.asarray(weights.ravel())


class DiscGalaxy(eqx.Module):
    """A mixture of components, normalised to one star inside a ball; made by `mix`.

    f goes on smoothly outside the ball, where a survey has no stars.
    """

    components: tuple[Component, ...]
    fractions: Float[Array, " k"]  # of the stars inside the ball
    log_norms: Float[Array, " k"]  # ln of the integral of each component over the ball
    names: tuple[str, ...] = eqx.field(static=True)
    ball: Ball = eqx.field(static=True)

    @property
    def potential(self) -> Potential:
        return self.components[0].potential

    def log_parts(self, x: Float[Array, "3"], v: Float[Array, "3"]) -> Float[Array, " k"]:
        """ln f [(kpc km/s)^-3] of each component times its fraction, at x (3,) and v (3,)."""
        parts = jnp.stack([component.log_f(x, v) for component in self.components])
        return parts - self.log_norms + jnp.log(self.fractions)

    def log_f(self, x: Float[Array, "3"], v: Float[Array, "3"]) -> Float[Array, ""]:
        """ln f [(kpc km/s)^-3] at x (3,) [kpc] and v (3,) [km/s]."""
        return jax.nn.logsumexp(self.log_parts(x, v))

    def scores(
        self, x: Float[Array, "3"], v: Float[Array, "3"]
    ) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
        """grad_x ln f [1/kpc] and grad_v ln f [s/km], (3,) each."""
        return jax.grad(self.log_f, argnums=(0, 1))(x, v)

    def log_densities(self, x: Float[Array, "3"]) -> Float[Array, " k"]:
        """ln n(x) [1/kpc3] of each component times its fraction, f integrated over v."""
        parts = jnp.stack([component.moments(x).log_density for component in self.components])
        return parts - self.log_norms + jnp.log(self.fractions)

    def log_density(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """ln n(x) [1/kpc3], f integrated over v."""
        return jax.nn.logsumexp(self.log_densities(x))


def mix(components: dict[str, Component], fractions: dict[str, float], ball: Ball) -> DiscGalaxy:
    """Components of one potential, with their `fractions` of the stars inside `ball`, made one.

    Raises
    ------
    BayesdustError
        If the names or the potentials differ, the fractions are not positive with the sum one, the
        ball reaches the axis, or a disc is too cold for the quadratures.
    """
    shares = np.array([fractions.get(name, np.nan) for name in components])
    if (
        fractions.keys() != components.keys()
        or not (shares > 0).all()
        or abs(sum(shares) - 1) > 1e-9
    ):
        raise BayesdustError(
            f"fractions {fractions} are given for components {sorted(components)}: give each its "
            "share of the stars, above 0 and adding up to 1"
        )
    if not 0 < ball.radius < ball.R:
        raise BayesdustError(
            f"a ball of {ball.radius} kpc at {ball.R:.3g} kpc from the axis: it must not reach it"
        )
    # numbers as arrays are arguments of a compiled function, which then serves every component
    parts = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=float), tuple(components.values()))
    for name, part in zip(components, parts, strict=True):
        if not eqx.tree_equal(part.potential, parts[0].potential):
            raise BayesdustError(
                f"{name!r} lives in another potential than the first component: give all the same"
            )
        if isinstance(part, Disc):
            _refuse_cold(name, part, ball)
    x, weights = ball.nodes()
    norms = [_log_integral(part, x, weights) for part in parts]
    return DiscGalaxy(
        components=parts,
        fractions=jnp.asarray(shares),
        log_norms=jnp.stack(norms),
        names=tuple(components),
        ball=ball,
    )


@eqx.filter_jit
def _log_integral(component: Component, x: Array, weights: Array) -> Float[Array, ""]:
    """ln of the integral of a component over nodes x (m, 3) with weights (m,)."""
    # batches that divide the default number of nodes: a remainder would be compiled apart
    log_density = jax.lax.map(lambda p: component.moments(p).log_density, x, batch_size=1440)
    return jax.nn.logsumexp(log_density, b=weights)


def _refuse_cold(name: str, disc: Disc, ball: Ball) -> None:
    warmth = float(jnp.min(_warmth(disc, ball.R + ball.radius * jnp.linspace(-1.0, 1.0, 9))))
    if not warmth > COLDEST:
        raise BayesdustError(
            f"the disc {name!r} is too cold: sigma/(kappa R) falls to {warmth:.3g} inside the ball, "
            f"below {COLDEST}; raise sigma_0 or R_sigma"
        )


@eqx.filter_jit
def _warmth(disc: Disc, R_c: Array) -> Array:
    """sigma/(kappa R_c) at R_c (n,) [kpc]."""
    return disc.sigma(R_c) / (jax.vmap(disc.circular)(R_c).kappa * R_c)
