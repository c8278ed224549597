"""The embedded defaults: a mock dwarf galaxy and a dusty mock of the Milky Way, truths known."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from bayesdust.anisotropy import Isotropic
from bayesdust.catalogs.dwarf import read_stars
from bayesdust.catalogs.facts import Galaxy
from bayesdust.dynamics.jeans import sigma_los
from bayesdust.inference.dwarf import ANGLES
from bayesdust.inference.programs import load
from bayesdust.mocks import BENCHMARK, benchmark, generator, observe
from bayesdust.potentials import milky_way_2014
from bayesdust.products import d_factor, j_factor
from bayesdust.runs import Request
from bayesdust.units import ARCMIN, COLUMN, DENSITY_GEV_CM3

DISTANCE = 80.0  # kpc
V_ERR = 2.0  # km/s


def request(seed: int = 0, n: int = 1000) -> Request:
    """A fit of `n` stars of the benchmark of Lim+2025 (arXiv:2505.00763), truth attached.

    Tracer (2, 5, 1) with r* = 0.25 kpc, halo (1, 3, 1) with r_s = 1 kpc and
    rho_s = 6.4e7 Msun/kpc3, isotropic orbits, seen from 80 kpc with errors of 2 km/s.
    """
    r_half = float(BENCHMARK.tracer.half_light_radius)
    galaxy = Galaxy(
        "Mock cusp",
        DISTANCE,
        rhalf=r_half / DISTANCE / ARCMIN,
        rhalf_err=0.05 * r_half / DISTANCE / ARCMIN,
        v_sys=0.0,
    )
    table = observe(benchmark(n, seed), DISTANCE, v_err=V_ERR, seed=seed)
    stars = read_stars(table, galaxy)
    halo = BENCHMARK.halo
    truth = {
        "gamma": 1.0,
        "r_s": 1.0,
        "ln_r_s": 0.0,
        "ln_mass": np.log(halo.enclosed_mass(1.8 * r_half)),
        "rho_s": 6.4e7,
        "beta_ani": 0.0,
        "beta_tilde": 0.0,
        "v_sys": 0.0,
        "rhalf": galaxy.rhalf,
        "log10_J": np.log10(j_factor(halo, ANGLES, DISTANCE)),
        "log10_D": np.log10(d_factor(halo, ANGLES, DISTANCE)),
        "rho": halo.density,
        "mass": halo.enclosed_mass,
        "v_circ": halo.circular_velocity,
        "sigma_los": lambda R: sigma_los(R, halo, BENCHMARK.tracer, Isotropic()),
    }
    options = {"light_gamma": 1.0}  # the stars' own, so that the truth is among the models
    return Request(load("dsph_gnfw"), stars, "nuts", options, {"seed": seed}, truth)


def milky_way_request(seed: int = 0, n: int = 30_000, places: int = 40) -> Request:
    """A fit of `n` stars of `dusty_mocks.dusty_survey`, their dust told by magnitudes, truth attached.

    Thin disc, thick disc and halo in MWPotential2014 behind a dozen clouds and a layer; `places` random
    ones within 3 kpc of the Sun and 1 kpc of the plane are asked for.
    """
    from bayesdust.dusty_mocks import dusty_survey

    survey = dusty_survey(n, seed)
    ball = survey.galaxy.ball
    stars = survey.stars()
    points = _places(np.asarray(ball.centre), places, seed)
    halo = milky_way_2014().parts[1]
    at = jax.vmap(lambda x: (survey.galaxy.potential.potential(x), halo.density(x)))
    phi, rho_dm = (np.asarray(a) for a in at(points))
    local = float(halo.density(jnp.array([abs(ball.centre[0]), 0.0, 0.0])))

    def above(heights: ArrayLike) -> np.ndarray:
        return np.multiply.outer(heights, [0.0, 0.0, 1.0]) + np.array([ball.R, 0.0, 0.0])

    def K_z(heights: ArrayLike) -> np.ndarray:
        return -survey.acceleration(above(heights))[:, 2]

    column = float(K_z([1.1])[0]) * COLUMN
    truth = {
        "gamma": 1.0,
        "q": 1.0,
        "ln_q": 0.0,
        "r_s": 16.0,
        "ln_r_s": np.log(16.0),
        "ln_rho_dm": np.log(local),
        "rho_dm_sun": local * DENSITY_GEV_CM3,
        "rho_dm_sun_msun_pc3": local * 1e-9,
        "rho_dm_r": jax.vmap(lambda r: halo.density(jnp.array([r, 0.0, 0.0]))),
        "v_circ": jax.vmap(survey.galaxy.potential.circular_velocity),
        "rho_baryons_sun_msun_pc3": float(survey.density(above([0.0]))[0] - local) * 1e-9,
        "rho_z": lambda heights: survey.density(above(heights)),
        "K_z": K_z,
        "sigma_1.1kpc": column,
        "sigma_baryons_1.1kpc": column
        + float(halo.acceleration(jnp.asarray(above(1.1)))[2]) * COLUMN,
        "phi": phi,
        "rho_dm": rho_dm,
        "rho": survey.density(points),
        "acceleration": survey.acceleration(points),
        "epsilon": survey.efficiency(points),
    }
    options = {"limit": survey.limit}
    settings = {"seed": seed}
    return Request(load("mw_cbe_gnfw"), stars, "nuts", options, settings, truth, points)


def _places(centre: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Random places (number, 3) [kpc] within 3 kpc of `centre` and 1 kpc of the plane."""
    rng = generator(seed, "demo.places")
    x = rng.uniform(-1, 1, (20 * number, 3)) * np.array([3.0, 3.0, 1.0])
    return centre + x[np.sum(x**2, axis=1) < 9.0][:number]
