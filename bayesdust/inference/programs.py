"""Model files: found by name or path, loaded, checked, copied; one runs only when it is named."""

import functools
import hashlib
import inspect
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bayesdust.errors import BayesdustError

KINDS = ("dwarf", "milky_way", "milky_way_profile")


@dataclass(frozen=True)
class Program:
    """What a model file defines.

    Attributes
    ----------
    name : file name without `.py`
    path : of the file
    kind : "dwarf", "milky_way" or "milky_way_profile"
    model : NumPyro program of the prepared data, or None where `posterior` is defined
    posterior : (data, key) -> draws, or None
    prepare : (stars, options) -> data, or None; of the Milky Way (stars, options, points,
        **more) -> data, of its profile (profile, options) -> data
    sha256 : of the file's bytes
    """

    name: str
    path: Path
    kind: str
    model: Callable[[Any], Any] | None
    posterior: Callable[[Any, Any], Any] | None
    prepare: Callable[..., Any] | None
    sha256: str = ""


def folder() -> Path:
    """Where the shipped models are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_models"
    return installed if installed.is_dir() else package.parent / "models"


def shipped(kind: str | None = None) -> dict[str, Path]:
    """Name -> file of every shipped model, or of those of one kind."""
    paths = [path for path in sorted(folder().glob("*.py")) if path.stem[0] != "_"]
    line = None if kind is None else f'KIND = "{kind}"'
    return {p.stem: p for p in paths if line is None or line in p.read_text().splitlines()}


def load(name_or_path: str | Path) -> Program:
    """Load a model by the name of a shipped one or by the path of a user's file.

    Whatever goes wrong inside a user's file, now or when its functions are called, is raised as a
    BayesdustError that names the file and the line.

    Raises BayesdustError if there is none, if it does not run, or if it breaks the contract.
    """
    path = _find(name_or_path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BayesdustError(f"{path} cannot be read ({error.strerror}).") from error
    module = _execute(path, content)
    model, posterior, prepare = (
        getattr(module, name, None) for name in ("model", "posterior", "prepare")
    )
    kind = getattr(module, "KIND", None)
    if kind not in KINDS:
        raise BayesdustError(f"{path} must define KIND as one of {', '.join(map(repr, KINDS))}.")
    if not callable(model) and not callable(posterior):
        raise BayesdustError(f"{path} must define model(data), or posterior(data, key).")
    if str(name_or_path) not in shipped():
        model, posterior, prepare = (_guarded(path, f) for f in (model, posterior, prepare))
    digest = hashlib.sha256(content).hexdigest()
    return Program(path.stem, path, kind, model, posterior, prepare, digest)


def describe(path: Path) -> str:
    """First line of a model file's docstring; nothing is run."""
    import ast

    return inspect.cleandoc(ast.get_docstring(ast.parse(path.read_bytes())) or "").split("\n")[0]


def check(program: Program, data: Any) -> None:
    """Go through the model once, by shapes alone, so that its faults show before anything is made.

    Raises BayesdustError if it does not run, samples nothing, never looks at the stars, samples whole
    numbers (which NUTS cannot move), or does not leave its velocities open where `data.v_los` is None.
    """
    assert program.model is not None
    try:
        sites = _sites(program.model, data)
        predicted = _sites(program.model, data.to_predict())
    except BayesdustError:
        raise
    except Exception as error:
        if program.path in shipped().values():
            raise
        raise _fault(program.path, error) from error
    latent = {k: s for k, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
    if not latent:
        raise BayesdustError(f"{program.path}: model(data) samples no parameter: there is no fit.")
    for name, site in latent.items():
        if site["fn"].is_discrete:
            raise BayesdustError(
                f"{program.path}: the parameter {name!r} takes whole numbers only, which cannot be "
                "sampled here: sum over it in the likelihood."
            )
    if not any(_sees_data(site) for site in sites.values()):
        raise BayesdustError(
            f"{program.path}: model(data) never looks at the stars: give its velocities to a site, as "
            "numpyro.sample('v_los', ..., obs=data.v_los), or their likelihood to numpyro.factor."
        )
    if "v_los" in sites and predicted.get("v_los", {}).get("is_observed"):
        raise BayesdustError(
            f"{program.path}: the site 'v_los' must be given obs=data.v_los, which is None where "
            "the velocities are to be predicted."
        )


def _sees_data(site: dict[str, Any]) -> bool:
    """Whether a site is an observed one, or a factor, which is observed too."""
    return site["type"] == "sample" and bool(site["is_observed"])


def _sites(model: Callable[[Any], Any], data: Any) -> dict[str, Any]:
    """The sites of a model by name; the log density is gone through, but nothing is computed."""
    import jax
    from numpyro import handlers
    from numpyro.infer.util import log_density

    found: dict[str, Any] = {}

    def run(key: Any) -> Any:
        density, sites = log_density(handlers.seed(model, key), (data,), {}, {})
        found.update(sites)
        return density

    jax.eval_shape(run, jax.random.PRNGKey(0))
    return found


def copy(name: str, target: str | Path) -> Path:
    """Copy a shipped model to `target`, a new file or a folder; returns the file written.

    Raises BayesdustError if there is no such model, the file exists or it cannot be written.
    """
    source = _find(name)
    path = Path(target)
    path = path / source.name if os.path.isdir(path) else path
    if path.suffix != ".py":
        raise BayesdustError(f"{path} is no folder: give one, or a name ending in .py.")
    if os.path.exists(path):
        raise BayesdustError(f"{path} exists: choose another name or move it away.")
    if not os.path.isdir(path.parent):
        raise BayesdustError(f"There is no folder {path.parent}: make it first.")
    try:
        shutil.copyfile(source, path)
    except OSError as error:
        raise BayesdustError(f"{path} cannot be written ({error.strerror}).") from error
    return path


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if str(name_or_path) in shipped():
        return shipped()[str(name_or_path)]
    if path.suffix == ".py" and os.path.isfile(path):
        return path.resolve()
    known = ", ".join(shipped())
    raise BayesdustError(
        f"There is no model {str(name_or_path)!r}: give the path of a .py file or one of {known}."
    )


def _execute(path: Path, content: bytes) -> ModuleType:
    """The module that a file defines; no bytecode is left beside it."""
    module = ModuleType(f"bayesdust_model_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look up their annotations
    try:
        exec(compile(content, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _fault(path, error) from error
    return module


def _guarded(path: Path, function: Any) -> Any:
    """`function`, whose own errors name the file and the line; None stays None."""
    if not callable(function):
        return None

    @functools.wraps(function)
    def call(*args: Any, **more: Any) -> Any:
        try:
            return function(*args, **more)
        except BayesdustError:
            raise
        except Exception as error:
            raise _fault(path, error) from error

    return call


def _fault(path: Path, error: BaseException) -> BayesdustError:
    """One sentence on an error that a model file made: its last line in that file, and what."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines, text = [error.lineno], error.msg
    else:
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    what = ": ".join(part for part in (type(error).__name__, text[:200].rstrip(".")) if part)
    return BayesdustError(f"{place} does not run ({what}): mend the model file.")
