"""Models and mixtures of torch at work in stages, as exported ones are: checkpoints, and packed files read back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.arch import Arch
from compressor.compute import on_threads
from compressor.config.deploy import Engine
from compressor.deploy.engines import Stage
from compressor.deploy.graph import Graph, halves_of, run_reference, stages_of
from compressor.deploy.note import ExitsNote, InputNote, MixtureNote, PartNote
from compressor.deploy.packing import rebuilt, rebuilt_mixture
from compressor.deploy.runtime import Exported, Routed
from compressor.mixture import Mixture
from compressor.model import Model


def open_packed(folder: Path, content: PartNote | MixtureNote, engine: Engine, threads: int) -> Exported | Routed:
    """Make packed files ready to answer, as `open_model` does.

    Raises:
        ModelError: a file is damaged, or they do not belong together.
    """
    if isinstance(content, PartNote):
        return open_model(rebuilt(folder / content.stages[0].file), engine, threads)
    return open_mixture(rebuilt_mixture(folder, content), engine, threads)


def open_model(model: Model, engine: Engine, threads: int) -> Exported:
    """Make a model ready to answer: with torch, or with the numpy reference, which is slow and exact in integers.

    `threads` 0 leaves torch as it is.
    """
    if engine is Engine.NUMPY:
        stages = tuple(map(_reference, stages_of(model)))
    else:
        stages = tuple(_segment(model, i, threads) for i in range(len(model.net.cuts)))
    return Exported(input_of(model.arch), model.arch.task, exits_of(model), stages)


def open_mixture(mixture: Mixture, engine: Engine, threads: int) -> Routed:
    """Make a mixture ready to answer; engines and `threads` as for `open_model`."""
    shape, task, rule, routing = input_of(mixture.experts[0].arch), mixture.task, mixture.rule, mixture.router
    if routing is None or not rule.shared:
        router = routing and open_model(routing, engine, threads).stages[0]
        return Routed(
            shape, task, rule, None, router, tuple(open_model(model, engine, threads) for model in mixture.experts)
        )
    if engine is Engine.NUMPY:
        halves = [halves_of(model) for model in (routing, *mixture.experts)]
        first, (router, *rests) = _reference(halves[0][0]), (_reference(rest) for _, rest in halves)
    else:
        net = mixture.net.eval()
        assert net.router is not None, "only networks with a router share a stage"
        first = _torch(lambda images: (net.enter(images), None), threads)
        router, *rests = (_rest(each, threads) for each in (net.router, *net.experts))
    return Routed(shape, task, rule, first, router, tuple(Exported(shape, task, None, (rest,)) for rest in rests))


def input_of(arch: Arch) -> InputNote:
    """Say what a network reads."""
    return InputNote(arch.input.channels, arch.input.size, arch.input.resize)


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
        out, *features = (found[name] for name in graph.outputs)
        return out, features[0] if features else None

    return run


def _segment(model: Model, i: int, threads: int) -> Stage:
    net = model.net.eval()
    last = i == len(net.exits)

    def run(values: Tensor) -> tuple[Tensor, Tensor | None]:
        stream, out = net.segment(i, values)
        return out, None if last else stream

    return _torch(run, threads)


def _rest(net: torch.nn.Module, threads: int) -> Stage:
    return _torch(lambda stream: (net(stream)[-1], None), threads)


def _torch(segment: Callable[[Tensor], tuple[Tensor, Tensor | None]], threads: int) -> Stage:
    @torch.no_grad()
    def run(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        with on_threads(threads):
            out, features = segment(torch.from_numpy(values))
        return out.numpy(), None if features is None else features.numpy()

    return run
