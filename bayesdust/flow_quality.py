"""Is a flow good? Numbers from the stars that its training did not see.

- Held-out log-likelihood against a Gaussian mixture's, the baseline a flow has to beat.
- PIT: a right flow carries held-out stars to a standard normal law; each base variable's distribution is
  compared with it (Kolmogorov-Smirnov, Bonferroni over the six).
- Classifier two-sample test (Lopez-Paz & Oquab 2017): a network that tells held-out stars from drawn ones
  more often than chance would sees something the flow has not learnt.

Weighted stars enter with their weights w, and count as (sum w)^2 / sum w^2 stars (Kish 1965).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax
from jaxtyping import Float
from scipy import stats as statistics

from bayesdust.arrays import Array
from bayesdust.catalogs.milky_way import MilkyWayStars
from bayesdust.flows.autoregressive import PhaseSpaceFlow, member
from bayesdust.flows.training import Trained

MOST = 20_000  # held-out stars used
COMPONENTS = 8  # of the Gaussian mixture
LEVEL = 0.01  # at which a test rejects
FEWEST = 100  # held-out stars, below which the tests see next to nothing
NAMES = ("x", "y", "z", "v_R", "v_phi", "v_z")


@dataclass(frozen=True)
class Quality:
    """What was measured on `stars` held-out stars (weighted ones: as many as they count), of member 0.

    `gain` [nats a star] of the flow over the mixture and its standard error; `pit` p-values by base
    variable; `accuracy` of the classifier, and the error it has by chance.
    """

    stars: int
    ln_f: float
    gain: float
    gain_error: float
    pit: dict[str, float] = field(default_factory=dict)
    pit_distance: dict[str, float] = field(default_factory=dict)
    accuracy: float = 0.5
    accuracy_error: float = 0.0

    @property
    def failures(self) -> list[str]:
        """Sentences on what is wrong, none if nothing was found."""
        found = []  # comparisons are such that NaN fails
        numbers = (self.ln_f, self.gain, self.gain_error, *self.pit.values(), self.accuracy)
        if not np.isfinite(numbers).all():
            found.append("The flow's densities are not finite: the training has gone astray.")
        if not self.stars >= FEWEST:
            found.append(
                f"Held-out stars, by their weights, count as {self.stars}: fewer than {FEWEST} cannot tell "
                "whether the flow is right."
            )
        if not self.gain >= 3 * self.gain_error:
            found.append("The flow does no better on held-out stars than a Gaussian mixture.")
        worst = min(self.pit, key=lambda name: self.pit[name])
        if not self.pit[worst] >= LEVEL / len(self.pit):
            found.append(
                f"Held-out stars are not normal in the base variable of {worst} (largest distance of the "
                f"distribution functions {self.pit_distance[worst]:.3f}, p = {self.pit[worst]:.1g})."
            )
        if not self.accuracy <= 0.5 + 2.33 * self.accuracy_error:
            found.append(
                f"A classifier tells held-out stars from drawn ones in {self.accuracy:.1%} of cases "
                f"(chance: 50.0 +- {100 * self.accuracy_error:.1f} %)."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"failures": self.failures}


def measure(trained: Trained, stars: MilkyWayStars, seed: int = 0) -> Quality:
    """Judge member 0 by the stars that the training's gradients did not see."""
    flow = paramax.unwrap(member(trained.flows, 0))
    rng = np.random.default_rng(seed)
    held = trained.held_out
    test = held if len(held) <= MOST else rng.choice(held, MOST, replace=False)
    kept = np.setdiff1d(np.arange(stars.n), trained.held_out)
    x, v = (jnp.asarray(a[test], jnp.float32) for a in (stars.x, stars.v))
    ln_f = np.asarray(jax.lax.map(lambda at: flow.log_prob(*at), (x, v), batch_size=2000))
    six = np.concatenate([stars.x, stars.v], axis=1)
    weights = np.ones(stars.n) if stars.weights is None else stars.weights
    some = rng.choice(kept, min(len(kept), MOST), replace=False)
    mixture = gaussian_mixture(six[some], weights[some], rng)
    w = weights[test] / weights[test].sum()
    count = round(1 / np.sum(w**2))
    gain = ln_f - mixture(six[test])
    mean = np.sum(w * gain)
    distances = [distance_from_normal(column, w) for column in base_variables(flow, x, v).T]
    drawn = flow.stars(jax.random.key(seed), len(test))
    accuracy, error = two_samples(
        six[test], np.concatenate([np.asarray(a) for a in drawn], axis=1), w * len(w), seed
    )
    return Quality(
        stars=count,
        ln_f=float(np.sum(w * ln_f)),
        gain=float(mean),
        gain_error=float(np.sqrt(np.sum((w * (gain - mean)) ** 2))),
        pit={
            n: float(statistics.kstwo.sf(d, count)) for n, d in zip(NAMES, distances, strict=True)
        },
        pit_distance=dict(zip(NAMES, distances, strict=True)),
        accuracy=accuracy,
        accuracy_error=error,
    )


