"""One pass over the stars for the linear model, by number of stars: seconds a star and peak memory.

Stars are drawn again from a mock of 20,000: the pass does not know. Each number runs in a process of its
own, so that its peak memory is its own; the ratio printed is to the fewest stars.
"""

import os
import subprocess
import sys

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
NUMBERS = (10_000, 100_000, 1_000_000)
MODES = 1000  # of the potential, and as many of ln epsilon


def one(number: int) -> None:
    """Seconds of the pass, compiling left out, and peak memory [MiB], printed."""
    import resource
    import time

    import jax
    import numpy as np

    from bayesdust import disc_mocks
    from bayesdust.dynamics.modes import Modes
    from bayesdust.dynamics.weak_form import CHUNK, Bumps, Sample, moments

    centre = np.array(disc_mocks.SURVEY.centre)
    mock = disc_mocks.draw(20_000, seed=1)
    tests = Bumps.inside(centre, 3.9, -220.0)
    modes, dust = (
        Modes.covering(centre, 4.0, np.array(lengths), MODES)
        for lengths in ((3.0, 3.0, 0.8), (1.0, 1.0, 0.6))
    )
    rows = np.random.default_rng(0).integers(len(mock.x), size=number)
    stars = Sample.of(mock.x[rows], mock.v[rows])
    warm = Sample.of(mock.x[:CHUNK], mock.v[:CHUNK])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    jax.block_until_ready(moments(tests, warm, modes.gradients, dust.gradients))
    clock = time.perf_counter()
    found = moments(tests, stars, modes.gradients, dust.gradients)
    jax.block_until_ready(found)
    spent = time.perf_counter() - clock
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{number} {tests.number} {spent:.3f} {before:.0f} {after:.0f}")


def main() -> None:
    first = 0.0
    print(
        f"{'stars':>9} {'sums':>5} {'s':>8} {'us a star':>10} {'ratio':>6} {'MiB before':>11} {'peak':>6}"
    )
    for number in NUMBERS:
        made = subprocess.run(
            [sys.executable, __file__, str(number)], capture_output=True, text=True, check=True
        )
        n, k, spent, before, after = made.stdout.split()
        each = 1e6 * float(spent) / number
        first = first or each
        print(
            f"{n:>9} {k:>5} {spent:>8} {each:>10.1f} {each / first:>6.2f} {before:>11} {after:>6}"
        )


if __name__ == "__main__":
    one(int(sys.argv[1])) if len(sys.argv) > 1 else main()
