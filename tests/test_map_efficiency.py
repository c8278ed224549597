"""epsilon from a map of the dust: the truncated stars' luminosities, both ratios, and maps that are wrong.

The catalogues are drawn from their own definition: stars evenly in a ball around the Sun behind two clouds,
with a luminosity function whose share is a closed form. Tests by chi2 are made twice: the true map passes
(fails once in a thousand seeds), its mirror image, or no dust at all, fails by far.
"""

import numpy as np
import pytest
from dust_cubes import density_of, write_fits, write_hdf5
from scipy import stats

import bayesdust as bd
from bayesdust.dusty_mocks import SUN, Dust, LuminosityFunction
from bayesdust.dynamics.efficiency import modulus
from bayesdust.dynamics.map_efficiency import TruncatedMagnitudes, epsilon_from_map, map_chi2
from bayesdust.errors import BayesdustError

P_PASS, P_FAIL = 1e-3, 1e-12
LIMIT, CUT, RADIUS = 14.0, 0.98, 3.0
# fainter stars than the cut, so that brightening finds some; and none, as in `dusty_mocks`
DEEP, SHARP = LuminosityFunction(faintest=2.5), LuminosityFunction()
DUST = Dust(
    SUN + np.array([[0.9, 0.5, 0.0], [-1.2, 0.6, 0.1]]), np.array([0.35, 0.5]), np.array([2.3, 1.6])
)


def extinction(offsets, dust=DUST):
    return dust.extinction(offsets + SUN)


def mirrored(offsets):
    return extinction(offsets * [1.0, -1.0, 1.0])


def no_dust(offsets):
    return np.zeros(len(offsets))


def faintest(offsets):
    """limit - mu - A"""
    return LIMIT - modulus(np.linalg.norm(offsets, axis=1)) - extinction(offsets)


def ball(n, radius, rng):
    directions = rng.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * radius * rng.random((n, 1)) ** (1 / 3)


def catalogue(n, light, seed):
    """Offsets (k, 3) and magnitudes (k,) of those of n stars that are seen."""
    rng = np.random.default_rng(seed)
    offsets = ball(n, RADIUS, rng)
    m = light.draw(rng, n) + modulus(np.linalg.norm(offsets, axis=1)) + extinction(offsets)
    return offsets[m < LIMIT], m[m < LIMIT]


@pytest.fixture(scope="module")
def deep():
    return catalogue(120_000, DEEP, seed=1)


@pytest.fixture(scope="module")
def sharp():
    return catalogue(100_000, SHARP, seed=2)


BALL = 0.35  # kpc
SIDE = np.arange(-2.25, 2.3, 0.75)
PLACES = np.stack(np.meshgrid(SIDE, SIDE, [-0.35, 0.35], indexing="ij"), -1).reshape(-1, 3)
AROUND = ball(4000, BALL, np.random.default_rng(0))  # as the stars lie, before the dust


def mean_in_balls(function):
    """The mean of a function of offsets over the ball around every place."""
    return np.array([np.mean(function(place + AROUND)) for place in PLACES])


def p_value(found, wanted, error):
    z = (found - wanted) / error
    return stats.chi2.sf(np.sum(z**2), len(z))


# Luminosities


def test_without_a_limit_the_share_is_the_count():
    M = np.random.default_rng(3).normal(size=400)
    light = TruncatedMagnitudes(M, np.full(400, 99.0))
    assert light.reference == M.max()
    grid = np.linspace(-4, 4, 101)
    wanted = [np.mean(M <= g) for g in grid]
    np.testing.assert_allclose(light.share(grid), wanted, atol=1e-11)


