"""The likelihoods and priors of the dwarf models, against numbers worked out without them."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from astropy import units as u
from astropy.table import QTable, Table
from numpyro.infer.util import log_density
from scipy import stats
from scipy.integrate import quad

from bayesdust.anisotropy import Constant
from bayesdust.catalogs.dwarf import read_stars
from bayesdust.catalogs.facts import Galaxy
from bayesdust.dynamics.jeans import sigma_los
from bayesdust.errors import BayesdustError
from bayesdust.inference import dwarf, posterior, programs
from bayesdust.inference.nuts import latent_sites
from bayesdust.inference.priors import mass_for_density
from bayesdust.potentials import GNFW, NFW
from bayesdust.tracers import Plummer
from bayesdust.units import ARCMIN, DEG, MAS_YR_KPC_KMS

MOCK = Galaxy("Mock", 80.0, rhalf=10.0, rhalf_err=0.5, v_sys=5.0)
MOVING = Galaxy(
    "Moving", 80.0, ra=150.0, dec=30.0, rhalf=10.0, rhalf_err=0.5, v_sys=5.0, pmra=0.3, pmdec=-0.2
)


def stars_of(galaxy=MOCK, n=40, p_member=None, photometry=None, seed=3, motions=False):
    rng = np.random.default_rng(seed)
    radius = 0.25 * np.sqrt(rng.uniform(0.02, 0.8, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    columns = {"x": radius * np.cos(angle), "y": radius * np.sin(angle)}
    columns |= {"v_los": rng.normal(5.0, 9.0, n), "v_los_err": rng.uniform(1.0, 3.0, n)}
    if p_member is not None:
        columns["p_member"] = np.broadcast_to(p_member, n)
    if motions:
        errors = dict.fromkeys(("pmra_err", "pmdec_err"), np.full(n, 0.02))
        columns |= {"pmra": rng.normal(0.3, 0.03, n), "pmdec": rng.normal(-0.2, 0.03, n)} | errors
    return read_stars(Table(columns), galaxy, photometry=photometry)


def values_of(data, **more):
    """A point in the parameter space of dsph_gnfw."""
    point = {"rhalf": 9.5, "gamma": 0.8, "ln_r_s": -0.3, "ln_mass": 17.0, "v_sys": 4.0}
    return {k: jnp.asarray(v) for k, v in (point | {"beta_tilde": -0.1} | more).items()}


def v_los_terms(data, model, values):
    """Log-likelihood (n,) of each star at a point."""
    trace = numpyro.handlers.trace(
        numpyro.handlers.substitute(numpyro.handlers.seed(model, 0), values)
    ).get_trace(data)
    site = trace["v_los"]
    return np.asarray(site["fn"].log_prob(site["value"]))


def expected_dispersion(stars):
    """sigma_los at the stars for `values_of`, through the user's function in kpc."""
    unit = GNFW(1.0, np.exp(-0.3), 0.8)
    pivot = 1.8 * 10.0 * ARCMIN * 80.0
    halo = GNFW(np.exp(17.0) / float(unit.enclosed_mass(pivot)), np.exp(-0.3), 0.8)
    beta = 2 * -0.1 / (1 - 0.1)
    return np.asarray(
        sigma_los(stars.theta * 80.0, halo, Plummer(9.5 * ARCMIN * 80.0), Constant(beta))
    )


def test_likelihood_is_a_gaussian_a_star():
    stars, program = stars_of(), programs.load("dsph_gnfw")
    data = program.prepare(stars, {})
    terms = v_los_terms(data, program.model, values_of(data))
    spread = np.hypot(expected_dispersion(stars), stars.v_los_err)
    # both sides interpolate the same profile on different grids: 1e-5 of sigma at most
    np.testing.assert_allclose(terms, stats.norm.logpdf(stars.v_los, 4.0, spread), atol=1e-4)
    without_errors = stats.norm.logpdf(stars.v_los, 4.0, expected_dispersion(stars))
    assert np.abs(terms - without_errors).max() > 0.01


