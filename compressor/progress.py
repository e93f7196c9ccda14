"""How long work tells where it is, whoever shows it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int, str], None]
"""Says that so many units more are done, with a short remark."""

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a bar of a title and a total number of units."""


@contextmanager
def silent(title: str, total: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda units, remark: None
