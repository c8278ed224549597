"""A sample of Milky Way stars in six dimensions: the container that the flows are trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from bayesdust.catalogs import cuts as cut
from bayesdust.catalogs.astrometry import Observed
from bayesdust.catalogs.columns import ColumnReader, Vocabulary
from bayesdust.catalogs.cuts import CutReport
from bayesdust.catalogs.frames import SolarFrame, galactocentric, propagate
from bayesdust.catalogs.tables import SourceTable, fault, rounded_digest
from bayesdust.errors import BayesdustError
from bayesdust.units import DEG, MAS_DEG

FEWEST_STARS = 100  # a density of six dimensions cannot be learnt from fewer
_WEIGHT = Vocabulary({"weight": ()}, {}, {"weight": ("a plain number", ("",))})


@dataclass(frozen=True, eq=False)
class MilkyWayStars:
    """Stars with Galactocentric positions and velocities (axes of `SolarFrame`).

    Attributes
    ----------
    x : (n, 3) kpc
    v : (n, 3) km/s
    sun : where the Sun is and how it moves
    source : file name, or "<table>"
    sha256 : of the bytes of the file, or of the numbers read where a table was given
    observed : the sky coordinates, parallaxes and so on behind x and v, or None
    photometry : apparent magnitudes and colours (n,) by Gaia's names, perhaps none
    weights : (n,) positive, such as 1 / epsilon, or None for equal weights
    weights_from : the column they were read from, as "1/epsilon", or "none"
    centre, radius : (3,) kpc and kpc, the ball that holds the stars; radius None if not declared
    rows : (n,) the stars' rows in the table, from 1
    cuts : how many stars each cut removed, or None if there were none
    absolute_limits : band -> m - mu [mag] at which the cuts end the sample, extinction left in
    zero_point : what was subtracted from the parallaxes, in words
    units : our column name -> unit, with "(assumed)" where nobody stated it
    warnings : sentences for the user
    """

    x: Float[np.ndarray, "n 3"]
    v: Float[np.ndarray, "n 3"]
    sun: SolarFrame
    source: str
    sha256: str
    observed: Observed | None = None
    photometry: Mapping[str, Float[np.ndarray, " n"]] = field(default_factory=dict)
    weights: Float[np.ndarray, " n"] | None = None
    weights_from: str = "none"
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float | None = None
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    cuts: CutReport | None = None
    absolute_limits: Mapping[str, float] = field(default_factory=dict)
    zero_point: str = "none"
    units: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for array in (self.x, self.v, self.weights, self.rows, *self.photometry.values()):
            if array is not None:
                array.flags.writeable = False

    @property
    def n(self) -> int:
        """Number of stars."""
        return len(self.x)

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the numbers that were read: of one file other columns may have been."""
        found = {"stars": rounded_digest(self.x, self.v, self.weights)}
        found |= {name: rounded_digest(values) for name, values in self.photometry.items()}
        if self.observed is not None:
            seen = self.observed
            found["observed"] = rounded_digest(seen.values, seen.errors, seen.correlations)
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """What of these stars decides a fit, for JSON."""
        return {"file": self.sha256, "numbers": self.digests, **self.survey}

    @property
    def survey(self) -> dict[str, Any]:
        """The Sun's place, the ball, and the weights, for JSON."""
        return {
            "sun": list(map(float, self.sun.position)),
            "ball": [*self.centre, self.radius],
            "weights": self.weights_from,
        }

    def row(self, star: int) -> int:
        """The row of a star, counted from 0, in its table, from 1."""
        return int(self.rows[star]) if len(self.rows) else star + 1

    @property
    def distance(self) -> Float[np.ndarray, " n"]:
        """Distances from the Sun, (n,) kpc."""
        return np.linalg.norm(self.x - self.sun.position, axis=1)

    @cached_property
    def covariance(self) -> Float[np.ndarray, "n 6 6"] | None:
        """Covariances of (x, v), (n, 6, 6) in kpc and km/s, or None without errors.

        To first order in the errors (`frames.propagate`); computed when first asked for.
        """
        if self.observed is None or self.observed.errors is None:
            return None
        result = np.empty((self.n, 6, 6))
        done = 0
        for part in self.observed.in_parts():
            stop, c = done + len(part.values), part.covariance
            assert c is not None
            result[done:stop] = propagate(part.values, c, self.sun)
            done = stop
        result.flags.writeable = False
        return result

    def absolute_magnitude(self, band: str = "phot_g_mean_mag") -> Float[np.ndarray, " n"]:
        """Absolute magnitudes in `band`, (n,), extinction left in; BayesdustError without `band`."""
        if band not in self.photometry:
            known = ", ".join(self.photometry) or "none"
            raise BayesdustError(f"{self.source}: has no photometry in {band}; it has {known}.")
        return cut.absolute_magnitude(self.photometry[band], self.distance)

    def resampled(self, seed: int) -> "MilkyWayStars":
        """A copy with every star's observed quantities drawn anew from their errors.

        Drawn in the observed space (normal, with all correlations, around what was observed), then
        transformed: the skewness of 1 / parallax is kept, which `covariance` leaves out. Parallaxes
        that come out at zero or below have no distance and are dropped; so are stars that leave the
        ball, and `cuts` counts both. None comes in from outside, as those are not in the sample:
        copies thin out towards the edge. The other cuts are not repeated. The same seed gives the
        same copy. Raises BayesdustError for stars without errors.
        """
        if self.observed is None or self.observed.errors is None:
            raise BayesdustError(
                f"{self.source}: the stars have no errors to be drawn from; give a table with "
                "ra_error and the other errors of Gaia."
            )
        noise = np.random.default_rng(seed).normal(size=self.observed.values.shape)
        values = _moved(self.observed, noise)
        parallax = values[:, 2]
        distance = np.full_like(parallax, np.nan)
        np.divide(1.0, parallax, out=distance, where=parallax > 0.0)
        wanted = [cut.positive_parallax()]
        if self.radius is not None:
            wanted.append(cut.within(self.radius))
        columns = {"ra": values[:, 0], "parallax": parallax, "distance": distance}
        kept, report = cut.apply(wanted, columns, f"{self.source}, resampled")
        drawn = replace(self.observed, values=values)[kept]
        x, v = galactocentric(drawn.values, self.sun)
        return replace(
            self,
            x=x,
            v=v,
            observed=drawn,
            photometry={name: values[kept] for name, values in self.photometry.items()},
            weights=None if self.weights is None else self.weights[kept],
            rows=self.rows[kept],
            cuts=report,
        )

    def either_side(
        self, seed: int
    ) -> tuple[Float[np.ndarray, "n 2 3"], Float[np.ndarray, "n 2 3"]]:
        """x and v of two copies of every star, its observed quantities moved by +e and by -e.

        e has the covariance of the errors, made of random signs instead of normal deviates, so that no
        parallax is moved far: the mean over the two of a smooth function less its value at the star is half
        the trace of its second derivatives with the covariance, in the mean over signs. The same seed gives
        the same copies. Raises BayesdustError for stars without errors, or with a parallax of less than three
        of them.
        """
        if self.observed is None or self.observed.errors is None:
            raise BayesdustError(f"{self.source}: the stars have no errors to be moved by.")
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=self.observed.values.shape)
        pair = [_moved(self.observed, sign * signs) for sign in (1.0, -1.0)]
        if min(values[:, 2].min() for values in pair) <= 0.0:
            raise BayesdustError(
                f"{self.source}: some parallaxes are too uncertain to give a distance; leave out stars with "
                "parallax_error/parallax above 1/3."
            )
        x, v = zip(*(galactocentric(values, self.sun) for values in pair), strict=True)
        return np.stack(x, axis=1), np.stack(v, axis=1)

    @property
    def distance_errors(self) -> Float[np.ndarray, " n"] | None:
        """Errors of the distances (n,) [kpc], to first order, or None without errors."""
        if self.observed is None or self.observed.errors is None:
            return None
        return self.observed.errors[:, 2] / self.observed.values[:, 2] ** 2


