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
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from types import ModuleType

import numpy as np
import PIL
from PIL import Image, ImageOps

from compressor.data.sources import Chunk
from compressor.errors import DataError

CHUNK_BYTES = 2**22
FEW = 256
"""Fewer files than this are decoded here: starting processes would take longer."""


@dataclass(frozen=True)
class ImageFile:
    """A file of a part of a set, its name in messages, and its class or its numbers."""

    part: str
    path: str
    name: str
    target: int | tuple[float, ...]


def read_files(files: Sequence[ImageFile], size: int, channels: int, workers: int) -> Generator[Chunk]:
    """Decode files in their order into chunks of (n, channels, size, size), files of one part being neighbours."""
    batches = list(_batches(files, min(FEW, max(1, CHUNK_BYTES // (channels * size * size)))))
    jobs = [([file.path for file in batch], size, channels) for batch in batches]
    for batch, (images, reasons) in zip(batches, _decoded(jobs, len(files), workers), strict=True):
        good = [file.target for i, file in enumerate(batch) if i not in reasons]
        bad = tuple(f"{printable(batch[i].name)} ({reason})" for i, reason in reasons.items())
        yield Chunk(batch[0].part, images, _targets(good, batch[0].target), bad)


def printable(name: str) -> str:
    """Make a file name fit in one line of a message."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def decode(path: str, size: int, channels: int) -> np.ndarray:
    """Give one image as uint8 (channels, size, size); what Pillow raises passes through.

    Turned as its EXIF says; transparent parts lie on white; 16-bit values lose their lower byte; stretched to a square.
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
            ImageOps.exif_transpose(file, in_place=True)
            image = _flat(file, "L" if channels == 1 else "RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _flat(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert(mode)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert(mode)
    return image.convert("RGB").convert(mode)


def _batches(files: Sequence[ImageFile], length: int) -> Iterator[list[ImageFile]]:
    for _, group in groupby(files, key=lambda file: file.part):
        part = list(group)
        yield from (part[start : start + length] for start in range(0, len(part), length))


def _targets(good: list[int | tuple[float, ...]], like: int | tuple[float, ...]) -> np.ndarray:
    if isinstance(like, int):
        return np.array(good, np.int64)
    return np.array(good, np.float32).reshape(len(good), len(like))


Job = tuple[list[str], int, int]
Decoded = tuple[np.ndarray, dict[int, str]]


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
    """Decode a batch: the images that could be read, and the reason for each position that could not."""
    paths, size, channels = job
    images, reasons = [], {}
    for position, path in enumerate(paths):
        try:
            images.append(decode(path, size, channels))
        except MemoryError:  # the image may be whole
            raise
        except Exception as error:  # noqa: BLE001 - a hostile file can make a decoder raise anything
            reasons[position] = _reason(error)
    return np.array(images, np.uint8).reshape(len(images), channels, size, size), reasons


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
