"""The Milky Way of neural networks: what they are, how they enter the sums, what is kept of them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.dynamics.modes import Modes
from bayesdust.inference import galaxy_neural, galaxy_posterior
from bayesdust.inference.draws import prior_latents
from bayesdust.inference.galaxy_neural import Network
from bayesdust.inference.nuts import Draws
from bayesdust.inference.programs import check, load
from bayesdust.potentials import milky_way_2014
from bayesdust.summary import summarise

POINTS = np.array([[-8.0, 0.0, 0.5], [-6.5, 1.0, -0.3]])
SMALL = {"bump": 1.7, "modes": 60, "dust_modes": 50}
CENTRE, LENGTHS = np.array([-8.0, 0.0, 0.02]), np.array([3.0, 3.0, 0.8])


def network(seed, width=32, layers=2, **more):
    weights = np.random.default_rng(seed).standard_normal(Network.count(width, layers))
    return Network(
        jnp.asarray(weights), CENTRE, jnp.asarray(LENGTHS), width=width, layers=layers, **more
    )


@pytest.fixture(scope="module")
def data(dusty_stars):
    return load("mw_cbe_neural").prepare(dusty_stars, SMALL, POINTS)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_weight_counts(layers):
    """The derivative by each weight is not zero, and those by the last are the hidden units."""
    one = network(0, width=5, layers=layers)

    def value(weights):
        return Network(weights, CENTRE, LENGTHS, width=5, layers=layers)(
            jnp.array([-7.0, 1.0, 0.4])
        )

    slope = np.asarray(jax.grad(value)(one.weights))
    assert np.all(slope != 0)
    last = slope[-5:] @ np.asarray(one.weights)[-5:]
    np.testing.assert_allclose(last, value(one.weights), rtol=1e-12)


def test_lengths_size_and_centre_are_what_they_say():
    one, x = network(1), jnp.array([-7.2, 0.8, 0.3])
    wide = Network(one.weights, CENTRE, 2.0 * LENGTHS, 7.0)
    np.testing.assert_allclose(wide(CENTRE + 2 * (x - CENTRE)), 7.0 * one(x), rtol=1e-12)
    # of sd below one at the centre (tanh is), and no constant: the wrong size is 30 % off
    values = np.array([network(seed)(x) for seed in range(400)])
    error = 1 / np.sqrt(2 * len(values))
    assert 0.4 < values.std() < 1 + 3 * error
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))


def test_a_field_that_the_modes_hold_is_found_again():
    """(1), for fields drawn from the process itself: to the error of its mean, and no more."""
    modes = Modes.covering(CENTRE, 4.0, LENGTHS, 300)
    asked = galaxy_neural._in_ball(CENTRE, 4.0)
    assert np.all(np.linalg.norm(asked - CENTRE, axis=1) < 4.0)
    smooth = galaxy_neural._smoother(modes, LENGTHS, asked)
    phi = np.asarray(jax.vmap(modes.values)(jnp.asarray(asked)))
    S = np.asarray(modes.variances(1.0, LENGTHS))
    b = np.sqrt(S) * np.random.default_rng(2).standard_normal((20, len(S)))
    found = phi @ smooth @ (phi @ b.T)
    left = np.sqrt(np.mean((found - phi @ b.T) ** 2))
    assert left < galaxy_neural.NOISE
    # what is finer than the modes is not: a ripple of 0.3 kpc
    ripple = np.sin(2 * np.pi * asked[:, 0] / 0.3)
    assert np.std(phi @ smooth @ ripple) < 0.5 * np.std(ripple)


def white(data, sizes, phi, dust):
    sizes = {name: jnp.asarray(value) for name, value in zip(data.parts, sizes, strict=True)}
    return data.constant + data.design @ galaxy_neural.asked_of(data, sizes, phi, dust)


NOTHING = Network(jnp.zeros(Network.count(32, 2)), CENTRE, LENGTHS)


def test_networks_enter_the_sums_as_the_fields_that_agree_with_them(data):
    """Against the modes' own slopes, for networks and for none."""
    sizes = (1.0, 0.9, 1.1, 1.2, 1.0, 0.1, -0.1, 0.2, 0.0)
    alone = white(data, sizes, NOTHING, NOTHING)
    np.testing.assert_allclose(
        alone, data.constant + data.slopes[:, : len(sizes)] @ np.array(sizes)
    )
    phi, dust = network(3, size=30.0), network(4, size=0.1)
    b = np.concatenate(
        [
            sizes,
            data.smooth @ np.asarray(jax.vmap(phi)(data.asked)),
            data.smooth_dust @ np.asarray(jax.vmap(dust)(data.asked)),
        ]
    )
    found = white(data, sizes, phi, dust)
    np.testing.assert_allclose(found, data.constant + data.slopes @ b, rtol=1e-8, atol=1e-8)
    assert np.max(abs(found - alone)) > 0.1
    values = galaxy_neural.asked_of(data, dict(zip(data.parts, sizes, strict=True)), phi, dust)
    assert float(data.tilt @ values) == pytest.approx(float(data.pull @ b))


