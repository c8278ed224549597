"""A Milky Way whose potential and dust are neural networks: the likelihood of their weights.

A network is asked at some places of the ball, and enters the sums over the stars as the smoothest field that
agrees with it there: the mean of a Gaussian process of the same modes as in `galaxy_linear.py`,

    b = S phi^T (phi S phi^T + d^2)^-1 N(places),                                                 (1)

which takes out what is finer than the modes, as the test functions do. The sums are linear in b, so that a
likelihood costs the networks at the places and small products, whatever the number of stars: no part of
the stars need be drawn at random, and Hamiltonian sampling sees all of them at every step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float
from scipy.linalg import block_diag
from scipy.stats import qmc

from bayesdust.arrays import Array
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.dynamics.modes import MARGIN, Enveloped, Modes
from bayesdust.inference import galaxy_linear
from bayesdust.inference.galaxy_linear import DUST_LENGTHS, LENGTHS, LinearData
from bayesdust.inference.galaxy_notes import field_slopes
from bayesdust.inference.galaxy_products import (
    ByPlace,
    Places,
    every,
    made_at,
    places_of,
    products,
    split,
)
from bayesdust.potentials.base import Potential

PLACES = 1024  # a power of two, at which networks are asked
NOISE = 0.03  # d of (1), for networks of sd one


class Network(eqx.Module):
    """A scalar field: `layers` hidden layers of `width` tanh units, its weights one vector (n,).

    With standard normal weights it is a random field of sd about `size` and of lengths about `lengths` (3,)
    [kpc] around `centre`, the smoother the wider it is (Neal 1996, Bayesian Learning for Neural Networks,
    sec. 2.1: hidden weights over the root of the number of inputs).
    """

    weights: Float[Array, " n"]
    centre: Float[np.ndarray, "3"]
    lengths: Float[Array, "3"]
    size: Array | float = 1.0
    width: int = eqx.field(default=32, static=True)
    layers: int = eqx.field(default=2, static=True)

    @staticmethod
    def count(width: int, layers: int) -> int:
        """How many weights there are."""
        return 4 * width + (layers - 1) * (width + 1) * width + width

    def __call__(self, x: Float[Array, "3"]) -> Float[Array, ""]:
        """The field at x (3,) [kpc]."""
        values, rest = (x - self.centre) / self.lengths, self.weights
        for layer in range(self.layers):
            inputs = len(values)
            matrix, bias = rest[: inputs * self.width], rest[inputs * self.width :][: self.width]
            rest = rest[(inputs + 1) * self.width :]
            slope = 1.0 if layer == 0 else 1 / jnp.sqrt(inputs)
            values = jnp.tanh(slope * values @ matrix.reshape(inputs, self.width) + bias)
        return self.size * values @ rest / jnp.sqrt(self.width)


@dataclass(frozen=True, eq=False)
class NeuralData(LinearData):
    """Stars of the Milky Way as matrices, and how a network becomes coefficients.

    Attributes
    ----------
    asked : (m, 3) kpc, where the networks are asked
    smooth, smooth_dust : (modes, m), (dust modes, m): (1)
    into : (p, a), the coefficients by all that the sums depend on, the networks where they are asked
    design, tilt : (k, a), (a,): `slopes` and `pull`, by the same
    read : places of the products, `made` what Phi's parts and modes are there
    at_points : (n, m) ln epsilon at the points, by what its network is where it is asked
    slopes_at_points : (n, 3, m) its gradient [1/kpc] at the first of them likewise
    """

    asked: Float[np.ndarray, "m 3"]
    smooth: Float[np.ndarray, "p m"]
    smooth_dust: Float[np.ndarray, "q m"] | None
    into: Float[np.ndarray, "p a"]
    design: Float[np.ndarray, "k a"]
    tilt: Float[np.ndarray, " a"]
    read: Places
    made: Mapping[str, ByPlace]
    at_points: Float[np.ndarray, "n m"] | None
    slopes_at_points: Float[np.ndarray, "n 3 m"] | None


def prepare(
    stars: MilkyWayStars,
    options: Mapping[str, Any],
    points: Float[np.ndarray, "m 3"] | None = None,
    **more: Any,
) -> NeuralData:
    """As `galaxy_linear.prepare`, with its arguments and errors."""
    data = galaxy_linear.prepare(stars, options, points, **more)
    asked = _in_ball(data.modes.centre, float(data.modes.half[0]) / MARGIN)
    smooth, dust = _smoother(data.modes, LENGTHS, asked), data.dust_modes
    blocks, smooth_dust, at_points, slopes = [np.eye(len(data.parts)), smooth], None, None, None
    if dust is not None:
        plain = dust.modes if isinstance(dust, Enveloped) else dust
        smooth_dust = _smoother(plain, DUST_LENGTHS, asked)
        blocks.append(smooth_dust)
        at_points = np.asarray(jax.vmap(dust.values)(jnp.asarray(data.points))) @ smooth_dust
        slopes = np.einsum("nqi,qm->nim", field_slopes(dust, data.points), smooth_dust)
    into, read = block_diag(*blocks), places_of(data)
    return NeuralData(
        **{field.name: getattr(data, field.name) for field in fields(data)},
        asked=asked,
        smooth=smooth,
        smooth_dust=smooth_dust,
        into=into,
        design=data.slopes @ into,
        tilt=data.pull @ into,
        read=read,
        made=made_at(data, read),
        at_points=at_points,
        slopes_at_points=slopes,
    )


def asked_of(
    data: NeuralData, sizes: Mapping[str, Array], phi: Network, dust: Network | None
) -> Float[Array, " a"]:
    """All that the sums depend on: the parts' `sizes`, and what the networks are where they are asked."""
    asked = jnp.asarray(data.asked)
    found = [jnp.stack([sizes[name] for name in data.parts]), jax.vmap(phi)(asked)]
    if data.smooth_dust is not None:
        assert dust is not None
        found.append(jax.vmap(dust)(asked))
    return jnp.concatenate(found)


