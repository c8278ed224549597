"""Runs that are killed, folders that are in use, full or damaged: `make check-faults` does it to real
commands and writes docs/results/faults.md.

After every fault the same command is given again, and its draws are compared, bit by bit, with those of a run
that nothing happened to.
"""

import argparse
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import numpy as np  # noqa: E402
from benchmarks.results import provenance  # noqa: E402

from bayesdust import disc_mocks, runs  # noqa: E402
from bayesdust.calibration_run import load as load_calibration  # noqa: E402
from bayesdust.evidence_run import load as load_evidence  # noqa: E402
from bayesdust.mocks import benchmark, observe  # noqa: E402

PAGE = REPOSITORY / "docs" / "results" / "faults.md"
FIT = "fit dsph_nfw_om stars.ecsv --galaxy mock.toml --chains 2 --warmup 200 --draws 400 --out out"
TRAIN = "train galaxy.npz --epochs 3 --out out"
CALIBRATE = "calibrate dsph_nfw_om --replicas 30 --draws 300 --warmup 200 --out out"
EVIDENCE = "evidence dsph_nfw_om stars.ecsv --galaxy mock.toml --particles 200 --out out"
TOML = 'name = "Mock"\ndistance = 80\nrhalf = "8 arcmin"\nrhalf_err = 0.4\nv_sys = 0\n'


def lay_out(folder: Path) -> Path:
    stars = observe(benchmark(300, 1), 80.0, v_err=2.0, seed=1)
    stars["v_other"] = 2 * stars["v_los"]
    stars.write(folder / "stars.ecsv")
    (folder / "mock.toml").write_text(TOML)
    return folder


def lay_out_galaxy(folder: Path) -> Path:
    stars = disc_mocks.draw(2000, seed=1)
    names = ("x", "y", "z", "vx", "vy", "vz")
    np.savez(folder / "galaxy.npz", **dict(zip(names, [*stars.x.T, *stars.v.T], strict=True)))
    return folder


def start(folder: Path, words: str, largest: int | None = None) -> subprocess.Popen:
    """The command line in a process of its own, which may write no file over `largest` bytes."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    command = [sys.executable, "-m", "bayesdust", *words.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, cwd=folder, preexec_fn=limit, env=environment, **pipes)


def finished(folder: Path, words: str, largest: int | None = None) -> tuple[int, str]:
    """Exit code and the last line on stderr."""
    process = start(folder, words, largest)
    _, said = process.communicate()
    return process.returncode, (said.strip().splitlines() or [""])[-1]


def killed(folder: Path, words: str, phase: str) -> bool:
    """Killed once it says `phase`; whether it was still running."""
    process = start(folder, words)
    assert process.stderr is not None
    for line in iter(process.stderr.readline, ""):
        if line.startswith(phase):
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    return process.returncode == -signal.SIGKILL


def draws(folder: Path) -> dict[str, np.ndarray]:
    posterior = runs.load(folder / "out")[0]["posterior"]
    return {str(name): value.values for name, value in posterior.data_vars.items()}


def shares(folder: Path) -> dict[str, np.ndarray]:
    found = load_calibration(folder / "out")[0]
    return {str(i): np.array(list(r.u.values())) for i, r in sorted(found.items())}


def evidences(folder: Path) -> dict[str, np.ndarray]:
    return {"ln Z": np.array([run.ln_z for run in load_evidence(folder / "out").runs])}


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {"flows": np.frombuffer((folder / "out" / "flows.eqx").read_bytes(), np.uint8)}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


class Bench:
    """Folders of their own for every fault, and what an undisturbed run gives."""

    def __init__(self, root: Path):
        self.root, self.count, self.rows = root, 0, []
        self.whole = {
            words: read(self.done(words)) for words, read in (
                (FIT, draws), (TRAIN, weights), (CALIBRATE, shares), (EVIDENCE, evidences)
            )
        }  # fmt: skip

    def folder(self, words: str) -> Path:
        self.count += 1
        folder = self.root / f"{self.count}"
        folder.mkdir()
        return lay_out_galaxy(folder) if words == TRAIN else lay_out(folder)

    def done(self, words: str) -> Path:
        folder = self.folder(words)
        code, said = finished(folder, words)
        if code not in (0, 3):
            raise RuntimeError(f"{words}: exit code {code}: {said}")
        return folder

    def row(self, fault: str, how: str, happened: str, ok: bool) -> None:
        self.rows.append(f"| {fault} | {how} | {happened} | {'ok' if ok else 'WRONG'} |")
        print(self.rows[-1], flush=True)

    def kill(self, words: str, phase: str, read: Callable, what: str) -> None:
        """SIGKILL in a phase, then the same command again."""
        folder = self.folder(words)
        running = killed(folder, words, phase)
        left = sorted(p.name for p in (folder / "out").iterdir()) if running else ["finished"]
        code, _ = finished(folder, words)
        ok = running and left == [".partial"] and code in (0, 3)
        equal = ok and same(read(folder), self.whole[words])
        happened = f"`.partial` alone was left; again: {'the same' if equal else 'OTHER'} {what}"
        self.row(f"killed in {phase}", f"SIGKILL to `{words.split()[0]}`", happened, equal)

    def refused(self, fault: str, how: str, code: int, said: str, word: str) -> None:
        self.row(
            fault,
            how,
            f"exit code {code}: {said}".replace(str(self.root), "..."),
            code == 2 and word in said,
        )


def in_use(bench: Bench) -> None:
    folder = bench.folder(FIT)
    first = start(folder, FIT)
    assert first.stderr is not None
    first.stderr.readline()
    code, said = finished(folder, FIT)
    first.communicate()
    bench.refused(
        "two runs into one folder", "a second `fit` while the first runs", code, said, "in use"
    )


def another_column(bench: Bench) -> None:
    folder = bench.folder(FIT)
    killed(folder, FIT, "sampling")
    code, said = finished(folder, f"{FIT} --column v_los=v_other")
    bench.refused(
        "another column of the same file", "after a kill, `--column v_los=...`", code, said, "stars"
    )


def full(bench: Bench) -> None:
    folder = bench.folder(FIT)
    code, said = finished(folder, FIT, largest=200_000)
    bench.refused("full disk", "no file may have more than 200 kB", code, said, "make room")
    finished(folder, FIT)
    equal = same(draws(folder), bench.whole[FIT])
    bench.row("room again", "the same command", f"{'the same' if equal else 'OTHER'} draws", equal)


def damaged_results(bench: Bench) -> None:
    folder = bench.done(FIT)
    path = folder / "out" / "posterior.nc"
    content = bytearray(path.read_bytes())
    content[len(content) // 3 :] = b"\0" * (len(content) - len(content) // 3)
    path.write_bytes(content)
    code, said = finished(folder, "report out")
    bench.refused(
        "damaged posterior.nc", "two thirds of it zero, `report`", code, said, "posterior.nc"
    )


def damaged_checkpoint(bench: Bench) -> None:
    folder = bench.folder(FIT)
    killed(folder, FIT, "sampling")
    segment = sorted((folder / "out" / ".partial").glob("chain0-*.npz"))[-1]
    segment.write_bytes(segment.read_bytes()[:500])
    code, said = finished(folder, FIT)
    bench.refused("damaged checkpoint", "a segment cut short", code, said, "damaged")
    segment.unlink()
    finished(folder, FIT)
    equal = same(draws(folder), bench.whole[FIT])
    bench.row(
        "the segment removed",
        "the same command",
        f"{'the same' if equal else 'OTHER'} draws",
        equal,
    )


class Trap:
    """Makes a folder if it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("trapped",)