def _moved(observed: Observed, noise: Float[np.ndarray, "n 6"]) -> Float[np.ndarray, "n 6"]:
    """Observed quantities (n, 6) moved by `noise` of unit covariance, made that of their errors.

    The root of the correlation matrix is V sqrt(L) by its eigenvalues L, of which rounding may have
    made some slightly negative: those are set to zero.
    """
    assert observed.errors is not None
    if observed.correlations is not None:
        noise, done = noise.copy(), 0
        for part in observed.in_parts():
            eigenvalues, vectors = np.linalg.eigh(part.correlation)
            here = slice(done, done + len(eigenvalues))
            scaled = np.sqrt(np.clip(eigenvalues, 0.0, None)) * noise[here]
            noise[here] = np.einsum("nij,nj->ni", vectors, scaled)
            done = here.stop
    shift = noise * observed.errors
    shift[:, :2] *= MAS_DEG
    shift[:, 0] /= np.cos(observed.values[:, 1] * DEG)
    values = observed.values + shift
    values[:, 0] %= 360.0
    values[:, 1] = np.clip(values[:, 1], -90.0, 90.0)
    return values


def read_weights(source: SourceTable, spec: str) -> Float[np.ndarray, " n"]:
    """Weights (n,) from the column `spec`, or from the inverse of it as "1/COLUMN"; NaN in gaps.

    Raises BayesdustError where `spec` names no column, or one that is not there or holds no numbers.
    """
    inverse, name = spec.startswith("1/"), spec.removeprefix("1/").strip()
    if not name:
        problem = f"the weights {spec!r} name no column"
        raise fault(source.where, problem, "give a column, as epsilon or 1/epsilon")
    reader = ColumnReader(source, {"weight": name}, {}, words=_WEIGHT)
    values, _ = reader.read("weight", gaps=True)
    with np.errstate(divide="ignore"):
        return 1.0 / values if inverse else values


def check_weights(
    weights: Float[np.ndarray, " n"], where: str, spec: str, rows: np.ndarray
) -> None:
    """Every weight is positive and finite; BayesdustError names the first row that is not so."""
    good = np.isfinite(weights) & (weights > 0.0)
    if not good.all():
        first = int(np.argmin(good))
        problem = f"the weight {spec} is {weights[first]:g}"
        advice = "weights are positive: correct it or remove the row"
        raise fault(where, problem, advice, int(rows[first]), spec.removeprefix("1/"))


def check_fewest(n: int, fewest: int, where: str, how: str = "") -> None:
    """Raises BayesdustError where the sample is too small for a density of six dimensions."""
    if n < fewest:
        left = f"{n} star{'' if n == 1 else 's'}{how}"
        problem = f"holds {left}, fewer than {fewest}"
        raise fault(where, problem, "too few for a phase-space density; give a larger sample")
