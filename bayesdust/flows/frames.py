"""The coordinates in which a flow sees a star: all that is known before anything is learnt.

Velocities are turned into the cylindrical frame of the star's place, (v_R, v_phi, v_z), and the places
that a velocity depends on are given as (R, phi, z): in an axisymmetric galaxy nothing then depends on
phi, while a flow that is given Cartesian components has to learn the rotation, streaming and all, to
a small fraction of the velocity dispersion. Nothing is assumed: phi is still among the conditions, and
a rotation has a Jacobian of one. Where the axis passes through the survey, use "cartesian".
"""

import equinox as eqx
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection
from jaxtyping import Array, Float
from paramax import NonTrainable

Fixed = Array | NonTrainable  # numbers that training leaves alone


class Standardise(AbstractBijection):
    """From y (d,) to (y - mean) / sd."""

    mean: Fixed
    sd: Fixed
    shape: tuple[int, ...] = eqx.field(static=True, default=(3,))
    cond_shape: None = eqx.field(static=True, default=None)

    def transform_and_log_det(self, x, condition=None):
        return (x - self.mean) / self.sd, -jnp.sum(jnp.log(self.sd))

    def inverse_and_log_det(self, y, condition=None):
        return y * self.sd + self.mean, jnp.sum(jnp.log(self.sd))


class CylindricalVelocity(AbstractBijection):
    """From (v_x, v_y, v_z) at the place (x, y, z) to (v_R, v_phi, v_z): a rotation."""

    shape: tuple[int, ...] = eqx.field(static=True, default=(3,))
    cond_shape: tuple[int, ...] = eqx.field(static=True, default=(3,))

    def transform_and_log_det(self, x, condition=None):
        c, s = _direction(condition)
        return jnp.stack([c * x[0] + s * x[1], c * x[1] - s * x[0], x[2]]), jnp.zeros_like(x[0])

    def inverse_and_log_det(self, y, condition=None):
        c, s = _direction(condition)
        return jnp.stack([c * y[0] - s * y[1], s * y[0] + c * y[1], y[2]]), jnp.zeros_like(y[0])


class Place(eqx.Module):
    """The numbers (3,), of order one, by which a velocity distribution knows where it is.

    In the cylindrical frame R - R0, R0 sin(phi - phi0) and z - z0, with (R0, phi0, z0) the centre of
    the survey, else x - x0, y - y0 and z - z0; then standardised.
    """

    centre: Fixed  # (3,) [kpc]
    mean: Fixed  # (3,) [kpc]
    sd: Fixed  # (3,) [kpc]
    frame: str = eqx.field(static=True)

    def __call__(self, x: Float[Array, "3"]) -> Float[Array, "3"]:
        return (self.coordinates(x) - self.mean) / self.sd

    def coordinates(self, x: Float[Array, "3"]) -> Float[Array, "3"]:
        """Before they are standardised [kpc]."""
        if self.frame == "cartesian":
            return x - self.centre
        R = jnp.hypot(x[0], x[1])
        R0 = jnp.hypot(self.centre[0], self.centre[1])
        across = (self.centre[0] * x[1] - self.centre[1] * x[0]) / R
        return jnp.stack([R - R0, across, x[2] - self.centre[2]])


def _direction(x: Float[Array, "3"]) -> tuple[Array, Array]:
    """cos phi and sin phi of a place."""
    R = jnp.hypot(x[0], x[1])
    return x[0] / R, x[1] / R
