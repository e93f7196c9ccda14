"""How far a study is: one bar in a terminal, a plain line now and then elsewhere; both on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from compressor.lines import write
from compressor.report.progress import EVERY
from compressor.report.text import console
from compressor.studies.board import Tally, Watch


def text_of(tally: Tally) -> str:
    """Say what a study's steps do: `2 running, 20 stored, 1 failed, 3 blocked, 4 min left`; what is 0 is left out.

    The time left is 0 at the end, and while steps take longer than like ones took.
    """
    counts = [
        (tally.running, "running"),
        (tally.stored, "stored"),
        (tally.failed, "failed"),
        (tally.blocked, "blocked"),
    ]
    words = [f"{count} {name}" for count, name in counts if count]
    if tally.seconds_left:
        words.append(f"{duration(tally.seconds_left)} left")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Say how long something takes, in one unit: `40 s`, `12 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


@contextmanager
def followed(enabled: bool) -> Iterator[Watch]:
    """Show a study while it runs; the given function hears how far it is."""
    shown = console(stderr=True)
    if not enabled:
        yield lambda tally: None
    elif shown.is_terminal:
        with _bar(shown) as watch:
            yield watch
    else:
        with lines() as watch:
            yield watch


@contextmanager
def _bar(shown_on: Console) -> Iterator[Watch]:
    columns = (
        TextColumn("study"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=shown_on, transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda tally: shown.update(task, total=tally.total, completed=tally.ended, description=text_of(tally))


@contextmanager
def lines(now: Callable[[], float] = time.monotonic) -> Iterator[Watch]:
    """Write one line every few seconds, and one at the end."""
    last, latest = now(), None

    def watch(tally: Tally) -> None:
        nonlocal last, latest
        latest = tally
        if now() - last >= EVERY:
            last = now()
            _say(tally)

    yield watch
    if latest is not None:
        _say(latest)


def _say(tally: Tally) -> None:
    write(sys.stderr, f"study: {tally.ended}/{tally.total}, {text_of(tally)}".rstrip(", "))
