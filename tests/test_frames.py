"""ICRS to Galactocentric: against astropy, against automatic differentiation, against sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import ICRS, Galactocentric, SkyCoord
from astropy.coordinates import CartesianDifferential as Velocity

from bayesdust.catalogs.frames import SolarFrame, galactocentric, icrs, jacobian, propagate
from bayesdust.errors import BayesdustError
from bayesdust.units import DEG, MAS, MAS_DEG, MAS_YR_KPC_KMS

FRAMES = {
    "default": SolarFrame(),
    "moved": SolarFrame(8.3, -0.05, (-11.1, 232.24, 7.25), 266.0, -29.1),
    "in the plane": SolarFrame(z_sun=0.0),
}


def mock_sky(n: int = 500, seed: int = 0) -> np.ndarray:
    """Stars all over the sky from 10 pc to 30 kpc, (n, 6)."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            rng.uniform(0.0, 360.0, n),
            np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n))),
            10.0 ** rng.uniform(-1.5, 2.0, n),
            *rng.normal(0.0, 30.0, (2, n)),
            rng.normal(0.0, 100.0, n),
        ],
        axis=1,
    )


@pytest.mark.parametrize("name", FRAMES)
def test_agrees_with_astropy(name):
    sun, observed = FRAMES[name], mock_sky()
    frame = Galactocentric(
        galcen_coord=ICRS(sun.centre_ra * u.deg, sun.centre_dec * u.deg),
        galcen_distance=sun.distance * u.kpc,
        z_sun=sun.z_sun * u.kpc,
        galcen_v_sun=Velocity(sun.v_sun * u.km / u.s),
    )
    ra, dec, parallax, pmra, pmdec, rv = observed.T
    theirs = SkyCoord(
        ra=ra * u.deg,
        dec=dec * u.deg,
        distance=1.0 / parallax * u.kpc,
        pm_ra_cosdec=pmra * u.mas / u.yr,
        pm_dec=pmdec * u.mas / u.yr,
        radial_velocity=rv * u.km / u.s,
    ).transform_to(frame)
    x, v = galactocentric(observed, sun)
    for ours, other in (
        (x, theirs.cartesian.xyz.to_value(u.kpc).T),
        (v, theirs.velocity.d_xyz.to_value(u.km / u.s).T),
    ):
        size = np.linalg.norm(other, axis=1)
        assert (np.linalg.norm(ours - other, axis=1) <= 1e-9 * size).all()


def test_the_defaults_are_those_of_astropy_4():
    from astropy.coordinates import galactocentric_frame_defaults

    with galactocentric_frame_defaults.set("v4.0"):
        theirs = Galactocentric()
    ours = SolarFrame()
    assert theirs.galcen_distance.to_value(u.kpc) == ours.distance
    assert theirs.z_sun.to_value(u.kpc) == pytest.approx(ours.z_sun, rel=1e-15)
    np.testing.assert_allclose(theirs.galcen_v_sun.xyz.to_value(u.km / u.s), ours.v_sun)
    assert theirs.galcen_coord.ra.deg == pytest.approx(ours.centre_ra, rel=1e-15)
    assert theirs.galcen_coord.dec.deg == pytest.approx(ours.centre_dec, rel=1e-15)


