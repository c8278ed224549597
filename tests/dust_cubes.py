"""Cubes of dust made from a mock's own dust, and files of them in the published layouts."""

import numpy as np

from bayesdust.catalogs.dust import A_G
from bayesdust.dusty_mocks import SUN


def density_of(dust, steps, points):
    """Extinction density (nx, ny, nz) [mag/pc at 550 nm] of a mock's dust; the Sun is the middle point."""
    axes = [step * (np.arange(n) - (n - 1) / 2) for step, n in zip(steps, points, strict=True)]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return dust.density(offsets + SUN).reshape(points).astype(np.float32) / np.float32(1e3 * A_G)


def write_fits(path, density, sun, step_pc, extension=False, **more):
    """As of Lallement+2022: x fastest, the Sun counted from the cube's edge."""
    from astropy.io import fits

    image = (fits.ImageHDU if extension else fits.PrimaryHDU)(density.T)
    image.header["STEP"] = step_pc
    image.header["UNIT"] = "A0(550nm)/parsec"
    for axis, place in zip("XYZ", sun, strict=True):
        image.header[f"SUN_POS{axis}"] = place + 0.5
    for key, value in more.items():
        if value is None:
            del image.header[key]
        else:
            image.header[key] = value
    fits.HDUList([fits.PrimaryHDU(), image] if extension else [image]).writeto(path)
    return path


def write_hdf5(path, density, sun, step_pc, name="stilism/cube_datas", **more):
    """As of Lallement+2019; G-Tomo's `explore/cube_datas` has the Sun's place in the order z, x, y."""
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset(name, data=density)
        place = np.asarray(sun) + 0.5
        data.attrs["sun_position"] = np.roll(place, 1) if name.startswith("explore") else place
        data.attrs["gridstep_values"] = np.full(3, step_pc)
        data.attrs["values_unit"] = "magnitude/parsec"
        for key, value in more.items():
            if value is None:
                del data.attrs[key]
            else:
                data.attrs[key] = value
    return path
