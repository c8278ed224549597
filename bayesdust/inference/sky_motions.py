"""Proper motions made ready for a model: whose they are, how a bulk velocity shows in them, their law.

Proper motions stay in mas/yr, in which they were measured: in km/s the density of the data would change
with a sampled distance. Each star's two components are normal, with covariance

    [sigma_pmT^2 1 + (sigma_pmR^2 - sigma_pmT^2) o o^T]/(4.74 D)^2 + that of the errors,         (1)

o pointing away from the centre on the sky. v_los is taken to be independent of them: the covariances of
the three components are zero, by symmetry in depth, but they share the star's depth and speed, and none
is normal.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float, Int

from bayesdust.arrays import Array, Real
from bayesdust.catalogs.dwarf import Stars
from bayesdust.catalogs.validation import robust_spread
from bayesdust.dynamics.sky_axes import local_axes, outward, unit
from bayesdust.errors import BayesdustError
from bayesdust.units import MAS_YR_KPC_KMS

WORTH_IT = 3.0  # velocity dispersions: proper motions with larger errors tell next to nothing
WIDTH = 100.0  # km/s, of the prior of the bulk velocity on the sky


@dataclass(frozen=True, eq=False)
class SkyMotions:
    """Proper motions of m of a galaxy's n stars.

    Attributes
    ----------
    rows : (m,) which of the stars
    value : (m, 2) mas/yr, to the east and north
    covariance : (m, 2, 2) (mas/yr)^2, of the errors
    axes : (m, 2, 3) east and north at the stars, of `sky_axes.local_axes`
    outward : (m, 2) away from the centre
    centre : (2,) mas/yr, where to centre the prior of the bulk motion: the facts, else the stars' median
    width : mas/yr, 100 km/s at the catalogue distance: the prior's standard deviation
    """

    rows: Int[np.ndarray, " m"]
    value: Float[Array, "m 2"] | Float[np.ndarray, "m 2"]
    covariance: Float[np.ndarray, "m 2 2"]
    axes: Float[np.ndarray, "m 2 3"]
    outward: Float[np.ndarray, "m 2"]
    centre: Float[np.ndarray, "2"]
    width: float

    @classmethod
    def of(cls, stars: Stars, perspective: bool) -> "SkyMotions":
        """Those of `stars`; without `perspective` north is the same everywhere, and V too.

        Raises BayesdustError where the stars have none, or such as cannot be used.
        """
        found, galaxy = stars.proper_motions, stars.galaxy
        if found is None:
            raise BayesdustError(
                f"{stars.source} has no proper motions (columns pmra, pmdec, pmra_err, pmdec_err): map "
                "them, or choose proper_motions=ignored."
            )
        if found.fault is not None:
            raise BayesdustError(found.fault)
        rows = np.flatnonzero(found.known)
        xi, eta, value = stars.xi[rows], stars.eta[rows], found.value[rows]
        if perspective:
            axes = local_axes(xi, eta, galaxy.dec or 0.0)
            away = outward(axes)
        else:
            axes = np.tile(np.eye(2, 3), (len(rows), 1, 1))
            away = unit(np.stack([xi, eta], axis=1))
        known = galaxy.pmra is not None and galaxy.pmdec is not None
        centre = [galaxy.pmra, galaxy.pmdec] if known else np.median(value, axis=0)
        return cls(
            rows=rows,
            value=value,
            covariance=found.covariance[rows],
            axes=axes,
            outward=away,
            centre=np.asarray(centre, dtype=float),
            width=WIDTH / (MAS_YR_KPC_KMS * galaxy.distance),
        )

    def members(
        self,
        variances: tuple[Float[Array, " n"], Float[Array, " n"]],
        motion: Float[Array, "2"],
        v_sys: Real,
        distance: Real,
    ) -> dist.MultivariateNormal:
        """The law of members' proper motions (m, 2) [mas/yr], by (1).

        `variances` are (sigma_pmR^2, sigma_pmT^2) [(km/s)^2] at all the stars, `motion` is the bulk proper
        motion [mas/yr]; v_sys [km/s] acts by perspective, `distance` in kpc.
        """
        km_s = MAS_YR_KPC_KMS * distance
        bulk = jnp.concatenate([motion, jnp.reshape(v_sys / km_s, (1,))])
        along, across = (v[self.rows, None, None] / km_s**2 for v in variances)
        radial = self.outward[:, :, None] * self.outward[:, None, :]
        covariance = across * np.eye(2) + (along - across) * radial
        return _normal(jnp.asarray(self.axes) @ bulk, covariance, self)

    def others(self, mean: Float[Array, "2"], sd: Real) -> dist.MultivariateNormal:
        """The law of other stars' proper motions: round and normal, with errors; all in mas/yr."""
        centre = jnp.broadcast_to(mean, self.value.shape)
        return _normal(centre, sd**2 * jnp.eye(2)[None], self)


def _normal(mean: Array, covariance: Array, motions: SkyMotions) -> dist.MultivariateNormal:
    """Normal laws (m,) of pairs with errors; their Cholesky factors written out."""
    total = covariance + motions.covariance
    first = jnp.sqrt(total[:, 0, 0])
    mixed = total[:, 0, 1] / first
    second = jnp.sqrt(total[:, 1, 1] - mixed**2)
    rows = [jnp.stack([first, 0 * first], axis=-1), jnp.stack([mixed, second], axis=-1)]
    return dist.MultivariateNormal(mean, scale_tril=jnp.stack(rows, axis=-2))


def unused(stars: Stars) -> str | None:
    """What to say of proper motions that a fit leaves out, where they are precise enough to matter."""
    found = stars.proper_motions
    if found is None or not found.known.any():
        return None
    mean_square = np.trace(found.covariance[found.known], axis1=1, axis2=2) / 2
    error = float(np.median(np.sqrt(mean_square))) * MAS_YR_KPC_KMS * stars.galaxy.distance
    weights = np.ones(stars.n) if stars.p_member is None else stars.p_member
    if error > WORTH_IT * robust_spread(stars.v_los, weights):
        return None
    return (
        f"{stars.source} has proper motions of {found.known.sum()} stars, with a median error of {error:.3g} "
        "km/s, which this fit does not use: they tell the orbits, and dsph_gnfw uses them where "
        "proper_motions=used."
    )
