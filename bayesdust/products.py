"""J- and D-factors of a spherical halo at a finite distance, as one radial integral each.

J(theta) = int dOmega int dl rho^2 over the cone of half-angle theta around the centre, along the
whole line of sight. Writing dOmega dl = dV / l^2 and integrating over the part of each sphere of
radius r that lies in the cone leaves

    J = int_0^r_t rho^2(r) r^2 W(r) dr,   W(r) = (2 pi / (D r)) ln of ratios of l,               (1)

because on a sphere l^2 = D^2 + r^2 - 2 D r mu, so dmu / l^2 = -dl / (D r l). With b = D sin(theta)
and q = sqrt(r^2 - b^2) the sphere leaves the cone at l = D cos(theta) -+ q; for r < b it is wholly
inside. D(theta) has rho in place of rho^2. No small-angle or far-distance approximation is made.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bayesdust import quadrature
from bayesdust.arrays import Array, Real
from bayesdust.errors import BayesdustError
from bayesdust.potentials.base import SphericalHalo
from bayesdust.units import D_GEV_CM2, DEG, J_GEV2_CM5

_STEP = 0.3
_IN, _IN_WEIGHTS = quadrature.half_line(step=_STEP)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_FARTHEST = 35.0  # ln(r/D) at which an untruncated halo is cut, where rho^2 and rho have vanished


def j_factor(
    halo: SphericalHalo,
    angle: Real,
    distance: Real,
    r_trunc: Real = jnp.inf,
    rho_max: Real = jnp.inf,
) -> Array:
    """J [GeV2 cm-5] within half-angles `angle` [deg] at `distance` [kpc], which broadcast.

    The halo ends at `r_trunc` [kpc] (default: nowhere). For an inner slope gamma >= 1.5 the integral
    diverges and J is infinite, unless `rho_max` [Msun/kpc3], the density at which annihilation has
    levelled the cusp (Berezinsky+1992), is given: rho is then rho rho_max/(rho + rho_max).

    Raises BayesdustError for an angle outside 0 to 90 deg (ends excluded) or a distance that is not
    positive; inside traced code, where values are not known, the result is then meaningless.
    """
    _check(angle, distance)

    def squared(r: Array) -> Array:
        rho = halo.density(r)
        return (rho / (1 + rho / rho_max)) ** 2

    slope = jnp.where(jnp.isfinite(rho_max), 0.0, 2 * jnp.asarray(halo.inner_slope))
    total = _cone_integral(squared, slope, angle, distance, r_trunc)
    return J_GEV2_CM5 * jnp.where(slope < 3, total, jnp.inf)


def d_factor(halo: SphericalHalo, angle: Real, distance: Real, r_trunc: Real = jnp.inf) -> Array:
    """D [GeV cm-2] within half-angles `angle` [deg] at `distance` [kpc]; errors as in `j_factor`."""
    _check(angle, distance)
    slope = jnp.asarray(halo.inner_slope)
    return D_GEV_CM2 * _cone_integral(halo.density, slope, angle, distance, r_trunc)


def _check(angle: Real, distance: Real) -> None:
    """Raises BayesdustError for what is no cone or no distance, as far as values are known."""
    if not isinstance(angle, jax.core.Tracer):
        values = np.asarray(angle, dtype=float)
        if not np.all((values > 0) & (values < 90)):
            raise BayesdustError("The half-angle of the cone must be between 0 and 90 deg.")
    if not isinstance(distance, jax.core.Tracer):
        values = np.asarray(distance, dtype=float)
        if not np.all((values > 0) & (values < np.inf)):
            raise BayesdustError("The distance must be a positive number of kpc.")


def _cone_integral(
    source: Callable[[Array], Array],
    slope: Real,
    angle: Real,
    distance: Real,
    r_trunc: Real,
) -> Array:
    """Equation (1) with `source` (rho^2 or rho, of inner slope `slope`), any shape of `angle` [deg]."""
    theta = DEG * jnp.asarray(angle, dtype=float)[..., None]
    D = jnp.asarray(distance, dtype=float)[..., None]
    r_trunc = jnp.asarray(r_trunc, dtype=float)[..., None]
    b = D * jnp.sin(theta)
    parts = (
        _inside_cone(source, slope, jnp.minimum(b, r_trunc), D)
        + _crossing_cone(source, b, theta, D, jnp.clip(r_trunc, b, D))
        + _behind_observer(source, b, theta, D, r_trunc)
    )
    return 2 * jnp.pi / D[..., 0] * parts


def _inside_cone(source: Callable[[Array], Array], slope: Real, top: Array, D: Array) -> Array:
    """r from 0 to `top` <= b: whole spheres, W = (2 pi/(D r)) ln((D + r)/(D - r)).

    Below the last node the source is a power law, and the rest of the trapezoidal sum is a geometric
    series: without it a slope of 1.4 would lose a thousandth.
    """
    r = top * jnp.exp(-_IN)
    values = source(r) * r**2 * jnp.log1p(2 * r / (D - r))
    decay = 3 - jnp.asarray(slope, dtype=float)
    return values @ _IN_WEIGHTS + values[..., -1] * _STEP / jnp.expm1(_STEP * decay)


def _crossing_cone(
    source: Callable[[Array], Array], b: Array, theta: Array, D: Array, top: Array
) -> Array:
    """r from b to `top` <= D: caps before and behind the centre; r = b cosh w removes the root."""
    last = jnp.arccosh(jnp.maximum(top / b, 1 + 1e-15))
    w = last * _NODES
    r, q = b * jnp.cosh(w), b * jnp.sinh(w)
    sagitta = 2 * D * jnp.sin(theta / 2) ** 2  # D (1 - cos theta)
    gap = jnp.maximum(D - r, 1e-14 * D)
    front = jnp.log1p((b**2 / (r + q) - sagitta) / gap)
    back = jnp.log1p((b**2 / (r + q) + sagitta) / (D - sagitta + q))
    return jnp.sum(_WEIGHTS * last * source(r) * r * q * (front + back), axis=-1)


def _behind_observer(
    source: Callable[[Array], Array], b: Array, theta: Array, D: Array, r_trunc: Real
) -> Array:
    """r from D outwards: the observer is inside the sphere and only its far cap is in the cone."""
    last = jnp.clip(jnp.log(r_trunc / D), 0.0, _FARTHEST)
    r = D * jnp.exp(last * _NODES)
    q = jnp.sqrt(r**2 - b**2)
    sagitta = 2 * D * jnp.sin(theta / 2) ** 2
    back = jnp.log1p((b**2 / (r + q) + sagitta) / (D - sagitta + q))
    return jnp.sum(_WEIGHTS * last * source(r) * r**2 * back, axis=-1)
