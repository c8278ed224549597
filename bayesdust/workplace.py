"""A run's folder: locked while it works, resumed if it was stopped, whole or not there at all.

Everything is made in OUT/.partial. At the end the results are moved to OUT one after another,
run.json last, so that OUT holds a finished run if and only if it holds a run.json.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.files import CLAIM, as_json, asked_before, differences, write_atomically

RESULTS = ("posterior.nc", "summary.ecsv", "report.html", "run.json")
EXTRAS = ("weights.nc", "flow_forces.npz")  # what only some runs leave
# results of the other commands, which an overwritten folder must not keep beside a run.json not theirs
OTHERS = ("evidence.ecsv", "replicas.ecsv", "calibration.ecsv", "flows.eqx", "quality.html")
_LOCK, _REQUEST = "lock", "request.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK = (*_FULL, errno.EROFS, errno.EIO)


@contextlib.contextmanager
def workplace(
    out: Path, request: Mapping[str, Any], overwrite: bool, results: Sequence[str] = RESULTS
) -> Iterator[Path]:
    """The folder OUT/.partial, locked for `request` (anything that JSON holds).

    Left without an error, any `EXTRAS` and the `results` in it, run.json last, are moved to OUT and it is
    removed. Left with a BayesdustError it is removed with whatever was made for it, for the request cannot be
    done; with any other error, or a ResumableError, it stays for the same request if there is work in it.

    Raises BayesdustError where OUT is no folder of ours to write in, holds a finished run or an
    unfinished one of another request (unless `overwrite`), or is in use by another process.
    """
    partial = out / ".partial"
    made: list[Path] = []
    try:
        _check(out, overwrite, results)
        made = _make(partial)
        with _locked(partial, out):
            try:
                _check(out, overwrite, results)  # another process may have finished meanwhile
                _claim(partial, out, request, overwrite)
                yield partial
            except BaseException as error:
                _leave(partial, made, error)
                raise
            _publish(partial, out, results)
            shutil.rmtree(partial)
    except OSError as error:
        if error.errno not in _DISK and not _lies_in(error.filename, out):
            raise
        reason = os.strerror(error.errno or 0)
        advice = "choose another folder"
        if error.errno in _FULL:
            advice = "make room and repeat the command, which goes on from what is done"
        raise ResumableError(f"{out} cannot be written ({reason}): {advice}.") from error


def has_work(partial: Path) -> bool:
    """Whether there is anything in the workplace to go on from."""
    return any(path.name not in (_LOCK, _REQUEST, CLAIM) for path in partial.iterdir())


def _check(out: Path, overwrite: bool, results: Sequence[str]) -> None:
    if out.exists() and not out.is_dir():
        raise BayesdustError(f"{out} is a file: give a folder.")
    if overwrite:
        return
    if (out / "run.json").exists():
        raise BayesdustError(f"{out} holds a finished run: add --overwrite to replace it.")
    there = [name for name in results if (out / name).exists()]
    if there and not (out / ".partial").exists():
        raise BayesdustError(
            f"{out} holds a {there[0]} of something else: choose another folder, or add "
            "--overwrite to replace it."
        )


def _make(partial: Path) -> list[Path]:
    """Make the folder; returns those that were not there, the innermost first."""
    made = [path for path in (partial, *partial.parents) if not path.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError:
        _unmake(made)
        raise
    return made


def _unmake(made: list[Path]) -> None:
    for path in made:
        with contextlib.suppress(OSError):  # gone already, or somebody else's things are in it
            path.rmdir()


@contextlib.contextmanager
def _locked(partial: Path, out: Path) -> Iterator[None]:
    """Hold the lock of a workplace; it is let go however the process ends."""
    path = partial / _LOCK
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        with open(path, "a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise BayesdustError(
                    f"{out} is in use by another run (process {lock.read() or 'unknown'}): wait "
                    "for it or choose another folder."
                ) from error
            # a run that finished may have removed the file between our opening and locking it
            if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
                yield
                return


def _claim(partial: Path, out: Path, request: Mapping[str, Any], overwrite: bool) -> None:
    """Start afresh, or go on with the same request; refuse to go on with another."""
    file = partial / _REQUEST
    wanted, there = as_json(request), asked_before(file)
    if there == wanted:
        return
    if has_work(partial) and not overwrite:
        other = differences(there or {}, wanted)
        raise ResumableError(
            f"{out} holds an unfinished run with other {other}: repeat its command to go on with "
            "it, choose another folder, or add --overwrite to start afresh."
        )
    for path in partial.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_atomically(file, json.dumps(wanted, indent=1))


def _leave(partial: Path, made: list[Path], error: BaseException) -> None:
    """Keep the work that a repeated command can go on from, else leave no trace."""
    futile = isinstance(error, BayesdustError) and not isinstance(error, ResumableError)
    if has_work(partial) and not futile:
        return
    shutil.rmtree(partial, ignore_errors=True)
    _unmake(made)


def _publish(partial: Path, out: Path, results: Sequence[str]) -> None:
    """Move the results into place; an older run counts as finished until these are complete."""
    (out / results[-1]).unlink(missing_ok=True)
    for name in {*RESULTS, *EXTRAS, *OTHERS} - set(results):
        (out / name).unlink(missing_ok=True)
        if (partial / name).exists():
            os.replace(partial / name, out / name)
    for name in results:
        os.replace(partial / name, out / name)


def _lies_in(name: Any, out: Path) -> bool:
    """Whether a file that could not be used is one of ours, or a folder on the way to it."""
    if not isinstance(name, str | bytes | os.PathLike):
        return False
    path, folder = Path(os.fsdecode(name)).absolute(), out.absolute()
    return path.is_relative_to(folder) or folder.is_relative_to(path)
