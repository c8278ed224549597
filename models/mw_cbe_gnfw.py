"""gNFW halo, disc and bulge: the Milky Way's force and dark matter from stars behind dust.

The collisionless Boltzmann equation in sums over the stars (the weak form of Putney+2024), each star counted
once. Every prior is on this page; copy the file (`bayesdust models copy mw_cbe_gnfw`) and change what you do
not believe. The baryons' priors are what tells dark matter from discs.

Options (`--option KEY=VALUE`): efficiency = none | given (the stars' weights) | magnitudes (dust fitted to
the stars' magnitudes, with limit = the survey's, and absolute_limit where the sample is cut at one);
counts = used | ignored (does the stars' number tell of dust too?); magnitude (their column; G or
phot_g_mean_mag by itself); bump [kpc], the size of the test functions; errors = ignored | deconvolved, and
sun = fixed | uncertain, which Gaia's columns decide by themselves; likelihood = sums | flow (forces that
flows read off the stars, a cross-check that takes minutes to prepare).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesdust.inference import galaxy
from bayesdust.potentials import (
    GNFW,
    MiyamotoNagai,
    PowerLawCutoff,
    SphericalAsPotential,
    Spheroid,
    Sum,
)

KIND = "milky_way"
#: 0.95 +- 0.42, between 0 and 1.9; a flat one would end in walls that the sampler runs into
GAMMA = dist.TransformedDistribution(
    dist.Beta(2.0, 2.0),
    dist.transforms.AffineTransform(0.0, 1.9, domain=dist.constraints.unit_interval),
)


def prepare(stars, options, points=None, **more):
    return galaxy.prepare(stars, options, points, **more)


def model(data):
    halo = sample_halo(data)
    potential = Sum((sample_disc(data), halo, sample_bulge()))
    galaxy.weak_likelihood(data, potential)
    galaxy.record(data, potential, halo)


def sample_halo(data):
    """Density in the plane at the Sun, r_s, inner slope and flattening."""
    ln_rho_dm = numpyro.sample("ln_rho_dm", dist.Normal(jnp.log(1e7), 1.0))  # Msun/kpc3
    r_s = jnp.exp(numpyro.sample("ln_r_s", dist.Normal(jnp.log(16.0), 0.5)))  # kpc
    gamma = numpyro.sample("gamma", GAMMA)
    q = jnp.exp(numpyro.sample("ln_q", dist.Normal(0.0, 0.2)))
    numpyro.deterministic("r_s", r_s)
    numpyro.deterministic("q", q)
    unit = GNFW(1.0, r_s, gamma)
    return Spheroid(GNFW(jnp.exp(ln_rho_dm) / unit.density(data.R_sun), r_s, gamma), q)


def sample_disc(data):
    """All discs as one of Miyamoto & Nagai, 0.084 +- 0.013 Msun/pc3 at the Sun (McKee+2015)."""
    a = jnp.exp(numpyro.sample("ln_a_disc", dist.Normal(jnp.log(3.0), 0.2)))  # kpc
    b = jnp.exp(numpyro.sample("ln_b_disc", dist.Normal(jnp.log(0.28), 0.2)))
    local = numpyro.sample("rho_disc_sun", dist.Normal(0.084, 0.013))  # Msun/pc3
    unit = MiyamotoNagai(1.0, a, b).density(jnp.array([data.R_sun, 0.0, 0.0]))
    mass = numpyro.deterministic("mass_disc", local * 1e9 / unit)  # Msun
    return MiyamotoNagai(mass, a, b)


def sample_bulge():
    """Of the shape of MWPotential2014's; 4.5e9 Msun in all, within a factor of 1.3 at 68 %."""
    mass = jnp.exp(numpyro.sample("ln_mass_bulge", dist.Normal(jnp.log(4.5e9), 0.25)))  # Msun
    unit = PowerLawCutoff(1.0, 1.9, 1.8)
    return SphericalAsPotential(PowerLawCutoff(mass / unit.enclosed_mass(30.0), 1.9, 1.8))