@pytest.mark.parametrize("name", FRAMES)
def test_the_rotation_is_one_and_puts_the_sun_where_it_is(name):
    sun = FRAMES[name]
    np.testing.assert_allclose(sun.rotation @ sun.rotation.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(sun.rotation) == pytest.approx(1.0)
    centre = np.array([[sun.centre_ra, sun.centre_dec, 1.0 / sun.distance, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(galactocentric(centre, sun)[0], 0.0, atol=1e-14)
    assert np.linalg.norm(sun.position) == pytest.approx(sun.distance)


@pytest.mark.parametrize("name", FRAMES)
def test_there_and_back_again(name):
    """Relative to the distance from the Galactic centre, which x has been added to."""
    sun, observed = FRAMES[name], mock_sky()
    again = icrs(*galactocentric(observed, sun), sun)
    assert (again[:, 0] >= 0).all()
    rounding = 1e-14 * np.maximum(1.0, observed[:, 2:3] * sun.distance)
    for columns, scale in ((slice(0, 2), 360.0), (slice(2, 3), observed[:, 2:3])):
        off = abs(again[:, columns] - observed[:, columns])
        assert (off <= 5 * rounding * scale).all()
    speed = np.linalg.norm(observed[:, 3:5], axis=1) * MAS_YR_KPC_KMS / observed[:, 2]
    fastest = (300.0 + np.hypot(speed, observed[:, 5]))[:, None] * rounding
    assert (abs(again[:, 5:] - observed[:, 5:]) <= 5 * fastest).all()
    across = abs(again[:, 3:5] - observed[:, 3:5]) * MAS_YR_KPC_KMS / observed[:, 2:3]
    assert (across <= 5 * fastest).all()


# Errors


def from_motion(observed: jax.Array, sun: SolarFrame) -> jax.Array:
    """(x, v) of one star, with v as the derivative of x along the star's motion on the sky.

    Written without the vectors p and q of the package; time in kpc / (km/s).
    """
    ra, dec, parallax, pmra, pmdec, rv = observed

    def place(ra, dec, distance):
        unit = jnp.stack([jnp.cos(dec) * jnp.cos(ra), jnp.cos(dec) * jnp.sin(ra), jnp.sin(dec)])
        return jnp.asarray(sun.rotation) @ unit * distance + jnp.asarray(sun.position)

    at = (ra * DEG, dec * DEG, 1.0 / parallax)
    rates = (pmra * MAS_YR_KPC_KMS / jnp.cos(dec * DEG), pmdec * MAS_YR_KPC_KMS, rv)
    x, v = jax.jvp(place, at, rates)
    return jnp.concatenate([x, v + jnp.asarray(sun.velocity)])


@pytest.mark.parametrize("name", FRAMES)
def test_the_jacobian_is_that_of_automatic_differentiation(name):
    sun, observed = FRAMES[name], mock_sky(200)
    both = np.concatenate(galactocentric(observed, sun), axis=1)
    np.testing.assert_allclose(jax.vmap(lambda o: from_motion(o, sun))(observed), both, rtol=1e-9)
    expected = np.array(jax.vmap(jax.jacfwd(lambda o: from_motion(o, sun)))(observed))
    expected[:, :, :2] *= MAS_DEG  # per mas instead of per degree,
    expected[:, :, 0] /= np.cos(observed[:, 1] * DEG)[:, None]  # and along p
    scale = abs(expected).max(axis=1, keepdims=True)
    assert (abs(jacobian(observed, sun) - expected) <= 1e-10 * scale).all()


def test_the_jacobian_is_that_of_finite_differences():
    sun, observed = SolarFrame(), mock_sky(50, seed=3)
    steps = np.array([1e-4, 1e-4, 1e-4, 1e-2, 1e-2, 1e-2])
    sizes = np.tile(np.array([1.0 / MAS_DEG, 1.0 / MAS_DEG, 1.0, 1.0, 1.0, 1.0]), (50, 1))
    sizes[:, 0] *= np.cos(observed[:, 1] * DEG)
    steps = steps * np.where(np.arange(6) == 2, observed[:, 2:3], 1.0)
    ours = jacobian(observed, sun)
    for k in range(6):
        h = np.where(np.arange(6) == k, steps, 0.0)
        high, low = (np.concatenate(galactocentric(observed + s * h, sun), axis=1) for s in (1, -1))
        slope = (high - low) / (2.0 * steps[:, k] * sizes[:, k])[:, None]
        scale = abs(slope).max(axis=1, keepdims=True)
        # relative errors: step^2 / 6 in the angles, step^2 in the parallax, rounding 1e-16 / step
        assert (abs(ours[:, :, k] - slope) <= 1e-7 * scale).all(), k


def test_covariances_agree_with_sampling():
    """Small errors with every correlation: the sample covariance within its Monte Carlo errors."""
    sun, n = SolarFrame(), 200_000
    star = np.array([[120.0, -35.0, 0.8, 4.0, -7.0, 45.0]])
    rng = np.random.default_rng(5)
    root = rng.normal(size=(6, 6))
    correlation = root @ root.T
    size = np.sqrt(np.diag(correlation))
    correlation /= np.outer(size, size)
    errors = np.array([0.02, 0.02, 0.002, 0.02, 0.02, 0.3])  # parallax to 0.25 %
    covariance = correlation * np.outer(errors, errors)
    shift = rng.multivariate_normal(np.zeros(6), covariance, n)
    shift[:, :2] *= MAS / DEG
    shift[:, 0] /= np.cos(star[0, 1] * DEG)
    both = np.concatenate(galactocentric(star + shift, sun), axis=1)
    ours = propagate(star, covariance[None], sun)[0]
    spread = np.sqrt(np.diag(ours))
    # standard error of a sample covariance of normal numbers (Wishart)
    error = np.sqrt((ours**2 + np.outer(spread**2, spread**2)) / n)
    z = (np.cov(both.T) - ours)[np.triu_indices(6)] / error[np.triu_indices(6)]
    assert abs(z).max() < 4.0  # of 21; one in 1,500 by chance
    assert np.sqrt(np.mean(z**2)) < 1.8  # correlated among themselves


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"distance": 0.0}, "must exceed its height"),
        ({"distance": -8.0}, "must exceed its height"),
        ({"z_sun": 9.0}, "must exceed its height"),
        ({"distance": float("nan")}, "finite"),
        ({"v_sun": (1.0, float("inf"), 0.0)}, "finite"),
    ],
)
def test_impossible_suns_are_refused(wrong, says):
    with pytest.raises(BayesdustError, match=says):
        SolarFrame(**wrong)
