"""Training spherical flows on projected stars alone, without an Abel inversion (Lim+2025, 2505.00763).

The flow's own stars are projected, and the smeared cross-entropy of the data relative to them,

    L = -1/(N N_K) sum_a sum_b ln [ 1/N_G sum_c K_a(w_a + eps_b - Proj T(z_c)) ],

is made small: w_a is (x, y) or (x, y, v_los), eps_b is drawn from the kernel K_h, a normal law of widths
h, and K_a is K_h convolved with the velocity error of star a, which w_a carries already. Both sides are
smeared alike, so smearing costs information and brings no bias; the finite N_G does (the logarithm of a
noisy mean is too small on average), which is why N_G is large and new at every step. It is a training
loss and not a likelihood: uncertainties come from Bayesian-bootstrap members, trained side by side.

Velocities are measured where fibres were put, which biases n. With photometric positions as well, n is
trained on these, and p(v | x) on the conditional entropy of v_los given (x, y), in which a selection by
position cancels, but for what changes within a kernel's width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flowjax.distributions import AbstractTransformed
from jaxtyping import Float

from bayesdust.anisotropy import Anisotropy
from bayesdust.arrays import Array, Real
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.errors import BayesdustError
from bayesdust.flows.descent import careful_adam, descend
from bayesdust.flows.spherical import NetworkField, spherical_flow, stretch, velocity_flow
from bayesdust.units import G

CHUNK = 50  # steps compiled together, and between two reports of progress
_TILE = 512  # generated stars whose kernels are held in memory at once
_Z = np.linspace(0.01, 7.0, 200)  # |u| of the base, for moments of the velocity flow


class Galaxy6D(eqx.Module):
    """f(x, v) = n(x) p(v | x) of a spherical galaxy; lengths in `length` kpc, velocities in `speed` km/s.

    `position` and `velocity` are the fields of the two flows, `gamma` the slope of the light's cusp.
    """

    position: NetworkField
    velocity: NetworkField
    anisotropy: Anisotropy
    length: float = eqx.field(static=True)
    speed: float = eqx.field(static=True)
    gamma: float | None = eqx.field(static=True)

    @classmethod
    def untrained(
        cls, key: Array, length: float, speed: float, anisotropy: Anisotropy, gamma: float | None
    ) -> "Galaxy6D":
        """Fields that do nothing yet: a normal law of widths `length` and `speed` (cusp apart)."""
        one, two = jax.random.split(key)

        def quiet(field: NetworkField) -> NetworkField:
            last = lambda f: (f.network.layers[-1].weight, f.network.layers[-1].bias)  # noqa: E731
            return eqx.tree_at(last, field, replace_fn=jnp.zeros_like)

        position = quiet(NetworkField(one, width=16))
        velocity = quiet(NetworkField(two, width=8, conditional=True))
        return cls(position, velocity, anisotropy, length, speed, gamma)

    @property
    def n(self) -> AbstractTransformed:
        """n(x) [1/kpc3] as a flowjax distribution."""
        return spherical_flow(self.position, self.length, self.gamma)

    @property
    def p(self) -> AbstractTransformed:
        """p(v | x) [(km/s)^-3] as a flowjax distribution with condition x [kpc]."""
        return velocity_flow(_scaled(self.velocity, self.length), self.anisotropy, self.speed)

    def stars(self, key: Array, number: int) -> tuple[Float[Array, "n 3"], Float[Array, "n 3"]]:
        """Positions [kpc] and velocities [km/s] drawn from the flow."""
        z = jax.random.normal(key, (2, number, 3), _dtype(self))
        x = jax.vmap(self.n.bijection.transform)(z[0])
        return x, jax.vmap(self.p.bijection.transform)(z[1], x)

    def density(self, r: Real) -> Array:
        """n(r) [1/kpc3] at r (m,)."""
        x = jnp.asarray(r)[:, None] * jnp.array([0.0, 0.6, 0.8])
        return jnp.exp(jax.vmap(self.n.log_prob)(x))

    def sigma_r2(self, r: Real) -> Array:
        """Radial velocity dispersion squared [(km/s)^2] at r (m,): a third of the isotropic part's <u^2>."""
        weight = _Z**2 * np.exp(-(_Z**2) / 2)

        def one(r: Array) -> Array:
            field, place = _scaled(self.velocity, self.length), r * jnp.array([0.0, 0.6, 0.8])
            D, _ = jax.vmap(lambda s: stretch(field, s, True, condition=place))(jnp.asarray(_Z**2))
            return self.speed**2 * jnp.sum(weight * (_Z * jnp.exp(D)) ** 2) / weight.sum() / 3

        return jax.vmap(one)(jnp.asarray(r))

    def enclosed_mass(self, r: Real) -> Array:
        """M(<r) [Msun] of the Jeans equation at r (m,).

        -r sigma_r^2/G (d ln n/d ln r + d ln sigma_r^2/d ln r + 2 beta). Nothing keeps it positive or
        rising, and at the centre it goes like r unless the flow has gamma = 2 beta(0) or sigma_r(0) = 0
        (Evans, An & Walker 2009): J is not to be taken from it.
        """

        def ln_pressure(ln_r: Array) -> Array:
            r = jnp.exp(ln_r)[None]
            return jnp.log(self.density(r)[0] * self.sigma_r2(r)[0])

        r = jnp.asarray(r)
        slope = jax.vmap(jax.grad(ln_pressure))(jnp.log(r))
        return -r * self.sigma_r2(r) / G * (slope + 2 * self.anisotropy.beta(r))


