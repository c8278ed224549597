"""Figures draw on the axes they are given and leave no state behind."""

import subprocess
import sys

import fake_tree
import numpy as np
import pytest
from astropy.table import Table
from matplotlib.figure import Figure

from bayesdust import chain_plots, literature, plots, style
from bayesdust.errors import BayesdustError

PUBLISHED = Table(
    rows=[
        ("log10_J[0.5deg]", 18.83, 0.12, 0.12, "One 2019"),
        ("log10_J[0.5deg]", 19.03, 0.28, 0.37, "Two $x_1$"),
        ("log10_J[0.1deg]", 18.10, 0.20, 0.20, "One 2019"),
        ("log10_rho[0.15kpc]", 8.37, 0.05, 0.05, "One 2019"),
    ],
    names=("quantity", "value", "err_minus", "err_plus", "reference"),
)


@pytest.fixture(scope="module")
def tree():
    return fake_tree.healthy()


def labels(ax):
    return ax.get_legend_handles_labels()[1]


@pytest.mark.parametrize("name", plots.FIGURES)
def test_each_figure_draws_on_its_axes_with_units(tree, name):
    fig, ax = plots.figure()
    assert plots.FIGURES[name](tree, ax) is ax
    assert "[" in ax.get_xlabel()
    assert "[" in ax.get_ylabel()
    assert "truth" in labels(ax)
    assert name == "dispersion" or "prior, 95 %" in labels(ax)
    fig.draw_without_rendering()


@pytest.mark.parametrize("name", plots.FIGURES)
def test_optional_groups_may_be_missing(tree, name):
    bare = fake_tree.without(
        tree, "prior", "truth", "posterior_predictive", "observed_data", "constant_data"
    )
    fig, ax = plots.figure()
    plots.FIGURES[name](bare, ax)
    assert "truth" not in labels(ax)
    fig.draw_without_rendering()


@pytest.mark.parametrize("name", plots.FIGURES)
def test_a_variable_that_is_missing_is_a_clear_error(tree, name):
    with pytest.raises(BayesdustError, match=r"no group|holds no finite"):
        plots.FIGURES[name](fake_tree.without(tree, "posterior"), plots.figure()[1])


def test_bands_hold_the_quantiles_of_the_draws(tree):
    x, q = plots.read_band(tree, "posterior", "rho", "r")
    draws = tree["posterior"]["rho"].values.reshape(-1, x.size)
    np.testing.assert_allclose(q[1], np.percentile(draws, 16, axis=0), rtol=1e-12)
    np.testing.assert_allclose(q[4], np.percentile(draws, 97.5, axis=0), rtol=1e-12)


def test_published_values_stand_beside_their_angle(tree):
    fig, ax = plots.figure()
    plots.j_profile(tree, ax, PUBLISHED)
    assert literature.published_angles(PUBLISHED) == [0.1, 0.5]
    assert labels(ax).count("One 2019") == 1
    assert r"Two \$x_1\$" in labels(ax)
    low, high = ax.get_ylim()
    assert low < 18.83 - 0.12
    places = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() in "os"])
    np.testing.assert_allclose(sorted(places), [0.1, 0.5 * 0.97, 0.5 * 1.03])
    assert low > 12  # the prior reaches far below
    assert high > 19.03 + 0.37
    fig.draw_without_rendering()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6])
def test_the_legend_stays_on_the_page(tree, count):
    names = ["Read+2019", "Hayashi+2020", "Geringer-Sameth+2015", "Pace & Strigari 2019", "A", "B"]
    rows = [("log10_J[0.5deg]", 19.0, 0.1, 0.1, name) for name in names[:count]]
    published = Table(rows=rows, names=PUBLISHED.colnames) if rows else None
    fig, ax = plots.figure()
    plots.j_profile(tree, ax, published)
    fig.draw_without_rendering()
    assert ax.get_legend().get_window_extent().x1 <= fig.bbox.x1
    with_legend = ax.bbox.width
    ax.get_legend().remove()
    fig.draw_without_rendering()
    assert with_legend == pytest.approx(ax.bbox.width, rel=0.02)  # it squeezes nothing


def test_published_values_without_errors_have_none():
    table = Table(PUBLISHED, masked=True)
    table["err_minus"].mask[0] = True
    value, minus, plus, reference = literature.published_values(table, "log10_J[0.5deg]")[0]
    assert (value, minus, plus, reference) == (18.83, 0.0, 0.12, "One 2019")


def test_every_sampled_parameter_has_its_row_in_the_corner(tree):
    fig = chain_plots.corner_plot(tree)
    assert isinstance(fig, Figure)
    assert len(fig.axes) == len(fake_tree.TRUTH) ** 2
    assert "distance" not in chain_plots.sampled(tree)
    fig.draw_without_rendering()


def test_corner_of_nothing_says_so():
    with pytest.raises(BayesdustError, match="no sampled parameter varies"):
        chain_plots.corner_plot(fake_tree.frozen())
    with pytest.raises(BayesdustError, match="too few"):
        chain_plots.corner_plot(fake_tree.healthy(chains=2, draws=6))


def test_ranks_of_chains_that_agree_and_of_one_that_is_stuck(tree):
    for source, level in ((tree, True), (fake_tree.stuck_chain(), False)):
        _, ax = plots.figure()
        chain_plots.ranks(source, ax, "v_sys")
        shares = np.array(
            [patch.get_data().values for patch in ax.patches if hasattr(patch, "get_data")]
        )
        np.testing.assert_allclose(shares.mean(axis=1), 1.0)
        assert bool(np.abs(shares - 1).max() < 1) is level
    with pytest.raises(BayesdustError, match="no 'nothing'"):
        chain_plots.trace(tree, plots.figure()[1], "nothing")


def test_chain_figure_has_a_row_a_quantity(tree):
    fig = chain_plots.chain_figure(tree, ["gamma", "log10_J[0.5deg]"])
    assert len(fig.axes) == 4
    fig.draw_without_rendering()


def test_no_pyplot_state_is_left_behind(tree):
    from matplotlib import pyplot, rcParams

    before = dict(rcParams)
    for draw in plots.FIGURES.values():
        draw(tree, plots.figure()[1])
    chain_plots.corner_plot(tree)
    assert pyplot.get_fignums() == []
    assert dict(rcParams) == before


def test_import_is_light():
    rooms = "chain_plots", "gate", "influence", "plots", "report", "rings", "summary"
    code = f"import sys, {', '.join(f'bayesdust.{n}' for n in rooms)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "arviz", "astropy", "corner"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("error", "digits"), [(0.034, 3), (1.2, 1), (12.0, 0), (340.0, 0), (0.0, 3), (np.nan, 3)]
)
def test_digits_follow_the_error(error, digits):
    assert style.decimals(error) == digits


def test_no_negative_zero():
    assert style.fixed(-0.001, 2) == "0.00"


def test_a_notebook_shows_a_figure():
    figure, _ = plots.figure()
    assert figure._repr_png_().startswith(b"\x89PNG")