def test_the_product_is_as_written():
    """Star by star from the definition, and with stars that count several times or not at all."""
    rng = np.random.default_rng(4)
    M, L = rng.normal(size=500), rng.normal(0.5, 1.5, size=500)
    M, L = M[M < L], L[M < L]
    counts = rng.poisson(1.0, len(M)).astype(float)
    for weights in (np.ones(len(M)), counts):
        grid = np.linspace(0.0, 3, 31)
        light = TruncatedMagnitudes(M, L)
        risk = [np.sum(weights[(m >= M) & (m <= L)]) for m in M]
        use = (weights > 0) & (light.reference >= M)
        factors = [1 - w / r if u else 1.0 for w, r, u in zip(weights, risk, use, strict=True)]
        wanted = [np.prod(np.array(factors)[g < M]) for g in grid]
        found = light.steps(weights)[light.step(grid)]
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)


def test_the_luminosity_function_is_found(deep):
    """All of it, out of stars of whom most are seen down to their own limit only."""
    offsets, m = deep
    found = epsilon_from_map(offsets, m, extinction, PLACES, LIMIT)
    grid = np.linspace(-0.5, 2.2, 15)
    rng = np.random.default_rng(5)
    light = found.luminosity
    copies = [light.steps(rng.poisson(1.0, len(m)) * 1.0)[light.step(grid)] for _ in range(60)]
    error = np.std(copies, axis=0)
    wanted = DEEP.share(grid)
    # neighbouring shares have errors in common, so each is asked alone, 15 of them
    assert np.max(abs(light.share(grid) - wanted) / error) < stats.norm.isf(P_PASS / 30)
    naive = np.array([np.mean(light.M <= g) for g in grid])  # what is seen is not what is
    assert np.max(abs(naive - wanted) / error) > 20
    assert np.all(error < 0.03)


# The ratios


def test_the_ratio_of_brightened_stars(deep):
    """(1): where the catalogue is complete the ratio is S(cut - A)/S(cut), in the ball's mean."""
    offsets, m = deep
    wanted = mean_in_balls(lambda x: DEEP.share(CUT - extinction(x)) / DEEP.share(np.array([CUT])))
    for map_, passes in ((extinction, True), (mirrored, False), (no_dust, False)):
        found = epsilon_from_map(offsets, m, map_, PLACES, LIMIT, cut=CUT, radius=BALL)
        variance = found.number * wanted * (1 - wanted)  # of a count; enough for a chi2
        use = found.complete & (variance > 3)
        assert use.sum() > 40
        error = np.sqrt(variance[use]) / found.number[use]
        p = p_value(found.epsilon[use], wanted[use], error)
        assert (p > P_PASS) if passes else (p < P_FAIL)
        if passes:  # the error that is given knows the stars alone
            np.testing.assert_allclose(found.error[use].mean(), error.mean(), rtol=0.1)


def test_lost_stars_are_not_brought_back_by_brightening(deep):
    """(1) behind more dust than the catalogue is complete for: S(cut - A)/S(limit - mu - A)."""
    offsets, m = deep
    far = np.array([[1.8, 1.0, 0.0], [2.1, 1.15, 0.1], [-2.2, 1.2, 0.1]])
    found = epsilon_from_map(offsets, m, extinction, far, LIMIT, cut=CUT, radius=BALL)
    assert not found.complete.any()
    top = lambda x: np.minimum(faintest(x), CUT)  # noqa: E731
    balls = [place + AROUND for place in far]
    still = np.array([DEEP.share(CUT - extinction(x)).mean() for x in balls])
    biased = still / [DEEP.share(top(x)).mean() for x in balls]
    true = still / DEEP.share(np.array([CUT]))
    assert p_value(found.epsilon, biased, found.error) > P_PASS
    assert np.all(biased > 1.5 * true)
    assert p_value(found.epsilon, true, np.sqrt(true * (1 - true) / found.number)) < P_FAIL


