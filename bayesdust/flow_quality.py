"""Is a flow good? Numbers from the stars that its training did not see.

- Held-out log-likelihood against a Gaussian mixture's, the baseline a flow has to beat.
- PIT: a right flow carries held-out stars to a standard normal law; each base variable's distribution is
  compared with it (Kolmogorov-Smirnov, Bonferroni over the six).
- Classifier two-sample test (Lopez-Paz & Oquab 2017): a network that tells held-out stars from drawn ones
  more often than chance would sees something the flow has not learnt.
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
NAMES = ("x", "y", "z", "v_R", "v_phi", "v_z")


@dataclass(frozen=True)
class Quality:
    """What was measured on `stars` held-out stars, of member 0.

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
        found = []
        if self.gain < 3 * self.gain_error:
            found.append("The flow does no better on held-out stars than a Gaussian mixture.")
        worst = min(self.pit, key=lambda name: self.pit[name])
        if self.pit[worst] < LEVEL / len(self.pit):
            found.append(
                f"Held-out stars are not normal in the base variable of {worst} (largest distance of the "
                f"distribution functions {self.pit_distance[worst]:.3f}, p = {self.pit[worst]:.1g})."
            )
        if self.accuracy > 0.5 + 2.33 * self.accuracy_error:
            found.append(
                f"A classifier tells held-out stars from drawn ones in {self.accuracy:.1%} of cases "
                f"(chance: 50.0 +- {100 * self.accuracy_error:.1f} %)."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"failures": self.failures}


def measure(trained: Trained, stars: MilkyWayStars, seed: int = 0) -> Quality:
    """Judge member 0 by the stars it did not see, weighted ones resampled by their weights."""
    flow = paramax.unwrap(member(trained.flows, 0))
    rng = np.random.default_rng(seed)
    held = trained.held_out
    if stars.weights is not None:  # each star with a chance in proportion: then all count alike
        chance = stars.weights[held] / stars.weights[held].max()
        held = held[rng.random(len(held)) < chance]
    test = held if len(held) <= MOST else rng.choice(held, MOST, replace=False)
    kept = np.setdiff1d(np.arange(stars.n), trained.held_out)
    x, v = (jnp.asarray(a[test], jnp.float32) for a in (stars.x, stars.v))
    ln_f = np.asarray(jax.lax.map(lambda at: flow.log_prob(*at), (x, v), batch_size=2000))
    six = np.concatenate([stars.x, stars.v], axis=1)
    share = None if stars.weights is None else stars.weights[kept] / stars.weights[kept].sum()
    some = rng.choice(kept, min(len(kept), MOST), p=share)
    mixture = gaussian_mixture(six[some], rng)
    gain = ln_f - mixture(six[test])
    z = base_variables(flow, x, v)
    tests = [statistics.kstest(column, "norm") for column in z.T]
    drawn = flow.stars(jax.random.key(seed), len(test))
    accuracy, error = two_samples(
        six[test], np.concatenate([np.asarray(a) for a in drawn], axis=1), seed
    )
    return Quality(
        stars=len(test),
        ln_f=float(ln_f.mean()),
        gain=float(gain.mean()),
        gain_error=float(gain.std() / np.sqrt(len(test))),
        pit={name: float(t.pvalue) for name, t in zip(NAMES, tests, strict=True)},
        pit_distance={name: float(t.statistic) for name, t in zip(NAMES, tests, strict=True)},
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


def gaussian_mixture(stars: Float[np.ndarray, "n 6"], rng: np.random.Generator) -> Any:
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
        total = responsible.sum(axis=0) + 1e-9
        shares = total / total.sum()
        centres = responsible.T @ y / total[:, None]
        for k in range(COMPONENTS):
            off = y - centres[k]
            covariances[k] = (responsible[:, k] * off.T) @ off / total[k] + 1e-4 * np.eye(6)
    ln_scale = np.log(scale).sum()
    return lambda stars: np.logaddexp.reduce(terms((stars - mean) / scale), axis=1) - ln_scale


def two_samples(
    one: Float[np.ndarray, "n 6"], other: Float[np.ndarray, "n 6"], seed: int
) -> tuple[float, float]:
    """Accuracy on unseen stars of a small network trained to tell two samples apart; its error by chance."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([one, other]).astype(np.float32)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    label = np.repeat(np.array([1.0, 0.0], np.float32), [len(one), len(other)])
    order = rng.permutation(len(y))
    half = len(y) // 2
    train, test = order[:half], order[half:]
    net = eqx.nn.MLP(6, "scalar", 64, 2, jax.nn.silu, key=jax.random.key(seed))
    net = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, net)
    weights, static = eqx.partition(net, eqx.is_inexact_array)
    batch, steps = min(512, half), 1000
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-3)
    data, labels = jnp.asarray(y[train]), jnp.asarray(label[train])

    def loss(weights: Any, rows: Array) -> Array:
        logit = jax.vmap(eqx.combine(weights, static))(data[rows])
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logit, labels[rows]))

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
    return float(right.mean()), float(0.5 / np.sqrt(len(test)))
