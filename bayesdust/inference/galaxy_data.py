"""The stars of the Milky Way made ready for any model: where the sums are, what the dust leaves, the pilot.

Everything that can be computed once is computed here. The stars enter through sums that vanish in the true
potential behind the true dust (`dynamics/weak_form.py`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import solve_triangular

from bayesdust.arrays import Array
from bayesdust.callbacks import OnProgress
from bayesdust.catalogs.cartesian import MAGNITUDES
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.catalogs.tables import fault
from bayesdust.dynamics import cross_fitting, sun_offsets
from bayesdust.dynamics.dust_fit import FEWEST, fit_dust
from bayesdust.dynamics.efficiency import LEAVE_OUT, DustMap, first_unseen
from bayesdust.dynamics.tracer_counts import Region
from bayesdust.dynamics.weak_form import (
    Basis,
    Bumps,
    Pilot,
    Sample,
    covariance_of_parts,
    effective_stars,
    moments_of_parts,
    reweighted,
    two_forces,
)
from bayesdust.errors import BayesdustError
from bayesdust.inference.options import refuse_unknown
from bayesdust.potentials.discs import milky_way_2014

#: Options every model of the Milky Way takes, with their defaults; `prepare` refuses any other.
OPTIONS: dict[str, Any] = {
    "efficiency": "auto",
    "limit": None,
    "absolute_limit": "auto",
    "magnitude": "auto",
    "bump": None,
    "counts": "auto",
    "errors": "auto",
    "sun": "auto",
    "likelihood": "sums",
}
CHOICES = {
    "efficiency": ("auto", "none", "given", "magnitudes"),
    "counts": ("auto", "used", "ignored"),
    "errors": ("auto", "ignored", "deconvolved"),
    "sun": ("auto", "fixed", "uncertain"),
    "likelihood": ("sums", "flow"),
}
DUST_NOTE = (
    "The dust is told by the stars' magnitudes and number: on mocks 90 to 99 % of the true efficiencies lie "
    "inside their 95 % intervals; where less than a tenth of the stars is seen the efficiency comes out up "
    "to three times too large (docs/results/dust.md). Of the stars within the radius that are bright "
    "enough the table must hold all, or a random part: a hole in the sky passes for dust (else "
    "counts=ignored)."
)
NO_COUNTS_NOTE = (
    "The dust is told by the stars' magnitudes alone (counts=ignored): behind thick clouds efficiencies come "
    "out two to three times too small, and the stars there weigh as much too much."
)
GAP = 0.1  # mag, between the faintest star and where a sample is said to end
GAP_NOTE = (
    "{name} is {limit:.2f}, and the star nearest to it has {star:.2f} mag: if the sample ends there already, "
    "the dust goes unseen; then give what is right."
)
SIGHTS = 8  # lines of sight for each draw of the dust
REACH = 120.0  # km/s, of the test functions: about three times the dispersion of discs
# effective stars; a tenth of them left out, the nine sums of each bump stay independent
FEWEST_A_BUMP = 30
# Of the radius within which bumps end: smaller ones make more sums and larger errors, larger ones leave gaps
# (docs/boltzmann.md)
BUMP = 0.436
CENTRE = 1e-3  # kpc from the Galactic centre, where no place is asked
ROUNDS = 3  # for the pilot
LARGE_INFLATION = 1.3  # of the sums' covariance
EDGE = 0.975  # of the ball's radius: bumps end within, where no star is missing
SHELLS = np.geomspace(3.0, 30.0, 28)  # kpc, of the dark halo's radial profile
CIRCLES = np.sort(np.append(np.linspace(4.0, 12.0, 17), 8.122))  # kpc, of the rotation curve
HEIGHTS = np.linspace(0.1, 2.0, 20)  # kpc, of K_z
AT_1100_PC = int(np.argmin(abs(HEIGHTS - 1.1)))


@dataclass(frozen=True, eq=False)
class SurveyData:
    """What every model of the Milky Way is given beside its sums.

    Attributes
    ----------
    number : how many sums there are
    sun : (3,) kpc
    points : (m, 3) kpc, places of the products
    epsilon : (d, m) draws of the efficiency there, or None where no dust was fitted
    options : every option, defaults filled in
    pilot : the sizes of the horizontal and vertical force of MWPotential2014 that the sums like best
    inflation : of the covariance in the likelihood, as stars are few ((2) of `cross_fitting`); chi2 is
        without it
    dust : the map behind `epsilon`, or None
    dust_shifts : (number, d) by how much its draws move the whitened sums, over sqrt(d), as a part of their
        covariance; None where there is no map, or the sums are not the likelihood
    notes : sentences for the user
    """

    number: int
    sun: Float[np.ndarray, "3"]
    points: Float[np.ndarray, "m 3"]
    epsilon: Float[np.ndarray, "d m"] | None
    options: dict[str, Any]
    pilot: tuple[float, float]
    inflation: float
    dust: DustMap | None
    dust_shifts: Float[np.ndarray, "n d"] | None
    notes: tuple[str, ...]

    @property
    def R_sun(self) -> float:
        """Distance of the Sun from the axis [kpc]."""
        return float(np.hypot(self.sun[0], self.sun[1]))

    @property
    def shells(self) -> Float[np.ndarray, " r"]:
        """Radii [kpc] of the profile of the dark matter."""
        return SHELLS

    def to_predict(self) -> "SurveyData":
        """The same: there are no velocities to be left open."""
        return self


@dataclass(frozen=True, eq=False)
class Survey:
    """The stars as the sums take them, and the dust in front of them.

    Attributes
    ----------
    tests : the test functions
    left_out : how many bumps were left out for want of stars
    sample : the stars, with weights 1/epsilon
    centre, radius : of the ball, kpc
    dust, by_draw : the map and epsilon (d, n, c) of the sample by its draws, or None where no dust was fitted
    faintest : mag, of the star nearest to each limit that the options give, the absolute one dust left in
    usual_bump : kpc, the size of the test functions where none is asked for
    points, options, seed : as of `SurveyData`, and what decides every draw
    """

    tests: Bumps
    left_out: int
    sample: Sample
    centre: Float[np.ndarray, "3"]
    radius: float
    sun: Float[np.ndarray, "3"]
    dust: DustMap | None
    by_draw: Float[np.ndarray, "d n c"] | None
    faintest: dict[str, float]
    usual_bump: float
    points: Float[np.ndarray, "m 3"]
    options: dict[str, Any]
    seed: int

    @classmethod
    def of(
        cls,
        stars: MilkyWayStars,
        chosen: dict[str, Any],
        points: Float[np.ndarray, "m 3"] | None,
        seed: int,
        on_progress: OnProgress,
    ) -> "Survey":
        """Fit the dust, if it is to be told by magnitudes, and lay out the bumps.

        Raises BayesdustError for a ball that is too small for one test function, or a place at the centre.
        """
        places = _off_centre(
            np.zeros((0, 3)) if points is None else np.asarray(points, dtype=float)
        )
        sun = np.asarray(stars.sun.position, dtype=float)
        centre, radius = ball_of(stars)
        blurred = chosen["errors"] == "deconvolved"
        edge = min(EDGE * radius, radius - 2 * _blur_at_edge(stars)) if blurred else EDGE * radius
        usual_bump = round(BUMP * edge, 3)
        bump = chosen["bump"] or usual_bump
        tests = Bumps.inside(centre, edge, _rotation(stars), bump, reach=REACH)
        x, v, weights = stars.x[:, None], stars.v[:, None], np.ones((1, 1))
        if blurred:
            around, moving = stars.either_side(seed)
            x, v = np.concatenate([x, around], axis=1), np.concatenate([v, moving], axis=1)
            weights = np.array([[2.0, -0.5, -0.5]])  # (4) of `dynamics/weak_form.py`
        weights, dust, by_draw = np.repeat(weights, stars.n, axis=0), None, None
        if chosen["efficiency"] == "given":
            weights = weights * np.asarray(stars.weights)[:, None]
        if chosen["efficiency"] == "magnitudes":
            limit, ends = _limits(chosen)
            magnitude = stars.photometry[chosen["magnitude"]]
            region = Region(sun, centre, radius)
            dust = fit_dust(
                stars.x,
                magnitude,
                limit,
                region,
                on_progress,
                absolute_limit=ends,
                counts=chosen["counts"] == "used",
                seed=seed,
            )
            by_draw = dust.efficiencies((x - sun).reshape(-1, 3)).reshape(-1, *weights.shape)
            weights = weights / by_draw.mean(axis=0)
        sample = Sample.of(x, v, weights)
        enough = _with_stars(tests, sample)
        return cls(
            tests=tests.only(enough),
            left_out=int(np.sum(~enough)),
            sample=sample,
            centre=centre,
            radius=radius,
            sun=sun,
            dust=dust,
            by_draw=by_draw,
            faintest=_faintest(stars, chosen),
            usual_bump=usual_bump,
            points=places,
            options=chosen | {"bump": bump},
            seed=seed,
        )

    def weigh(self, force: Basis, dust: Basis | None, on_progress: OnProgress) -> "Weighed":
        """The sums with `force` and `dust` for basis functions, and how well they are known."""
        on_progress(0, 3, "sums")
        parts = self.sample.split(cross_fitting.PARTS)
        found = moments_of_parts(self.tests, parts, _and_pilot(force), dust)
        constants, both, dimming = (np.stack(some) for some in zip(*found, strict=True))
        on_progress(1, 3, "sums")
        sizes, first = self._first_pilot(parts, both[..., -2:], constants)
        pilot = Pilot(pilot_force(sizes))
        on_progress(2, 3, "sums")
        slopes = np.concatenate([both[..., :-2], dimming], axis=-1)
        shifts = self._dust_shifts(pilot)
        extra = shifts.T @ shifts + self._sun_scatter(pilot)
        known = first._replace(extra=extra)
        crossed, inflation = known._replace(slopes=slopes), known.inflation
        pull = crossed.pull(constants + both[..., -2:] @ sizes)
        on_progress(3, 3, "sums")
        return Weighed(
            constants.sum(axis=0),
            slopes.sum(axis=0),
            inflation * crossed.covariance,
            np.sqrt(inflation) * shifts,
            pull / inflation,
            (float(sizes[0]), float(sizes[1])),
            inflation,
        )

    def shared(self, weighed: "Weighed") -> dict[str, Any]:
        """The fields of `SurveyData`."""
        told = self.dust is not None and self.options["likelihood"] == "sums"
        return {
            "number": self.tests.number,
            "sun": self.sun,
            "points": self.points,
            "epsilon": self._efficiencies(),
            "options": self.options,
            "pilot": weighed.pilot,
            "inflation": weighed.inflation,
            "dust": self.dust,
            "dust_shifts": weighed.whiten(weighed.dust_shifts.T) if told else None,
            "notes": self._notes() + self._few(weighed.inflation),
        }

    def _first_pilot(
        self,
        parts: list[Sample],
        slopes: Float[np.ndarray, "p k 2"],
        constants: Float[np.ndarray, "p k"],
    ) -> tuple[Float[np.ndarray, "2"], cross_fitting.Parts]:
        """Sizes of MWPotential2014's horizontal and vertical force, and the covariances of the sums there.

        `slopes` are those in the two sizes. In rounds, as the one needs the other.
        """
        sizes, stars = np.ones(2), np.array([part.n for part in parts])
        for _ in range(ROUNDS):
            scatters = covariance_of_parts(self.tests, parts, Pilot(pilot_force(sizes)))
            found = cross_fitting.Parts(stars, slopes, np.stack(scatters))
            before = sizes
            sizes = -np.linalg.solve(found.crossed(slopes), found.crossed(constants))
            if np.all(abs(sizes - before) < 0.05):
                break
        return sizes, found

    def _dust_shifts(self, pilot: Pilot) -> Float[np.ndarray, "d k"]:
        """The sums' means between draws of the dust, over sqrt(d): their squares are a covariance.

        The stars' f is what it is, whatever is believed of the dust. Behind a true efficiency e the sums with
        weights 1/<e> have a mean that is the integral of (e/<e> - 1) f dg/dt, and f is, as well as is known,
        the stars with their weights. The stars' own noise is in it too: too large by their covariance times
        the mean square of e/<e> - 1, a few percent. Nor is taken off what the same stars, by their number,
        have told of e: it is an upper bound.
        """
        if self.by_draw is None:
            return np.zeros((1, self.tests.number))
        factors = self.by_draw / self.by_draw.mean(axis=0) - 1
        shifts = np.asarray(reweighted(self.tests, self.sample, pilot, factors))
        return shifts / np.sqrt(len(shifts))

    def _sun_scatter(self, pilot: Pilot) -> Float[np.ndarray, "k k"] | float:
        """What is not known of the Sun's place and motion, as a covariance of the sums."""
        if self.options["sun"] == "fixed":
            return 0.0
        slopes = sun_offsets.slopes(self.tests, self.sample, pilot)
        return slopes @ sun_offsets.COVARIANCE @ slopes.T

    def _efficiencies(self) -> Float[np.ndarray, "d m"] | None:
        """Draws of epsilon at the points, each on a line of sight of its own."""
        if self.dust is None:
            return None
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, *b"sight"]))
        return self.dust.in_sight(self.points - self.sun, SIGHTS, rng)

    def _few(self, inflation: float) -> tuple[str, ...]:
        """That the sums' covariance is badly known, and what to do about it."""
        if inflation < LARGE_INFLATION:
            return ()
        note = (
            f"The stars are few for {self.tests.number} sums: their covariance is taken as {inflation:.2f} "
            "times what the stars show."
        )
        if self.options["bump"] < 0.95 * self.usual_bump:
            note += f" Larger test functions tell more: bump={self.usual_bump:g} (kpc)."
        return (note,)

    def _notes(self) -> tuple[str, ...]:
        """What the user ought to know of these sums."""
        outside = int(np.sum(np.linalg.norm(self.points - self.centre, axis=1) > self.radius))
        notes = _notes(self.options, outside)
        away = float(np.linalg.norm(self.sample.x[:, 0].mean(axis=0) - self.centre))
        if away > 0.5 * self.radius:
            notes.append(
                f"The stars' middle is {away:.1f} kpc from that of the survey's ball: are x, y, z "
                "Galactocentric, the Sun at x = -8.122 kpc?"
            )
        if self.left_out:
            every = self.left_out + len(self.tests.centres)
            notes.append(
                f"{self.left_out} of {every} test functions hold fewer than {FEWEST_A_BUMP} effective stars "
                "and are left out; larger ones (option bump, in kpc) hold more."
            )
        for name, magnitude in self.faintest.items():
            if magnitude < self.options[name] - GAP:
                notes.append(GAP_NOTE.format(name=name, limit=self.options[name], star=magnitude))
        return tuple(notes)


