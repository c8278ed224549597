"""Rotation-equivariant continuous flows in Cartesian space: densities that are exactly spherical.

A point moves along its own radius (Lim+2025, arXiv:2505.00763),

    dx/dt = x g(|x|^2, t),   0 <= t <= 1,

so that x(1) = x(0) exp(D) with D = int g dt a function of s = |x(0)|^2 alone. D is integrated instead of
x: nothing is singular at the centre, and the divergence is one-dimensional, for the map's Jacobian is
exp(3 D) (1 + dD/d ln r). Classical Runge-Kutta with a fixed number of steps makes the map; its own
derivative, not an integral of the divergence, gives the Jacobian, so that the log-density is exact for
the map that is used, however coarse the steps, as long as that map is one to one. True orbits never cross,
but steps too coarse for a violent field (of order ten) fold space: log-det and inverse are then NaN in
some places, the inverse is wrong in more, and more steps mend both.

Points are (3,), in units in which the base is a standard normal; `SphericalScale` brings kpc in. The
classes are flowjax bijections, and what is made of them flowjax distributions.
"""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection, Chain, Invert
from flowjax.distributions import AbstractTransformed, StandardNormal, Transformed
from jaxtyping import Float

from bayesdust.anisotropy import Anisotropy
from bayesdust.arrays import Array, Real

STEPS = 8  # of Runge-Kutta
_POLISH = 3  # Newton steps that make the inverse exact; the last but one is so already
#: g(s, t) or g(s, t, condition), all scalars but the condition
Field = Callable[..., Array]


class NetworkField(eqx.Module):
    """g(s, t) of a perceptron with features ln(1 + s), t and perhaps ln(1 + |condition|^2).

    Smooth in s = r^2, so the density is flat at the centre. Far out g is linear in ln r, so r becomes a
    power of r, and the normal base a stretched exponential, ln n ~ -r^q with q > 0: over the radii
    of the stars it may look like a power law, but its slope steepens for ever.
    """

    network: eqx.nn.MLP

    def __init__(self, key: Array, width: int = 16, depth: int = 2, conditional: bool = False):
        self.network = eqx.nn.MLP(
            3 if conditional else 2, "scalar", width, depth, jax.nn.silu, key=key
        )

    def __call__(self, s: Array, t: Array, condition: Array | None = None) -> Array:
        features = [jnp.log1p(s), t]
        if condition is not None:
            features.append(jnp.log1p(condition @ condition))
        return self.network(jnp.stack(jnp.broadcast_arrays(*features)))


class CoredField(eqx.Module):
    """The field of Lim+2025's cored model, dx/dt = r_hat tanh(r/r_0) f: `field` times tanh(r/r_0)/(r/r_0).

    Far outside r_0 points move by steps r_0 g, which grow like ln r at most, and not by factors, so that
    the tail stays that of a normal law, ln n ~ -r^2/2.
    """

    field: Field
    r_0: Real = 1.0

    def __call__(self, s: Array, t: Array, condition: Array | None = None) -> Array:
        more = () if condition is None else (condition,)
        return tanhc(s / self.r_0**2) * self.field(s, t, *more)


class RampField(eqx.Module):
    """g(s) = a_0 + sum_k a_k w softplus((L - L_k)/w), L = ln(1 + s/eps^2): linear in its weights a.

    A network with one hidden layer whose units stay where they are, so they cannot change places, which
    gives a free network's posterior its many equal modes. Knots L_k = k w, k = 0, 1..., start at the centre;
    far out L/2 = ln(r/eps) and g = const + 2 ln r sum_k a_k, so ln n ~ -r^q with q = 2 exp(-2 sum_k a_k),
    or with `invert` q = 2 exp(2 sum_k a_k): a stretched exponential and never a power law.
    """

    weights: Float[Array, " k"]
    spacing: Real = 1.0
    eps: float = 0.3

    def __call__(self, s: Array, t: Array, condition: Array | None = None) -> Array:
        L = jnp.log1p(s / self.eps**2)
        knots = self.spacing * jnp.arange(len(self.weights) - 1)
        ramps = self.spacing * jax.nn.softplus(L / self.spacing - knots / self.spacing)
        return self.weights[0] + ramps @ self.weights[1:]


