"""What a data set is to the rest of the program."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compressor.arch import Task
from compressor.config import AugmentConfig


class Rows:
    """Some rows of a memory-mapped array. Indexing reads only the rows asked for and gives a fresh, writable array.

    `check`, where given, refuses rows of the array that are damaged, before they are read.
    """

    def __init__(self, base: np.ndarray, rows: np.ndarray, check: Callable[[np.ndarray], None] | None = None) -> None:
        self._base = base
        self._rows = rows
        self._check = check
        self.shape: tuple[int, ...] = (len(rows), *base.shape[1:])
        self.dtype = base.dtype
        self.ndim = base.ndim

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Give the rows at an integer, a slice, an array of integers or a mask; other axes are not indexed."""
        rows = self._rows[index]
        if self._check is not None:
            self._check(np.atleast_1d(rows))
        return np.take(self._base, rows, axis=0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, C, H, W), memory-mapped or a view; targets, int64 (N,) classes or (N, outputs).

    Labels are float32, numbers float32 or, where that cannot tell them apart, float64.
    """

    images: np.ndarray | Rows
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Data:
    """A data set ready to use.

    `fingerprint` is a digest of all that can change a result: the decoded content, the task, splits, limit and
    augmentation. `mean` and `std` are of the scaled (0..1) pixels of train, a number a channel.
    `flag` is MedMNIST's, for its evaluator. `skipped` counts unreadable images left out; `left_out` counts all that
    was, by reason and name; `converted` counts the images whose pixels did not have 8 bits, by their kind.
    """

    name: str
    fingerprint: str
    task: Task
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: AugmentConfig
    train: Split
    val: Split
    test: Split
    flag: str | None = None
    skipped: int = 0
    left_out: Mapping[tuple[str, str], int] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)
