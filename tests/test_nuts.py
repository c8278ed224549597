"""NUTS in segments: right, resumable to the last digit, and the same in one thread and in two."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.inference import nuts
from bayesdust.inference.nuts import Plan, cores, latent_sites, run_nuts

DATA = np.random.default_rng(0).normal(3.0, 2.0, 50)
SIZES = {"num_warmup": 200, "num_draws": 250, "num_chains": 3, "seed": 5}


def model(data):
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0).expand([1]))
    numpyro.sample("y", dist.Normal(mean, scale[0]), obs=data)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Stop:
    """Stands in for the user: interrupts when so many transitions are done."""

    def __init__(self, after):
        self.after = after

    def __call__(self, done, total, phase):
        if done >= self.after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def seen():
    return []


@pytest.fixture(scope="module")
def timings():
    return {}


@pytest.fixture(scope="module")
def reference(seen, timings):
    plan = Plan(**SIZES, on_progress=lambda *state: seen.append(state), timings=timings)
    return run_nuts(model, DATA, plan)


def test_shapes_and_statistics(reference):
    assert reference.z["mean"].shape == (3, 250)
    assert reference.z["scale"].shape == (3, 250, 1)
    kinds = {"diverging", "energy", "n_steps", "accept_prob", "step_size", "lp"}
    assert reference.stats.keys() == kinds
    assert {value.shape for value in reference.stats.values()} == {(3, 250)}
    assert reference.stats["diverging"].dtype == bool
    # the step size is that of the warm-up, whatever the draw
    assert (np.ptp(reference.stats["step_size"], axis=1) == 0).all()


def test_draws_follow_the_posterior(reference):
    """Mean and sd against the same by quadrature, within five Monte Carlo errors."""
    mean, ln_scale = np.meshgrid(np.linspace(1, 5, 400), np.linspace(0.2, 1.2, 400), indexing="ij")
    width = np.exp(ln_scale)
    squares = ((DATA[:, None, None] - mean) ** 2).sum(axis=0)
    log_p = -0.5 * squares / width**2 - len(DATA) * ln_scale - mean**2 / 200 - ln_scale**2 / 2
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    for exact, draws in (
        (mean, reference.z["mean"]),
        (ln_scale, reference.z["scale"]),  # unconstrained: its logarithm
    ):
        expected = (p * exact).sum()
        sd = np.sqrt((p * (exact - expected) ** 2).sum())
        assert abs(draws.mean() - expected) < 5 * sd / np.sqrt(300)
        assert abs(draws.std() / sd - 1) < 5 / np.sqrt(2 * 300)


def test_progress_and_times(reference, seen, timings):
    assert seen[0] == (0, 0, "compiling")
    assert seen[1] == (0, 1500, "warm-up")
    assert seen[-1] == (1500, 1500, "sampling")
    done, totals, phases = zip(*seen[1:], strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {1500}
    assert "".join(p[0] for p in phases).lstrip("w").strip("s") == ""  # warm-up, then sampling
    assert timings.keys() == {"compile", "warmup", "sampling"}
    assert all(value > 0 for value in timings.values())


def test_the_same_in_one_thread(reference, monkeypatch):
    monkeypatch.setattr(nuts, "cores", lambda: 1)
    assert_same(reference, run_nuts(model, DATA, Plan(**SIZES)))


@pytest.mark.parametrize("after", [300, 900])  # in warm-up, and in sampling
def test_an_interrupted_run_goes_on_with_the_same_draws(reference, tmp_path, after):
    with pytest.raises(KeyboardInterrupt):
        run_nuts(model, DATA, Plan(**SIZES, checkpoint=tmp_path, on_progress=Stop(after)))
    there = {path.name for path in tmp_path.iterdir()}
    assert after / 100 <= len(there) < 15
    counts = []
    resumed = run_nuts(
        model,
        DATA,
        Plan(**SIZES, checkpoint=tmp_path, on_progress=lambda *state: counts.append(state)),
    )
    assert counts[1][0] == 100 * len(there)
    assert_same(reference, resumed)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz"}


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def damage_empty(path):
    path.write_bytes(b"")


def damage_method(path):
    """A way of compression that nobody knows, in the list at the archive's end."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 77
    path.write_bytes(content)


def damage_foreign(path):
    np.savez(path, **{"z.mean": np.zeros(100), "state.0": np.zeros(3)})


def damage_other_array(path):
    np.savez(path, something=np.zeros(100))


@pytest.mark.parametrize(
    "damage",
    [damage_cut, damage_flip, damage_empty, damage_method, damage_foreign, damage_other_array],
)
def test_a_damaged_segment_is_named(tmp_path, damage):
    state, path = [np.arange(500.0), np.zeros(2, np.uint32)], tmp_path / "chain1-0000.npz"
    draws = nuts.Draws({"mean": np.ones(100)}, {"lp": np.ones(100)})
    nuts._save(path, state, draws)
    chain = nuts._resume(Plan(checkpoint=tmp_path), 1, state)
    assert_same((chain.kept[0].z, chain.kept[0].stats), draws)
    damage(path)
    with pytest.raises(ResumableError) as error:
        nuts._resume(Plan(checkpoint=tmp_path), 1, state)
    assert str(error.value) == f"{path} is damaged: remove that file and repeat the command."


def test_a_failing_chain_stops_the_others(tmp_path, monkeypatch):
    written = []

    def fail(path, *rest):
        written.append(path.name)
        if path.name == "chain1-0000.npz":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(nuts, "_save", fail)
    with pytest.raises(OSError, match="No space left"):
        run_nuts(model, DATA, Plan(**SIZES, checkpoint=tmp_path))
    assert len(written) < 8


def test_all_chains_in_one_program(reference, monkeypatch, tmp_path):
    """As on an accelerator: the same chains but for rounding, resumable too."""
    monkeypatch.setattr(nuts.jax, "default_backend", lambda: "gpu")
    sizes = SIZES | {"num_warmup": 100, "num_draws": 100}
    whole = run_nuts(model, DATA, Plan(**sizes))
    with pytest.raises(KeyboardInterrupt):
        run_nuts(model, DATA, Plan(**sizes, checkpoint=tmp_path, on_progress=Stop(300)))
    assert [path.name for path in tmp_path.iterdir()] == ["chain0-0000.npz"]
    assert_same(whole, run_nuts(model, DATA, Plan(**sizes, checkpoint=tmp_path)))
    assert whole.z["scale"].shape == (3, 100, 1)


def test_nowhere_to_start():
    def impossible(data):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.factor("wall", jnp.where(mean > 1e3, 0.0, -jnp.inf))

    with pytest.raises(BayesdustError, match="finite likelihood"):
        run_nuts(impossible, DATA, Plan(**SIZES))


def test_sites_in_the_order_of_the_model():
    assert latent_sites(model, DATA) == ["mean", "scale"]


def test_segments_are_whole():
    assert Plan(num_warmup=201, num_draws=100).segments == (3, 4)


def test_cores_without_affinity(monkeypatch):
    assert cores() >= 1
    monkeypatch.delattr(nuts.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(nuts.os, "cpu_count", lambda: None)
    assert cores() == 1
