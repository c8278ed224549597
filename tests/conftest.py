"""What every test starts from: shapes checked at run time, no display, no network, the data."""

import os
import shutil
import socket
import sys
from pathlib import Path

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

REPOSITORY = Path(__file__).resolve().parents[1]

os.environ["MPLBACKEND"] = "Agg"
# Compiling is most of the time of a small test; what was compiled is kept between runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# An int is a fine float, as everywhere in Python.
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
with jaxtyping.install_import_hook("bayesdust", f"{__name__}.typechecked"):
    import bayesdust  # noqa: F401
    from bayesdust.interop import silence_galpy

silence_galpy()


def _connect_to_this_machine_only(self: socket.socket, address: object) -> None:
    local = self.family not in (socket.AF_INET, socket.AF_INET6) or (
        isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1", "localhost")
    )
    if not local:
        raise ConnectionError(f"a test tried to reach {address}: tests use stubbed responses")
    _connect(self, address)


_connect = socket.socket.connect
socket.socket.connect = _connect_to_this_machine_only  # type: ignore[assignment,method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of survey files that are not part of the repository."""
    folder = Path(os.environ.get("BAYESDUST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no survey data: {folder} is not there (BAYESDUST_DATA names the folder)")
    return folder


@pytest.fixture(scope="session")
def dusty():
    """A small survey of a dusty Milky Way whose truth is known: slow to draw, so drawn once."""
    from bayesdust.dusty_mocks import dusty_survey

    return dusty_survey(12_000, seed=5)


@pytest.fixture(scope="session")
def dusty_stars(dusty):
    """Its stars, with the efficiency given."""
    return dusty.stars(weights="1/epsilon")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process: words -> (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        from bayesdust.cli import main

        monkeypatch.setattr(sys, "argv", ["bayesdust", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium that runs headless, for tests marked `browser`."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on PATH")
