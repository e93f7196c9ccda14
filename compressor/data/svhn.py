"""Street View House Numbers, the cropped digits, in torchvision's layout."""

from pathlib import Path

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import Reading, Source, damaged, root_of, stamps, whole

URL = "http://ufldl.stanford.edu/housenumbers"
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


def find(config: DatasetConfig) -> Source:
    """List the two files of `dataset.root`."""
    root = root_of(config, f"{' and '.join(FILES.values())} of {URL}")
    return Source(["svhn", 1, stamps(root, FILES.values(), URL)], lambda _workers: _read(root))


def _read(root: Path) -> Reading:
    parts = {part: _part(root / name) for part, name in FILES.items()}
    return whole(Task(TaskKind.MULTICLASS, 10, tuple("0123456789")), parts)


def _part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["X", "y"])
        images, labels = content["X"], content["y"].astype(np.int64).reshape(-1)
    except Exception:  # noqa: BLE001 - bytes that are no MAT file can raise anything
        raise damaged(path, URL) from None
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)) or not set(labels) <= set(range(11)):
        raise damaged(path, URL)
    return images.transpose(3, 2, 0, 1), labels % 10  # the file calls the digit 0 "10"
