"""Exported models at work, with numpy and the chosen runtime alone: exits are taken, and what they save is not run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.arch import Criterion, Rule, Task, TaskKind
from compressor.config.deploy import Engine, ExportFormat
from compressor.deploy.engines import READERS, Stage, installed, open_stage, refuse_precision
from compressor.deploy.machine import machine
from compressor.deploy.note import ExitsNote, ExportNote, InputNote, MixtureNote, PartNote, StageNote, read_note
from compressor.deploy.probabilities import confidence, sigmoid, softmax
from compressor.deploy.rule import decide, mix, short
from compressor.errors import ConfigError, ModelError
from compressor.images import refuse_images

NOT_RUN = -1


@dataclass(frozen=True)
class Predictions:
    """Outputs, float32 (N, outputs), as the heads give them, and the head (N,) that each image left at."""

    outputs: np.ndarray
    exits: np.ndarray


@dataclass(frozen=True)
class Exported:
    """A model in stages, one a head, ready to answer."""

    input: InputNote
    task: Task
    exits: ExitsNote | None
    stages: tuple[Stage, ...]

    def predict(self, images: np.ndarray) -> Predictions:
        """Answer a batch of images, uint8 (N, C, H, W); a later stage runs only on those that are still inside.

        Raises:
            ModelError: the images are of another type or shape.
        """
        _refuse_unfit(images, self.input)
        return self.go_on(images)

    def go_on(self, stream: np.ndarray) -> Predictions:
        """Answer what the first stage reads: images, or the features of a stage before it."""
        count = len(stream)
        outputs = np.empty((count, self.task.outputs), np.float32)
        taken = np.zeros(count, np.int64)
        index, passed = np.arange(count), []
        for head, stage in enumerate(self.stages):
            if not len(index):
                break
            out, features = stage(stream)
            _fits(out, len(index), self.task.outputs, "a head")
            passed.append(out)
            leaves = self._leaves(head, passed)
            outputs[index[leaves]], taken[index[leaves]] = out[leaves], head
            if features is None:
                break
            stays = ~leaves
            index, stream, passed = index[stays], features[stays], [each[stays] for each in passed]
        return Predictions(outputs, taken)

    def _leaves(self, head: int, passed: list[np.ndarray]) -> np.ndarray:
        if self.exits is None or head == len(self.exits.thresholds):
            return np.ones(len(passed[-1]), bool)
        threshold = self.exits.thresholds[head]
        if threshold is None:
            return np.zeros(len(passed[-1]), bool)
        return certainty(passed, self.exits.criterion, self.task) >= np.float32(threshold)


@dataclass(frozen=True)
class Routes:
    """What a mixture answered: outputs, float32 (N, outputs), as one network gives them, and who gave them.

    `weights` are the experts' (N, experts), 0 where one does not answer; `heads` (N, experts) is the exit that the
    image left that expert at, -1 where it was not run.
    """

    outputs: np.ndarray
    weights: np.ndarray
    heads: np.ndarray

    @property
    def exits(self) -> np.ndarray:
        """The exit (N,) that each image left at, of the expert with the greatest weight."""
        return np.take_along_axis(self.heads, self.weights.argmax(axis=1)[:, None], axis=1)[:, 0]


@dataclass(frozen=True)
class Routed:
    """A mixture, ready to answer. `first` is the stage that router and experts share, None where they share none.

    A cascade has no `router`: its experts say themselves how sure they are.
    """

    input: InputNote
    task: Task
    rule: Rule
    first: Stage | None
    router: Stage | None
    experts: tuple[Exported, ...]

    def predict(self, images: np.ndarray) -> Routes:
        """Answer a batch of images, uint8 (N, C, H, W): each chosen expert runs once, on its images alone.

        Raises:
            ModelError: the images are of another type or shape.
        """
        _refuse_unfit(images, self.input)
        count, experts = len(images), len(self.experts)
        outputs = np.zeros((experts, count, self.task.outputs), np.float32)
        heads = np.full((count, experts), NOT_RUN)
        stream = self.first(images)[0] if self.first and count else images

        def ask(expert: int, rows: np.ndarray) -> None:
            if len(rows):
                found = self.experts[expert].go_on(stream[rows])
                outputs[expert, rows], heads[rows, expert] = found.outputs, found.exits

        if self.router is None:
            weights = self._risen(outputs, ask)
        else:
            scores = self.router(stream)[0] if count else np.empty((0, experts), np.float32)
            _fits(scores, count, experts, "the router")
            weights = decide(scores, self.rule)
            for i in range(experts):
                ask(i, np.flatnonzero(weights[:, i]))
        return Routes(mix(outputs, weights, self.task), weights, heads)

    def _risen(self, outputs: np.ndarray, ask: Callable[[int, np.ndarray], None]) -> np.ndarray:
        """Ask the experts of a cascade from the cheapest, each about the images that those before are not sure of.

        `outputs` (experts, N, outputs) is what `ask` fills. Gives the weights (N, experts).
        """
        rows = np.arange(outputs.shape[1])
        scores = np.zeros((outputs.shape[1], len(self.experts)), np.float32)
        for step, expert in enumerate(self.rule.order):
            ask(expert, rows)
            scores[rows, expert] = confidence(outputs[expert, rows], self.task)
            rows = rows[short(scores[rows], self.rule)[:, step]]
        return decide(scores, self.rule)


def _refuse_unfit(images: np.ndarray, shape: InputNote) -> None:
    """Refuse what the first stage does not read: floats in particular, whose range cannot be told from their type."""
    wanted = f"uint8 (N, {shape.channels}, {shape.size}, {shape.size}), pixels of 0 to 255"
    if not isinstance(images, np.ndarray):
        raise ModelError(f"images are a {type(images).__name__}; give an array of NumPy, {wanted}")
    refuse_images(str(images.dtype), images.shape, wanted, shape.channels, floats=False, size=shape.size)


def _fits(found: np.ndarray, images: int, wanted: int, who: str) -> None:
    if found.shape != (images, wanted):
        raise ModelError(f"{who} gives {list(found.shape)} numbers, not {[images, wanted]}; export the model again")


def load_export(
    folder: str | Path, engine: Engine | str = Engine.AUTO, threads: int = 0, precision: str = "fp32"
) -> Exported | Routed:
    """Make an export folder ready to answer; `threads` 0 lets the engine choose.

    `precision` is that of what is not integers: fp32, or with OpenVINO bf16.

    Raises:
        CompressorError: the folder is no whole export, a package is not installed, or the engine does not read the
            format or has no such precision.
    """
    folder = Path(folder)
    note = read_note(folder)
    chosen = choose(engine, note.format)
    refuse_precision(chosen, precision)
    if note.format is ExportFormat.PACKED:
        return _packed(folder, note, chosen, threads)
    refuse_saturation(folder, note)
    return assembled(
        note.input, note.task, note.content, lambda stage: open_stage(chosen, folder / stage.file, threads, precision)
    )


def refuse_saturation(folder: Path, note: ExportNote) -> None:
    """Refuse files that this processor may answer wrongly: their sums may saturate without VNNI, and it has none."""
    wide = [name for stage in note.files_in_order for name in stage.saturating or ()]
    if wide and machine().saturates:
        line = f"8-bit sums of layers may saturate on this processor, which has no VNNI: {len(wide)}, such as {wide[0]}"
        raise ModelError(f"{folder}: {line}; export again, here or with export.overflow_fix=always")


def _packed(folder: Path, note: ExportNote, engine: Engine, threads: int) -> Exported | Routed:
    """Rebuild the networks, which takes torch and safetensors whichever engine then answers."""
    try:
        from compressor.deploy.rebuilt import open_packed
    except ModuleNotFoundError as error:
        line = f"{folder}: packed files need the package {error.name}, with every engine: pip install {error.name}"
        raise ConfigError(f"{line}; files of export.format=onnx or openvino do not") from None
    return open_packed(folder, note.content, engine, threads)


def assembled(
    shape: InputNote, task: Task, content: PartNote | MixtureNote, opened: Callable[[StageNote], Stage]
) -> Exported | Routed:
    """Put stages together, each of them made ready by `opened`."""

    def part(note: PartNote) -> Exported:
        return Exported(shape, task, note.exits, tuple(map(opened, note.stages)))

    if isinstance(content, PartNote):
        return part(content)
    first, router = (stage and opened(stage) for stage in (content.first, content.router))
    return Routed(shape, task, content.rule, first, router, tuple(map(part, content.experts)))


def choose(engine: Engine | str, kind: ExportFormat) -> Engine:
    """Give the engine to use for a format: the one asked for, or the first that is installed."""
    readers = READERS[kind]
    if engine == Engine.AUTO:
        return next((each for each in readers if installed(each)), readers[0])
    if engine not in readers:
        raise ConfigError(f"engine={engine}: does not run {kind} files; give {' or '.join(readers)}")
    return Engine(engine)


def certainty(outputs: list[np.ndarray], criterion: Criterion, task: Task) -> np.ndarray:
    """Tell how sure images (N,) are at the last of the heads passed so far, as `routing.certainty` does with torch."""
    out = outputs[-1]
    if task.kind is TaskKind.REGRESSION:
        if len(outputs) == 1:
            return np.full(len(out), -np.inf, np.float32)
        return -np.abs(out - outputs[-2]).max(axis=1)
    if criterion is Criterion.PATIENCE:
        return _agreement(outputs, task)
    if criterion is Criterion.CONFIDENCE:
        return confidence(out, task)
    if task.kind is TaskKind.MULTILABEL:
        p = sigmoid(out)
        return 1 - _entropy(np.stack([p, 1 - p])).mean(axis=1)
    return 1 - _entropy(softmax(out).T)


def _entropy(p: np.ndarray) -> np.ndarray:
    """Give the entropy over the first dimension, 1 for a uniform distribution."""
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return -(p * logs).sum(axis=0) / np.float32(np.log(max(2, len(p))))


def _agreement(outputs: list[np.ndarray], task: Task) -> np.ndarray:
    multilabel = task.kind is TaskKind.MULTILABEL
    answers = [out > 0 if multilabel else out.argmax(axis=1)[:, None] for out in outputs]
    count = np.ones(len(outputs[-1]), np.float32)
    same = np.ones(len(outputs[-1]), bool)
    for answer in reversed(answers[:-1]):
        same = same & (answer == answers[-1]).all(axis=1)
        count += same
    return count