def test_given_membership_mixes_densities_not_logarithms():
    stars, program = stars_of(p_member=0.7), programs.load("dsph_gnfw")
    data = program.prepare(stars, {})
    shares = np.linspace(1, 15, 15) / 120
    values = values_of(data, foreground=shares)
    terms = v_los_terms(data, program.model, values)
    spread = np.hypot(expected_dispersion(stars), stars.v_los_err)
    member = stats.norm.pdf(stars.v_los, 4.0, spread)
    bins, spread = np.linspace(-420, 420, 15), np.hypot(40.0, stars.v_los_err)
    other = stats.norm.pdf(stars.v_los[:, None], bins, spread[:, None]) @ shares
    np.testing.assert_allclose(terms, np.log(0.7 * member + 0.3 * other), atol=1e-4)
    assert np.abs(terms - 0.7 * np.log(member)).max() > 0.1  # the weighting that is wrong


def test_certain_members_need_no_foreground():
    certain, program = stars_of(p_member=1.0), programs.load("dsph_gnfw")
    values = values_of(None, foreground=np.full(15, 1 / 15))
    mixed = v_los_terms(program.prepare(certain, {}), program.model, values)
    plain = v_los_terms(
        program.prepare(certain, {"membership": "none"}), program.model, values_of(None)
    )
    np.testing.assert_allclose(mixed, plain, atol=1e-10)


def test_mixture_odds_follow_the_surface_densities():
    stars = stars_of()
    data = programs.load("dsph_gnfw").prepare(stars, {"membership": "mixture"})
    tracer = Plummer(0.2)
    p = np.asarray(dwarf.membership(data, tracer, 80.0, 1.5, 0.4))
    R = stars.theta * 80.0
    members = np.asarray(tracer.surface_density(R) / tracer.surface_density(0.2))
    field = np.exp(-1.5 - 0.4 * 5 * np.tanh((R / 0.2 - 1) / 5))
    np.testing.assert_allclose(p, members / (members + field), rtol=1e-5)


def test_perspective_is_the_projection_of_the_bulk_velocity():
    """Against three-dimensional vectors: V . n with n the star's direction."""
    stars = stars_of(MOVING)
    data = programs.load("dsph_gnfw").prepare(stars, {})
    mean = np.asarray(dwarf.line_of_sight_mean(data, 5.0, 80.0))
    velocity = np.array([0.3 * MAS_YR_KPC_KMS * 80.0, -0.2 * MAS_YR_KPC_KMS * 80.0, 5.0])
    direction = np.stack([stars.xi, stars.eta, np.ones(stars.n)])
    direction /= np.linalg.norm(direction, axis=0)
    np.testing.assert_allclose(mean, velocity @ direction, rtol=1e-12)
    assert np.ptp(mean) > 0.1  # km/s: a term that is there to be seen
    still = programs.load("dsph_gnfw").prepare(stars, {"perspective": False})
    assert np.ptp(np.asarray(dwarf.line_of_sight_mean(still, 5.0, 80.0))) == 0


def test_light_density_integrates_to_one():
    """Over the disc of the photometric sample, members and field together, per steradian."""
    rng = np.random.default_rng(0)
    radius = 0.3 * np.sqrt(rng.uniform(0.001, 1.0, 300))
    angle = rng.uniform(0, 2 * np.pi, 300)
    table = Table({"x": radius * np.cos(angle), "y": radius * np.sin(angle)})
    data = programs.load("dsph_gnfw").prepare(stars_of(photometry=table), {})
    edge, tracer, p = data.light_edge, Plummer(0.2), 0.8

    def density(theta):
        R, R_max = theta * 80.0, edge * 80.0
        stars = float(tracer.surface_density(R) / tracer.projected_fraction(R_max))
        return (p * stars + (1 - p) / (np.pi * R_max**2)) * 80.0**2

    total = quad(lambda t: 2 * np.pi * t * density(t), 0, edge, epsrel=1e-8)[0]
    assert total == pytest.approx(1.0, rel=1e-7)
    trace = numpyro.handlers.trace(
        lambda: dwarf.light_likelihood(data, tracer, 80.0, p)
    ).get_trace()
    value = float(trace["light"]["fn"].log_factor)
    theta = np.hypot(table["x"], table["y"]) / 80.0
    assert value == pytest.approx(sum(np.log(density(t)) for t in theta), abs=1e-3)


