"""Every halo, tracer and anisotropy over more than any prior's range, corners included.

Densities are never negative, nothing is NaN, and every slope in every parameter is finite: one such number
would end a chain. Ranges are of the fields as the models and a user's own priors may have them; corners are
drawn as often as the middle.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.anisotropy import ANISOTROPIES
from bayesdust.dynamics.jeans import JeansGrid
from bayesdust.potentials import GNFW
from bayesdust.potentials.halos import HALOS
from bayesdust.tracers import TRACERS, Plummer

N, FEW = 60, 24  # points an entry, and of two together
R = np.geomspace(1e-3, 30.0, 9)  # kpc
POSITIVE = {  # of what is drawn by its logarithm
    "rho_s": (1e4, 1e12), "r_s": (0.01, 50.0), "r_c": (0.01, 20.0), "r_t": (0.1, 50.0),
    "a": (0.02, 3.0), "R_d": (0.02, 3.0), "R_e": (0.02, 3.0), "r_a": (0.01, 20.0),
}  # fmt: skip
EVEN = {
    "alpha": (0.5, 3.0), "beta": (3.1, 9.0), "gamma": (0.0, 1.9), "n": (0.0, 1.0), "delta": (3.1, 6.0),
    "m": (0.5, 4.0), "beta_0": (-9.0, 0.95), "beta_inf": (-9.0, 0.95), "eta": (1.0, 3.0),
}  # fmt: skip
#: where a field of one class has another range
OF_CLASS = {("einasto", "alpha"): (0.08, 1.0)}
TRACER_R_S = 0.02, 3.0  # kpc


def points(registry: str, name: str, fields: list[str]) -> list[dict[str, float]]:
    """`N` points, a third of whose fields lie on an end of their range."""
    rng = np.random.default_rng(list(f"{registry} {name}".encode()))
    found = []
    for _ in range(N):
        point = {}
        for field in fields:
            u = rng.choice([0.0, 1.0]) if rng.random() < 1 / 3 else rng.random()
            if field in POSITIVE:
                low, high = (
                    TRACER_R_S if (registry, field) == ("tracer", "r_s") else POSITIVE[field]
                )
                point[field] = float(low * (high / low) ** u)
            else:
                low, high = OF_CLASS.get((name, field), EVEN.get(field, (0.1, 2.0)))
                point[field] = low + u * (high - low)
        found.append(point)
    return found


def fields_of(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def checked(f, many: list[dict[str, float]]) -> None:
    """Values and slopes of f(point), a dict of arrays that are finite; those named `density` not negative."""

    def both(point):
        value, pull = jax.vjp(f, point)
        ones = jax.tree.map(jnp.ones_like, value)
        return value, pull(ones)[0]

    run = jax.jit(both)
    for point in many:
        values, slopes = jax.device_get(run(point))
        for name, value in values.items():
            assert np.isfinite(value).all(), (name, point)
            if not name.startswith("ln"):
                assert (value >= 0).all(), (name, point)
        for name, slope in slopes.items():
            assert np.isfinite(slope).all(), (name, point)


@pytest.mark.parametrize("name", HALOS)
def test_halos(name):
    def f(point):
        halo = HALOS[name](**point)
        return {
            "density": halo.density(R),
            "mass": halo.enclosed_mass(R),
            "v_circ": halo.circular_velocity(R),
            "ln slope": halo.slope(R),
        }

    checked(f, points("halo", name, fields_of(HALOS[name])))


@pytest.mark.parametrize("name", [name for name in TRACERS if name != "plummer_sum"])
def test_tracers(name):
    def f(point):
        tracer = TRACERS[name](**point)
        return {
            "density": tracer.density(R),
            "surface_density": tracer.surface_density(R),
            "half-light radius": tracer.half_light_radius,
        }

    checked(f, points("tracer", name, fields_of(TRACERS[name])))


@pytest.mark.parametrize("halo", HALOS)
@pytest.mark.parametrize("orbits", ANISOTROPIES)
def test_dispersions(halo, orbits):
    """sigma_los^2 of a Plummer sphere in every halo with all orbits, and its slopes."""
    grid = JeansGrid.build(np.array([1e-3, 0.05, 0.3, 3.0]), Plummer(0.3))
    names = fields_of(HALOS[halo]), fields_of(ANISOTROPIES[orbits])

    def f(point):
        dark = HALOS[halo](**{name: point[f"halo {name}"] for name in names[0]})
        beta = ANISOTROPIES[orbits](**{name: point[f"orbits {name}"] for name in names[1]})
        variance = grid.variance(dark, Plummer(point["a"]), beta)
        return {"variance": variance, "ln variance": jnp.log(variance)}

    parts = [
        {f"halo {k}": v for k, v in one.items()} | {f"orbits {k}": v for k, v in two.items()}
        for one, two in zip(
            points("halo", halo, names[0]), points("orbits", orbits, names[1]), strict=True
        )
    ]
    sizes = np.random.default_rng(0).uniform(0.1, 1.0, len(parts))
    checked(f, [part | {"a": float(a)} for part, a in zip(parts, sizes, strict=True)][:FEW])


def test_a_density_that_turns_negative_is_found_out():
    def f(point):
        return {"density": GNFW(**point).density(R) - 1.0}

    with pytest.raises(AssertionError, match="density"):
        checked(f, points("halo", "gnfw", fields_of(GNFW)))
