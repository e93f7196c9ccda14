"""What a data set is to the rest of the program."""

from dataclasses import dataclass

import numpy as np

from compressor.arch import Task
from compressor.config import AugmentConfig


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, C, H, W), memory-mapped or a view; targets, int64 (N,) classes or float32 (N, outputs)."""

    images: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Data:
    """A data set ready to use.

    `fingerprint` is a digest of all that can change a result: the decoded content, the task, splits, limit and
    augmentation. `mean` and `std` are of the scaled (0..1) pixels of train, a number a channel.
    `flag` is MedMNIST's, for its evaluator. `skipped` counts unreadable images left out.
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
