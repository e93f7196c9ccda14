"""Answers to image files, one after another: what is read, computed and written does not grow with their number."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import TextIO

import numpy as np

from compressor.arch import Task, TaskKind
from compressor.config.deploy import Engine, PredictConfig, PredictFormat
from compressor.data import summary
from compressor.data.images import ImageFile, read_files
from compressor.data.listing import Count, images_below
from compressor.deploy.answers import SINGLE, Answer, figures_of, writer
from compressor.deploy.note import EXPORT
from compressor.deploy.probabilities import sigmoid, softmax
from compressor.deploy.runtime import Exported, Predictions, Routed, Routes, load_export
from compressor.errors import ConfigError, DataError, UnfinishedError
from compressor.folders import ARCH, MIXTURE, disk
from compressor.naming import printable
from compressor.pipeline import given
from compressor.progress import Progress

FORMATS = {".csv": PredictFormat.CSV, ".json": PredictFormat.JSON, ".jsonl": PredictFormat.JSON}
"""The format that a file's suffix stands for."""


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
    unreadable = 0
    with _output(config.output) as out:
        write = writer(_format(config, out), out, exported.task, files, experts=_asked(exported))
        with progress("predict", len(files)) as advance:
            for answers, bad in answered(exported, files, config.batch, converted):
                for answer in answers:
                    write(answer)
                for line in bad:
                    sys.stderr.write(f"compressor: {line}: has no answer\n")
                unreadable += len(bad)
                advance(len(answers) + len(bad), f"{unreadable} unreadable" if unreadable else "")
    said = (summary.left_out(left_out) if left_out else "", summary.converted(converted))
    if any(said):
        sys.stderr.write(f"compressor: {printable(source)}: {'; '.join(filter(None, said))}\n")
    if unreadable:
        raise UnfinishedError(
            f"{unreadable} of {len(files)} files cannot be read; they are named above, the rest is answered"
        )


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
            found = [os.fspath(path / name) for name, *_ in below.files]
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


def _format(config: PredictConfig, out: TextIO) -> PredictFormat:
    if config.format is not PredictFormat.AUTO:
        return config.format
    if config.output is not None:
        return FORMATS.get(Path(config.output).suffix.lower(), PredictFormat.TABLE)
    return PredictFormat.TABLE if out.isatty() else PredictFormat.JSON


@contextmanager
def _output(name: str | None) -> Iterator[TextIO]:
    """Give stdout, or a new file that appears under its name when it is whole."""
    if name is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(name)
    part = path.with_name(f".{path.name}.part")
    with disk(path):
        if path.exists():
            raise ConfigError(f"predict.output={path}: is there already; give another name, or remove it")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding="utf-8", newline="") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
