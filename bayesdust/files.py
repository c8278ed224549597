"""Files, whole or not at all, and what an earlier run has kept in them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from bayesdust.errors import ResumableError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


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
