"""Numbers as people read them, and the console that shows tables."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from compressor.naming import printable
from compressor.records import Quality, Value

WIDTH = 118
"""Columns of what is no terminal."""
NARROWEST = 96
"""Columns that a table gets in any terminal: a narrower one wraps its lines."""

HUGE = 10_000
"""From here on a score is written with an exponent: it went wrong anyhow."""


def console(*, stderr: bool = False) -> Console:
    """Return the console of stdout: as wide as the terminal, or of a fixed width in files and pipes; or of stderr.

    It shows words as they are: brackets and colons are no markup, and what a terminal would obey is written out.
    """
    shown = Console(highlight=False, markup=False, emoji=False, stderr=stderr)
    shown.push_render_hook(_Printable())
    if not stderr:
        shown.width = max(NARROWEST, shown.width) if shown.is_terminal else WIDTH
    return shown


class _Printable(RenderHook):
    """What rich calls with everything that it is about to print."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(renderable) for renderable in renderables]


class _Shown:
    """What is shown with its text made printable; the styles and movements of rich itself stay."""

    def __init__(self, renderable: RenderableType) -> None:
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _printable(console.render(self.renderable, options))


def _printable(segments: Iterable[Segment]) -> Iterable[Segment]:
    for segment in segments:
        if segment.control or segment.text == "\n":
            yield segment
        else:
            text = "".join(map(_part, re.split("(\n)", segment.text)))
            yield Segment(text, segment.style)


def _part(text: str) -> str:
    return text if text == "\n" else printable(text)


def compact(number: float, unit: str = "") -> str:
    """Write 40551424 as `40.6 M`; three figures, then k, M, G, T."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5 or prefix == "T":
            break
        number /= 1000
    suffix = f" {prefix}{unit}".rstrip()
    if prefix == "" and float(number).is_integer():
        return f"{number:.0f}{suffix}"
    return f"{number:.0f}{suffix}" if abs(number) >= 99.95 else f"{number:.1f}{suffix}"


def percent(score: Value) -> str:
    """Write a share and its interval in percent: `98.9 (97.6-99.5)`."""
    return f"{100 * score.value:.1f} ({100 * score.low:.1f}-{100 * score.high:.1f})"


def plain(score: Value, digits: int) -> str:
    """Write a score and its interval as they are: `0.987 (0.981-0.993)`."""
    value, low, high = (
        f"{number:.{digits}f}" if abs(number) < HUGE else f"{number:.2g}"
        for number in (score.value, score.low, score.high)
    )
    return f"{value} ({low}-{high})"


def headline(quality: Quality) -> str:
    """Name the score that `score_of` shows first."""
    return "accuracy %" if "accuracy" in quality.scores else "MAE"


def score_of(quality: Quality) -> str:
    """Write the score with its 95 % interval: accuracy, on a second line AUC where there is one; MAE for regression."""
    scores = quality.scores
    if "accuracy" not in scores:
        return plain(scores["mae"], 2)
    auc = f"\nAUC {plain(scores['auc'], 3)}" if "auc" in scores else ""
    return percent(scores["accuracy"]) + auc


def ratio(number: float) -> str:
    """Write a ratio to three figures: `187 x`, `4.31 x`."""
    return f"{number:.0f} x" if number >= 99.95 else f"{number:.1f} x" if number >= 9.995 else f"{number:.2f} x"


def duration(seconds: float) -> str:
    """Write a time to two figures or so: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def bytes_of(folder: Path) -> int:
    """Count the bytes of a folder's files."""
    total = 0
    pending = [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file():
                    total += entry.stat().st_size
    return total