def _dtype(galaxy: Galaxy6D) -> Any:
    return galaxy.position.network.layers[0].weight.dtype


def _scaled(field: NetworkField, length: float) -> Callable[..., Array]:
    """The field of the velocities with its condition in units of the length."""
    return lambda s, t, place: field(s, t, place / length)


@dataclass(frozen=True)
class Training:
    """How to train. `h` are the kernel's widths in units of the stars' own rms size and velocity spread.

    With `compress` positions are compared as (x, y) asinh(R/L)/R: a kernel of one width, found by no
    generated star around the outermost ones, would else pull the whole galaxy outwards.
    """

    num_steps: int = 400
    generated: int = 4096  # N_G
    noises: int = 1  # N_K a step: new at every step
    h: tuple[float, float] = (0.12, 0.25)
    learning_rate: float = 5e-3
    compress: bool = True
    seed: int = 0


def compressed(stars: Float[Array, "n d"], length: float) -> Float[Array, "n d"]:
    """(x, y) asinh(R/length) length/R and the rest as it is: smooth, and logarithmic far out."""
    s = jnp.sum(stars[:, :2] ** 2, axis=1, keepdims=True) / length**2
    small = s < 1e-4
    u = jnp.sqrt(jnp.where(small, 1.0, s))
    factor = jnp.where(small, 1 - s / 6, jnp.arcsinh(u) / u)
    return jnp.concatenate([stars[:, :2] * factor, stars[:, 2:]], axis=1)


def smeared_entropy(
    galaxy: Galaxy6D,
    key: Array,
    stars: Float[Array, "n d"],
    errors: Float[Array, " n"],
    weights: Float[Array, " n"],
    training: Training,
) -> Float[Array, ""]:
    """The loss. `stars` are (x, y) or (x, y, v_los) [kpc, km/s], `errors` of v_los; `weights` sum to 1."""
    seen, noise = _draws(galaxy, key, stars, training)
    return _entropy(galaxy, seen, noise, stars, errors, weights, training)


def _draws(
    galaxy: Galaxy6D, key: Array, stars: Float[Array, "n d"], training: Training
) -> tuple[Float[Array, "g d"], Float[Array, "k n d"]]:
    """The flow's own stars, projected, and standard normal noise for each of the data."""
    one, two = jax.random.split(key)
    x, v = galaxy.stars(one, training.generated)
    seen = jnp.concatenate([x[:, :2], v[:, 2:]], axis=1)[:, : stars.shape[1]]
    return seen, jax.random.normal(two, (training.noises, *stars.shape), stars.dtype)


