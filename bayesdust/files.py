"""Files, whole or not at all, and what an earlier run has kept in them."""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bayesdust.errors import BayesdustError, ResumableError

#: what numpy raises of a damaged archive, zipfile's and zlib's errors among it
DAMAGED = (
    OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
CLAIM = "asked.json"  # what the checkpoints of a folder are of


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def claim(folder: Path, asked: Mapping[str, Any]) -> None:
    """Write into `folder` what its checkpoints are of.

    Raises BayesdustError where they are of something else.
    """
    path, wanted = folder / CLAIM, as_json(asked)
    there = asked_before(path)
    if there is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(wanted, indent=1))
    elif there != wanted:
        raise BayesdustError(
            f"{folder} holds checkpoints of other {differences(there, wanted)}: give another folder."
        )


def as_json(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`asked` as it comes back from a file."""
    return dict(json.loads(json.dumps(asked, default=str)))


def asked_before(path: Path) -> dict[str, Any] | None:
    """What a file says was asked for; None if there is none, nothing if it is damaged."""
    try:
        there = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return there if isinstance(there, dict) else {}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The keys that differ, as words; of an inner mapping its own keys."""
    words = []
    for key, value in other.items():
        before = one.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            words += [k for k in {**before, **value} if before.get(k) != value.get(k)]
        elif before != value:
            words.append(key)
    return ", ".join(words) or "contents"


def read_kept[T](path: Path, kind: Callable[..., T]) -> T | None:
    """`kind` of the fields that an earlier run has kept at `path` as JSON; None if there is no file.

    Raises ResumableError where it is damaged.
    """
    if not path.exists():
        return None
    try:
        return kind(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ResumableError(
            f"{path} is damaged: remove that file and repeat the command."
        ) from error
