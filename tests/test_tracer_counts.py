"""The counts of stars behind dust: the integral over the ball, and what the counts tell."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from bayesdust.dusty_mocks import LuminosityFunction, clouds, dusty_survey
from bayesdust.dynamics import dust_fit
from bayesdust.dynamics.dust_fit import fit_dust
from bayesdust.dynamics.efficiency import mean_of_patches, modulus, patches
from bayesdust.dynamics.sky_parts import Sky
from bayesdust.dynamics.tracer_counts import (
    HEIGHTS,
    TILTS,
    WAYS,
    Nodes,
    Region,
    disc_energy,
    disc_features,
    first_disc,
    way_weights,
)

SUN = np.array([-8.122, 0.0, 0.0208])
AROUND = Region(SUN, SUN, 4.0)
KNOTS = dust_fit._knots(4.0)


def exponential(height, length):
    """Coefficients of ln n = -|z|/height - (R - R_sun)/length."""
    return np.concatenate([-HEIGHTS / height, np.full(len(TILTS), -1 / length), [0.0]])


@pytest.fixture(scope="module")
def sky():
    offsets = np.random.default_rng(1).normal(size=(20_000, 3)) * np.array([2.0, 2.0, 0.5])
    return Sky.of(offsets, 9)


def test_bounds_are_those_of_the_parts(sky):
    """They cover the sky once, and what lies within them is of their part."""
    low, high = np.moveaxis(sky.bounds, -1, 0)
    assert np.sum(np.prod(high - low, axis=1)) == pytest.approx(4 * np.pi)
    share = np.random.default_rng(2).uniform(size=low.shape)
    longitude, sine = (low + share * (high - low)).T
    cosine = np.sqrt(1 - sine**2)
    ray = np.column_stack([cosine * np.cos(longitude), cosine * np.sin(longitude), sine])
    np.testing.assert_array_equal(sky.cell(ray), np.arange(sky.cells))
    tied = Sky.of(np.repeat(ray[:2], 20, axis=0), 4)  # of which most parts are empty
    assert np.sum(np.prod(np.diff(tied.bounds)[..., 0], axis=1)) == pytest.approx(4 * np.pi)


@pytest.mark.parametrize(
    "region",
    [
        AROUND,
        Region(SUN, SUN + np.array([1.0, -0.5, 0.3]), 3.0),
        Region(SUN, SUN + np.array([-2.0, 0.0, 0.0]), 1.5),
    ],
    ids=["about the Sun", "aside", "without the Sun"],
)
def test_a_disc_is_counted(sky, region):
    """Against quadrature in rings about the axis that goes through the ball's centre."""
    height, length = 0.4, 2.5

    def slab(z):
        """Integral over the circle of the ball at z, of exp(-R/length) in rings about its centre."""
        size = np.sqrt(max(region.radius**2 - (z - region.centre[2]) ** 2, 0.0))
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)

        def ring(r):
            x = region.centre[0] + r * np.cos(angle)
            R = np.hypot(x, region.centre[1] + r * np.sin(angle)) - np.hypot(*SUN[:2])
            return 2 * np.pi * r * np.mean(np.exp(-R / length))

        return np.exp(-abs(z) / height) * quad(ring, 0, size)[0]

    low, high = region.centre[2] + region.radius * np.array([-1, 1])
    exact = quad(slab, low, high, points=[0.0], limit=200)[0]
    nodes = Nodes.of(sky, KNOTS, region, (99.0, np.inf))
    found = float(jnp.sum(jnp.exp(nodes.ln_stars(jnp.asarray(exponential(height, length))))))
    # the edge of a ball that is not the Sun's is taken where the middle of each part has it
    assert found == pytest.approx(exact, rel=2e-3 if region is AROUND else 2e-2)


@pytest.mark.parametrize(("levels", "least"), [(3, 0.97), (5, 0.98)])
def test_few_parts_count_as_many(sky, levels, least):
    """A disc 0.25 kpc thick in parts that a few hundred stars make, each against the finest parts in it."""
    disc = jnp.asarray(exponential(0.25, 2.5))
    coarse = replace(
        sky, axis=sky.axis[: 2**levels - 1], edge=sky.edge[: 2**levels - 1], levels=levels
    )
    found, fine = (
        np.asarray(
            jnp.sum(jnp.exp(Nodes.of(s, KNOTS, AROUND, (99.0, np.inf)).ln_stars(disc)), axis=1)
        )
        for s in (coarse, sky)
    )
    ratio = found / fine.reshape(coarse.cells, -1).sum(axis=1)
    assert least < ratio.min()
    assert ratio.max() < 2 - least


def test_rays_through_a_ball():
    region = Region(SUN, SUN + np.array([3.0, 0.0, 0.0]), 2.0)
    rays = np.array([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0], [0.8, 0.6, 0]])
    half = np.sqrt(4 - 1.8**2)  # of a ray that passes the centre at 1.8 kpc
    enter, leave = region.through(rays)
    np.testing.assert_allclose(enter[[0, 1, 3]], [1.0, 0.0, 2.4 - half])
    np.testing.assert_allclose(leave[[0, 1, 3]], [5.0, 0.0, 2.4 + half])
    assert enter[2] == leave[2]
    assert region.farthest == 5.0


def test_steps_go_on_to_the_far_end_of_the_ball():
    """One for the usual ball, and not hundreds where one star lies at 400 kpc."""
    for farthest, more in ((1.0, 1), (4.0, 1), (6.0, 3), (400.0, 26)):
        knots = dust_fit._knots(farthest)
        assert len(knots) == len(dust_fit.KNOTS) + more
        assert np.all(np.diff(knots) > 0)
        assert farthest < knots[-1] <= max(farthest, dust_fit.KNOTS[-1]) * 1.001


