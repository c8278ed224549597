"""The Milky Way's phase-space density f(x, v) = n(x) p(v | x) as two masked autoregressive flows.

As in Lim+2023 (arXiv:2305.13358, sec. 3): the density in space and that of the velocities given the
place are learnt apart. The survey's ball is mapped smoothly onto R^3 (`ball.Ball`), velocities are seen in
the cylindrical frame of their place (`frames`), both are then standardised, and autoregressive layers
(`layers.MaskedAffine`) carry them to the standard normal. Densities take one pass; everything is smooth,
so scores and their derivatives exist everywhere inside the ball. Numbers are float32.
"""

from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.bijections import Chain, EmbedCondition, Invert
from flowjax.distributions import StandardNormal, Transformed
from jaxtyping import Float
from paramax import NonTrainable

from bayesdust.arrays import Array
from bayesdust.errors import BayesdustError
from bayesdust.flows.ball import Ball
from bayesdust.flows.frames import CylindricalVelocity, Place, Standardise
from bayesdust.flows.layers import ACTIVATIONS, MaskedAffine

ORDERS = ((0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1), (1, 0, 2))


@dataclass(frozen=True)
class Architecture:
    """What a flow is built of, all that a saved one needs to be built again.

    `centre` (3,) and `radius` [kpc] of the survey's ball; `v_mean`, `v_sd` (3,) [km/s] in the frame, and
    `x_mean`, `x_sd` (3,) [kpc] of the places, by which they are standardised; `layers` and `widths` of
    the hidden layers of each of the two flows.
    """

    centre: tuple[float, ...]
    radius: float
    v_mean: tuple[float, ...]
    v_sd: tuple[float, ...]
    x_mean: tuple[float, ...]
    x_sd: tuple[float, ...]
    frame: str = "cylindrical"
    layers: int = 4
    widths: tuple[int, ...] = (48, 48)
    activation: str = "silu"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS or self.frame not in ("cylindrical", "cartesian"):
            raise BayesdustError(f"A flow cannot have {self.activation!r} or {self.frame!r}.")

    @classmethod
    def for_stars(
        cls,
        x: Float[np.ndarray, "n 3"],
        v: Float[np.ndarray, "n 3"],
        centre: tuple[float, ...],
        radius: float,
        **more: Any,
    ) -> "Architecture":
        """Standardised by the stars themselves."""
        known = {"centre": tuple(centre), "radius": float(radius), **more}
        blank = dict.fromkeys(("v_mean", "x_mean"), (0.0,) * 3)
        blank |= dict.fromkeys(("v_sd", "x_sd"), (1.0,) * 3)
        plain = cls(**known, **blank)
        place = paramax.unwrap(plain.place())
        places = np.asarray(jax.vmap(place.coordinates)(jnp.asarray(x, jnp.float32)))
        seen = np.asarray(v)
        if plain.frame == "cylindrical":
            turn = CylindricalVelocity()
            seen = np.asarray(jax.vmap(turn.transform)(jnp.asarray(v), jnp.asarray(x)))
        numbers = {
            "v_mean": seen.mean(axis=0),
            "v_sd": seen.std(axis=0),
            "x_mean": places.mean(axis=0),
            "x_sd": places.std(axis=0),
        }
        return cls(**known, **{k: tuple(float(a) for a in v) for k, v in numbers.items()})

    def place(self) -> Place:
        """By what a velocity distribution knows where it is."""
        return Place(*map(_fixed, (self.centre, self.x_mean, self.x_sd)), self.frame)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> "Architecture":
        """Of `to_dict`, lists for tuples."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()})


class PhaseSpaceFlow(eqx.Module):
    """f(x, v): `n` and `p` are flowjax distributions, p with the place x [kpc] as its condition."""

    n: Transformed
    p: Transformed

    @classmethod
    def untrained(cls, key: Array, architecture: Architecture) -> "PhaseSpaceFlow":
        """Nearly an even ball with normal velocities."""
        a, (one, two) = architecture, jax.random.split(key)
        ball = Ball(_fixed(a.centre), _fixed(a.radius))
        space = Chain([ball, *_layers(one, a)])
        velocities = EmbedCondition(Chain(_layers(two, a, 3)), a.place(), (3,))
        first = [CylindricalVelocity()] if a.frame == "cylindrical" else []
        standard = Standardise(_fixed(a.v_mean), _fixed(a.v_sd))
        velocity = Chain([*first, standard, velocities])
        base = StandardNormal((3,))
        return cls(Transformed(base, Invert(space)), Transformed(base, Invert(velocity)))

    def ln_n(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """ln n(x) [1/kpc3], the integral over the ball being one."""
        return _ln_density(self.n, x, None)

    def ln_p(self, v: Float[Array, "3"], x: Float[Array, "3"]) -> Float[Array, ""]:
        """ln p(v | x) [(km/s)^-3]."""
        return _ln_density(self.p, v, x)

    def log_prob(self, x: Float[Array, "3"], v: Float[Array, "3"]) -> Float[Array, ""]:
        """ln f(x, v) of one star."""
        return self.ln_n(x) + self.ln_p(v, x)

    def velocities(self, key: Array, x: Float[Array, "3"], number: int) -> Float[Array, "k 3"]:
        """Velocities [km/s] drawn at a place."""
        z = jax.random.normal(key, (number, 3), jnp.float32)
        return jax.vmap(lambda z: self.p.bijection.transform(z, x))(z)

    def stars(self, key: Array, number: int) -> tuple[Float[Array, "n 3"], Float[Array, "n 3"]]:
        """Positions [kpc] and velocities [km/s] of `number` stars."""
        z = jax.random.normal(key, (2, number, 3), jnp.float32)
        x = jax.vmap(self.n.bijection.transform)(z[0])
        return x, jax.vmap(self.p.bijection.transform)(z[1], x)


def _ln_density(law: Transformed, y: Array, condition: Array | None) -> Array:
    """`law.log_prob` of a standard normal base in single precision: flowjax makes y double first."""
    z, log_det = law.bijection.inverse_and_log_det(y, condition)
    return (-0.5 * jnp.sum(z**2) - 1.5 * float(np.log(2 * np.pi)) + log_det).astype(jnp.float32)


def split(flow: PhaseSpaceFlow) -> tuple[Any, Any]:
    """What is trained, and in an ensemble has a leading member axis, and the rest; see `eqx.combine`."""
    return eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable)
    )


def member(flows: PhaseSpaceFlow, index: int) -> PhaseSpaceFlow:
    """One flow out of an ensemble."""
    weights, rest = split(flows)
    return eqx.combine(jax.tree.map(lambda a: a[index], weights), rest)


def _fixed(value: Any) -> NonTrainable:
    return NonTrainable(jnp.asarray(value, jnp.float32))


def _layers(key: Array, a: Architecture, cond_dim: int | None = None) -> list[MaskedAffine]:
    keys = jax.random.split(key, a.layers)
    return [
        MaskedAffine(k, ORDERS[i % len(ORDERS)], a.widths, a.activation, cond_dim)
        for i, k in enumerate(keys)
    ]
