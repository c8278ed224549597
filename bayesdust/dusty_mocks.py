"""Mock surveys of a dusty disc galaxy: a magnitude limit takes stars away, and the truth is known.

The stars are those of `disc_mocks`, in equilibrium in a known potential, before the dust. Each has an
absolute magnitude M of one luminosity function, wherever it is. With the distance modulus mu and the
extinction A = int_0^d rho ds [mag] of the dust rho [mag/kpc] between the Sun and the star it is seen if

    G = M + mu + A < limit,    which happens to the share    epsilon = S(limit - mu - A)       (1)

of the stars at a place, S(M) the share of stars brighter than M. The luminosity function ends at a
magnitude that is seen throughout the ball, so that dust alone makes epsilon less than one. Extinctions
and shares are closed forms: nothing is tabulated.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.special import erf, exprel, ndtr, ndtri

from bayesdust import disc_mocks
from bayesdust.arrays import Array
from bayesdust.catalogs.cartesian import read_milky_way
from bayesdust.catalogs.frames import SolarFrame, galactocentric, icrs
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.disc_mocks import SURVEY, DiscStars
from bayesdust.dynamics.efficiency import modulus
from bayesdust.errors import BayesdustError
from bayesdust.mocks import generator
from bayesdust.potentials.base import Potential

if TYPE_CHECKING:
    from astropy.table import Table

Places = Float[np.ndarray, "n 3"]
Numbers = Float[np.ndarray, " n"]
type Luminosities = LuminosityFunction | tuple[LuminosityFunction, ...]  # or one a component

SUN = np.array(SURVEY.centre)  # kpc
# Of bright stars in Gaia DR3, rounded: mas, mas/yr and km/s.
PARALLAX_ERROR, PROPER_MOTION_ERROR, VELOCITY_ERROR = 0.02, 0.02, 2.0
FEWEST_SEEN = 0.01  # a survey that sees a smaller share of its stars is not drawn
_CHUNK = 4096  # places at a time
_PER_STAR = "x", "v", "component", "G", "absolute_magnitude", "A", "epsilon"


@dataclasses.dataclass(frozen=True, eq=False)
class Dust:
    """Gaussian clouds and a layer of dust, seen from the Sun.

    Attributes
    ----------
    centres : (k, 3) kpc, Galactocentric
    sizes : (k,) kpc, standard deviations of the clouds along each axis
    peaks : (k,) mag/kpc, densities at their centres
    strength, height : of the layer strength exp(-|z|/height), mag/kpc and kpc
    """

    centres: Float[np.ndarray, "k 3"]
    sizes: Float[np.ndarray, " k"]
    peaks: Float[np.ndarray, " k"]
    strength: float = 0.3
    height: float = 0.15

    def __post_init__(self) -> None:
        positive = (self.sizes > 0).all() and self.height > 0
        if not (positive and (self.peaks >= 0).all() and self.strength >= 0):
            raise BayesdustError("give the dust sizes and a height above 0 and no negative density")

    def density(self, x: Places) -> Numbers:
        """Dust (n,) [mag/kpc] at places (n, 3) [kpc]."""
        total = self.strength * np.exp(-np.abs(x[:, 2]) / self.height)
        for centre, size, peak in zip(self.centres, self.sizes, self.peaks, strict=True):
            total += peak * np.exp(-np.sum((x - centre) ** 2, axis=1) / (2 * size**2))
        return total

    def extinction(self, x: Places) -> Numbers:
        """A (n,) [mag] between the Sun and places (n, 3) [kpc].

        A cloud whose centre is seen at the impact parameter b and at t along a ray of length d has

            A = peak exp(-b^2 / 2 s^2) s sqrt(pi/2) [erf((d - t) / sqrt(2) s) + erf(t / sqrt(2) s)],

        and the layer adds d times the mean of its density over the heights between Sun and place.
        """
        offset = x - SUN
        d = np.linalg.norm(offset, axis=1)
        ray = offset / np.maximum(d, np.finfo(float).tiny)[:, None]
        total = d * self._mean_of_layer(x[:, 2])
        for centre, size, peak in zip(self.centres, self.sizes, self.peaks, strict=True):
            away = centre - SUN
            t, unit = ray @ away, np.sqrt(2.0) * size
            impact2 = np.sum((away - t[:, None] * ray) ** 2, axis=1)
            column = peak * size * np.sqrt(np.pi / 2) * np.exp(-impact2 / unit**2)
            total += column * (erf((d - t) / unit) + erf(t / unit))
        return total

    def _mean_of_layer(self, z: Numbers) -> Numbers:
        """Mean of the layer's density along rays from the Sun to the heights z (n,)."""
        here, there = abs(SUN[2]) / self.height, np.abs(z) / self.height
        # exprel(-q) = (1 - exp(-q))/q loses no digits where the heights are alike
        same_side = np.exp(-np.minimum(here, there)) * exprel(-np.abs(there - here))
        through = (here * exprel(-here) + there * exprel(-there)) / (here + there)
        return self.strength * np.where(z * SUN[2] < 0, through, same_side)


