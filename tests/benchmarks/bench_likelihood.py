"""How long one value and gradient of the log-density takes: `make bench`.

The benchmark of Lim+2025: 1,000 stars of a (2,5,1) tracer (and of a Plummer one) in a gNFW halo,
with (ln M(<1.8 R_half), ln r_s, gamma, beta_ani, v_sys) free, on one core; the tracer fixed, and
fitted along. The median over many calls, what is left of it in a compiled loop (no dispatch), and
the compiler's count of operations and bytes.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

if __name__ == "__main__":  # one core, before JAX counts them; not when a test imports this
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()

import jax
import jax.numpy as jnp
import numpy as np

from bayesdust.anisotropy import Constant
from bayesdust.dynamics.jeans import JeansGrid
from bayesdust.potentials.halos import GNFW
from bayesdust.tracers import Plummer, Tracer, ZhaoTracer

TARGET_MS = 0.15
R_STAR = 0.25  # kpc
START = [np.log(5e7), 0.1, 0.9, 0.1, 0.2]  # ln M, ln r_s, gamma, beta_ani, v_sys
LogDensity = Callable[[jax.Array], jax.Array]


def stars(tracer: Tracer, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R [kpc], v [km/s], squared errors: R drawn from the tracer; the velocities do not matter."""
    rng = np.random.default_rng(seed)
    radii = R_STAR * np.geomspace(1e-5, 1e4, 4000)
    R = np.interp(rng.uniform(size=count), np.asarray(tracer.projected_fraction(radii)), radii)
    return R, rng.normal(0.0, 11.5, count), np.full(count, 4.0)


def log_density(tracer: Tracer, count: int) -> Callable[[jax.Array, Tracer], jax.Array]:
    """Velocity part of the benchmark's log-density, with flat priors in the parameters."""
    R, v, variance = stars(tracer, count)
    grid = JeansGrid.build(R, tracer)
    aperture = 1.8 * float(tracer.half_light_radius)

    def function(p: jax.Array, tracer: Tracer) -> jax.Array:
        r_s = jnp.exp(p[1])
        rho_s = jnp.exp(p[0]) / GNFW(1.0, r_s, p[2]).enclosed_mass(aperture)
        total = grid.variance(GNFW(rho_s, r_s, p[2]), tracer, Constant(p[3])) + variance
        return -0.5 * jnp.sum((v - p[4]) ** 2 / total + jnp.log(total))

    return function


def cases(count: int) -> Iterator[tuple[str, LogDensity, jax.Array]]:
    """Name, log-density and a point for each of the four measurements."""
    plummer, zhao = Plummer(R_STAR), ZhaoTracer(R_STAR, 2.0, 5.0, 1.0)
    with_plummer, with_zhao = log_density(plummer, count), log_density(zhao, count)
    start = jnp.array(START)
    yield "Plummer, fixed", lambda p: with_plummer(p, plummer), start
    yield (
        "Plummer, fitted",
        lambda p: with_plummer(p, Plummer(jnp.exp(p[5]))),
        jnp.append(start, np.log(0.26)),
    )
    yield "Zhao (2,5,1), fixed", lambda p: with_zhao(p, zhao), start
    yield (
        "Zhao (2,5,gamma), fitted",
        lambda p: with_zhao(p, ZhaoTracer(jnp.exp(p[5]), 2.0, 5.0, p[6])),
        jnp.append(start, jnp.array([np.log(0.26), 0.9])),
    )


def median_ms(function: Callable[[], Any], calls: int) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def loop_ms(value_and_grad: Any, point: jax.Array, turns: int) -> float:
    """Each turn's point hangs on the gradient before it, as in a sampler."""

    def turn(_: int, p: jax.Array) -> jax.Array:
        return p + 1e-12 * value_and_grad(p)[1]

    loop = jax.jit(lambda p: jax.lax.fori_loop(0, turns, turn, p))
    jax.block_until_ready(loop(point))
    start = time.perf_counter()
    jax.block_until_ready(loop(point))
    return 1e3 * (time.perf_counter() - start) / turns


def measure(name: str, function: LogDensity, point: jax.Array, calls: int) -> dict[str, Any]:
    value_and_grad = jax.value_and_grad(function)
    start = time.perf_counter()
    compiled = jax.jit(value_and_grad).lower(point).compile()
    compile_s = time.perf_counter() - start
    value, gradient = compiled(point)
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        raise RuntimeError(f"{name}: the log-density or its gradient is not finite")
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "name": name,
        "ms": median_ms(lambda: compiled(point), calls),
        "loop_ms": loop_ms(value_and_grad, point, max(calls // 2, 1)),
        "compile_s": compile_s,
        "flops": cost.get("flops", float("nan")),
        "bytes": cost.get("bytes accessed", float("nan")),
    }


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--stars", type=int, default=1000)
    args = parser.parse_args(arguments)
    print(f"value and gradient, {args.stars} stars, one core, median of {args.calls} calls")
    print(f"(jax {jax.__version__}, {jax.default_backend()}, target {TARGET_MS} ms)")
    print(f"{'tracer':26} {'ms':>8} {'in loop':>8} {'kflop':>8} {'kB':>8} {'compile s':>10}")
    rows = []
    for name, function, point in cases(args.stars):
        row = measure(name, function, point, args.calls)
        print(
            f"{name:26} {row['ms']:8.4f} {row['loop_ms']:8.4f} {row['flops'] / 1e3:8.0f} "
            f"{row['bytes'] / 1e3:8.0f} {row['compile_s']:10.1f}",
            flush=True,
        )
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
