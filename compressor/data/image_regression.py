"""Images and numbers listed in a CSV file: file,target[,more targets][,split]."""

import csv
import io
import math
from pathlib import Path

from compressor.arch import Task, TaskKind
from compressor.config import DatasetConfig
from compressor.data.sources import DECODER, Reading, Source, root_of
from compressor.data.targets import precision_of
from compressor.errors import DataError
from compressor.files import open_regular
from compressor.naming import same

LIST_LIMIT = 2**30
"""Bytes that a list may have: some ten million rows."""

PARTS = ("train", "val", "test")
Row = tuple[str, str, tuple[float, ...]]
"""Part, file as written, targets."""


def find(config: DatasetConfig) -> Source:
    """Read the list; files are relative to `dataset.root`, or to the folder of the list where that is null."""
    if config.csv is None:
        raise DataError("dataset.csv is not set; give a CSV file with the header file,target[,more targets][,split]")
    if config.image_size is None:
        raise DataError("dataset.image_size is not set; give the side in pixels that images are resized to")
    path = Path(config.csv).absolute()
    root = path.parent if config.root is None else root_of(config, "the images that dataset.csv lists")
    names, rows = read_list(path)
    size, channels = config.image_size, config.channels or 3
    signature = ["image_regression", DECODER, size, channels, names, rows]
    files = [str(root / file) for _, file, _ in rows]
    return Source(signature, lambda workers: _read(root, names, rows, size, channels, workers), files)


def read_list(path: Path) -> tuple[tuple[str, ...], list[Row]]:
    """Give the names of the targets and the rows, parts being neighbours; a bad row is an error with its number."""
    try:
        with io.TextIOWrapper(open_regular(path, LIST_LIMIT), encoding="utf-8-sig", newline="") as file:
            table = list(csv.reader(file, strict=True))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; dataset.csv is a CSV file of images and targets") from None
    except (csv.Error, UnicodeDecodeError):
        raise DataError(f"{path}: is not a CSV file in UTF-8") from None
    header = [name.strip() for name in table[0]] if table else []
    names = tuple(name for name in header if name not in ("file", "split"))
    if "file" not in header or not names or len(set(map(same, header))) < len(header) or "" in header:
        raise DataError(f"{path}: row 1 is {','.join(header)[:80]!r}; it should be file,target[,more targets][,split]")
    rows = [_row(path, i, header, names, cells) for i, cells in enumerate(table[1:], 2) if cells]
    present = {part for part, _, _ in rows}
    if "split" in header and not {"train", "test"} <= present:
        raise DataError(f"{path}: column split needs rows of train and of test")
    if not rows:
        raise DataError(f"{path}: lists no image")
    return names, sorted(rows, key=lambda row: PARTS.index(row[0]) if row[0] in PARTS else 0)


def _row(path: Path, number: int, header: list[str], names: tuple[str, ...], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise DataError(f"{path}: row {number} has {len(cells)} cells; its header has {len(header)}")
    cell = {name: text.strip() for name, text in zip(header, cells, strict=True)}
    part = cell.get("split", "all")
    if part not in (*PARTS, "all") or ("split" in cell and part == "all"):
        raise DataError(f"{path}: row {number} has split {part!r}; give train, val or test")
    if not cell["file"] or "\0" in cell["file"]:
        raise DataError(f"{path}: row {number} names no file")
    values = []
    for name in names:
        try:
            values.append(float(cell[name]))
        except ValueError:
            values.append(math.nan)
        if not abs(values[-1]) < 1e30:
            raise DataError(f"{path}: row {number} has {name} {cell[name]!r}; give a number")
    return part, cell["file"], tuple(values)


def _read(root: Path, names: tuple[str, ...], rows: list[Row], size: int, channels: int, workers: int) -> Reading:
    from compressor.data.images import ImageFile, not_dark, read_files

    files = [ImageFile(part, str(root / file), file, targets) for part, file, targets in rows]
    task = Task(TaskKind.REGRESSION, len(names), names)
    precision = precision_of([targets for _, _, targets in rows])
    return Reading(task, len(files), not_dark(read_files(files, size, channels, workers, precision)))
