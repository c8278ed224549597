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
# # Free of families: a flow for the light, a halo of free slope
#
# **Claim.** From 400 stars of a galaxy whose halo is known, and without a family of profiles for its light or
# its halo, the posterior of rho(r) contains the truth where the stars are, if the anisotropy is right.
#
# The stars are drawn exactly from the benchmark of Lim+2025 (arXiv:2505.00763): (2, 5, 1) light of 0.25 kpc
# in an NFW-like cusp, isotropic.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from astropy.table import Table

import bayesdust as bd
from bayesdust import mocks, plots
from bayesdust.anisotropy import Isotropic
from bayesdust.flows.light import FlowTracer
from bayesdust.flows.smeared import Training, compressed, of_members, train
from bayesdust.flows.spherical import CoredField, NetworkField, RampField, spherical_flow
from bayesdust.inference import dwarf
from bayesdust.inference.draws import constrain
from bayesdust.inference.nuts import Plan, run_nuts
from bayesdust.units import ARCMIN

truth, distance = mocks.BENCHMARK, 80.0  # kpc
table = mocks.observe(mocks.benchmark(400, seed=4), distance, v_err=1.0, seed=4)
x, y = np.asarray(table["x"]), np.asarray(table["y"])
rhalf = float(np.median(np.hypot(x, y))) / distance / ARCMIN
galaxy = bd.Galaxy("Mock", distance, rhalf=rhalf, rhalf_err=0.1 * rhalf, v_sys=0.0)
positions = Table({"x": x, "y": y, "p_member": np.ones(len(x))})
stars = bd.read_stars(table, galaxy, photometry=positions)

# %% [markdown]
# ## Equivariant flows
#
# A point moves along its own radius, so a normal law becomes another spherical density: flat at the centre
# for a smooth field, a cusp after a radial power.

# %%
radii = np.geomspace(1e-3, 3, 60)
places = jnp.asarray(radii)[:, None] * jnp.array([0.0, 0.6, 0.8])
field = NetworkField(jax.random.key(1))
cases = {
    "cored": spherical_flow(field, 0.3),
    "cored, tanh(r/r_0)": spherical_flow(CoredField(field), 0.3),
    "cusp of slope 0.5": spherical_flow(field, 0.3, 0.5),
    "cusp of slope 1": spherical_flow(field, 0.3, 1.0),
}
figure, ax = plots.figure(6, 4)
for label, flow in cases.items():
    ax.loglog(radii, np.exp(jax.vmap(flow.log_prob)(places)), label=label)
ax.set(xlabel="r [kpc]", ylabel="n(r) [kpc$^{-3}$]", ylim=(1e-6, 1e4))
ax.legend()
figure

# %% [markdown]
# ## n(r) from (x, y) alone
#
# The posterior over a flow's weights is eight lines of NumPyro.


# %%
def light(data):
    field = numpyro.sample("field", dist.Normal(0.0, jnp.array([0.5] + [0.2] * 8)).to_event(1))
    gamma = numpyro.sample("light_gamma", dist.Uniform(0.0, 1.4))
    tracer = FlowTracer.from_field(RampField(field), data.r_half, gamma)
    dwarf.light_likelihood(data, tracer, data.galaxy.distance, 1.0)
    numpyro.deterministic("nu", tracer.density(data.r))


data = dwarf.prepare(stars, {"light": "joint"})
draws = run_nuts(light, data, Plan(num_warmup=400, num_draws=300, num_chains=2, seed=1))
nu = constrain(light, data, draws.z)["nu"].reshape(-1, len(data.r))
low, middle, high = np.quantile(nu, [0.025, 0.5, 0.975], axis=0)
used = (data.r > 0.05) & (data.r < 1)
exact = np.asarray(truth.tracer.density(data.r))
inside = np.mean((low < exact)[used] & (exact < high)[used])
print(f"truth inside the 95 % band at {inside:.0%} of radii from 0.05 to 1 kpc")
figure, ax = plots.figure(6, 4)
ax.fill_between(data.r, low, high, alpha=0.3)
ax.loglog(data.r, middle, label="flow, 95 %")
ax.loglog(data.r, exact, "k--", label="truth")
ax.set(xlabel="r [kpc]", ylabel="n(r) [kpc$^{-3}$]", xlim=(0.02, 2), ylim=(1e-3, 1e3))
ax.legend()
assert inside > 0.5
figure

