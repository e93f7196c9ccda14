"""How answers to images are written: a table for people, JSON lines or CSV for programs; a line each, as they come."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from compressor.arch import Task, TaskKind
from compressor.config.deploy import PredictFormat

WIDEST = 60
"""Letters of a file's name that the table shows; the end of a longer one."""

HALF = 0.5
"""The probability from which an image has a label."""


@dataclass(frozen=True)
class Answer:
    """An image's answer.

    `values` are the probabilities of the classes or labels, or a regression's numbers in the target's unit; `exit` is
    the head that the image left at: `exit 1` and so on, or `final`.
    """

    file: str
    values: tuple[float, ...]
    exit: str


Write = Callable[[Answer], None]


def writer(kind: PredictFormat, out: TextIO, task: Task, files: Sequence[str]) -> Write:
    """Write what stands above the answers, and give what writes one; `files` are all that will come."""
    if kind is PredictFormat.CSV:
        return _csv(out, task)
    if kind is PredictFormat.JSON:
        return lambda answer: _line(out, json.dumps(record(answer, task), ensure_ascii=False))
    return _table(out, task, files)


def names_of(task: Task) -> tuple[str, ...]:
    """Name the outputs: classes, labels or numbers; by their position where they have no names."""
    return task.names or tuple(map(str, range(task.outputs)))


def record(answer: Answer, task: Task) -> dict[str, Any]:
    """Give an answer as JSON has it: a class and its probability, labels with theirs, or values by name."""
    names, found = names_of(task), {"file": answer.file}
    each = dict(zip(names, map(_rounded, answer.values), strict=True))
    if task.kind is TaskKind.REGRESSION:
        return found | {"values": each, "exit": answer.exit}
    if task.kind is TaskKind.MULTILABEL:
        return found | {"labels": _labels(answer, names), "probabilities": each, "exit": answer.exit}
    best = _best(answer)
    return found | {"class": names[best], "probability": _rounded(answer.values[best]), "exit": answer.exit}


def _rounded(value: float) -> float:
    """Keep the seven figures that float32 has."""
    return float(f"{value:.7g}")


def _best(answer: Answer) -> int:
    return max(range(len(answer.values)), key=answer.values.__getitem__)


def _labels(answer: Answer, names: Sequence[str]) -> list[str]:
    return [name for name, value in zip(names, answer.values, strict=True) if value > HALF]


def _line(out: TextIO, text: str) -> None:
    out.write(text + "\n")


def _csv(out: TextIO, task: Task) -> Write:
    """Columns: file, class, probability, exit; or a column a label or number between file and exit."""
    table, several = csv.writer(out, lineterminator="\n"), task.kind in (TaskKind.REGRESSION, TaskKind.MULTILABEL)
    table.writerow(["file", *(names_of(task) if several else ("class", "probability")), "exit"])

    def write(answer: Answer) -> None:
        if several:
            table.writerow([answer.file, *map(_rounded, answer.values), answer.exit])
        else:
            table.writerow(record(answer, task).values())

    return write


def _table(out: TextIO, task: Task, files: Sequence[str]) -> Write:
    """Columns as wide as the longest name; nothing waits for the last answer."""
    names, first = names_of(task), min(WIDEST, max(4, *map(len, files)))
    several = task.kind in (TaskKind.REGRESSION, TaskKind.MULTILABEL)
    second = max(5, *map(len, names))

    def row(file: str, *cells: str) -> None:
        shown = file if len(file) <= first else f"…{file[1 - first :]}"
        if several:
            _line(out, f"{shown:{first}}  {cells[-1]:7}  {cells[0]}".rstrip())
        else:
            _line(out, f"{shown:{first}}  {cells[0]:{second}}  {cells[1]:>11}  {cells[2]}")

    def write(answer: Answer) -> None:
        if task.kind is TaskKind.REGRESSION:
            row(answer.file, "  ".join(f"{n} {v:.4g}" for n, v in zip(names, answer.values, strict=True)), answer.exit)
        elif task.kind is TaskKind.MULTILABEL:
            found = [f"{n} {v:.3f}" for n, v in zip(names, answer.values, strict=True) if v > HALF]
            row(answer.file, "  ".join(found) or "none", answer.exit)
        else:
            best = _best(answer)
            row(answer.file, names[best], f"{answer.values[best]:.4f}", answer.exit)

    heads = {TaskKind.REGRESSION: ("values", "exit"), TaskKind.MULTILABEL: ("labels and probabilities", "exit")}
    row("file", *heads.get(task.kind, ("class", "probability", "exit")))
    return write
