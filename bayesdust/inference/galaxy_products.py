"""What is read off a Milky Way that is a sum of known potentials with coefficients.

Everything is linear in the coefficients, so that what the parts are at the places is worked out once.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.inference.galaxy_data import AT_1100_PC, CIRCLES, HEIGHTS
from bayesdust.inference.galaxy_linear import LinearData
from bayesdust.units import COLUMN, DENSITY_GEV_CM3, PC

# Where the dark matter's profile is taken: distances from the plane [kpc], azimuths from the Sun's [deg]
OFF_PLANE, AZIMUTHS = np.linspace(0.5, 2.0, 4), np.array([-40 / 3, 0.0, 40 / 3])
_TOGETHER = 16  # places

Places = dict[str, Float[np.ndarray, "m 3"]]
ByPlace = Mapping[str, Array | np.ndarray]


def places_of(data: LinearData) -> Places:
    """Where products are wanted: the points, the plane and `HEIGHTS` at the Sun, circles, and wedges."""
    ahead = np.array([*data.sun[:2], 0.0]) / data.R_sun
    plane = data.R_sun * ahead
    return {
        "points": data.points,
        "plane": plane[None],
        "above": plane[None] + HEIGHTS[:, None] * np.array([0.0, 0.0, 1.0]),
        "circles": CIRCLES[:, None] * ahead,
        "wedges": _wedges(ahead, data.shells),
    }


def split(places: Places, values: Array | np.ndarray, axis: int) -> ByPlace:
    """What holds for all places together, place by place."""
    ends = np.cumsum([len(x) for x in places.values()])[:-1]
    parts = (jnp if isinstance(values, jax.Array) else np).split(values, ends, axis=axis)
    return dict(zip(places, parts, strict=True))


def every(places: Places) -> Float[np.ndarray, "m 3"]:
    """All places together, as `split` takes them apart."""
    return np.concatenate(list(places.values()))


def made_at(data: LinearData, places: Places) -> dict[str, ByPlace]:
    """phi (m, p), acceleration (m, p, 3) and rho (m, p) of all that Phi is made of, by name and places."""
    found = jax.jit(lambda x: jax.lax.map(data.potentials, x, batch_size=_TOGETHER))(every(places))
    return {name: split(places, np.asarray(value), 0) for name, value in found.items()}


def products(
    data: LinearData,
    places: Places,
    made: Mapping[str, ByPlace],
    sizes: Float[Array | np.ndarray, "*d p"],
    under: ByPlace,
) -> dict[str, Array | np.ndarray]:
    """What `galaxy.record` records, for coefficients `sizes` and the baryons' density `under` (*d, m) them.

    rho_dm_r is the mean over a shell's places at `OFF_PLANE` and `AZIMUTHS`, where stars are and discs not.
    """

    def of(name: str, where: str) -> Array:
        return jnp.tensordot(sizes, made[name][where], axes=(-1, 1))

    local = of("rho", "plane")[..., 0] - under["plane"][..., 0]
    outward = places["circles"] / CIRCLES[:, None]
    circle = -jnp.sum(of("acceleration", "circles") * outward, axis=-1) * CIRCLES
    K_z = -of("acceleration", "above")[..., 2]
    profile = of("rho", "wedges") - under["wedges"]
    found = {
        "rho_dm_sun": local * DENSITY_GEV_CM3,
        "rho_dm_sun_msun_pc3": local * PC**3,
        "rho_baryons_sun_msun_pc3": under["plane"][..., 0] * PC**3,
        "sigma_1.1kpc": K_z[..., AT_1100_PC] * COLUMN,
        "K_z": K_z,
        "rho_z": of("rho", "above"),
        "v_circ": jnp.sqrt(jnp.maximum(circle, 0.0)),
        "rho_dm_r": profile.reshape(*profile.shape[:-1], len(data.shells), -1).mean(axis=-1),
    }
    if len(data.points):
        found |= {name: of(name, "points") for name in made}
        found["rho_dm"] = found["rho"] - under["points"]
    return found


def _wedges(ahead: np.ndarray, shells: np.ndarray) -> Float[np.ndarray, "m 3"]:
    """Places at `OFF_PLANE` on both sides of the plane and at `AZIMUTHS`, shell by shell."""
    azimuths = np.arctan2(ahead[1], ahead[0]) + np.radians(AZIMUTHS)
    r, phi, z = np.meshgrid(shells, azimuths, [*-OFF_PLANE, *OFF_PLANE], indexing="ij")
    R = np.sqrt(r**2 - z**2)
    return np.stack([R * np.cos(phi), R * np.sin(phi), z], axis=-1).reshape(-1, 3)
