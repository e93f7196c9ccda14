"""Regression targets keep their differences, whatever their size; those that cannot be told apart are refused."""

from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from layouts import load

from compressor.arch import Task, TaskKind
from compressor.data.targets import precision_of
from compressor.data.types import Data
from compressor.deploy.answers import Answer, record
from compressor.deploy.predict import _values
from compressor.errors import DataError
from compressor.losses import standardised
from compressor.mixture.losses import each_task_loss
from compressor.quality import per_image, quality


def read(folder: Path, numbers: list[str], **options) -> Data:
    """Read a list of as many images as there are numbers."""
    folder.mkdir(exist_ok=True)
    path = layouts.listed(folder, [[f"{i:03}.png", number] for i, number in enumerate(numbers)])
    return load(folder / "cache", "image_regression", csv=path, image_size=8, **options)


def unit(data: Data) -> np.ndarray:
    return standardised(torch.from_numpy(data.train.targets), data.task).numpy()


SMALL = [f"{i * 0.25 - 3}" for i in range(40)]
FAR = {
    "ids": [f"{1_000_000_000 + i * 0.25 - 3}" for i in range(40)],
    "nanoseconds": [f"{1_700_000_000_000_000_000 + i * 1_000_000_000}" for i in range(40)],
    "tiny": [f"{i}e-28" for i in range(40)],
    "huge": [f"{i}e25" for i in range(40)],
}


@pytest.mark.parametrize("kind", FAR)
def test_far_or_tiny_or_huge_numbers_are_standardised_like_near_ones(kind: str, tmp_path: Path) -> None:
    near = read(tmp_path / "near", SMALL)
    far = read(tmp_path / "far", FAR[kind])
    assert (near.train.targets.dtype, far.train.targets.dtype) == (np.float32, np.float64)
    assert np.abs(unit(far) - unit(near)).max() < 1e-5


@pytest.mark.parametrize("kind", FAR)
def test_scores_of_far_numbers_are_those_of_near_ones(kind: str, tmp_path: Path) -> None:
    scores = []
    for name, numbers in (("near", SMALL), ("far", FAR[kind])):
        data = read(tmp_path / name, numbers)
        targets = torch.from_numpy(data.test.targets)
        out = standardised(targets, data.task) + torch.linspace(-0.1, 0.2, len(targets))[:, None]
        found = quality(out, targets, data.task, medmnist=False)
        assert float(per_image(out, targets, data.task).mean()) == pytest.approx(-found.scores["mae"].value)
        each = each_task_loss(out, targets, data.task, 0.0)
        assert float(each.mean()) == pytest.approx(found.loss)
        scores.append((found.loss, found.scores["r2"].value, found.scores["mae"].value / data.task.scale[0]))
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)


def test_answers_of_far_numbers_can_be_told_apart(tmp_path: Path) -> None:
    data = read(tmp_path / "far", FAR["ids"])
    out = standardised(torch.from_numpy(data.test.targets), data.task).numpy()
    rows = [record(Answer("a", _values(each, data.task), "final"), data.task)["values"]["length"] for each in out]
    assert np.abs(np.array(rows) - data.test.targets[:, 0]).max() < 1e-5


def test_answers_of_near_numbers_keep_the_seven_figures_of_float32() -> None:
    task = Task(TaskKind.REGRESSION, 1, ("angle",), (0.5,), (34.6,))
    values = _values(np.array([0.123456789], np.float32), task)
    assert values == (float(np.float32(0.123456789) * np.float32(34.6) + np.float32(0.5)),)
    assert record(Answer("a", values, "final"), task)["values"] == {"angle": float(f"{values[0]:.7g}")}


@pytest.mark.parametrize("rows", [SMALL, [f"{1900 + i}" for i in range(40)], ["0.1", "0.2", "1000.3"]])
def test_ordinary_numbers_stay_float32(rows: list[str]) -> None:
    assert precision_of([(float(row),) for row in rows]) is np.float32


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("5", r"target 'length' is 5 in all 24 train images; give numbers that differ, or leave the column out"),
        ("0.1", r"target 'length' is 0\.1000000000000000\d* in all 24 train images"),
    ],
)
def test_a_target_that_never_changes_is_refused_by_name(number: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"dataset image_regression: {reason}"):
        read(tmp_path / "set", [number] * 40)


def test_the_one_of_several_targets_that_never_changes_is_named(tmp_path: Path) -> None:
    path = layouts.listed(tmp_path, [[f"{i:02}.png", str(i), "7"] for i in range(40)], "file,length,width")
    with pytest.raises(DataError, match=r"target 'width' is 7 in all"):
        load(tmp_path / "cache", "image_regression", csv=path, image_size=8)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([f"100000000000000000.{i:02}" for i in range(40)], r"is 1e\+17 in all 24 train images"),
        ([f"{10**17 + i}" for i in range(40)], r"differs too little for its size .*; subtract a constant"),
    ],
)
def test_numbers_that_the_text_tells_apart_and_float64_does_not_are_refused(
    numbers: list[str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"target 'length' {reason}"):
        read(tmp_path / "set", numbers)