def test_prior_of_the_density_survives_the_change_to_mass():
    """Draws of ln M give back ln rho_s ~ Normal(18, 3), uncorrelated with r_s; two masses would not."""
    key = jax.random.split(jax.random.PRNGKey(1), 3)
    n = 4000
    ln_r_s = jax.random.normal(key[0], (n,))
    unit = NFW(1.0, jnp.exp(ln_r_s))
    ln_mass = mass_for_density(dist.Normal(18.0, 3.0), unit, 0.4).sample(key[1])
    ln_rho_s = np.asarray(ln_mass - jnp.log(unit.enclosed_mass(0.4)))
    assert abs(ln_rho_s.mean() - 18.0) < 4 * 3 / np.sqrt(n)
    assert abs(ln_rho_s.std() - 3.0) < 4 * 3 / np.sqrt(2 * n)
    assert abs(np.corrcoef(ln_rho_s, ln_r_s)[0, 1]) < 4 / np.sqrt(n)
    wrong = np.asarray(
        dist.Normal(18.0, 3.0).sample(key[2], (n,)) - jnp.log(unit.enclosed_mass(0.4))
    )
    assert abs(np.corrcoef(wrong, ln_r_s)[0, 1]) > 10 / np.sqrt(n)


@pytest.mark.parametrize("name", list(programs.shipped("dwarf")))
def test_every_model_starts(name):
    """Finite density and gradient at prior medians, every product recorded, priors on one page."""
    program = programs.load(name)
    data = program.prepare(stars_of(), {})
    sites = latent_sites(program.model, data)

    @jax.jit
    def at_random(key):
        trace = numpyro.handlers.trace(numpyro.handlers.seed(program.model, key)).get_trace(data)
        values = {k: trace[k]["value"] for k in sites}

        def density(v):
            return log_density(program.model, (data,), {}, v)[0]

        products = {k: s["value"] for k, s in trace.items() if s["type"] == "deterministic"}
        return density(values), jax.grad(density)(values), products

    value, gradient, products = at_random(jax.random.PRNGKey(4))
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient.values())
    assert {"rho", "mass", "v_circ", "log10_J", "log10_D", "sigma_los"} <= set(products)
    assert all(np.isfinite(p).all() for p in products.values())
    assert len(program.path.read_text().splitlines()) <= 150


@pytest.mark.parametrize("anisotropy", ["isotropic", "osipkov_merritt", "baes_van_hese"])
def test_every_choice_of_orbits_starts(anisotropy):
    program = programs.load("dsph_gnfw")
    data = program.prepare(stars_of(), {"anisotropy": anisotropy, "gradient": True})
    sites = latent_sites(program.model, data)
    assert "gradient" in sites
    assert ("ln_r_a" in sites) == (anisotropy != "isotropic")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"anistropy": "constant"}, "anistropy"),
        ({"anisotropy": "radial"}, "radial"),
        ({"membership": "given"}, "p_member"),
        ({"light": "joint"}, "photometric"),
        ({"stellar_mass": "heavy"}, "heavy"),
        ({"beta_ani": 0.3, "anisotropy": "osipkov_merritt"}, "anisotropy=osipkov_merritt has none"),
        ({"beta_ani": 0.3, "anisotropy": "isotropic"}, "anisotropy=isotropic has none"),
    ],
)
def test_bad_options_are_refused(options, word):
    with pytest.raises(BayesdustError, match=word):
        programs.load("dsph_gnfw").prepare(stars_of(), options)


