"""Example parameters for every entry of the registries: what the law tests walk over.

Adding a halo, a tracer or an anisotropy means adding a line here. The first example of an entry is
an ordinary one; the others sit where formulas tend to break (integer and vanishing exponents,
corners of the prior). Lengths in kpc, densities in Msun/kpc3.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from bayesdust.anisotropy import ANISOTROPIES
from bayesdust.potentials.halos import HALOS
from bayesdust.tracers import TRACERS

Fields = dict[str, Any]

HALO_EXAMPLES: dict[str, list[Fields]] = {
    "zhao": [
        {"rho_s": 6.4e7, "r_s": 0.8, "alpha": 1.4, "beta": 3.6, "gamma": 0.7},
        {"rho_s": 6.4e7, "r_s": 0.8, "alpha": 2.0, "beta": 5.0, "gamma": 0.0},
        {"rho_s": 6.4e7, "r_s": 0.8, "alpha": 1.0, "beta": 2.5, "gamma": 1.9},
    ],
    "gnfw": [
        {"rho_s": 6.4e7, "r_s": 0.8, "gamma": 0.9},
        {"rho_s": 6.4e7, "r_s": 0.8, "gamma": 0.0},
        {"rho_s": 6.4e7, "r_s": 0.8, "gamma": 1.9},
    ],
    "nfw": [{"rho_s": 6.4e7, "r_s": 0.8}],
    "burkert": [{"rho_s": 2e8, "r_s": 0.8}],
    "einasto": [
        {"rho_s": 2e7, "r_s": 0.8, "alpha": 0.3},
        {"rho_s": 2e7, "r_s": 0.8, "alpha": 1.0},
        {"rho_s": 2e7, "r_s": 0.8, "alpha": 0.12},
    ],
    "corenfwtides": [
        {"rho_s": 6.4e7, "r_s": 0.8, "r_c": 0.4, "n": 0.6, "r_t": 2.3, "delta": 4.5},
        {"rho_s": 6.4e7, "r_s": 0.8, "r_c": 0.4, "n": 1.0, "r_t": 0.9, "delta": 3.0},
    ],
}

TRACER_EXAMPLES: dict[str, list[Fields]] = {
    "plummer": [{"a": 0.25}],
    "zhao": [
        {"r_s": 0.25, "alpha": 2.0, "beta": 5.0, "gamma": 1.0},
        {"r_s": 0.25, "alpha": 2.0, "beta": 5.0, "gamma": 0.0},
        {"r_s": 0.25, "alpha": 1.0, "beta": 4.0, "gamma": 0.5},
    ],
    "exponential": [{"R_d": 0.2}],
    "sersic": [{"R_e": 0.25, "m": 0.8}, {"R_e": 0.25, "m": 0.5}, {"R_e": 0.25, "m": 4.0}],
    "plummer_sum": [{"a": jnp.array([0.15, 0.4]), "weights": jnp.array([1.0, 2.0])}],
}

ANISOTROPY_EXAMPLES: dict[str, list[Fields]] = {
    "isotropic": [{}],
    "constant": [{"beta_0": 0.4}, {"beta_0": -3.0}, {"beta_0": 0.9}],
    "osipkov_merritt": [{"r_a": 0.25}, {"r_a": 0.03}],
    "baes_van_hese": [
        {"beta_0": -0.5, "beta_inf": 0.6, "r_a": 0.3, "eta": 1.5},
        {"beta_0": -3.0, "beta_inf": 0.9, "r_a": 0.25, "eta": 4.0},
    ],
}

REGISTRIES: list[tuple[Mapping[str, type], dict[str, list[Fields]]]] = [
    (HALOS, HALO_EXAMPLES),
    (TRACERS, TRACER_EXAMPLES),
    (ANISOTROPIES, ANISOTROPY_EXAMPLES),
]


def cases(examples: dict[str, list[Fields]]) -> list[tuple[str, Fields]]:
    """Every (name, fields) of one table, for `pytest.mark.parametrize`."""
    return [(name, fields) for name, many in examples.items() for fields in many]


def identify(value: Any) -> str | None:
    """A readable id for a parametrised test; None leaves it to pytest."""
    if isinstance(value, dict):
        return ",".join(f"{key}={number}" for key, number in value.items() if key != "rho_s")
    return None


def combinations() -> Iterator[tuple[tuple[str, Fields], ...]]:
    """Every halo x tracer x anisotropy of the registries, each with its first example."""
    for halo in HALOS:
        for tracer in TRACERS:
            for anisotropy in ANISOTROPIES:
                yield (
                    (halo, HALO_EXAMPLES[halo][0]),
                    (tracer, TRACER_EXAMPLES[tracer][0]),
                    (anisotropy, ANISOTROPY_EXAMPLES[anisotropy][0]),
                )
