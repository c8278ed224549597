"""HDF5 files are read by another process first.

The library trusts what it reads: on some damaged files it loops for ever or crashes, and no Python code can
stop it there. The other process is kept for the next file, and ends with this one.
"""

import atexit
import contextlib
import select
import subprocess
import sys
import threading

from bayesdust.errors import BayesdustError

SECONDS, BYTES_A_SECOND = 8.0, 20e6  # that a file may take
_LOOK = """
import io, sys
import h5py

def look(name, item):
    for key in item.attrs:
        item.attrs[key]
    if isinstance(item, h5py.Dataset) and not (item.external or item.is_virtual):
        item[()]

while head := sys.stdin.buffer.read(8):
    content = sys.stdin.buffer.read(int.from_bytes(head, "little"))
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            look("/", file)
            file.visititems(look)
    except Exception:
        pass  # whoever reads the file will say it better
    print("read", flush=True)
"""


class _Reader:
    """The other process, started when it is needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def comes_back(self, content: bytes) -> bool:
        """Whether the library ends with this file, well or not; the process is killed where it does not."""
        with self.lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(len(content).to_bytes(8, "little") + content)
                process.stdin.flush()
            limit = SECONDS + len(content) / BYTES_A_SECOND
            answered, _, _ = select.select([process.stdout], [], [], limit)
            if answered and process.stdout.readline():
                return True
            self.end()
            return False

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is None or self.process.poll() is not None:
            self.end()
            command, pipe = [sys.executable, "-I", "-c", _LOOK], subprocess.PIPE
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
            )
        return self.process


_READER = _Reader()
atexit.register(_READER.end)


def check_hdf5(content: bytes, where: str) -> None:
    """Raises BayesdustError for a file that the library does not come back from."""
    if not _READER.comes_back(content):
        raise BayesdustError(
            f"{where}: is damaged (the HDF5 library does not come back from it); get it again."
        )
