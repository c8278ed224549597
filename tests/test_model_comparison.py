"""PSIS-LOO against exact leave-one-out, wrong models that must lose, and what cannot be compared."""

import json
import shutil

import fake_tree
import jax
import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm
from test_dwarf_models import stars_of, v_los_terms, values_of
from tiny import MODEL, fit_words, lay_out, stars

import bayesdust as bd
from bayesdust.errors import BayesdustError
from bayesdust.inference import pointwise, programs
from bayesdust.runs import load

# A normal law of known widths about an unknown mean: everything in closed form

N, SD_PRIOR = 60, 20.0


def conjugate(seed):
    """Velocities and their spreads, one of them far out."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(5.0, 12.0, N)
    v = 3.0 + spread * rng.normal(size=N)
    v[0] = 3.0 + 4 * spread[0]
    return v, spread


def posterior(v, spread):
    """Mean and sd of the mean, prior N(0, SD_PRIOR^2)."""
    precision = SD_PRIOR**-2 + np.sum(spread**-2.0)
    return np.sum(v / spread**2) / precision, precision**-0.5


def numbers(photometry="", motions=""):
    """Digests of what was read, as a fit keeps them."""
    return json.dumps({"stars": "", "photometry": photometry, "proper motions": motions})


def tree_of(terms, v, **attrs):
    """A result with draws of one number (chain, draw) and the likelihood of every star."""
    star = {"v_los": (("chain", "draw", "star"), terms)}
    places = {n: ("star", np.full(v.size, 1e-3)) for n in ("v_los_err", "xi", "eta", "R")}
    whole = fake_tree.healthy(draws=terms.shape[1])
    tree = xr.DataTree.from_dict(
        {
            "posterior": whole["posterior"].to_dataset(),
            "sample_stats": whole["sample_stats"].to_dataset(),
            "log_likelihood": xr.Dataset(star, attrs={"others": "[]", "numbers": numbers()}),
            "observed_data": xr.Dataset({"v_los": ("star", v)}),
            "constant_data": xr.Dataset(places),
        }
    )
    tree.attrs = whole.attrs | {"options": '{"light": "facts"}'} | attrs
    return tree


def sampled(v, spread, rng, centre=None, width=None):
    """Terms (4, 500, star) of independent draws of the mean from its exact posterior."""
    mean, sd = posterior(v, spread)
    mu = mean + sd * rng.normal(size=(4, 500, 1))
    return norm.logpdf(v, mu, spread)


def row(found, name):
    return found.table[list(found.table["name"]).index(name)]


def test_loo_is_exact_leave_one_out():
    """Ten sets of draws: their mean is within five of its standard errors of the closed form."""
    v, spread = conjugate(1)
    left_out = []
    for i in range(N):
        mean, sd = posterior(np.delete(v, i), np.delete(spread, i))
        left_out.append(norm.logpdf(v[i], mean, np.hypot(sd, spread[i])))
    exact = np.sum(left_out)
    mean, sd = posterior(v, spread)
    with_itself = np.sum(norm.logpdf(v, mean, np.hypot(sd, spread)))
    rng = np.random.default_rng(2)
    found = []
    for _ in range(5):
        pair = {name: tree_of(sampled(v, spread, rng), v) for name in "ab"}
        found += list(bd.compare(pair).table["elpd_loo"])
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert error < 0.02
    assert abs(np.mean(found) - exact) < 5 * error
    assert abs(np.mean(found) - with_itself) > 20 * error  # the likelihood of stars that were seen


def test_single_precision_is_enough():
    """Each term is rounded by 2^-24 of itself at most; PSIS weighs by the same terms, hence the two."""
    v, spread = conjugate(3)
    terms = sampled(v, spread, np.random.default_rng(4))
    single = tree_of(terms.astype(np.float32), v)
    found = bd.compare({"double": tree_of(terms, v), "single": single})
    bound = 2 * np.abs(terms).max(axis=(0, 1)).sum() * 2.0**-24
    difference = row(found, "double")["elpd_loo"] - row(found, "single")["elpd_loo"]
    assert abs(difference) < bound < 1e-3
    half = tree_of(terms.astype(np.float16), v)
    found = bd.compare({"double": tree_of(terms, v), "half": half})
    assert abs(np.ptp(found.table["elpd_loo"])) > bound


# What is stored


CASES = {
    "none": ({}, {}, {}),
    "given": ({"p_member": 0.7}, {}, {"foreground": np.linspace(1, 15, 15) / 120}),
    "mixture": (
        {},
        {"membership": "mixture"},
        {"foreground": np.linspace(1, 15, 15) / 120, "ln_odds": 2.0, "slope_foreground": 0.1},
    ),
    "light": ({}, {"light": "members"}, {"light_members": 0.9}),
}


@pytest.mark.parametrize("case", CASES)
def test_terms_are_those_of_the_model(case):
    """In every chain and draw, foreground included, whatever else is in the likelihood."""
    table, options, more = CASES[case]
    program = programs.load("dsph_gnfw")
    data = program.prepare(stars_of(**table), options)
    points = [values_of(data, v_sys=v, **more) for v in (4.0, 6.0, -9.0)]
    posterior = {n: np.array([[p[n] for p in points]]) for n in points[0]}
    posterior |= {"rho": np.zeros((1, 3, 2))}  # derived, and left alone
    found = pointwise.log_likelihood(program.model, data, posterior)["v_los"]
    assert found.dtype == np.float32
    wanted = [v_los_terms(data, program.model, p) for p in points]
    np.testing.assert_allclose(found[0], wanted, rtol=2.0**-23)
    assert pointwise.other_terms(program.model, data) == (["light"] if case == "light" else [])


def test_a_model_of_the_whole_sample_at_once_has_no_terms(tmp_path):
    lay_out(tmp_path, MODEL.replace("width), obs", "width).to_event(1), obs"))
    program = programs.load(tmp_path / "tiny.py")
    data = programs.load("dsph_gnfw").prepare(stars_of(), {})
    posterior = {name: np.zeros((2, 5)) for name in ("v_sys", "ln_sigma")}
    assert pointwise.log_likelihood(program.model, data, posterior) == {}


def test_draws_are_taken_in_parts(monkeypatch):
    """Memory is that of some draws at once: the compiled program sees no more."""
    program = programs.load("dsph_gnfw")
    data = program.prepare(stars_of(), {})
    point = values_of(data)
    posterior = {n: np.broadcast_to(x, (2, 300)) for n, x in point.items()}
    seen = []
    vmap = jax.vmap

    def counted(function):
        return lambda values: seen.append(len(values["v_sys"])) or vmap(function)(values)

    monkeypatch.setattr(jax, "vmap", counted)
    found = pointwise.log_likelihood(program.model, data, posterior)["v_los"]
    assert found.shape == (2, 300, 40)
    assert set(seen) == {250}


# From the command line


WRONG = MODEL.replace("dist.Normal(2.0, 1.0)", "dist.Normal(0.0, 0.02)")  # 1 km/s, where it is 10


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A right run, one of a dispersion forced far too low, and one of other stars."""
    folder = tmp_path_factory.mktemp("runs")
    lay_out(folder)
    (folder / "low.py").write_text(WRONG)
    other = stars()
    other["v_los"] = other["v_los"][::-1]
    other.write(folder / "other.ecsv", format="ascii.ecsv")
    from typer.testing import CliRunner

    from bayesdust.cli import app

    for name, words in RUNS.items():
        swap = {"tiny.py": words[0], "stars.ecsv": words[1]}
        line = [swap.get(word, word) for word in fit_words(name)]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert CliRunner().invoke(app, line).exception is None
    return folder


