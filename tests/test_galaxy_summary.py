"""The Milky Way: rows of the summary, and the check that the sums over the stars vanish."""

import math

import fake_galaxy_tree
import fake_tree
import numpy as np
import pytest
import xarray as xr
from test_summary import row_of

from bayesdust import gate, influence, summary

SCALARS = ["rho_dm_sun", "rho_dm_sun_msun_pc3", "sigma_1.1kpc", "chi2", "v_circ[8kpc]"]


@pytest.fixture(scope="module")
def tree():
    return fake_galaxy_tree.healthy()


@pytest.fixture(scope="module")
def table(tree):
    return summary.summarise(tree)


def without_variable(tree, group, *names):
    tree = tree.copy()
    tree[group] = xr.DataTree(tree[group].to_dataset(inherit=False).drop_vars(names))
    return tree


# --- summary -----------------------------------------------------------------------------------


def test_rows_are_scalars_then_points():
    table = summary.summarise(fake_galaxy_tree.healthy(n=2, draws=50))
    points = [f"{name}[{i}]" for name in ("phi", "rho", "rho_dm", "epsilon") for i in (0, 1)]
    points += [f"acceleration[{c},{i}]" for c in ("ax", "ay", "az") for i in (0, 1)]
    assert list(table["name"]) == [*fake_galaxy_tree.TRUTH, *SCALARS, *points]
    assert "points" not in table.meta["description"]


def test_rows_hold_the_right_numbers(tree, table):
    posterior = tree["posterior"]
    a_z = posterior["acceleration"].sel(component="az").isel(point=3).values
    row = row_of(table, "acceleration[az,3]")
    assert row["mean"] == pytest.approx(a_z.mean(), rel=1e-12)
    assert row["unit"] == "(km/s)2/kpc"
    for name, values in (
        ("v_circ[8kpc]", posterior["v_circ"].sel(R=8.0).values),
        ("rho[3]", posterior["rho"].isel(point=3).values),
    ):
        assert row_of(table, name)["median"] == pytest.approx(np.median(values), rel=1e-12)


def test_a_grid_without_8_kpc_has_no_row(tree):
    data = tree["posterior"].to_dataset(inherit=False)
    moved = xr.DataTree.from_dict({"posterior": data.assign_coords(R=data["R"] + 0.1)})
    moved.attrs = tree.attrs
    assert "v_circ[8kpc]" not in summary.scalars(moved)


def test_of_many_points_the_first_are_listed():
    tree = fake_galaxy_tree.healthy(n=201, draws=8, chains=2)
    names = list(summary.scalars(tree))
    assert "epsilon[49]" in names
    assert "acceleration[ay,49]" in names
    assert "epsilon[50]" not in names
    small = without_variable(tree, "posterior", "acceleration", "phi", "rho", "rho_dm")
    description = summary.summarise(small).meta["description"]
    assert description.endswith("of 201 points the first 50 are listed")


def test_truth_has_the_names_of_the_rows(tree, table):
    truth = summary.true_values(tree)
    assert set(truth) == set(table["name"]) - {"chi2"}
    wanted = tree["truth"]["acceleration"].sel(component="ay").values[4]
    assert truth["acceleration[ay,4]"] == wanted


def test_what_follows_from_the_parameters_is_derived(tree):
    found = summary.scalars(tree)
    assert {n for n, s in found.items() if not s.derived} == set(fake_galaxy_tree.TRUTH)
    dwarf = summary.scalars(fake_tree.healthy(draws=8))
    assert "v_circ[8kpc]" not in dwarf
    assert not dwarf["distance"].derived


# --- the gate ----------------------------------------------------------------------------------


def test_a_fit_is_judged_by_its_sums(tree, table):
    verdict = gate.verdict(tree, table)
    assert verdict.passed
    names = [check.name for check in verdict.checks]
    assert names[-1] == "fit"
    assert "plausible" not in names
    assert "chi2 = 588 (median) for 588 degrees of freedom" in verdict.checks[-1].sentence


def test_sums_that_do_not_vanish_fail():
    verdict = gate.verdict(fake_galaxy_tree.bad_fit())
    assert [check.name for check in verdict.failures] == ["fit"]
    assert "equation does not hold for these stars, this dust" in verdict.failures[0].sentence


@pytest.mark.parametrize(("sigmas", "ok"), [(4.7, True), (5.3, False)])
def test_the_limit_is_five_sigmas(sigmas, ok):
    dof = fake_galaxy_tree.DOF
    tree = fake_galaxy_tree.healthy(chi2=dof + sigmas * math.sqrt(2 * dof), n=2)
    assert gate.verdict(tree).passed == ok


@pytest.mark.parametrize("case", ["no chi2", "no dof", "no freedom", "NaN"])
def test_a_fit_that_is_not_known_fails(case):
    tree = fake_galaxy_tree.healthy(n=2)
    if case == "no chi2":
        tree = without_variable(tree, "posterior", "chi2")
    elif case == "NaN":
        chi2 = tree["posterior"]["chi2"].values.copy()
        chi2[0, 0] = np.nan
        tree = fake_tree.with_variable(tree, "posterior", "chi2", chi2)
    else:
        rest = {name: value for name, value in tree.attrs.items() if name != "chi2_dof"}
        tree.attrs = rest | ({} if case == "no dof" else {"chi2_dof": 0})
    assert "fit" in {check.name for check in gate.verdict(tree).failures}


def test_a_dwarf_is_not_judged_by_sums():
    tree = fake_tree.healthy()
    tree.attrs = tree.attrs | {"kind": "dwarf"}
    names = {check.name for check in gate.verdict(tree).checks}
    assert "plausible" in names
    assert "fit" not in names


def test_points_without_a_prior_are_no_trouble(tree):
    share = influence.prior_share(tree)
    assert row_of(share, "ln_mass_bulge")["mostly_prior"]
    assert not row_of(share, "rho_dm_sun")["mostly_prior"]
    assert "epsilon[0]" not in list(share["name"])
