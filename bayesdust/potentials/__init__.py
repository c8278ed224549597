"""Gravitational potentials: spherical haloes, discs, bulges, their sums, and networks."""

from bayesdust.potentials.base import Potential, SphericalHalo
from bayesdust.potentials.discs import (
    MiyamotoNagai,
    PowerLawCutoff,
    SphericalAsPotential,
    Sum,
    milky_way_2014,
)
from bayesdust.potentials.halos import (
    GNFW,
    HALOS,
    NFW,
    Burkert,
    CoreNFWTides,
    Einasto,
    Truncated,
    Zhao,
)
from bayesdust.potentials.networks import Network, PotentialNetwork
from bayesdust.potentials.spheroid import Spheroid

__all__ = [
    "GNFW",
    "HALOS",
    "NFW",
    "Burkert",
    "CoreNFWTides",
    "Einasto",
    "MiyamotoNagai",
    "Network",
    "Potential",
    "PotentialNetwork",
    "PowerLawCutoff",
    "SphericalAsPotential",
    "SphericalHalo",
    "Spheroid",
    "Sum",
    "Truncated",
    "Zhao",
    "milky_way_2014",
]
