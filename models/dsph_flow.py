"""Free of families: an equivariant flow for the light, a halo whose slope runs freely, exact projection.

The stars' density is a rotation-equivariant continuous flow (Lim+2025, arXiv:2505.00763), its cusp
included; the halo is positive and otherwise held only by a prior on how fast its slope turns; velocities
are normal at each place and projected exactly, not normal on the sky. Every prior is on this page.

Options: anisotropy = isotropic | constant | osipkov_merritt; beta_ani (a number: constant, and given);
membership = none | given; light = joint | members (the velocity stars' own positions) | facts (a Plummer
sphere); perspective = true | false; stellar_mass [Msun]; r_trunc [kpc]; rho_max [Msun/kpc3].
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesdust import anisotropy as orbits
from bayesdust.errors import BayesdustError
from bayesdust.flows.light import FlowTracer
from bayesdust.flows.spherical import RampField
from bayesdust.inference import dwarf
from bayesdust.inference.priors import mass_for_density, percent
from bayesdust.potentials.freeform import FreeSlope
from bayesdust.tracers import Plummer
from bayesdust.units import ARCMIN

KIND = "dwarf"
TAKES = ("anisotropy", "beta_ani", "membership", "light", "perspective", "stellar_mass")

# The field that carries the stars to a normal law, g = a_0 + sum a_k ramp_k(ln(1 + (r/eps)^2)): the
# prior's mean is near a Plummer sphere, its width scatters nu by a factor of 2 to 3 within R_half, of 10
# at 2 R_half and of 100 at 3.6 R_half.
FIELD_MEAN = np.array(
    [0.45, -0.01, -0.01, -0.01, -0.05, -0.13, -0.2, -0.23, -0.22, -0.18, -0.11, -0.05]
)
FIELD_SD = np.array([0.3, *[0.1] * 3, *[0.05] * 8])
EPS, SPACING = 0.3, 0.75

# Knots about which the halo's slope turns, in ln(r/R_half): a factor of two apart, from 0.14 to 18 R_half.
STEP, KNOTS = 0.7, 8
INNERMOST = -2.0


def prepare(stars, options):
    options = dict(options)
    if options.get("light", "auto") == "auto":
        options["light"] = "members" if stars.photometry is None else "joint"
    if options.get("anisotropy") == "baes_van_hese":
        raise BayesdustError("dsph_flow has no Baes-van Hese orbits: give another anisotropy.")
    data = dwarf.prepare(stars, options, takes=(*TAKES, "r_trunc", "rho_max"))
    inner, outer = (data.r_half * np.exp(x) for x in (INNERMOST - STEP, INNERMOST + KNOTS * STEP))
    note = (
        f"Inside {1000 * inner:.2g} pc rho is a power law of slope gamma, and outside {outer:.2g} kpc one at "
        "least as steep as r^-3: what J has from there is an extrapolation."
    )
    return dataclasses.replace(data, notes=(*data.notes, note))


def model(data):
    distance = data.galaxy.distance
    if data.galaxy.distance_err:
        distance = numpyro.sample("distance", percent(distance, data.galaxy.distance_err))
    tracer = sample_light(data, distance)
    halo = sample_halo(data)
    anisotropy = sample_orbits(data)
    v_sys = numpyro.sample("v_sys", dist.Normal(data.v_centre, 20.0))  # km/s

    shares, variances = data.lines.components(
        halo, tracer, anisotropy, distance, data.options["stellar_mass"]
    )
    mean = dwarf.line_of_sight_mean(data, v_sys, distance)
    member = dwarf.line_of_sight_velocities(data, mean, shares, variances)
    dwarf.member_likelihood(data, member, sample_foreground(data))
    numpyro.deterministic("slope_rhalf", halo.slope(data.r_half))
    numpyro.deterministic("nu", tracer.density(data.r))
    dwarf.record(data, halo, tracer, anisotropy, distance)


def sample_light(data, distance):
    """The flow of the stars' positions, or with light = facts a Plummer sphere."""
    scale = distance * data.rhalf * ARCMIN
    if data.options["light"] == "facts":
        rhalf = numpyro.sample("rhalf", percent(data.rhalf, data.rhalf_err))  # arcmin
        return Plummer(distance * rhalf * ARCMIN)
    gamma = numpyro.sample("light_gamma", dist.Uniform(0.0, 1.4))
    field = numpyro.sample("field", dist.Normal(FIELD_MEAN, FIELD_SD).to_event(1))
    tracer = FlowTracer.from_field(RampField(field, SPACING, EPS), scale, gamma)
    members = 1.0 if data.light_p is None and data.p_member is None else 0.5
    dwarf.light_likelihood(data, tracer, distance, members)
    return tracer


def sample_halo(data):
    """Slope from knot to knot: a random walk that steepens outwards on average as NFW does.

    Beyond the last knot rho falls as r^-3 or faster, so that J and D converge.
    """
    inner = numpyro.sample("gamma", dist.Uniform(0.0, 1.4))  # below 1.5, where J would diverge
    turns = numpyro.sample("turns", dist.Normal(0.35, 0.5).expand([KNOTS]).to_event(1))
    walk = inner + jnp.concatenate([jnp.zeros(1), turns.cumsum()])
    slopes = walk.at[-1].set(3 + 0.2 * jnp.logaddexp(0.0, (walk[-1] - 3) / 0.2))  # a smooth maximum
    numpyro.deterministic("slopes", slopes)
    unit = FreeSlope(1.0, data.r_half * jnp.exp(INNERMOST), slopes, STEP)
    # the density at the innermost knot gets a wide prior, and is sampled as ln M(<1.8 R_half) [Msun]
    ln_rho_0 = dist.Normal(jnp.log(3e8), 3.0)
    ln_mass = numpyro.sample("ln_mass", mass_for_density(ln_rho_0, unit, data.pivot))
    rho_0 = jnp.exp(ln_mass) / unit.enclosed_mass(data.pivot)
    return FreeSlope(rho_0, unit.r_0, slopes, STEP)


def sample_orbits(data):
    """As in dsph_gnfw: flat in beta_tilde = beta/(2 - beta)."""
    if data.options["beta_ani"] is not None:
        return orbits.Constant(data.options["beta_ani"])
    if data.options["anisotropy"] == "isotropic":
        return orbits.Isotropic()
    if data.options["anisotropy"] == "osipkov_merritt":
        ln_r_a = numpyro.sample("ln_r_a", dist.Normal(jnp.log(data.r_half), 1.0))
        return orbits.OsipkovMerritt(numpyro.deterministic("r_a", jnp.exp(ln_r_a)))
    beta_tilde = numpyro.sample("beta_tilde", dist.Uniform(-0.6, 0.8))
    return orbits.Constant(numpyro.deterministic("beta_ani", orbits.from_symmetrised(beta_tilde)))


def sample_foreground(data):
    """Velocities of the stars that are not members."""
    if data.options["membership"] == "none":
        return None
    mean = numpyro.sample("v_foreground", dist.Normal(0.0, 150.0))  # km/s
    scale = numpyro.sample("sigma_foreground", dist.LogNormal(jnp.log(80.0), 0.7))
    return dist.Normal(mean, scale)
