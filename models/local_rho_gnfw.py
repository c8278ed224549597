"""gNFW halo of the Milky Way from a measured profile of its dark matter.

The profile is a table (r, rho_dm and rho_dm_err, or covariances), or the folder of a fit of `mw_cbe_linear`,
whose own prior is divided out (`inference/profile_draws.py`). The halo is spherical, and the densities are
normal about it with the covariances given. Every prior is on this page, those of `mw_cbe_gnfw`; copy the file
(`bayesdust models copy local_rho_gnfw`) and change what you do not believe. Radii near the Sun tell the local
density, somewhat of the slope there, and next to nothing of gamma and r_s apart: the report says how much.

Takes no options.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesdust.inference import profile
from bayesdust.potentials import GNFW

KIND = "milky_way_profile"
#: 0.95 +- 0.42, between 0 and 1.9
GAMMA = dist.TransformedDistribution(
    dist.Beta(2.0, 2.0),
    dist.transforms.AffineTransform(0.0, 1.9, domain=dist.constraints.unit_interval),
)


def prepare(measured, options):
    return profile.prepare(measured, options)


def model(data):
    ln_rho_dm = numpyro.sample("ln_rho_dm", dist.Normal(jnp.log(1e7), 1.0))  # Msun/kpc3, at the Sun
    r_s = jnp.exp(numpyro.sample("ln_r_s", dist.Normal(jnp.log(16.0), 0.5)))  # kpc
    gamma = numpyro.sample("gamma", GAMMA)
    numpyro.deterministic("r_s", r_s)
    halo = GNFW(jnp.exp(ln_rho_dm) / GNFW(1.0, r_s, gamma).density(data.r_sun), r_s, gamma)
    profile.likelihood(data, halo)
    profile.record(data, halo)
