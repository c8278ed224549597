"""The page: verdict first, self-contained, nothing injected, readable in a browser."""

import json
import re
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import fake_tree
import numpy as np
import pytest
from astropy.table import Table

from bayesdust.report import write_report

RUN = {
    "command": ["bayesdust", "fit", "dsph_gnfw", "stars.ecsv"],
    "versions": {"jax": "0.12.0"},
    "timings": {"import": 3.1, "sampling": 12.3456},
    "warnings": ["stars 3 and 17 are 0.7 arcsec apart"],
}
PUBLISHED = Table(
    rows=[
        ("log10_J[0.5deg]", 18.83, 0.12, 0.12, "Pace & Strigari 2019"),
        ("log10_rho[0.15kpc]", 8.37, 0.05, 0.05, "Read+2019"),
    ],
    names=("quantity", "value", "err_minus", "err_plus", "reference"),
)
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.links, self.images, self.text = [], [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "data", "srcset")]
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Path, source and verdict of the report of a healthy mock."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    verdict = write_report(fake_tree.healthy(), path, published=PUBLISHED, run=RUN)
    return path, path.read_text(encoding="utf-8"), verdict


def report_of(tree, folder, **options):
    write_report(tree, folder / "report.html", **options)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def without_figures(monkeypatch):
    """For tests of the text alone: drawing takes seconds."""
    missing = {"src": "", "missing": "not asked for"}
    monkeypatch.setattr("bayesdust.report_figures._picture", lambda *_: missing)


def test_verdict_comes_first_and_is_returned(written):
    _, source, verdict = written
    text = Page(source).text
    assert verdict.passed
    assert text.index("Diagnostics passed") < text.index("Results") < text.index("Summary of every")


def test_it_loads_nothing_and_runs_nothing(written):
    _, source, _ = written
    page = Page(source)
    assert all(link.startswith("data:image/") for link in page.links)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    without_images = re.sub(r'src="data:[^"]*"', "", source)
    assert "http" not in without_images
    assert "url(" not in without_images
    assert "@import" not in without_images


def test_every_figure_is_there_with_a_text_for_those_who_cannot_see(written):
    images = Page(written[1]).images
    assert len(images) == 7
    assert all(len(image["alt"]) > 30 for image in images)
    assert "Not drawn" not in written[1]


