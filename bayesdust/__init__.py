"""bayesdust: dark matter from stars, with uncertainties that can be believed.

Importing it turns on JAX's 64-bit mode and does nothing else; the names below load what they need when
they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

import jax

from bayesdust.errors import BayesdustError

if TYPE_CHECKING:
    from bayesdust.calibration_run import calibrate
    from bayesdust.catalogs.cartesian import read_milky_way, read_places
    from bayesdust.catalogs.dust import read_dust_cube
    from bayesdust.catalogs.dwarf import Stars, read_stars
    from bayesdust.catalogs.facts import Galaxy
    from bayesdust.catalogs.fetch import fetch
    from bayesdust.catalogs.frames import SolarFrame
    from bayesdust.catalogs.gaia import gaia_query, read_gaia
    from bayesdust.catalogs.galaxies import galaxy, galaxy_names, galaxy_table, published
    from bayesdust.catalogs.milky_way import MilkyWayStars
    from bayesdust.catalogs.profile import Profile, read_profile
    from bayesdust.dynamics.map_efficiency import epsilon_from_map
    from bayesdust.gate import verdict
    from bayesdust.inference.evidence import log_evidence
    from bayesdust.inference.posterior import fit
    from bayesdust.inference.profile_draws import profile_of
    from bayesdust.inference.programs import load as load_model
    from bayesdust.model_comparison import compare
    from bayesdust.predictive_checks import predictive_pvalues
    from bayesdust.report import write_report
    from bayesdust.summary import summarise

__version__ = "0.1.0"

jax.config.update("jax_enable_x64", True)
# GPUs multiply float32 with ten bits unless told: scores of flows then err by 0.5 % of their sd
if jax.config.jax_default_matmul_precision is None:
    jax.config.update("jax_default_matmul_precision", "highest")

_HOMES = {
    "Galaxy": ("catalogs.facts", "Galaxy"),
    "MilkyWayStars": ("catalogs.milky_way", "MilkyWayStars"),
    "Profile": ("catalogs.profile", "Profile"),
    "SolarFrame": ("catalogs.frames", "SolarFrame"),
    "Stars": ("catalogs.dwarf", "Stars"),
    "calibrate": ("calibration_run", "calibrate"),
    "compare": ("model_comparison", "compare"),
    "epsilon_from_map": ("dynamics.map_efficiency", "epsilon_from_map"),
    "fetch": ("catalogs.fetch", "fetch"),
    "fit": ("inference.posterior", "fit"),
    "gaia_query": ("catalogs.gaia", "gaia_query"),
    "galaxy": ("catalogs.galaxies", "galaxy"),
    "galaxy_names": ("catalogs.galaxies", "galaxy_names"),
    "galaxy_table": ("catalogs.galaxies", "galaxy_table"),
    "load_model": ("inference.programs", "load"),
    "log_evidence": ("inference.evidence", "log_evidence"),
    "predictive_pvalues": ("predictive_checks", "predictive_pvalues"),
    "profile_of": ("inference.profile_draws", "profile_of"),
    "published": ("catalogs.galaxies", "published"),
    "read_dust_cube": ("catalogs.dust", "read_dust_cube"),
    "read_gaia": ("catalogs.gaia", "read_gaia"),
    "read_milky_way": ("catalogs.cartesian", "read_milky_way"),
    "read_places": ("catalogs.cartesian", "read_places"),
    "read_profile": ("catalogs.profile", "read_profile"),
    "read_stars": ("catalogs.dwarf", "read_stars"),
    "summarise": ("summary", "summarise"),
    "verdict": ("gate", "verdict"),
    "write_report": ("report", "write_report"),
}
__all__ = [
    "BayesdustError",
    "Galaxy",
    "MilkyWayStars",
    "Profile",
    "SolarFrame",
    "Stars",
    "calibrate",
    "compare",
    "epsilon_from_map",
    "fetch",
    "fit",
    "gaia_query",
    "galaxy",
    "galaxy_names",
    "galaxy_table",
    "load_model",
    "log_evidence",
    "predictive_pvalues",
    "profile_of",
    "published",
    "read_dust_cube",
    "read_gaia",
    "read_milky_way",
    "read_places",
    "read_profile",
    "read_stars",
    "summarise",
    "verdict",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"bayesdust.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
