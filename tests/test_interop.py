"""The galpy door: every registered halo comes through it unchanged, and galpy stays quiet."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.errors import BayesdustError
from bayesdust.interop import to_galpy_potential
from bayesdust.potentials.halos import HALOS, Truncated
from bayesdust.units import G

RO, VO = 2.0, 30.0
RADII = np.geomspace(0.01, 50, 12)
VALUES = {"rho_s": 6.4e7, "r_s": 0.8, "alpha": 0.7, "beta": 4.1, "gamma": 0.6}
VALUES |= {"r_c": 0.3, "n": 0.8, "r_t": 4.0, "delta": 4.5}
ARGUMENTS = {
    name: {f.name: VALUES[f.name] for f in dataclasses.fields(cls)} for name, cls in HALOS.items()
}


def halo_of(name, **changes):
    return HALOS[name](**(ARGUMENTS[name] | changes))


def sweep():
    yield from ((name, halo_of(name)) for name in HALOS)
    yield "zhao", halo_of("zhao", alpha=1.0, beta=4.0)  # the cases that have a class in galpy
    yield "zhao", halo_of("zhao", alpha=1.0, beta=3.0, gamma=1.0)
    yield "gnfw", halo_of("gnfw", gamma=jnp.asarray(0.0))
    yield "gnfw", halo_of("gnfw", gamma=1.0)
    yield "einasto", halo_of("einasto", alpha=0.17)
    yield "truncated", Truncated(halo_of("gnfw"), r_t=3.0)


@pytest.mark.parametrize(("name", "halo"), list(sweep()))
def test_galpy_sees_the_same_halo(name, halo):
    potential = to_galpy_potential(halo, ro=RO, vo=VO)
    r = RADII / RO
    density = [potential.dens(x, 0.0) * VO**2 / (G * RO**2) for x in r]
    np.testing.assert_allclose(density, halo.density(RADII), rtol=1e-9)
    mass = [-potential.Rforce(x, 0.0) * x**2 * RO * VO**2 / G for x in r]
    np.testing.assert_allclose(mass, halo.enclosed_mass(RADII), rtol=1e-7)
    phi = np.array([potential(x, 0.0) for x in r]) * VO**2
    # a constant drops out of every force, but ours and galpy's both vanish at infinity
    np.testing.assert_allclose(phi, halo.potential(RADII), rtol=1e-6)
    velocity = [potential.vcirc(x) * VO for x in r]
    np.testing.assert_allclose(velocity, halo.circular_velocity(RADII), rtol=1e-7)


@pytest.mark.parametrize("name", HALOS)
def test_second_derivative_follows_the_force(name):
    potential = to_galpy_potential(halo_of(name), ro=RO, vo=VO)
    for x in (0.1, 0.7, 3.0):
        step = 1e-4 * x
        slope = -(potential.Rforce(x + step, 0.0) - potential.Rforce(x - step, 0.0)) / (2 * step)
        assert potential.R2deriv(x, 0.0) == pytest.approx(slope, rel=1e-5)


def test_galpy_converts_to_our_units_when_asked():
    halo = halo_of("corenfwtides")
    potential = to_galpy_potential(halo, ro=RO, vo=VO)
    assert potential.vcirc(0.5) < 10  # natural units
    potential.turn_physical_on(ro=RO, vo=VO)
    # galpy's own constant G differs from ours in the fifth digit; a velocity does not contain it
    assert potential.vcirc(0.5) == pytest.approx(float(halo.circular_velocity(0.5 * RO)), rel=1e-6)


def test_an_orbit_conserves_energy():
    from galpy.orbit import Orbit

    potential = to_galpy_potential(halo_of("burkert"), ro=RO, vo=VO)
    orbit = Orbit([1.0, 0.1, 0.3, 0.0, 0.05, 0.0])
    times = np.linspace(0, 20, 50)
    orbit.integrate(times, potential, method="leapfrog")
    energy = orbit.E(times)
    assert np.ptp(energy) < 1e-5 * abs(energy[0])


def test_an_array_of_halos_is_refused_by_name():
    with pytest.raises(BayesdustError, match=r"r_s has the shape \(2,\)"):
        to_galpy_potential(halo_of("nfw", r_s=jnp.ones(2)))


WATCH = """
import os, sys
def watch(event, args):
    child = event == "subprocess.Popen" and ("pip" in str(args) or "galpy" in str(args))
    if child or event in ("socket.connect", "socket.getaddrinfo"):
        os.write(2, f"phoned out: {event} {args}".encode())
        os._exit(9)
sys.addaudithook(watch)
from bayesdust.interop import silence_galpy
silence_galpy()
import configparser, galpy.potential
from galpy.util.config import __config__
assert configparser.RawConfigParser.read.__module__ == "configparser"
print(__config__.get("normalization", "ro"), __config__.get("plot", "seaborn-bovy-defaults"))
"""


def _watched_import(home: Path) -> str:
    environment = os.environ | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", WATCH], env=environment, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_galpy_is_imported_without_phoning_or_writing(tmp_path):
    assert _watched_import(tmp_path) == "8. False"
    assert not (tmp_path / ".galpyrc").exists()


def test_the_users_galpy_settings_are_read_and_left_alone(tmp_path):
    settings = "[normalization]\nro = 8.2\nvo = 230.\n[version-check]\ndo-check = True\n"
    (tmp_path / ".galpyrc").write_text(settings)
    assert _watched_import(tmp_path) == "8.2 False"
    assert (tmp_path / ".galpyrc").read_text() == settings