def test_the_first_disc_has_the_stars(sky):
    nodes = Nodes.of(sky, KNOTS, AROUND, (99.0, np.inf))
    disc = jnp.asarray(first_disc(nodes, 1234))
    assert float(jnp.sum(jnp.exp(nodes.ln_stars(disc)))) == pytest.approx(1234)
    assert float(disc_energy(disc)) == pytest.approx(0.0, abs=1e-20)
    assert float(disc_energy(disc.at[3].add(1.0))) > 1


def test_features_and_ways_are_linear_between_their_knots():
    x = np.array([[-6.0, 0.0, 0.45], [0.0, 9.0, -3.0], [-8.0, 1.0, 6.0]])
    R = np.hypot(*x[:, :2].T) - np.hypot(*SUN[:2])
    coefficients = np.concatenate([HEIGHTS**2, TILTS**3, [0.7]])
    f = np.interp(abs(x[:, 2]), HEIGHTS, HEIGHTS**2)
    f[2] = HEIGHTS[-1] ** 2 + (6 - HEIGHTS[-1]) * (HEIGHTS[-1] + HEIGHTS[-2])  # straight on
    g = np.interp(abs(x[:, 2]), TILTS, TILTS**3)
    g[2] = TILTS[-1] ** 3 + (6 - TILTS[-1]) * (TILTS[-1] ** 3 - TILTS[-2] ** 3) / (
        TILTS[-1] - TILTS[-2]
    )
    np.testing.assert_allclose(disc_features(x, SUN) @ coefficients, f + g * R + 0.7 * R**2)
    there = np.array([0.1, 1.0, 2.5, 9.0])
    np.testing.assert_allclose(way_weights(there) @ WAYS**2, np.interp(there, WAYS, WAYS**2))


def hasty(survey, steps, **more):
    """A fit of a few steps: the map, and the posterior, the stars and the point that it stopped at."""
    kept, normal_law = {}, dust_fit._normal_law

    def keep(posterior, start, seen, *rest):
        p, scatter = normal_law(posterior, start, seen, *rest)
        kept.update(posterior=posterior, seen=seen, p=p)
        return p, scatter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dust_fit, "FIRST", (steps,))
        patch.setattr(dust_fit, "_normal_law", keep)
        dust = fit_dust(survey.x, survey.G, survey.limit, AROUND, rounds=(), draws=1, **more)
    return dust, kept["posterior"], kept["seen"], kept["p"]


def test_as_many_stars_as_are_seen():
    """The slope of ln L with ln n is their number less the integral of (2), written out here; without the
    dust that is another."""
    dust, posterior, seen, p = hasty(dusty_survey(20_000, seed=5), 10)
    nodes, u = seen[1], posterior.walk.fields(p.deltas)
    n, tables = np.exp(nodes.ln_stars(p.disc)), dust.luminosity.tables(p.ln_phi)
    arms = np.einsum("cgw,cw->cg", nodes.ways, posterior.departures(u))
    extinction = np.einsum("cgk,ck->cg", nodes.shares, posterior.steps(u))

    def number(A):
        below = nodes.faintest - patches(jnp.asarray(A), p.patchiness)
        share = mean_of_patches(dust.luminosity.at(tables[1], below))
        return float(np.sum(n * np.exp(share + arms)))

    slope = jax.grad(lambda disc: posterior.ln_likelihood(tables, p._replace(disc=disc), seen, u))(
        p.disc
    )
    every = float(slope[: len(HEIGHTS)].sum())  # of f at all its knots: of ln n
    assert every == pytest.approx(20_000 - number(extinction), abs=1e-6 * 20_000)
    assert number(0 * extinction) > 1.2 * number(extinction)


@pytest.mark.parametrize("counts", [True, False])
def test_without_counts_the_disc_says_nothing(counts):
    _, posterior, seen, p = hasty(dusty_survey(1000, seed=6), 1, counts=counts)
    u, tables = posterior.walk.fields(p.deltas), posterior.luminosity.tables(p.ln_phi)
    noise = np.random.default_rng(7).normal(size=len(p.disc))
    here, there = (
        float(posterior.ln_likelihood(tables, p._replace(disc=disc), seen, u))
        for disc in (p.disc, p.disc + 0.1 * noise)
    )
    assert abs(there - here) > 1 if counts else there == here


@pytest.mark.slow
def test_counts_tell_of_dust_that_magnitudes_do_not():
    """Giants without a clump on a branch of one slope: (1) of `dust_posterior` is the same behind any dust.

    What is found is better than one efficiency for all, and than the truth of other clouds.
    """
    luminosity = LuminosityFunction(clump=0.0)
    survey = dusty_survey(12_800, seed=3, luminosity=luminosity)
    dust = fit_dust(survey.x, survey.G, survey.limit, AROUND)
    rng = np.random.default_rng(4)
    there = rng.uniform(-2.5, 2.5, (2000, 3)) * np.array([1.0, 1.0, 0.1])
    truth, found = survey.efficiency(there + SUN), dust.efficiency(there)
    others = replace(survey, dust=clouds(99)).efficiency(there + SUN)
    clear = luminosity.share(survey.limit - modulus(np.linalg.norm(there, axis=1)))
    off = [np.sqrt(np.mean((e - truth) ** 2)) for e in (found, truth.mean(), others, clear)]
    assert off[0] < 0.8 * min(off[1:])
