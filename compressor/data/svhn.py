"""Street View House Numbers, the cropped digits, in torchvision's layout."""

import math
from pathlib import Path

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import Reading, Source, damaged, existing, root_of, whole
from compressor.files import open_regular

URL = "http://ufldl.stanford.edu/housenumbers"
FILE_LIMIT = 2**31
"""Bytes that a file may have; `extra`, the largest of the authors', has 1.3 billion."""

MOST_IMAGES = 10**6
"""Images that a file may hold; `extra` holds 531,131."""

FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


def find(config: DatasetConfig) -> Source:
    """List the two files of `dataset.root`."""
    root = root_of(config, f"{' and '.join(FILES.values())} of {URL}")
    files = existing(root, FILES.values(), URL, FILE_LIMIT)
    return Source(["svhn", 1], lambda _workers: _read(root), files)


def _read(root: Path) -> Reading:
    parts = {part: _part(root / name) for part, name in FILES.items()}
    return whole(Task(TaskKind.MULTICLASS, 10, tuple("0123456789")), parts)


def _part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat, whosmat

    try:
        with open_regular(path, FILE_LIMIT) as file:
            # A small file may declare, and unpack to, any size.
            sizes = {name: math.prod(shape) for name, shape, _ in whosmat(file)}
            if sizes["X"] > MOST_IMAGES * 32 * 32 * 3 or sizes["y"] > MOST_IMAGES:
                raise ValueError("too many images")
            file.seek(0)
            content = loadmat(file, variable_names=["X", "y"])
        images, labels = content["X"], content["y"].astype(np.int64).reshape(-1)
        if not np.array_equal(labels, content["y"].reshape(-1)):
            raise ValueError("labels that are no whole numbers")
    except Exception:  # noqa: BLE001 - bytes that are no MAT file can raise anything
        raise damaged(path, URL) from None
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)) or not set(labels) <= set(range(11)):
        raise damaged(path, URL)
    return images.transpose(3, 2, 0, 1), labels % 10  # the file calls the digit 0 "10"
