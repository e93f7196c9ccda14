"""Models of torch at work in stages, as exported ones are: checkpoints, and packed files read back."""

import numpy as np
import torch

from compressor.compute import on_threads
from compressor.config.deploy import Engine
from compressor.deploy.engines import Stage
from compressor.deploy.graph import FEATURES, OUTPUT, Graph, run_reference, stages_of
from compressor.deploy.note import ExitsNote, InputNote
from compressor.deploy.runtime import Exported
from compressor.model import Model


def open_model(model: Model, engine: Engine, threads: int) -> Exported:
    """Make a model ready to answer: with torch, or with the numpy reference, which is slow and exact in integers.

    `threads` 0 leaves torch as it is.
    """
    shape = model.arch.input
    if engine is Engine.NUMPY:
        stages = tuple(map(_reference, stages_of(model)))
    else:
        stages = tuple(_segment(model, i, threads) for i in range(len(model.net.cuts)))
    return Exported(InputNote(shape.channels, shape.size, shape.resize), model.arch.task, exits_of(model), stages)


def exits_of(model: Model) -> ExitsNote | None:
    """Say when images leave early; None without exits."""
    rule = model.arch.exits
    if rule is None or not model.net.exits:
        return None
    values = model.net.thresholds.tolist()
    return ExitsNote(rule.criterion, tuple(value if np.isfinite(value) else None for value in values))


def _reference(graph: Graph) -> Stage:
    (source,) = graph.inputs

    def run(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        found = run_reference(graph, {source: values})
        return found[OUTPUT], found.get(FEATURES)

    return run


def _segment(model: Model, i: int, threads: int) -> Stage:
    net = model.net.eval()
    last = i == len(net.exits)

    @torch.no_grad()
    def run(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        with on_threads(threads):
            stream, out = net.segment(i, torch.from_numpy(values))
        return out.numpy(), None if last else stream.numpy()

    return run
