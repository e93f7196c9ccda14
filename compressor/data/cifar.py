"""CIFAR-10 and CIFAR-100 in torchvision's layout: the pickled batches of the authors, read without unpickling code."""

import io
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import Reading, Source, damaged, existing, root_of, whole
from compressor.errors import DataError, FileError
from compressor.files import read_bytes

BATCH_LIMIT = 2**29
"""Bytes that a batch file may have; the largest of the authors' has 155 million."""


@dataclass(frozen=True)
class Layout:
    """Where a set's files are below `dataset.root`, and the keys of their dictionaries."""

    folder: str
    train: tuple[str, ...]
    meta: str
    labels: str
    names: str
    url: str
    test: str

    @property
    def files(self) -> tuple[str, ...]:
        """Every file, the class names last."""
        return (*self.train, self.test, self.meta)


HOST = "https://www.cs.toronto.edu/~kriz"
LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels="labels",
        names="label_names",
        url=f"{HOST}/cifar-10-python.tar.gz",
    ),
    "cifar100": Layout(
        folder="cifar-100-python",
        train=("train",),
        test="test",
        meta="meta",
        labels="fine_labels",
        names="fine_label_names",
        url=f"{HOST}/cifar-100-python.tar.gz",
    ),
}


def find(config: DatasetConfig) -> Source:
    """List the batch files of `dataset.root`."""
    layout = LAYOUTS[config.name]
    folder = root_of(config, f"the folder {layout.folder} of {layout.url}") / layout.folder
    files = existing(folder, layout.files, f"{layout.url}, unpacked in {folder.parent}", BATCH_LIMIT)
    return Source([config.name, 1], lambda _workers: _read(folder, layout), files)


def _read(folder: Path, layout: Layout) -> Reading:
    names = _load(folder / layout.meta, layout).get(layout.names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise damaged(folder / layout.meta, layout.url)
    train = [_batch(folder / name, layout, len(names)) for name in layout.train]
    images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    task = Task(TaskKind.MULTICLASS, len(names), tuple(names))
    return whole(task, {"train": (images, labels), "test": _batch(folder / layout.test, layout, len(names))})


def _batch(path: Path, layout: Layout, classes: int) -> tuple[np.ndarray, np.ndarray]:
    entry = _load(path, layout)
    images, labels = entry.get("data"), entry.get(layout.labels)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        raise damaged(path, layout.url)
    if not isinstance(labels, list) or len(labels) != len(images):
        raise damaged(path, layout.url)
    if not all(isinstance(label, int | np.integer) and 0 <= label < classes for label in labels):
        raise damaged(path, layout.url)
    return images.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def _load(path: Path, layout: Layout) -> dict[str, Any]:
    try:
        content = read_bytes(path, BATCH_LIMIT)
        _check_memo(content)
        entry = _ArrayReader(io.BytesIO(content), encoding="latin1").load()
    except (DataError, FileError) as error:
        raise DataError(f"{path}: {error}; get it again from {layout.url}") from None
    except Exception:  # noqa: BLE001 - bytes that are no pickle can raise anything
        raise damaged(path, layout.url) from None
    if not isinstance(entry, dict):
        raise damaged(path, layout.url)
    return entry


def _check_memo(content: bytes) -> None:
    """Refuse a pickle that numbers what it remembers otherwise than one by one, as no writer does.

    The reader makes room for the highest number: 22 bytes can ask for gigabytes. Raises ValueError
    also for a pickle that is cut.
    """
    remembered = 0
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if not isinstance(argument, int) or argument > remembered:
                raise ValueError(f"remembers number {argument} after {remembered} others")
            remembered += 1
        elif operation.name == "MEMOIZE":
            remembered += 1


def _number_type(*words: Any) -> np.dtype:
    """Return a dtype of plain numbers; one of raw bytes can make a single value gigabytes large."""
    dtype = np.dtype(*words)
    if dtype.kind not in "biuf":
        raise ValueError(f"holds values of type {dtype.kind}")
    return dtype


def _latin1(text: str, _encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


class _ArrayReader(pickle.Unpickler):
    """Reads containers, numbers, text and NumPy arrays of plain numbers; refuses every other name before it is used."""

    def find_class(self, module: str, name: str) -> Any:
        from numpy._core import multiarray, numeric

        arrays = {"_reconstruct": multiarray._reconstruct, "scalar": multiarray.scalar}  # type: ignore[attr-defined]
        known: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): _number_type}
        known |= {(f"numpy.{core}.multiarray", key): f for core in ("core", "_core") for key, f in arrays.items()}
        known |= {(f"numpy.{core}.numeric", "_frombuffer"): numeric._frombuffer for core in ("core", "_core")}  # type: ignore[attr-defined]
        known |= {("_codecs", "encode"): _latin1}
        if (module, name) not in known:
            raise DataError(f"holds {module}.{name}, which an image batch does not need, so nothing of it was run")
        return known[module, name]
