"""Zhao halo and Zhao light, Baes-van Hese orbits: the most flexible parametric model.

Inner, turning and outer slopes of the halo are all free, and so are the inner slope of the light and
the run of the anisotropy. Expect wide posteriors: that is the point. Copy the file to change priors.

Options: membership = none | given; light = facts | joint | members; velocities = gaussian | kurtosis (with
the fourth Jeans equation); perspective = true | false; stellar_mass [Msun]; r_trunc [kpc]; rho_max
[Msun/kpc3].
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesdust.anisotropy import BaesVanHese, from_symmetrised
from bayesdust.inference import dwarf
from bayesdust.inference.priors import mass_for_density, percent
from bayesdust.potentials import Zhao
from bayesdust.tracers import ZhaoTracer
from bayesdust.units import ARCMIN

KIND = "dwarf"


def prepare(stars, options):
    takes = (
        "membership",
        "light",
        "velocities",
        "perspective",
        "stellar_mass",
        "r_trunc",
        "rho_max",
    )
    return dwarf.prepare(stars, options, takes=takes)


def model(data):
    galaxy = data.galaxy
    distance = galaxy.distance
    if galaxy.distance_err:
        distance = numpyro.sample("distance", percent(galaxy.distance, galaxy.distance_err))

    # --- light: slopes (2, 5, light_gamma), half-light radius in arcmin
    fitted = data.options["light"] != "facts"
    rhalf_err = 0.5 * data.rhalf if fitted else data.rhalf_err
    rhalf = numpyro.sample("rhalf", percent(data.rhalf, rhalf_err))
    light_gamma = numpyro.sample("light_gamma", dist.Uniform(0.0, 1.2))
    shape = ZhaoTracer(1.0, 2.0, 5.0, light_gamma)
    tracer = ZhaoTracer(distance * rhalf * ARCMIN / shape.half_light_radius, 2.0, 5.0, light_gamma)
    if fitted:
        members = 1.0
        if data.light_p is None:
            members = numpyro.sample("light_members", dist.Uniform(0.0, 1.0))
        dwarf.light_likelihood(data, tracer, distance, members)

    # --- halo: gamma below 1.5, where J would diverge; beta above 2, where potentials are finite
    gamma = numpyro.sample("gamma", dist.Uniform(0.0, 1.4))
    alpha = numpyro.sample("alpha", dist.Uniform(0.5, 3.0))
    beta = numpyro.sample("beta", dist.Uniform(2.5, 5.0))
    ln_r_s = numpyro.sample("ln_r_s", dist.Normal(0.0, 1.0))
    r_s = numpyro.deterministic("r_s", jnp.exp(ln_r_s))
    unit = Zhao(1.0, r_s, alpha, beta, gamma)
    ln_rho_s = dist.Normal(jnp.log(1e8), 3.0)
    # sampled as ln M(<1.8 R_half) [Msun], which the stars measure; the prior stays the one above
    ln_mass = numpyro.sample("ln_mass", mass_for_density(ln_rho_s, unit, data.pivot))
    rho_s = numpyro.deterministic("rho_s", jnp.exp(ln_mass) / unit.enclosed_mass(data.pivot))
    halo = Zhao(rho_s, r_s, alpha, beta, gamma)

    # --- orbits: flat in beta_tilde = beta/(2 - beta), inside and outside r_a
    inner = numpyro.sample("beta_tilde_0", dist.Uniform(-0.6, 0.6))
    outer = numpyro.sample("beta_tilde_inf", dist.Uniform(-0.6, 0.95))
    ln_r_a = numpyro.sample("ln_r_a", dist.Normal(jnp.log(data.r_half), 1.0))
    eta = numpyro.sample("eta", dist.Uniform(1.0, 3.0))
    r_a = numpyro.deterministic("r_a", jnp.exp(ln_r_a))
    orbits = BaesVanHese(from_symmetrised(inner), from_symmetrised(outer), r_a, eta)

    # --- velocities
    v_sys = numpyro.sample("v_sys", dist.Normal(data.v_centre, 20.0))  # km/s
    foreground = None
    if data.options["membership"] == "given":
        mean = numpyro.sample("v_foreground", dist.Normal(0.0, 150.0))
        scale = numpyro.sample("sigma_foreground", dist.LogNormal(jnp.log(80.0), 0.7))
        foreground = dist.Normal(mean, scale)
    variance, kurtosis = dwarf.velocity_moments(data, halo, tracer, orbits, distance)
    mean = dwarf.line_of_sight_mean(data, v_sys, distance)
    dwarf.velocity_likelihood(data, mean, variance, foreground, kurtosis=kurtosis)
    dwarf.record(data, halo, tracer, orbits, distance)