def code_in_files(bench: Bench) -> None:
    folder = bench.folder(FIT)
    names = ("x", "y", "z", "vx", "vy", "vz")
    np.savez(folder / "evil.npz", **{n: np.array([Trap()] * 150, dtype=object) for n in names})
    (folder / "evil.ecsv").write_bytes(pickle.dumps(Trap()))
    for name, words in (
        ("evil.npz", "fit mw_cbe_linear evil.npz --out out"),
        ("evil.ecsv", "fit dsph_nfw_om evil.ecsv --galaxy mock.toml --out out"),
    ):
        code, said = finished(folder, words)
        ok = not (folder / "trapped").exists()
        bench.refused(
            f"a pickle in {name}", "runs code if it is loaded", code if ok else 99, said, "evil"
        )


def text_in_pages(bench: Bench) -> None:
    folder = bench.folder(FIT)
    (folder / "mock.toml").write_text(TOML.replace("Mock", "<script>alert(1)</script>"))
    finished(folder, FIT)
    page = (folder / "out" / "report.html").read_text()
    ok = "<script" not in page and "&lt;script&gt;" in page
    bench.row("HTML in a galaxy's name", "`name` of the galaxy in its TOML", "shown as text", ok)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root))
        for phase in ("warm-up", "sampling", "writing"):
            bench.kill(FIT, phase, draws, "draws")
        bench.kill(TRAIN, "training", weights, "flows")
        bench.kill(CALIBRATE, "fitting", shares, "shares")
        bench.kill(EVIDENCE, "tempering", evidences, "ln Z")
        for fault in (
            in_use,
            another_column,
            full,
            damaged_results,
            damaged_checkpoint,
            code_in_files,
            text_in_pages,
        ):
            fault(bench)
    lines = [
        "# Faults",
        "",
        "Done to real commands, in processes of their own, on a mock dwarf of 300 stars and 2,000 stars of a "
        "disc. Draws, flows, shares and ln Z are compared bit by bit with those of a run that nothing "
        "happened to.",
        "",
        "| fault | how | what happened | |",
        "|---|---|---|---|",
        *bench.rows,
        "",
        "A folder that may not be written to (EACCES, EROFS) ends with one sentence and exit code 2 too: "
        "`tests/test_runs.py`, for root may write anywhere. A model file is run only where a user names it.",
        "",
        provenance("make check-faults"),
        "",
    ]
    PAGE.write_text("\n".join(lines))
    print(f"see {PAGE}")


if __name__ == "__main__":
    main()
