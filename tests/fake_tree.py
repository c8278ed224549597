"""Results made by hand: a healthy `DataTree` of a run, and the ways in which one can be broken.

The draws follow no fit; they only have the shapes, names, units and rough numbers of one.
Nothing here needs JAX.
"""

import json

import numpy as np
import xarray as xr

G = 4.30091727e-6  # kpc (km/s)^2 / Msun
R_HALF = 0.25
ANGLES = np.array([0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0])
BIG_R = np.geomspace(0.02, 1.5, 25)
UNITS = {
    "gamma": "",
    "ln_r_s": "ln(kpc)",
    "ln_mass": "ln(Msun)",
    "beta_ani": "",
    "v_sys": "km/s",
    "distance": "kpc",
    "rho": "Msun/kpc3",
    "mass": "Msun",
    "v_circ": "km/s",
    "sigma_los": "km/s",
    "log10_J": "GeV2 cm-5",
    "log10_D": "GeV cm-2",
}
TRUTH = {"gamma": 1.0, "ln_r_s": 0.0, "ln_mass": np.log(4.6e7), "beta_ani": 0.0, "v_sys": 50.0}
PRIOR_SD = {"gamma": 0.4, "ln_r_s": 1.2, "ln_mass": 1.5, "beta_ani": 0.4, "v_sys": 20.0}
POSTERIOR_SD = {"gamma": 0.2, "ln_r_s": 0.4, "ln_mass": 0.1, "beta_ani": 0.2, "v_sys": 0.6}
GALAXY = {
    "name": "Fakeone I",
    "ra": 260.05,
    "dec": 57.92,
    "distance": 81.55,
    "distance_err": 2.0,
    "rhalf": 10.5,
    "rhalf_err": 0.3,
    "ellipticity": 0.29,
    "position_angle": 87.0,
    "v_sys": 50.0,
    "v_sys_err": 0.5,
    "pmra": None,
    "pmdec": None,
    "references": {"distance": "A. Author et al. 1999, an invented journal 1, 1"},
}


def radii() -> np.ndarray:
    return np.unique(np.r_[np.geomspace(0.01, 5.0, 60), 0.15, R_HALF, 1.8 * R_HALF])


def draw(rng, sd, shape, rho=0.0, offset=0.0):
    """Parameters (name -> (chain, draw)); `rho` makes each chain an AR(1) of that correlation."""
    out = {}
    for name, centre in TRUTH.items():
        noise = rng.normal(size=shape)
        for i in range(1, shape[1] if rho else 0):
            noise[:, i] = rho * noise[:, i - 1] + np.sqrt(1 - rho**2) * noise[:, i]
        out[name] = centre + sd[name] * (noise + offset)
    out["gamma"] = np.clip(out["gamma"], 0.01, 1.49)
    return out


def derive(p, r, scale=1.0):
    """Profiles over r (last axis) of a halo with inner slope gamma through M(<1.8 R_half)."""
    gamma, r_s, mass = (
        np.asarray(x)[..., None] for x in (p["gamma"], np.exp(p["ln_r_s"]), p["ln_mass"])
    )
    shape = (r / r_s) ** -gamma * (1 + r / r_s) ** (gamma - 3)
    steps = 0.5 * (shape[..., 1:] * r[1:] ** 2 + shape[..., :-1] * r[:-1] ** 2) * np.diff(r)
    inside = shape[..., :1] * r[0] ** 3 / (3 - gamma)
    cumulative = 4 * np.pi * np.concatenate([inside, inside + np.cumsum(steps, axis=-1)], axis=-1)
    at = np.argmin(abs(r - 1.8 * R_HALF))
    rho_s = np.exp(mass) * scale / cumulative[..., at : at + 1]
    rho, enclosed = rho_s * shape, rho_s * cumulative
    level = np.log10(rho[..., np.argmin(abs(r - 0.15))])[..., None]
    slope = (3 - 2 * np.asarray(p["gamma"]))[..., None] * np.clip(np.log10(ANGLES / 0.5), -2, 0.05)
    sigma = np.sqrt(G * np.exp(mass) * scale / (7 * 1.8 * R_HALF)) * (1 + BIG_R / r_s) ** 0.1
    return {
        "rho": rho,
        "mass": enclosed,
        "v_circ": np.sqrt(G * enclosed / r),
        "sigma_los": sigma * (BIG_R / R_HALF) ** (-0.1 * np.asarray(p["beta_ani"])[..., None]),
        "log10_J": 19.0 + 2 * (level - 8.5) + slope,
        "log10_D": 18.4 + (level - 8.5) + 1.5 * np.clip(np.log10(ANGLES / 0.5), -2, 1),
    }


DIMS = {
    "rho": "r",
    "mass": "r",
    "v_circ": "r",
    "sigma_los": "R",
    "log10_J": "angle",
    "log10_D": "angle",
}


def group(p, r, leading=("chain", "draw"), scale=1.0):
    data = {n: (leading, v, {"units": UNITS[n], "long_name": n}) for n, v in p.items()}
    derived = derive(p, r, scale)
    data |= {n: ((*leading, DIMS[n]), v, {"units": UNITS[n]}) for n, v in derived.items()}
    attrs = {"rhalf": R_HALF, "units": "kpc"}
    for label, value in (("0.15kpc", 0.15), ("rhalf", R_HALF), ("1.8rhalf", 1.8 * R_HALF)):
        attrs[f"{label}_index"] = int(np.argmin(abs(r - value)))
    coords = {
        "r": ("r", r, attrs),
        "angle": ("angle", ANGLES, {"units": "deg"}),
        "R": ("R", BIG_R, {"units": "kpc"}),
    }
    return xr.Dataset(data, coords=coords)