def clouds(seed: int = 2, number: int = 12) -> Dust:
    """A layer and `number` clouds near the plane, 0.8 to 3.5 kpc from the Sun and 0.1 to 0.4 kpc wide.

    Those of the default seed leave a tenth of the stars that are seen where epsilon is below 0.4.
    """
    rng = generator(seed, "dusty_mocks.clouds")
    distance, angle = rng.uniform(0.8, 3.5, number), rng.uniform(0.0, 2 * np.pi, number)
    across = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=-1)
    centres = np.column_stack([across + SUN[:2], rng.normal(0.0, 0.06, number)])
    return Dust(centres, sizes=rng.uniform(0.1, 0.4, number), peaks=rng.uniform(0.6, 2.4, number))


@dataclasses.dataclass(frozen=True)
class LuminosityFunction:
    """Giants: a branch dN/dM in proportion to 10^(slope M), and the red clump on it, a Gaussian.

    Attributes
    ----------
    slope : of log10 dN/dM on the branch, 1/mag
    clump : share of the stars that are in the clump
    clump_mean, clump_sd : mag
    faintest : mag, where both end; a limit of 14 sees it out to 4 kpc where there is no dust
    """

    slope: float = 0.35
    clump: float = 0.45
    clump_mean: float = 0.45
    clump_sd: float = 0.15
    faintest: float = 0.98

    @property
    def _end_of_clump(self) -> float:
        """Share of the whole Gaussian that is brighter than `faintest`."""
        return float(ndtr((self.faintest - self.clump_mean) / self.clump_sd))

    def share(self, M: Numbers) -> Numbers:
        """S (n,): the share of stars brighter than the absolute magnitudes M (n,)."""
        M = np.minimum(M, self.faintest)
        clump = ndtr((M - self.clump_mean) / self.clump_sd) / self._end_of_clump
        return (1 - self.clump) * 10 ** (self.slope * (M - self.faintest)) + self.clump * clump

    def density(self, M: Numbers) -> Numbers:
        """dS/dM (n,) [1/mag] at M (n,)."""
        branch = self.slope * np.log(10) * 10 ** (self.slope * (M - self.faintest))
        gauss = np.exp(-(((M - self.clump_mean) / self.clump_sd) ** 2) / 2)
        gauss /= np.sqrt(2 * np.pi) * self.clump_sd * self._end_of_clump
        both = (1 - self.clump) * branch + self.clump * gauss
        return np.where(self.faintest >= M, both, 0.0)

    def draw(self, rng: np.random.Generator, n: int) -> Numbers:
        """Absolute magnitudes M (n,) of `n` stars."""
        which, p = rng.random(n), 1.0 - rng.random(n)  # p is never 0, which would be M = -inf
        branch = self.faintest + np.log10(p) / self.slope
        clump = self.clump_mean + self.clump_sd * ndtri(p * self._end_of_clump)
        return np.where(which < self.clump, clump, branch)


@dataclasses.dataclass(frozen=True, eq=False)
class DustySurvey(DiscStars):
    """The stars that are seen, and everything that made them so.

    Attributes
    ----------
    x, v, component, galaxy : as of `disc_mocks.DiscStars`; f(x, v) is that of all stars, seen or not
    G, absolute_magnitude : (n,) mag
    A : (n,) mag, extinction in front of each star
    epsilon : (n,) share of the stars at its place that are seen
    dust, luminosity, limit : what decides that; of several luminosity functions each is one component's
    """

    G: Numbers
    absolute_magnitude: Numbers
    A: Numbers
    epsilon: Numbers
    dust: Dust
    luminosity: Luminosities
    limit: float

    def table(self) -> "Table":
        """x, y, z [kpc], vx, vy, vz [km/s], G [mag] and epsilon, one row a star."""
        from astropy.table import Table

        columns = dict(zip(("x", "y", "z"), self.x.T, strict=True))
        columns |= dict(zip(("vx", "vy", "vz"), self.v.T, strict=True))
        units = {name: "kpc" if name in "xyz" else "km/s" for name in columns} | {"G": "mag"}
        columns |= {"G": self.G, "epsilon": self.epsilon}
        return Table(columns, units=units, meta={"limit_mag": self.limit})

    def stars(self, weights: str | None = None) -> MilkyWayStars:
        """The stars as the models take them; `weights` as of `read_milky_way`.

        Raises BayesdustError where `with_errors` has put stars outside the survey's ball.
        """
        ball = self.galaxy.ball
        return read_milky_way(self.table(), weights=weights, radius=ball.radius, centre=ball.centre)

    def with_errors(self, seed: int = 0) -> "DustySurvey":
        """The same stars where errors like Gaia's put them; the other columns stay the true ones.

        Normal errors of the parallax, the proper motions and the radial velocity, none of the direction,
        seen from `SUN` with the motion of `catalogs.frames.SolarFrame`. Stars may leave the ball.
        """
        sun = SolarFrame(distance=float(np.linalg.norm(SUN)), z_sun=float(SUN[2]))
        observed = icrs(self.x, self.v, sun)
        noise = generator(seed, "dusty_mocks.with_errors").standard_normal((len(self.x), 4))
        errors = PARALLAX_ERROR, PROPER_MOTION_ERROR, PROPER_MOTION_ERROR, VELOCITY_ERROR
        observed[:, 2:] += errors * noise
        x, v = galactocentric(observed, sun)
        return dataclasses.replace(self, x=x, v=v)

    # The truth at places (n, 3) [kpc], whether or not a star is there

    def efficiency(self, x: Places) -> Numbers:
        """epsilon (n,), the share of stars that are seen, of all components together."""
        mu, A = _dimming(x, self.dust)
        each = _each(self.luminosity, len(self.galaxy.components))
        shares = np.stack([one.share(self.limit - mu - A) for one in each])
        if len(each) == 1:
            return shares[0]
        there = _everywhere(self.galaxy.log_densities, jnp.asarray(x)).T
        return np.asarray(np.sum(jax.nn.softmax(there, axis=0) * shares, axis=0))

    def acceleration(self, x: Places) -> Places:
        """-grad Phi (n, 3) [(km/s)^2/kpc]."""
        return np.asarray(_everywhere(self.galaxy.potential.acceleration, jnp.asarray(x)))

    def density(self, x: Places) -> Numbers:
        """Density (n,) of all mass [Msun/kpc3]."""
        return np.asarray(_everywhere(self.galaxy.potential.density, jnp.asarray(x)))