def tanhc(s: Array) -> Array:
    """tanh(x)/x as a function of s = x^2, by its series near 0."""
    small = s < 3e-3
    x = jnp.sqrt(jnp.where(small, 1.0, s))
    series = 1 - s / 3 * (1 - s * (2 / 5 - s * (17 / 105 - s * 62 / 945)))
    return jnp.where(small, series, jnp.tanh(x) / x)


def stretch(
    field: Field, s: Array, forward: bool, steps: int = STEPS, condition: Array | None = None
) -> tuple[Array, Array]:
    """D and ln|det| of the map x -> x exp(D) at s = |x|^2, with t from 0 to 1, or from 1 to 0."""
    more = () if condition is None else (condition,)
    h = (1.0 if forward else -1.0) / steps
    start = 0.0 if forward else 1.0

    def integrate(ln_stretch: Array) -> Array:
        """D of a point moved along its radius by a factor exp(`ln_stretch`)."""

        def rate(D: Array, t: Array) -> Array:
            return field(s * jnp.exp(2 * (D + ln_stretch)), t, *more)

        def step(D: Array, i: Array) -> tuple[Array, None]:
            t = start + i * h
            a = rate(D, t)
            b = rate(D + h / 2 * a, t + h / 2)
            c = rate(D + h / 2 * b, t + h / 2)
            d = rate(D + h * c, t + h)
            return D + h / 6 * (a + 2 * b + 2 * c + d), None

        return jax.lax.scan(step, jnp.zeros_like(s), jnp.arange(steps, dtype=s.dtype))[0]

    D, slope = jax.jvp(integrate, (jnp.zeros_like(s),), (jnp.ones_like(s),))
    return D, 3 * D + jnp.log1p(slope)


class RadialFlow(AbstractBijection):
    """x -> x exp(D(|x|^2)), D the time integral of `field`; rotations commute with it.

    The inverse is the exact one of the discrete map: Runge-Kutta backwards, and Newton steps.
    """

    field: Field
    steps: int = STEPS
    cond_shape: tuple[int, ...] | None = None
    shape: ClassVar[tuple[int, ...]] = (3,)

    def transform_and_log_det(
        self, x: Array, condition: Array | None = None
    ) -> tuple[Array, Array]:
        """The point at t = 1 of the one at t = 0."""
        D, log_det = stretch(self.field, x @ x, True, self.steps, self._used(condition))
        return x * jnp.exp(D), log_det

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """The point at t = 0 of the one at t = 1."""
        condition, s = self._used(condition), y @ y

        def improve(D: Array, _: None) -> tuple[Array, Array]:
            back, log_det = stretch(self.field, s * jnp.exp(2 * D), True, self.steps, condition)
            # d(D + back)/dD is 1 + the slope of `back`
            return D - (D + back) * jnp.exp(3 * back - log_det), log_det

        D, _ = stretch(self.field, s, False, self.steps, condition)
        D, log_dets = jax.lax.scan(improve, D, None, length=_POLISH)
        return y * jnp.exp(D), -log_dets[-1]

    def _used(self, condition: Array | None) -> Array | None:
        return None if self.cond_shape is None else condition


class RadialPower(AbstractBijection):
    """x -> x |x|^c: a density flat at the centre becomes a cusp of slope 3 c/(1 + c); c > -1.

    At the centre itself ln|det| is that of the limit: finite for c = 0, infinite for a cusp.
    """

    c: Real
    shape: ClassVar[tuple[int, ...]] = (3,)
    cond_shape: ClassVar[None] = None

    def transform_and_log_det(
        self, x: Array, condition: Array | None = None
    ) -> tuple[Array, Array]:
        """Outwards for |x| > 1."""
        return _raised(x, jnp.asarray(self.c, dtype=x.dtype))

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """x |x|^(-c/(1 + c))."""
        return _raised(y, jnp.asarray(-self.c / (1 + self.c), dtype=y.dtype))