def test_headings_do_not_skip_a_level(written):
    levels = [int(tag[1]) for tag in Page(written[1]).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_numbers_of_the_head_are_those_of_the_draws(written):
    draws = fake_tree.healthy()["posterior"]["rho"].sel(r=0.15, method="nearest").values
    low, middle, high = np.percentile(draws, [16, 50, 84]) / 1e8
    text = Page(written[1]).text
    assert f"{middle:.2f}" in text
    assert f"{low:.2f} to {high:.2f}" in text
    for words in ("ρ(150 pc)", "log₁₀ J(0.5°)", "M(<1.8 R_half)", "not truncated", "inner slope"):
        assert words in text


def test_published_values_and_provenance_are_shown(written):
    text = Page(written[1]).text
    assert "Pace & Strigari 2019" in text
    assert "18.83 −0.12 +0.12" in text
    for words in (
        "import 3.1 s; sampling 12.35 s",
        "jax 0.12.0",
        "0.7 arcsec apart",
        "81.55 ± 2.0 kpc",
        "10.50 ± 0.30 arcmin",
    ):
        assert words in text
    assert "A. Author et al. 1999" in text


@pytest.mark.usefixtures("without_figures")
def test_no_half_page_is_left_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the old page")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("bayesdust.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(fake_tree.variational(), path)
    assert path.read_text() == "the old page"
    assert list(tmp_path.iterdir()) == [path]


def test_text_from_tables_injects_nothing(tmp_path):
    tree = fake_tree.healthy(draws=100)
    galaxy = fake_tree.GALAXY | {"name": EVIL, "references": {EVIL: EVIL}, "distance": EVIL}
    hostile = {"galaxy": json.dumps(galaxy), "model": EVIL, "source": '"><img src=x onerror=a>'}
    tree.attrs = tree.attrs | hostile
    published = Table(PUBLISHED)
    published["reference"] = [EVIL, '" onload="x']
    run = {"command": EVIL, "warnings": [EVIL], EVIL: {EVIL: EVIL}}
    page = report_of(tree, tmp_path, published=published, run=run)
    assert "script" not in page.tags
    assert len(page.images) == 7
    assert all(set(image) == {"src", "alt"} for image in page.images)
    assert EVIL in page.text


BROKEN = {
    "stuck chain": (fake_tree.stuck_chain, "Largest R-hat"),
    "frozen": (fake_tree.frozen, "never moved"),
    "NaN draws": (fake_tree.nan_draws, "12 draws of gamma"),
    "three draws": (lambda: fake_tree.healthy(draws=3), "cannot be computed"),
    "guide too narrow": (lambda: fake_tree.variational(0.9), "Pareto k of the guide is 0.90"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_failed_run_says_so_at_the_top(case, tmp_path):
    make, sentence = BROKEN[case]
    text = report_of(make(), tmp_path).text
    top = text[: text.index("Results")]
    assert "Diagnostics failed: these numbers are not to be used." in top
    assert sentence in top


@pytest.mark.usefixtures("without_figures")
def test_what_is_mostly_prior_is_said_at_the_top(tmp_path):
    text = report_of(fake_tree.mostly_prior(), tmp_path).text
    assert "Mostly prior, not data: log10_J at 0.1deg" in text[: text.index("Results")]


@pytest.mark.usefixtures("without_figures")
def test_parameters_are_named_in_words_and_facts_are_left_out(tmp_path):
    tree = fake_tree.mostly_prior()
    for name, words in (("gamma", "inner slope"), ("ln_mass", "ln of M(<1.8 R_half) in Msun")):
        tree["posterior"][name].attrs["long_name"] = words
    tree.attrs = tree.attrs | {"parameters": json.dumps([*fake_tree.TRUTH, "rhalf"])}
    for group in ("posterior", "prior"):
        data = tree[group].to_dataset(inherit=False)
        tree[group].dataset = data.assign(rhalf=0.01 * data["v_sys"] / data["v_sys"].std() + 10)
    text = report_of(tree, tmp_path).text
    top = text[: text.index("Results")]
    assert "inner slope, gamma (" in top
    assert "at 1 nothing was learned" in top
    assert "rhalf (" not in top[top.index("say little") :]
    assert "gamma: inner slope; ln_mass: ln of M(<1.8 R_half) in Msun" in text
    tree.attrs = tree.attrs | {"options": json.dumps({"light": "joint"})}
    text = report_of(tree, tmp_path).text
    assert "rhalf (" in text[text.index("say little") : text.index("Results")]


@pytest.mark.usefixtures("without_figures")
def test_our_value_stands_once_beside_many(tmp_path):
    rows = [("log10_J[0.5deg]", 18.8 + 0.1 * i, 0.1, 0.1, f"Author {i}") for i in range(3)]
    published = Table(rows=rows, names=PUBLISHED.colnames)
    write_report(fake_tree.healthy(draws=100), tmp_path / "r.html", published=published)
    page = (tmp_path / "r.html").read_text()
    table = page[page.index("Beside published") : page.index("<h2>Figures")]
    assert table.count("log10_J[0.5deg]") == 1
    assert table.count('rowspan="3"') == 3
    assert all(f"Author {i}" in table for i in range(3))


@pytest.mark.usefixtures("without_figures")
def test_an_upper_limit_has_no_two_sided_interval(tmp_path):
    text = report_of(fake_tree.swamped(), tmp_path, published=PUBLISHED).text
    assert "swamp the dispersion" in text[: text.index("Results")]
    head = text[text.index("Results") : text.index("Beside published")]
    assert head.count("(95 %)") == 4
    assert " to " not in head[: head.index("Value: the median")]


def test_missing_groups_leave_a_page_that_says_what_is_missing(tmp_path):
    optional = ("sample_stats", "prior", "posterior_predictive", "observed_data", "constant_data")
    tree = fake_tree.without(fake_tree.healthy(), "truth", *optional)
    tree.attrs = {"method": "nuts"}
    text = report_of(tree, tmp_path).text
    assert "No prior draws are stored" in text
    assert "Divergences were not recorded" in text
    assert "None are stored." in text


@pytest.mark.usefixtures("without_figures")
def test_a_truncated_halo_and_a_steep_slope_are_remarked(tmp_path):
    tree = fake_tree.healthy()
    steep = tree["posterior"]["gamma"].values + 0.4
    tree = fake_tree.with_variable(tree, "posterior", "gamma", steep)
    tree.attrs = tree.attrs | {"r_trunc": "5.0"}
    text = report_of(tree, tmp_path).text
    assert "the halo ends at 5.0 kpc" in text
    assert f"{100 * np.mean(steep >= 1.5):.1f} % of the draws are at 1.5 or above" in text


def test_same_result_same_page(written, tmp_path):
    write_report(fake_tree.healthy(), tmp_path / "again.html", published=PUBLISHED, run=RUN)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == written[1]


@pytest.mark.browser
def test_a_browser_shows_the_page(written, chromium, tmp_path):
    """Rendered at 1100 pixels: something is drawn in every band of the page, in more than grey."""
    from matplotlib.image import imread

    shot = tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,4000"]
    command = [chromium, *flags, f"--screenshot={shot}", written[0].as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = imread(shot)[..., :3]
    assert pixels.shape[:2] == (4000, 1100)
    bands = pixels.reshape(20, 200, 1100, 3)
    assert (bands.std(axis=(1, 2, 3)) > 0.02).all()
    colourful = np.ptp(pixels, axis=2) > 0.3
    assert colourful[800:].mean() > 0.02
