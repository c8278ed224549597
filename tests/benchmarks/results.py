"""What the long checks share: runs that are kept once they are settled, and where figures come from."""

import datetime
import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from bayesdust.errors import BayesdustError
from bayesdust.files import as_json, write_atomically
from bayesdust.runs import Request, load, run

REPOSITORY = Path(__file__).resolve().parents[2]
DUSTY_MOCK = "dev_mock_100k.npz"


def data_folder() -> Path:
    """Where the files are that are not part of the repository: `BAYESDUST_DATA`, or beside it."""
    return Path(os.environ.get("BAYESDUST_DATA", REPOSITORY.parent / "shared" / "data"))


def dusty_mock(first: int | None = None) -> dict[str, np.ndarray]:
    """The dusty Milky Way of 100,000 stars with its truth; of its `first` stars alone."""
    with np.load(data_folder() / "milky_way" / DUSTY_MOCK) as archive:
        mock = dict(archive)
    stars = len(mock["x"])
    return {name: a[:first] if a.shape[:1] == (stars,) else a for name, a in mock.items()}


def pooled(z: np.ndarray) -> tuple[float, float, float, float]:
    """Mean z and rms z over (mock, place), each with its error from the scatter between mocks."""
    count = len(z)
    mean, square = np.nanmean(z, axis=1), np.nanmean(z**2, axis=1)
    rms = float(np.sqrt(square.mean()))
    error = float(square.std(ddof=1) / np.sqrt(count) / (2 * rms))
    return float(mean.mean()), float(mean.std(ddof=1) / np.sqrt(count)), rms, error


def settled_run(request: Request, folder: Path) -> tuple[Any, bool]:
    """The DataTree of a request and whether its diagnostics passed; a finished one is reused.

    A folder finished by another request (changed model, data, versions) is run again.
    """
    try:
        tree, record = load(folder)
        wanted = as_json(request.fingerprint())
        kept = json.loads((folder / "fingerprint.json").read_text())
        if kept == wanted:
            return tree, record["passed"]
    except (BayesdustError, OSError):
        pass
    verdict = run(request, folder, overwrite=True)
    (folder / "fingerprint.json").write_text(json.dumps(request.fingerprint()))
    return load(folder)[0], verdict.passed


def kept_json(
    folder: Path, number: int, make: Callable[[], Callable[[int], dict]], workers: int = 1
) -> list[dict]:
    """`number` results by index, each kept in `folder` as it is done; those kept are read back.

    `make` is called where some are missing, and makes what turns an index into a result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:04d}.json" for i in range(number)]
    missing = [i for i, path in enumerate(files) if not path.exists()]
    if missing:
        work = make()
        with ThreadPoolExecutor(workers) as pool:
            tasks = {pool.submit(work, i): i for i in missing}
            for done, task in enumerate(as_completed(tasks), 1):
                write_atomically(files[tasks[task]], json.dumps(task.result()))
                if done % 5 == 0:
                    print(f"{folder.name}: {done} of {len(missing)}", flush=True)
    return [json.loads(path.read_text()) for path in files]


def reach(mock: Any) -> np.ndarray:
    """Which of the dusty mock's places are compared: within 3 kpc, and 1 kpc of the plane."""
    offset = mock["grid_xyz"] - mock["sun_xyz"]
    return (np.linalg.norm(offset, axis=1) <= 3.0) & (abs(mock["grid_xyz"][:, 2]) <= 1.0)


def force_sizes(a: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Sizes (d,) of the horizontal and of the vertical force, for draws a (d, m, 3) and the truth (m, 3)."""
    return [
        np.sum(truth[:, i] * a[..., i], axis=(1, 2)) / np.sum(truth[:, i] ** 2)
        for i in ([0, 1], [2])
    ]


def chi2_of(tree: Any) -> str:
    """Mean chi2 of the sums over the stars, and its degrees of freedom."""
    return f"{float(tree['posterior']['chi2'].mean()):.0f} / {tree.attrs['chi2_dof']}"


def seconds_of(folder: Path) -> float:
    """Wall time [s] that the run in `folder` took, when it was run."""
    return float(json.loads((folder / "run.json").read_text())["wall_seconds"]["total"])


def provenance(command: str) -> str:
    """The last line of a page of results: command, commit and date."""

    def git(*words: str) -> str:
        run = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True)
        return run.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    if git("status", "--porcelain", "bayesdust", "models/*.py", "tests"):
        commit += " with changes"
    return f"Made by `{command}` at commit {commit} on {datetime.date.today().isoformat()}."
