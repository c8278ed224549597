"""A Milky Way without a shape: potential and dust as sums of modes, and the stars as matrices of them.

Phi is a few potentials of free size plus a smooth random field, and ln epsilon that of the dust map plus
another field (`dynamics/modes.py`). The sums over the stars are linear in all coefficients: one pass over
the stars leaves their slopes, and afterwards nothing depends on how many stars there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular

from bayesdust.arrays import Array
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.dynamics.modes import Enveloped, Modes
from bayesdust.errors import BayesdustError
from bayesdust.inference import galaxy_data, survey_flows
from bayesdust.inference.flow_likelihood import FlowForces
from bayesdust.inference.galaxy_data import (
    Survey,
    SurveyData,
    options_of,
)
from bayesdust.potentials.base import Potential
from bayesdust.units import G

OPTIONS = galaxy_data.OPTIONS | {"modes": 400, "dust_modes": 400}
CHOICES = galaxy_data.CHOICES | {"efficiency": (*galaxy_data.CHOICES["efficiency"], "free")}
LENGTHS = np.array([3.0, 6.0, 0.8])  # kpc, at which the modes of the potential are chosen
DUST_LENGTHS = np.array([1.0, 1.0, 0.6])
GAUGE = 0.01  # sd of ln epsilon at the Sun, where no star is missing
ENOUGH = 10_000  # stars, to tell where the dust is
SHELLS = np.linspace(5.5, 11.0, 12)  # kpc


@dataclass(frozen=True, eq=False)
class LinearData(SurveyData):
    """Stars of the Milky Way as matrices.

    Attributes
    ----------
    parts : the potentials of free size, by name
    modes, dust_modes : of the potential and of ln epsilon, the latter None where the likelihood knows no dust
    sums : (number, p + 1) slopes of the whitened sums in the coefficients (of the parts, the modes and the
        dust's modes) and, last, their constants
    constant, slopes : (k,), (k, p): what is N(0, 1) in the truth is `constant` + `slopes` @ coefficients: the
        sums, or what flows say of the force, and where there are dust's modes the gauge
    pull : (p,) slope of the ln likelihood that undoes the stars' pull on their own sums
    flow : the forces of flows where they are the likelihood, else None
    """

    parts: Mapping[str, Potential]
    modes: Modes
    dust_modes: Modes | Enveloped | None
    sums: Float[np.ndarray, "n p+1"]
    constant: Float[np.ndarray, " k"]
    slopes: Float[np.ndarray, "k p"]
    pull: Float[np.ndarray, " p"]
    flow: FlowForces | None

    @property
    def tells_epsilon(self) -> bool:
        """Whether there is an efficiency to be found, and places at which it is wanted."""
        return self.options["efficiency"] in ("magnitudes", "free") and len(self.points) > 0

    def chi2(self, b: Float[Array | np.ndarray, "*d p"]) -> Array | np.ndarray:
        """chi2 (*d,) of the sums, without their inflation, for coefficients b."""
        return self.inflation * (self._whitened(b) ** 2).sum(axis=-1)

    def flow_chi2(self, b: Float[Array | np.ndarray, "*d p"]) -> Array | np.ndarray:
        """chi2 (*d,) of what flows say of the force, for coefficients b."""
        assert self.flow is not None
        white = b @ self.slopes.T + self.constant
        return self.flow.widening * (white**2).sum(axis=-1)

    def dust_answer(self, b: Float[Array | np.ndarray, "*d p"]) -> Array | np.ndarray:
        """What the draws of the dust map answer for (*d, map's draws), for coefficients b."""
        assert self.dust_shifts is not None
        return self._whitened(b) @ self.dust_shifts

    def _whitened(self, b: Float[Array | np.ndarray, "*d p"]) -> Array | np.ndarray:
        return b @ self.sums[:, :-1].T + self.sums[:, -1]

    @property
    def shells(self) -> Float[np.ndarray, " r"]:
        return SHELLS

    def variances(self, sizes: Float[Array, " s"], at: Mapping[str, Array]) -> Float[Array, " p"]:
        """S, for the parts' prior sd `sizes` and one draw of the fields' sizes and lengths."""
        lengths = jnp.stack([at["length_R"], at["length_phi"], at["length_z"]])
        found = [sizes**2, self.modes.variances(at["sigma"], lengths)]
        if self.dust_modes is not None:
            shape = jnp.asarray(DUST_LENGTHS / DUST_LENGTHS[0])
            found.append(self.dust_modes.variances(at["sigma_dust"], at["length_dust"] * shape))
        return jnp.concatenate(found)

    def potentials(self, x: Float[Array, "3"]) -> dict[str, Array]:
        """phi (p,), acceleration (p, 3) and density rho (p,) at x of all that Phi is made of, sizes one."""
        parts = tuple(self.parts.values())
        return {
            "phi": jnp.concatenate([_stack(parts, "potential", x), self.modes.values(x)]),
            "acceleration": _forces(parts, self.modes, x),
            "rho": jnp.concatenate(
                [_stack(parts, "density", x), self.modes.laplacians(x) / (4 * jnp.pi * G)]
            ),
        }


def prepare(
    stars: MilkyWayStars,
    options: Mapping[str, Any],
    points: Float[np.ndarray, "m 3"] | None = None,
    *,
    parts: Mapping[str, Potential],
    seed: int = 0,
    on_progress: OnProgress = unheard,
    flows: Path | None = None,
    folder: Path | None = None,
) -> LinearData:
    """Ready `stars`; Phi is made of `parts` and modes, `points` (m, 3) [kpc] are where it is wanted.

    With likelihood=flow `flows` and `folder` are as in `galaxy.prepare`. Raises BayesdustError on an unknown
    option or choice, magnitudes that are not there, or a ball that is too small for one test function.
    """
    chosen = options_of(options, stars, OPTIONS, CHOICES)
    if chosen["likelihood"] == "flow" and chosen["efficiency"] == "free":
        raise BayesdustError(
            "With likelihood=flow the dust cannot be free: give a limit, or the stars' weights."
        )
    kept = survey_flows.kept(stars, chosen, flows, folder)
    survey = Survey.of(stars, chosen, points, seed, on_progress)
    flow, told = survey_flows.chosen_by(survey, stars, kept, folder, on_progress)
    modes = Modes.covering(survey.centre, survey.radius, LENGTHS, _count(chosen, "modes"))
    dust: Modes | Enveloped | None = None
    if chosen["efficiency"] != "none" and flow is None:
        number = _count(chosen, "dust_modes")
        dust = Modes.covering(survey.centre, survey.radius, DUST_LENGTHS, number)
        dust = dust if survey.dust is None else _where_dusty(dust, survey)
    force = partial(_forces, tuple(parts.values()), modes)
    weighed = survey.weigh(force, None if dust is None else dust.gradients, on_progress)
    sums = weighed.whitened()
    white = sums if flow is None else _of_flows(flow, force)
    if dust is not None:
        white = np.vstack([white, _gauge(dust, survey.sun, white.shape[1])])
    shared = survey.shared(weighed)
    shared["notes"] += told
    return LinearData(
        **shared,
        parts=parts,
        modes=modes,
        dust_modes=dust,
        sums=sums,
        constant=white[:, -1],
        slopes=white[:, :-1],
        pull=weighed.pull if flow is None else np.zeros_like(weighed.pull),
        flow=flow,
    )


def _of_flows(flow: FlowForces, force: Callable[[Array], Array]) -> Float[np.ndarray, "c p+1"]:
    """What flows say of the force, whitened: slopes in the coefficients and constants (last)."""
    found = np.asarray(jax.jit(jax.vmap(force))(jnp.asarray(flow.cells.x)))
    slopes = np.einsum("cni,npi->cp", flow.cells.shares, found)
    both = np.column_stack([slopes, -flow.values])
    return solve_triangular(np.linalg.cholesky(flow.normal_covariance), both, lower=True)


def _forces(parts: tuple[Potential, ...], modes: Modes, x: Array) -> Array:
    """Accelerations (p, 3) of the parts and of the modes, sizes one."""
    return jnp.concatenate([_stack(parts, "acceleration", x), -modes.gradients(x)])


def _stack(parts: tuple[Potential, ...], method: str, x: Array) -> Array:
    return jnp.stack([getattr(part, method)(x) for part in parts])


def _where_dusty(modes: Modes, survey: Survey) -> Enveloped:
    """The field relative to -ln epsilon of the map: where the map has no dust, it has none."""
    assert survey.dust is not None
    x = survey.sample.x[:: max(1, survey.sample.n // ENOUGH), 0]
    depth = -np.log(survey.dust.efficiency(x - survey.sun))
    return Enveloped.like(modes, DUST_LENGTHS, x, depth)


def _gauge(dust: Modes | Enveloped, sun: np.ndarray, columns: int) -> Float[np.ndarray, "1 c"]:
    """One more sum, whitened: ln epsilon of the field at the Sun is zero, where no star is missing."""
    row = np.zeros((1, columns))
    row[0, -1 - dust.number : -1] = np.asarray(dust.values(jnp.asarray(sun))) / GAUGE
    return row


def _count(chosen: Mapping[str, Any], name: str) -> int:
    value = chosen[name]
    if not (isinstance(value, int | float) and value >= 1 and float(value).is_integer()):
        raise BayesdustError(f"Option {name} cannot be {value!r}: give a whole number from 1 on.")
    return int(value)