def stars(rng, sigma, n=400, error=2.0):
    """Observed and constant data of n stars, a tenth of them foreground with small p_member."""
    radius = R_HALF * np.sqrt(1 / rng.uniform(0.08, 0.999, n) - 1)
    member = rng.uniform(size=n) > 0.1
    err = error * rng.uniform(0.7, 1.3, n)
    v = np.where(member, rng.normal(50, sigma, n) + err * rng.normal(size=n), rng.normal(0, 60, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    data = {
        "v_los_err": ("star", err, {"units": "km/s"}),
        "R": ("star", radius, {"units": "kpc"}),
        "xi": ("star", radius / 81.55 * np.cos(angle), {"units": "rad"}),
        "eta": ("star", radius / 81.55 * np.sin(angle), {"units": "rad"}),
        "p_member": ("star", np.where(member, 0.97, 0.03)),
    }
    return xr.Dataset({"v_los": ("star", v, {"units": "km/s"})}), xr.Dataset(data)


def healthy(*, chains=4, draws=500, seed=0, rho=0.0, posterior_sd=None, scale=1.0, error=2.0):
    """The tree of a run that went well; `scale` multiplies the mass, `rho` correlates the draws."""
    rng = np.random.default_rng(seed)
    r = radii()
    p = draw(rng, posterior_sd or POSTERIOR_SD, (chains, draws), rho)
    posterior = group(p | {"distance": np.full((chains, draws), 81.55)}, r, scale=scale)
    prior_draws = draw(rng, PRIOR_SD, (1, 2000)) | {"distance": np.full((1, 2000), 81.55)}
    sigma = float(np.median(posterior["sigma_los"][..., 12]))
    observed, constant = stars(rng, sigma, error=error)
    spread = np.hypot(sigma, constant["v_los_err"].values)
    replicas = 50 + spread * rng.normal(size=(chains, 50, spread.size))
    p = constant["p_member"].values
    strangers = np.random.default_rng(seed + 1).normal(0, 60, replicas.shape)
    replicas = np.where(p > 0.5, replicas, strangers)
    member = np.broadcast_to(np.where(p > 0.5, p, 0.0), replicas.shape)
    predictive = {"v_los": replicas, "member": member, "member_predicted": member}
    predictive = {name: (("chain", "draw", "star"), v) for name, v in predictive.items()}
    stats = {
        "diverging": (("chain", "draw"), np.zeros((chains, draws), bool)),
        "energy": (("chain", "draw"), rng.normal(1000, 2, (chains, draws))),
        "lp": (("chain", "draw"), rng.normal(-1000, 2, (chains, draws))),
    }
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": xr.Dataset(stats),
            "prior": group(prior_draws, r, scale=scale),
            "posterior_predictive": xr.Dataset(predictive),
            "observed_data": observed,
            "constant_data": constant,
            "truth": group({k: np.float64(v) for k, v in TRUTH.items()}, r, (), scale),
        }
    )
    tree.attrs = {
        "model": "dsph_gnfw",
        "method": "nuts",
        "seed": 0,
        "galaxy": json.dumps(GALAXY),
        "source": "stars.ecsv",
        "data_sha256": "0" * 64,
        "bayesdust_version": "0.0.0",
        "schema_version": 1,
        "r_trunc": "none",
        "parameters": json.dumps(list(TRUTH)),
    }
    return tree


def with_variable(tree, group_name, name, values):
    """A copy of the tree in which one variable has other values of the same shape."""
    tree = tree.copy()
    data = tree[group_name].to_dataset(inherit=False)
    old = data[name]
    tree[group_name] = xr.DataTree(data.assign({name: (old.dims, values, old.attrs)}))
    return tree


def without(tree, *groups):
    """A copy of the tree without some groups."""
    tree = tree.copy()
    for name in groups:
        del tree[name]
    return tree


def stuck_chain():
    """One chain of four sits on one value of everything."""
    tree = healthy()
    data = tree["posterior"].to_dataset(inherit=False)
    for name in data.data_vars:
        values = data[name].values.copy()
        values[2] = values[2, :1]
        tree = with_variable(tree, "posterior", name, values)
    return tree


def frozen():
    """No chain ever left its starting point, the same for all."""
    tree = healthy()
    for name, variable in tree["posterior"].data_vars.items():
        values = np.broadcast_to(variable.values[:1, :1], variable.shape).copy()
        tree = with_variable(tree, "posterior", name, values)
    return tree


def diverging():
    tree = healthy()
    bad = np.zeros((4, 500), bool)
    bad[1, 17:20] = True
    return with_variable(tree, "sample_stats", "diverging", bad)


def low_ebfmi():
    energy = np.cumsum(np.random.default_rng(3).normal(size=(4, 500)), axis=1)
    return with_variable(healthy(), "sample_stats", "energy", energy)


def nan_draws():
    tree = healthy()
    for name in ("gamma", "rho", "log10_J"):
        values = tree["posterior"][name].values.copy()
        values[0, :12] = np.nan
        tree = with_variable(tree, "posterior", name, values)
    return tree


def mostly_prior():
    """A posterior that is its prior, but for the systemic velocity."""
    return healthy(posterior_sd=PRIOR_SD | {"v_sys": 0.6})


def swamped():
    """A dispersion of about 1 km/s under errors of 10 km/s, with a long tail to zero."""
    sd = POSTERIOR_SD | {"ln_mass": 1.0}
    return healthy(posterior_sd=sd, scale=0.01, error=10.0)


def variational(k=0.4, **attrs):
    """One chain of a guide: no sampler statistics, a Pareto k."""
    tree = without(healthy(chains=1, draws=2000), "sample_stats")
    tree.attrs = tree.attrs | {"method": "vi-flow", "pareto_k": k} | attrs
    return tree
