"""Data sets as memory-mapped arrays, with splits and fingerprints."""

import math

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.codec import canonical, digest
from compressor.config import DatasetConfig, RuntimeConfig
from compressor.data.cache import Cached, ready
from compressor.data.sources import find
from compressor.data.splits import split
from compressor.data.types import Data, Rows, Split

STD_FLOOR = 1e-3


def load_data(config: DatasetConfig, runtime: RuntimeConfig) -> Data:
    """Find the set's files, decode them once, and split them; torch is not imported.

    Raises:
        DataError: a file is missing or unreadable, or the set is not what was asked for.
    """
    cached = ready(find(config), config, runtime)
    rows = split(cached.parts, cached.targets, config)
    task = _scaled(cached.task, cached.targets[rows["train"]])
    mean, std = _pixels(cached.moments[rows["train"]], cached.size)
    return Data(
        name=config.name,
        fingerprint=_fingerprint(config, cached, task, rows),
        task=task,
        channels=cached.channels,
        size=cached.size,
        mean=mean,
        std=std,
        augment=config.augment,
        train=_part(cached, rows["train"]),
        val=_part(cached, rows["val"]),
        test=_part(cached, rows["test"]),
        flag=config.flag,
        skipped=len(cached.unreadable),
    )


def _part(cached: Cached, rows: np.ndarray) -> Split:
    return Split(Rows(cached.images, rows), cached.targets[rows])


def _fingerprint(config: DatasetConfig, cached: Cached, task: Task, rows: dict[str, np.ndarray]) -> str:
    chosen = [rows[name].astype("<i8").tobytes() for name in ("train", "val", "test")]
    return digest(canonical([cached.digests, task, config.augment, config.flag]), *chosen)


def _scaled(task: Task, targets: np.ndarray) -> Task:
    """Give a regression task the mean and the scale of the train targets; sums are exact, so machines agree."""
    if task.kind is not TaskKind.REGRESSION:
        return task
    columns = [[float(value) for value in column] for column in targets.T]
    mean = tuple(math.fsum(column) / len(column) for column in columns)
    spread = [
        math.sqrt(math.fsum((value - middle) ** 2 for value in column) / len(column))
        for column, middle in zip(columns, mean, strict=True)
    ]
    scale = tuple(value if value > 0 else 1.0 for value in spread)
    return Task(task.kind, task.outputs, task.names, mean=mean, scale=scale)


def _pixels(moments: np.ndarray, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Turn sums and sums of squares, int64 (N, C, 2), into the mean and deviation of pixels scaled to 0..1."""
    count = len(moments) * size * size
    sums = [(int(total), int(squares)) for total, squares in moments.sum(0)]
    mean = tuple(total / (255 * count) for total, _ in sums)
    std = tuple(math.sqrt((count * squares - total * total) / (255 * count) ** 2) for total, squares in sums)
    return mean, tuple(max(value, STD_FLOOR) for value in std)
