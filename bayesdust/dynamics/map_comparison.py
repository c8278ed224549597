"""An inferred efficiency beside that of a map: do they agree, and is one smoother than the other?

Draws of ln epsilon at places are compared with one map by their contrasts: with D(s) the mean of
[ln epsilon(x) - ln epsilon(y)]^2 over pairs of places about s apart,

    contrast = D_draw(s) / D_map(s),
    response = mean of (inferred difference x map's difference) / D_map(s),

the inferred difference that of the posterior mean. The response is the share of the map's contrast at the
scale s that is found: 1 where the inference is sharp, 0 where everything is smoothed away; noise of the
inference does not raise it. Draws of an honest posterior have the contrast of the truth at every scale, 1,
however blurred their mean, because what is not resolved scatters from draw to draw. All draws below 1 is
over-smoothing: less structure than the map has, and no error that says so.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from bayesdust.errors import BayesdustError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Inferred against map, over places.

    Attributes
    ----------
    bias, scatter : mean and root mean square of (inferred mean - map)
    rms_z : root mean square of that over its error, 1 if the errors are right; infinite where they differ
        and have none
    correlation : between the inferred mean and the map
    number : of places
    """

    bias: float
    scatter: float
    rms_z: float
    correlation: float
    number: int


def agreement(
    draws: Float[np.ndarray, "d m"], mapped: Float[np.ndarray, " m"], error: Float[np.ndarray, " m"]
) -> Agreement:
    """Draws (d, m) of epsilon, or of ln epsilon, beside a map of it (m,) with `error` (m,).

    Places where the map is not a number are left out. Raises BayesdustError if fewer than two are left.
    """
    known = np.isfinite(mapped) & np.isfinite(error)
    if known.sum() < 2:
        raise BayesdustError(f"the map is known at {known.sum()} of the places; two are needed.")
    mean, there = draws.mean(axis=0)[known], mapped[known]
    off = mean - there
    error = np.hypot(draws.std(axis=0)[known], error[known])
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing scatters, all or nothing
        z = np.where(off == 0, 0.0, off / error)
    return Agreement(
        bias=float(off.mean()),
        scatter=float(np.sqrt(np.mean(off**2))),
        rms_z=float(np.sqrt(np.mean(z**2))),
        correlation=float(np.corrcoef(mean, there)[0, 1]),
        number=int(known.sum()),
    )


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Structure by scale; see the module.

    Attributes
    ----------
    separation : (s,) kpc, mean of the pairs of each scale
    response : (s,) share of the map's contrast that the posterior mean has
    contrast : (d, s) of each draw, over the map's
    """

    separation: Floats
    response: Floats
    contrast: Floats

    @property
    def resolution(self) -> float:
        """The smallest scale [kpc] from which on half the map's contrast is found; infinite if none."""
        poor = np.flatnonzero(self.response < 0.5)
        first = poor[-1] + 1 if len(poor) else 0
        return float(self.separation[first]) if first < len(self.separation) else np.inf

    @property
    def smoother(self) -> NDArray[np.bool_]:
        """(s,) whether 97.5 % of the draws have less contrast than the map: over-smoothed, and unaware."""
        return np.quantile(self.contrast, 0.975, axis=0) < 1.0


def contrasts(
    places: Float[np.ndarray, "m 3"],
    draws: Float[np.ndarray, "d m"],
    mapped: Float[np.ndarray, " m"],
    edges: Float[np.ndarray, " e"],
) -> Contrasts:
    """Contrasts of ln epsilon, `draws` (d, m) against `mapped` (m,), at `places` (m, 3) [kpc].

    `edges` (s + 1,) [kpc] part the pairs of places by their distance; scales without a pair are left out, and
    so are places where the map is not a number. The map is taken to be free of noise, so give its values at
    the places and no counts. Raises BayesdustError for a map without structure, or no pair.
    """
    known = np.isfinite(mapped)
    places, draws, mapped = places[known], draws[:, known], mapped[known]
    away = np.linalg.norm(places[:, None] - places[None], axis=-1)
    mean = draws.mean(axis=0)
    rows: list[tuple[float, float, Floats]] = []
    for low, high in pairwise(edges):
        pairs = ((away >= low) & (away < high) & (away > 0)).astype(np.float64)
        if not pairs.any():
            continue
        form = (
            np.diag(pairs.sum(axis=1)) - pairs
        )  # y @ form @ y: half the sum of squared differences
        reference = mapped @ form @ mapped
        if not reference > 0:
            raise BayesdustError("the map is the same everywhere; there is no contrast to compare.")
        contrast = np.sum((draws @ form) * draws, axis=1) / reference
        rows.append((away[pairs > 0].mean(), mean @ form @ mapped / reference, contrast))
    if not rows:
        raise BayesdustError("no two places are as far apart as the edges ask; give other edges.")
    separation, response, contrast = (np.array(column) for column in zip(*rows, strict=True))
    return Contrasts(separation, response, contrast.T)
