"""Doors to other packages: a halo of ours as a potential of galpy's."""

import configparser
import contextlib
import os
import sys
from typing import Any
from unittest import mock

import jax
import numpy as np

from bayesdust.errors import BayesdustError
from bayesdust.potentials import halos
from bayesdust.potentials.base import SphericalHalo
from bayesdust.units import G

# What galpy takes for one unit of length [kpc] and of velocity [km/s] unless told otherwise.
GALPY_RO, GALPY_VO = 8.0, 220.0


def silence_galpy() -> None:
    """Import galpy without its daily look for a newer release; call before any `import galpy`.

    Once a day galpy, when imported, connects to a public address, runs pip and writes a `.galpyrc`
    in the home folder. Its configuration is read while it is imported and there is no other
    switch, so for the length of that import the answer to "read .galpyrc" is the user's file, if
    there is one, with the check turned off; what galpy would write back goes nowhere.
    """
    if "galpy" not in sys.modules:
        _import_with_the_check_off()
    # Loading its C library, galpy first tries it in a second process, which would look for a
    # release in its turn; the trial is for macOS with conda's libraries mixed in.
    with contextlib.suppress(ImportError):
        from galpy.util import _load_extension_libs

        _load_extension_libs._checked_openmp_issue = True


def _import_with_the_check_off() -> None:
    read = configparser.RawConfigParser.read

    def quiet_read(self: Any, filenames: Any, encoding: str | None = None) -> list[str]:
        found = read(self, filenames, encoding)
        if filenames != ".galpyrc":
            return found
        if not found:  # as galpy does: the folder it runs in first, then the home folder
            read(self, os.path.join(os.path.expanduser("~"), ".galpyrc"), encoding)
        self.read_dict({"version-check": {"do-check": "False"}})
        return [os.devnull]

    with mock.patch.object(configparser.RawConfigParser, "read", quiet_read):
        import galpy.util.config  # noqa: F401


def to_galpy_potential(halo: SphericalHalo, ro: float = GALPY_RO, vo: float = GALPY_VO) -> Any:
    """A galpy potential with the mass distribution of `halo`.

    It works in galpy's natural units, physical output off: lengths in `ro` [kpc], velocities in
    `vo` [km/s], so the potential is Phi / vo^2, a force is a ro / vo^2, a density is
    rho G ro^2 / vo^2 and a mass is M G / (ro vo^2). `turn_physical_on(ro=ro, vo=vo)` makes galpy
    convert. NFW, gNFW, Zhao with alpha = 1 and beta = 3 or 4, Burkert and Einasto become galpy's
    own classes, whose orbits run in C; any other halo becomes a `SphericalPotential` that calls
    `halo` itself, exact but slow along orbits.

    Raises
    ------
    BayesdustError
        If a field of `halo` is an array: galpy's potentials hold single numbers.
    """
    silence_galpy()
    for path, value in jax.tree_util.tree_leaves_with_path(halo):
        if np.ndim(value) != 0:
            raise BayesdustError(
                f"A galpy potential holds single numbers, but {jax.tree_util.keystr(path)[1:]} has "
                f"the shape {np.shape(value)}: convert one halo at a time."
            )
    potential = _galpy_class(halo, ro, vo)
    if potential is None:
        potential = _numerical(halo, ro, vo)
    potential.turn_physical_off()  # galpy takes ro and vo for a wish for physical output
    return potential


def _galpy_class(halo: SphericalHalo, ro: float, vo: float) -> Any:
    """The same profile as one of galpy's classes, or None where galpy has none."""
    from galpy.potential import BurkertPotential, EinastoPotential, TwoPowerSphericalPotential

    kind = type(halo)
    if kind not in (halos.NFW, halos.GNFW, halos.Zhao, halos.Burkert, halos.Einasto):
        return None
    units = {"ro": ro, "vo": vo}
    field = {name: float(value) for name, value in vars(halo).items()}
    a = field["r_s"] / ro
    density = field["rho_s"] * G * ro**2 / vo**2
    if kind is halos.Burkert:
        return BurkertPotential(amp=density, a=a, **units)
    if kind is halos.Einasto:
        # rho_s exp(-(2/alpha)(x^alpha - 1)) is amp exp(-(r/h)^(1/n)) with n = 1/alpha
        alpha = field["alpha"]
        h = a * (alpha / 2) ** (1 / alpha)
        return EinastoPotential(amp=density * np.exp(2 / alpha), h=h, n=1 / alpha, **units)
    inner, outer = field.get("gamma", 1.0), field.get("beta", 3.0)
    if field.get("alpha", 1.0) != 1 or outer not in (3, 4):
        return None
    mass = 4 * np.pi * a**3 * density
    return TwoPowerSphericalPotential(amp=mass, a=a, alpha=inner, beta=outer, **units)


def _numerical(halo: SphericalHalo, ro: float, vo: float) -> Any:
    """Any halo as a galpy `SphericalPotential` that evaluates the halo itself."""
    from galpy.potential.SphericalPotential import SphericalPotential

    density = jax.jit(halo.density)
    mass = jax.jit(halo.enclosed_mass)
    phi = jax.jit(halo.potential)

    class HaloPotential(SphericalPotential):
        def _revaluate(self, r: Any, t: float = 0.0) -> Any:
            return np.asarray(phi(r * ro)) / vo**2

        def _rforce(self, r: Any, t: float = 0.0) -> Any:
            return -G * np.asarray(mass(r * ro)) / (r**2 * ro * vo**2)

        def _rdens(self, r: Any, t: float = 0.0) -> Any:
            return np.asarray(density(r * ro)) * G * ro**2 / vo**2

        def _r2deriv(self, r: Any, t: float = 0.0) -> Any:
            # Poisson's equation in a sphere: Phi'' = 4 pi rho - 2 Phi'/r, with G = 1
            return 4 * np.pi * self._rdens(r) + 2 * self._rforce(r) / r

    return HaloPotential(amp=1.0, ro=ro, vo=vo)
