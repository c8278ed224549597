"""Effective draws a second: `make bench`.

NUTS on the benchmark of 1,000 stars with (ln M(<1.8 R_half), ln r_s, gamma, beta_ani, v_sys) free and
the tracer known, 4 chains on all cores: bulk ESS of the worst parameter over the wall time of sampling.
"""

import argparse
import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import arviz as az
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesdust.anisotropy import Constant, from_symmetrised
from bayesdust.dynamics.jeans import JeansGrid
from bayesdust.inference.nuts import Plan, run_nuts
from bayesdust.inference.priors import mass_for_density
from bayesdust.mocks import BENCHMARK, benchmark, observe
from bayesdust.potentials import GNFW

TARGET = 300.0


def model(data):
    """The halo and orbit part of `dsph_gnfw`, the light and the distance known."""
    grid, tracer, pivot, v_los, v_err = data
    gamma = numpyro.sample("gamma", dist.Uniform(0.0, 1.4))
    ln_r_s = numpyro.sample("ln_r_s", dist.Normal(0.0, 1.0))
    unit = GNFW(1.0, jnp.exp(ln_r_s), gamma)
    ln_rho_s = dist.Normal(jnp.log(1e8), 3.0)
    ln_mass = numpyro.sample("ln_mass", mass_for_density(ln_rho_s, unit, pivot))
    halo = GNFW(jnp.exp(ln_mass) / unit.enclosed_mass(pivot), unit.r_s, gamma)
    beta_tilde = numpyro.sample("beta_tilde", dist.Uniform(-0.6, 0.8))
    v_sys = numpyro.sample("v_sys", dist.Normal(0.0, 20.0))
    variance = grid.variance(halo, tracer, Constant(from_symmetrised(beta_tilde))) + v_err**2
    numpyro.sample("v_los", dist.Normal(v_sys, jnp.sqrt(variance)), obs=v_los)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--calls", type=int, help="ignored: for the other benchmark")
    tracer = BENCHMARK.tracer
    pivot = 1.8 * float(tracer.half_light_radius)
    for seed in parser.parse_args().seeds:
        phase = benchmark(1000, seed)
        table = observe(phase, 80.0, v_err=2.0, seed=seed)
        R = jnp.hypot(phase.x[:, 0], phase.x[:, 1])
        data = JeansGrid.build(R, tracer), tracer, pivot, table["v_los"].data, 2.0
        plan = Plan(seed=seed)
        draws = run_nuts(model, data, plan)
        ess = {name: float(az.ess(value, method="bulk")) for name, value in draws.z.items()}
        worst = min(ess, key=ess.__getitem__)
        rate = ess[worst] / plan.timings["sampling"]
        print(
            f"seed {seed}: {rate:.0f} bulk-ESS/s of the worst parameter ({worst}; target {TARGET:.0f}), "
            f"{ess[worst]:.0f} ESS in {plan.timings['sampling']:.1f} s of sampling, "
            f"{draws.stats['n_steps'].mean():.1f} gradients a draw, "
            f"{int(draws.stats['diverging'].sum())} divergences, "
            f"compile {plan.timings['compile']:.1f} s, warm-up {plan.timings['warmup']:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
