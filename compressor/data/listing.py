"""The image files below a folder, and a count of everything else that lies there: nothing is left out unsaid."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from compressor.errors import DataError

SUFFIXES = frozenset(("avif", "bmp", "gif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pcx", "pgm"))
SUFFIXES |= {"png", "pnm", "ppm", "tga", "tif", "tiff", "webp"}

SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@tmp", "#recycle", "@recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information")
)
"""Folders that file servers and file systems add, with thumbnails and deleted files; in small letters."""

IMAGE, FOLDER, LINK = "image", "folder", "link to a folder"
HIDDEN = "hidden"
SYSTEM = "system folders"
NOWHERE = "links to nowhere"
OTHER = "files of other endings"
TWICE = "linked folders read elsewhere"

Count = Counter[tuple[str, str]]
"""How often a reason left out a name; of files of other endings the ending is counted."""

Place = tuple[int, int]
"""The device and the number of a folder on it: what all links to it have in common."""


@dataclass
class Listing:
    """Image files below a folder, sorted by name; and what was left out."""

    files: list[str] = field(default_factory=list)
    left_out: Count = field(default_factory=Counter)


def images_below(folder: Path, shown: str = "", others: Iterable[Place] = ()) -> Listing:
    """List image files by suffix, also in folders below and in linked ones; a folder is read once, its own first.

    Args:
        folder: where to look.
        shown: what is put before names in the counts.
        others: folders that are read elsewhere, and not again where a link leads to one of them.

    Raises:
        DataError: a folder, at any depth, cannot be listed.
    """
    found, links = Listing(), [("", folder)]
    seen = {*others, *places([*folder.resolve().parents, folder])}
    while links:
        found_links: list[tuple[str, Path]] = []
        for link in links:
            if link[0] and not _first(link[1], seen):
                found.left_out[TWICE, shown + link[0].removesuffix("/")] += 1
            else:
                found_links += _tree(link, found, seen, shown)
        links = sorted(found_links)
    found.files.sort()
    return found


def _tree(start: tuple[str, Path], found: Listing, seen: set[Place], shown: str) -> list[tuple[str, Path]]:
    """Add what lies in a folder and in those below it; return the links to folders, which are followed afterwards."""
    links: list[tuple[str, Path]] = []
    waiting = [start]
    while waiting:
        prefix, path = waiting.pop()
        for entry in entries_of(path):
            name = prefix + entry.name
            kind = kind_of(entry)
            if kind == IMAGE:
                found.files.append(name)
            elif kind == LINK:
                links.append((f"{name}/", Path(entry.path)))
            elif kind != FOLDER:
                found.left_out[counted(kind, shown + name)] += 1
            elif _first(Path(entry.path), seen):
                waiting.append((f"{name}/", Path(entry.path)))
            else:  # a linked folder may hold one that was read already
                found.left_out[TWICE, shown + name] += 1
    return links


def entries_of(folder: Path, holds: str = "its images cannot be listed") -> list[os.DirEntry[str]]:
    """Return what lies in a folder, sorted by name; one that cannot be listed is an error that says what it `holds`."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; {holds}") from None


def kind_of(entry: os.DirEntry[str]) -> str:
    """Return what an entry of a folder is: IMAGE, FOLDER, LINK, or the reason why it is left out."""
    if entry.name.startswith("."):
        return HIDDEN
    try:
        is_folder = entry.is_dir()
    except OSError:  # a link in a circle, or into a folder that is closed
        is_folder = False
    if is_folder:
        if entry.name.lower() in SYSTEM_FOLDERS:
            return SYSTEM
        return LINK if entry.is_symlink() else FOLDER
    if ending_of(entry.name) in SUFFIXES:
        return IMAGE
    return NOWHERE if entry.is_symlink() and not os.path.exists(entry.path) else OTHER  # noqa: PTH110 - never raises


def counted(kind: str, name: str) -> tuple[str, str]:
    """Return as what an entry is counted; `name` is its whole name below the set."""
    last = name.rpartition("/")[2]
    if kind == OTHER:
        return kind, f".{ending_of(last)}" if "." in last else "no ending"
    return kind, last if kind in (HIDDEN, SYSTEM) else name


def ending_of(name: str) -> str:
    """Return what follows the last dot, in small letters."""
    return name.rpartition(".")[2].lower()


def places(folders: Iterable[Path]) -> set[Place]:
    """Return where folders lie, links followed; one that cannot be asked is left out, as listing it will say."""
    found: set[Place] = set()
    for folder in folders:
        try:
            status = os.stat(folder)  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return found


def _first(folder: Path, seen: set[Place]) -> bool:
    """Say whether a folder is met for the first time, and note it."""
    place = places([folder])
    new = not place or not place <= seen  # one that cannot be asked is listed, which says why it cannot be
    seen |= place
    return new
