"""Any 2D set of MedMNIST, from its own npz files: bloodmnist.npz, bloodmnist_64.npz and so on."""

import ast
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import Chunk, Reading, Source, damaged, existing, near, root_of
from compressor.errors import DataError
from compressor.files import open_regular

SIZES = (28, 64, 128, 224)
PARTS = ("train", "val", "test")
KINDS = {
    "multi-class": TaskKind.MULTICLASS,
    "binary-class": TaskKind.BINARY,
    "ordinal-regression": TaskKind.ORDINAL,
    "multi-label, binary-class": TaskKind.MULTILABEL,
}
CHUNK_BYTES = 2**25

MOST_IMAGES = 10**7
"""Images that a part may have; a small file may declare, and unpack to, any number."""
FAULTS = (OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What reading a cut or changed file of arrays raises."""


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
    return Source(["medmnist", 1, flag, size], lambda _workers: _read(path, sets[flag], size, url), files)


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
    with _archive(path, url) as archive:
        labels = {part: _labels(archive, part, task, path) for part in PARTS}
        for part in PARTS:  # before any is decoded
            with _member(archive, f"{part}_images", path) as member:
                _check_images(member, f"{path}: {part}_images", (len(labels[part]), *shape))
    return Reading(task, sum(map(len, labels.values())), _chunks(path, labels, shape, url))


@contextmanager
def _archive(path: Path, url: str) -> Iterator[zipfile.ZipFile]:
    """Open a file of arrays; one that is cut or changed is an error."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except FAULTS:
        raise damaged(path, url) from None


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> IO[bytes]:
    if f"{name}.npy" not in archive.namelist():
        raise DataError(f"{path}: lacks the array {name}; get the file again, or put the array in")
    return archive.open(f"{name}.npy")


def _labels(archive: zipfile.ZipFile, part: str, task: Task, path: Path) -> np.ndarray:
    """Read labels, (N, 1) classes or (N, labels) zeros and ones, and return them as targets."""
    many = task.kind is TaskKind.MULTILABEL
    columns, above = (task.outputs, 2) if many else (1, task.outputs)
    wanted = f"integers of 0 to {above - 1}, N x {columns}"
    where = f"{path}: {part}_labels"
    with _member(archive, f"{part}_labels", path) as member:
        shape, _, dtype = _header(member)
        if len(shape) != 2 or shape[1] != columns or dtype.kind not in "iu" or shape[0] > MOST_IMAGES:
            raise DataError(f"{where} is {_described(shape, dtype)}; it should be {wanted}")
    with _member(archive, f"{part}_labels", path) as member:
        labels = npy.read_array(member, allow_pickle=False)
    if len(labels) and not 0 <= labels.min() <= labels.max() < above:
        raise DataError(f"{where} has {labels.min()} to {labels.max()}; it should be {wanted}")
    return labels.astype(np.float32) if many else labels[:, 0].astype(np.int64)


def _chunks(path: Path, labels: dict[str, np.ndarray], shape: tuple[int, ...], url: str) -> Generator[Chunk]:
    """Read a few images at a time: the largest sets do not fit in memory."""
    step = max(1, CHUNK_BYTES // int(np.prod(shape)))
    with _archive(path, url) as archive:
        for part in PARTS:
            with _member(archive, f"{part}_images", path) as member:
                _header(member)
                for start in range(0, len(labels[part]), step):
                    targets = labels[part][start : start + step]
                    yield Chunk(part, _images(member, len(targets), shape), targets)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read an array's header: its shape, whether columns come first, and what its values are."""
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        return read(member)
    except Exception:  # noqa: BLE001 - a damaged header is parsed as Python, which can raise anything
        raise ValueError("a header that cannot be read") from None


def _check_images(member: IO[bytes], where: str, wanted: tuple[int, ...]) -> None:
    """Refuse images of another type by name: whether 700 is bright or dark is not for us to guess."""
    shape, fortran, dtype = _header(member)
    if shape != wanted or fortran or dtype != np.uint8:
        raise DataError(
            f"{where} is {_described(shape, dtype)}{' by columns' if fortran else ''}; it should be "
            f"{_described(wanted, np.dtype(np.uint8))}, one image a label: scale its values to 0..255"
        )


def _described(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{dtype}, {' x '.join(map(str, shape)) or 'a number'}"


def _images(member: IO[bytes], count: int, shape: tuple[int, ...]) -> np.ndarray:
    content = np.frombuffer(member.read(count * int(np.prod(shape))), np.uint8).reshape(count, *shape)
    return content.transpose(0, 3, 1, 2) if len(shape) == 3 else content[:, None]
