"""How far the work is: a bar in a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import current_process

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from compressor.lines import line as shown
from compressor.naming import printable
from compressor.process import tell
from compressor.progress import Advance, Progress, silent
from compressor.report.text import console

EVERY = 10.0
"""Seconds between plain lines."""


def progress_of(enabled: bool) -> Progress:
    """Choose how to show progress, on stderr: nothing, one bar at a time, or plain lines where no bar can stand."""
    if not enabled:
        return silent
    shown = console(stderr=True)
    alone = current_process().name == "MainProcess"  # the bars of several processes would overwrite each other
    return _bars(shown) if shown.is_terminal and alone else lines


def _bars(shown_on: Console) -> Progress:
    @contextmanager
    def bar(title: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:9}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[remark]}", markup=False),
        )
        with RichProgress(*columns, console=shown_on, transient=True) as shown:
            task = shown.add_task(printable(title), total=total, remark="")
            yield lambda units, remark: shown.update(task, advance=units, remark=printable(remark))

    return bar


@contextmanager
def lines(title: str, total: int, now: Callable[[], float] = time.monotonic) -> Iterator[Advance]:
    """Write one line every few seconds, and one at the end.

    What is left is told by the pace since the first advance, which may be what an interrupted call had done.
    """
    began = last = now()
    done, said = 0, ""
    first: tuple[int, float] | None = None

    def advance(units: int, remark: str) -> None:
        nonlocal done, said, last, first
        done, said = done + units, remark
        first = first or (done, now())
        if now() - last >= EVERY:
            last = now()
            before, since = first if done > first[0] else (0, began)
            left = (last - since) / max(done - before, 1) * (total - done)
            _say(f"{title}: {done}/{total}, about {left:.0f} s left, {remark}")

    yield advance
    _say(f"{title}: {done}/{total} in {now() - began:.0f} s{', ' if said else ''}{said}")


def _say(line: str) -> None:
    tell(shown(line.rstrip(", ")))