RUNS = {
    "right": ("tiny.py", "stars.ecsv"),
    "low": ("low.py", "stars.ecsv"),
    "others": ("tiny.py", "other.ecsv"),
}


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def exact(v, err, prior_mean, prior_sd):
    """ln p(v_i | the others) of `tiny.MODEL`, by quadrature over both its numbers: (star,)."""
    m, s = np.linspace(-6, 6, 241), np.linspace(-0.5, 3.5, 401)
    width = np.hypot(np.exp(s)[:, None], err)
    terms = norm.logpdf(v, m[:, None, None], width)
    prior = norm.logpdf(m, 0, 20)[:, None] + norm.logpdf(s, prior_mean, prior_sd)
    total = prior + terms.sum(axis=2)
    return [logsumexp(total) - logsumexp(total - terms[..., i]) for i in range(v.size)]


def test_a_fit_is_worth_what_quadrature_says(here):
    """The Monte Carlo error of p_loo = 2 or so numbers from 300 draws, a few hundredths, is the bound."""
    tree, _ = load("right")
    v, err = tree["observed_data"]["v_los"].values, tree["constant_data"]["v_los_err"].values
    found = bd.compare({"right": tree, "low": load("low")[0]})
    wanted = np.sum(exact(v, err, 2.0, 1.0))
    line = row(found, "right")
    # elpd_loo from draws is off by about p_loo sqrt(2/ESS): here ESS > 100
    assert abs(line["elpd_loo"] - wanted) < 4 * line["p_loo"] * np.sqrt(2 / 100)
    in_sample = logsumexp(tree["log_likelihood"]["v_los"].values, axis=(0, 1)) - np.log(300)
    assert in_sample.sum() - wanted > 1  # of stars that were seen it is another number


