"""From the sky to the Galaxy: ICRS to Galactocentric Cartesian coordinates, with its Jacobian.

With the unit vectors at a star's place (right ascension a, declination d)

    r = (cos d cos a, cos d sin a, sin d),  p = (-sin a, cos a, 0),  q = (-sin d cos a, -sin d sin a, cos d),

parallax w [mas], proper motions mu_a* = mu_a cos d and mu_d [mas/yr], radial velocity v_r [km/s] and
k = 4.7405 km/s per mas/yr kpc (Butkevich & Lindegren 2014, A&A 570, A62, sec. 2; The Hipparcos and
Tycho Catalogues, ESA SP-1200, vol. 1, sec. 1.5.3)

    x = A r / w + x_0,     v = A [v_r r + k (mu_a* p + mu_d q) / w] + v_sun.

A and x_0 follow from where the Sun is (`SolarFrame`), as in astropy's Galactocentric frame. Nothing
here is corrected for the light travel time or for perspective acceleration.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from bayesdust.errors import BayesdustError
from bayesdust.units import DEG, MAS, MAS_YR_KPC_KMS

# The six observed quantities and their units, in the order used everywhere.
OBSERVED = ("ra", "dec", "parallax", "pmra", "pmdec", "radial_velocity")
OBSERVED_UNITS = ("deg", "deg", "mas", "mas/yr", "mas/yr", "km/s")
# Orientation of the Galactic plane, as in astropy (Reid & Brunthaler 2004, ApJ 616, 872, for Sgr A*;
# the roll makes the plane that of the IAU 1958 Galactic coordinates).
_CENTRE_RA, _CENTRE_DEC, _ROLL = 266.4051, -28.936175, 58.5986320306

Observations = Float[np.ndarray, "n 6"]
Vectors = Float[np.ndarray, "n 3"]
Matrices = Float[np.ndarray, "n 6 6"]


@dataclass(frozen=True)
class SolarFrame:
    """Where the Sun is in the Galaxy and how it moves; axes as in astropy's Galactocentric frame.

    The Sun lies at negative x, the Galaxy rotates towards +y, z points to the north Galactic pole.

    Attributes
    ----------
    distance : kpc, from the Sun to the Galactic centre (GRAVITY Collaboration 2018, A&A 615, L15)
    z_sun : kpc, height of the Sun above the plane (Bennett & Bovy 2019, MNRAS 482, 1417)
    v_sun : km/s, Galactocentric (vx, vy, vz) of the Sun (Drimmel & Poggio 2018, RNAAS 2, 210, with
        the proper motion of Sgr A* by Reid & Brunthaler 2004)
    centre_ra, centre_dec : deg, ICRS direction of the Galactic centre

    The defaults are those of astropy's `galactocentric_frame_defaults` "v4.0". Raises BayesdustError
    for numbers that are not finite or put the Sun higher than it is far.
    """

    distance: float = 8.122
    z_sun: float = 0.0208
    v_sun: tuple[float, float, float] = (12.9, 245.6, 7.78)
    centre_ra: float = _CENTRE_RA
    centre_dec: float = _CENTRE_DEC

    def __post_init__(self) -> None:
        numbers = (self.distance, self.z_sun, *self.v_sun, self.centre_ra, self.centre_dec)
        if len(self.v_sun) != 3 or not all(math.isfinite(number) for number in numbers):
            raise BayesdustError(f"{self} is no solar frame; give finite numbers, three in v_sun.")
        if not self.distance > abs(self.z_sun):
            raise BayesdustError(
                f"the Sun's distance {self.distance:g} kpc must exceed its height "
                f"{self.z_sun:g} kpc; correct one of them."
            )

    @property
    def position(self) -> Float[np.ndarray, " 3"]:
        """Galactocentric position of the Sun, (3,) kpc."""
        return np.array([-math.sqrt(self.distance**2 - self.z_sun**2), 0.0, self.z_sun])

    @property
    def velocity(self) -> Float[np.ndarray, " 3"]:
        """Galactocentric velocity of the Sun, (3,) km/s."""
        return np.array(self.v_sun, dtype=np.float64)

    @property
    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """The matrix A that turns ICRS axes into Galactocentric ones.

        Turn x towards the Galactic centre, roll about it until z is normal to the plane, and tilt
        by asin(z_sun / distance), because the Sun looks down on the centre (astropy documentation,
        "Transforming celestial coordinates to Galactocentric").
        """
        tilt = math.asin(self.z_sun / self.distance)
        turn = _about("y", -self.centre_dec * DEG) @ _about("z", self.centre_ra * DEG)
        return _about("y", -tilt) @ _about("x", _ROLL * DEG) @ turn


def _about(axis: str, angle: float) -> Float[np.ndarray, "3 3"]:
    """Rotation of the axes by `angle` [rad] about one of them."""
    c, s = math.cos(angle), math.sin(angle)
    matrices = {
        "x": [[1, 0, 0], [0, c, s], [0, -s, c]],
        "y": [[c, 0, -s], [0, 1, 0], [s, 0, c]],
        "z": [[c, s, 0], [-s, c, 0], [0, 0, 1]],
    }
    return np.array(matrices[axis], dtype=np.float64)


def _triad(observed: Observations) -> tuple[Vectors, Vectors, Vectors]:
    """The unit vectors r, p, q at each star, (n, 3) each, in ICRS axes."""
    a, d = observed[:, 0] * DEG, observed[:, 1] * DEG
    sin_a, cos_a, sin_d, cos_d = np.sin(a), np.cos(a), np.sin(d), np.cos(d)
    r = np.stack([cos_d * cos_a, cos_d * sin_a, sin_d], axis=1)
    p = np.stack([-sin_a, cos_a, np.zeros_like(a)], axis=1)
    q = np.stack([-sin_d * cos_a, -sin_d * sin_a, cos_d], axis=1)
    return r, p, q


def galactocentric(observed: Observations, sun: SolarFrame) -> tuple[Vectors, Vectors]:
    """Positions (n, 3) [kpc] and velocities (n, 3) [km/s] of stars `observed` as in `OBSERVED`.

    The distance is 1 / parallax, so every parallax has to be positive.
    """
    r, p, q = _triad(observed)
    _, _, parallax, pmra, pmdec, v_r = observed.T[:, :, None]
    across = MAS_YR_KPC_KMS * (pmra * p + pmdec * q) / parallax
    rotation = sun.rotation
    x = (r / parallax) @ rotation.T + sun.position
    v = (v_r * r + across) @ rotation.T + sun.velocity
    return x, v


def icrs(x: Vectors, v: Vectors, sun: SolarFrame) -> Observations:
    """What is observed, as in `OBSERVED`, of stars at x (n, 3) [kpc] with v (n, 3) [km/s].

    The inverse of `galactocentric`; 0 <= ra < 360. No star may be where the Sun is.
    """
    place = (x - sun.position) @ sun.rotation
    motion = (v - sun.velocity) @ sun.rotation
    observed = np.empty((len(x), 6))
    observed[:, 0] = np.arctan2(place[:, 1], place[:, 0]) / DEG % 360.0
    observed[:, 1] = np.arctan2(place[:, 2], np.hypot(place[:, 0], place[:, 1])) / DEG
    observed[:, 2] = 1.0 / np.linalg.norm(place, axis=1)
    r, p, q = _triad(observed)
    across = observed[:, 2:3] / MAS_YR_KPC_KMS * motion
    observed[:, 3] = np.sum(across * p, axis=1)
    observed[:, 4] = np.sum(across * q, axis=1)
    observed[:, 5] = np.sum(motion * r, axis=1)
    return observed


def jacobian(observed: Observations, sun: SolarFrame) -> Matrices:
    """d(x, v) / d(ra cos dec [mas], dec [mas], parallax, pmra, pmdec, radial_velocity), (n, 6, 6).

    Rows in kpc and km/s. The first two columns are derivatives along p and q, as Gaia's `ra_error`
    is an error of ra cos(dec): there dr/da* = p, dr/dd = q, dp/da* = -r + q tan d,
    dq/da* = -p tan d, dp/dd = 0, dq/dd = -r. Not defined at the poles, where p and q are not.
    """
    r, p, q = _triad(observed)
    dec, parallax, pmra, pmdec, v_r = observed.T[1:, :, None]
    tan, k = np.tan(dec * DEG), MAS_YR_KPC_KMS
    zero = np.zeros_like(r)
    along = k * (pmra * (q * tan - r) - pmdec * p * tan) / parallax
    columns = [
        (MAS * p / parallax, MAS * (v_r * p + along)),
        (MAS * q / parallax, MAS * (v_r * q - k * pmdec * r / parallax)),
        (-r / parallax**2, -k * (pmra * p + pmdec * q) / parallax**2),
        (zero, k * p / parallax),
        (zero, k * q / parallax),
        (zero, r),
    ]
    rotation = sun.rotation
    x = np.stack([position @ rotation.T for position, _ in columns], axis=2)
    v = np.stack([velocity @ rotation.T for _, velocity in columns], axis=2)
    return np.concatenate([x, v], axis=1)


def propagate(observed: Observations, covariance: Matrices, sun: SolarFrame) -> Matrices:
    """Covariance of (x, v), (n, 6, 6) in kpc and km/s, to first order: J C J^T.

    `covariance` is that of (ra cos dec [mas], dec [mas], parallax, pmra, pmdec, radial_velocity).
    First order means small errors: at parallax_error / parallax = 1/3 the distance is skewed, and
    copies of the stars drawn in the observed space (`MilkyWayStars.resampled`) show how much.
    """
    j = jacobian(observed, sun)
    return j @ covariance @ j.transpose(0, 2, 1)
