# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first dwarf: from a table of stars to rho(r) and J
#
# **Claim.** From 500 line-of-sight velocities of a galaxy whose halo is known, the posterior of the
# density at 150 pc and of the J-factor contains the truth.
#
# The stars are drawn exactly from an equilibrium galaxy, so that there is a truth to compare with; for
# real stars replace the next cell by `bd.read_stars("draco.ecsv", "draco")`.

# %%
import numpy as np

import bayesdust as bd
from bayesdust import mocks, plots
from bayesdust.products import j_factor
from bayesdust.units import ARCMIN

truth, distance = mocks.BENCHMARK.halo, 80.0  # kpc
table = mocks.observe(mocks.benchmark(500, seed=1), distance, v_err=2.0, seed=1)
r_half = 0.19  # kpc
galaxy = bd.Galaxy("Mock", distance, rhalf=r_half / distance / ARCMIN, rhalf_err=0.4)
stars = bd.read_stars(table, galaxy)
table[:3]

# %% [markdown]
# One call: model, stars, options, seed. The model is a file with every prior on the page
# (`bayesdust models copy dsph_gnfw`); the result is an ArviZ DataTree.

# %%
tree = bd.fit("dsph_gnfw", stars, seed=1, options={"light_gamma": 1.0})
bd.summarise(tree)["name", "unit", "median", "q16", "q84", "rhat", "ess_bulk"]

# %% [markdown]
# Can it be believed? The verdict comes before any figure.

# %%
verdict = bd.verdict(tree)
for check in verdict.checks:
    print("ok  " if check.ok else "FAIL", check.sentence)
assert verdict.passed

# %%
posterior = tree["posterior"]
log10_J = posterior["log10_J"].sel(angle=0.5).values
low, median, high = np.quantile(log10_J, [0.025, 0.5, 0.975])
true_J = float(np.log10(j_factor(truth, 0.5, distance)))
print(f"log10 J(0.5 deg) = {median:.2f} ({low:.2f} to {high:.2f}, 95 %), truth {true_J:.2f}")
assert low < true_J < high

# %%
rho = posterior["rho"].sel(r=0.15, method="nearest").values
low, high = np.quantile(rho, [0.025, 0.975])
print(f"rho(150 pc) in {low:.2e} to {high:.2e} Msun/kpc3, truth {float(truth.density(0.15)):.2e}")
assert low < float(truth.density(0.15)) < high

# %% [markdown]
# What did the stars add? The prior's band lies behind the posterior's.

# %%
figure, ax = plots.figure(6, 4)
plots.density_profile(tree, ax)
r = posterior["r"].values
ax.plot(r, truth.density(r), "k--")
figure

# %%
figure, ax = plots.figure(6, 4)
plots.dispersion_profile(tree, ax)
figure
