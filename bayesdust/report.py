"""One self-contained HTML page for one result: verdict first, then numbers, figures, provenance.

The page loads nothing and runs no script: figures are data URIs, the style is inline, and all text
from tables and catalogues is escaped by the template engine.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdust import galaxy_report
from bayesdust.files import write_atomically
from bayesdust.gate import Verdict, verdict
from bayesdust.influence import dispersion, prior_share
from bayesdust.pages import render
from bayesdust.predictive_checks import predictive_pvalues
from bayesdust.report_figures import figures
from bayesdust.report_numbers import comparison, find_row, format_row, headlines, interval
from bayesdust.report_rings import rows_of_rings
from bayesdust.style import decimals
from bayesdust.summary import dataset, is_independent, is_milky_way, parameters, summarise

if TYPE_CHECKING:
    from astropy.table import Row, Table
    from xarray import DataTree
else:  # heavy, and only their objects are needed here
    Row = Table = DataTree = Any

log = logging.getLogger(__name__)

CHECKS = {
    "finite": "finite draws",
    "moved": "chains moved",
    "rhat": "R-hat",
    "ess_bulk": "bulk ESS",
    "ess_tail": "tail ESS",
    "divergences": "divergences",
    "ebfmi": "E-BFMI",
    "pareto_k": "Pareto k",
    "plausible": "plausible dispersion",
    "fit": "fit of the sums",
    "profile": "fit of the profile",
}
FACTS = (  # key of the galaxy, label, unit
    ("ra", "right ascension", "deg"),
    ("dec", "declination", "deg"),
    ("distance", "distance", "kpc"),
    ("rhalf", "half-light radius (semi-major axis)", "arcmin"),
    ("ellipticity", "ellipticity", ""),
    ("position_angle", "position angle (north through east)", "deg"),
    ("v_sys", "systemic velocity", "km s⁻¹"),
    ("pmra", "proper motion in right ascension (cos dec included)", "mas yr⁻¹"),
    ("pmdec", "proper motion in declination", "mas yr⁻¹"),
)
_ATTRIBUTES = (
    ("model", "model"),
    ("method", "method"),
    ("options", "options used"),
    ("seed", "seed"),
    ("source", "stars"),
    ("data_sha256", "SHA-256 of the stars"),
    ("bayesdust_version", "bayesdust"),
)


def write_report(
    tree: DataTree,
    path: str | Path,
    *,
    published: Table | None = None,
    run: Mapping[str, Any] | None = None,
) -> Verdict:
    """Write the report of a result to `path` in one go (never half a page) and return its verdict.

    `published` holds literature values: columns quantity ("log10_J[0.5deg]", ...), value,
    err_minus, err_plus, reference. `run` is the content of run.json; its `warnings` (a list) are
    shown as the catalogue's. A figure that the tree cannot fill is replaced by the reason.
    """
    table = summarise(tree)
    outcome = verdict(tree, table, published)
    context = _context(tree, table, outcome, published, dict(run or {}))
    page = render("report.html.j2", context, trim_blocks=True, lstrip_blocks=True)
    write_atomically(Path(path), page)
    return outcome


def _context(
    tree: DataTree,
    table: Table,
    outcome: Verdict,
    published: Table | None,
    run: dict[str, Any],
) -> dict[str, Any]:
    share = prior_share(tree)
    warnings = [str(text) for text in run.pop("warnings", None) or []]
    if is_milky_way(tree):
        special = galaxy_report.context(tree, table, share)
    else:
        special = _dwarf_context(tree, table, share, published)
    return special | {
        "outcome": outcome,
        "checks": CHECKS,
        "banner": _banner(outcome),
        "remarks": [
            *_notes(tree),
            *outcome.warnings,
            *special["remarks"],
            *_remarks(tree, share, warnings),
        ],
        "has_truth": "truth" in tree.children,
        "meanings": "; ".join(f"{name}: {text}" for name, text in _meanings(tree).items()),
        "independent": is_independent(tree),
        "run": list(_provenance(tree, run)),
        "warnings": warnings,
    }


def _dwarf_context(
    tree: DataTree, table: Table, share: Table, published: Table | None
) -> dict[str, Any]:
    """What only the page of a dwarf galaxy says."""
    limit = dispersion(tree)
    galaxy = _galaxy(tree)
    return {
        "title": f"{galaxy.get('name') or 'Galaxy'}: dark-matter density and J-factor",
        "remarks": [limit.sentence] if limit is not None and limit.is_upper_limit else [],
        "headlines": list(headlines(tree, table, share, limit)),
        "nothing": "The model defines none of density, mass and J.",
        "prior_note": " (both at the measured M(<1.8 R_half) where it is the haloes’ shapes that scatter)",
        "assumptions": _assumptions(tree, table),
        "dispersion": limit.sentence if limit and not limit.is_upper_limit else "",
        "comparison": list(comparison(table, published, limit)),
        "comparison_note": "Logarithms to base 10, with 68 % errors. Methods and samples differ; the values "
        "are to overlap, not to agree.",
        "figures": list(figures(tree, table, published)),
        "rings": list(rows_of_rings(predictive_pvalues(tree))),
        "rows": [format_row(row) for row in table],
        "points": [],
        "facts_title": "Facts about the galaxy",
        "facts": list(_facts(galaxy)),
        "references": dict(galaxy.get("references") or {}),
    }


def _galaxy(tree: DataTree) -> dict[str, Any]:
    """Facts of the galaxy from the root attribute `galaxy`; empty if absent or not JSON."""
    try:
        found = json.loads(tree.attrs.get("galaxy", "{}"))
    except json.JSONDecodeError:
        log.warning("the galaxy attribute of the results is not JSON and is left out")
        return {}
    return found if isinstance(found, dict) else {}


# --- what is said at the top -------------------------------------------------------------------


def _banner(outcome: Verdict) -> str:
    if not outcome.passed:
        if [check.name for check in outcome.failures] == ["plausible"]:
            return "Implausible for a dwarf galaxy: these numbers are not to be used."
        if [check.name for check in outcome.failures] == ["fit"]:
            return "The equation is not fulfilled: these numbers are not to be used."
        if [check.name for check in outcome.failures] == ["profile"]:
            return "The halo does not fit the profile: these numbers are not to be used."
        return "Diagnostics failed: these numbers are not to be used."
    if outcome.method.lower().startswith("vi"):
        return "Diagnostics passed: the variational guide covers the posterior."
    if outcome.method == "exact":
        return "Diagnostics passed: the posterior is exact, and the stars fulfil the equation."
    return "Diagnostics passed: the chains agree and hold enough independent draws."


def _notes(tree: DataTree) -> list[str]:
    """What the model left out of account, from the root attribute `notes` (a JSON list)."""
    return [str(note) for note in json.loads(tree.attrs.get("notes", "[]"))]


def _remarks(tree: DataTree, share: Table, warnings: list[str]) -> list[str]:
    """Sentences a reader must see before any number."""
    out = []
    if len(share) == 0:
        out.append("No prior draws are stored, so how much of these numbers is prior is not known.")
    else:
        out += _prior_remarks(tree, share)
    if warnings:
        plural = "s" if len(warnings) > 1 else ""
        out.append(f"The catalogue gave {len(warnings)} warning{plural}, listed below.")
    return out


def _prior_remarks(tree: DataTree, share: Table) -> list[str]:
    sampled = set(parameters(tree)) - _taken_from_facts(tree)
    flagged = share[np.asarray(share["mostly_prior"], dtype=bool)]
    derived = [row for row in flagged if row["derived"]]
    inner = [row for row in flagged if not row["derived"] and row["name"] in sampled]
    scaled = (
        ", both at the measured M(<1.8 R_half)" if any(row["at_mass"] for row in derived) else ""
    )
    out = []
    if derived:
        out.append(
            f"Mostly prior, not data: {_grouped(derived)}. In brackets, the 68 % width as a fraction of the "
            f"prior's{scaled}; above 0.7 the data weigh less than the prior."
        )
    if inner:
        out.append(
            f"The data say little about these parameters: {_grouped(inner, _meanings(tree))}. In "
            "brackets, the 68 % width as a fraction of the prior's: at 1 nothing was learned."
        )
    return out


def _taken_from_facts(tree: DataTree) -> set[str]:
    """Parameters whose prior is a measurement: the stars are not expected to say more."""
    options = json.loads(tree.attrs.get("options", "{}"))
    return {"distance"} | ({"rhalf"} if options.get("light", "facts") == "facts" else set())


def _meanings(tree: DataTree) -> dict[str, str]:
    """What the scalars of the posterior are, by name, where they say."""
    named = dataset(tree, "posterior").data_vars.items()
    profiles = {"rho", "mass", "v_circ", "sigma_los", "log10_J", "log10_D"}
    deepest = 3
    if is_milky_way(tree):
        profiles, deepest = {"rho_dm_r"}, 4
    found = {str(n): str(v.attrs.get("long_name", n)) for n, v in named if v.ndim <= deepest}
    return {n: text for n, text in found.items() if text != n and n not in profiles}


def _grouped(rows: list[Row], meanings: Mapping[str, str] | None = None) -> str:
    """Names with the ratios of widths, "log10_J[0.1deg]" and its like gathered as one.

    More than six places are counted. What a name means goes before it, where `meanings` has it.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["name"]).split("[")[0], []).append(row)
    out = []
    for stem, members in groups.items():
        places = [str(row["name"])[len(stem) :].strip("[]") for row in members]
        low, high = (f"{f(float(row['ratio']) for row in members):.2f}" for f in (min, max))
        named = ", ".join(places) if len(places) <= 6 else f"{len(places)} places"
        at = f" at {named}" if any(places) else ""
        meaning = (meanings or {}).get(stem)
        stem = f"{meaning}, {stem}" if meaning else stem
        out.append(f"{stem}{at} ({low if low == high else f'{low} to {high}'})")
    return "; ".join(out)


