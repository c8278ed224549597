"""What a model of a dwarf galaxy is made of: its data, the likelihoods over them, the products."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from bayesdust.anisotropy import Anisotropy
from bayesdust.arrays import Array, Real
from bayesdust.dynamics import velocity_law
from bayesdust.inference.dwarf_data import ANGLES, OPTIONS, DwarfData, light_profile, prepare
from bayesdust.potentials.base import SphericalHalo
from bayesdust.products import d_factor, j_factor
from bayesdust.tracers import Tracer
from bayesdust.units import MAS_YR_KPC_KMS

__all__ = [
    "ANGLES",
    "OPTIONS",
    "DwarfData",
    "foreground_velocities",
    "light_likelihood",
    "light_profile",
    "line_of_sight_mean",
    "line_of_sight_velocities",
    "member_likelihood",
    "membership",
    "prepare",
    "proper_motion_likelihood",
    "record",
    "sky_variances",
    "velocity_likelihood",
    "velocity_moments",
]

#: velocities of the stars that are no members: one normal, or `MixtureSameFamily` of several
type Foreground = dist.Normal | dist.MixtureSameFamily

LEVEL = 5.0  # half-light radii beyond which the foreground's density is taken to be level


def line_of_sight_mean(
    data: DwarfData,
    v_sys: Real,
    distance: Real,
    gradient: Real | None = None,
    motion: Float[Array, "2"] | None = None,
) -> Float[Array, " n"] | Array:
    """Mean line-of-sight velocity [km/s] at the stars: (n,), or a scalar where nothing varies.

    The bulk velocity projected on each star's line of sight, (v_sys + V_E xi + V_N eta) /
    sqrt(1 + xi^2 + eta^2) with V = D times the proper motion (the perspective effect, Feast,
    Thackeray & Wesselink 1961), exact on the tangent plane; plus a free `gradient` (2,)
    [km/s/kpc] to the east and north. The proper motion is `motion` [mas/yr], or that of the facts.
    """
    galaxy = data.galaxy
    mean = jnp.asarray(v_sys)
    bulk = (galaxy.pmra, galaxy.pmdec) if motion is None else (motion[0], motion[1])
    if data.options["perspective"] and bulk[0] is not None and bulk[1] is not None:
        east, north = (MAS_YR_KPC_KMS * distance * pm for pm in bulk)
        stretch = np.sqrt(1 + data.xi**2 + data.eta**2)
        mean = (mean + east * data.xi + north * data.eta) / stretch
    if gradient is not None:
        mean = mean + distance * (gradient[0] * data.xi + gradient[1] * data.eta)
    return mean


def velocity_moments(
    data: DwarfData,
    halo: SphericalHalo,
    tracer: Tracer,
    anisotropy: Anisotropy,
    distance: Real,
) -> tuple[Float[Array, " n"], Float[Array, " n"] | None]:
    """sigma_los^2 [(km/s)^2] at the stars and, with the option velocities = kurtosis, their kurtosis."""
    sources = halo, tracer, anisotropy, distance, data.options["stellar_mass"]
    if data.options["velocities"] == "gaussian":
        return data.stars_grid.variance(*sources), None
    return data.stars_grid.variance_and_kurtosis(*sources)


def velocity_likelihood(
    data: DwarfData,
    mean: Array,
    variance: Array,
    foreground: Foreground | None = None,
    p_member: Real | None = None,
    kurtosis: Array | None = None,
) -> None:
    """The unbinned likelihood of the velocities, site "v_los".

    Each star's velocity is Gaussian with variance sigma_los^2 + error^2, or with a `kurtosis` (n,) of its
    own, before errors, the law of `dynamics/velocity_law.py`. With a `foreground`, the
    velocity distribution of those that are not members (a normal, or a mixture of some), it is
    p L_member + (1 - p) L_foreground, p being `p_member` (n,) or else the catalogue's probabilities.
    The site is then a mixture whose first component is the members.
    """
    member: dist.Distribution = dist.Normal(mean, jnp.sqrt(variance + data.v_los_err**2))
    if kurtosis is not None:
        offsets = jnp.sqrt(variance)[:, None] * velocity_law.OFFSETS
        variances = variance[:, None] * velocity_law.VARIANCES
        shares = velocity_law.shares(kurtosis)
        member = line_of_sight_velocities(data, mean, shares, variances, offsets)
    member_likelihood(data, member, foreground, p_member)


def sky_variances(
    data: DwarfData,
    halo: SphericalHalo,
    tracer: Tracer,
    anisotropy: Anisotropy,
    distance: Real,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """sigma_pmR^2 and sigma_pmT^2 [(km/s)^2] at the stars: on the sky, from the centre and across."""
    sources = halo, tracer, anisotropy, distance, data.options["stellar_mass"]
    return data.stars_grid.sky_variances(*sources)


def proper_motion_likelihood(
    data: DwarfData,
    member: dist.MultivariateNormal,
    other: dist.MultivariateNormal | None = None,
    p_member: Real | None = None,
) -> Float[Array, " n"] | None:
    """The unbinned likelihood of the proper motions, site "pm" (m, 2) [mas/yr].

    Members' follow `member`, of `SkyMotions.members`; where there are others, of `SkyMotions.others`, it is
    p L_member + (1 - p) L_other. Returns the probabilities of membership (n,), the proper motions known:
    with those the velocities' likelihood is p(v | proper motion), and the product of both sites the
    density of all three components, mixed star by star.
    """
    assert data.motions is not None
    rows, value = data.motions.rows, data.motions.value
    if other is None or p_member is None:
        numpyro.sample("pm", member, obs=value)
        return None
    p = jnp.broadcast_to(jnp.asarray(p_member, dtype=float), data.v_los_err.shape)
    shares = jnp.stack([p[rows], 1 - p[rows]], axis=-1)
    law = dist.MixtureGeneral(dist.Categorical(probs=shares), [member, other])
    numpyro.sample("pm", law, obs=value)
    known = jax.nn.softmax(law.component_log_probs(jnp.asarray(value)), axis=-1)[:, 0]
    return p.at[rows].set(known)


def line_of_sight_velocities(
    data: DwarfData, mean: Array, shares: Array, variances: Array, offsets: Real = 0.0
) -> dist.Distribution:
    """Each star's velocity: normal laws (n, J) at `offsets` from the mean, mixed by `shares`, with errors."""
    spread = jnp.sqrt(variances + data.v_los_err[:, None] ** 2)
    centre = jnp.broadcast_to(jnp.asarray(mean)[..., None], spread.shape) + offsets
    return dist.MixtureSameFamily(dist.Categorical(probs=shares), dist.Normal(centre, spread))