def test_likelihood_knows_the_truth_from_a_wrong_force(data):
    """Sizes close to MWPotential2014's against discs of half the mass, networks of zero."""
    check(load("mw_cbe_neural"), data)

    def chi2(disc):
        sizes = (0.74, disc, disc, disc, 1.0, 0.0, 0.0, 0.0, 0.0)
        left = white(data, sizes, NOTHING, NOTHING)
        return float(jnp.sum(left[: data.number] ** 2))

    best = min(chi2(disc) for disc in np.linspace(0.9, 1.5, 13))
    assert best < data.number + 5 * np.sqrt(2 * data.number)
    assert chi2(0.5) > best + 100


def test_weights_are_kept_out_of_the_posterior(data, dusty_stars):
    program = load("mw_cbe_neural")
    z = {name: value[:, :20] for name, value in prior_latents(program.model, data, 0).items()}
    stats = {"diverging": np.zeros((1, 20), dtype=bool)}
    tree = galaxy_posterior.assemble(program, dusty_stars, data, Draws(z, stats), 0, "nuts")
    assert tree["weights"]["weights_phi"].shape == (1, 20, Network.count(32, 2))
    assert not [
        name for group in ("posterior", "prior") for name in tree[group] if "weights" in name
    ]
    assert "weights_phi" not in json.loads(tree.attrs["parameters"])
    assert {"acceleration", "rho_dm_sun", "v_circ", "phi"} <= set(tree["posterior"].data_vars)
    for name, variable in tree["posterior"].data_vars.items():
        assert {"units", "long_name"} <= set(variable.attrs), name
    assert {"ln_sigma", "rho_dm_sun", "acceleration[az,1]"} <= set(summarise(tree)["name"])


def test_epsilon_of_the_field_and_none_in_the_prior(data, dusty_stars):
    """The map's draws times exp of the field, at most one; the map is no prior."""
    program, number = load("mw_cbe_neural"), 20
    mapped = np.linspace(0.3, 0.9, 8)[:, None] * np.ones(len(POINTS))
    free = dataclasses.replace(data, options=data.options | {"efficiency": "free"}, epsilon=mapped)
    z = {name: value[:, :number] for name, value in prior_latents(program.model, free, 0).items()}
    stats = {"diverging": np.zeros((1, number), dtype=bool)}
    tree = galaxy_posterior.assemble(program, dusty_stars, free, Draws(z, stats), 0, "nuts")
    epsilon = tree["posterior"]["epsilon"].values
    assert epsilon.shape == (1, number, len(POINTS))
    assert np.all((epsilon > 0) & (epsilon <= 1))
    assert not np.isin(epsilon, mapped).any()  # the field is in it
    for group in ("posterior", "prior"):
        assert "ln_epsilon" not in tree[group]
    assert "epsilon" not in tree["prior"]
    assert "Force and gradient of ln epsilon are correlated" in tree.attrs["notes"]


def test_short_chains_leave_the_prior_for_the_truth(dusty_stars):
    """NUTS over the weights: the sums are fitted, and the force found, where the prior knows neither."""
    program = load("mw_cbe_neural")
    tree = galaxy_posterior.fit(
        program,
        dusty_stars,
        POINTS,
        options=SMALL,
        num_chains=1,
        num_warmup=120,
        num_draws=40,
        seed=1,
    )
    posterior, dof = tree["posterior"], tree.attrs["chi2_dof"]
    limit = dof + 5 * np.sqrt(2 * dof)
    assert float(posterior["chi2"].median()) < limit
    assert float(tree["prior"]["chi2"].median()) > 2 * limit
    truth = np.asarray(jax.vmap(milky_way_2014().acceleration)(POINTS))
    off = posterior["acceleration"].mean(("chain", "draw")).values - truth
    assert np.max(abs(off[:, 0] / truth[:, 0])) < 0.1
    before = tree["prior"]["acceleration"].std(("chain", "draw")).values
    assert np.all(before[:, 0] > 0.2 * abs(truth[:, 0]))
    assert "close to axisymmetry" in tree.attrs["notes"]
