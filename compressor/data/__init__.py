"""Data sets as memory-mapped arrays, with splits and fingerprints."""

import math
from collections import Counter

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.codec import canonical, digest
from compressor.config import DatasetConfig, RuntimeConfig
from compressor.data.cache import Cached, ready
from compressor.data.sources import Source, find
from compressor.data.splits import split
from compressor.data.summary import OVER_LIMIT, UNREADABLE
from compressor.data.targets import scaled
from compressor.data.types import Data, Rows, Split

STD_FLOOR = 1e-3


def load_data(config: DatasetConfig, runtime: RuntimeConfig) -> Data:
    """Find the set's files, decode them once, and split them; torch is not imported.

    Raises:
        DataError: a file is missing or unreadable, or the set is not what was asked for.
    """
    source = find(config)
    cached = ready(source, config, runtime)
    rows = split(cached.parts, cached.targets, config)
    task = cached.task
    if task.kind is TaskKind.REGRESSION:
        task = scaled(task, cached.targets[rows["train"]], config.name)
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
        left_out=_left_out(source, cached, rows, config),
        converted=cached.converted,
    )


def _left_out(
    source: Source, cached: Cached, rows: dict[str, np.ndarray], config: DatasetConfig
) -> dict[tuple[str, str], int]:
    """Count what was left out of a set: in its folders, by its decoder and by its limit."""
    counts = Counter(source.left_out)
    counts.update((UNREADABLE, name) for name in cached.unreadable)
    if over := len(cached.images) - sum(map(len, rows.values())):
        counts[f"{OVER_LIMIT}={config.limit}", ""] = over
    return dict(counts)


def _part(cached: Cached, rows: np.ndarray) -> Split:
    return Split(Rows(cached.images, rows, cached.check), cached.targets[rows])


def _fingerprint(config: DatasetConfig, cached: Cached, task: Task, rows: dict[str, np.ndarray]) -> str:
    chosen = [rows[name].astype("<i8").tobytes() for name in ("train", "val", "test")]
    return digest(canonical([cached.digests, task, config.augment, config.flag]), *chosen)


def _pixels(moments: np.ndarray, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Turn sums and sums of squares, int64 (N, C, 2), into the mean and deviation of pixels scaled to 0..1."""
    count = len(moments) * size * size
    sums = [(int(total), int(squares)) for total, squares in moments.sum(0)]
    mean = tuple(total / (255 * count) for total, _ in sums)
    std = tuple(math.sqrt((count * squares - total * total) / (255 * count) ** 2) for total, squares in sums)
    return mean, tuple(max(value, STD_FLOOR) for value in std)
