"""Potential and dust of the Milky Way without a shape: smooth random fields, their posterior in closed form.

The collisionless Boltzmann equation in sums over the stars (the weak form of Putney+2024), each star counted
once. Phi is a halo, discs and a bulge of free sizes plus a smooth field, ln epsilon another field about that
of the dust map. Every prior is on this page; copy the file (`bayesdust models copy mw_cbe_linear`)
and change what you do not believe. Neither rho nor the dark matter is held above zero.

Options (`--option KEY=VALUE`): efficiency = none | given (the stars' weights) | magnitudes (dust fitted to
the stars' magnitudes, with limit = the survey's, and absolute_limit where the sample is cut at one) | free
(from the motions alone); counts = used | ignored (does the stars' number tell of dust too?); magnitude
(their column); errors = ignored | deconvolved, and sun = fixed | uncertain, which Gaia's columns decide by
themselves; bump [kpc], the size of the test functions; modes and dust_modes, how many; likelihood = sums |
flow (forces that flows read off the stars, a cross-check that takes minutes to prepare).
"""

import functools

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayesdust.inference import galaxy_linear, linear_posterior
from bayesdust.potentials import NFW, MiyamotoNagai, PowerLawCutoff, SphericalAsPotential, Sum

KIND = "milky_way"
BULGE = PowerLawCutoff(4.5e9 / PowerLawCutoff(1.0, 1.9, 1.8).enclosed_mass(30.0), 1.9, 1.8)
#: what Phi is made of beside its field: 1e7 Msun/kpc3 of halo at 8 kpc, discs of 2e10 Msun; the last
#: four, of size zero unless the stars say so, are what other lengths of halo and disc would add
PARTS = {
    "halo": SphericalAsPotential(NFW(1e7 / NFW(1.0, 20.0).density(8.0), 20.0)),
    "thin_disc": MiyamotoNagai(2e10, 3.0, 0.15),
    "disc": MiyamotoNagai(2e10, 3.0, 0.35),
    "thick_disc": MiyamotoNagai(2e10, 3.0, 0.7),
    "bulge": SphericalAsPotential(BULGE),
    "inner_halo": SphericalAsPotential(NFW(1e7 / NFW(1.0, 6.0).density(8.0), 6.0)),
    "outer_halo": SphericalAsPotential(NFW(1e7 / NFW(1.0, 60.0).density(8.0), 60.0)),
    "short_disc": MiyamotoNagai(1e10, 1.5, 0.3),
    "long_disc": MiyamotoNagai(1e10, 4.5, 0.3),
}
#: normal priors (mean, sd) of their sizes; discs of 0.084 Msun/pc3 at the Sun, within a third,
#: and as many slopes of the force along R as haloes of gamma from 0 to 1.9 and discs of 2 to 4.5 kpc have
SIZES = {
    "halo": (1.0, 1.0),
    "thin_disc": (0.6, 0.4),
    "disc": (2.3, 0.7),
    "thick_disc": (0.6, 0.5),
    "bulge": (1.0, 0.25),
    "inner_halo": (0.0, 0.7),
    "outer_halo": (0.0, 0.7),
    "short_disc": (0.0, 1.5),
    "long_disc": (0.0, 1.0),
}
#: sd of ln epsilon about what `efficiency` says (with magnitudes, relative to ln epsilon itself), within
#: a factor of 1.6 at 68 %
DUST = {"given": 0.03, "magnitudes": 0.2, "free": 0.5, "none": 0.03}


def prepare(stars, options, points=None, **more):
    return galaxy_linear.prepare(stars, options, points, parts=PARTS, **more)


def posterior(data, key):
    fields = linear_posterior.Fields(
        sigma=dist.LogNormal(jnp.log(50.0), 0.7),  # (km/s)^2: 62 (km/s)^2/kpc across the plane
        length_R=dist.LogNormal(jnp.log(3.0), 0.2),  # kpc
        # a galaxy in equilibrium differs less along its rotation (y near the Sun) than across it
        length_phi=dist.LogNormal(jnp.log(6.0), 0.2),  # kpc
        length_z=dist.LogNormal(jnp.log(0.8), 0.2),  # kpc
        sigma_dust=dist.LogNormal(jnp.log(DUST[data.options["efficiency"]]), 0.5),
        length_dust=dist.LogNormal(jnp.log(1.0), 0.2),  # kpc
    )
    drawn = functools.partial(baryons, R_sun=data.R_sun)
    return linear_posterior.posterior(data, key, sizes=SIZES, fields=fields, baryons=drawn)


def baryons(key, R_sun):
    """A draw of the discs, 0.084 +- 0.013 Msun/pc3 at the Sun (McKee+2015), and of the bulge.

    What the density has beyond them is dark.
    """
    local, a, b, bulge = jax.random.normal(key, (4,))
    unit = MiyamotoNagai(1.0, 3.0 * jnp.exp(0.2 * a), 0.28 * jnp.exp(0.2 * b))
    mass = (0.084 + 0.013 * local) * 1e9 / unit.density(jnp.array([R_sun, 0.0, 0.0]))
    size = jnp.exp(0.25 * bulge)
    return Sum(
        (
            MiyamotoNagai(mass, unit.a, unit.b),
            SphericalAsPotential(PowerLawCutoff(size * BULGE.rho_s, 1.9, 1.8)),
        )
    )
