"""SIGINT and SIGTERM become `Interrupted`: at once, or at the next safe point inside `deferred`."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from compressor.errors import Interrupted

_depth = 0
_pending: int | None = None


def _arrived(number: int, _frame: object) -> None:
    global _pending
    _pending = number
    if _depth == 0:
        raise Interrupted(number)


def install() -> None:
    """Make SIGINT and SIGTERM raise `Interrupted` in this process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _arrived)


def arrived() -> int | None:
    """Tell the number of the signal that arrived last."""
    return _pending


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Hold signals back; the given function tells the number of one that arrived. It is raised at the end."""
    global _depth
    _depth += 1
    try:
        yield arrived
    finally:
        _depth -= 1
    if _pending is not None and _depth == 0:
        raise Interrupted(_pending)
