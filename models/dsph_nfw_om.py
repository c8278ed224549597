"""NFW halo, Plummer light, Osipkov-Merritt orbits: the smallest model, a good one to copy first.

Isotropic inside r_a, radial outside; a cusp of slope 1. Distance and half-light radius are fixed at
the table of facts. Options: membership = none | given; velocities = gaussian | kurtosis (with the fourth
Jeans equation); light_gamma, perspective, stellar_mass, r_trunc.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesdust.anisotropy import OsipkovMerritt
from bayesdust.inference import dwarf
from bayesdust.inference.priors import mass_for_density
from bayesdust.potentials import NFW

KIND = "dwarf"


def prepare(stars, options):
    takes = ("membership", "velocities", "light_gamma", "perspective", "stellar_mass", "r_trunc")
    return dwarf.prepare(stars, options, takes=takes)


def model(data):
    distance = data.galaxy.distance  # kpc
    tracer = dwarf.light_profile(data.r_half, data.options["light_gamma"])

    ln_r_s = numpyro.sample("ln_r_s", dist.Normal(0.0, 1.0))  # r_s in kpc
    r_s = numpyro.deterministic("r_s", jnp.exp(ln_r_s))
    # prior on ln rho_s [Msun/kpc3], sampled as ln M(<1.8 R_half) [Msun]
    prior = mass_for_density(dist.Normal(jnp.log(1e8), 3.0), NFW(1.0, r_s), data.pivot)
    ln_mass = numpyro.sample("ln_mass", prior)
    rho_s = jnp.exp(ln_mass) / NFW(1.0, r_s).enclosed_mass(data.pivot)
    halo = NFW(numpyro.deterministic("rho_s", rho_s), r_s)

    ln_r_a = numpyro.sample("ln_r_a", dist.Normal(jnp.log(data.r_half), 1.0))
    orbits = OsipkovMerritt(numpyro.deterministic("r_a", jnp.exp(ln_r_a)))

    v_sys = numpyro.sample("v_sys", dist.Normal(data.v_centre, 20.0))  # km/s
    mean = dwarf.line_of_sight_mean(data, v_sys, distance)
    variance, kurtosis = dwarf.velocity_moments(data, halo, tracer, orbits, distance)
    foreground = None
    if data.options["membership"] == "given":  # velocities of the stars that are not members
        v_foreground = numpyro.sample("v_foreground", dist.Normal(0.0, 150.0))
        width = numpyro.sample("sigma_foreground", dist.LogNormal(jnp.log(80.0), 0.7))
        foreground = dist.Normal(v_foreground, width)
    dwarf.velocity_likelihood(data, mean, variance, foreground, kurtosis=kurtosis)
    dwarf.record(data, halo, tracer, orbits, distance)
