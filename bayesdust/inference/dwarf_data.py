"""A dwarf galaxy's stars made ready for a model: options, matrices, output radii.

Everything that can be computed once is computed here; everything uncertain (distance, light profile,
orbits) stays in the model.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from bayesdust import anisotropy as orbits
from bayesdust.arrays import Array, Real
from bayesdust.catalogs.dwarf import Stars, circularised_radius
from bayesdust.catalogs.facts import Galaxy
from bayesdust.dynamics.jeans import STEP, JeansGrid, ProjectedRadii
from bayesdust.dynamics.projection import LinesOfSight
from bayesdust.errors import BayesdustError
from bayesdust.inference.options import refuse_unknown
from bayesdust.inference.sky_motions import SkyMotions, unused
from bayesdust.tracers import Plummer, Tracer, ZhaoTracer
from bayesdust.units import ARCMIN

ANGLES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0])

#: Options every dwarf model takes, with their defaults; `prepare` refuses any other.
OPTIONS: dict[str, Any] = {
    "anisotropy": "constant",
    "beta_ani": None,
    "gamma": None,
    "membership": "auto",
    "light": "auto",
    "light_gamma": 0.0,
    "perspective": True,
    "gradient": False,
    "velocities": "gaussian",
    "proper_motions": "ignored",
    "stellar_mass": 0.0,
    "r_trunc": float("inf"),
    "rho_max": float("inf"),
}
CHOICES = {
    "anisotropy": tuple(orbits.ANISOTROPIES),
    "membership": ("auto", "none", "given", "mixture"),
    "light": ("auto", "facts", "joint", "members"),
    "velocities": ("gaussian", "kurtosis"),
    "proper_motions": ("ignored", "used"),
}
FLAGS = ("perspective", "gradient")
RANGES = {
    "beta_ani": (-10.0, 0.99),
    "gamma": (0.0, 1.4),
    "light_gamma": (0.0, 2.0),
    "stellar_mass": (0.0, 1e12),
    "r_trunc": (1e-3, float("inf")),
    "rho_max": (1.0, float("inf")),
}


TWICE = (
    "Proper motions are used, and so are membership probabilities (p_member): where these were worked out "
    "with the proper motions, as catalogues do, they count twice, and the dispersions come out too small; "
    "then choose membership=mixture."
)


@dataclass(frozen=True, eq=False)
class DwarfData:
    """One dwarf galaxy's stars, ready for a model.

    Attributes
    ----------
    galaxy : facts
    rhalf, rhalf_err : arcmin, circularised half-light radius
    v_los, v_los_err, p_member : (n,) km/s, km/s, probability (or None); `v_los` is None where the
        model is to predict it
    xi, eta, theta : (n,) rad, offsets and circularised radius
    light : radii [rad] of the (m,) stars of the photometric sample, or None
    light_p : (m,) their membership probabilities, or None
    light_edge : rad, radius of the outermost of them, where the sample is taken to end
    options : every option, defaults filled in
    stars_grid, profile_grid : Jeans matrices at the stars and at `theta_out`, for `scale` = distance
    r : (n_r,) kpc, radii of the density and mass profiles
    theta_out : (n_R,) rad, projected radii of the dispersion profile
    notes : sentences for the user on what the model leaves out
    motions : proper motions, where the option proper_motions is `used`
    """

    galaxy: Galaxy
    rhalf: float
    rhalf_err: float
    v_los: Float[Array, " n"] | Float[np.ndarray, " n"] | None
    v_los_err: Float[np.ndarray, " n"]
    p_member: Float[np.ndarray, " n"] | None
    xi: Float[np.ndarray, " n"]
    eta: Float[np.ndarray, " n"]
    theta: Float[np.ndarray, " n"]
    light: ProjectedRadii | None
    light_p: Float[np.ndarray, " m"] | None
    light_edge: float
    options: dict[str, Any]
    stars_grid: JeansGrid
    profile_grid: JeansGrid
    r: Float[np.ndarray, " n_r"]
    theta_out: Float[np.ndarray, " n_R"]
    notes: tuple[str, ...] = ()
    motions: SkyMotions | None = None

    @cached_property
    def lines(self) -> LinesOfSight:
        """Places along the stars' lines of sight, made when a model first asks for them."""
        return LinesOfSight.build(self.stars_grid)

    @property
    def r_half(self) -> float:
        """R_half [kpc], circularised, at the catalogue distance: a constant, whatever is sampled."""
        return self.galaxy.distance * self.rhalf * ARCMIN

    @property
    def pivot(self) -> float:
        """1.8 R_half [kpc], where line-of-sight velocities measure the mass best (Errani+2018)."""
        return 1.8 * self.r_half

    @property
    def v_centre(self) -> float:
        """Where to centre the prior of v_sys [km/s]: the table of facts, else the stars' median."""
        if self.galaxy.v_sys is not None:
            return self.galaxy.v_sys
        return 0.0 if self.v_los is None else float(np.median(self.v_los))

    def to_predict(self) -> "DwarfData":
        """The same stars with velocities left open, for predictive draws."""
        galaxy = dataclasses.replace(self.galaxy, v_sys=self.v_centre)
        return dataclasses.replace(self, v_los=None, galaxy=galaxy)


