"""The numbers of a regression set: the precision that they are kept in, and their mean and scale."""

import math
from collections.abc import Sequence

import numpy as np

from compressor.arch import Task
from compressor.errors import DataError
from compressor.naming import printable

ROUNDING = 1e-4
"""Rounding to float32 may move a target by so much of the targets' spread; where it moves one more, float64 is kept."""

LARGEST = 1e15
"""Sums of squares of larger targets, or of errors below its inverse, leave the range of float32."""

APART = 1e-3
"""Two neighbouring float64 numbers must be closer than so much of the targets' spread."""


def precision_of(rows: Sequence[tuple[float, ...]]) -> type[np.floating]:
    """Return float32 where it tells the targets of a set apart, else float64; `rows` has a tuple an image."""
    values = np.array(rows, np.float64)
    spread = values.std(axis=0)
    with np.errstate(under="ignore"):
        moved = np.abs(values.astype(np.float32).astype(np.float64) - values).max(axis=0)
    kept = (moved <= ROUNDING * spread) & (np.abs(values).max(axis=0) <= LARGEST) & (spread >= 1 / LARGEST)
    return np.float32 if kept.all() else np.float64


def scaled(task: Task, targets: np.ndarray, name: str) -> Task:
    """Return a regression task with the mean and the scale of the train targets (N, outputs).

    Sums are exact, so machines agree.

    Raises:
        DataError: the train images of the set `name` do not differ in a target, or by less than float64 can tell.
    """
    columns = [[float(value) for value in column] for column in targets.T]
    mean = tuple(math.fsum(column) / len(column) for column in columns)
    scale = tuple(
        math.sqrt(math.fsum((value - middle) ** 2 for value in column) / len(column))
        for column, middle in zip(columns, mean, strict=True)
    )
    for target, column, spread in zip(task.names, columns, scale, strict=True):
        if (reason := _collapsed(column, spread)) is not None:
            raise DataError(f"dataset {name}: target {printable(target)!r} {reason}")
    return Task(task.kind, task.outputs, task.names, mean=mean, scale=scale)


def _collapsed(column: Sequence[float], spread: float) -> str | None:
    low = min(column)
    high = max(column)
    if low == high:
        return f"is {low:.17g} in all {len(column)} train images; give numbers that differ, or leave the column out"
    if math.ulp(max(abs(low), abs(high))) > APART * spread:
        return f"differs too little for its size ({low:.17g} to {high:.17g}); subtract a constant from its numbers"
    return None