def _entropy(
    galaxy: Galaxy6D,
    seen: Float[Array, "g d"],
    noise: Float[Array, "k n d"],
    stars: Float[Array, "n d"],
    errors: Float[Array, " n"],
    weights: Float[Array, " n"],
    training: Training,
) -> Float[Array, ""]:
    """The loss of given draws."""
    columns = stars.shape[1]
    h = jnp.array(
        [training.h[0] * galaxy.length] * 2 + [training.h[1] * galaxy.speed], stars.dtype
    )[:columns]
    noise = noise * h
    if training.compress:
        seen, stars = compressed(seen, galaxy.length), compressed(stars, galaxy.length)
    width = jnp.broadcast_to(h, stars.shape)
    if columns == 3:
        width = width.at[:, 2].set(jnp.sqrt(h[2] ** 2 + errors**2))
    ln_norm = jnp.sum(jnp.log(width), axis=1) + 0.5 * columns * jnp.log(2 * jnp.pi)

    @jax.checkpoint
    def tile(total: Array, part: Array) -> tuple[Array, None]:
        """Add to ln sum_c K the stars of one tile."""
        distance = (stars + noise)[:, :, None, :] - part
        exponent = -0.5 * jnp.sum((distance / width[:, None, :]) ** 2, axis=-1)
        return jnp.logaddexp(total, jax.nn.logsumexp(exponent, axis=-1)), None

    parts = seen.reshape(-1, min(_TILE, training.generated), columns)
    start = jnp.full(noise.shape[:2], -jnp.inf, stars.dtype)
    total, _ = jax.lax.scan(tile, start, parts)
    return -jnp.sum(weights * (jnp.mean(total, axis=0) - ln_norm)) + jnp.log(training.generated)


def conditional_entropy(
    galaxy: Galaxy6D,
    key: Array,
    stars: Float[Array, "n 3"],
    errors: Float[Array, " n"],
    weights: Float[Array, " n"],
    training: Training,
) -> Float[Array, ""]:
    """Of v_los given (x, y): the entropy of (x, y, v_los) less that of (x, y), with the same draws.

    n is held fixed, so that only the velocity flow learns from stars that were chosen by position.
    """
    hold = lambda a: jax.lax.stop_gradient(a) if eqx.is_inexact_array(a) else a  # noqa: E731
    held = eqx.tree_at(lambda g: g.position, galaxy, replace_fn=lambda f: jax.tree.map(hold, f))
    seen, noise = _draws(held, key, stars, training)
    given = (errors, weights, training)
    joint = _entropy(held, seen, noise, stars, *given)
    return joint - _entropy(held, seen[:, :2], noise[..., :2], stars[:, :2], *given)


class _Data(NamedTuple):
    """What is trained on, in single precision."""

    stars: Float[Array, "n d"]
    errors: Float[Array, " n"]
    positions: Float[Array, "m 2"] | None


def _loss(
    galaxy: Galaxy6D, key: Array, data: _Data, weights: tuple[Array, ...], training: Training
) -> Float[Array, ""]:
    """The joint entropy, or that of `positions` and the conditional one; `weights` of stars, positions."""
    stars = (data.stars, data.errors, weights[0])
    if data.positions is None:
        return smeared_entropy(galaxy, key, *stars, training)
    one, two = jax.random.split(key)
    places = (data.positions, jnp.zeros_like(weights[1]), weights[1])
    of_places = smeared_entropy(galaxy, one, *places, training)
    return of_places + conditional_entropy(galaxy, two, *stars, training)


