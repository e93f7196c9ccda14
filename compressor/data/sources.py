"""What a data set's module offers, and the table of all sets. A module is imported when its set is asked for."""

import difflib
import stat
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from compressor.arch import Task
from compressor.config import DatasetConfig
from compressor.errors import DataError, FileError
from compressor.files import check_regular

DECODER = (2, PIL.__version__)
"""Part of the signature of what Pillow decodes or turns: another version may give other pixels."""


RANGES = {"16-bit": "0 to 65535", "float": "0 to 1"}
"""Pixels that have not 8 bits, and what of them stands for black to white."""


@dataclass(frozen=True)
class Converted:
    """That an image had `kind` of pixels, and the largest of them as a 16-bit value; 0 where all pixels are equal."""

    kind: str
    largest: int


@dataclass(frozen=True)
class Chunk:
    """Consecutive images of one part (train, val, test, or `all` where the set has no parts of its own).

    Images are uint8 (n, C, H, W), targets int64 (n,), or float32 or float64 (n, outputs). `unreadable` names the
    files among them, with the reason, that gave no image, `converted` those whose pixels did not have 8 bits.
    """

    part: str
    images: np.ndarray
    targets: np.ndarray
    unreadable: tuple[str, ...] = ()
    converted: tuple[tuple[str, Converted], ...] = ()


@dataclass(frozen=True)
class Reading:
    """A set while it is decoded: its task and its chunks, part after part; `total` images are expected."""

    task: Task
    total: int
    chunks: Generator[Chunk]


@dataclass(frozen=True)
class Source:
    """A set whose files are where they should be. `read` decodes them with that many processes.

    `signature` is plain JSON data that changes whenever the files' names, their order or the way they are decoded do;
    what they hold is told by their content, which the cache digests. `left_out` counts what lies among the files and
    is not read: the reason, and a name or an ending.
    """

    signature: Any
    read: Callable[[int], Reading]
    files: Sequence[str] = ()
    left_out: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """The function that finds a set ("module:name"), and the settings it takes beside those all sets take."""

    function: str
    takes: tuple[str, ...] = ()


SOURCES = {
    "digits": Entry("digits:find"),
    "rotated_digits": Entry("rotated_digits:find", ("image_size",)),
    "cifar10": Entry("cifar:find", ("root",)),
    "cifar100": Entry("cifar:find", ("root",)),
    "svhn": Entry("svhn:find", ("root",)),
    "fashion_mnist": Entry("fashion_mnist:find", ("root",)),
    "medmnist": Entry("medmnist:find", ("root", "flag", "image_size")),
    "imagefolder": Entry("imagefolder:find", ("root", "image_size")),
    "image_regression": Entry("image_regression:find", ("root", "csv", "image_size")),
}


def find(config: DatasetConfig) -> Source:
    """Look for the set's files and list them; nothing is decoded.

    Raises:
        DataError: the set is unknown, a file is missing, or a setting does not belong to the set.
    """
    if (entry := SOURCES.get(config.name)) is None:
        raise DataError(f"dataset.name={config.name}: there is no such set{near(config.name, SOURCES)}")
    for key in ("root", "flag", "csv", "image_size"):
        if (value := getattr(config, key)) is not None and key not in entry.takes:
            raise DataError(f"dataset.{key}={value}: {config.name} has no such setting; leave it null")
    module, _, name = entry.function.partition(":")
    return getattr(import_module(f"compressor.data.{module}"), name)(config)


def near(word: str, known: Iterable[str]) -> str:
    """Say which known words are like a mistaken one, or list them all."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; there are {', '.join(known)}"


def root_of(config: DatasetConfig, holds: str) -> Path:
    """Give the folder of `dataset.root` in full; one that is not set or not there is an error."""
    if config.root is None:
        raise DataError(f"dataset.root is not set; give the folder that holds {holds}")
    root = Path(config.root).absolute()
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    except OSError as error:
        raise DataError(f"dataset.root={config.root}: {root}: {error.strerror}; it should hold {holds}") from None
    if not is_folder:
        raise DataError(f"dataset.root={config.root}: {root} is not a folder; it should hold {holds}")
    return root


def existing(root: Path, names: Iterable[str], url: str, limit: int | None = None) -> list[str]:
    """Return the paths of files.

    One that is missing, no file or above `limit` bytes is an error that says where to get it.
    """
    found: list[str] = []
    for name in names:
        path = root / name
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; it comes from {url}") from None
        try:
            check_regular(path, status, limit)
        except FileError as error:
            raise DataError(f"{error}; it comes from {url}") from None
        found.append(str(path))
    return found


def damaged(path: Path, url: str) -> DataError:
    """Make the error for a file that is there and cannot be what it should be."""
    return DataError(f"{path}: is cut, changed or of another format; get it again from {url}")


def whole(task: Task, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> Reading:
    """Give a set that fits in memory as one chunk a part: images and targets by part."""
    chunks = (Chunk(part, images, targets) for part, (images, targets) in parts.items())
    return Reading(task, sum(len(targets) for _, targets in parts.values()), chunks)
