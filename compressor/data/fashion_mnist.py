"""Fashion-MNIST from its idx files, gzipped or not, in torchvision's layout or side by side in one folder."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import Reading, Source, damaged, existing, root_of, whole
from compressor.errors import DataError, FileError
from compressor.files import open_regular

URL = "https://github.com/zalandoresearch/fashion-mnist"
NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CONTENT_LIMIT = 2**27
"""Bytes that an unpacked file may have; the largest of the authors' has 47 million."""

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def find(config: DatasetConfig) -> Source:
    """List the four files, in `dataset.root` or in FashionMNIST/raw below it."""
    root = root_of(config, f"the four idx files of {URL}")
    folders = (root / "FashionMNIST" / "raw", root)
    files = {part: tuple(_existing(folders, name) for name in names) for part, names in FILES.items()}
    paths = [path for pair in files.values() for path in pair]
    listed = [file for path in paths for file in existing(path.parent, [path.name], URL, CONTENT_LIMIT)]
    return Source(["fashion_mnist", 1], lambda _workers: _read(files), listed)


def _existing(folders: tuple[Path, ...], name: str) -> Path:
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.exists():
                return path
    raise DataError(f"{folders[0]}/{name}.gz is missing (or in {folders[1]}, gzipped or not); it comes from {URL}")


def _read(files: dict[str, tuple[Path, ...]]) -> Reading:
    parts = {}
    for part, (images, labels) in files.items():
        pixels, classes = read_idx(images, 3), read_idx(labels, 1)
        if pixels.shape[1:] != (28, 28) or len(pixels) != len(classes) or classes.max(initial=0) > 9:
            raise damaged(images, URL)
        parts[part] = (pixels[:, None], classes.astype(np.int64))
    return whole(Task(TaskKind.MULTICLASS, len(NAMES), NAMES), parts)


def _content(path: Path) -> bytes:
    """Return a file's bytes, unpacked; of more than `CONTENT_LIMIT` one too many, which no idx file accounts for."""
    with open_regular(path, CONTENT_LIMIT) as file:
        if path.suffix == ".gz":
            return gzip.GzipFile(fileobj=file).read(CONTENT_LIMIT + 1)
        return file.read()


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of bytes: two zeros, type 8, the number of dimensions, their big-endian sizes, the values."""
    try:
        content = _content(path)
    except (OSError, EOFError, FileError, zlib.error):
        raise damaged(path, URL) from None
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < start:
        raise damaged(path, URL)
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    values = np.frombuffer(content, np.uint8, offset=start)
    if values.size != np.prod(shape, dtype=np.int64):
        raise damaged(path, URL)
    return values.reshape(shape)
