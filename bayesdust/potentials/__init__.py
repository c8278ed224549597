"""Gravitational potentials: spherical haloes."""

from bayesdust.potentials.base import SphericalHalo
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

__all__ = [
    "GNFW",
    "HALOS",
    "NFW",
    "Burkert",
    "CoreNFWTides",
    "Einasto",
    "SphericalHalo",
    "Truncated",
    "Zhao",
]
