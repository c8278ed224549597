"""Saved flows: numbers in one file, what they mean in JSON beside it; reading them runs no code.

`flows.eqx` holds arrays alone (Equinox's `tree_serialise_leaves`), and is read into flows that are built
anew from the description, whose shapes and precision it must have.
"""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from bayesdust.errors import BayesdustError
from bayesdust.flows.autoregressive import Architecture, PhaseSpaceFlow, split

SCHEMA_VERSION = 1
WEIGHTS, RECORD = "flows.eqx", "run.json"


def template(architecture: Architecture, members: int) -> PhaseSpaceFlow:
    """An untrained ensemble: the shapes of the one that was saved."""
    keys = jax.random.split(jax.random.key(0), members)
    weights = jax.vmap(lambda key: split(PhaseSpaceFlow.untrained(key, architecture))[0])(keys)
    return eqx.combine(weights, split(PhaseSpaceFlow.untrained(keys[0], architecture))[1])


def save(flows: PhaseSpaceFlow, folder: Path) -> None:
    """Write the arrays of an ensemble into a folder."""
    with open(folder / WEIGHTS, "wb") as file:
        eqx.tree_serialise_leaves(file, flows)


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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BayesdustError(f"{folder / RECORD} is damaged or describes no flows.") from error
    if version != SCHEMA_VERSION:
        raise BayesdustError(f"{folder} was written in version {version}, not {SCHEMA_VERSION}.")
    if not 1 <= members <= 10_000:
        raise BayesdustError(f"{folder / RECORD} is damaged: it counts {members} members.")
    path = folder / WEIGHTS
    try:
        with open(path, "rb") as file:
            flows = eqx.tree_deserialise_leaves(file, template(architecture, members))
            if file.read(1):
                raise ValueError("there is more in it")
    except (OSError, EOFError, RuntimeError, TypeError, ValueError) as error:
        raise BayesdustError(
            f"{path} is damaged, or has not the shape that {RECORD} describes: train again."
        ) from error
    return flows, record
