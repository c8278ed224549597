"""Forces from flows as a likelihood: its covariance on draws of a known one, and the whole way once."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from quick_galaxy import POTENTIAL
from scipy import stats

from bayesdust.disc_mocks import SURVEY
from bayesdust.dynamics.force_nodes import ForceNodes
from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import Architecture
from bayesdust.flows.training import Schedule
from bayesdust.inference.flow_likelihood import (
    Cells,
    FlowForces,
    flow_forces,
    flow_likelihood,
    shrunk,
)

M, P = 30, 8


@pytest.fixture(scope="module")
def cells():
    x = np.array(SURVEY.centre) + np.random.default_rng(1).normal(size=(60, 3)) * [1.0, 1.0, 0.5]
    return Cells.of(x)


def correlated(rng, m):
    """Draws (m, P) of a normal law whose neighbours are correlated by 0.6 and whose sd grow."""
    C = 0.6 ** np.abs(np.subtract.outer(np.arange(P), np.arange(P)))
    return rng.normal(size=(m, P)) @ np.linalg.cholesky(C).T * np.arange(1, P + 1)


def test_cells_are_means_of_the_radial_force_and_of_that_towards_the_plane(cells):
    a = np.random.default_rng(2).normal(size=(60, 3))
    found = np.asarray(cells(jnp.asarray(a)))
    R, z = np.hypot(cells.x[:, 0], cells.x[:, 1]), cells.x[:, 2]
    inner, top = np.argsort(R)[:20], np.argsort(abs(z))[-12:]
    radial = (a[:, 0] * cells.x[:, 0] + a[:, 1] * cells.x[:, 1]) / R
    assert cells.number == P
    assert found[0] == pytest.approx(radial[inner].mean())
    assert found[-1] == pytest.approx(np.mean(-a[top, 2] * np.sign(z[top])))
    true = np.asarray(cells(jax.vmap(POTENTIAL.acceleration)(jnp.asarray(cells.x))))
    assert (true[:3] < 0).all()
    assert (true[3:] > 0).all()


def test_shrinking_brings_a_covariance_nearer_to_the_truth():
    """In the mean over ensembles; of many members nothing is left to be shrunk."""
    rng = np.random.default_rng(3)
    size = np.arange(1, P + 1)
    truth = 0.6 ** np.abs(np.subtract.outer(np.arange(P), np.arange(P)))
    gain = []
    for _ in range(200):
        samples = correlated(rng, M) / size
        off = [np.sum((C - truth) ** 2) for C in (shrunk(samples)[0], np.cov(samples.T))]
        gain.append(off[1] - off[0])
    assert np.mean(gain) > 3 * np.std(gain) / np.sqrt(len(gain))
    assert 0.03 < shrunk(correlated(rng, M))[1] < 0.5
    assert shrunk(correlated(rng, 20_000))[1] < 0.01


def test_the_likelihood_covers_as_it_says_and_a_normal_one_does_not(cells):
    """One size of known shape, its posterior's 95 % intervals by (1) and by exp(-chi2/2): 1,500 ensembles."""
    rng, draws = np.random.default_rng(4), 1500
    shape, sizes = np.ones(P), np.linspace(-6, 6, 801)
    inside = np.zeros((draws, 2))
    for i in range(draws):
        noise = correlated(rng, M + 1)
        C = np.linalg.inv(np.cov(noise[1:].T))
        normal, best = shape @ C @ shape, shape @ C @ noise[0]
        chi2 = noise[0] @ C @ noise[0] - 2 * sizes * best + sizes**2 * normal
        none = 0 * shape
        forces = FlowForces(cells, noise[0], np.linalg.inv(C), none, none, none, C, 0.0, M, 1)
        student = -forces.power / 2 * np.log1p(chi2 / (M - 1))
        if i == 0:
            ln_L = [float(forces.log_likelihood(jnp.asarray(s * shape))) for s in sizes[::200]]
            np.testing.assert_allclose(ln_L, student[::200], rtol=1e-8)
        for j, ln in enumerate((student, -chi2 / 2)):
            share = np.cumsum(np.exp(ln - ln.max()))
            low, high = np.interp([0.025, 0.975], share / share[-1], sizes)
            inside[i, j] = low < 0 < high
    covered, error = inside.mean(axis=0), np.sqrt(0.95 * 0.05 / draws)
    assert covered[0] == pytest.approx(0.95, abs=4 * error)
    assert covered[1] < 0.95 - 8 * error


def test_the_bias_is_taken_off_and_allowed_for(cells):
    rng = np.random.default_rng(5)
    bootstrap, repeats = correlated(rng, M), 100 + 0.1 * rng.normal(size=(4, P))
    off = np.linspace(-3, 3, P) + 0.2 * rng.normal(size=(4, P))
    found = FlowForces.of(cells, repeats, bootstrap, repeats + off)
    np.testing.assert_allclose(found.values, (repeats - off).mean(axis=0))
    np.testing.assert_allclose(found.bias_error, off.std(axis=0, ddof=1) / 2)
    more = found.covariance - found.scatter
    np.testing.assert_allclose(
        more, np.outer(found.bias, found.bias) + np.cov(off.T) / 4, atol=1e-12
    )
    plain = found.without_bias()
    np.testing.assert_allclose(plain.values, repeats.mean(axis=0))
    # the truth a bias away: what a bootstrap alone has to reject is within the errors of the whole
    assert float(plain.chi2(found.values)) > 2 * float(found.chi2(found.values + found.bias))