def _raised(x: Float[Array, "3"], c: Array) -> tuple[Array, Array]:
    """x |x|^c and ln|det| = 3 c ln|x| + ln(1 + c), whose limit at the centre is -inf, 0 or inf."""
    s = x @ x
    centre = s == 0
    ln_r = 0.5 * jnp.log(jnp.where(centre, 1.0, s))  # no log of 0: its gradient would be NaN
    log_det = 3 * c * ln_r + jnp.log1p(c)
    infinite = jnp.where(c > 0, -jnp.inf, jnp.inf)
    return x * jnp.exp(c * ln_r), jnp.where(centre & (c != 0), infinite, log_det)


class SphericalScale(AbstractBijection):
    """x -> `scale` x: the unit of length (kpc) or of velocity (km/s)."""

    scale: Real
    shape: ClassVar[tuple[int, ...]] = (3,)
    cond_shape: ClassVar[None] = None

    def transform_and_log_det(
        self, x: Array, condition: Array | None = None
    ) -> tuple[Array, Array]:
        """To the unit."""
        return x * self.scale, 3 * jnp.log(jnp.asarray(self.scale, dtype=x.dtype))

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """From the unit."""
        return y / self.scale, -3 * jnp.log(jnp.asarray(self.scale, dtype=y.dtype))


class Orbits(AbstractBijection):
    """Velocity at a position, the condition: the tangential components times sqrt(1 - beta_ani(r)).

    An isotropic velocity becomes one with sigma_t^2 = (1 - beta_ani) sigma_r^2. At the centre no direction
    is radial, so velocities have a law there only if beta_ani(0) = 0: else they are NaN, the density 0.
    """

    anisotropy: Anisotropy
    shape: ClassVar[tuple[int, ...]] = (3,)
    cond_shape: ClassVar[tuple[int, ...]] = (3,)

    def transform_and_log_det(
        self, x: Array, condition: Array | None = None
    ) -> tuple[Array, Array]:
        """From isotropic to anisotropic."""
        return self._scaled(x, condition, 0.5)

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """From anisotropic to isotropic."""
        return self._scaled(y, condition, -0.5)

    def _scaled(self, v: Array, place: Array | None, power: float) -> tuple[Array, Array]:
        assert place is not None
        r2 = place @ place
        centre = r2 == 0
        r2 = jnp.where(centre, 1.0, r2)  # no 0/0, in the gradient neither
        r = jnp.where(centre, 0.0, jnp.sqrt(r2))
        beta = self.anisotropy.beta(r).astype(v.dtype)
        ln_tangential = power * jnp.log1p(-beta)
        radial = place * (place @ v) / r2
        moved = radial + jnp.exp(ln_tangential) * (v - radial)
        return jnp.where(centre & (beta != 0), jnp.nan, moved), 2 * ln_tangential


def spherical_flow(
    field: Field,
    scale: Real = 1.0,
    gamma: Real | None = None,
    steps: int = STEPS,
    *,
    invert: bool = False,
) -> AbstractTransformed:
    """n(x) [1/kpc3], one star in all: cored, or with a cusp of slope `gamma` < 3 (c = gamma/(3 - gamma)).

    `field` moves a standard normal to the stars, which makes draws cheap, or with `invert` the stars to
    a standard normal, which makes densities cheap; `scale` [kpc] is the unit of length. At x = 0 the
    density of a cusp is infinite; `gamma` = 0 is the cored one.
    """
    flow = RadialFlow(field, steps)
    chain: list[AbstractBijection] = [Invert(flow) if invert else flow]
    if gamma is not None:
        chain.append(RadialPower(gamma / (3 - gamma)))
    return Transformed(_base(), Chain([*chain, SphericalScale(scale)]))


def velocity_flow(
    field: Field, anisotropy: Anisotropy, scale: Real = 1.0, steps: int = STEPS
) -> AbstractTransformed:
    """p(v | x) [(km/s)^-3] with the given anisotropy; `field` is conditional on the position [kpc]."""
    flow = RadialFlow(field, steps, (3,))
    orbits = Orbits(anisotropy)
    return Transformed(_base(), Chain([flow, SphericalScale(scale), orbits]))


def _base() -> StandardNormal:
    return StandardNormal((3,))
