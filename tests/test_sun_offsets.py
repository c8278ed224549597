"""The sums' slopes in the Sun's place and motion: finite differences, and what they do to a force."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from bayesdust.dynamics.sun_offsets import COVARIANCE, slopes
from bayesdust.dynamics.weak_form import Bumps, Pilot, Sample, moments, two_forces
from bayesdust.inference import galaxy
from bayesdust.potentials import milky_way_2014

TRUTH = milky_way_2014()
FORCES = two_forces(TRUTH.acceleration)


def test_slopes_are_finite_differences(dusty_stars):
    tests = Bumps.inside(np.asarray(dusty_stars.centre), 3.9, -220.0, width=1.7)
    x, v = dusty_stars.x[:300], dusty_stars.v[:300]
    found = slopes(tests, Sample.of(x, v), Pilot(TRUTH.acceleration))

    def sums(dx, dv):
        return np.asarray(moments(tests, Sample.of(x + dx, v + dv), FORCES).sums(jnp.ones(2)))

    def difference(axis, place, h):
        step = h * axis
        if place:
            return (sums(step, 0.0) - sums(-step, 0.0)) / (2 * h)
        return (sums(0.0, step) - sums(0.0, -step)) / (2 * h)

    ways = (
        (np.array([-1.0, 0, 0]), True),
        (np.array([0, 0, 1.0]), True),
        *((a, False) for a in np.eye(3)),
    )
    for column, (axis, place) in zip(found.T, ways, strict=True):
        coarse, fine = (difference(axis, place, h) for h in (2e-3, 1e-3))
        # Richardson: the error of the finer is a third of their difference, to the next order
        error = np.max(abs(coarse - fine)) + 1e-9 * np.max(abs(fine))
        assert np.max(abs(column - fine)) < error


@pytest.mark.slow
def test_the_sun_widens_what_it_moves(dusty_stars):
    """The horizontal force's sd grows by what the offsets, one sd each, move the force by itself."""

    def size(stars, sun):
        data = galaxy.prepare(stars, {"bump": 1.7, "sun": sun})
        both = data.design @ np.array([np.asarray(data.nodes.values(p)) for p in _parts()]).T
        information = both.T @ both
        found = -np.linalg.solve(information, both.T @ data.target)
        return found[0], np.sqrt(np.linalg.inv(information)[0, 0])

    moved = []
    for shift in (-1, 1):
        stars = dataclasses.replace(
            dusty_stars, v=dusty_stars.v + shift * np.array([0.0, 6.0, 0.0])
        )
        moved.append(size(stars, "fixed")[0])
    by_motion = (moved[1] - moved[0]) / 12.0 * np.sqrt(COVARIANCE[3, 3])
    (_, fixed), (_, wide) = (size(dusty_stars, sun) for sun in ("fixed", "uncertain"))
    grown = np.sqrt(wide**2 - fixed**2)
    assert abs(by_motion) > 0.1 * fixed  # else there is nothing to be seen
    # the other offsets add their part, and what a force gains in error it loses in weight
    assert 0.7 < grown / abs(by_motion) < 1.6


def _parts():
    """MWPotential2014 with the horizontal or the vertical force alone."""

    class Part:
        def __init__(self, keep):
            self.keep = jnp.array(keep)

        def acceleration(self, x):
            return self.keep * TRUTH.acceleration(x)

    return Part([1.0, 1.0, 0.0]), Part([0.0, 0.0, 1.0])


def test_the_sun_is_uncertain_where_coordinates_need_it(dusty_stars):
    def chosen(stars, **given):
        return galaxy.options_of(given, stars, galaxy.OPTIONS, galaxy.CHOICES)["sun"]

    assert chosen(dusty_stars) == "fixed"
    assert chosen(dusty_stars, sun="uncertain") == "uncertain"
    assert (
        chosen(dataclasses.replace(dusty_stars, observed=SimpleNamespace(errors=None)))
        == "uncertain"
    )
