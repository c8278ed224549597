"""Changes of variable that leave a stated prior as it is."""

import jax.numpy as jnp
import numpyro.distributions as dist

from bayesdust.arrays import Real
from bayesdust.potentials.base import SphericalHalo


def mass_for_density(
    prior: dist.Distribution, unit_halo: SphericalHalo, r: Real
) -> dist.Distribution:
    """Prior of ln M(<r) that is `prior` on ln rho_s, given the halo with rho_s = 1 Msun/kpc3.

    ln M = ln rho_s + ln M_unit(<r) is a shift, of Jacobian one: the prior on ln rho_s survives
    whatever r_s and the slopes are, while the sampler moves along the direction that the stars
    measure. `prior` should be on the whole real line (a bounded one would bring the shift back
    through the sampler's own transformation). `r` [kpc].
    """
    shift = dist.transforms.AffineTransform(jnp.log(unit_halo.enclosed_mass(r)), 1.0)
    return dist.TransformedDistribution(prior, shift)


def percent(value: float, error: float) -> dist.Distribution:
    """A positive quantity known to be value +- error: log-normal with that median and relative sd."""
    return dist.LogNormal(jnp.log(value), error / value)
