"""Mock surveys of a disc galaxy: stars drawn independently and exactly from f(x, v) inside a ball.

A disc's stars are drawn in (ln R_c, R, |z|, phi), where their density is equation (2) of
`disc_distribution` without a factor R, by rejection from an envelope that is constant on a grid of
cells; velocities then are Gaussian in v_R and v_z, and v_phi = L/R. That the envelope lies above the
density is checked at every draw. No table is interpolated: what is drawn is f itself, to rounding.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesdust.arrays import Array, Real
from bayesdust.disc_distribution import Component, Disc, IsothermalHalo
from bayesdust.disc_galaxy import Ball, DiscGalaxy, mix
from bayesdust.errors import BayesdustError
from bayesdust.mocks import Phase, generator
from bayesdust.potentials.base import Potential
from bayesdust.potentials.discs import milky_way_2014

Floats = NDArray[np.float64]

# The Sun in astropy's Galactocentric frame (v4.0), and how far red giants are seen with no dust.
SURVEY = Ball(centre=(-8.122, 0.0, 0.0208), radius=4.0)

_BATCH = 1 << 16  # proposals at a time
_CHUNK = 1 << 11  # of them in memory, where a potential is an integral at each
_MARGIN = np.log(1.1)  # of the envelope above the largest density met on a cell's corners
_CELLS = 334, 80, 40  # in ln R_c, R and |z|


@dataclasses.dataclass(frozen=True, eq=False)
class DiscStars(Phase):
    """Stars with positions `x` (n, 3) [kpc] and velocities `v` (n, 3) [km/s], Galactocentric.

    `component` (n,) is the index of each star's component in `galaxy.names`.
    """

    component: NDArray[np.int64]
    galaxy: DiscGalaxy


def milky_way(potential: Potential | None = None, ball: Ball = SURVEY) -> DiscGalaxy:
    """A thin and a thick disc and a halo in `potential` (`milky_way_2014` if not given).

    Of the stars inside `ball` 78 % are in the thin disc, 18 % in the thick one, 4 % in the halo.
    """
    phi = milky_way_2014() if potential is None else potential
    components: dict[str, Component] = {
        "thin": Disc(phi, R_d=2.5, sigma_0=27.0, R_sigma=8.0),
        "thick": Disc(phi, R_d=2.2, sigma_0=50.0, R_sigma=9.0),
        "halo": IsothermalHalo(phi, sigma=130.0),
    }
    return mix(components, {"thin": 0.78, "thick": 0.18, "halo": 0.04}, ball)


def draw(n: int, galaxy: DiscGalaxy | None = None, seed: int = 0) -> DiscStars:
    """`n` independent stars of `galaxy` (`milky_way()` if not given) inside its ball.

    The same arguments give the same stars, in random order; how many come from each component is
    random too. Takes components of the classes `Disc` and `IsothermalHalo`.

    Raises
    ------
    BayesdustError
        If n < 1, no exact draw is known for a component, or a density rises above its envelope.
    """
    if n < 1:
        raise BayesdustError(f"{n} stars were asked for: ask for at least one")
    galaxy = milky_way() if galaxy is None else galaxy
    rng = generator(seed, "disc_mocks.draw")
    counts = rng.multinomial(n, np.asarray(galaxy.fractions))
    x, v = np.empty((n, 3)), np.empty((n, 3))
    component = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    for i, (name, part) in enumerate(zip(galaxy.names, galaxy.components, strict=True)):
        mine = component == i
        if not mine.any():
            continue
        x[mine], v[mine] = _draw_component(part, int(counts[i]), galaxy.ball, rng, name)
    return DiscStars(x, v, component, galaxy)


def _draw_component(
    part: Component, n: int, ball: Ball, rng: np.random.Generator, name: str
) -> tuple[Floats, Floats]:
    """Positions and velocities (n, 3) each of one component."""
    if isinstance(part, Disc):
        return _draw_disc(part, n, ball, rng, name)
    if isinstance(part, IsothermalHalo):
        return _draw_halo(part, n, ball, rng, name)
    raise BayesdustError(
        f"no exact draw is known for {name!r}, a {type(part).__name__}: use Disc or IsothermalHalo"
    )


def _collect(
    propose: Callable[[], tuple[Floats, Floats]], n: int, rng: np.random.Generator, name: str
) -> Floats:
    """The first n accepted rows of proposals (m, d), each with ln(density/envelope) (m,).

    A NaN or a density above its envelope is an error; -inf is a proposal outside the ball.
    """
    kept: list[Floats] = []
    while sum(map(len, kept)) < n:
        rows, log_ratio = propose()
        if not (log_ratio <= 0).all():
            raise BayesdustError(
                f"the density of {name!r} is above the envelope that it is drawn from (by "
                f"{np.nanmax(log_ratio):.3g} in ln): it varies too fast for the cells, raise sigma"
            )
        kept.append(rows[-rng.standard_exponential(len(rows)) < log_ratio])
    return np.concatenate(kept)[:n]


def _draw_disc(
    disc: Disc, n: int, ball: Ball, rng: np.random.Generator, name: str
) -> tuple[Floats, Floats]:
    edges, log_height = _envelope(disc, ball)
    widths = [np.diff(e) for e in edges]
    volume = widths[0][:, None, None] * widths[1][:, None] * widths[2]
    chance = np.cumsum((volume * np.exp(log_height - log_height.max())).ravel())
    half_angle = np.arcsin(ball.radius / ball.R)
    azimuth = np.arctan2(ball.centre[1], ball.centre[0])

    def propose() -> tuple[Floats, Floats]:
        pick = np.searchsorted(chance, rng.random(_BATCH) * chance[-1], side="right")
        cell = np.unravel_index(np.minimum(pick, len(chance) - 1), log_height.shape)
        u, R, height = (
            e[i] + w[i] * rng.random(_BATCH) for e, w, i in zip(edges, widths, cell, strict=True)
        )
        z = height * rng.choice([-1.0, 1.0], _BATCH)
        phi = azimuth + half_angle * rng.uniform(-1.0, 1.0, _BATCH)
        inside = ball.contains(np.stack([R * np.cos(phi), R * np.sin(phi), z], axis=-1))
        log_weight, L, sigma = _weigh(disc, u, R, z)
        log_ratio = np.asarray(log_weight) - log_height[cell]
        # a density above its envelope is an error wherever it is seen, outside the ball too
        log_ratio = np.where(inside | ~(log_ratio <= 0), log_ratio, -np.inf)
        return np.stack([R, phi, z, L, sigma], axis=-1), log_ratio

    R, phi, z, L, sigma = _collect(propose, n, rng, name).T
    v_R, v_z = sigma * rng.standard_normal((2, n))
    outward = np.stack([np.cos(phi), np.sin(phi)], axis=-1)
    along = np.stack([np.sin(phi), -np.cos(phi)], axis=-1)  # the rotation: +y at x < 0
    in_plane = v_R[:, None] * outward + (L / R)[:, None] * along
    return np.column_stack([R[:, None] * outward, z]), np.column_stack([in_plane, v_z])


def _envelope(disc: Disc, ball: Ball) -> tuple[list[Floats], Floats]:
    """Edges of the cells in ln R_c, R and |z|, and ln of a height above the density in each.

    The density is met on the corners of the cells, their faces and edges halved in ln R_c and R;
    cells that lie outside the ball have the height zero.
    """
    R = np.linspace(ball.R - ball.radius, ball.R + ball.radius, 2 * _CELLS[1] + 1)
    top = abs(ball.centre[2]) + ball.radius
    z = 0.3 * np.sinh(np.linspace(0.0, np.arcsinh(top / 0.3), _CELLS[2] + 1))
    ln_R_c, log_weights = (np.asarray(a) for a in _log_weights(disc, R, z))
    height = log_weights + _MARGIN
    for axis, width in enumerate((2, 2, 1)):
        pieces = [np.roll(height, -k, axis=axis) for k in range(width + 1)]
        last = height.shape[axis] - 1
        height = np.take(np.max(pieces, axis=0), np.arange(0, last, width), axis=axis)
    edges = [ln_R_c[::2], R[::2], z]
    near_R = np.maximum(np.maximum(edges[1][:-1] - ball.R, ball.R - edges[1][1:]), 0.0)
    near_z = np.maximum(z[:-1] - abs(ball.centre[2]), 0.0)
    outside = near_R[:, None] ** 2 + near_z**2 > ball.radius**2
    return edges, np.where(outside, -np.inf, height)


@eqx.filter_jit
def _log_weights(disc: Disc, R: Real, z: Real) -> tuple[Array, Array]:
    """Corners and middles of the cells in ln R_c (n_u,), and `Disc.log_weight` (n_u, n_R, n_z)."""
    ln_R_c, orbits = disc.ladder(2 * _CELLS[0] + 1)
    point = lambda R, z: disc.potential.potential(jnp.array([R, 0.0, z]))  # noqa: E731
    phi = jax.vmap(jax.vmap(point, (None, 0)), (0, None))(jnp.asarray(R), jnp.asarray(z))
    R_c, orbits = jax.tree.map(lambda a: a[:, None, None], (jnp.exp(ln_R_c), orbits))
    return ln_R_c, disc.log_weight(R_c, orbits, jnp.asarray(R)[:, None], phi)


@eqx.filter_jit
def _weigh(disc: Disc, ln_R_c: Real, R: Real, z: Real) -> tuple[Array, Array, Array]:
    """`Disc.log_weight`, L [kpc km/s] and sigma [km/s] of proposals (m,)."""
    R_c, R = jnp.exp(jnp.asarray(ln_R_c)), jnp.asarray(R)
    point = lambda p: disc.potential.potential(jnp.array([p[0], 0.0, p[1]]))  # noqa: E731
    phi = jax.lax.map(point, (R, jnp.asarray(z)), batch_size=_CHUNK)
    orbits = jax.lax.map(disc.circular, R_c, batch_size=_CHUNK)
    return disc.log_weight(R_c, orbits, R, phi), orbits.L, disc.sigma(R_c)


def _draw_halo(
    halo: IsothermalHalo, n: int, ball: Ball, rng: np.random.Generator, name: str
) -> tuple[Floats, Floats]:
    """Uniform points of the ball, accepted in proportion to exp(-Phi/sigma^2)."""
    R = np.linspace(ball.R - ball.radius, ball.R + ball.radius, 81)
    z = ball.centre[2] + np.linspace(-ball.radius, ball.radius, 82)
    grid = np.stack([R[:, None] + 0 * z, 0 * R[:, None] + 0 * z, z + 0 * R[:, None]], axis=-1)
    near = (grid[..., 0] - ball.R) ** 2 + (grid[..., 2] - ball.centre[2]) ** 2
    grid = grid[near <= (1.05 * ball.radius) ** 2]
    grid = np.resize(grid, (_BATCH, 3))  # repeated to the size of a batch: compiled once
    log_height = float(np.max(_log_densities(halo, grid))) + _MARGIN

    def propose() -> tuple[Floats, Floats]:
        step = rng.standard_normal((_BATCH, 3))
        step *= (rng.random(_BATCH) ** (1 / 3) / np.linalg.norm(step, axis=1))[:, None]
        x = np.asarray(ball.centre) + ball.radius * step
        return x, np.asarray(_log_densities(halo, x)) - log_height

    x = _collect(propose, n, rng, name)
    return x, np.asarray(halo.sigma) * rng.standard_normal((n, 3))


@eqx.filter_jit
def _log_densities(halo: IsothermalHalo, x: Real) -> Array:
    return jax.vmap(lambda p: halo.moments(p).log_density)(jnp.asarray(x))
