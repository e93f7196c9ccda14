"""How answers are written: each name as the system has it, and a line an image."""

import csv
import io
import json

import pytest

from compressor.arch import Task, TaskKind
from compressor.config import PredictFormat
from compressor.deploy.answers import Answer, record, writer
from compressor.naming import printable

LABELS = Task(TaskKind.MULTILABEL, 2, ("cat", "dog"))
NUMBERS = Task(TaskKind.REGRESSION, 2, ("x", "y"), mean=(0.0, 0.0), scale=(1.0, 1.0))
CLASSES = Task(TaskKind.BINARY, 2)


def written(kind: PredictFormat, task: Task, *answers: Answer) -> list[str]:
    out = io.StringIO()
    write = writer(kind, out, task, [answer.file for answer in answers])
    for answer in answers:
        write(answer)
    return out.getvalue().splitlines()


def test_classes_without_names_are_numbers():
    assert record(Answer("a.png", (0.25, 0.75), "final"), CLASSES)["class"] == "1"


def test_answers_of_labels_and_numbers_have_a_column_each_in_csv():
    answers = Answer("a,b.png", (0.9, 0.2), "exit 1"), Answer("c.png", (0.1, 0.2), "final")
    assert written(PredictFormat.CSV, LABELS, *answers) == [
        "file,cat,dog,exit", '"a,b.png",0.9,0.2,exit 1', "c.png,0.1,0.2,final",
    ]  # fmt: skip
    assert written(PredictFormat.TABLE, LABELS, *answers) == [
        "file     exit     labels and probabilities", "a,b.png  exit 1   cat 0.900", "c.png    final    none",
    ]  # fmt: skip
    assert written(PredictFormat.TABLE, NUMBERS, Answer("a.png", (12.5, -3.0), "final")) == [
        "file   exit     values", "a.png  final    x 12.5  y -3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["a\u3000b\xa0ä.png", "a\u2028b\x85c\x7fd.png", "a\r\nb\rc\t.png", "a\udcffb\ud83d.png"]
)
@pytest.mark.parametrize("task", [CLASSES, LABELS, NUMBERS], ids=lambda task: task.kind)
def test_an_answer_has_the_files_own_name_but_for_what_is_no_unicode(task, name):
    want, answer = name.replace("\udcff", "?").replace("\ud83d", "?"), Answer(name, (0.75, 0.25), "final")
    (line,) = written(PredictFormat.JSON, task, answer)
    assert json.loads(line)["file"] == want
    assert line.splitlines() == [line]
    out = io.StringIO(newline="")
    writer(PredictFormat.CSV, out, task, [name])(answer)
    assert [row["file"] for row in csv.DictReader(io.StringIO(out.getvalue(), newline=""))] == [want]
    shown = written(PredictFormat.TABLE, task, answer)[1]
    assert shown.startswith("".join(c if c.isprintable() else printable(c) for c in name))
    assert shown.isprintable()


def test_a_class_has_its_own_name_in_json_and_csv_and_a_printable_one_in_a_table():
    task = Task(TaskKind.BINARY, 2, ("x\u202ey", "\u0645\u06cc\u200c\u062e\x1b[2J"))
    answer = Answer("a.png", (0.25, 0.75), "final")
    (line,) = written(PredictFormat.JSON, task, answer)
    assert json.loads(line)["class"] == task.names[1]
    out = io.StringIO(newline="")
    writer(PredictFormat.CSV, out, task, ["a.png"])(answer)
    assert [row["class"] for row in csv.DictReader(io.StringIO(out.getvalue(), newline=""))] == [task.names[1]]
    shown = written(PredictFormat.TABLE, task, answer)[1]
    assert "\u0645\u06cc\\u200c\u062e\\x1b[2J" in shown
    assert shown.isprintable()


def test_a_table_shows_the_end_of_a_long_name():
    long = Answer("far/" * 30 + "cat.png", (0.25, 0.75), "final")
    row = written(PredictFormat.TABLE, CLASSES, long)[1]
    assert row.split() == ["…" + long.file[-59:], "1", "0.7500", "final"]