def ball_of(stars: MilkyWayStars) -> tuple[Float[np.ndarray, "3"], float]:
    """Centre and radius [kpc] of the ball that the stars declare, or fill."""
    centre = np.asarray(stars.centre if stars.radius else stars.sun.position, dtype=float)
    return centre, stars.radius or float(np.linalg.norm(stars.x - centre, axis=1).max())


class Weighed(NamedTuple):
    """The sums `constant` + `slopes` @ coefficients, of force and then of dust, and how well they are known.

    `scatter` is their covariance, `inflation` times what the stars show and what else is uncertain,
    `dust_shifts` the root of the dust's part, `pull` the slope of the ln likelihood that undoes the stars'
    pull on their own sums, `pilot` the sizes of its horizontal and vertical force.
    """

    constant: Float[np.ndarray, " k"]
    slopes: Float[np.ndarray, "k p"]
    scatter: Float[np.ndarray, "k k"]
    dust_shifts: Float[np.ndarray, "d k"]
    pull: Float[np.ndarray, " p"]
    pilot: tuple[float, float]
    inflation: float

    def whitened(self) -> Float[np.ndarray, "k p+1"]:
        """Slopes and constant (last) of the sums made independent, of sd one."""
        return self.whiten(np.column_stack([self.slopes, self.constant]))

    def whiten(self, sums: Float[np.ndarray, "k q"]) -> Float[np.ndarray, "k q"]:
        """What becomes of sums in the coordinates in which they are independent, of sd one."""
        return solve_triangular(np.linalg.cholesky(self.scatter), sums, lower=True)


