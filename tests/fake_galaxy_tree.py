"""Results of the Milky Way made by hand: a healthy `DataTree`, and the ways in which one can be bad.

As in `fake_tree`, the draws follow no fit: they have the shapes, names, units and rough numbers of
one. The forces are those of a flattened isothermal halo and a Miyamoto-Nagai disc. Nothing here needs JAX.
"""

import json

import numpy as np
import xarray as xr

G = 4.30091727e-6  # kpc (km/s)^2 / Msun
GEV_CM3 = 37.96e-9  # of 1 Msun/kpc3
SUN = (-8.122, 0.0, 0.0208)
R_SUN = 8.122
DOF = 588
SHELLS = np.linspace(4.5, 11.5, 15)  # kpc
BIG_R = np.linspace(4.0, 12.0, 17)  # kpc, 8 among them
ABOVE = np.linspace(0.1, 2.0, 20)  # kpc
TRUTH = {
    "ln_rho_dm": np.log(1.05e7),
    "gamma": 1.0,
    "ln_r_s": np.log(16.0),
    "q": 0.9,
    "ln_mass_disc": np.log(6.8e10),
    "a_disc": 3.0,
    "b_disc": 0.28,
    "ln_mass_bulge": np.log(5.0e9),
}
PRIOR_SD = {
    "ln_rho_dm": 1.0,
    "gamma": 0.4,
    "ln_r_s": 0.5,
    "q": 0.2,
    "ln_mass_disc": 0.4,
    "a_disc": 0.6,
    "b_disc": 0.06,
    "ln_mass_bulge": 0.5,
}
# the bulge and the inner slope are left to their prior
POSTERIOR_SD = PRIOR_SD | {
    "ln_rho_dm": 0.12,
    "ln_r_s": 0.3,
    "gamma": 0.36,
    "q": 0.08,
    "ln_mass_disc": 0.04,
    "a_disc": 0.15,
    "b_disc": 0.02,
}
# name -> dimensions after chain and draw, unit, what it is
ABOUT = {
    "rho_dm_sun": ((), "GeV/cm3", "dark-matter density at the Sun"),
    "rho_dm_sun_msun_pc3": ((), "Msun/pc3", "dark-matter density at the Sun"),
    "sigma_1.1kpc": ((), "Msun/pc2", "surface density within 1.1 kpc of the plane at the Sun"),
    "chi2": ((), "", "chi2 of the sums"),
    "v_circ": (("R",), "km/s", "circular velocity in the plane"),
    "K_z": (("height",), "km2/(s2 kpc)", "downward acceleration above the Sun"),
    "rho_z": (("height",), "Msun/kpc3", "density of all mass above the Sun"),
    "rho_dm_r": (("r",), "Msun/kpc3", "dark-matter density, mean over spheres"),
    "phi": (("point",), "km2/s2", "potential"),
    "rho": (("point",), "Msun/kpc3", "density of all mass"),
    "rho_dm": (("point",), "Msun/kpc3", "dark-matter density"),
    "epsilon": (("point",), "", "efficiency left by the dust"),
    "acceleration": (("point", "component"), "(km/s)2/kpc", "acceleration"),
}
UNITS = {
    "ln_rho_dm": "ln(Msun/kpc3)",
    "ln_r_s": "ln(kpc)",
    "ln_mass_disc": "ln(Msun)",
    "a_disc": "kpc",
    "b_disc": "kpc",
    "ln_mass_bulge": "ln(Msun)",
}
MEANINGS = {"gamma": "inner slope of the halo", "q": "axis ratio of the halo"}


def points(n, seed=1):
    """n places (n, 3) [kpc] within 3.5 kpc of the Sun."""
    rng = np.random.default_rng(seed)
    away = rng.normal(size=(n, 3))
    away *= (3.5 * rng.uniform(size=n) ** (1 / 3) / np.linalg.norm(away, axis=1))[:, None]
    return np.asarray(SUN) + away


