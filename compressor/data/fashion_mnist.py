"""Fashion-MNIST from its idx files, gzipped or not, in torchvision's layout or side by side in one folder."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import Reading, Source, damaged, root_of, stamps, whole
from compressor.errors import DataError

URL = "https://github.com/zalandoresearch/fashion-mnist"
NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def find(config: DatasetConfig) -> Source:
    """List the four files, in `dataset.root` or in FashionMNIST/raw below it."""
    root = root_of(config, f"the four idx files of {URL}")
    folders = (root / "FashionMNIST" / "raw", root)
    files = {part: tuple(_existing(folders, name) for name in names) for part, names in FILES.items()}
    listed = [stamps(path.parent, [path.name], URL) for pair in files.values() for path in pair]
    return Source(["fashion_mnist", 1, listed], lambda _workers: _read(files))


def _existing(folders: tuple[Path, ...], name: str) -> Path:
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
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


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of bytes: two zeros, type 8, the number of dimensions, their big-endian sizes, the values."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error):
        raise damaged(path, URL) from None
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < start:
        raise damaged(path, URL)
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    values = np.frombuffer(content, np.uint8, offset=start)
    if values.size != np.prod(shape, dtype=np.int64):
        raise damaged(path, URL)
    return values.reshape(shape)
