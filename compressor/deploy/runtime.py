"""Exported models at work, with numpy and the chosen runtime alone: exits are taken, and what they save is not run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.arch import Criterion, Task, TaskKind
from compressor.config.deploy import Engine, ExportFormat
from compressor.deploy.engines import READERS, Stage, installed, open_stage
from compressor.deploy.note import ExitsNote, InputNote, read_note
from compressor.errors import ConfigError


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
        """Answer a batch of images, uint8 (N, C, H, W); a later stage runs only on those that are still inside."""
        count = len(images)
        outputs = np.empty((count, self.task.outputs), np.float32)
        taken = np.zeros(count, np.int64)
        index, stream, passed = np.arange(count), images, []
        for head, stage in enumerate(self.stages):
            if not len(index):
                break
            out, features = stage(stream)
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


def load_export(
    folder: Path, engine: Engine | str = Engine.AUTO, threads: int = 0, precision: str = "fp32"
) -> Exported:
    """Make an export folder ready to answer; `threads` 0 lets the engine choose.

    `precision` is that of what is not integers: fp32, or with OpenVINO bf16.

    Raises:
        CompressorError: the folder is no whole export, or the engine is not installed or does not read its format.
    """
    note = read_note(folder)
    chosen = choose(engine, note.format)
    if note.format is ExportFormat.PACKED:
        from compressor.deploy.packing import rebuilt
        from compressor.deploy.rebuilt import open_model

        return open_model(rebuilt(folder / note.stages[0].file), chosen, threads)
    stages = tuple(open_stage(chosen, folder / stage.file, threads, precision) for stage in note.stages)
    return Exported(note.input, note.task, note.exits, stages)


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
    if task.kind is TaskKind.MULTILABEL:
        p = sigmoid(out)
        if criterion is Criterion.CONFIDENCE:
            return np.maximum(p, 1 - p).min(axis=1)
        return 1 - _entropy(np.stack([p, 1 - p])).mean(axis=1)
    p = softmax(out)
    if criterion is Criterion.CONFIDENCE:
        return p.max(axis=1)
    return 1 - _entropy(p.T)


def softmax(out: np.ndarray) -> np.ndarray:
    """Turn scores (N, classes) into probabilities."""
    raised = np.exp(out - out.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def sigmoid(out: np.ndarray) -> np.ndarray:
    """Turn scores of labels into probabilities, without overflow."""
    small = np.exp(-np.abs(out))
    return np.where(out >= 0, 1 / (1 + small), small / (1 + small))


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
