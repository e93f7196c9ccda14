"""Folders of images: root/train/<class>/..., root/test/<class>/..., and root/val/<class>/... where there is one."""

import os
from pathlib import Path

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import DECODER, Reading, Source, root_of
from compressor.errors import DataError

SUFFIXES = frozenset(("avif", "bmp", "gif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pcx", "pgm"))
SUFFIXES |= {"png", "pnm", "ppm", "tga", "tif", "tiff", "webp"}
Listed = dict[tuple[str, str], list[tuple[str, int, int]]]
"""Sorted names below the class folder, with size in bytes and time of change, by part and class."""


def find(config: DatasetConfig) -> Source:
    """List the images of `dataset.root`; `dataset.channels` null means 3."""
    root = root_of(config, "train/<class>/ and test/<class>/ with images")
    if config.image_size is None:
        raise DataError("dataset.image_size is not set; give the side in pixels that images are resized to")
    listed = _listed(root)
    size, channels = config.image_size, config.channels or 3
    signature = ["imagefolder", DECODER, size, channels, str(root), [[*key, files] for key, files in listed.items()]]
    return Source(signature, lambda workers: _read(root, listed, size, channels, workers))


def _listed(root: Path) -> Listed:
    classes = {
        part: _folders(root / part) for part in ("train", "val", "test") if part != "val" or (root / part).is_dir()
    }
    if len(classes["train"]) < 2:
        raise DataError(f"{root / 'train'}: has {len(classes['train'])} class folders; at least 2 are needed")
    for part, names in classes.items():
        if unknown := sorted(set(names) - set(classes["train"])):
            raise DataError(
                f"{root / part / unknown[0]}: is a class that train does not have; add it there or remove it"
            )
    listed = {(part, name): images_below(root / part / name) for part, names in classes.items() for name in names}
    for part in classes:
        empty = [name for (of, name), files in listed.items() if of == part and not files]
        if empty and (part == "train" or len(empty) == len(classes[part])):
            raise DataError(f"{root / part / empty[0]}: holds no image; put some there or remove the folder")
    return listed


def _folders(part: Path) -> list[str]:
    try:
        with os.scandir(part) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{part}: {error.strerror}; it should hold a folder of images for each class") from None
    if not names:
        raise DataError(f"{part}: holds no folder; it should hold one for each class")
    return names


def images_below(folder: Path) -> list[tuple[str, int, int]]:
    """List image files by suffix, hidden ones left out, also in folders below: name, bytes, time of change."""
    found, waiting = [], [("", os.fspath(folder))]
    while waiting:
        prefix, path = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{name}/", entry.path))
                elif entry.name.rpartition(".")[2].lower() in SUFFIXES:
                    found.append((name, *_stamp(entry)))
    return sorted(found)


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        stat = entry.stat()
    except OSError:  # a link to nowhere: decoding will name it
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _read(root: Path, listed: Listed, size: int, channels: int, workers: int) -> Reading:
    from compressor.data.images import ImageFile, printable, read_files

    names = sorted({name for part, name in listed if part == "train"})
    files = [
        ImageFile(part, f"{root}/{part}/{name}/{file}", f"{part}/{name}/{file}", names.index(name))
        for (part, name), entries in listed.items()
        for file, _, _ in entries
    ]
    task = Task(TaskKind.MULTICLASS, len(names), tuple(map(printable, names)))
    return Reading(task, len(files), read_files(files, size, channels, workers))