def test_a_dispersion_far_too_low_loses(here, call):
    code, stdout, stderr = call("compare", "low", "right")
    assert stderr == ""
    found = bd.compare({"low": load("low")[0], "right": load("right")[0]})
    assert list(found.table["name"]) == ["right", "low"]
    line = row(found, "low")
    # each star loses about c z^2, of mean c and sd 2^1/2 c: of 100 stars some seven standard errors at best
    assert line["difference"] < -4 * line["difference_se"]
    assert "low foresees the stars' velocities worse than right, by" in stdout
    assert code == (3 if found.doubts else 0)
    assert stdout == f"{found}\n"


def test_no_model_file_is_run(here, call, monkeypatch):
    """Not even looked for: those of the runs are gone."""

    def never(*_):
        raise AssertionError("a model was run")

    monkeypatch.setattr("bayesdust.inference.programs._execute", never)
    assert call("compare", "low", "right")[0] in (0, 3)


REFUSED = {
    "one": (["right"], "needs two fits or more"),
    "twice": (["right", "low", "right"], "right and right are the same run"),
    "twice by another name": (["right", "./right/"], "are the same run"),
    "no folder": (["right", "nowhere"], "nowhere holds no finished run"),
    "other stars": (
        ["right", "others"],
        "right and others are fits of different stars (their v_los",
    ),
    "a copy": (["right", "copy"], "right and copy are the same run"),
    "damaged": (["right", "damaged"], "damaged/posterior.nc or run.json is damaged"),
    "mixed up": (["right", "mixed"], "mixed: run.json and posterior.nc are of different stars"),
    "old": (["right", "old"], "old holds no likelihood of each star: it was written by an older"),
}


def spoil(place):
    """The folders of `REFUSED` that no run leaves."""
    from bayesdust.runs import write_tree

    for name in ("copy", "damaged", "mixed", "old"):
        shutil.copytree(place / "right", place / name, dirs_exist_ok=True)
    (place / "damaged" / "posterior.nc").write_bytes(b"nothing")
    about = json.loads((place / "mixed" / "run.json").read_text())
    (place / "mixed" / "run.json").write_text(json.dumps(about | {"data_sha256": "0" * 64}))
    write_tree(
        fake_tree.without(load(place / "old")[0], "log_likelihood"), place / "old/posterior.nc"
    )


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared(here, call, case):
    if not (here / "old").exists():
        spoil(here)
    words, sentence = REFUSED[case]
    code, stdout, stderr = call("compare", *words)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert sentence in stderr


# Of results made by hand


def pair(**attrs):
    v, spread = conjugate(5)
    terms = sampled(v, spread, np.random.default_rng(6))
    return {"a": tree_of(terms, v), "b": tree_of(terms - 0.01, v, **attrs)}


def refusal(trees):
    with pytest.raises(BayesdustError) as error:
        bd.compare(trees)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_fit_of_the_milky_way_has_no_stars():
    assert "of sums and not of stars" in refusal(pair(kind="milky_way"))
    assert "of sums and not of stars" in refusal(pair(kind="milky_way_profile"))


def test_positions_must_be_the_same():
    trees = pair(options='{"light": "joint"}')
    marks = {"others": '["light"]', "numbers": numbers(photometry="abcdef0123")}
    trees["b"]["log_likelihood"].attrs.update(marks)
    message = refusal(trees)
    assert (
        "a fits its light to the table of facts and b to the photometric sample abcdef01" in message
    )
    assert "fit both with the same option light" in message
    trees["a"].attrs["options"] = trees["b"].attrs["options"]
    trees["a"]["log_likelihood"].attrs.update(marks)
    assert "Compared are the velocities alone" in str(bd.compare(trees))
    trees["a"]["log_likelihood"].attrs.update(numbers=numbers(photometry="0123456789"))
    assert "photometric sample 01234567" in refusal(trees)


def test_proper_motions_must_be_the_same_ones():
    trees = pair()
    known = {"others": '["pm"]', "numbers": numbers(motions="abc")}
    trees["b"]["log_likelihood"].attrs.update(known)
    assert "b knows the stars' proper motions and a does not" in refusal(trees)
    trees["a"]["log_likelihood"].attrs.update(known)
    assert "b has terms beside the velocities (pm)" in str(bd.compare(trees))
    trees["a"]["log_likelihood"].attrs.update(numbers=numbers(motions="def"))
    assert "a and b know different proper motions" in refusal(trees)


