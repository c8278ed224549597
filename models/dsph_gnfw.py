"""gNFW halo, Plummer light, choice of orbits: the default model of a dwarf spheroidal galaxy.

Spherical Jeans analysis of line-of-sight velocities, one Gaussian a star. Every prior is on this
page; copy the file (`bayesdust models copy dsph_gnfw`) and change what you do not believe.

Options (`--option KEY=VALUE`): anisotropy = isotropic | constant | osipkov_merritt | baes_van_hese;
beta_ani (a number: constant, and given); gamma (a number from 0 to 1.4: the inner slope, given);
membership = none | given | mixture; light = facts | joint | members; light_gamma (inner slope of the
light; 0 is Plummer); velocities = gaussian | kurtosis (with the fourth Jeans equation); proper_motions =
ignored | used; perspective, gradient = true | false; stellar_mass [Msun]; r_trunc [kpc]; rho_max
[Msun/kpc3].
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesdust import anisotropy as orbits
from bayesdust.inference import dwarf
from bayesdust.inference.priors import mass_for_density, percent
from bayesdust.potentials import GNFW
from bayesdust.units import ARCMIN

KIND = "dwarf"
V_FOREGROUND = jnp.linspace(-420.0, 420.0, 15)  # km/s


def prepare(stars, options):
    return dwarf.prepare(stars, options)


def model(data):
    distance = sample_distance(data.galaxy)
    tracer = sample_light(data, distance)
    halo = sample_halo(data)
    anisotropy = sample_orbits(data)
    v_sys = numpyro.sample("v_sys", dist.Normal(data.v_centre, 20.0))  # km/s
    gradient = None
    if data.options["gradient"]:  # km/s/kpc, east and north
        gradient = numpyro.sample("gradient", dist.Normal(0.0, 5.0).expand([2]))

    variance, kurtosis = dwarf.velocity_moments(data, halo, tracer, anisotropy, distance)
    foreground, p_member = sample_foreground(data, tracer, distance)
    motion = None
    if data.options["proper_motions"] == "used":
        motion = sample_motion(data)
        variances = dwarf.sky_variances(data, halo, tracer, anisotropy, distance)
        members = data.motions.members(variances, motion, v_sys, distance)
        others = None if foreground is None else sample_other_motions(data)
        p_member = dwarf.proper_motion_likelihood(data, members, others, p_member)
    mean = dwarf.line_of_sight_mean(data, v_sys, distance, gradient, motion)
    dwarf.velocity_likelihood(data, mean, variance, foreground, p_member, kurtosis)
    numpyro.deterministic("slope_rhalf", halo.slope(data.r_half))
    dwarf.record(data, halo, tracer, anisotropy, distance)


def sample_distance(galaxy):
    """Distance [kpc]: the table of facts, with its error where there is one."""
    if not galaxy.distance_err:
        return galaxy.distance
    return numpyro.sample("distance", percent(galaxy.distance, galaxy.distance_err))


def sample_light(data, distance):
    """Circularised R_half: from the table of facts, or from the positions of stars."""
    fitted = data.options["light"] != "facts"
    rhalf_err = 0.5 * data.rhalf if fitted else data.rhalf_err
    rhalf = numpyro.sample("rhalf", percent(data.rhalf, rhalf_err))  # arcmin
    tracer = dwarf.light_profile(distance * rhalf * ARCMIN, data.options["light_gamma"])
    if fitted:
        members = 1.0
        if data.light_p is None:
            members = numpyro.sample("light_members", dist.Uniform(0.0, 1.0))
        dwarf.light_likelihood(data, tracer, distance, members)
    return tracer


def sample_halo(data):
    """Wide priors on rho_s [Msun/kpc3] and r_s [kpc]; gamma below 1.5, where J would diverge."""
    gamma = sample_slope(data)
    ln_r_s = numpyro.sample("ln_r_s", dist.Normal(0.0, 1.0))
    r_s = numpyro.deterministic("r_s", jnp.exp(ln_r_s))
    unit = GNFW(1.0, r_s, gamma)
    ln_rho_s = dist.Normal(jnp.log(1e8), 3.0)
    # sampled as ln M(<1.8 R_half) [Msun], which the stars measure; the prior stays the one above
    ln_mass = numpyro.sample("ln_mass", mass_for_density(ln_rho_s, unit, data.pivot))
    rho_s = numpyro.deterministic("rho_s", jnp.exp(ln_mass) / unit.enclosed_mass(data.pivot))
    return GNFW(rho_s, r_s, gamma)


def sample_slope(data):
    """Inner slope: free, or the option's."""
    if data.options["gamma"] is not None:
        return numpyro.deterministic("gamma", jnp.asarray(float(data.options["gamma"])))
    return numpyro.sample("gamma", dist.Uniform(0.0, 1.4))


