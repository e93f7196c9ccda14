"""SIGINT and SIGTERM become `Interrupted`: at once, or at the next safe point inside `deferred` and in imports."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from compressor.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.05
"""Seconds until a signal that could not be raised is sent once more."""

_depth = 0
_pending: int | None = None


def _arrived(number: int, frame: FrameType | None) -> None:
    global _pending
    _pending = number
    if _depth:
        return
    if _imports(frame):  # an import that is broken off may end in any error, or in none
        _send_again(number)
        return
    raise Interrupted(number)


def _imports(frame: FrameType | None) -> bool:
    """Say whether something is being imported where a signal arrived."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _send_again(number: int) -> None:
    timer = threading.Timer(AGAIN, signal.raise_signal, (number,))
    timer.daemon = True
    timer.start()


def install() -> None:
    """Make SIGINT and SIGTERM raise `Interrupted` in this process."""
    for number in SIGNALS:
        signal.signal(number, _arrived)


def own() -> None:
    """Do as `install` in a process that is this program's alone; a signal that was lost in a callback comes again."""
    install()
    sys_hook = sys.unraisablehook

    def lost(told: "sys.UnraisableHookArgs") -> None:
        if isinstance(told.exc_value, Interrupted):
            _send_again(told.exc_value.signal)
        else:
            sys_hook(told)

    sys.unraisablehook = lost


def leave() -> None:
    """Let a signal end this process at once from now on, as all its work is done; nothing is said."""
    for number in SIGNALS:
        signal.signal(number, _leave)
    if _pending is not None:  # Python gives its handlers up before it ends, and one more would kill it; this stays
        signal.signal(_pending, signal.SIG_IGN)


def _leave(number: int, _frame: object, end: Callable[[int], object] = os._exit) -> None:
    end(128 + number)  # bound above, as modules may be gone when it is called


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
