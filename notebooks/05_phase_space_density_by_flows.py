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
# # Phase-space density by flows
#
# **Claim.** From 20,000 stars behind dust four small flows learn f(x, v), and the Boltzmann
# equation turns it into accelerations place by place. Once every star counts 1/epsilon they are
# right to 1 % of |a| in the median, and to 9 % at worst; without, they are wrong by up to 13 %
# towards the dust at small radii. Networks that solve for the dust beside the potential, from the
# motions alone, are right to 2 % in the median and to 10 % at worst, but have only half of the
# vertical force 0.3 kpc from the plane. The sums over the stars say the same as the weighted flows
# with a posterior, the cylindrical Jeans equations with errors several times as large.
#
# The stars are drawn exactly: thin and thick disc and halo in MWPotential2014, seen down to G = 14
# behind twelve clouds and a layer.

# %%
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import paramax

import bayesdust as bd
from bayesdust import dusty_mocks
from bayesdust.catalogs.astrometry import Observed
from bayesdust.catalogs.frames import icrs, propagate
from bayesdust.dynamics import cylindrical_jeans, stationarity
from bayesdust.dynamics.boltzmann import accelerations, tail_weights
from bayesdust.dynamics.boltzmann_networks import Descent, Efficiency, flow_equations, solve
from bayesdust.dynamics.dust_fit import fit_dust
from bayesdust.dynamics.efficiency import modulus
from bayesdust.dynamics.tracer_counts import Region
from bayesdust.dynamics.weak_form import Bumps, Sample
from bayesdust.flows.autoregressive import Architecture, member, split
from bayesdust.flows.scores import ensemble_scores, velocities_at
from bayesdust.flows.training import Schedule, train
from bayesdust.inference.galaxy_data import pilot_force
from bayesdust.potentials import Network, PotentialNetwork

survey = dusty_mocks.dusty_survey(20_000, seed=5)
ball, x, v = survey.galaxy.ball, survey.x, survey.v
sun, R_sun = np.array(ball.centre), ball.R
truth = jax.vmap(survey.galaxy.potential.acceleration)

# %% [markdown]
# ## The sample
#
# In the colour-magnitude diagram and with the cuts. The mock has magnitudes and no colours, so
# each star is given one here, for the eye: that of a giant of its absolute magnitude, with the
# reddening E(BP-RP) = A_G/1.89 of its dust (Wang & Chen 2019). Nothing below uses it. Absolute
# magnitudes are as they would be taken, extinction left in: dust moves stars down and to the
# right, and across the limit, which moves up with the distance.

# %%
M = survey.absolute_magnitude
rng = np.random.default_rng(1)
colour = 1.25 - 0.22 * (M - survey.luminosity.clump_mean) + 0.06 * rng.standard_normal(len(M))
colour = colour + survey.A / 1.89
fig, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
area = (0.0, 3.5, -3.0, 3.5)
cells = axes[0].hexbin(
    colour, M + survey.A, gridsize=70, bins="log", mincnt=1, extent=area, cmap="cividis"
)
fig.colorbar(cells, ax=axes[0], label="stars")
for d in (1.5, 2.5, 4.0):
    limit = survey.limit - modulus(d)
    axes[0].axhline(limit, color="C3", lw=0.8, ls="--" if d == 4.0 else ":")
    text = f"G = 14 at\n{d:g} kpc" + (", the edge" if d == 4.0 else "")
    axes[0].annotate(text, (0.05, limit - 0.08), fontsize=7, color="C3")
axes[0].set(xlabel="BP - RP, made up", ylabel=r"$M_G + A_G$", xlim=area[:2], ylim=area[:1:-1])

# errors like Gaia's, carried to Cartesian coordinates; of that, what the parallax alone would leave
frame = bd.SolarFrame(distance=float(np.linalg.norm(sun)), z_sun=float(sun[2]))
seen = icrs(x, v, frame)
sizes = [0.01, 0.01, dusty_mocks.PARALLAX_ERROR, *[dusty_mocks.PROPER_MOTION_ERROR] * 2]
errors = np.broadcast_to([*sizes, dusty_mocks.VELOCITY_ERROR], seen.shape)
distance = 1 / seen[:, 2]
bins = np.linspace(0.4, 4.0, 13)
for share, style in ((np.ones(6), "-"), (np.eye(6)[2], ":")):
    C = propagate(seen, Observed(seen, errors * share).covariance, frame)
    sd = np.sqrt(np.diagonal(C, axis1=1, axis2=2))
    which = np.digitize(distance, bins)
    median = np.array([np.median(sd[which == k], axis=0) for k in range(1, len(bins))])
    for i, name in enumerate(("x", "y", "z", "v_x", "v_y", "v_z")):
        label = f"${name}$" + (", parallax alone" if style == ":" else "")
        axes[1 + i // 3].plot(
            (bins[1:] + bins[:-1]) / 2, median[:, i], style, color=f"C{i % 3}", label=label
        )
