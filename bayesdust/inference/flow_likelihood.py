"""Forces that flows read off the stars, as a likelihood: the cross-check of the sums over stars.

The Boltzmann equation at places, from the scores of a flow (`dynamics/boltzmann.py`), averaged over
cells: the radial acceleration in rings of R, the one towards the plane in layers of |z|. The numbers are few,
as their covariance comes from an ensemble:

- `repeats` flows of all the stars from different random weights. Their mean answer y is the estimate.
- M flows of bootstrap resamples, each star with a whole number of copies. Their scatter is that of the
  catalogue and of the training; it is shrunk towards independence (Ledoit & Wolf 2004, J. Multivariate Anal.
  88, 365, of the correlations), and may have at most M/3 numbers.
- one flow of stars drawn from each repeat, asked as the repeat was: the iterated bootstrap. What they are off
  by is what a flow does to its own density, and a bootstrap does not see it. That mean b is taken off y and,
  since it is the bias of a flow whose truth is a smoother one, b b^T and its Monte Carlo error are added to
  the covariance: it is trusted to about its own size.

Errors of the stars blur what flows learn. Flows of stars with their errors put on once more are off by as
much again, to second order in the errors, and what they differ by is taken off (the first step of
simulation-extrapolation, as in (4) of `dynamics/weak_form.py`), its Monte Carlo error added. What this adds
to the scatter of the catalogue itself is left out.

A covariance of p numbers from M members is itself uncertain, and the normal law becomes Student's,

    ln L = -m/2 ln(1 + chi2/(M - 1)) + const.                                                        (1)

Sellentin & Heavens (2016, MNRAS 456, L132) have m = M; with p = 8 and M = 30 intervals of 95 % from that hold
the truth in 91 % of all cases. The m of Percival+2022 (MNRAS 510, 3207) makes intervals cover for q fitted
parameters:

    m = q + 2 + (M - 1 + B (p - q))/(1 + B (p - q)),    B = (M - p - 2)/((M - p - 1)(M - p - 4)).    (2)

This is for a plain sample covariance; with a shrunk one and the terms of b in it, it errs on the wide side.
"""

import io
from dataclasses import dataclass, fields, replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import paramax
from jaxtyping import Float

from bayesdust.arrays import Array
from bayesdust.callbacks import OnProgress, unheard
from bayesdust.dynamics.force_nodes import ForceNodes
from bayesdust.errors import BayesdustError
from bayesdust.files import DAMAGED, write_atomically
from bayesdust.flows.autoregressive import Architecture, PhaseSpaceFlow, member
from bayesdust.flows.scores import FASTEST, velocities_at
from bayesdust.flows.training import Schedule, train
from bayesdust.inference.point_forces import all_answered, forces_at
from bayesdust.potentials.base import Potential

FEWEST = 12  # members, whatever the number of cells


