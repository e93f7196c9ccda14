"""A chain of all techniques runs on every kind of task, reloads bit for bit and is scored as the task asks."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import samples

from compressor.arch import Task, TaskKind
from compressor.data import load_data
from compressor.data.types import Data, Split
from compressor.measure import measure
from compressor.model import load, save
from compressor.store import Store

BITS = (np.arange(10)[:, None] >> np.arange(4) & 1).astype(np.float32)
"""The binary digits of each number, lowest first."""
RELABELLED: dict[TaskKind, tuple[Task, Callable[[np.ndarray], np.ndarray]]] = {
    TaskKind.BINARY: (Task(TaskKind.BINARY, 2, ("even", "odd")), lambda digits: digits % 2),
    TaskKind.ORDINAL: (Task(TaskKind.ORDINAL, 5), lambda digits: digits // 2),
    TaskKind.MULTILABEL: (Task(TaskKind.MULTILABEL, 4), lambda digits: BITS[digits]),
}


def relabelled(digits: Data, kind: TaskKind) -> Data:
    """Ask another question of the digits, with MedMNIST's scores."""
    task, label = RELABELLED[kind]
    splits = {name: getattr(digits, name) for name in ("train", "val", "test")}
    changed = {name: Split(split.images, label(split.targets)) for name, split in splits.items()}
    return replace(digits, task=task, fingerprint=f"{digits.fingerprint}-{kind}", flag="digits", **changed)


def assert_trains(data: Data, tmp_path, scores: set[str]) -> None:
    last, record, metrics, ran = samples.finish(samples.settings(tmp_path, "DPQE", samples.STANDARD), data)
    assert len(ran) == 5
    model = load(Store(tmp_path / "store").folder(last.key))
    (tmp_path / "again").mkdir()
    assert save(model, tmp_path / "again") == record.model
    again = measure(load(tmp_path / "again"), data, samples.RUNTIME)
    assert (again.val, again.test) == (metrics.after.val, metrics.after.test)
    for split in (metrics.after.val, metrics.after.test):
        assert len(split.heads) == len(split.shares) == 2
        for quality in (split.quality, *split.heads):
            assert quality.scores.keys() == scores
            assert all(value.low <= value.value <= value.high for value in quality.scores.values())


@pytest.mark.parametrize("kind", RELABELLED)
def test_a_chain_answers_questions_of_every_kind(kind, digits, tmp_path):
    assert_trains(relabelled(digits, kind), tmp_path, {"accuracy", "auc"})


def test_a_chain_predicts_an_angle(tmp_path):
    data = load_data(replace(samples.DATASET, name="rotated_digits"), samples.RUNTIME)
    assert_trains(data, tmp_path, {"mae", "rmse", "r2"})
