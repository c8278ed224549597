"""How long the scores of a flow take: `make bench`.

grad_x and grad_v of ln n + ln p(v|x) at 100,000 points, eight masked autoregressive layers in all (four in
space, four in velocity), each with two hidden layers of 64: median over calls, and the compiler's count of
operations. Two cores are wanted at 0.28 s.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from bayesdust.flows.autoregressive import Architecture, PhaseSpaceFlow
from bayesdust.flows.scores import scores

TARGET = 0.28  # s
CENTRE, RADIUS = (-8.122, 0.0, 0.0208), 4.0


def points(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in the ball and velocities."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3))
    x *= (0.9 * RADIUS * rng.random(count) ** (1 / 3) / np.linalg.norm(x, axis=1))[:, None]
    v = rng.normal(size=(count, 3)) * 40 + np.array([0.0, 220.0, 0.0])
    return (x + np.array(CENTRE)).astype(np.float32), v.astype(np.float32)


def measure(flow: PhaseSpaceFlow, count: int, calls: int) -> tuple[float, float]:
    """Median and least seconds a call."""
    x, v = map(jnp.asarray, points(count))
    jax.block_until_ready(scores(flow, x, v))
    times = []
    for _ in range(calls):
        clock = time.perf_counter()
        jax.block_until_ready(scores(flow, x, v))
        times.append(time.perf_counter() - clock)
    return statistics.median(times), min(times)


def operations(layers: int, width: int) -> float:
    """Floating-point operations a point of the matrix products: forward, and back to the inputs."""
    inner = 3 * width + width * width + 6 * width
    return 2 * 2 * layers * (2 * inner + 3 * width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=7)
    arguments = parser.parse_args()
    print(f"scores at {arguments.points:,} points, float32, {jax.devices()[0]}")
    for layers, width in ((4, 64), (4, 48)):
        ones, zeros = (1.0,) * 3, (0.0,) * 3
        a = Architecture(
            CENTRE, RADIUS, zeros, (40.0,) * 3, zeros, ones, layers=layers, widths=(width, width)
        )
        flow = PhaseSpaceFlow.untrained(jax.random.key(0), a)
        median, least = measure(flow, arguments.points, arguments.calls)
        rate = operations(layers, width) * arguments.points / median / 1e9
        print(
            f"{2 * layers} layers of ({width}, {width}): median {median:.2f} s, least {least:.2f} s "
            f"({rate:.0f} Gflop/s in matrix products; wanted {TARGET} s at width 64)"
        )


if __name__ == "__main__":
    main()
