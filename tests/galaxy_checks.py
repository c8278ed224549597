"""What the trees of every model of the Milky Way must hold."""

import jax
import numpy as np

from bayesdust.potentials import milky_way_2014
from bayesdust.units import G

TRUTH = milky_way_2014()


def assert_vertical_force(posterior):
    """K_z and rho above the Sun are those of the galaxy, up to two kpc, and Sigma K_z's value at 1.1 kpc."""
    found, rho = (
        posterior[name].transpose(..., "height").values.reshape(-1, posterior.sizes["height"])
        for name in ("K_z", "rho_z")
    )
    heights = posterior["height"].values
    above = np.stack([0 * heights - 8.122, 0 * heights, heights], axis=-1)
    assert np.all(abs(rho.mean(axis=0) - jax.vmap(TRUTH.density)(above)) < 5 * rho.std(axis=0))
    assert np.all(rho.std(axis=0) < 5e7)  # Msun/kpc3, half of what there is in the plane
    truth = -np.asarray(jax.vmap(TRUTH.acceleration)(above))[:, 2]
    assert np.all(abs(found.mean(axis=0) - truth) < 5 * found.std(axis=0))
    assert np.all(found.std(axis=0) < 0.3 * truth)  # a force of zero would not pass
    column = posterior["K_z"].sel(height=1.1, method="nearest") / (2 * np.pi * G) * 1e-6
    np.testing.assert_allclose(posterior["sigma_1.1kpc"], column, rtol=1e-12)