# %% [markdown]
# ## rho(r) from (x, y, v_los): the anisotropy given rightly, and given wrongly

# %%
right = bd.fit(
    "dsph_flow", stars, options={"anisotropy": "isotropic"}, num_draws=500, num_warmup=500, seed=1
)
few = {"num_warmup": 400, "num_draws": 300, "num_chains": 2, "seed": 1}  # for the picture
wrong = bd.fit("dsph_flow", stars, options={"beta_ani": 0.5}, **few)
assert bd.verdict(right).passed
bd.summarise(right)["name", "unit", "median", "q025", "q975", "rhat"]

# %%
for tree, label in ((right, "beta_ani = 0, as it is"), (wrong, "beta_ani = 0.5, wrong")):
    figure, ax = plots.figure(6, 4)
    plots.density_profile(tree, ax)
    r = tree["posterior"]["r"].values
    ax.plot(r, truth.halo.density(r), "k--")
    ax.set_title(label, loc="right")
    display(figure)  # noqa: F821

rho = right["posterior"]["rho"].values.reshape(-1, len(r))
low, high = np.quantile(rho, [0.025, 0.975], axis=0)
used = (r > 0.1) & (r < 1)
exact = np.asarray(truth.halo.density(r))
inside = np.mean((low < exact)[used] & (exact < high)[used])
print(f"truth inside the 95 % band of rho at {inside:.0%} of radii from 0.1 to 1 kpc")
assert inside > 0.5

# %% [markdown]
# The rotation curve and the J-factor follow from the same draws.

# %%
figure, ax = plots.figure(6, 4)
for tree, label, colour in ((right, "right", "C0"), (wrong, "wrong", "C1")):
    v = tree["posterior"]["v_circ"].values.reshape(-1, len(r))
    low, high = np.quantile(v, [0.025, 0.975], axis=0)
    ax.fill_between(r, low, high, alpha=0.3, color=colour, label=f"{label} anisotropy, 95 %")
ax.plot(r, truth.halo.circular_velocity(r), "k--", label="truth")
ax.set(xlabel="r [kpc]", ylabel="v_circ [km/s]", xlim=(0, 2))
ax.legend()
figure

# %%
figure, ax = plots.figure(6, 4)
plots.j_profile(right, ax)
figure

# %% [markdown]
# ## Training on smeared stars
#
# Stars of the flow are projected, both sides are smeared by the same kernel, and their cross-entropy is made
# small. A training loss, not a likelihood; here with few steps, for the picture.

# %%
sample = np.column_stack([x, y, np.asarray(table["v_los"])])
quick = Training(num_steps=100, generated=1024, learning_rate=2e-2)
flows, losses = train(
    sample, np.full(len(x), 1.0), anisotropy=Isotropic(), gamma=1.0, training=quick
)
trained = np.asarray(of_members(lambda g: g.density(jnp.asarray(radii)), flows)[0])
drawn = of_members(lambda g: g.stars(jax.random.key(0), 2000)[0], flows)[0]

figure, ax = plots.figure(10, 3.4)
figure.clear()
left, middle_, right_ = figure.subplots(1, 3)
left.plot(*np.asarray(drawn)[:, :2].T, ".", ms=1)
left.plot(x, y, "k.", ms=2)
left.set(title="the flow's stars and the data", xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
seen = compressed(jnp.asarray(drawn), flows.length)
smeared = seen[:, :2] + 0.12 * flows.length * jax.random.normal(jax.random.key(2), (2000, 2))
middle_.plot(*np.asarray(smeared).T, ".", ms=1)
middle_.set(title="compressed and smeared", aspect="equal")
right_.loglog(radii, trained, label="trained flow")
right_.loglog(radii, truth.tracer.density(radii), "k--", label="truth")
right_.set(title="n(r)", ylim=(1e-3, 1e4))
right_.legend()
figure