def member_likelihood(
    data: DwarfData,
    member: dist.Distribution,
    foreground: Foreground | None = None,
    p_member: Real | None = None,
) -> None:
    """The site "v_los" where members' velocities follow `member` (n,); see `velocity_likelihood`."""
    p = data.p_member if p_member is None else p_member
    if foreground is None or p is None:
        numpyro.sample("v_los", member, obs=data.v_los)
        return
    shares, others = [jnp.asarray(p)], []
    for weight, normal in _normals(foreground):
        shares.append(weight * (1 - shares[0]))
        spread = jnp.sqrt(normal.scale**2 + data.v_los_err**2)
        others.append(dist.Normal(normal.loc, spread))
    share = dist.Categorical(probs=jnp.stack(shares, axis=-1))
    numpyro.sample("v_los", dist.MixtureGeneral(share, [member, *others]), obs=data.v_los)


def _normals(foreground: Foreground) -> list[tuple[Real, dist.Normal]]:
    """The weights and the normals of which a foreground is made."""
    if isinstance(foreground, dist.Normal):
        return [(1.0, foreground)]
    parts = foreground.component_distribution
    weights = foreground.mixing_distribution.probs
    count = foreground.mixture_size
    return [(weights[k], dist.Normal(parts.loc[k], parts.scale[k])) for k in range(count)]