def _assumptions(tree: DataTree, table: Table) -> list[str]:
    """The truncation radius and the inner slope, on which J hangs."""
    r_trunc = str(tree.attrs.get("r_trunc", "none"))
    if r_trunc.lower() == "none":
        first = "J and D integrate the whole line of sight; the halo is not truncated."
    else:
        first = f"J and D integrate the whole line of sight; the halo ends at {r_trunc} kpc."
    rho_max = str(tree.attrs.get("rho_max", "none"))
    if rho_max.lower() != "none":
        first += (
            f" For J the density is levelled off at {float(rho_max):.2g} Msun/kpc3 by annihilation."
        )
    return [first, _slope(tree, table)]


def _slope(tree: DataTree, table: Table) -> str:
    row = find_row(table, "gamma")
    if row is None:
        return "The inner slope of the halo is fixed by its form, or not named gamma."
    draws = np.asarray(dataset(tree, "posterior")["gamma"].values, dtype=float)
    steep = float(np.mean(draws >= 1.5))
    text = (
        f"The inner slope gamma is {interval(row, '16', '84')} (68 %), below {row['q975']:.2f} "
        "at 97.5 %; without a plateau J is finite for gamma < 1.5 only."
    )
    if steep > 0:
        text += (
            f" {100 * steep:.1f} % of the draws are at 1.5 or above: there J is set by the "
            "plateau or inner cut of the model, not by the stars."
        )
    return text


