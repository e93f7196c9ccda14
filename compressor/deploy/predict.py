"""Answers to image files, one after another: what is read, computed and written does not grow with their number."""

import io
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.codec import digest_file
from compressor.config.deploy import Engine, PredictConfig, PredictFormat
from compressor.data import summary
from compressor.data.images import ImageFile, read_files
from compressor.data.listing import Count, images_below
from compressor.deploy.answers import SINGLE, Answer, Write, figures_of, writer
from compressor.deploy.keeping import Keeper, Piece, Printed, keeping
from compressor.deploy.machine import package_version
from compressor.deploy.note import EXPORT
from compressor.deploy.probabilities import sigmoid, softmax
from compressor.deploy.runtime import Exported, Predictions, Routed, Routes, load_export
from compressor.errors import ConfigError, DataError, Interrupted, UnfinishedError
from compressor.folders import ARCH, MIXTURE, digest_of, disk
from compressor.naming import printable
from compressor.pipeline import given
from compressor.progress import Progress

FORMATS = {".csv": PredictFormat.CSV, ".json": PredictFormat.JSON, ".jsonl": PredictFormat.JSON}
"""The format that a file's suffix stands for."""
VERSIONS = ("compressor", "torch", "onnxruntime", "openvino", "numpy", "pillow")
"""Packages of which another version may give another answer."""


def predict(model: str, source: str, config: PredictConfig, threads: int, progress: Progress) -> None:
    """Answer every image file, and write the answers as they come.

    Raises:
        ConfigError: the model is neither an export nor a checkpoint, or the output is no file's name or there already.
        DataError: no file was found.
        UnfinishedError: files could not be read; each was named on stderr, and the others are answered.
    """
    if config.output is not None and not Path(config.output).name:
        raise ConfigError(f"predict.output={config.output}: names no file; give one, such as answers.csv")
    exported = open_model(Path(model), config.engine, threads)
    files, left_out = look(source)
    converted: Counter[str] = Counter()
    with _keeper(model, config, threads) as keeper:
        try:
            unreadable = _answer(exported, files, config, keeper, progress, converted)
        except Interrupted as interrupt:
            raise Interrupted(interrupt.signal, keeper.stopped(len(files))) from None
    said = (summary.left_out(left_out) if left_out else "", summary.converted(converted))
    if any(said):
        sys.stderr.write(f"compressor: {printable(source)}: {'; '.join(filter(None, said))}\n")
    if unreadable:
        raise UnfinishedError(
            f"{unreadable} of {len(files)} files cannot be read; they are named above, the rest is answered"
        )


def _answer(
    exported: Exported | Routed,
    files: Sequence[str],
    config: PredictConfig,
    keeper: Keeper,
    progress: Progress,
    converted: Counter[str],
) -> int:
    """Answer files a piece at a time but for those that are kept; return how many cannot be read."""
    rows, unreadable = io.StringIO(newline=""), 0
    write = writer(_format(config), rows, exported.task, files, experts=_asked(exported))
    keeper.begin(_taken(rows))
    with progress("predict", len(files)) as advance:
        for first in range(0, len(files), config.batch):
            part = files[first : first + config.batch]
            of = keeper.digest(part)
            piece = keeper.kept(of)
            if piece is None:
                piece = _piece(exported, part, config.batch, of, write, rows)
                keeper.add(piece)
            for line in piece.unreadable:
                sys.stderr.write(f"compressor: {line}: has no answer\n")
            unreadable += len(piece.unreadable)
            converted.update(piece.converted)
            advance(len(part), f"{unreadable} unreadable" if unreadable else "")
    return unreadable


def _piece(
    exported: Exported | Routed, files: Sequence[str], batch: int, of: str, write: Write, rows: io.StringIO
) -> Piece:
    """Answer files together; `write` writes to `rows`."""
    answered_, bad = 0, []
    converted: Counter[str] = Counter()
    for answers, unreadable in answered(exported, files, batch, converted):
        for answer in answers:
            write(answer)
        answered_ += len(answers)
        bad += unreadable
    return Piece(of, _taken(rows), answered_, tuple(bad), dict(converted))


def _taken(rows: io.StringIO) -> str:
    text = rows.getvalue()
    rows.seek(0)
    rows.truncate()
    return text


def open_model(folder: Path, engine: Engine, threads: int) -> Exported | Routed:
    """Make an export folder, or a phase's folder, ready to answer."""
    with disk(folder):
        export, checkpoint, mixture = ((folder / name).is_file() for name in (EXPORT, ARCH, MIXTURE))
    if export:
        return load_export(folder, engine, threads)
    if not (checkpoint or mixture):
        raise ConfigError(f"model={folder}: holds no {EXPORT} and no {ARCH}; give an export's folder or a phase's")
    found = given(folder, mixtures=True)
    if engine not in (Engine.AUTO, Engine.TORCH, Engine.NUMPY):
        raise ConfigError(f"predict.engine={engine}: runs exported files, {folder} is a checkpoint; give auto or torch")
    from compressor.deploy import rebuilt
    from compressor.mixture import load_mixture
    from compressor.model import load

    if mixture:
        return rebuilt.open_mixture(load_mixture(found.folder), engine, threads)
    return rebuilt.open_model(load(found.folder), engine, threads)


