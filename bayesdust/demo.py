"""The embedded default: a mock dwarf galaxy whose halo is known, as a run like any other."""

import numpy as np

from bayesdust.anisotropy import Isotropic
from bayesdust.catalogs.dwarf import read_stars
from bayesdust.catalogs.facts import Galaxy
from bayesdust.dynamics.jeans import sigma_los
from bayesdust.inference.dwarf import ANGLES
from bayesdust.inference.programs import load
from bayesdust.mocks import BENCHMARK, benchmark, observe
from bayesdust.products import d_factor, j_factor
from bayesdust.runs import Request
from bayesdust.units import ARCMIN

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
