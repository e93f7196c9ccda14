"""The handwritten digits that come with scikit-learn: 1,797 scans of 8 x 8 grey pixels (0..16 there, 0..255 here)."""

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import Reading, Source, whole


def find(config: DatasetConfig) -> Source:
    """Nothing has to be found: the set is embedded."""
    return Source(["digits", 1], _read)


def scans() -> tuple[np.ndarray, np.ndarray]:
    """Give the images, uint8 (1797, 1, 8, 8), and the digits, int64 (1797,)."""
    from sklearn.datasets import load_digits

    images, labels = (np.asarray(values) for values in load_digits(return_X_y=True))
    return np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8), labels.astype(np.int64)


def _read(_workers: int) -> Reading:
    return whole(Task(TaskKind.MULTICLASS, 10, tuple("0123456789")), {"all": scans()})
