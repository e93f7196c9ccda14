"""Any 2D set of MedMNIST, from its own npz files: bloodmnist.npz, bloodmnist_64.npz and so on."""

import ast
import zipfile
import zlib
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import Chunk, Reading, Source, damaged, existing, near, root_of
from compressor.errors import DataError

SIZES = (28, 64, 128, 224)
PARTS = ("train", "val", "test")
KINDS = {
    "multi-class": TaskKind.MULTICLASS,
    "binary-class": TaskKind.BINARY,
    "ordinal-regression": TaskKind.ORDINAL,
    "multi-label, binary-class": TaskKind.MULTILABEL,
}
CHUNK_BYTES = 2**25


def find(config: DatasetConfig) -> Source:
    """Look for the file of `dataset.flag` and `dataset.image_size` (28) in `dataset.root`."""
    flag, size = config.flag, config.image_size or 28
    sets = {name: info for name, info in _information().items() if not name.endswith("3d")}
    if flag not in sets:
        problem = "is not set" if flag is None else f"={flag} is no 2D set of MedMNIST"
        raise DataError(f"dataset.flag{'' if flag else ' '}{problem}{near(flag or '', sets)}")
    if size not in SIZES:
        raise DataError(f"dataset.image_size={size}: MedMNIST has {', '.join(map(str, SIZES))}")
    suffix = "" if size == 28 else f"_{size}"
    url = sets[flag].get(f"url{suffix}", "https://medmnist.com")
    root = root_of(config, f"{flag}{suffix}.npz of {url}")
    files = existing(root, [f"{flag}{suffix}.npz"], url)
    path = root / f"{flag}{suffix}.npz"
    return Source(["medmnist", 1], lambda _workers: _read(path, sets[flag], size, url), files)


def _information() -> dict[str, dict[str, Any]]:
    """Read MedMNIST's table of sets without running its package, which imports torch and makes ~/.medmnist."""
    package = find_spec("medmnist")
    assert package is not None
    assert package.submodule_search_locations is not None
    text = (Path(package.submodule_search_locations[0]) / "info.py").read_text(encoding="utf-8")
    tables = (node for node in ast.parse(text).body if isinstance(node, ast.Assign))
    return next(ast.literal_eval(node.value) for node in tables if ast.unparse(node.targets[0]) == "INFO")


def _read(path: Path, info: dict[str, Any], size: int, url: str) -> Reading:
    names = tuple(info["label"][str(i)] for i in range(len(info["label"])))
    task = Task(KINDS[info["task"]], len(names), names)
    shape = (size, size, 3) if info["n_channels"] == 3 else (size, size)
    try:
        with zipfile.ZipFile(path) as archive:
            labels = {part: _labels(archive, part, task) for part in PARTS}
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error):
        raise damaged(path, url) from None
    return Reading(task, sum(map(len, labels.values())), _chunks(path, labels, shape, url))


def _labels(archive: zipfile.ZipFile, part: str, task: Task) -> np.ndarray:
    """Read labels, (N, 1) classes or (N, labels) zeros and ones, and give them as targets."""
    with archive.open(f"{part}_labels.npy") as member:
        labels = npy.read_array(member, allow_pickle=False)
    many = task.kind is TaskKind.MULTILABEL
    if labels.ndim != 2 or labels.shape[1] != (task.outputs if many else 1) or labels.dtype.kind not in "iu":
        raise ValueError("labels")
    if len(labels) and not 0 <= labels.min() <= labels.max() < (2 if many else task.outputs):
        raise ValueError("labels")
    return labels.astype(np.float32) if many else labels[:, 0].astype(np.int64)


def _chunks(path: Path, labels: dict[str, np.ndarray], shape: tuple[int, ...], url: str) -> Generator[Chunk]:
    """Read a few images at a time: the largest sets do not fit in memory."""
    step = max(1, CHUNK_BYTES // int(np.prod(shape)))
    try:
        with zipfile.ZipFile(path) as archive:
            for part in PARTS:
                with archive.open(f"{part}_images.npy") as member:
                    _check_header(member, (len(labels[part]), *shape))
                    for start in range(0, len(labels[part]), step):
                        targets = labels[part][start : start + step]
                        yield Chunk(part, _images(member, len(targets), shape), targets)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise damaged(path, url) from None


def _check_header(member: IO[bytes], shape: tuple[int, ...]) -> None:
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    found, fortran, dtype = read(member)
    if found != shape or fortran or dtype != np.uint8:
        raise ValueError("images")


def _images(member: IO[bytes], count: int, shape: tuple[int, ...]) -> np.ndarray:
    content = np.frombuffer(member.read(count * int(np.prod(shape))), np.uint8).reshape(count, *shape)
    return content.transpose(0, 3, 1, 2) if len(shape) == 3 else content[:, None]
