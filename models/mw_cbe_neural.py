"""Potential and dust of the Milky Way as neural networks: the posterior of their weights, by NUTS.

The collisionless Boltzmann equation in sums over the stars (the weak form of Putney+2024), each star counted
once. Phi is a halo, discs and a bulge of free sizes plus a network, ln epsilon a network about that of the
dust map. Every prior is on this page; copy the file (`bayesdust models copy mw_cbe_neural`) and change what
you do not believe. Neither rho nor the dark matter is held above zero.

Options (`--option KEY=VALUE`): efficiency = none | given (the stars' weights) | magnitudes (dust fitted to
the stars' magnitudes, with limit = the survey's, and absolute_limit where the sample is cut at one) | free
(from the motions alone); counts = used | ignored (does the stars' number tell of dust too?); magnitude
(their column); errors = ignored | deconvolved, and sun = fixed | uncertain, which Gaia's columns decide by
themselves; bump [kpc], the size of the test functions; modes and dust_modes, how fine a field the networks
may draw; likelihood = sums | flow (forces that flows read off the stars, a cross-check that takes minutes to
prepare).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesdust.inference import galaxy_neural
from bayesdust.inference.galaxy_neural import Network
from bayesdust.potentials import NFW, MiyamotoNagai, PowerLawCutoff, SphericalAsPotential, Sum

KIND = "milky_way"
WIDTH, LAYERS = 32, 2  # of both networks
BULGE = PowerLawCutoff(4.5e9 / PowerLawCutoff(1.0, 1.9, 1.8).enclosed_mass(30.0), 1.9, 1.8)
#: what Phi is made of beside its network: 1e7 Msun/kpc3 of halo at 8 kpc, discs of 2e10 Msun; the last
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
    return galaxy_neural.prepare(stars, options, points, parts=PARTS, **more)


def model(data):
    sizes = {name: numpyro.sample(f"size_{name}", dist.Normal(*SIZES[name])) for name in PARTS}
    values = galaxy_neural.asked_of(data, sizes, sample_potential(data), sample_dust(data))
    galaxy_neural.weak_likelihood(data, values)
    galaxy_neural.record(data, values, sample_baryons(data))


def sample_potential(data):
    """A random field of 50 (km/s)^2 or less: 62 (km/s)^2/kpc across the plane."""
    sigma = jnp.exp(numpyro.sample("ln_sigma", dist.Normal(jnp.log(50.0), 0.7)))
    length_R = jnp.exp(numpyro.sample("ln_length_R", dist.Normal(jnp.log(3.0), 0.2)))  # kpc
    # a galaxy in equilibrium differs less along its rotation (y near the Sun) than across it
    length_phi = jnp.exp(numpyro.sample("ln_length_phi", dist.Normal(jnp.log(6.0), 0.2)))
    length_z = jnp.exp(numpyro.sample("ln_length_z", dist.Normal(jnp.log(0.8), 0.2)))
    lengths = jnp.stack([length_R, length_phi, length_z])
    return Network(sample_weights("weights_phi"), data.modes.centre, lengths, sigma, WIDTH, LAYERS)


def sample_dust(data):
    if data.dust_modes is None:
        return None
    sigma = jnp.log(DUST[data.options["efficiency"]])
    sigma = jnp.exp(numpyro.sample("ln_sigma_dust", dist.Normal(sigma, 0.5)))
    length = jnp.exp(numpyro.sample("ln_length_dust", dist.Normal(jnp.log(1.0), 0.2)))  # kpc
    lengths = length * jnp.array([1.0, 1.0, 0.6])
    return Network(sample_weights("weights_dust"), data.sun, lengths, sigma, WIDTH, LAYERS)


def sample_weights(name):
    count = Network.count(WIDTH, LAYERS)
    return numpyro.sample(name, dist.Normal(0.0, 1.0).expand([count]).to_event(1))


def sample_baryons(data):
    """Discs, 0.084 +- 0.013 Msun/pc3 at the Sun (McKee+2015), and the bulge: what is not dark."""
    a = jnp.exp(numpyro.sample("ln_a_disc", dist.Normal(jnp.log(3.0), 0.2)))  # kpc
    b = jnp.exp(numpyro.sample("ln_b_disc", dist.Normal(jnp.log(0.28), 0.2)))
    local = numpyro.sample("rho_disc_sun", dist.Normal(0.084, 0.013))  # Msun/pc3
    size = jnp.exp(numpyro.sample("ln_size_bulge_baryons", dist.Normal(0.0, 0.25)))
    unit = MiyamotoNagai(1.0, a, b).density(jnp.array([data.R_sun, 0.0, 0.0]))
    return Sum(
        (
            MiyamotoNagai(local * 1e9 / unit, a, b),
            SphericalAsPotential(PowerLawCutoff(size * BULGE.rho_s, 1.9, 1.8)),
        )
    )