def prepare(
    stars: Stars,
    options: Mapping[str, Any],
    takes: Iterable[str] = tuple(OPTIONS),
    light: Callable[[float], Tracer] | None = None,
    step: float = STEP,
) -> DwarfData:
    """Ready `stars` for a model that heeds the options `takes` (of `OPTIONS`).

    A model that does not take `membership` counts every star as a member: where the stars have
    probabilities, a sentence in `DwarfData.notes` says so.

    `light` gives a tracer of the model's shape at a half-light radius, such as
    `lambda r: Exponential(r / 1.678)`: dispersions are interpolated relative to its density, and far
    out a wrong shape is wrong. By default it is `light_profile`, as in the shipped models. `step` as
    in `JeansGrid.build`: `FINE_STEP` for sharp profiles, such as coreNFWtides.

    Raises BayesdustError on an unknown option or choice, where the half-light radius is unknown
    and no photometric sample can tell it, and where proper motions are to be used that are not there.
    """
    takes = tuple(takes)
    chosen = _options(options, stars, takes)
    used = chosen["proper_motions"] == "used"
    if chosen["light"] == "members":
        light_of_members = (stars.xi, stars.eta, stars.p_member)
        stars = dataclasses.replace(stars, photometry=light_of_members)
    photometry, light_p = _light_radii(stars)
    rhalf, rhalf_err = _half_light_radius(stars.galaxy, photometry, stars.source)
    shape = light or partial(light_profile, gamma=chosen["light_gamma"])
    reference = shape(rhalf * ARCMIN)
    theta_out = np.geomspace(0.05, 10.0, 40) * rhalf * ARCMIN
    return DwarfData(
        galaxy=stars.galaxy,
        rhalf=rhalf,
        rhalf_err=rhalf_err,
        v_los=stars.v_los,
        v_los_err=stars.v_los_err,
        p_member=stars.p_member if chosen["membership"] == "given" else None,
        xi=stars.xi,
        eta=stars.eta,
        theta=stars.theta,
        light=None if photometry is None else ProjectedRadii.build(photometry),
        light_p=light_p,
        light_edge=0.0 if photometry is None else float(photometry.max()),
        options=chosen,
        stars_grid=JeansGrid.build(stars.theta, reference, step=step),
        profile_grid=JeansGrid.build(theta_out, reference, floor=0.0, step=step),
        r=_output_radii(stars.galaxy.distance * rhalf * ARCMIN),
        theta_out=theta_out,
        notes=_notes(stars, takes, chosen),
        motions=SkyMotions.of(stars, chosen["perspective"]) if used else None,
    )


def _notes(stars: Stars, takes: tuple[str, ...], chosen: Mapping[str, Any]) -> tuple[str, ...]:
    """What the model leaves out, or may count twice."""
    memberless = "membership" not in takes and stars.p_member is not None
    said = [ignored(stars)] if memberless else []
    if chosen["proper_motions"] != "used":
        said += filter(None, [unused(stars)])
    elif chosen["membership"] == "given":
        said.append(TWICE)
    return tuple(said)