def test_the_ratio_with_the_lost_stars_counted(sharp):
    """(2): stars seen over stars that there were, in the ball, and at the place without a ball."""
    offsets, m = sharp
    wanted = mean_in_balls(lambda x: SHARP.share(faintest(x)))
    there = SHARP.share(faintest(PLACES))
    found = epsilon_from_map(offsets, m, extinction, PLACES, LIMIT, radius=BALL)
    use = (there < 0.97) & (found.number > 20)  # where nothing is lost there is no error
    assert use.sum() >= 14
    assert found.complete.all()
    # errors of S are common to all places, so each is asked alone
    several = stats.norm.isf(P_PASS / 2 / use.sum())
    assert np.max(abs(found.epsilon - wanted)[use] / found.error[use]) < several
    assert np.max(abs(found.at_place - there)[use] / found.at_place_error[use]) < several
    assert np.max(found.error[use]) < 0.05
    for wrong in (mirrored, no_dust):
        other = epsilon_from_map(offsets, m, wrong, PLACES, LIMIT, radius=BALL)
        assert np.max(abs(other.epsilon - wanted)[use] / found.error[use]) > 5 * several
        assert np.max(abs(other.at_place - there)[use] / found.at_place_error[use]) > 5 * several


def test_a_catalogue_with_an_absolute_limit(sharp):
    """As (2), where stars have to look brighter than an absolute magnitude too, as Gaia's giants do."""
    offsets, m = sharp
    end = 0.6
    kept = m - modulus(np.linalg.norm(offsets, axis=1)) < end
    seen = np.minimum(LIMIT - modulus(np.linalg.norm(PLACES, axis=1)), end) - extinction(PLACES)
    for told, passes in ((end, True), (np.inf, False)):
        found = epsilon_from_map(
            offsets[kept], m[kept], extinction, PLACES, LIMIT, absolute_limit=told, radius=BALL
        )
        # of the stars brighter than what is still seen in the clear
        top = np.array([found.luminosity.reference])
        assert end - 0.1 < top[0] < end
        wanted = SHARP.share(np.minimum(seen, top)) / SHARP.share(top)
        several = stats.norm.isf(P_PASS / 2 / len(PLACES))
        worst = np.max(abs(found.at_place - wanted) / np.maximum(found.at_place_error, 1e-3))
        assert (worst < several) == passes
    assert np.mean(wanted < 0.9) > 0.5
    with pytest.raises(
        BayesdustError, match=r"star \d+: it looks .* beyond the absolute limit 0.6"
    ):
        epsilon_from_map(offsets, m, extinction, PLACES, LIMIT, absolute_limit=end)


def test_the_errors_are_those_of_other_catalogues():
    """The scatter of (2) over twenty catalogues is the error given."""
    found = []
    for seed in range(20):
        offsets, m = catalogue(30_000, SHARP, seed=100 + seed)
        run = epsilon_from_map(offsets, m, extinction, PLACES, LIMIT, radius=BALL, seed=seed)
        found.append((run.epsilon, run.error, run.at_place, run.at_place_error))
    epsilon, error, at_place, at_error = (np.array(column) for column in zip(*found, strict=True))
    use = SHARP.share(faintest(PLACES)) < 0.97
    use &= np.linalg.norm(PLACES, axis=1) < RADIUS - BALL  # whole balls
    assert use.sum() >= 7
    for values, errors in ((epsilon, error), (at_place, at_error)):
        scatter = np.sqrt(np.mean(values[:, use].var(axis=0, ddof=1)))
        # known to 16 % from twenty, if the places have all of it in common
        assert np.sqrt(np.mean(errors[:, use] ** 2)) == pytest.approx(scatter, rel=0.4)


def test_the_stars_themselves_tell_a_wrong_map(sharp):
    offsets, m = sharp
    for map_, passes in ((extinction, True), (mirrored, False)):
        chi2, number = map_chi2(offsets, epsilon_from_map(offsets, m, map_, PLACES[:1], LIMIT))
        p = stats.chi2.sf(chi2, number)
        assert (p > P_PASS) if passes else (p < P_FAIL)
        assert chi2 > 0.5 * number  # the ranks are not made even by S, which is fitted to them


# A mock of a survey, through a file