class Cells(eqx.Module):
    """Places x (n, 3) [kpc] and what their accelerations (n, 3) are summed to: `shares` (p, n, 3)."""

    x: Float[np.ndarray, "n 3"]
    shares: Float[np.ndarray, "p n 3"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n 3"], rings: int = 3, layers: int = 5) -> "Cells":
        """The mean of a_R in `rings` of R and that of the acceleration towards the plane in `layers` of |z|,
        each of as many places. Raises BayesdustError for fewer places than cells."""
        x = np.asarray(x, dtype=float)
        if len(x) < max(rings, layers) or rings + layers < 1:
            raise BayesdustError(
                f"{len(x)} places do not fill {rings} rings and {layers} layers: give more places."
            )
        R, height = np.hypot(x[:, 0], x[:, 1]), np.abs(x[:, 2])
        outward = np.column_stack([x[:, 0] / R, x[:, 1] / R, np.zeros(len(x))])
        inward = np.column_stack([np.zeros((len(x), 2)), -np.sign(x[:, 2])])
        shares = []
        for count, along, vector in ((rings, R, outward), (layers, height, inward)):
            for rows in np.array_split(np.argsort(along), count) if count else ():
                share = np.zeros_like(x)
                share[rows] = vector[rows] / len(rows)
                shares.append(share)
        return cls(x, np.array(shares))

    @property
    def number(self) -> int:
        """How many cells there are."""
        return len(self.shares)

    def __call__(self, a: Float[Array, "*m n 3"]) -> Float[Array, "*m p"]:
        """The cells' means of accelerations at the places [(km/s)^2/kpc]."""
        return jnp.einsum("pni,...ni->...p", self.shares, a)

    def through(self, nodes: ForceNodes) -> Float[np.ndarray, "p q"]:
        """What a model's values at `nodes` are multiplied by to be the cells' means."""
        basis = jax.jit(jax.vmap(nodes.basis))(jnp.asarray(self.x))
        return np.einsum("pni,nqi->pq", self.shares, np.asarray(basis))


def answers(
    flows: PhaseSpaceFlow,
    cells: Cells,
    v: Float[Array, "n K 3"],
    dust: bool = False,
) -> Float[np.ndarray, "m p"]:
    """The cells' mean accelerations by every member, from its scores at velocities v [km/s] of the places.

    With `dust` its gradient is solved for beside each acceleration. Raises BayesdustError where a place has
    no answer: outside the flow's ball, or degenerate.
    """
    a = all_answered(forces_at(flows, cells.x, v, dust)).by_member[..., :3]
    return np.asarray(cells(jnp.asarray(a)))


@dataclass(frozen=True, eq=False)
class FlowForces:
    """What flows say of the forces in `cells`.

    Attributes
    ----------
    values : (p,) [(km/s)^2/kpc], the bias taken off
    covariance : (p, p), all its parts together
    bias, bias_error : (p,), that of the flows and its Monte Carlo error
    blur : (p,), what errors of the stars did, taken off too
    scatter, shrinkage : (p, p), the bootstrap's covariance alone, and the share it was shrunk by
    members : M of (1)
    fitted : q of (2), how many parameters the numbers are to fix
    """

    cells: Cells
    values: Float[np.ndarray, " p"]
    covariance: Float[np.ndarray, "p p"]
    bias: Float[np.ndarray, " p"]
    bias_error: Float[np.ndarray, " p"]
    blur: Float[np.ndarray, " p"]
    scatter: Float[np.ndarray, "p p"]
    shrinkage: float
    members: int
    fitted: int = 2

    @classmethod
    def of(
        cls,
        cells: Cells,
        repeats: Float[np.ndarray, "r p"],
        bootstrap: Float[np.ndarray, "m p"],
        iterated: Float[np.ndarray, "r p"],
        noisier: Float[np.ndarray, "r p"] | None = None,
    ) -> "FlowForces":
        """From the answers of all flows; `iterated[i]` is that of the flow of stars drawn from repeat i.

        `noisier` are those of flows of the stars with their errors put on once more.

        Raises BayesdustError for more numbers than a third of the bootstrap members, or fewer than two
        repeats.
        """
        members, p = bootstrap.shape
        if 3 * p > members or members < FEWEST:
            raise BayesdustError(
                f"{p} numbers from {members} bootstrap members: their covariance needs "
                f"{max(3 * p, FEWEST)} or more."
            )
        if len(repeats) < 2 or iterated.shape != repeats.shape:
            raise BayesdustError(
                "Give two repeats or more, and the answer of one flow drawn from each of them."
            )
        scatter, shrinkage = shrunk(bootstrap)
        off = iterated - repeats
        bias, error = off.mean(axis=0), _of_mean(off)
        blur, blur_error = np.zeros(p), np.zeros((p, p))
        if noisier is not None:
            blur = noisier.mean(axis=0) - repeats.mean(axis=0)
            blur_error = _of_mean(noisier) + _of_mean(repeats)
        return cls(
            cells,
            values=repeats.mean(axis=0) - bias - blur,
            covariance=scatter + np.outer(bias, bias) + error + blur_error,
            bias=bias,
            bias_error=np.sqrt(np.diagonal(error)),
            blur=blur,
            scatter=scatter,
            shrinkage=shrinkage,
            members=members,
        )

    def without_bias(self) -> "FlowForces":
        """As a bootstrap alone would have it: the bias neither taken off nor allowed for."""
        return replace(self, values=self.values + self.bias, covariance=self.scatter)

    def save(self, path: Path, key: str) -> None:
        """Write all numbers into a file; `key` says what they are of."""
        numbers = {field.name: getattr(self, field.name) for field in fields(self)}
        cells = numbers.pop("cells")
        content = io.BytesIO()
        np.savez(content, key=key, x=cells.x, shares=cells.shares, **numbers)
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, key: str) -> "FlowForces":
        """Those that `save` wrote. Raises BayesdustError for a damaged file, or one of another `key`."""
        if not path.exists():
            raise BayesdustError(
                f"{path.parent} holds no {path.name}: give the folder of a run with likelihood=flow. "
                "The flows of bayesdust train are of all stars, and serve no fit."
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                numbers = dict(archive)
            other = str(numbers.pop("key")) != key
            cells = Cells(numbers.pop("x"), numbers.pop("shares"))
            scalars = {
                name: numbers.pop(name).item() for name in ("shrinkage", "members", "fitted")
            }
            found = cls(cells, **numbers, **scalars)
        except DAMAGED as error:
            raise BayesdustError(f"{path} cannot be read: train the flows again.") from error
        if other:
            raise BayesdustError(
                f"{path} is of other stars, another ball, or other options about dust and errors: leave "
                "--flows out, to train others."
            )
        return found

    @property
    def power(self) -> float:
        """m of (2)."""
        M, p = self.members, len(self.values)
        B = (M - p - 2) / ((M - p - 1) * (M - p - 4))
        free = B * (p - min(self.fitted, p))
        return min(self.fitted, p) + 2 + (M - 1 + free) / (1 + free)

    @property
    def widening(self) -> float:
        """Of the covariance, for a normal law as wide as (1)."""
        return (self.members - 1) / (self.power - len(self.values) - 2)

    @property
    def normal_covariance(self) -> Float[np.ndarray, "p p"]:
        """Of that normal law, for models that are linear in their parameters."""
        return self.widening * self.covariance

    def log_likelihood(self, force: Float[Array, " p"]) -> Float[Array, ""]:
        """(1) for a model whose cells have these mean accelerations."""
        return -0.5 * self.power * jnp.log1p(self.chi2(force) / (self.members - 1))

    def chi2(self, force: Float[Array, " p"]) -> Float[Array, ""]:
        """Of the values, with the covariance as it is."""
        root = jnp.linalg.cholesky(jnp.asarray(self.covariance))
        off = jax.scipy.linalg.solve_triangular(root, jnp.asarray(self.values) - force, lower=True)
        return jnp.sum(off**2)


def _of_mean(samples: Float[np.ndarray, "m p"]) -> Float[np.ndarray, "p p"]:
    """Covariance of the mean of independent samples."""
    m, p = samples.shape
    return np.cov(samples.T, ddof=1).reshape(p, p) / m


def shrunk(samples: Float[np.ndarray, "m p"]) -> tuple[Float[np.ndarray, "p p"], float]:
    """Covariance with its correlations shrunk towards none, and by what share: Ledoit & Wolf's best."""
    m, p = samples.shape
    sd = samples.std(axis=0, ddof=1)
    z = (samples - samples.mean(axis=0)) / sd
    correlation = z.T @ z / (m - 1)
    far = np.sum((correlation - np.eye(p)) ** 2)
    noise = np.sum((z[:, :, None] * z[:, None, :] - correlation) ** 2) / m**2
    share = float(np.clip(noise / far, 0.0, 1.0)) if far > 0 else 1.0
    mixed = (1 - share) * correlation + share * np.eye(p)
    return np.outer(sd, sd) * mixed, share


def flow_likelihood(
    forces: FlowForces, potential: Potential, nodes: ForceNodes | None = None
) -> None:
    """The factor "flow" of `forces` in a NumPyro model, and the site `flow_chi2`.

    With the `nodes` of a `GalaxyData` an axisymmetric potential is asked there, which is quicker.
    """
    if nodes is None:
        force = forces.cells(jax.vmap(potential.acceleration)(jnp.asarray(forces.cells.x)))
    else:
        with jax.ensure_compile_time_eval():  # once, though a sampler traces the model
            through = jnp.asarray(forces.cells.through(nodes))
        force = through @ nodes.values(potential)
    numpyro.factor("flow", forces.log_likelihood(force))
    numpyro.deterministic("flow_chi2", forces.chi2(force))


def flow_forces(
    x: Float[np.ndarray, "n 3"],
    v: Float[np.ndarray, "n 3"],
    architecture: Architecture,
    cells: Cells,
    *,
    weights: Float[np.ndarray, " n"] | None = None,
    members: int = 30,
    repeats: int = 8,
    velocities: int = 128,
    dust: bool = False,
    noisier: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    schedule: Schedule | None = None,
    on_progress: OnProgress = unheard,
) -> FlowForces:
    """Train all the flows on stars [kpc, km/s] with `weights` 1/epsilon, and ask them.

    Without weights, and with `dust`, the efficiency's gradient is solved for beside each acceleration. The
    iterated flows see as many stars as (sum w)^2 / sum w^2 and no weights, for that is how many the
    first flows learn from. `noisier` are x and v (c, n, 3) and weights (c, n) of c copies of the stars with
    their errors put on once more; what flows of these differ by is taken off.

    Raises BayesdustError as `FlowForces.of`, before anything is trained, and `train`.
    """
    schedule, count = schedule or Schedule(), len(x)
    if max(3 * cells.number, FEWEST) > members or repeats < 2:
        raise BayesdustError(
            f"{cells.number} numbers need {max(3 * cells.number, FEWEST)} bootstrap members or more, and two "
            f"repeats: {members} and {repeats} were asked for."
        )
    w = np.ones(count) if weights is None else np.asarray(weights, dtype=float)
    rng = np.random.default_rng(np.random.SeedSequence([schedule.seed, *b"bootstrap"]))
    resampled = rng.integers(count, size=(members, count))
    copies = np.stack([np.bincount(rows, minlength=count) for rows in resampled])
    copies = np.concatenate([np.ones((repeats, count)), copies])
    first = train(
        x,
        v,
        architecture,
        members=repeats + members,
        weights=copies * w,
        bootstrap=False,
        schedule=schedule,
        on_progress=lambda done, total, phase: on_progress(done, total, f"first flows, {phase}"),
    ).flows
    key_v, key_stars = jax.random.split(jax.random.key(schedule.seed + 1))
    asked = velocities_at(member(first, 0), key_v, jnp.asarray(cells.x), velocities)
    found = answers(first, cells, asked, dust)
    number = int(w.sum() ** 2 / np.sum(w**2))
    drawn = [
        draw_stars(member(first, i), key, number, architecture)
        for i, key in enumerate(jax.random.split(key_stars, repeats))
    ]
    again = train(
        np.array([d[0] for d in drawn]),
        np.array([d[1] for d in drawn]),
        architecture,
        members=repeats,
        bootstrap=False,
        schedule=replace(schedule, seed=schedule.seed + 1),
        on_progress=lambda done, total, phase: on_progress(done, total, f"iterated flows, {phase}"),
    ).flows
    iterated = answers(again, cells, asked, dust)
    blurred = None
    if noisier is not None:
        copy = np.arange(repeats) % len(noisier[0])
        moved = train(
            noisier[0][copy],
            noisier[1][copy],
            architecture,
            members=repeats,
            weights=noisier[2][copy],
            bootstrap=False,
            schedule=replace(schedule, seed=schedule.seed + 2),
            on_progress=lambda done, total, phase: on_progress(
                done, total, f"noisier flows, {phase}"
            ),
        ).flows
        blurred = answers(moved, cells, asked, dust)
    return FlowForces.of(cells, found[:repeats], found[repeats:], iterated, blurred)


@eqx.filter_jit
def draw_stars(
    flow: PhaseSpaceFlow, key: Array, number: int, architecture: Architecture
) -> tuple[Float[Array, "n 3"], Float[Array, "n 3"]]:
    """Places and velocities of `number` stars drawn from a flow, slower than `flows.scores.FASTEST`."""
    x, v = paramax.unwrap(flow).stars(key, number + number // 50 + 10)
    off = jnp.linalg.norm(x - jnp.asarray(architecture.centre, jnp.float32), axis=1)
    good = (jnp.linalg.norm(v, axis=1) < FASTEST) & (off < 0.99999 * architecture.radius)
    rows = jnp.argsort(~good, stable=True)[:number]
    return x[rows], v[rows]
