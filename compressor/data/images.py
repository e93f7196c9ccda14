"""Image files to arrays: any file Pillow reads, decoded by all cores; what cannot be read is named, never guessed."""

import multiprocessing
import os
import signal
import stat
import sys
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from types import ModuleType

import numpy as np
import PIL
from PIL import ExifTags, Image

from compressor.data.pixels import refuse_dark, to_8_bit
from compressor.data.sources import Chunk, Converted
from compressor.errors import DataError
from compressor.naming import printable

CHUNK_BYTES = 2**22
FEW = 256
"""Fewer files than this are decoded here: starting processes would take longer."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image of each EXIF orientation upright."""


@dataclass(frozen=True)
class ImageFile:
    """A file of a part of a set, its name in messages, and its class or its numbers."""

    part: str
    path: str
    name: str
    target: int | tuple[float, ...]


def read_files(
    files: Sequence[ImageFile], size: int, channels: int, workers: int, numbers: type[np.floating] = np.float32
) -> Generator[Chunk]:
    """Decode files in their order into chunks of (n, channels, size, size), files of one part being neighbours.

    Targets that are no classes become `numbers`, float32 or float64.
    """
    batches = list(_batches(files, min(FEW, max(1, CHUNK_BYTES // (channels * size * size)))))
    jobs = [([file.path for file in batch], size, channels) for batch in batches]
    for batch, (images, reasons, converted) in zip(batches, _decoded(jobs, len(files), workers), strict=True):
        good = [file.target for i, file in enumerate(batch) if i not in reasons]
        bad = tuple(f"{printable(batch[i].name)} ({reason})" for i, reason in reasons.items())
        named = tuple((printable(batch[i].name), found) for i, found in converted.items())
        yield Chunk(batch[0].part, images, _targets(good, batch[0].target, numbers), bad, named)


def not_dark(chunks: Generator[Chunk]) -> Generator[Chunk]:
    """Pass a set's chunks on, and refuse the set at its end where its 16-bit or float images are all nearly black."""
    counts: dict[str, int] = {}
    seen: dict[str, tuple[str, Converted]] = {}
    with closing(chunks):
        for chunk in chunks:
            yield chunk
            for name, found in chunk.converted:
                counts[found.kind] = counts.get(found.kind, 0) + 1
                if found.kind not in seen or found.largest > seen[found.kind][1].largest:
                    seen[found.kind] = (name, found)
    refuse_dark(seen, counts)


def decode(path: str, size: int, channels: int) -> np.ndarray:
    """Return one image as uint8 (channels, size, size); what Pillow raises passes through."""
    return decoded(path, size, channels)[0]


def decoded(path: str, size: int, channels: int) -> tuple[np.ndarray, Converted | None]:
    """Return one image as uint8 (channels, size, size), and what its pixels were converted from, if they had to be.

    Turned as its EXIF says; brought to 8 bits as `pixels` says; stretched to a square.
    """
    found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        raise ValueError("not a file")
    if not found.st_size:
        raise ValueError("empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            wide = any(";16" in str(tile[3]) for tile in file.tile[:1])
            file.load()
            image, converted = to_8_bit(_upright(file), "L" if channels == 1 else "RGB", wide=wide)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return (pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)), converted


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF says; rubbish there does not cost the image, which is then taken as it lies."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - whatever a parser of rubbish raises
        return image
    return image if turn is None else image.transpose(turn)


def _batches(files: Sequence[ImageFile], length: int) -> Iterator[list[ImageFile]]:
    for _, group in groupby(files, key=lambda file: file.part):
        part = list(group)
        yield from (part[start : start + length] for start in range(0, len(part), length))


def _targets(
    good: list[int | tuple[float, ...]], like: int | tuple[float, ...], numbers: type[np.floating]
) -> np.ndarray:
    if isinstance(like, int):
        return np.array(good, np.int64)
    return np.array(good, numbers).reshape(len(good), len(like))


Job = tuple[list[str], int, int]
Decoded = tuple[np.ndarray, dict[int, str], dict[int, Converted]]
"""Images, and by position in the batch why a file gave none, and what an image was converted from."""


def _decoded(jobs: list[Job], files: int, workers: int) -> Iterator[Decoded]:
    if workers == 1 or files <= FEW or multiprocessing.current_process().daemon:
        yield from map(_decode_all, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_start_worker)
    try:
        with _no_main():
            decoded = pool.map(_decode_all, jobs)
        yield from decoded
    except BrokenProcessPool:
        raise DataError("a process that decodes images was killed; runtime.workers=1 uses less memory") from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _no_main() -> Iterator[None]:
    """Keep new processes from importing the main script, which need not be made for that and may be slow."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _decode_all(job: Job) -> Decoded:
    """Decode a batch; a file that cannot be read costs no other."""
    paths, size, channels = job
    images: list[np.ndarray] = []
    reasons: dict[int, str] = {}
    converted: dict[int, Converted] = {}
    for position, path in enumerate(paths):
        try:
            image, found = decoded(path, size, channels)
        except MemoryError:  # the image may be whole
            raise
        except Exception as error:  # noqa: BLE001 - a hostile file can make a decoder raise anything
            reasons[position] = _reason(error)
            continue
        images.append(image)
        if found is not None:
            converted[position] = found
    return np.array(images, np.uint8).reshape(len(images), channels, size, size), reasons, converted


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"over {Image.MAX_IMAGE_PIXELS} pixels"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return printable(text.splitlines()[0][:80] if text else type(error).__name__)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
