"""Folders of images: root/train/<class>/..., root/test/<class>/..., and root/val/<class>/... where there is one."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.listing import (
    FOLDER,
    IMAGE,
    LINK,
    OTHER,
    Count,
    Listing,
    counted,
    entries_of,
    images_below,
    kind_of,
    places,
)
from compressor.data.sources import DECODER, Reading, Source, root_of
from compressor.errors import DataError
from compressor.naming import same, text_of

VAL = ("val", "valid", "validation", "dev")
"""What the folder of the val images may be called, in capitals too; there may be one of them."""

LOOSE = "loose in no class folder"
BESIDE = "folders beside train, val and test"
Listed = dict[tuple[str, str], list[str]]
"""Sorted names of files below the class folder, by part and class folder."""


@dataclass(frozen=True)
class Layout:
    """The folders of a set: of each part the folder's path and its class folders, and what else was there."""

    parts: dict[str, tuple[Path, list[str]]]
    left_out: Count


def find(config: DatasetConfig) -> Source:
    """List the images of `dataset.root`; `dataset.channels` null means 3."""
    root = root_of(config, "train/<class>/ and test/<class>/ with images")
    if config.image_size is None:
        raise DataError("dataset.image_size is not set; give the side in pixels that images are resized to")
    layout = _layout(root)
    listed = _listed(layout)
    size, channels = config.image_size, config.channels or 3
    signature = ["imagefolder", DECODER, size, channels, [[*key, names] for key, names in listed.items()]]
    files = [f"{layout.parts[part][0]}/{name}/{file}" for (part, name), names in listed.items() for file in names]
    return Source(signature, lambda workers: _read(layout, listed, size, channels, workers), files, layout.left_out)


def _layout(root: Path) -> Layout:
    left_out: Count = Counter()
    folders = _parts(root, left_out)
    parts = {part: (folder, _classes(folder, left_out)) for part, folder in folders.items()}
    train = {same(text_of(name)) for name in parts["train"][1]}
    if len(train) < 2:
        raise DataError(f"{folders['train']}: has {len(train)} class folders; at least 2 are needed")
    for folder, names in parts.values():
        if unknown := [name for name in names if same(text_of(name)) not in train]:
            raise DataError(f"{folder / unknown[0]}: is a class that train does not have; add it there or remove it")
    return Layout(parts, left_out)


def _parts(root: Path, left_out: Count) -> dict[str, Path]:
    """Return the folders of train, of val where there is one, and of test, and count what lies beside them."""
    vals: list[str] = []
    for entry in entries_of(root):
        kind = kind_of(entry)
        if kind not in (FOLDER, LINK):
            left_out[_beside(kind, entry.name)] += 1
        elif entry.name.casefold() in VAL:
            vals.append(entry.name)
        elif entry.name not in ("train", "test"):
            left_out[BESIDE, entry.name] += 1
    if len(vals) > 1:
        raise DataError(f"{root}: holds {' and '.join(vals)}, which all mean val; leave one of them there")
    parts = {"train": root / "train"}
    if vals:
        parts["val"] = root / vals[0]
    return parts | {"test": root / "test"}


def _classes(part: Path, left_out: Count) -> list[str]:
    """Return the class folders of a part, sorted, and count what lies beside them."""
    classes: list[str] = []
    for entry in entries_of(part, "it should hold a folder of images for each class"):
        kind = kind_of(entry)
        if kind in (FOLDER, LINK):
            classes.append(entry.name)
        else:
            left_out[_beside(kind, f"{part.name}/{entry.name}")] += 1
    if not classes:
        raise DataError(f"{part}: holds no folder; it should hold one for each class")
    _refuse_twins(part, classes)
    return sorted(classes)


def _beside(kind: str, name: str) -> tuple[str, str]:
    return (LOOSE, name) if kind == IMAGE else counted(kind, name)


def _refuse_twins(part: Path, classes: list[str]) -> None:
    """Refuse two folders that would be one class, as Unicode has several ways to write one name."""
    known: dict[str, str] = {}
    for name in classes:
        twin = known.setdefault(same(text_of(name)), name)
        if twin != name:
            raise DataError(f"{part}: {twin!a} and {name!a} are one name, written in two ways; join them")


def _listed(layout: Layout) -> Listed:
    """List the images of every class, and count what is left out there."""
    listed: Listed = {}
    for part, (folder, names) in layout.parts.items():
        others = places([folder / name for name in names])
        found = {name: images_below(folder / name, f"{folder.name}/{name}/", others) for name in names}
        empty = [name for name, below in found.items() if not below.files]
        if empty and (part == "train" or len(empty) == len(names)):
            raise DataError(_nothing_in(folder / empty[0], found[empty[0]]))
        for name, below in found.items():
            listed[part, name] = below.files
            layout.left_out.update(below.left_out)
    return listed


def _nothing_in(folder: Path, below: Listing) -> str:
    endings = sorted(name for reason, name in below.left_out if reason == OTHER)
    only = f" but files of {', '.join(endings[:3])}, which are not read" if endings else ""
    return f"{folder}: holds no image{only}; put some there or remove the folder"


def _read(layout: Layout, listed: Listed, size: int, channels: int, workers: int) -> Reading:
    from compressor.data.images import ImageFile, not_dark, read_files

    names = tuple(text_of(name) for name in layout.parts["train"][1])
    numbers = {same(name): i for i, name in enumerate(names)}
    files: list[ImageFile] = []
    for (part, name), entries in listed.items():
        folder, number = layout.parts[part][0], numbers[same(text_of(name))]
        inside = f"{folder.name}/{name}"
        files += [ImageFile(part, f"{folder}/{name}/{file}", f"{inside}/{file}", number) for file in entries]
    task = Task(TaskKind.MULTICLASS, len(names), names)
    return Reading(task, len(files), not_dark(read_files(files, size, channels, workers)))