def sample_orbits(data):
    """Priors flat in beta_tilde = beta/(2 - beta), which treats radial and tangential alike."""
    kind = data.options["anisotropy"]
    if kind == "isotropic":
        return orbits.Isotropic()
    if data.options["beta_ani"] is not None:
        return orbits.Constant(data.options["beta_ani"])
    if kind == "constant":
        beta_tilde = numpyro.sample("beta_tilde", dist.Uniform(-0.6, 0.8))
        return orbits.Constant(
            numpyro.deterministic("beta_ani", orbits.from_symmetrised(beta_tilde))
        )
    ln_r_a = numpyro.sample("ln_r_a", dist.Normal(jnp.log(data.r_half), 1.0))
    r_a = numpyro.deterministic("r_a", jnp.exp(ln_r_a))
    if kind == "osipkov_merritt":
        return orbits.OsipkovMerritt(r_a)
    inner = numpyro.sample("beta_tilde_0", dist.Uniform(-0.6, 0.6))
    outer = numpyro.sample("beta_tilde_inf", dist.Uniform(-0.6, 0.95))
    eta = numpyro.sample("eta", dist.Uniform(1.0, 3.0))
    return orbits.BaesVanHese(
        orbits.from_symmetrised(inner), orbits.from_symmetrised(outer), r_a, eta
    )


def sample_foreground(data, tracer, distance):
    """Velocities of the stars that are not members, and how likely each star is one."""
    if data.options["membership"] == "none":
        return None, None
    # a smooth histogram: a single normal law has too thin tails, and what it leaves over would pass
    # for members of a galaxy ten times too heavy
    weights = numpyro.sample("foreground", dist.Dirichlet(jnp.ones(len(V_FOREGROUND))))
    foreground = dwarf.foreground_velocities(weights, V_FOREGROUND, 40.0)
    if data.options["membership"] == "given":
        return foreground, data.p_member
    ln_odds = numpyro.sample("ln_odds", dist.Normal(2.0, 3.0))  # members to foreground at R_half
    slope = numpyro.sample("slope_foreground", dist.Normal(0.0, 0.3))  # ln(density) per R_half
    return foreground, dwarf.membership(data, tracer, distance, ln_odds, slope)


def sample_motion(data):
    """Bulk proper motion [mas/yr]: within 100 km/s of the table of facts, else of the stars' median."""
    east, north = data.motions.centre
    pm_ra = numpyro.sample("pm_ra", dist.Normal(east, data.motions.width))
    pm_dec = numpyro.sample("pm_dec", dist.Normal(north, data.motions.width))
    return jnp.stack([pm_ra, pm_dec])


def sample_other_motions(data):
    """Proper motions of the stars that are not members [mas/yr]: one normal law."""
    mean = numpyro.sample("pm_foreground", dist.Normal(0.0, 5.0).expand([2]))
    ln_sd = numpyro.sample("ln_sd_pm_foreground", dist.Normal(jnp.log(3.0), 1.0))
    return data.motions.others(mean, jnp.exp(ln_sd))