def derive(p, x, chi2, epsilon):
    """Everything that follows from the parameters `p` (name -> any shape), at places x (n, 3)."""
    p = {name: np.asarray(value)[..., None] for name, value in p.items()}
    local, scale = np.exp(p["ln_rho_dm"]), np.exp(p["ln_r_s"])

    def dark(r):
        bend = (1 + r / scale) / (1 + R_SUN / scale)
        return local * (r / R_SUN) ** -p["gamma"] * bend ** (p["gamma"] - 3)

    big_r, z = np.hypot(x[:, 0], x[:, 1]), x[:, 2]
    halo = 4 * np.pi * G * local * R_SUN**2  # v_circ^2 of an isothermal halo of this density
    disc = np.exp(p["ln_mass_disc"])
    m2 = big_r**2 + (z / p["q"]) ** 2

    def pull(big_r, z):
        deep = p["a_disc"] + np.sqrt(z**2 + p["b_disc"] ** 2)
        return G * disc / (big_r**2 + deep**2) ** 1.5

    def down(big_r, z):
        height = np.sqrt(z**2 + p["b_disc"] ** 2)
        of_halo = halo / (big_r**2 * p["q"] ** 2 + z**2)
        return of_halo + pull(big_r, z) * (p["a_disc"] + height) / height

    inward = -halo / m2 - pull(big_r, z)
    acceleration = np.stack([inward * x[:, 0], inward * x[:, 1], -down(big_r, z) * z], axis=-1)
    spread = p["a_disc"] + p["b_disc"]
    v2 = halo + G * disc * BIG_R**2 / (BIG_R**2 + spread**2) ** 1.5
    v2 = v2 + G * np.exp(p["ln_mass_bulge"]) / BIG_R
    surface = disc[..., 0] * 7.0e-10 + 2.2e-3 * local[..., 0] / 1e3
    found = {
        "rho_dm_sun": local[..., 0] * GEV_CM3,
        "rho_dm_sun_msun_pc3": local[..., 0] / 1e9,
        "sigma_1.1kpc": surface,
        "chi2": chi2,
        "v_circ": np.sqrt(v2),
        "K_z": down(R_SUN, ABOVE) * ABOVE,
        "rho_z": dark(np.hypot(R_SUN, ABOVE)) + disc * 1e-3 * np.exp(-ABOVE / 0.3),
        "rho_dm_r": dark(SHELLS),
        "phi": halo / 2 * np.log(m2) - 2e5,
        "rho": dark(np.sqrt(m2)) + disc * 1e-3 * np.exp(-np.abs(z) / 0.3),
        "rho_dm": dark(np.sqrt(m2)),
        "epsilon": epsilon,
        "acceleration": acceleration,
    }
    return {name: value for name, value in found.items() if value is not None}


def group(p, x, leading, chi2, epsilon):
    data = {
        n: (leading, v, {"units": UNITS.get(n, ""), "long_name": MEANINGS.get(n, n)})
        for n, v in p.items()
    }
    for name, value in derive(p, x, chi2, epsilon).items():
        dims, unit, words = ABOUT[name]
        data[name] = ((*leading, *dims), value, {"units": unit, "long_name": words})
    coords = {
        "R": ("R", BIG_R, {"units": "kpc"}),
        "height": ("height", ABOVE, {"units": "kpc"}),
        "r": ("r", SHELLS, {"units": "kpc"}),
        "point": np.arange(len(x)),
        "component": ["ax", "ay", "az"],
    }
    return xr.Dataset(data, coords=coords)


def draw(rng, sd, shape):
    return {name: TRUTH[name] + sd[name] * rng.normal(size=shape) for name in TRUTH}


def healthy(*, chains=4, draws=500, n=30, chi2=None, seed=0):
    """The tree of a run that went well, at `n` points; `chi2` is its median (its dof if not given)."""
    rng = np.random.default_rng(seed)
    x = points(n)
    shape = (chains, draws)
    true_epsilon = np.exp(-0.12 * np.linalg.norm(x - np.asarray(SUN), axis=1))
    epsilon = np.clip(true_epsilon + 0.04 * rng.normal(size=(*shape, n)), 0.01, 1.0)
    sums = (DOF if chi2 is None else chi2) + rng.chisquare(8, shape) - 7.3
    prior = draw(rng, PRIOR_SD, (1, 1000))
    wild = DOF * np.exp(rng.normal(3.0, 1.0, (1, 1000)))
    both = ("chain", "draw")
    stats = {
        "diverging": (both, np.zeros(shape, bool)),
        "energy": (both, rng.normal(1000, 2, shape)),
    }
    place = {name: ("point", x[:, i], {"units": "kpc"}) for i, name in enumerate("xyz")}
    tree = xr.DataTree.from_dict(
        {
            "posterior": group(draw(rng, POSTERIOR_SD, shape), x, both, sums, epsilon),
            "sample_stats": xr.Dataset(stats),
            "prior": group(prior, x, both, wild, None),
            "constant_data": xr.Dataset(place, coords={"point": np.arange(n)}),
            "truth": group(TRUTH, x, (), None, true_epsilon),
        }
    )
    tree.attrs = {
        "kind": "milky_way",
        "model": "mw_weak_form",
        "method": "nuts",
        "seed": 0,
        "options": json.dumps({"dust": "known"}),
        "parameters": json.dumps(list(TRUTH)),
        "source": "stars.ecsv",
        "data_sha256": "0" * 64,
        "notes": json.dumps(["The bar is left out."]),
        "sun": json.dumps(SUN),
        "chi2_dof": DOF,
        "bayesdust_version": "0.0.0",
        "schema_version": 1,
    }
    return tree


def bad_fit():
    """A fit whose sums do not vanish: stars out of equilibrium, say."""
    return healthy(chi2=DOF + 6 * np.sqrt(2 * DOF))