def tell(tree, p):
    """Give every star the probability `p` of membership."""
    places = tree["constant_data"].to_dataset().assign(p_member=("star", np.full(N, p)))
    tree["constant_data"] = xr.DataTree(places)


def test_memberships_must_be_the_same_ones():
    trees = pair()
    for tree, p in zip(trees.values(), (0.5, 0.9), strict=True):
        tree.attrs["options"] = '{"light": "facts", "membership": "given"}'
        tell(tree, p)
    assert "a and b know different probabilities of membership" in refusal(trees)
    tell(trees["b"], 0.5)
    assert "a and b know each star's probability of membership" in str(bd.compare(trees))


def drop(group, name):
    def change(tree):
        tree[group] = xr.DataTree(tree[group].to_dataset().drop_vars(name))

    return change


NOT_WHOLE = {
    "no places": drop("constant_data", "xi"),
    "no velocities": drop("observed_data", "v_los"),
    "no options": lambda tree: tree.attrs.pop("options"),
    "options that are none": lambda tree: tree.attrs.update(options="[]"),
    "no parameters": lambda tree: tree.attrs.update(parameters="[]"),
    "terms that are none": lambda tree: tree["log_likelihood"].attrs.update(others="{"),
}


@pytest.mark.parametrize("change", NOT_WHOLE.values(), ids=NOT_WHOLE.keys())
def test_a_result_that_is_not_whole_is_one_sentence(change):
    trees = pair()
    change(trees["b"])
    assert refusal(trees) == "b is not whole: run the fit again."


def test_stars_without_likelihood_are_noticed():
    trees = pair()
    fewer = trees["b"]["log_likelihood"].to_dataset().isel(star=slice(1, None))
    del trees["b"]["log_likelihood"]
    trees["b"]["log_likelihood"] = xr.DataTree(fewer)
    assert refusal(trees) == "b is not whole: run the fit again."


def test_terms_of_a_users_own_are_named():
    trees = pair()
    trees["b"]["log_likelihood"].attrs.update(others='["J"]')
    assert "b has terms beside the velocities (J), which are not compared." in str(
        bd.compare(trees)
    )


def test_a_star_that_cannot_be_is_said():
    trees = pair()
    trees["b"]["log_likelihood"]["v_los"].values[0, 3, 7] = -np.inf
    assert "b: the likelihood of 1 stars is zero" in refusal(trees)


def test_errors_of_velocities_must_be_the_same():
    trees = pair()
    trees["b"]["constant_data"]["v_los_err"].values[3] = 2.0
    assert "different stars (their v_los_err differ)" in refusal(trees)


def test_tables_of_other_names_and_the_same_stars_are_compared():
    assert "different files" in str(bd.compare(pair(data_sha256="1" * 64)))


def noise(seed, size):
    """A term added to each star's likelihood: differences of any size, with their own scatter."""
    return np.random.default_rng(seed).normal(size=N) * size


DIFFERENCES = {  # added to every star of b, its scatter, words
    "not told": (-0.01, 0.1, "The stars do not tell b from a: their elpd_loo differ by"),
    "small": (-0.04, 0.01, "The stars hardly tell b from a"),
    "told": (-0.5, 0.5, "b foresees the stars' velocities worse than a, by"),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_how_large_a_difference_tells(case):
    shift, scatter, words = DIFFERENCES[case]
    trees = pair()
    terms = trees["a"]["log_likelihood"]["v_los"].values
    added = noise(8, scatter)
    added += shift - added.mean()
    trees["b"]["log_likelihood"]["v_los"].values[:] = terms + added
    found = bd.compare(trees)
    assert found.sentences[0].startswith(words)
    assert "fewer than 100" in found.sentences[1]
    line = row(found, "b")
    assert line["difference"] == pytest.approx(N * shift)  # what was added, star by star
    assert line["difference_se"] == pytest.approx(np.sqrt(N) * np.std(added))


def test_what_is_not_to_be_trusted_is_said_first():
    trees = pair()
    lone = trees["b"]["log_likelihood"]["v_los"].values
    rng = np.random.default_rng(9)
    lone[..., 4] = -5.0 * rng.standard_exponential(lone.shape[:2]) - 4  # k = 5
    trees["a"].attrs["method"] = "vi-flow"  # without a Pareto k it does not pass
    found = bd.compare(trees)
    assert row(found, "b")["k_high"] == 1
    assert len(found.doubts) == 2
    assert str(found).startswith(found.doubts[0])
    assert "a did not pass its diagnostics" in found.doubts[0]
    assert "b: 1 star has a Pareto k above 0.70 (the largest in row 5" in found.doubts[1]
    assert bd.compare(pair()).doubts == ()