def train(
    stars: Float[np.ndarray, "n d"],
    errors: Float[np.ndarray, " n"] | None = None,
    *,
    anisotropy: Anisotropy,
    gamma: float | None = None,
    members: int = 1,
    training: Training | None = None,
    p_member: Float[np.ndarray, " n"] | None = None,
    positions: Float[np.ndarray, "m 2"] | None = None,
    on_progress: OnProgress = unheard,
) -> tuple[Galaxy6D, Float[np.ndarray, "member step"]]:
    """An ensemble of galaxies (a leading member axis on every weight) and their losses.

    `stars` (n, 2) are (x, y) [kpc], or (n, 3) with v_los [km/s] about the systemic velocity, with `errors`
    [km/s]; member 0 has the weights `p_member` (or equal ones), the others those times Bayesian-bootstrap
    (exponential) ones. With photometric `positions` (m, 2) [kpc] n is trained on them alone, all of equal
    weight before the bootstrap, and `stars` (n, 3), chosen by position, teach p(v | x) alone.

    Raises BayesdustError for what cannot be trained on: too few stars, values that are not finite or
    outside their range, beta_ani of one or more; and for losses that end not finite.
    """
    training = training or Training()
    stars = np.asarray(stars, dtype=float)
    p = np.ones(len(stars)) if p_member is None else np.asarray(p_member, dtype=float)
    errors = np.zeros(len(stars)) if errors is None else np.asarray(errors, dtype=float)
    _check_stars(stars, errors, p)
    _check_model(anisotropy, gamma, np.hypot(stars[:, 0], stars[:, 1]))
    _check_training(training, members)
    if positions is not None:
        positions = np.asarray(positions, dtype=float)
        _check_positions(positions, stars)
    length, speed = _units(stars, p, positions)
    data = _Data(*(None if a is None else _single(a) for a in (stars, errors, positions)))
    key = jax.random.key(training.seed)
    weights: tuple[Array, ...] = (_bootstrapped(jax.random.fold_in(key, 1), p, members),)
    if positions is not None:
        equal = np.ones(len(positions))
        weights += (_bootstrapped(jax.random.fold_in(key, 4), equal, members),)

    def begin(key: Array) -> Galaxy6D:
        return Galaxy6D.untrained(key, length, speed, anisotropy, gamma)

    galaxies = eqx.filter_vmap(begin)(jax.random.split(jax.random.fold_in(key, 2), members))
    parameters, static = _trainable(galaxies)
    root = jax.random.fold_in(key, 3)

    def loss(parameters: Any, weights: tuple[Array, ...], number: Array) -> Array:
        galaxy = _with_anisotropy(eqx.combine(parameters, static), anisotropy)
        # the same draws for every member
        return _loss(galaxy, jax.random.fold_in(root, number), data, weights, training)

    parameters, losses = _minimise(loss, parameters, weights, training, on_progress)
    galaxies = _cast(eqx.combine(parameters, static), jnp.float64)
    return _with_anisotropy(galaxies, anisotropy), losses


def _check_stars(stars: np.ndarray, errors: np.ndarray, p: np.ndarray) -> None:
    """Raise BayesdustError for stars that no flow can be trained on."""
    if stars.ndim != 2 or stars.shape[1] not in (2, 3):
        raise BayesdustError("Stars must be rows of (x, y) or (x, y, v_los).")
    if len(stars) < 20 or not np.isfinite(stars).all():
        raise BayesdustError("A spherical flow needs at least 20 stars, all of them finite.")
    if errors.shape != p.shape or p.shape != (len(stars),):
        raise BayesdustError("Every star must have one velocity error and one p_member.")
    if not (np.isfinite(errors) & (errors >= 0)).all():
        raise BayesdustError("Velocity errors must be finite and not negative.")
    if not ((p >= 0) & (p <= 1)).all() or not p.any():
        raise BayesdustError("p_member must lie between 0 and 1 and not be 0 for every star.")


def _check_positions(positions: np.ndarray, stars: np.ndarray) -> None:
    """Raise BayesdustError for photometric positions that n cannot be trained on."""
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise BayesdustError("Positions must be rows of (x, y).")
    if len(positions) < 20 or not np.isfinite(positions).all():
        raise BayesdustError("n needs at least 20 positions, all of them finite.")
    if stars.shape[1] != 3:
        raise BayesdustError("Stars must be (x, y, v_los) where positions are given beside them.")


def _check_model(anisotropy: Anisotropy, gamma: float | None, R: np.ndarray) -> None:
    """Raise BayesdustError for a cusp or an anisotropy that no galaxy has; `R` [kpc] of the stars."""
    if gamma is not None and not (np.isfinite(gamma) and gamma < 3):
        raise BayesdustError(f"gamma is {gamma}: the slope of a cusp must be finite and below 3.")
    if not (np.asarray(anisotropy.beta(R)) < 1).all():  # NaN is not below 1 either
        raise BayesdustError("The anisotropy beta_ani must be below 1 at the radius of every star.")


def _check_training(training: Training, members: int) -> None:
    """Raise BayesdustError for settings that train nothing."""
    if min(members, training.num_steps, training.generated, training.noises) < 1:
        raise BayesdustError("members, num_steps, generated and noises must be at least 1.")
    if training.generated % min(_TILE, training.generated):
        raise BayesdustError(f"The number of generated stars must be a multiple of {_TILE}.")
    if not all(0 < value < np.inf for value in (*training.h, training.learning_rate)):
        raise BayesdustError("The kernel's widths h and the learning rate must be positive.")


