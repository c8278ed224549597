"""Published cubes of dust in three dimensions, and the extinction from the Sun that they add up to.

A cube holds the extinction density A'(550 nm) [mag/pc] at the points of an even grid around the Sun: x
towards the Galactic centre, y along the rotation, z to the north Galactic pole. Read are

- FITS as of Lallement+2022 (A&A 661, A147), Vergely+2022 (A&A 664, A174) and G-Tomo: the first image of
  three axes, x the fastest, with STEP [pc] and SUN_POSX, SUN_POSY, SUN_POSZ. These count from the cube's
  edge: the Sun is at SUN_POS - 1/2 in points counted from 0;
- FITS with linear world coordinates: CRPIXn, CRVALn, CDELTn [CUNITn, or pc];
- HDF5 as of Lallement+2019 (A&A 625, A135; `stilism/cube_datas`) and G-Tomo (`explore/cube_datas`, whose
  Sun is written z, x, y): a dataset (x, y, z) with the attributes gridstep_values [pc] and sun_position.

Between the points the density is trilinear, and `DustCube.extinction` is the exact integral of that: between
two of the planes that a ray crosses the density is a cubic of the distance, which two Gauss points integrate
exactly. What is left is rounding (below 1e-12 of A), and what trilinear interpolation does to the dust
itself: at most the distance times the sum over axes of step^2/8 max |d^2 A'/dx_i^2|.

The axes are taken to be those of the Galactocentric frame, whose x also runs from the Sun to the centre.
Neglected: the tilt between them by 0.147 degrees, because from 20.8 pc above the plane the Sun looks down on
the centre. It moves a cloud 2.5 kpc away by 6 pc, less than a cell of 10 pc.
"""

import gzip
import hashlib
import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from bayesdust.arrays import Array
from bayesdust.catalogs.tables import fault, read_bytes
from bayesdust.errors import BayesdustError
from bayesdust.hdf5_files import check_hdf5

#: A [mag] (n,) between the Sun and places at offsets (n, 3) [kpc]: a cube, or any function
Extinction = Callable[[Any], Any]

# A_G / A_V of red clump stars (Wang & Chen 2019, ApJ 877, 116, table 3). It falls with the extinction,
# from 0.79 to 0.72 at two magnitudes (Babusiaux+2018, A&A 616, A10, eq. 1, for BP - RP = 1.2), which is
# neglected, as is the difference between 550 nm and the V band.
A_G = 0.789
DENSEST = 10.0  # mag/pc: the densest published cells have some 0.1
_CHUNK = 1024  # places at a time
_GAUSS = 0.5 / math.sqrt(3.0)
_XYZ = "XYZ"
_NEEDS = "STEP, SUN_POSX, SUN_POSY and SUN_POSZ, or CRPIXn, CRVALn and CDELTn of three axes"


class DustCube(eqx.Module):
    """Dust on a grid around the Sun; calling it gives the extinction, as any function may in its place.

    Attributes
    ----------
    density : (nx, ny, nz) extinction density at 550 nm [mag/pc] at the grid's points
    sun : the Sun's place in points counted from 0, along x, y, z
    step : kpc between points, along x, y, z
    band : extinction in the sample's band over that at 550 nm
    source, sha256 : the file and its digest
    """

    density: Float[Array, "nx ny nz"]
    sun: tuple[float, float, float] = eqx.field(static=True)
    step: tuple[float, float, float] = eqx.field(static=True)
    band: float = eqx.field(static=True, default=A_G)
    source: str = eqx.field(static=True, default="<array>")
    sha256: str | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if not (math.isfinite(self.band) and self.band > 0):
            raise BayesdustError(
                f"the extinction of the band over that at 550 nm is {self.band}; give a number above 0."
            )

    def extinction(self, offset: Float[Array | np.ndarray, "*n 3"]) -> Float[Array, "*n"]:
        """A (*n) [mag, in the sample's band] between the Sun and `offset` (*n, 3) from it [kpc].

        Along Galactocentric axes. Behind a face of the cube nothing is added; `beyond` tells where.
        """
        return _everywhere(self, jnp.asarray(offset, dtype=float))

    __call__ = extinction

    def beyond(self, offset: Float[Array | np.ndarray, "*n 3"]) -> Bool[Array, "*n"]:
        """Whether places at `offset` (*n, 3) [kpc] lie outside, where the extinction is a lower bound."""
        place = jnp.asarray(offset) / jnp.array(self.step) + jnp.array(self.sun)
        return jnp.any((place < 0) | (place > jnp.array(self.density.shape) - 1.0), axis=-1)

    def _integral(self, offset: Float[Array, "3"]) -> Float[Array, ""]:
        """The line integral, between the planes of points that the ray crosses one after the other."""
        change = offset / jnp.array(self.step)
        still = change == 0
        speed = jnp.where(still, 1.0, change)
        sun, last = jnp.array(self.sun), jnp.array(self.density.shape) - 1.0
        leaves = jnp.where(still, jnp.inf, (jnp.where(speed > 0, last, 0.0) - sun) / speed)
        end = jnp.minimum(1.0, leaves.min())
        crossed = [jnp.where(still[i], 1.0, self._ahead(i, speed[i])) for i in range(3)]
        t = jnp.sort(jnp.clip(jnp.concatenate([jnp.zeros(1), *crossed, jnp.ones(1)]), 0.0, end))
        length, middle = jnp.diff(t), 0.5 * (t[1:] + t[:-1])
        at = jax.vmap(lambda s: self._trilinear(sun + s * change))
        mean = 0.5 * (at(middle - _GAUSS * length) + at(middle + _GAUSS * length))
        return 1e3 * self.band * jnp.linalg.norm(offset) * jnp.sum(length * mean)

    def _ahead(self, axis: int, speed: Float[Array, ""]) -> Float[Array, " k"]:
        """Where along the ray it crosses the planes of one axis, 1 being its end."""
        sun, last = self.sun[axis], self.density.shape[axis] - 1
        k = np.arange(1 + max(math.ceil(sun), last - math.floor(sun)))
        plane = jnp.where(speed > 0, math.floor(sun) + k, math.ceil(sun) - k)
        return (plane - sun) / speed

    def _trilinear(self, place: Float[Array, "3"]) -> Float[Array, ""]:
        """The density at a place in points counted from 0."""
        most = jnp.array(self.density.shape) - 2
        first = jnp.clip(jnp.floor(place).astype(int), 0, most)
        corners = jax.lax.dynamic_slice(self.density, first, (2, 2, 2)).astype(place.dtype)
        x, y, z = jnp.stack([1.0 - (place - first), place - first], axis=1)
        return jnp.sum(corners * x[:, None, None] * y[:, None] * z)


