"""What draws of a Milky Way say of themselves: against exact normal laws, and with what must be told."""

import numpy as np
import pytest

from bayesdust.inference.galaxy_data import HEIGHTS
from bayesdust.inference.galaxy_notes import correlation, largest_rise, notes


class Nothing:
    """Data of no dust."""

    dust = None
    points = np.array([[-8.0, 0.0, 0.5], [-6.0, 2.0, 0.0]])
    sun = np.array([-8.122, 0.0, 0.0])


def test_correlation_of_force_and_map_is_that_of_the_joint_posterior():
    """s = F a + N w + e with all normal: a is drawn with w integrated out, as the models do."""
    rng = np.random.default_rng(4)
    sums, forces, maps, number = 30, 3, 20, 100_000
    F, N = rng.normal(size=(sums, forces)), 0.4 * rng.normal(size=(sums, maps))
    by_map = rng.normal(size=(maps, 1, 3))
    off = (by_map - by_map.mean(axis=0))[:, 0] / np.sqrt(maps)  # of g = w @ off
    s = F @ rng.normal(size=forces) + N @ rng.normal(size=maps) + rng.normal(size=sums)
    both = np.hstack([F, N])
    joint = np.linalg.inv(both.T @ both + np.eye(forces + maps))
    wanted = joint[:forces, forces:] @ off / np.sqrt(np.diag(joint)[:forces, None])
    wanted = np.diag(wanted) / np.sqrt(np.sum(off**2, axis=0))

    root = np.linalg.cholesky(np.eye(sums) + N @ N.T)
    design, shifts, constant = (np.linalg.solve(root, x) for x in (F, N, -s))
    cov = np.linalg.inv(design.T @ design + np.eye(forces))
    a = rng.multivariate_normal(-cov @ design.T @ constant, cov, size=number)
    answer = -(a @ design.T + constant) @ shifts  # the sums are what is seen less what is foretold
    found = correlation(a[:, None], None, answer, by_map)[0][0]
    error = 1 / np.sqrt(number)
    np.testing.assert_allclose(found, wanted, atol=4 * error)
    assert np.max(abs(wanted)) > 40 * error  # the sign the other way round is seen
    # a field beside it: of its own alone, and with the map's
    field = a[:, None] + 2 * a.std(axis=0) * rng.normal(size=(number, 1, 3))
    np.testing.assert_allclose(correlation(a[:, None], field)[0], 1 / np.sqrt(5), atol=4 * error)
    together, sd = correlation(a[:, None], field, 0 * answer, by_map)
    assert np.all(together < 0.44)
    alone = np.sqrt(np.var(field, axis=0) + np.sum(off**2, axis=0))
    np.testing.assert_allclose(sd, alone, rtol=1e-10)


def test_rises_of_right_posteriors_are_small():
    """The density falls, and its draws scatter smoothly about a mean that is off as they say."""
    rng = np.random.default_rng(1)
    z = HEIGHTS
    truth = 0.08 * np.exp(-z / 0.3) + 0.008
    kernel = 0.01**2 * np.exp(-0.5 * (z[:, None] - z) ** 2 / 0.4**2) + 1e-12 * np.eye(len(z))
    centres = rng.multivariate_normal(truth, kernel, size=400)
    draws = rng.multivariate_normal(0 * truth, kernel, size=1000)
    sizes = [largest_rise(centre + draws)[0] for centre in centres]
    assert np.mean(np.array(sizes) > 3.0) < 0.01 + 3 * np.sqrt(0.01 / 400)
    wave = truth + 0.03 * np.sin(2 * np.pi * z / 0.8)
    size, low, high = largest_rise(wave + draws)
    assert size > 3.0
    crest = 0.6 if z[low] < 1.2 else 1.4  # kpc, where the wave begins to rise
    assert crest - 0.05 <= z[low] < z[high] <= crest + 0.45
    (sentence,) = notes(Nothing(), {"rho_z": wave + draws}, {}, None, None)
    assert "the potential oscillates" in sentence
    assert notes(Nothing(), {"rho_z": truth + draws}, {}, None, None) == ()


def test_baryons_and_density_below_zero_are_told():
    rng = np.random.default_rng(2)
    baryons, all_mass = 0.084 + 0.013 * rng.normal(size=4000), 0.094 + 0.013 * rng.normal(size=4000)
    draws = {"rho_baryons_sun_msun_pc3": baryons, "rho_dm_sun_msun_pc3": all_mass - baryons}
    (sentence,) = notes(Nothing(), draws, {}, None, None)
    share = float(sentence.split("is ")[1].split("%")[0]) / 100
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4000) + 0.005)
    rho = np.array([1.0, -5.0]) + rng.normal(size=(4000, 2))
    assert "At 1 of 2 points 97.5 %" in notes(Nothing(), {"rho": rho}, {}, None, None)[0]
    assert notes(Nothing(), {"rho": abs(rho)}, {}, None, None) == ()
    assert notes(Nothing(), {"rho": rho[:, :0]}, {}, None, None) == ()


def test_an_axisymmetric_prior_is_told():
    rng = np.random.default_rng(3)
    inward, along = Nothing.points / 8.0, np.array([[0.0, -1.0, 0.0], [-2.0, -6.0, 0.0]])
    along /= np.linalg.norm(along, axis=1)[:, None]

    def prior(sd):
        shift = sd * rng.normal(size=(2000, 1, 1)) * along
        return {"acceleration": (-6000 + 2000 * rng.normal(size=(2000, 1, 1))) * inward + shift}

    (sentence,) = notes(Nothing(), {}, prior(30.0), None, None)
    assert "at 0 +- 30 (km/s)^2/kpc" in sentence or "at 0 +- 31" in sentence or "+- 29" in sentence
    assert notes(Nothing(), {}, prior(300.0), None, None) == ()
    assert "is axisymmetric" in notes(Nothing(), {}, prior(0.0), None, None)[0]


def test_no_correlation_is_said_to_be_noise():
    """The largest at the points where there is dust, beside what draws of none would show."""
    rng = np.random.default_rng(5)
    a, field = rng.normal(size=(2, 2000, 2, 3))
    field[:, 1] *= 1e-3  # no dust there, and none to be told from a force
    field[:, 0, 2] += 0.5 * a[:, 0, 2]
    (sentence,) = notes(Nothing(), {"acceleration": a}, {}, None, field)
    assert "at the 1 points where" in sentence
    x, y, z = (
        float(word)
        for word in sentence.split("up to ")[1].split(" at the")[0].replace(" and", ",").split(", ")
    )
    assert max(x, y) < 4.5 / np.sqrt(2000)
    assert z == pytest.approx(0.5 / np.sqrt(1.25), abs=0.05)
    # the median of |r| of 2,000 draws without correlation
    assert sentence.endswith(f"{0.6745 / np.sqrt(2000):.2f}.")
    assert notes(Nothing(), {"acceleration": a}, {}, None, 1e-3 * field) == ()