def pilot_force(sizes: Float[np.ndarray, "2"]) -> Callable[[Array], Array]:
    """MWPotential2014 with its horizontal and vertical force of other sizes."""
    galaxy = milky_way_2014()
    scale = jnp.array([sizes[0], sizes[0], sizes[1]])
    return lambda x: scale * galaxy.acceleration(x)


def _and_pilot(force: Basis) -> Basis:
    """`force`, and the horizontal and the vertical one of the pilot."""
    pilot = two_forces(pilot_force(np.ones(2)))
    return lambda x: jnp.concatenate([force(x), pilot(x)])


def options_of(
    given: Mapping[str, Any],
    stars: MilkyWayStars,
    options: Mapping[str, Any],
    choices: Mapping[str, tuple[str, ...]],
) -> dict[str, Any]:
    """Every option, checked against the model's `options` (with defaults) and `choices`.

    Raises BayesdustError on an unknown option or choice, or where the stars lack what one needs.
    """
    refuse_unknown(given, options, choices)
    for key, value in given.items():
        number = (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
        if key in ("limit", "bump") and not (number and 0 < value < 100):
            raise BayesdustError(f"Option {key} cannot be {value!r}: give a positive number.")
        if key == "absolute_limit" and not (number or value in ("auto", "none")):
            raise BayesdustError(
                f"Option {key} cannot be {value!r}: give a magnitude, auto or none."
            )
    chosen = {**options, **given}
    known = stars.distance_errors is not None
    if chosen["errors"] == "auto":
        chosen["errors"] = "deconvolved" if known else "ignored"
    if chosen["sun"] == "auto":
        chosen["sun"] = "fixed" if stars.observed is None else "uncertain"
    if chosen["errors"] == "deconvolved" and not known:
        raise BayesdustError(
            f"{stars.source}: has no errors (parallax_error and the others of Gaia) to be deconvolved."
        )
    if chosen["efficiency"] == "auto":
        chosen["efficiency"] = "none" if stars.weights is None else "given"
        if chosen["limit"] is not None:
            chosen["efficiency"] = "magnitudes"
    if chosen["efficiency"] == "given" and stars.weights is None:
        raise BayesdustError(
            f"{stars.source}: efficiency=given needs the stars' weights: name their column, as "
            "weights='1/epsilon'."
        )
    if chosen["efficiency"] == "magnitudes":
        if chosen["limit"] is None:
            raise BayesdustError("efficiency=magnitudes needs the survey's limit, as limit=14.")
        if chosen["magnitude"] == "auto":
            bands = (*stars.absolute_limits, *MAGNITUDES)
            chosen["magnitude"] = next((b for b in bands if b in stars.photometry), MAGNITUDES[0])
        if chosen["magnitude"] not in stars.photometry:
            there = ", ".join(stars.photometry) or "none"
            raise BayesdustError(
                f"{stars.source}: has no column of magnitudes {chosen['magnitude']} (known here: {there}); "
                "say which it is, as columns={'G': 'NAME'}, or leave limit out and give weights='1/epsilon'."
            )
        if chosen["absolute_limit"] == "auto":
            chosen["absolute_limit"] = stars.absolute_limits.get(chosen["magnitude"], "none")
        _check_limits(stars, chosen)
        countable = _countable(stars)
        if chosen["counts"] == "auto":
            chosen["counts"] = "used" if countable else "ignored"
        if chosen["counts"] == "used" and not countable:
            raise BayesdustError(
                f"{stars.source}: counts=used needs the ball that the stars fill, with the Sun in it: give "
                "its radius."
            )
        return chosen
    for key in ("limit", "absolute_limit"):
        if given.get(key) not in (None, "auto", "none"):
            raise BayesdustError(
                f"Option {key} goes with efficiency=magnitudes and the survey's limit, not with "
                f"efficiency={chosen['efficiency']}: add limit=14 (or what it is), or leave {key} out."
            )
    if given.get("counts") == "used":
        raise BayesdustError(
            f"Option counts goes with efficiency=magnitudes, not with efficiency={chosen['efficiency']}: add "
            "limit=14 (or what it is), or leave counts out."
        )
    return chosen | {"absolute_limit": "none", "counts": "ignored"}


def _with_stars(tests: Bumps, sample: Sample) -> Bool[np.ndarray, " m"]:
    """Which bumps hold enough stars; sums that hang on a few would have no covariance to speak of."""
    enough = effective_stars(tests, sample) >= FEWEST_A_BUMP
    if not enough.any():
        raise BayesdustError(
            f"{sample.n:,} stars are too few, or their weights too uneven: no test function of the "
            f"{len(enough)} holds as many as {FEWEST_A_BUMP}; take larger ones (option bump, in kpc). Are x, "
            "y, z in kpc?"
        )
    return enough


def _off_centre(points: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "m 3"]:
    """The places; BayesdustError for one where cusps and bulges are infinite."""
    inside = np.flatnonzero(np.linalg.norm(points, axis=1) < CENTRE)
    if inside.size:
        raise BayesdustError(
            f"Place {inside[0] + 1} of the {len(points)} asked for is the Galactic centre, where densities "
            "may be infinite: leave it out."
        )
    return points


def _countable(stars: MilkyWayStars) -> bool:
    """Whether it is said which ball the stars fill, and the Sun is in it."""
    away = np.asarray(stars.sun.position) - np.asarray(stars.centre)
    return stars.radius is not None and float(np.linalg.norm(away)) < stars.radius


def _limits(chosen: dict[str, Any]) -> tuple[float, float]:
    """Where the sample ends: limit and absolute limit of `fit_dust`."""
    absolute = chosen["absolute_limit"]
    return float(chosen["limit"]), np.inf if absolute == "none" else float(absolute)


def _faintest(stars: MilkyWayStars, chosen: dict[str, Any]) -> dict[str, float]:
    if chosen["efficiency"] != "magnitudes":
        return {}
    found = {"limit": float(stars.photometry[chosen["magnitude"]].max())}
    if chosen["absolute_limit"] != "none":
        looks = stars.absolute_magnitude(chosen["magnitude"])
        found["absolute_limit"] = float(looks.max())
    return found


def _check_limits(stars: MilkyWayStars, chosen: dict[str, Any]) -> None:
    """Every magnitude is known and brighter than the limits; else the first row that is not so is named."""
    column = chosen["magnitude"]
    if stars.n < FEWEST:
        problem = f"has {stars.n} stars, and the dust is told by the magnitudes of {FEWEST} or more"
        raise fault(stars.source, problem, "give more, or weights in place of the limit")
    offsets = stars.x - np.asarray(stars.sun.position)
    first = first_unseen(offsets, stars.photometry[column], *_limits(chosen))
    if first is not None:
        star, problem = first
        raise fault(stars.source, problem, LEAVE_OUT, stars.row(star), column)


def _blur_at_edge(stars: MilkyWayStars) -> float:
    """Error of the distance [kpc] of the farthest tenth of the stars, their median."""
    errors = stars.distance_errors
    assert errors is not None
    far = stars.distance >= np.quantile(stars.distance, 0.9)
    return float(np.median(errors[far]))


def _rotation(stars: MilkyWayStars) -> float:
    """Mean of v_phi [km/s], positive from x to y."""
    x, v = stars.x, stars.v
    return float(np.mean((x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]) / np.hypot(x[:, 0], x[:, 1])))


def _notes(chosen: dict[str, Any], outside: int) -> list[str]:
    notes = []
    if outside:
        notes.append(
            f"{outside} of the places asked for lie outside the survey: what is said of them is the model's "
            "extrapolation (are they in kpc?)."
        )
    if chosen["efficiency"] == "none":
        notes.append(
            "No dust is allowed for (efficiency=none): behind dust the vertical force comes out too small."
        )
    if chosen["efficiency"] == "magnitudes":
        notes.append(DUST_NOTE if chosen["counts"] == "used" else NO_COUNTS_NOTE)
    if chosen["errors"] == "ignored":
        notes.append(
            "The stars' errors are left out of account: none are given, or errors=ignored."
        )
    if chosen["efficiency"] == "free":
        notes.append(
            "The dust is told by the stars' motions alone (efficiency=free): on mocks the vertical force "
            "then comes out 4 to 23 % too small. Give a limit, for dust from magnitudes."
        )
    return notes