@eqx.filter_jit
def _everywhere(cube: DustCube, offset: Array) -> Array:
    found = jax.lax.map(cube._integral, offset.reshape(-1, 3), batch_size=_CHUNK)
    return found.reshape(offset.shape[:-1])


def read_dust_cube(path: str | Path, band: float = A_G) -> DustCube:
    """Read a cube of extinction density in one of the layouts above; FITS and HDF5 may be gzipped.

    `band` is the extinction in the sample's band over that at 550 nm, by default Gaia's G of red clump stars.
    No code in the file is run and nothing beside it is opened.

    Raises BayesdustError for a file that is not there, damaged, or neither FITS nor HDF5; without a cube or
    the keywords of its grid; in another unit than mag/pc; with a Sun outside it, or cells that are not
    finite, negative or denser than any cloud.
    """
    where = str(path)
    content = read_bytes(where)
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        if content.startswith(b"SIMPLE  ="):
            density, sun, step = _read_fits(content, where)
        elif content.startswith(b"\x89HDF\r\n\x1a\n"):
            check_hdf5(content, where)
            density, sun, step = _read_hdf5(content, where)
        else:
            problem = "is neither FITS nor HDF5"
            raise fault(where, problem, "give a cube as Lallement+2022 publish it")
    except BayesdustError:
        raise
    except Exception as error:  # astropy, h5py and zlib have dozens of their own for damaged files
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise fault(where, f"is damaged ({reason})", "download it again") from error
    _check_grid(density.shape, sun, step, where)
    _check_cells(density, where)
    return DustCube(jnp.asarray(density), _three(sun), _three(step / 1e3), band, where, sha256)


def _three(numbers: Float[np.ndarray, " 3"]) -> tuple[float, float, float]:
    x, y, z = (float(number) for number in numbers)
    return x, y, z


Grid = tuple[np.ndarray, np.ndarray, np.ndarray]


def _read_fits(content: bytes, where: str) -> Grid:
    from astropy.io import fits

    with fits.open(io.BytesIO(content), memmap=False) as units:
        seen = [len(unit.shape) for unit in units if unit.is_image]
        cubes = [unit for unit in units if unit.is_image and len(unit.shape) == 3]
        if not cubes:
            axes = " and ".join(str(n) for n in seen) or "no"
            raise fault(where, f"has no cube (images of {axes} axes)", "give one with three axes")
        header, data = cubes[0].header, cubes[0].data
        _check_unit(header.get("UNIT", header.get("BUNIT")), where)
        sun, step = _grid_of(header, where)
        return _plain(data.T), sun, step


