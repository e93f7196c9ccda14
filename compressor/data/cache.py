"""Decoded sets on disk: made once, checked when opened, memory-mapped.

A set is a folder of images.npy (uint8 (N, C, H, W)), targets.npy, moments.npy (int64 (N, C, 2): sum and sum of squares
of each image's channels) and meta.json, which has the others' digests. It is written in a draft folder and published
by one rename.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.lib import format as npy
from platformdirs import user_cache_dir

from compressor.arch import Task
from compressor.codec import CodecError, canonical, decode, digest, digest_file, encode, read_json
from compressor.config import DatasetConfig, RuntimeConfig
from compressor.data.blocks import CHECKED_WHOLE, Blocks, block_digests
from compressor.data.identity import content_digests
from compressor.data.sources import Chunk, Reading, Source
from compressor.errors import DataError
from compressor.memory import pass_on
from compressor.naming import printable
from compressor.progress import Advance, silent

SCHEMA = 2
NAMED = 20
"""How many unreadable files an error names."""


@dataclass(frozen=True)
class Meta:
    """The content of meta.json. `digests` are of the arrays' values, `checks` of each small file, with the header.

    `blocks` are the digests of the blocks of images.npy. `converted` counts the images whose pixels did not have 8
    bits, by their kind.
    """

    schema: int
    task: Task
    parts: dict[str, int]
    unreadable: tuple[str, ...]
    digests: dict[str, str]
    sizes: dict[str, int]
    checks: dict[str, str]
    blocks: tuple[str, ...]
    converted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cached:
    """A decoded set: all images in one read-only array, parts one after the other, `parts` being their sizes.

    `check` refuses rows of `images` that are not as they were written.
    """

    task: Task
    parts: dict[str, int]
    unreadable: tuple[str, ...]
    digests: dict[str, str]
    images: np.ndarray
    targets: np.ndarray
    moments: np.ndarray
    converted: dict[str, int]
    check: Callable[[np.ndarray], None]

    @property
    def channels(self) -> int:
        """The number of channels of every image."""
        return self.images.shape[1]

    @property
    def size(self) -> int:
        """The side of every image in pixels."""
        return self.images.shape[2]


def ready(source: Source, config: DatasetConfig, runtime: RuntimeConfig) -> Cached:
    """Open the decoded set, or decode it while other processes that want it wait.

    Raises:
        DataError: images are unreadable (up to 20 are named), or the cache cannot be written.
    """
    root = Path(runtime.data_cache or _users_folder()) / "data"
    said = canonical([SCHEMA, config.channels, source.signature])
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(root, error) from None
    content = partial(content_digests, source.files, root / f".files-{digest(said)}.json")
    before = content()
    key = f"{config.name}-{digest(said, canonical(before))}"
    if (found := _open(root / key, config.skip_unreadable)) is not None:
        return found
    try:
        (root / ".locks").mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".locks" / f"{key}.lock"):
            if (found := _open(root / key, config.skip_unreadable)) is None:
                _make(root, key, source, config, runtime, lambda: content() == before)
                found = _open(root / key, config.skip_unreadable)
    except OSError as error:
        raise _unwritable(root, error) from None
    if found is None:
        raise DataError(f"{root / key}: does not read back as it was written; runtime.data_cache names another folder")
    return found


def _unwritable(root: Path, error: OSError) -> DataError:
    pass_on(error)
    place = Path(error.filename or root)
    why = error.strerror or str(error)
    if place.is_symlink() and not place.exists():
        why = "is a link that leads nowhere"
    return DataError(f"{place}: {why}; runtime.data_cache names another folder")


def _users_folder() -> str:
    """Return the user's own cache folder; a DataError where there is none, as for a container's user."""
    try:
        folder = user_cache_dir("compressor")
    except RuntimeError:  # platformdirs found no home
        folder = ""
    if not Path(folder).is_absolute():
        raise DataError(
            "decoded images have no folder, as this user has no home; give runtime.data_cache=FOLDER, or set HOME"
        )
    return folder


def _open(folder: Path, skip_unreadable: bool) -> Cached | None:
    """Open a set whose files are whole by their digests; images that are many are checked as they are read."""
    try:
        meta = _read_meta(folder / "meta.json")
        if meta.schema != SCHEMA or (meta.unreadable and not skip_unreadable):
            return None
        if any((folder / name).stat().st_size != size for name, size in meta.sizes.items()):
            return None
        if any(digest_file(folder / name) != check for name, check in meta.checks.items()):
            return None
        if not _is_sound(folder / "images.npy", meta):  # first, as a damaged header is parsed as Python
            return None
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        targets, moments = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("targets", "moments"))
    except (OSError, ValueError, CodecError) as error:
        pass_on(error)
        return None
    if not len(images) == len(targets) == len(moments):
        return None
    blocks = Blocks(folder / "images.npy", meta.blocks, images.offset, images[0].nbytes)
    return Cached(
        meta.task,
        meta.parts,
        meta.unreadable,
        meta.digests,
        images.view(np.ndarray),
        targets,
        moments,
        meta.converted,
        blocks.check,
    )


def _is_sound(images: Path, meta: Meta) -> bool:
    """Tell whether the images are as they were written; of many, only the block with the header is looked at."""
    if meta.sizes["images.npy"] > CHECKED_WHOLE:
        return block_digests(images, first_only=True) == meta.blocks[:1]
    return block_digests(images) == meta.blocks


def _read_meta(path: Path) -> Meta:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("check") != digest(canonical(content.get("meta"))):
        raise CodecError(f"{path}: is damaged")
    return decode(Meta, content["meta"])


def _make(
    root: Path, key: str, source: Source, config: DatasetConfig, runtime: RuntimeConfig, unchanged: Callable[[], bool]
) -> None:
    draft = root / f".draft-{key}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        reading = source.read(runtime.workers or _cores())
        with closing(reading.chunks), _bar(runtime.progress, f"decode {config.name}", reading.total) as advance:
            meta = _write(draft, reading, config, advance)
        if not unchanged():
            raise DataError(f"dataset {config.name}: its files changed while they were read; type the command again")
        content = {"check": digest(canonical(meta)), "meta": encode(meta)}
        (draft / "meta.json").write_text(json.dumps(content), encoding="utf-8")
        if (root / key).exists():
            (root / key).rename(draft / "damaged")
        draft.rename(root / key)
        shutil.rmtree(root / key / "damaged", ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(draft: Path, reading: Reading, config: DatasetConfig, advance: Advance) -> Meta:
    parts: dict[str, int] = {}
    unreadable: list[str] = []
    converted: Counter[str] = Counter()
    with closing(_Arrays(draft)) as arrays:
        for chunk in reading.chunks:
            unreadable.extend(chunk.unreadable)
            converted.update(found.kind for _, found in chunk.converted)
            parts[chunk.part] = parts.get(chunk.part, 0) + len(chunk.images)
            if not unreadable or config.skip_unreadable:
                arrays.append(chunk, config.channels)
            advance(len(chunk.images) + len(chunk.unreadable), "")
    if unreadable and not config.skip_unreadable:
        raise DataError(_complaint(unreadable, reading.total))
    if empty := [part for part, count in parts.items() if not count] or ([] if parts else ["the set"]):
        raise DataError(f"dataset {config.name}: {empty[0]} holds no image that can be read")
    names = ("images.npy", "targets.npy", "moments.npy")
    return Meta(
        schema=SCHEMA,
        task=reading.task,
        parts=parts,
        unreadable=tuple(unreadable),
        digests=arrays.digests(),
        sizes={name: (draft / name).stat().st_size for name in names},
        checks={name: digest_file(draft / name) for name in names[1:]},
        blocks=block_digests(draft / "images.npy"),
        converted=dict(converted),
    )


def _complaint(unreadable: list[str], total: int) -> str:
    more = f" and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    named = f"{len(unreadable)} of {total} images cannot be read: {', '.join(unreadable[:NAMED])}{more}"
    return f"{named}; mend or remove them, or set dataset.skip_unreadable=true"


class _Arrays:
    """The three arrays of a draft, appended to as chunks come."""

    def __init__(self, draft: Path) -> None:
        self._streams = {name: _Stream(draft / f"{name}.npy") for name in ("images", "targets", "moments")}

    def append(self, chunk: Chunk, channels: int | None) -> None:
        images = with_channels(chunk.images, channels)
        for name, rows in (("images", images), ("targets", chunk.targets), ("moments", _moments(images))):
            self._streams[name].append(rows)

    def digests(self) -> dict[str, str]:
        return {name: self._streams[name].digest() for name in ("images", "targets")}

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()


class _Stream:
    """An npy file that grows by rows; NumPy leaves room in the header for the final number of rows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._header: dict[str, Any] = {}

    def append(self, rows: np.ndarray) -> None:
        rows = np.ascontiguousarray(rows)
        if not self._header:
            self._header = {
                "descr": npy.dtype_to_descr(rows.dtype),
                "fortran_order": False,
                "shape": (0, *rows.shape[1:]),
            }
            npy.write_array_header_1_0(self._file, self._header)
        self._header["shape"] = (self._header["shape"][0] + len(rows), *rows.shape[1:])
        self._file.write(rows.data)
        self._hash.update(rows.data)

    def digest(self) -> str:
        self._hash.update(repr(sorted(self._header.items())).encode())
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._header:
            self._file.seek(0)
            npy.write_array_header_1_0(self._file, self._header)
        self._file.close()


def with_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Give images (N, C, H, W) with 1 or 3 channels: grey is repeated, RGB is weighted as ITU-R 601 does."""
    if channels in (None, images.shape[1]):
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    red, green, blue = (images[:, i : i + 1].astype(np.uint32) for i in range(3))
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def _moments(images: np.ndarray) -> np.ndarray:
    sums = images.sum((2, 3), dtype=np.int64)
    return np.stack([sums, np.square(images, dtype=np.uint16).sum((2, 3), dtype=np.int64)], axis=-1)


@contextmanager
def _bar(show: bool, title: str, total: int) -> Iterator[Advance]:
    if not show:
        with silent(title, total) as advance:
            yield advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(title), total=total)
        yield lambda units, _remark: bar.advance(task, units)