@pytest.fixture(scope="module")
def cubes(dusty, tmp_path_factory):
    """The mock's own dust in both published formats, and its mirror image."""
    folder = tmp_path_factory.mktemp("cubes")
    steps, points = (0.05, 0.05, 0.02), (161, 161, 101)
    density, sun = density_of(dusty.dust, steps, points), (80.0, 80.0, 50.0)
    steps_pc = [50.0, 50.0, 20.0]
    wcs = {f"CRPIX{n}": place + 1 for n, place in enumerate(sun, 1)}
    wcs |= {f"CRVAL{n}": 0.0 for n in (1, 2, 3)} | {
        f"CDELT{n}": s for n, s in enumerate(steps_pc, 1)
    }
    gone = dict.fromkeys(("STEP", "SUN_POSX", "SUN_POSY", "SUN_POSZ"))
    write_hdf5(folder / "cube.h5", density, sun, 1.0, gridstep_values=steps_pc)
    write_fits(folder / "cube.fits", density, sun, 1.0, **wcs, **gone)
    write_fits(folder / "mirrored.fits", density[:, ::-1], sun, 1.0, **wcs, **gone)
    return {path.name: bd.read_dust_cube(path) for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["cube.fits", "cube.h5", "mirrored.fits"])
def test_the_cube_of_a_mock_gives_its_efficiency(dusty, cubes, name):
    cube = cubes[name]
    offsets = dusty.x - SUN
    places = np.stack(np.meshgrid(*[np.linspace(-2.4, 2.4, 13)] * 2, [0.0]), -1).reshape(-1, 3)
    found = epsilon_from_map(offsets, dusty.G, cube, places, dusty.limit)
    truth = dusty.efficiency(places + SUN)
    rms = np.sqrt(np.mean((found.at_place - truth) ** 2))
    chi2, number = map_chi2(offsets, found)
    p = stats.chi2.sf(chi2, number)
    if name == "mirrored.fits":
        assert rms > 0.5 * truth.std()
        assert p < P_FAIL
    else:
        assert rms < 0.1 * truth.std()
        assert p > P_PASS
        # any function serves as well, and the cube differs from the closed form by its cells alone
        other = epsilon_from_map(offsets, dusty.G, extinction_of(dusty), places, dusty.limit)
        assert np.max(abs(found.at_place - other.at_place)) < 0.05
        assert other.notes == ()
    beyond = int(np.sum(np.any(abs(offsets) > [4.0, 4.0, 1.0], axis=1)))
    assert f"{beyond:,} of 12,000 stars and 0 of 169 places lie beyond" in found.notes[0]


def extinction_of(survey):
    return lambda offsets: survey.dust.extinction(offsets + SUN)


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": 12.0}, "beyond the limit 12"),
        ({"radius": 0.0}, "the radius is 0"),
        ({"cut": -50.0}, "no star is brighter than the cut -50"),
        ({"extinction": lambda x: 1.0}, "give one number a place"),
        ({"extinction": lambda x: np.full(len(x), np.nan)}, "is nan; give a finite one"),
        ({"extinction": lambda x: -np.ones(len(x))}, "is -1.0; give a finite one"),
    ],
)
def test_bad_arguments(sharp, change, words):
    offsets, m = (column[:200] for column in sharp)
    given = {"extinction": extinction, "places": PLACES, "limit": LIMIT} | change
    with pytest.raises(BayesdustError, match=words):
        epsilon_from_map(offsets, m, **given)


def test_too_few_stars(sharp):
    offsets, m = (column[:20] for column in sharp)
    with pytest.raises(BayesdustError, match="give more stars"):
        epsilon_from_map(offsets, m, extinction, PLACES, LIMIT)


def test_an_empty_ball_has_no_ratio(sharp):
    offsets, m = sharp
    found = epsilon_from_map(offsets, m, extinction, np.array([[9.0, 0.0, 0.0]]), LIMIT)
    assert np.isnan(found.epsilon[0])
    assert np.isnan(found.error[0])
    assert found.number[0] == 0