# --- where it comes from -----------------------------------------------------------------------


def _facts(galaxy: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, label, unit in FACTS:
        value, error = galaxy.get(key), galaxy.get(f"{key}_err")
        if value is None:
            continue
        yield label, f"{_with_error(value, error)} {unit}".strip()


def _with_error(value: Any, error: Any) -> str:
    """A fact with its error to two figures, itself to one more if that is no zero; text as it is."""
    if not isinstance(value, int | float):
        return str(value)
    if not isinstance(error, int | float):
        return f"{value:.8g}"
    digits = decimals(error)
    shown = f"{value:.{digits + 1}f}"
    shown = shown[:-1] if shown.endswith("0") and digits else shown
    return f"{shown} ± {error:.{digits}f}"


def _provenance(tree: DataTree, run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """How the result was made: attributes of the tree, then whatever else run.json says."""
    for key, label in _ATTRIBUTES:
        if key in tree.attrs:
            value = str(tree.attrs[key])
            yield label, _flat(json.loads(value)) if key == "options" else value
    sizes = dataset(tree, "posterior").sizes
    yield "draws", f"{sizes.get('chain', 0)} chain(s) of {sizes.get('draw', 0)}"
    known = {key for key, _ in _ATTRIBUTES} | {"schema_version", "galaxy"}
    for key, value in run.items():
        if key not in known and value not in (None, "", {}, []):
            unit = " s" if any(word in key for word in ("time", "timing", "wall")) else ""
            yield key.replace("_", " "), _flat(value, unit)


def _flat(value: Any, unit: str = "") -> str:
    """One line of text for a value of run.json; numbers in a mapping may have a unit."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_flat(item, unit)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_flat(item) for item in value)
    return f"{value:.4g}{unit}" if isinstance(value, float) else str(value)
