"""Numbers as people read them, and the console that shows tables."""

import os
from pathlib import Path

from rich.console import Console

from compressor.records import Quality, Value

WIDTH = 118
"""Columns of what is no terminal."""
NARROWEST = 96
"""Columns that a table gets in any terminal: a narrower one wraps its lines."""

HUGE = 10_000
"""From here on a score is written with an exponent: it went wrong anyhow."""


def console() -> Console:
    """Give the console of stdout: as wide as the terminal, or of a fixed width in files and pipes."""
    shown = Console(highlight=False)
    shown.width = max(NARROWEST, shown.width) if shown.is_terminal else WIDTH
    return shown


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