def _asked(exported: Exported | Routed) -> int:
    """Count the experts that answer an image; 0 for one network."""
    if isinstance(exported, Exported):
        return 0
    return exported.rule.answering


def find_images(source: str) -> list[str]:
    """Return the files that a file's name, a folder (image files below it, by suffix) or a pattern stands for."""
    return look(source)[0]


def look(source: str) -> tuple[list[str], Count]:
    """Return the files that `find_images` does, and a count of what else lies in the folder."""
    path = Path(source)
    left_out: Count = Counter()
    with disk(path):
        if path.is_dir():
            below = images_below(path)
            found = [os.fspath(path / name) for name in below.files]
            left_out = below.left_out
        elif path.exists():
            found = [source]
        else:
            found = sorted(name for name in glob(source, recursive=True) if Path(name).is_file())  # noqa: PTH207 - `source` may be absolute
    if not found:
        lies = f" ({summary.left_out(left_out)})" if left_out else ""
        raise DataError(
            f"input={source}: no image is there{lies}; give a file, a folder, or a pattern such as 'photos/*.png'"
        )
    return found, left_out


def answered(
    exported: Exported | Routed, files: Sequence[str], batch: int, converted: Counter[str] | None = None
) -> Iterator[tuple[list[Answer], tuple[str, ...]]]:
    """Answer files a few at a time; give answers in their order, and what could not be read, with the reason.

    `converted` is made to count the images whose pixels did not have 8 bits, by their kind.
    """
    shape = exported.input
    listed = [ImageFile("", file, file, i) for i, file in enumerate(files)]
    for chunk in read_files(listed, shape.size, shape.channels, workers=1):
        answers = []
        for first in range(0, len(chunk.images), batch):
            found = exported.predict(chunk.images[first : first + batch])
            names = [listed[i].name for i in chunk.targets[first : first + batch].tolist()]
            values = (_values(out, exported.task) for out in found.outputs)
            each = zip(names, values, _ways(exported, found), strict=True)
            answers += [Answer(name, numbers, *way) for name, numbers, way in each]
        if converted is not None:
            converted.update(kind.kind for _, kind in chunk.converted)
        yield answers, chunk.unreadable


def _values(out: np.ndarray, task: Task) -> tuple[float, ...]:
    """Turn the outputs for an image into probabilities, or into numbers in the target's unit."""
    if task.kind is TaskKind.REGRESSION:
        kept = np.float32 if figures_of(task) == SINGLE else np.float64
        values = out.astype(kept) * np.array(task.scale or 1.0, kept) + np.array(task.mean or 0.0, kept)
    elif task.kind is TaskKind.MULTILABEL:
        values = sigmoid(out)
    else:
        values = softmax(out)
    return tuple(values.tolist())


def _ways(exported: Exported | Routed, found: Predictions | Routes) -> Iterator[tuple[str, ...]]:
    """Say of each image at which exit it left, and of a mixture then which experts answered, the weightiest first."""
    if isinstance(exported, Exported):
        yield from ((_exit(exported, head),) for head in found.exits)
    elif isinstance(found, Routes):
        for weights, heads in zip(found.weights, found.heads, strict=True):
            chosen = [i for i in np.argsort(-weights, kind="stable").tolist() if weights[i] > 0]
            yield "+".join(_exit(exported.experts[i], heads[i]) for i in chosen), "+".join(map(str, chosen))


def _exit(exported: Exported, head: int) -> str:
    last = len(exported.exits.thresholds) if exported.exits else 0
    return "final" if head == last else f"exit {head + 1}"


def _format(config: PredictConfig) -> PredictFormat:
    if config.format is not PredictFormat.AUTO:
        return config.format
    if config.output is not None:
        return FORMATS.get(Path(config.output).suffix.lower(), PredictFormat.TABLE)
    return PredictFormat.TABLE if sys.stdout.isatty() else PredictFormat.JSON


@contextmanager
def _keeper(model: str, config: PredictConfig, threads: int) -> Iterator[Keeper]:
    """Open what takes the answers: stdout, or a new file that appears under its name when it is whole."""
    if config.output is None:
        yield Printed(sys.stdout)
        return
    identity = {
        "model": _digest(Path(model)),
        "format": str(_format(config)),
        "engine": str(config.engine),
        "batch": config.batch,
        "threads": threads,
        "versions": {name: package_version(name) for name in VERSIONS},
    }
    with keeping(Path(config.output), identity) as kept:
        yield kept


def _digest(folder: Path) -> str:
    """Name a model by its content; that of an export is named by its note, which names the other files."""
    with disk(folder):
        return digest_file(folder / EXPORT) if (folder / EXPORT).is_file() else digest_of(folder)