def _grid_of(header: Mapping[str, Any], where: str) -> tuple[np.ndarray, np.ndarray]:
    """The Sun's place in points and the steps [pc], from a FITS header."""
    lacking = [k for k in ("STEP", *(f"SUN_POS{axis}" for axis in _XYZ)) if k not in header]
    if not lacking:
        sun = _numbers([header[f"SUN_POS{axis}"] for axis in _XYZ], "SUN_POSX, Y, Z", where)
        return sun - 0.5, _numbers([header["STEP"]] * 3, "STEP", where)
    if any(f"{key}{n}" not in header for key in ("CRPIX", "CRVAL", "CDELT") for n in (1, 2, 3)):
        problem = f"its header has no {' and no '.join(lacking)}"
        raise fault(where, problem, f"the grid is told by {_NEEDS}")
    pixel, value, delta = (
        _numbers([header[f"{key}{n}"] for n in (1, 2, 3)], f"{key}n", where)
        for key in ("CRPIX", "CRVAL", "CDELT")
    )
    unit = {str(header.get(f"CUNIT{n}", "pc")).strip().lower() for n in (1, 2, 3)}
    if unit not in ({"pc"}, {"kpc"}):
        raise fault(where, f"CUNITn is {' and '.join(sorted(unit))}", "lengths are in pc or kpc")
    if (delta <= 0).any():
        raise fault(where, "an axis has no positive CDELTn", "let x, y and z increase")
    return pixel - 1 - value / delta, delta * (1e3 if unit == {"kpc"} else 1.0)


def _read_hdf5(content: bytes, where: str) -> Grid:
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        found: dict[str, Any] = {}

        def look(name: str, item: Any) -> None:  # follows no link out of the file
            cube = isinstance(item, h5py.Dataset) and item.ndim == 3
            if cube and not (item.external or item.is_virtual):
                found[name] = item

        file.visititems(look)
        if not found:
            problem = "has no cube (no dataset of three dimensions)"
            raise fault(where, problem, "give one as stilism/cube_datas or explore/cube_datas")
        name = next((n for n in found if n.endswith("cube_datas")), next(iter(found)))
        data = found[name]
        lacking = [k for k in ("gridstep_values", "sun_position") if k not in data.attrs]
        if lacking:
            problem = f"{name} has no attribute {' and no '.join(lacking)}"
            advice = "the grid is told by gridstep_values and sun_position, three numbers each"
            raise fault(where, problem, advice)
        _check_unit(data.attrs.get("values_unit"), where)
        sun = _numbers(data.attrs["sun_position"], "sun_position", where) - 0.5
        if not _inside(sun, data.shape) and _inside(np.roll(sun, -1), data.shape):
            sun = np.roll(sun, -1)  # G-Tomo writes z, x, y
        return (
            _plain(data[()]),
            sun,
            _numbers(data.attrs["gridstep_values"], "gridstep_values", where),
        )


def _plain(data: np.ndarray) -> np.ndarray:
    """The cells in this machine's own floats, single ones where the file has no better."""
    return np.ascontiguousarray(data, dtype=np.float64 if data.dtype.itemsize > 4 else np.float32)


def _numbers(values: Any, name: str, where: str) -> Float[np.ndarray, " 3"]:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full(1, np.nan)
    if numbers.shape != (3,) or not np.isfinite(numbers).all():
        raise fault(where, f"{name} is {values}", "three finite numbers are needed")
    return numbers


def _inside(sun: np.ndarray, shape: tuple[int, ...]) -> bool:
    return bool(np.all((sun >= 0) & (sun <= np.array(shape) - 1)))


def _check_unit(unit: Any, where: str) -> None:
    """A unit that is not said is mag/pc."""
    text = unit.decode("latin-1") if isinstance(unit, bytes) else str(unit)
    if unit is not None and re.search(r"nano|nmag|kpc|kilo", text, re.IGNORECASE):
        raise fault(where, f"its unit is {text}", "convert the cells to mag/pc and say so")


def _check_grid(shape: tuple[int, ...], sun: np.ndarray, step: np.ndarray, where: str) -> None:
    size = " x ".join(str(n) for n in shape)
    if min(shape) < 2:
        raise fault(where, f"the cube is {size}", "two points are needed along every axis")
    if (step <= 0).any():
        raise fault(where, f"its steps are {step} pc", "give steps above 0")
    if not _inside(sun, shape):
        place = ", ".join(f"{s:g}" for s in sun)
        problem = f"the Sun is at ({place}) in a cube of {size} points"
        raise fault(where, problem, "give its place in points of the cube, along x, y and z")


def _check_cells(density: np.ndarray, where: str) -> None:
    for wrong, what in (
        (~np.isfinite(density), "not finite"),
        (density < 0, "negative"),
        (density > DENSEST, f"above {DENSEST:g} mag/pc"),
    ):
        if number := int(np.count_nonzero(wrong)):
            x, y, z = (int(i) + 1 for i in np.unravel_index(np.argmax(wrong), wrong.shape))
            problem = (
                f"{number:,} of {density.size:,} cells are {what}, the first at x, y, z = {x}, {y}, {z} "
                f"(counted from 1): {density[x - 1, y - 1, z - 1]:g}"
            )
            raise fault(where, problem, "give densities in mag/pc, 0 where there is no dust")