def base_variables(
    flow: PhaseSpaceFlow, x: Float[Array, "n 3"], v: Float[Array, "n 3"]
) -> Float[np.ndarray, "n 6"]:
    """Where the flow carries stars: standard normal if it is right."""

    def one(at: tuple[Array, Array]) -> Array:
        x, v = at
        return jnp.concatenate([flow.n.bijection.inverse(x), flow.p.bijection.inverse(v, x)])

    return np.asarray(jax.lax.map(one, (x, v), batch_size=2000))


def distance_from_normal(z: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"]) -> float:
    """Largest distance of the weighted distribution function from the normal one; w have the sum one."""
    order = np.argsort(z)
    normal, above = statistics.norm.cdf(z[order]), np.cumsum(w[order])
    return float(np.maximum(above - normal, normal - (above - w[order])).max())


def gaussian_mixture(
    stars: Float[np.ndarray, "n 6"], weights: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Any:
    """ln density of a mixture of `COMPONENTS` normal laws fitted by expectation maximisation."""
    mean, scale = stars.mean(axis=0), stars.std(axis=0)
    y = (stars - mean) / scale
    centres = y[rng.choice(len(y), COMPONENTS, replace=False)]
    covariances = np.repeat(np.eye(6)[None], COMPONENTS, axis=0)
    shares = np.full(COMPONENTS, 1 / COMPONENTS)

    def terms(y: np.ndarray) -> np.ndarray:
        laws = zip(centres, covariances, strict=True)
        return np.stack(
            [statistics.multivariate_normal.logpdf(y, m, c) for m, c in laws], axis=1
        ) + np.log(shares)

    for _ in range(60):
        parts = terms(y)
        responsible = np.exp(parts - np.logaddexp.reduce(parts, axis=1)[:, None])
        responsible *= (weights / weights.mean())[:, None]
        total = responsible.sum(axis=0) + 1e-9
        shares = total / total.sum()
        centres = responsible.T @ y / total[:, None]
        for k in range(COMPONENTS):
            off = y - centres[k]
            covariances[k] = (responsible[:, k] * off.T) @ off / total[k] + 1e-4 * np.eye(6)
    ln_scale = np.log(scale).sum()
    return lambda stars: np.logaddexp.reduce(terms((stars - mean) / scale), axis=1) - ln_scale


def two_samples(
    one: Float[np.ndarray, "n 6"],
    other: Float[np.ndarray, "n 6"],
    weights: Float[np.ndarray, " n"],
    seed: int,
) -> tuple[float, float]:
    """Accuracy on unseen stars of a small network trained to tell two samples apart; its error by chance.

    `weights` of mean one are those of the first sample.
    """
    rng = np.random.default_rng(seed)
    y = np.concatenate([one, other]).astype(np.float32)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    label = np.repeat(np.array([1.0, 0.0], np.float32), [len(one), len(other)])
    w = np.concatenate([weights, np.ones(len(other))]).astype(np.float32)
    order = rng.permutation(len(y))
    half = len(y) // 2
    train, test = order[:half], order[half:]
    net = eqx.nn.MLP(6, "scalar", 64, 2, jax.nn.silu, key=jax.random.key(seed))
    net = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, net)
    weights, static = eqx.partition(net, eqx.is_inexact_array)
    batch, steps = min(512, half), 1000
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-3)
    data, labels, shares = (jnp.asarray(a[train]) for a in (y, label, w))

    def loss(weights: Any, rows: Array) -> Array:
        logit = jax.vmap(eqx.combine(weights, static))(data[rows])
        return jnp.mean(shares[rows] * optax.sigmoid_binary_cross_entropy(logit, labels[rows]))

    @jax.jit
    def fit(weights: Any) -> Any:
        def step(state: Any, key: Array) -> tuple[Any, None]:
            weights, memory = state
            rows = jax.random.randint(key, (batch,), 0, half)
            change, memory = optimizer.update(jax.grad(loss)(weights, rows), memory, weights)
            return (optax.apply_updates(weights, change), memory), None

        keys = jax.random.split(jax.random.key(seed), steps)
        return jax.lax.scan(step, (weights, optimizer.init(weights)), keys)[0][0]

    logit = jax.vmap(eqx.combine(fit(weights), static))(jnp.asarray(y[test]))
    right = (np.asarray(logit) > 0) == (label[test] > 0.5)
    share = w[test] / w[test].sum()
    return float(np.sum(share * right)), float(0.5 * np.sqrt(np.sum(share**2)))