def foreground_velocities(weights: Array, mean: Array, sd: Real) -> Foreground:
    """The normal laws of `mean` (k,) and `sd` [km/s], mixed by `weights` (k,).

    Records mean and standard deviation of the mixture as "v_foreground" and "sigma_foreground".
    """
    middle = numpyro.deterministic("v_foreground", jnp.sum(weights * mean))
    variance = jnp.sum(weights * (sd**2 + (mean - middle) ** 2))
    numpyro.deterministic("sigma_foreground", jnp.sqrt(variance))
    parts = dist.Normal(mean, jnp.broadcast_to(jnp.asarray(sd), mean.shape))
    return dist.MixtureSameFamily(dist.Categorical(probs=weights), parts)


def membership(
    data: DwarfData, tracer: Tracer, distance: Real, ln_odds: Real, slope: Real
) -> Float[Array, " n"]:
    """Probability of membership given the position: members follow Sigma(R), the foreground exp(-slope x).

    x = R/R_half, and `ln_odds` is the log of members over foreground at x = 1. Conditioning on the
    position leaves out how the spectrograph's targets were chosen. Beyond x of about `LEVEL` the
    foreground is level: an exponential falls below any Sigma(R) in the end, and far out every star
    would be a member again.
    """
    radii = data.stars_grid.radii
    R, R_half = radii.R * distance, tracer.half_light_radius
    ln_sigma = jnp.log(tracer.surface_density(R) / tracer.surface_density(R_half))
    ln_field = -slope * LEVEL * jnp.tanh((R / R_half - 1) / LEVEL)
    return jax.nn.sigmoid(radii.to_stars @ (ln_odds + ln_sigma - ln_field))


def light_likelihood(data: DwarfData, tracer: Tracer, distance: Real, members: Real) -> None:
    """The unbinned likelihood of the photometric sample's positions, factor "light".

    Inside the outermost star, p Sigma(R)/F(R_max) + (1 - p)/(pi R_max^2): members follow the tracer,
    the rest is uniform. `members` is p where the sample has no membership probabilities.
    """
    assert data.light is not None
    R = data.light.R * distance
    R_max = data.light_edge * distance
    p = members if data.light_p is None else data.light_p
    ln_sigma = jnp.log(tracer.surface_density(R) / tracer.projected_fraction(R_max))
    ln_field = -jnp.log(jnp.pi * R_max**2)
    # per star and steradian, so that the distance does not enter through the unit of area
    stars = data.light.to_stars @ ln_sigma + 2 * jnp.log(distance)
    ln_density = jnp.logaddexp(jnp.log(p) + stars, jnp.log1p(-p) + ln_field + 2 * jnp.log(distance))
    numpyro.factor("light", jnp.sum(ln_density))


def record(
    data: DwarfData,
    halo: SphericalHalo,
    tracer: Tracer,
    anisotropy: Anisotropy,
    distance: Real,
) -> dict[str, Array]:
    """Record the products as deterministic sites: rho, mass, v_circ, log10_J, log10_D, sigma_los.

    They are traced inside the model, so a prior on any of them is one `numpyro.factor` away.
    """
    r_trunc, rho_max = data.options["r_trunc"], data.options["rho_max"]
    stars = data.options["stellar_mass"]
    variance = data.profile_grid.variance(halo, tracer, anisotropy, distance, stars)
    products = {
        "rho": halo.density(data.r),
        "mass": halo.enclosed_mass(data.r),
        "v_circ": halo.circular_velocity(data.r),
        "log10_J": jnp.log10(j_factor(halo, ANGLES, distance, r_trunc, rho_max)),
        "log10_D": jnp.log10(d_factor(halo, ANGLES, distance, r_trunc)),
        "sigma_los": jnp.sqrt(variance),
    }
    for name, value in products.items():
        numpyro.deterministic(name, value)
    return products
