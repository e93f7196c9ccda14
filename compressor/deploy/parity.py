"""Whether exported files answer as PyTorch does, over the whole test set, on every engine here that reads them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from compressor.arch import Task, TaskKind
from compressor.compute import threads
from compressor.config import RuntimeConfig
from compressor.config.deploy import Engine, ExportFormat
from compressor.cost import paths
from compressor.data.types import Split
from compressor.deploy.engines import EXTRAS, READERS, Stage, installed, open_stage, version_of
from compressor.deploy.note import EngineParity, InputNote, MixtureNote, Parity, PartNote, StageNote
from compressor.deploy.rebuilt import open_packed
from compressor.deploy.runtime import NOT_RUN, Exported, Predictions, Routed, Routes, assembled
from compressor.errors import ConfigError, ModelError
from compressor.mixture import Mixture, answer
from compressor.mixture.measuring import worst_macs
from compressor.model import Model
from compressor.progress import Progress
from compressor.quality import per_image
from compressor.routing import BATCH, route

TOLERANCE = 0.05
"""What an output of a regression may differ by before its answer is another one, in deviations of the target."""


class DisagreementError(ModelError):
    """Exported files answer otherwise than PyTorch more often than allowed."""


@dataclass(frozen=True)
class Files:
    """Exported files before they are an export: their format and folder, what they read, and what they hold."""

    format: ExportFormat
    folder: Path
    input: InputNote
    content: PartNote | MixtureNote

    def open(self, engine: Engine, task: Task, count: int) -> Exported | Routed:
        """Make them ready to answer on `count` threads, as `runtime.load_export` does."""
        if self.format is ExportFormat.PACKED:
            return open_packed(self.folder, self.content, engine, count)

        def opened(stage: StageNote) -> Stage:
            return open_stage(engine, self.folder / stage.file, count, "fp32")

        return assembled(self.input, task, self.content, opened)


def engines_for(kind: ExportFormat) -> tuple[Engine, ...]:
    """Give the engines that agreement is measured on: those installed that read the format, at least one.

    Packed files are measured with torch; the numpy reference would take hours.
    """
    readers = [engine for engine in READERS[kind] if engine is not Engine.NUMPY]
    if found := tuple(engine for engine in readers if installed(engine)):
        return found
    extra = EXTRAS[readers[0]]
    raise ConfigError(f"export.format={kind} needs the package {readers[0]}: pip install 'compressor[{extra}]'")


def measure_parity(model: Model | Mixture, files: Files, test: Split, share: float, runtime: RuntimeConfig,
                   progress: Progress) -> Parity:  # fmt: skip
    """Answer every test image with PyTorch and with the files on each engine, and count what differs.

    A `share` of the answers may differ, and always one.

    Raises:
        DisagreementError: answers differ more often than allowed.
        ModelError: the format's own engine cannot run the files.
    """
    mixed = isinstance(model, Mixture)
    engines, task = engines_for(files.format), model.task if mixed else model.arch.task
    with threads(runtime, lambda: _macs(model)) as count:
        want = _wanted(model, test)
        found = []
        for engine in engines:
            try:
                got = _answered(files.open(engine, task, count), test, f"{engine}", progress)
            except ModelError as error:
                if engine is engines[0]:
                    raise
                reason = str(error).removeprefix(f"{files.folder}/")
                found.append(EngineParity(engine, version_of(engine), None, None, None, None, refused=reason))
                continue
            found.append(compare(engine, want, got, test, task))
    return _judged(found, want, test, task, share)


def _macs(model: Model | Mixture) -> int:
    return worst_macs(model) if isinstance(model, Mixture) else paths(model)[-1].macs


def _wanted(model: Model | Mixture, test: Split) -> Predictions | Routes:
    """Answer every test image with PyTorch."""
    if isinstance(model, Mixture):
        found = answer(model, test)
        return Routes(found.outputs.numpy(), found.weights.numpy(), found.heads.numpy())
    outputs, taken = route(model, test)
    return Predictions(outputs.numpy(), taken.numpy())


def _answered(exported: Exported | Routed, test: Split, title: str, progress: Progress) -> Predictions | Routes:
    parts = []
    with progress(title, len(test)) as advance:
        for images in _chunks(test):
            parts.append(exported.predict(images))
            advance(len(images), "")
    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _chunks(test: Split) -> Iterator[np.ndarray]:
    for first in range(0, len(test), BATCH):
        yield np.array(test.images[first : first + BATCH])


def compare(engine: Engine, want: Predictions | Routes, got: Predictions | Routes, test: Split, task: Task
            ) -> EngineParity:  # fmt: skip
    """Count the answers of an engine that are not PyTorch's."""
    ways = [each.heads if isinstance(each, Routes) else each.exits[:, None] for each in (want, got)]
    other = ((ways[0] == NOT_RUN) != (ways[1] == NOT_RUN)).any(axis=1)
    same = (ways[0] == ways[1]).all(axis=1)
    gaps = np.abs(want.outputs - got.outputs)
    return EngineParity(
        engine=engine,
        version=version_of(engine),
        differing=differing(want.outputs, got.outputs, task),
        moved=int((~same & ~other).sum()),
        largest=float(gaps[same].max()) if same.any() else 0.0,
        score=_score(got, test, task),
        rerouted=int(other.sum()) if isinstance(want, Routes) else None,
    )


def differing(want: np.ndarray, got: np.ndarray, task: Task) -> int:
    """Count images with another class, labels decided otherwise, or images whose numbers are beyond the tolerance."""
    if task.kind is TaskKind.REGRESSION:
        return int((~(np.abs(want - got) <= TOLERANCE)).any(axis=1).sum())
    if task.kind is TaskKind.MULTILABEL:
        return int(((want > 0) != (got > 0)).sum())
    return int((want.argmax(axis=1) != got.argmax(axis=1)).sum())


def _score(answers: Predictions | Routes, test: Split, task: Task) -> float:
    targets = torch.from_numpy(np.array(test.targets))
    value = float(per_image(torch.from_numpy(answers.outputs), targets, task).double().mean())
    return -value if task.kind is TaskKind.REGRESSION else value


def allowed_of(share: float, answers: int) -> int:
    """Count the answers that may differ, always one; a share such as 0.043 is meant as written, not as floats are."""
    return max(1, math.floor(Fraction(str(share)) * answers))


def share_for(count: int, answers: int) -> float:
    """Give the least share in tenths of a percent that lets so many differ."""
    return math.ceil(Fraction(1000 * count, answers)) / 1000


def _judged(engines: list[EngineParity], want: Predictions | Routes, test: Split, task: Task, share: float) -> Parity:
    answers = want.outputs.size if task.kind is TaskKind.MULTILABEL else len(test)
    regression = task.kind is TaskKind.REGRESSION
    allowed = allowed_of(share, answers)
    for found in sorted(engines, key=lambda each: each.differing or 0, reverse=True):  # the worst first
        if found.differing is not None and found.differing > allowed:
            raise DisagreementError(
                f"export: {found.differing} of {answers} answers of {found.engine} {found.version} differ from "
                f"PyTorch's, at most {allowed} may; nothing was exported, another arithmetic or format may agree, and "
                f"export.differing={share_for(found.differing, answers)} lets so many differ"
            )
    return Parity(
        images=len(test),
        answers=answers,
        allowed=allowed,
        tolerance=TOLERANCE if regression else None,
        score="mae" if regression else "accuracy",
        reference=_score(want, test, task),
        engines=tuple(engines),
    )