def _units(
    stars: Float[np.ndarray, "n d"],
    p: Float[np.ndarray, " n"],
    positions: Float[np.ndarray, "m 2"] | None,
) -> tuple[float, float]:
    """rms size along one axis [kpc] and rms velocity [km/s] (1 without velocities), of a galaxy's start.

    Raises BayesdustError where one of them is 0.
    """
    places, weights = (stars[:, :2], p) if positions is None else (positions, None)
    length = float(np.sqrt(np.average(np.sum(places**2, axis=1), weights=weights) / 2))
    speed = float(np.sqrt(np.average(stars[:, 2] ** 2, weights=p))) if stars.shape[1] > 2 else 1.0
    if not (length > 0 and speed > 0):
        raise BayesdustError("Stars must differ in position, and in velocity where they have one.")
    return length, speed


def _bootstrapped(key: Array, p: Float[np.ndarray, " n"], members: int) -> Float[Array, "member n"]:
    """Weights that sum to 1: `p` for member 0, and times exponential variates for the others."""
    bootstrap = np.array(jax.random.exponential(key, (members, len(p))))
    bootstrap[0] = 1.0
    return _single(p * bootstrap / np.sum(p * bootstrap, axis=1, keepdims=True))


def _trainable(galaxies: Galaxy6D) -> tuple[Galaxy6D, Galaxy6D]:
    """The weights in single precision, and the rest; the anisotropy, which is given, is in neither."""
    without = eqx.tree_at(lambda g: g.anisotropy, galaxies, replace=None)
    return eqx.partition(_cast(without, jnp.float32), eqx.is_inexact_array)


def _with_anisotropy(galaxy: Galaxy6D, anisotropy: Anisotropy) -> Galaxy6D:
    """Put back what `_trainable` left out."""
    return eqx.tree_at(lambda g: g.anisotropy, galaxy, anisotropy, is_leaf=lambda x: x is None)


def _minimise(
    loss: Callable[[Any, Any, Array], Array],
    parameters: Any,
    weights: Any,
    training: Training,
    on_progress: OnProgress,
) -> tuple[Any, Float[np.ndarray, "member step"]]:
    """Adam on `loss`(parameters, weights, number of the step), all members at once.

    Raises BayesdustError if a member's last loss is not finite.
    """
    chunks = -(-training.num_steps // CHUNK)
    rate = optax.cosine_decay_schedule(training.learning_rate, chunks * CHUNK)
    optimizer = careful_adam(rate, CHUNK)

    @jax.jit
    def chunk(state: Any, first: Array) -> tuple[Any, Array]:
        def one(state: Any, weights: Any) -> tuple[Any, Array]:
            return jax.lax.scan(
                lambda state, number: descend(loss, optimizer, state, weights, number),
                state,
                first + jnp.arange(CHUNK),
            )

        return jax.vmap(one)(state, weights)

    state, losses = (parameters, jax.vmap(optimizer.init)(parameters)), []
    on_progress(0, 0, "compiling")
    for done in range(chunks):
        state, values = chunk(state, jnp.asarray(done * CHUNK))
        losses.append(np.asarray(values))
        on_progress((done + 1) * CHUNK, chunks * CHUNK, "training")
    if not np.isfinite(losses[-1][:, -1]).all():
        raise BayesdustError(
            "The training ended with a loss that is not finite; a smaller learning_rate may help."
        )
    return state[0], np.concatenate(losses, axis=1)


def _single(a: np.ndarray) -> Array:
    return jnp.asarray(a, jnp.float32)


def _cast(tree: Any, dtype: Any) -> Any:
    """Weights in another precision: training in single, products in double."""
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def of_members(
    function: Callable[[Galaxy6D], Array], galaxies: Galaxy6D
) -> Float[Array, "member ..."]:
    """`function` of every member of an ensemble, such as lambda g: g.density(r)."""
    weights, rest = eqx.partition((galaxies.position, galaxies.velocity), eqx.is_inexact_array)

    def one(weights: Any) -> Array:
        position, velocity = eqx.combine(weights, rest)
        return function(
            eqx.tree_at(lambda g: (g.position, g.velocity), galaxies, (position, velocity))
        )

    return jax.lax.map(jax.jit(one), weights)