def test_what_errors_do_is_taken_off(cells):
    rng = np.random.default_rng(8)
    bootstrap, repeats = correlated(rng, M), 100 + 0.1 * rng.normal(size=(4, P))
    noisier = repeats.mean(axis=0) + 3.0 + 0.2 * rng.normal(size=(4, P))
    plain = FlowForces.of(cells, repeats, bootstrap, repeats)
    found = FlowForces.of(cells, repeats, bootstrap, repeats, noisier)
    np.testing.assert_allclose(found.values, 2 * repeats.mean(axis=0) - noisier.mean(axis=0))
    more = found.covariance - plain.covariance
    np.testing.assert_allclose(more, np.cov(noisier.T) / 4 + np.cov(repeats.T) / 4, atol=1e-12)
    assert not plain.blur.any()


def test_the_factor_of_a_model_is_the_likelihood(cells):
    rng = np.random.default_rng(6)
    true = np.asarray(cells(jax.vmap(POTENTIAL.acceleration)(jnp.asarray(cells.x))))
    repeats = true + 10 * rng.normal(size=(3, P))
    forces = FlowForces.of(cells, repeats, 40 * correlated(rng, M), repeats + 1.0)

    def model():
        numpyro.deterministic("nothing", jnp.zeros(()))
        flow_likelihood(forces, POTENTIAL)

    total, _ = log_density(model, (), {}, {})
    assert float(total) == pytest.approx(float(forces.log_likelihood(jnp.asarray(true))))
    nodes = ForceNodes.covering(np.array(SURVEY.centre), SURVEY.radius)
    quick = cells.through(nodes) @ np.asarray(nodes.values(POTENTIAL))
    # interpolation of the force is good to 1.5e-3 of |a|, some 6,000 (km/s)^2/kpc
    np.testing.assert_allclose(quick, true, atol=10.0)
    by_nodes = jax.jit(
        lambda: log_density(lambda: flow_likelihood(forces, POTENTIAL, nodes), (), {}, {})[0]
    )()
    assert float(by_nodes) == pytest.approx(float(forces.log_likelihood(jnp.asarray(quick))))
    trace = handlers.trace(model).get_trace()
    # chi2 of P numbers whose errors are much smaller than allowed for
    assert float(trace["flow_chi2"]["value"]) < stats.chi2(P).ppf(0.05)


def test_the_whole_way():
    """Small flows of few stars: a likelihood comes out, of values that a bias was taken off."""
    rng = np.random.default_rng(7)
    x = np.array(SURVEY.centre) + rng.normal(size=(600, 3)) * [1.0, 1.0, 0.4]
    v = np.array([0.0, 220.0, 0.0]) + rng.normal(size=(600, 3)) * 40
    build = Architecture.for_stars(x, v, SURVEY.centre, 8.0, layers=1, widths=(8, 8))
    phases, copies = (
        [],
        (
            np.stack([x + 0.1, x - 0.1]),
            np.stack([v + 5.0, v - 5.0]),
            rng.uniform(1, 2, (2, 600)),
        ),
    )
    found = flow_forces(
        x, v, build, Cells.of(x[:20], rings=1, layers=1), weights=rng.uniform(1, 2, 600), members=12,
        repeats=2, velocities=16, noisier=copies, schedule=Schedule(epochs=1, batch=200),
        on_progress=lambda done, total, phase: phases.append(phase),
    )  # fmt: skip
    assert (np.linalg.eigvalsh(found.scatter) > 0).all()
    assert (found.bias != 0).all()
    assert (found.blur != 0).all()
    assert np.isfinite(float(found.log_likelihood(jnp.zeros(2))))
    stages = ("first", "iterated", "noisier")
    assert {f"{stage} flows, training" for stage in stages} <= set(phases)


def test_what_cannot_be_done_is_refused(cells):
    rng = np.random.default_rng(8)
    with pytest.raises(BayesdustError, match="needs 24 or more"):
        FlowForces.of(cells, np.ones((2, P)), correlated(rng, 20), np.ones((2, P)))
    with pytest.raises(BayesdustError, match="two repeats or more"):
        FlowForces.of(cells, np.ones((1, P)), correlated(rng, M), np.ones((1, P)))
    with pytest.raises(BayesdustError, match="2 places do not fill"):
        Cells.of(np.ones((2, 3)))
    build = Architecture.for_stars(cells.x, cells.x + rng.normal(size=(60, 3)), SURVEY.centre, 9.0)
    with pytest.raises(BayesdustError, match="8 numbers need 24"):
        flow_forces(cells.x, cells.x, build, cells, members=20)
