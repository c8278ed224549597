"""How long work tells of how far it is: `progress.Progress` is one who listens."""

from collections.abc import Callable

OnProgress = Callable[[int, int, str], None]  # (done, total, phase)


def unheard(done: int, total: int, phase: str) -> None:
    """Nobody listens."""
