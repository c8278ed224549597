"""The smallest run: a model of two numbers that compiles in a second, and a few mock stars."""

from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table

MODEL = '''"""Two numbers."""
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

KIND = "dwarf"


def model(data):
    v_sys = numpyro.sample("v_sys", dist.Normal(data.v_centre, 20.0))
    ln_sigma = numpyro.sample("ln_sigma", dist.Normal(2.0, 1.0))
    width = jnp.hypot(jnp.exp(ln_sigma), data.v_los_err)
    numpyro.sample("v_los", dist.Normal(v_sys, width), obs=data.v_los)
'''
# takes long enough to be interrupted
SLOW = (
    MODEL + '    numpyro.factor("slow", 1e-300 * jnp.sum(jnp.cos(jnp.arange(40_000.0) * v_sys)))\n'
)
GALAXY = 'name = "Mock"\ndistance = 80\nrhalf = 10.7\nrhalf_err = 0.5\nv_sys = 0\n'
SETTINGS = {"num_chains": 2, "num_warmup": 200, "num_draws": 150, "seed": 3}
WORDS = ["--chains", "2", "--warmup", "200", "--draws", "150", "--seed", "3"]


def stars() -> Table:
    """100 noisy stars of one dispersion, with x, y, v_los, v_los_err."""
    rng = np.random.default_rng(1)
    east, north = rng.normal(0.0, 0.2, (2, 100)) * u.kpc
    speed, error = rng.normal(0.0, 10.0, 100) * u.km / u.s, np.full(100, 2.0) * u.km / u.s
    return Table({"x": east, "y": north, "v_los": speed, "v_los_err": error})


def lay_out(folder: Path, model: str = MODEL) -> Path:
    """Write tiny.py, stars.ecsv and mock.toml into `folder`, and return it."""
    (folder / "tiny.py").write_text(model)
    stars().write(folder / "stars.ecsv", format="ascii.ecsv")
    (folder / "mock.toml").write_text(GALAXY)
    return folder


def fit_words(out: str = "out") -> list[str]:
    """The command line of the tiny run, to be given in its folder."""
    return ["fit", "tiny.py", "stars.ecsv", "--galaxy", "mock.toml", "--out", out, *WORDS]