#: option -> values that a user may give, each of which has to change something
VALUES = {
    "anisotropy": ["isotropic", "constant", "osipkov_merritt", "baes_van_hese"],
    "beta_ani": [None, 0.4, -0.4],
    "membership": ["none", "given", "mixture"],
    "light": ["facts", "joint", "members"],
    "light_gamma": [0.0, 1.0],
    "velocities": ["gaussian", "kurtosis"],
    "proper_motions": ["ignored", "used"],
    "perspective": [True, False],
    "gradient": [True, False],
    "stellar_mass": [0.0, 1e7],
    "r_trunc": [float("inf"), 0.2],
    "rho_max": [float("inf"), 1e7],
}
REFUSED = {("dsph_flow", "anisotropy", "baes_van_hese"), *((m, "membership", "mixture") for m in (
    "dsph_flow", "dsph_nfw_om", "dsph_zhao"))}  # fmt: skip


@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("name", list(programs.shipped("dwarf")))
def test_every_value_of_an_option_does_something(name, option):
    """No two values give the same density and the same J: an option that did nothing would."""
    rng = np.random.default_rng(8)
    light = QTable({axis: rng.normal(0, 0.2, 100) * u.kpc for axis in "xy"})
    p_member = rng.uniform(0.5, 1.0, 40)
    galaxy = dataclasses.replace(MOCK, pmra=0.3, pmdec=-0.2)
    stars = stars_of(galaxy, p_member=p_member, photometry=light, motions=True)
    program = programs.load(name)
    takes = set(
        re.findall(r"\b[a-z_]+\b", program.path.read_text().split('"""')[1].split("Options")[1])
    )
    found = {}
    for value in VALUES[option]:
        if (name, option, value) in REFUSED:
            continue
        if option not in takes:
            with pytest.raises(BayesdustError, match=f"no option '{option}'"):
                program.prepare(stars, {option: value})
            return
        data = program.prepare(stars, {} if value is None else {option: value})
        trace = numpyro.handlers.trace(numpyro.handlers.seed(program.model, 5)).get_trace(data)
        parameters = {k: s["value"] for k, s in trace.items() if s["type"] == "sample"}
        latent = {k: v for k, v in parameters.items() if k not in ("v_los", "light", "pm")}
        density = float(log_density(program.model, (data,), {}, latent)[0])
        found[value] = (density, float(trace["log10_J"]["value"][5]))
    assert len(set(found.values())) == len(found), found


def test_half_light_radius_must_come_from_somewhere():
    with pytest.raises(BayesdustError, match="half-light"):
        programs.load("dsph_gnfw").prepare(stars_of(Galaxy("Unknown", 80.0)), {})


def test_ellipticity_enters_through_the_circularised_radius():
    flat = Galaxy("Flat", 80.0, rhalf=10.0, ellipticity=0.4, position_angle=90.0)
    data = programs.load("dsph_gnfw").prepare(stars_of(flat), {})
    q = 0.6
    theta = np.sqrt(q * data.xi**2 + data.eta**2 / q)  # the major axis lies east-west
    np.testing.assert_allclose(data.theta, theta, rtol=1e-12)
    assert data.r_half == pytest.approx(10.0 * np.sqrt(q) * DEG / 60 * 80.0)


@pytest.mark.parametrize(
    ("model", "options", "gaussian"),
    [
        ("dsph_gnfw", {}, True),
        ("dsph_gnfw", {"velocities": "kurtosis"}, False),
        ("dsph_gnfw", {"membership": "mixture"}, True),
        ("dsph_gnfw", {"membership": "mixture", "velocities": "kurtosis"}, False),
        ("dsph_flow", {}, False),
    ],
)
def test_a_report_knows_whether_velocities_are_taken_for_gaussian(model, options, gaussian):
    program = programs.load(model)
    data = program.prepare(stars_of(), options)
    assert posterior._is_gaussian(program.model, data) == gaussian
