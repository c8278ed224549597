"""The page of the Milky Way: what it says and does not say, and its figures."""

import json

import fake_galaxy_tree
import fake_tree
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from test_report import Page
from test_summary import row_of

from bayesdust import galaxy_plots, galaxy_report, summary
from bayesdust.errors import BayesdustError
from bayesdust.report import write_report

OF_DWARFS = ("J and D", "J-factor", "R_half", "half-light", "dispersion", "Beside published", "M(<")


@pytest.fixture(scope="module")
def tree():
    return fake_galaxy_tree.healthy()


@pytest.fixture(scope="module")
def table(tree):
    return summary.summarise(tree)


@pytest.fixture(scope="module")
def written(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("galaxy") / "report.html"
    verdict = write_report(tree, path, run={"command": "bayesdust fit", "warnings": []})
    return path.read_text(encoding="utf-8"), verdict


@pytest.fixture
def without_figures(monkeypatch):
    """For tests of the text alone: drawing takes seconds."""
    missing = {"src": "", "missing": "not asked for"}
    monkeypatch.setattr("bayesdust.report_figures._picture", lambda *_: missing)


def report_of(tree, folder):
    write_report(tree, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


# --- the page ----------------------------------------------------------------------------------


def test_the_page_is_of_the_milky_way(written, table):
    source, verdict = written
    text = Page(source).text
    assert verdict.passed
    assert "Milky Way: forces, dark matter and dust" in text
    top, head = text[: text.index("Results")], text[text.index("Results") : text.index("Figures")]
    for words in (
        "The bar is left out.",
        "chi2 = 588 (median",
        "588 degrees",
        "inner slope of the",
    ):
        assert words in top
    for name, digits in (("rho_dm_sun", 3), ("rho_dm_sun_msun_pc3", 4), ("v_circ[8kpc]", 1)):
        assert f"{row_of(table, name)['median']:.{digits}f}" in head
    for words in ("GeV cm⁻³", "M⊙ pc⁻³", "km s⁻¹", "M⊙ pc⁻²", "Σ(<1.1 kpc)", "γ", "mostly prior"):
        assert words in head
    assert "fit of the sums" in text[text.index("Diagnostics") :]


def test_nothing_of_dwarf_galaxies_is_on_it(written):
    text = Page(written[0]).text
    assert [words for words in OF_DWARFS if words in text] == []


def test_every_figure_is_drawn(written):
    images = Page(written[0]).images
    titles = [image["alt"].split(".")[0] for image in images]
    mine = ["Dark-matter density", "Circular velocity", "Vertical force", "Density above the plane"]
    assert titles == [*mine, "Accelerations", "Dust efficiency", "Parameters", "Chains"]
    assert "Not drawn" not in written[0]


def test_points_have_a_table_of_their_own(written, tree, table):
    text = Page(written[0]).text
    rows = text[text.index("Summary of every") : text.index("At the points")]
    assert "phi[" not in rows
    points = text[text.index("At the points") : text.index("Frame and grids")]
    assert f"{tree['constant_data']['y'].values[7]:.3f}".replace("-", "−") in points
    row = row_of(table, "epsilon[7]")
    assert f"{row['median']:.3f} ± {(row['q84'] - row['q16']) / 2:.3f}" in points


def test_no_more_decimals_than_say_something():
    row = {"median": 1 - 1e-12, "q16": 1 - 3e-12, "q84": 1.0}
    assert galaxy_report._cell(row, 1.0) == "1.0000 ± 0.0000"
    assert galaxy_report._cell(row | {"q16": 0.9}, 1.0) == "1.000 ± 0.050"


@pytest.mark.usefixtures("without_figures")
def test_a_bad_fit_says_so_first(tmp_path):
    text = report_of(fake_galaxy_tree.bad_fit(), tmp_path).text
    top = text[: text.index("Results")]
    assert "The equation is not fulfilled: these numbers are not to be used." in top
    assert "equation does not hold for these stars" in top


@pytest.mark.usefixtures("without_figures")
def test_what_is_mostly_prior_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(fake_galaxy_tree, "POSTERIOR_SD", fake_galaxy_tree.PRIOR_SD)
    text = report_of(fake_galaxy_tree.healthy(), tmp_path).text
    top = text[: text.index("Results")]
    assert "Mostly prior, not data: rho_dm_sun (" in top
    assert "phi at 30 places (" in top


@pytest.mark.usefixtures("without_figures")
def test_of_many_points_the_page_shows_some(tmp_path):
    text = report_of(fake_galaxy_tree.healthy(n=60, draws=8, chains=2), tmp_path).text
    assert "The first 50 of 60 points; those of all 60 in summary.ecsv" in text


def test_what_is_missing_is_said(tmp_path):
    optional = ("truth", "prior", "sample_stats", "constant_data")
    tree = fake_tree.without(fake_galaxy_tree.healthy(n=2, draws=100), *optional)
    tree.attrs = {"kind": "milky_way", "method": "nuts"}
    text = report_of(tree, tmp_path).text
    assert "No prior draws are stored" in text
    assert "chi2 of the sums and its degrees of freedom are not known" in text
    assert "the results hold no group 'constant_data'" in text
    assert "At the points" not in text


# --- figures -----------------------------------------------------------------------------------


def test_radial_acceleration_is_that_along_the_radius(tree):
    """Of a force towards the axis, a_R is minus its size wherever the point is."""
    place = galaxy_plots.places(tree)
    toward = -place / np.hypot(place[:, 0], place[:, 1])[:, None] * [1.0, 1.0, 0.0] * 7000.0
    shape = tree["posterior"]["acceleration"].shape
    made = fake_tree.with_variable(
        tree, "posterior", "acceleration", np.broadcast_to(toward, shape).copy()
    )
    axes = galaxy_plots.accelerations(made).axes
    middle = axes[0].containers[0].lines[0].get_ydata()
    np.testing.assert_allclose(middle, -7000.0, rtol=1e-12)
    np.testing.assert_array_equal(axes[1].containers[0].lines[0].get_ydata(), 0.0)


def test_a_point_on_the_axis_has_no_radial_acceleration(tree):
    x, y = np.zeros((2, 30))
    x[1:] = 5.0
    made = fake_tree.with_variable(tree, "constant_data", "x", x)
    made = fake_tree.with_variable(made, "constant_data", "y", y)
    axes = galaxy_plots.accelerations(made).axes
    assert [len(ax.containers[0].lines[0].get_ydata()) for ax in axes] == [29, 30]


def test_efficiency_needs_the_sun(tree):
    ax = galaxy_plots.efficiency(tree, Figure().subplots())
    assert len(ax.containers[0].lines[0].get_xdata()) == 30
    bare = tree.copy()
    bare.attrs = {name: value for name, value in tree.attrs.items() if name != "sun"}
    with pytest.raises(BayesdustError, match="where the Sun is"):
        galaxy_plots.efficiency(bare, Figure().subplots())


@pytest.mark.parametrize("stretch", [1.0, 5.0])
def test_the_sun_stands_at_its_radius(tree, stretch):
    """On a linear axis, and on a logarithmic one where the shells span more than a decade."""
    data = tree["posterior"].to_dataset(inherit=False)
    r = data["r"].values
    made = fake_tree.without(tree, "truth", "prior")
    made["posterior"] = xr.DataTree(data.assign_coords(r=r[0] * (r / r[0]) ** stretch))
    made.attrs = tree.attrs | {"sun": json.dumps([-6.0, 0.0, 8.0])}
    ax = galaxy_plots.density(made, Figure().subplots())
    assert ax.get_xscale() == ("linear" if stretch == 1.0 else "log")
    line = next(line for line in ax.lines if line.get_linestyle() == ":")
    assert line.get_xdata()[0] == pytest.approx(10.0)