def ignored(stars: Stars) -> str:
    """What to say where a model does not heed the probabilities of membership."""
    return (
        f"{stars.source} has membership probabilities (p_member), which this model does not use: "
        "it counts every star as a member, which makes the galaxy too heavy if some are not; "
        "choose a model that takes the option membership, such as dsph_gnfw, or remove those stars."
    )


def _options(given: Mapping[str, Any], stars: Stars, takes: tuple[str, ...]) -> dict[str, Any]:
    refuse_unknown(given, takes, CHOICES)
    for key, value in given.items():
        if key in FLAGS and not isinstance(value, bool):
            raise BayesdustError(f"Option {key} cannot be {value!r}: give true or false.")
        if key in RANGES and not _within(value, *RANGES[key]):
            low, high = RANGES[key]
            raise BayesdustError(
                f"Option {key} cannot be {value!r}: give a number from {low:g} to {high:g}."
            )
    chosen = {**OPTIONS, **given}
    if chosen["beta_ani"] is not None and chosen["anisotropy"] != "constant":
        raise BayesdustError(
            f"Option beta_ani is a constant anisotropy, and anisotropy={chosen['anisotropy']} has none: "
            "give one of the two."
        )
    if "membership" not in takes:
        chosen["membership"] = "none"
    if "light" not in takes:
        chosen["light"] = "facts"
    if chosen["membership"] == "auto":
        chosen["membership"] = "none" if stars.p_member is None else "given"
    if chosen["membership"] == "given" and stars.p_member is None:
        raise BayesdustError(
            f"{stars.source} has no column p_member: map one to it, or choose membership=mixture."
        )
    if chosen["light"] == "auto":
        chosen["light"] = "facts" if stars.photometry is None else "joint"
    if chosen["light"] == "joint" and stars.photometry is None:
        raise BayesdustError("light=joint needs a photometric sample: give one with --photometry.")
    return chosen


def _within(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and low <= value <= high


def _half_light_radius(
    galaxy: Galaxy, light: np.ndarray | None, source: str
) -> tuple[float, float]:
    """Circularised half-light radius and error [arcmin]: of the facts, else of the photometry."""
    if galaxy.rhalf is not None and galaxy.rhalf_circularised is not None:
        share = 0.1 if galaxy.rhalf_err is None else galaxy.rhalf_err / galaxy.rhalf
        return galaxy.rhalf_circularised, share * galaxy.rhalf_circularised
    if light is None:
        raise BayesdustError(
            f"{source}: no half-light radius of {galaxy.name} is known: give rhalf (arcmin) in its "
            "TOML file, or a photometric sample."
        )
    rhalf = float(np.median(light)) / ARCMIN
    return rhalf, 0.3 * rhalf


def _light_radii(stars: Stars) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Circularised radii [rad] and membership probabilities of the photometric sample."""
    if stars.photometry is None:
        return None, None
    xi, eta, p = stars.photometry
    return circularised_radius(xi, eta, stars.galaxy), p


def light_profile(r_half: Real, gamma: float) -> Tracer:
    """Zhao's (2, 5, gamma) with half-light radius `r_half`: a Plummer sphere for gamma = 0."""
    if gamma == 0:
        return Plummer(r_half)
    return ZhaoTracer(r_half / _half_light(gamma), 2.0, 5.0, gamma)


@lru_cache
def _half_light(gamma: float) -> float:
    """R_half over r_s of Zhao's (2, 5, gamma), a number even while a model is traced."""
    with jax.ensure_compile_time_eval():
        return float(jax.jit(lambda t: t.half_light_radius)(ZhaoTracer(1.0, 2.0, 5.0, gamma)))


def _output_radii(r_half: float) -> Float[np.ndarray, " n_r"]:
    grid = np.geomspace(0.02 * r_half, 20 * r_half, 40)
    return np.unique(np.concatenate([grid, [0.15, r_half, 1.8 * r_half]]))