axes[1].set(xlabel="distance [kpc]", ylabel="median error [kpc]")
axes[2].set(xlabel="distance [kpc]", ylabel="median error [km/s]")
for ax in axes[1:]:
    ax.legend(fontsize=7)
print(f"relative parallax errors up to {sizes[2] * distance.max():.2f}: the cut is at 0.33")

# %% [markdown]
# ## Three ways to the accelerations
#
# Places along a radius in the plane, and across it at the Sun. First the dust, told by magnitudes;
# it gives every star a weight 1/epsilon. Then:
#
# - the sums over the stars (`mw_cbe_linear`), a posterior;
# - flows, four of them, trained on the stars as they are and with their weights: at each place the
#   Boltzmann equation is solved by least squares over velocities;
# - the cylindrical Jeans equations, from local fits to the weighted stars.

# %%
R_line = np.linspace(6.2, 10.0, 9)
z_line = np.linspace(-1.2, 1.2, 9)
lines = {
    "R": np.column_stack([-R_line, 0 * R_line, 0 * R_line]),
    "z": np.column_stack([-R_sun + 0 * z_line, 0 * z_line, z_line]),
}
places = np.concatenate(list(lines.values()))
exact = np.asarray(truth(places))

dust = fit_dust(x, survey.G, survey.limit, Region(sun, np.array(ball.centre), ball.radius))
epsilon = dust.efficiency(x - sun)
stars = survey.stars()
options = {"limit": survey.limit, "bump": 1.7, "modes": 300, "dust_modes": 300}
tree = bd.fit("mw_cbe_linear", stars, points=places, options=options)
posterior = tree["posterior"]["acceleration"].values[0]

# %%
built = Architecture.for_stars(x, v, ball.centre, 1.001 * ball.radius)
schedule = Schedule(seed=5)
learned = {
    name: train(x, v, built, members=4, weights=weights, schedule=schedule).flows
    for name, weights in (("as seen", None), ("weighted", 1 / epsilon))
}


def pointwise(flows, x, number=512):
    """a (member + 1, n, 3) at places x: of each member, and last of their mean scores."""
    x = jnp.asarray(x, jnp.float32)
    u = velocities_at(member(flows, 0), jax.random.key(0), x, number)
    slopes = ensemble_scores(flows, jnp.repeat(x, number, axis=0), u.reshape(-1, 3))
    by_x, by_v = (s.reshape(-1, *u.shape).astype(float) for s in slopes)
    u, w = u.astype(float), jax.vmap(tail_weights)(u.astype(float))
    each = [*zip(by_x, by_v, strict=True), (by_x.mean(axis=0), by_v.mean(axis=0))]
    return np.array([accelerations(u, one, other, w).a for one, other in each])


flow_a = {name: pointwise(flows, places) for name, flows in learned.items()}
high = abs(places[:, 2]) > 0.5
jeans = cylindrical_jeans.accelerations(
    x,
    v,
    np.column_stack([-places[:, 0], places[:, 2]]),
    ball,
    1 / epsilon,
    np.where(high[:, None], [1.5, 0.6], [1.5, 0.4]),
)

# %% [markdown]
# ## Phase-space density, as seen and divided by epsilon
#
# f at the velocity of the disc's rotation, in the plane and across it, each cut up to a factor: of
# the stars as they are seen, the same divided by epsilon from the magnitudes (one value a part of
# the sky: hence the wedges), and of the weighted stars, always the mean of ln f of four flows. The
# truth is that of all stars. Seen from here the Galaxy seems to thin out on all sides. The flows of
# the stars as seen smooth over the edges of the densest clouds, so that the quotient is too high
# behind them; the weighted ones have hardly a star there.

# %%
side, height = np.linspace(-3, 3, 31), np.linspace(-1.5, 1.5, 21)
cuts = {
    "y": np.stack([*np.meshgrid(side, side, indexing="ij"), np.zeros((31, 31))], axis=-1),
    "z": np.stack(np.meshgrid(side, [0.0], height, indexing="ij"), axis=-1)[:, 0],
}
at = np.concatenate([(offset + sun).reshape(-1, 3) for offset in cuts.values()])
R = np.hypot(at[:, :1], at[:, 1:2])
turning = 215 * np.column_stack([at[:, 1:2], -at[:, :1], 0 * R]) / R


