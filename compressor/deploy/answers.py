"""How answers to images are written: a table for people, JSON lines or CSV for programs; a line each, as they come."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from compressor.arch import Task, TaskKind
from compressor.config.deploy import PredictFormat
from compressor.naming import printable

WIDEST = 60
"""Letters of a file's name that the table shows; the end of a longer one."""

SHOWN = 4
"""The figures of a number that the table shows."""

SINGLE, DOUBLE = 7, 17
"""The figures that float32 has, and those that float64 has."""

FLOAT32_HOLDS = 1e-4 * 2**24
"""A regression's mean over its scale, up to which float32 tells its numbers apart to a ten-thousandth of the scale."""

HALF = 0.5
"""The probability from which an image has a label."""

BREAKS = {ord(each): f"\\u{ord(each):04x}" for each in "\x7f\x85\u2028\u2029"}
"""What some readers take for the end of a line, or cannot show, and how JSON may write it."""


@dataclass(frozen=True)
class Answer:
    """The answer to an image, `file` as the system names it.

    `values` are the probabilities of the classes or labels, or a regression's numbers in the target's unit; `exit` is
    the head that the image left at: `exit 1` and so on, or `final`. `expert` is which of a mixture's experts answered;
    of several, `1+0`, the weightiest is first, and `exit` names theirs in the same order.
    """

    file: str
    values: tuple[float, ...]
    exit: str
    expert: str | None = None

    @property
    def way(self) -> dict[str, str]:
        """Where the image went, by column."""
        return {"exit": self.exit} | ({} if self.expert is None else {"expert": self.expert})


Write = Callable[[Answer], None]


def writer(kind: PredictFormat, out: TextIO, task: Task, files: Sequence[str], *, experts: int = 0) -> Write:
    """Write what stands above the answers, and give what writes one; `files` are all that will come.

    `experts` is how many of a mixture answer an image, 0 for one network.
    """
    if kind is PredictFormat.CSV:
        return _csv(out, task, experts)
    if kind is PredictFormat.JSON:
        return lambda answer: _line(out, json.dumps(record(answer, task), ensure_ascii=False).translate(BREAKS))
    return _table(out, task, files, experts)


def names_of(task: Task) -> tuple[str, ...]:
    """Name the outputs: classes, labels or numbers; by their position where they have no names."""
    return task.names or tuple(map(str, range(task.outputs)))


def record(answer: Answer, task: Task) -> dict[str, Any]:
    """Give an answer as JSON has it: a class and its probability, labels with theirs, or values by name."""
    names, found = names_of(task), {"file": _encodable(answer.file)}
    values = _values(answer, task)
    each = dict(zip(names, values, strict=True))
    if task.kind is TaskKind.REGRESSION:
        return found | {"values": each} | answer.way
    if task.kind is TaskKind.MULTILABEL:
        return found | {"labels": _labels(answer, names), "probabilities": each} | answer.way
    best = _best(answer)
    return found | {"class": names[best], "probability": values[best]} | answer.way


def _encodable(name: str) -> str:
    """Replace what stands for bytes of a file's name that are no UTF-8; a file of answers cannot hold it."""
    return name.encode("utf-8", "replace").decode()


def figures_of(task: Task) -> int:
    """Return how many figures answers have: the seven of float32, more where the numbers' size hides their differences.

    Values of more than seven are to be computed in float64.
    """
    sizes = [abs(mean) / scale for mean, scale in zip(task.mean, task.scale, strict=False) if scale > 0]
    largest = max(sizes, default=0.0)
    if largest <= FLOAT32_HOLDS:
        return SINGLE
    return min(DOUBLE, SINGLE + math.ceil(math.log10(largest)))


def _values(answer: Answer, task: Task) -> list[float]:
    """Return an answer's values without the figures that mean nothing."""
    figures = figures_of(task)
    return [float(f"{value:.{figures}g}") for value in answer.values]


def _best(answer: Answer) -> int:
    return max(range(len(answer.values)), key=answer.values.__getitem__)


def _labels(answer: Answer, names: Sequence[str]) -> list[str]:
    return [name for name, value in zip(names, answer.values, strict=True) if value > HALF]


def _line(out: TextIO, text: str) -> None:
    out.write(text + "\n")


class _Lines:
    """Ends each row by a line feed. A writer that were told to would leave a carriage return in a name unquoted."""

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def write(self, row: str) -> None:
        """Write a row that ends as those of `csv.writer` do."""
        _line(self.out, row.removesuffix("\r\n"))


def _csv(out: TextIO, task: Task, experts: int) -> Write:
    """Columns: file, class, probability, exit, expert of a mixture; or a column a label or number before exit."""
    table, several = csv.writer(_Lines(out)), task.kind in (TaskKind.REGRESSION, TaskKind.MULTILABEL)
    ends = ("exit", "expert") if experts else ("exit",)
    table.writerow(["file", *(names_of(task) if several else ("class", "probability")), *ends])

    def write(answer: Answer) -> None:
        if several:
            table.writerow([_encodable(answer.file), *_values(answer, task), *answer.way.values()])
        else:
            table.writerow(record(answer, task).values())

    return write


def _table(out: TextIO, task: Task, files: Sequence[str], experts: int) -> Write:
    """Columns as wide as the longest name; nothing waits for the last answer."""
    names = tuple(map(printable, names_of(task)))
    first = min(WIDEST, max(4, *(len(printable(file)) for file in files)))
    second, ends = max(5, *map(len, names)), _ends(experts)

    def row(file: str, cells: Sequence[str], way: Iterable[str]) -> None:
        shown = file if len(file) <= first else f"…{file[1 - first :]}"
        went = "  ".join(f"{cell:{width}}" for cell, width in zip(way, ends.values(), strict=True))
        if len(cells) == 1:
            _line(out, f"{shown:{first}}  {went}  {cells[0]}".rstrip())
        else:
            _line(out, f"{shown:{first}}  {cells[0]:{second}}  {cells[1]:>11}  {went}".rstrip())

    heads = {TaskKind.REGRESSION: ("values",), TaskKind.MULTILABEL: ("labels and probabilities",)}
    row("file", heads.get(task.kind, ("class", "probability")), ends)
    return lambda answer: row(printable(answer.file), _cells(answer, task, names), answer.way.values())


def _ends(experts: int) -> dict[str, int]:
    """Give the width of the column of exits, and of a mixture's experts; each holds as many as answer an image."""
    return {"exit": 8 * experts - 1, "expert": max(6, 3 * experts - 1)} if experts else {"exit": 7}


def _cells(answer: Answer, task: Task, names: Sequence[str]) -> tuple[str, ...]:
    """Give what a table shows of an answer: a class and its probability, or one cell for all labels or numbers."""
    pairs = list(zip(names, answer.values, strict=True))
    if task.kind is TaskKind.REGRESSION:
        figures = figures_of(task) - SINGLE + SHOWN
        return ("  ".join(f"{name} {value:.{figures}g}" for name, value in pairs),)
    if task.kind is TaskKind.MULTILABEL:
        return ("  ".join(f"{name} {value:.3f}" for name, value in pairs if value > HALF) or "none",)
    best = _best(answer)
    return names[best], f"{answer.values[best]:.4f}"