@eqx.filter_jit
def _everywhere(function: Callable[[Array], Array], places: Array) -> Array:
    return jax.lax.map(function, places, batch_size=_CHUNK)


def _each(luminosity: Luminosities, number: int) -> tuple[LuminosityFunction, ...]:
    """One luminosity function a component, or the one of all."""
    if isinstance(luminosity, LuminosityFunction):
        return (luminosity,)
    if len(luminosity) != number:
        raise BayesdustError(
            f"{len(luminosity)} luminosity functions were given for {number} components: give one, or one "
            "each"
        )
    return luminosity


def _dimming(x: Places, dust: Dust) -> tuple[Numbers, Numbers]:
    """Distance modulus and extinction (n,) [mag] of places (n, 3) [kpc]."""
    return modulus(np.linalg.norm(x - SUN, axis=1)), dust.extinction(x)


def observe(
    stars: DiscStars,
    dust: Dust | None = None,
    limit: float = 14.0,
    seed: int = 0,
    luminosity: Luminosities | None = None,
) -> DustySurvey:
    """Those of `stars` that are brighter than `limit` [mag] behind `dust` (`clouds()` if not given).

    In the order of `stars`; there may be none. The same arguments give the same stars. With a `luminosity`
    function for each component epsilon depends on the component, and so on the velocity.
    """
    dust = clouds() if dust is None else dust
    luminosity = LuminosityFunction() if luminosity is None else luminosity
    each = _each(luminosity, len(stars.galaxy.components))
    mu, A = _dimming(stars.x, dust)
    # of the same random numbers, whichever component a star is of
    seeds = [generator(seed, "dusty_mocks.observe") for _ in each]
    which, number = stars.component % len(each), len(stars.x)
    M = np.choose(which, [one.draw(rng, number) for one, rng in zip(each, seeds, strict=True)])
    epsilon = np.choose(which, [one.share(limit - mu - A) for one in each])
    seen = M + mu + A < limit
    return DustySurvey(
        x=stars.x[seen],
        v=stars.v[seen],
        component=stars.component[seen],
        galaxy=stars.galaxy,
        G=(M + mu + A)[seen],
        absolute_magnitude=M[seen],
        A=A[seen],
        epsilon=epsilon[seen],
        dust=dust,
        luminosity=luminosity,
        limit=limit,
    )


def dusty_survey(
    n: int,
    seed: int = 0,
    potential: Potential | None = None,
    dust: Dust | None = None,
    limit: float = 14.0,
    luminosity: Luminosities | None = None,
) -> DustySurvey:
    """`n` stars that are seen of `disc_mocks.milky_way(potential)`, independent, in random order.

    What is not given is the default of `disc_mocks` and `observe`. The same arguments give the same
    stars. Raises BayesdustError if n < 1 or hardly any star is seen, and as `disc_mocks` does.
    """
    if n < 1:
        raise BayesdustError(f"{n} stars were asked for: ask for at least one")
    galaxy = disc_mocks.milky_way(potential)
    seeds = generator(seed, "dusty_mocks.dusty_survey")
    parts: list[DustySurvey] = []
    seen, drawn, wanted = 0, 0, 3 * n // 2 + 1000
    while seen < n:
        of_stars, of_light = (int(s) for s in seeds.integers(2**32, size=2))
        stars = disc_mocks.draw(wanted, galaxy, of_stars)
        parts.append(observe(stars, dust, limit, of_light, luminosity))
        seen, drawn = seen + len(parts[-1].x), drawn + wanted
        if seen < FEWEST_SEEN * drawn:
            raise BayesdustError(
                f"only {seen} of {drawn} stars are seen: take a fainter limit or thinner dust"
            )
        wanted = int(1.05 * (n - seen) * drawn / seen) + 1000
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])[:n] for name in _PER_STAR
    }
    return dataclasses.replace(parts[0], **joined)