@eqx.filter_jit
def ln_f(law, x, v):
    """ln f (n,) of a flow, or of the mock."""
    return jax.lax.map(lambda a: law(*a), (x, v), batch_size=256)


pairs = jnp.asarray(at, jnp.float32), jnp.asarray(turning, jnp.float32)
found = {
    name: np.array([ln_f(paramax.unwrap(member(flows, k)).log_prob, *pairs) for k in range(4)])
    for name, flows in learned.items()
}
draws = dust.efficiencies(at - sun)  # of the dust, sixteen for every flow
shares = np.log(draws) - np.log(draws).mean(axis=0) + np.log(draws.mean(axis=0))
quotients = found["as seen"] - shares.reshape(-1, 4, len(at))
found["divided by epsilon"] = quotients.reshape(-1, len(at))
exact_f = np.asarray(ln_f(survey.galaxy.log_f, at, turning))
near = np.linalg.norm(at - sun, axis=1) < 3.0
ends = np.cumsum([offset.size // 3 for offset in cuts.values()])
here = {axis: slice(end - cuts[axis].size // 3, end) for axis, end in zip(cuts, ends, strict=True)}
names = ("as seen", "divided by epsilon", "weighted")
planes = {"y": "in the plane", "z": "across it"}


def shape(name, axis):
    """ln f (flow, n) on a cut, of every flow times the best factor; NaN outside."""
    off = (found[name] - exact_f)[:, here[axis]]
    off = np.where(near[here[axis]], off, np.nan)
    return off - np.nanmean(off, axis=1, keepdims=True) + exact_f[here[axis]]


fig, axes = plt.subplots(2, 4, figsize=(13, 6.2), layout="constrained")
for row, (axis, offset) in zip(axes, cuts.items(), strict=True):
    truth_f = np.where(near, exact_f, np.nan)[here[axis]]
    top = np.nanmax(truth_f) / np.log(10)
    shown = [*(shape(name, axis).mean(axis=0) for name in names), truth_f]
    for ax, title, value in zip(row, (*names, "truth"), shown, strict=True):
        image = ax.pcolormesh(
            side, side if axis == "y" else height, value.reshape(offset.shape[:2]).T / np.log(10),
            vmin=top - (0.8 if axis == "y" else 2.2), vmax=top + 0.2,
        )  # fmt: skip
        ax.set(xlabel="x from the Sun [kpc]", ylabel=f"{axis} [kpc]", title=title)
    fig.colorbar(image, ax=row, label=r"$\log_{10} f$ [(kpc km/s)$^{-3}$]")

# %% [markdown]
# ## How well these are known
#
# The scatter of ln f between the flows, each from a start of its own and (but for the first) with
# bootstrap weights of the stars; of the quotient also that of the dust's draws. It is that of one
# flow: their mean is not known twice as well, for they share the stars. In the weighted flows
# epsilon is taken for known, and what all flows smooth alike is in none of it. To the right what
# the weighted ones are off by: in the plane as much as they scatter, across it nearly three times
# as much, for all four fall too steeply with height. As seen, and divided by epsilon, ln f is off
# by two to seven times its scatter.

# %%
fig, axes = plt.subplots(2, 4, figsize=(13, 6.2), layout="constrained")
for row, (axis, offset) in zip(axes, cuts.items(), strict=True):
    sd = {name: shape(name, axis).std(axis=0, ddof=1) for name in names}
    off = {name: shape(name, axis).mean(axis=0) - exact_f[here[axis]] for name in names}
    panels = {f"sd, {name}": value for name, value in sd.items()}
    for ax, (title, value) in zip(
        row, (panels | {"weighted: off by": off["weighted"]}).items(), strict=True
    ):
        signed = "off" in title
        image = ax.pcolormesh(
            side, side if axis == "y" else height, value.reshape(offset.shape[:2]).T,
            vmin=-0.5 if signed else 0, vmax=0.5, cmap="RdBu" if signed else "viridis",
        )  # fmt: skip
        ax.set(xlabel="x from the Sun [kpc]", ylabel=f"{axis} [kpc]", title=title)
        if title in ("sd, weighted", "weighted: off by"):
            fig.colorbar(image, ax=ax, label=r"of $\ln f$")
    for name in names:
        rms = [np.sqrt(np.nanmean(values**2)) for values in (off[name], sd[name])]
        print(f"{planes[axis]}, {name}: ln f off by {rms[0]:.2f}, sd {rms[1]:.2f} (rms)")

# %% [markdown]
# ## Acceleration components: pointwise without dust, and networks with it
#
# Networks as in Putney+2024: Phi and epsilon are together what makes the Boltzmann equation's
# residual least over a flow of the stars as they are seen. Of the dust they know what the motions
# tell and no more. They are small and trained briefly, a pair for each of the four flows.

# %%
place = {"centre": ball.centre, "radius": ball.radius, "width": 32, "depth": 3}
descent = Descent(first=500, steps=1000, batch=256, seed=5)


def by_network(flow, key):
    """a (n, 3) at the places, of Phi solved for beside epsilon; and what is left over."""
    keys = jax.random.split(key, 3)
    phi, screen = (Network.untrained(k, **place) for k in keys[1:])
    equations = flow_equations(flow, keys[0], places=2000)
    solved = solve(equations, PotentialNetwork(phi), Efficiency(screen), descent)
    a = jax.vmap(solved.potential.acceleration)(jnp.asarray(places, jnp.float32))
    return np.asarray(a), solved.residual, solved.floor


weights, rest = split(learned["as seen"])
alone = [eqx.combine(jax.tree.map(lambda a, k=k: a[k : k + 1], weights), rest) for k in range(4)]
solved = [by_network(flow, jax.random.key(5 + k)) for k, flow in enumerate(alone)]
network_a = np.array([a for a, *_ in solved])
for _, residual, floor in solved:
    print(f"residual {residual:.2f} of the equation's first term, pointwise answers' {floor:.2f}")

# %% [markdown]
# Bars and the networks' band are the scatter of one flow about another, as above; what all four
# smooth alike is in no bar. The networks are nearer to the truth at small radii than the flows
# without dust. Across the plane they are too smooth: a_z hardly bends, 0.3 kpc up it is half of the
# true one and three sds off. All others are too weak there as well, the sums by two sds.
# That the sums have no a_y is their prior (notebook 06).

# %%
rows = {"R": slice(0, 9), "z": slice(9, 18)}
where = {"R": R_line, "z": z_line}
found_a = {
    f"flow, pointwise, {name}": (a[-1], a[:-1].std(axis=0, ddof=1)) for name, a in flow_a.items()
}
found_a["networks, with dust"] = network_a.mean(axis=0), network_a.std(axis=0, ddof=1)
found_a["sums over stars, with dust"] = posterior.mean(axis=0), posterior.std(axis=0)
colours = dict(zip(found_a, ("C1", "C2", "C3", "C0"), strict=True))
fig, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
for row, along in zip(axes, rows, strict=True):
    for i, ax in enumerate(row):
        for name, (a, sd) in found_a.items():
            value, error = a[rows[along], i], sd[rows[along], i]
            if "flow" in name:
                shift = 0.03 * (colours[name] == "C2")
                style = {"fmt": "o", "ms": 3, "color": colours[name], "label": name}
                ax.errorbar(where[along] + shift, value, error, **style)
            else:
                band = {"color": colours[name], "alpha": 0.25, "lw": 0}
                ax.fill_between(where[along], value - error, value + error, **band)
                ax.plot(where[along], value, colours[name], label=name)
        ax.plot(where[along], exact[rows[along], i], "k--", label="truth")
        ax.set(xlabel=f"{along} [kpc]", ylabel=f"$a_{'xyz'[i]}$ [(km/s)$^2$/kpc]")
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=9)

size = np.linalg.norm(exact, axis=1)
for name, (a, sd) in found_a.items():
    off, known = (100 * np.median(abs(e) / size[:, None], axis=0) for e in (a - exact, sd))
    worst = 100 * np.max(np.linalg.norm(a - exact, axis=1) / size)
    low = np.isclose(abs(places[:, 2]), 0.3)
    vertical = np.mean(a[low, 2] / exact[low, 2])
    print(
        f"{name}: {off.round(1)} % of |a| off in x, y, z (medians), at most {worst:.0f} %;",
        f"sd {known.round(1)} %; a_z 0.3 kpc up {vertical:.2f} of the true one",
    )

# %% [markdown]
# ## Cylindrical Jeans equations beside the others
#
# Their errors are those of the moments, and large: every term is a gradient of a fit to few stars.
# Neighbouring places share stars, and what epsilon is uncertain by is not in the errors. Bands are
# 68 %, bars of the flows their scatter.

# %%
a_R = -posterior[:, :, 0]  # on this line R points to -x
fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
sd = np.sqrt(np.diagonal(jeans.covariance, axis1=1, axis2=2))
weighted, flow_sd = found_a["flow, pointwise, weighted"]
for ax, along, i, values, flows, error in (
    (axes[0], "R", 0, a_R, -weighted[:, 0], flow_sd[:, 0]),
    (axes[1], "z", 1, posterior[:, :, 2], weighted[:, 2], flow_sd[:, 2]),
):
    here = rows[along]
    low, middle, top = np.quantile(values[:, here], [0.16, 0.5, 0.84], axis=0)
    ax.fill_between(where[along], low, top, color="C0", alpha=0.3)
    ax.plot(where[along], middle, "C0", label="sums over stars")
    ax.errorbar(
        where[along] + 0.02, flows[here], error[here], fmt="C2o", ms=4, label="flow, weighted"
    )
    ax.errorbar(
        where[along], jeans.a[here, i], sd[here, i], fmt="s", ms=4, color="C3", label="Jeans"
    )
    component = exact[here, 2] if i else -exact[here, 0]
    ax.plot(where[along], component, "k--", label="truth")
    ax.set(xlabel=f"{along} [kpc]", ylabel=f"$a_{along}$ [(km/s)$^2$/kpc]")
axes[0].legend(fontsize=8)
z_score = (jeans.a - np.column_stack([-exact[:, 0], exact[:, 2]])) / sd
print(f"Jeans: rms of (found - truth)/error {np.sqrt(np.mean(z_score**2)):.2f}")

# %% [markdown]
# ## Stationary?
#
# In MWPotential2014, its horizontal and vertical force of the sizes that the sums like best. Each
# disc is one bump: the chi2 of its nine sums, 9 in equilibrium, and as an arrow the radial
# acceleration that nothing balances (its error is some 1,000 (km/s)^2/kpc, 0.4 kpc). Then the
# sizes of both forces that the halves of the survey ask for, the north and what lies ahead of the
# Sun first.

# %%
v_phi = float(np.mean((x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]) / np.hypot(x[:, 0], x[:, 1])))
tests = Bumps.inside(sun, 3.9, v_phi, width=1.7)
force = pilot_force(np.array(json.loads(tree.attrs["pilot"])))
kinds = {"with weights": 1 / epsilon, "dust ignored": np.ones(len(x))}
left = {k: stationarity.residuals(tests, Sample.of(x, v, w), force) for k, w in kinds.items()}
layers = (-0.7, -0.25, 0.25, 0.7)
fig, axes = plt.subplots(2, 4, figsize=(13, 6), sharex=True, sharey=True, layout="constrained")
for row, (title, found) in zip(axes, left.items(), strict=True):
    for ax, height in zip(row, layers, strict=True):
        layer = np.isclose(found.centres[:, 2] - sun[2], height)
        at = found.centres[layer] - sun
        dots = ax.scatter(*at[:, :2].T, c=found.chi2[layer], s=900, cmap="YlOrRd", vmin=0, vmax=40)
        # 1 kpc for 2,500 (km/s)^2/kpc, towards the centre and back
        arrow = -4e-4 * found.unbalanced[layer][:, 0]
        ax.quiver(*at[:, :2].T, arrow, 0 * arrow, angles="xy", scale_units="xy", scale=1)
        ax.set(
            title=f"{title}, z = {height:+.2f}", aspect="equal", xlim=(-3.4, 3.4), ylim=(-3.4, 3.4)
        )
fig.supxlabel("x from the Sun [kpc]")
fig.supylabel("y [kpc]")
fig.colorbar(dots, ax=axes, label="chi2 of a bump's nine sums")
for title, found in left.items():
    print(
        f"{title}: chi2 of a bump's nine sums {found.chi2.mean():.1f} in the mean,",
        f"{found.chi2.max():.0f} at most",
    )
halves = stationarity.halves(tests, sun)
for title, w in kinds.items():
    for name, parts in stationarity.splits(tests, Sample.of(x, v, w), force, halves).items():
        print(
            f"{title}, {name}: horizontal, vertical {parts.first.round(2)}, on the other side "
            f"{parts.second.round(2)}; difference {parts.difference.round(2)} "
            f"+- {parts.error.round(2)}, chi2 {parts.chi2:.1f} of 2"
        )