def weak_likelihood(data: NeuralData, values: Float[Array, " a"]) -> None:
    """The likelihood of the sums over the stars, or of the flows' forces, factor "boltzmann".

    The sums' chi2 is recorded in either case.
    """
    white = data.constant + data.design @ values
    numpyro.factor("boltzmann", -0.5 * jnp.sum(white**2) + data.tilt @ values)
    b = jnp.asarray(data.into) @ values
    numpyro.deterministic("chi2", data.chi2(b))
    if data.flow is not None:
        numpyro.deterministic("flow_chi2", data.flow_chi2(b))
    if data.dust_shifts is not None:
        numpyro.deterministic("dust_answer", data.dust_answer(b))


def record(data: NeuralData, values: Float[Array, " a"], baryons: Potential) -> None:
    """Record the products of `galaxy.record`; what `baryons` leave of the density is dark.

    And ln_epsilon at the points with its gradient, what the field adds to those of the dust map.
    """
    parts = len(data.parts)
    under = split(data.read, jax.vmap(baryons.density)(jnp.asarray(every(data.read))), 0)
    sizes = jnp.concatenate([values[:parts], data.smooth @ values[parts : parts + PLACES]])
    for name, value in products(data, data.read, data.made, sizes, under).items():
        numpyro.deterministic(name, value)
    if data.at_points is not None and len(data.points):
        if data.tells_epsilon:
            numpyro.deterministic("ln_epsilon", data.at_points @ values[-PLACES:])
        slopes = jnp.asarray(data.slopes_at_points) @ values[-PLACES:]
        numpyro.deterministic("grad_ln_epsilon", slopes)


def _smoother(
    modes: Modes, lengths: Float[np.ndarray, "3"], asked: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "p m"]:
    """The matrix of (1), whose Gaussian process is of sd one."""
    phi = np.asarray(jax.jit(jax.vmap(modes.values))(jnp.asarray(asked)))
    S = np.asarray(modes.variances(1.0, jnp.asarray(lengths)))
    kernel = (phi * S) @ phi.T + NOISE**2 * np.eye(len(phi))
    return np.linalg.solve(kernel, phi * S).T


def _in_ball(centre: Float[np.ndarray, "3"], radius: float) -> Float[np.ndarray, "m 3"]:
    """`PLACES` places spread evenly over a ball, by a sequence of Sobol'."""
    cube = 2 * qmc.Sobol(3, scramble=False).random(4 * PLACES) - 1
    return np.asarray(centre + radius * cube[np.sum(cube**2, axis=1) < 1][:PLACES])
