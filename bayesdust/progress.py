"""How far a run is, on stderr: a bar on a terminal, a line at every tenth elsewhere."""

import sys
import time
from types import TracebackType
from typing import TextIO


class Progress:
    """Called with (done, total, phase); a total of 0 means that nobody knows how long it will be.

    On a terminal one bar with the phase and the time left; into a file or a pipe a line whenever
    the phase changes or another tenth is done.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        from tqdm import tqdm

        self.stream = sys.stderr if stream is None else stream
        self.phase = ""
        self.tenths = 0
        self.start: tuple[float, int] | None = None
        self.bar = None
        if self.stream.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
            self.bar = tqdm(total=1, file=self.stream, bar_format=form, leave=False, smoothing=0.1)

    def __call__(self, done: int, total: int, phase: str = "working") -> None:
        if self.bar is not None:
            self._draw(done, total, phase)
        else:
            self._write(done, total, phase)
        self.phase = phase

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def _draw(self, done: int, total: int, phase: str) -> None:
        assert self.bar is not None
        if total and total != self.bar.total:
            self.bar.reset(total)
            self.bar.initial = done  # resumed: not done at today's pace
        self.bar.set_description_str(phase, refresh=False)
        self.bar.n = done if total else self.bar.n
        self.bar.refresh()

    def _write(self, done: int, total: int, phase: str) -> None:
        now = time.monotonic()
        tenths = 10 * done // total if total else 0
        if total and self.start is None:
            self.start = (now, done)
        if phase == self.phase and tenths <= self.tenths:
            return
        self.tenths = tenths
        line = phase
        if total:
            line += f": {100 * done // total} %"
            began, first = self.start or (now, done)
            if first < done < total:
                line += f", {_duration((now - began) * (total - done) / (done - first))} left"
        print(line, file=self.stream, flush=True)


def _duration(seconds: float) -> str:
    """A rough length of time, such as "40 s" or "2 h 05 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
