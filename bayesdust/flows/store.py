"""Saved flows: numbers in one file, what they mean in JSON beside it; reading them runs no code.

`flows.eqx` holds arrays alone (Equinox's `tree_serialise_leaves`), and is read into flows that are built
anew from the description. A digest in the description covers both.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import Architecture, PhaseSpaceFlow, split

SCHEMA_VERSION = 2
WEIGHTS, RECORD = "flows.eqx", "run.json"


def template(architecture: Architecture, members: int) -> PhaseSpaceFlow:
    """An untrained ensemble: the shapes of the one that was saved."""
    keys = jax.random.split(jax.random.key(0), members)
    weights = jax.vmap(lambda key: split(PhaseSpaceFlow.untrained(key, architecture))[0])(keys)
    return eqx.combine(weights, split(PhaseSpaceFlow.untrained(keys[0], architecture))[1])


def save(
    flows: PhaseSpaceFlow, architecture: Architecture, members: int, folder: Path
) -> dict[str, Any]:
    """Write the arrays of an ensemble into a folder; returns the entry "flows" for its run.json."""
    with open(folder / WEIGHTS, "wb") as file:
        eqx.tree_serialise_leaves(file, flows)
    entry = {
        "schema_version": SCHEMA_VERSION,
        "architecture": architecture.to_dict(),
        "members": members,
    }
    return entry | {"sha256": _digest(entry, (folder / WEIGHTS).read_bytes())}


def _digest(entry: Mapping[str, Any], content: bytes) -> str:
    """Of the description, but for the digest in it, and of the arrays."""
    described = {key: value for key, value in entry.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode() + content).hexdigest()


def load(folder: str | Path) -> tuple[PhaseSpaceFlow, dict[str, Any]]:
    """The ensemble that `bayesdust train` left in a folder, and its run.json.

    Raises BayesdustError where there is none, where it is damaged or of another version or shape.
    """
    folder = Path(folder)
    for name in (RECORD, WEIGHTS):
        if not (folder / name).is_file():
            raise BayesdustError(f"{folder} holds no finished flows: there is no {name} in it.")
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        version = record["flows"]["schema_version"]
        architecture = Architecture.from_dict(record["flows"]["architecture"])
        members = int(record["flows"]["members"])
        content = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BayesdustError(f"{folder / RECORD} is damaged or describes no flows.") from error
    if version != SCHEMA_VERSION:
        raise BayesdustError(
            f"{folder} was written in version {version}, not {SCHEMA_VERSION}: train again."
        )
    if record["flows"].get("sha256") != _digest(record["flows"], content):
        raise BayesdustError(
            f"{folder / WEIGHTS} or its description in {RECORD} is damaged or was changed: train again."
        )
    if not 1 <= members <= 10_000:
        raise BayesdustError(f"{folder / RECORD} is damaged: it counts {members} members.")
    try:
        flows = eqx.tree_deserialise_leaves(io.BytesIO(content), template(architecture, members))
    except (OSError, EOFError, RuntimeError, TypeError, ValueError) as error:
        raise BayesdustError(
            f"{folder / WEIGHTS} has not the shape that {RECORD} describes: train again."
        ) from error
    return flows, record
