"""Small data sets on disk in the real layouts, and the settings to load them."""

import csv
import gzip
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from compressor.config import AugmentConfig, DatasetConfig, RuntimeConfig
from compressor.data import load_data
from compressor.data.types import Data

PLAIN = AugmentConfig(crop=0, flip=False, cutout=0)
DEFAULTS: dict[str, Any] = dict.fromkeys(("root", "flag", "csv", "image_size", "channels", "limit")) | {
    "val": "auto",
    "seed": 0,
    "skip_unreadable": False,
    "augment": PLAIN,
}


def settings(name: str, **changes: Any) -> DatasetConfig:
    """Give the settings of a set, all others being null or off; a path becomes text."""
    changes = {key: str(value) if isinstance(value, Path) else value for key, value in changes.items()}
    return DatasetConfig(name=name, **(DEFAULTS | changes))


def runtime(cache: Path, workers: int = 1) -> RuntimeConfig:
    return RuntimeConfig("cpu", 1, workers, str(cache), progress=False, save_seconds=60.0)


def load(cache: Path, name: str, *, workers: int = 1, **changes: Any) -> Data:
    return load_data(settings(name, **changes), runtime(cache, workers))


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def cifar(root: Path, name: str = "cifar10", each: int = 20, protocol: int = 2) -> Path:
    """Write batches of `each` images as the authors did: pickled dictionaries of an array and lists."""
    ten = name == "cifar10"
    folder = root / ("cifar-10-batches-py" if ten else "cifar-100-python")
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"] if ten else ["train", "test"]
    labels, classes = ("labels", 10) if ten else ("fine_labels", 100)
    for seed, file in enumerate(names):
        images = pixels(each, 3072, seed=seed)
        entry = {"data": images, labels: [(seed + i) % classes for i in range(each)], "filenames": ["x.png"] * each}
        (folder / file).write_bytes(pickle.dumps(entry, protocol))
    meta = {("label_names" if ten else "fine_label_names"): [f"class {i}" for i in range(classes)]}
    (folder / ("batches.meta" if ten else "meta")).write_bytes(pickle.dumps(meta, protocol))
    return folder


def svhn(root: Path, count: int = 40) -> None:
    for seed, file in enumerate(("train_32x32.mat", "test_32x32.mat")):
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        savemat(root / file, {"X": pixels(32, 32, 3, count, seed=seed), "y": labels})


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()


def fashion(folder: Path, *, zipped: bool, count: int = 40) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, part in enumerate(("train", "t10k")):
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, values in (("images-idx3", pixels(count, 28, 28, seed=seed)), ("labels-idx1", labels)):
            content = idx(values)
            path = folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)


def medical(path: Path, *, size: int, colour: bool, labels: int, columns: int = 1, count: int = 24) -> None:
    """Write one of MedMNIST's files: six arrays."""
    arrays = {}
    for seed, part in enumerate(("train", "val", "test")):
        arrays[f"{part}_images"] = pixels(count, size, size, *([3] if colour else []), seed=seed)
        arrays[f"{part}_labels"] = (np.arange(count * columns).reshape(count, columns) + seed) % labels
    np.savez_compressed(path, **arrays)


def folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 20, *, val: bool = False) -> Path:
    """Write PNG images of 8 x 8 colours: `each` a class in train, half of that in test (and val)."""
    for part in ("train", "test", "val")[: 3 if val else 2]:
        for c, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for i in range(each if part == "train" else each // 2):
                image = pixels(8, 8, 3, seed=len(part) * 10_000 + c * 1000 + i)
                Image.fromarray(image).save(root / part / name / f"{i:03}.png")
    return root


def listed(root: Path, rows: list[list[str]], header: str = "file,length") -> Path:
    """Write list.csv, and an image for each of its files that ends in .png."""
    for row in rows:
        if row and row[0].endswith(".png"):
            Image.fromarray(pixels(8, 8, 3, seed=len(row[0]))).save(root / row[0])
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return root / "list.csv"


def png16(values: np.ndarray) -> bytes:
    """Return a PNG file of 16-bit colours (H, W, 3), which Pillow cannot write."""

    def part(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    height, width, _ = values.shape
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
