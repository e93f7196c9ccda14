"""What a trained model computes, as one graph for each stage between its exits; only making one imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from compressor.arch import Activation
from compressor.deploy.nodes import (
    FEATURES,
    IMAGES,
    OUTPUT,
    Add,
    Arithmetic,
    Average,
    Container,
    Graph,
    Grid,
    Kind,
    Layer,
    MaxPool,
    Node,
    Normalise,
    Pick,
    Relu,
    Round,
    Value,
)
from compressor.deploy.reference import run_reference

if TYPE_CHECKING:
    from compressor.layers import Act, Conv, Linear, Norm, PadShortcut
    from compressor.model import Model
    from compressor.network import BlockNet, ExitHead, Network, ScoreHead, Unit

__all__ = [
    "FEATURES", "IMAGES", "OUTPUT", "Add", "Arithmetic", "Average", "Container", "Graph", "Grid", "Kind", "Layer",
    "MaxPool", "Node", "Normalise", "Pick", "Relu", "Round", "Value", "halves_of", "run_reference", "stages_of",
]  # fmt: skip


def stages_of(model: Model) -> tuple[Graph, ...]:
    """Give the graph of each stage: what lies between head i - 1 and head i, and head i itself.

    Stage 0 reads IMAGES, the others the FEATURES that the one before gives.
    """
    arch, net = model.arch, model.net
    stages, stream = [], Value((arch.input.channels, arch.input.size, arch.input.size))
    for i in range(len(net.cuts)):
        trace = _Trace(FEATURES if i else IMAGES, stream)
        last = _stretch(trace, net, net.cuts[i - 1] if i else 0, net.cuts[i])
        if i < len(net.exits):
            head = _exit_head(trace, f"exits.{i}", cast("ExitHead", net.exits[str(i)]), last)
            outputs = {OUTPUT: head, FEATURES: last}
        else:
            outputs = {OUTPUT: _score_head(trace, net.head, _tail(trace, net, last))}
        stages.append(Graph((FEATURES if i else IMAGES,), outputs, tuple(trace.nodes), trace.values))
        stream = trace.values[last]
    return tuple(stages)


def halves_of(model: Model) -> tuple[Graph, Graph]:
    """Give the graphs of a model's first stage of blocks, with all before it, and of what follows; exits are left out.

    The first gives FEATURES alone, which the second reads.
    """
    arch, net = model.arch, model.net
    cut, count = len(arch.stages[0].blocks), len(net.blocks)
    trace = _Trace(IMAGES, Value((arch.input.channels, arch.input.size, arch.input.size)))
    last = _stretch(trace, net, 0, cut)
    first = Graph((IMAGES,), {FEATURES: last}, tuple(trace.nodes), trace.values)
    trace = _Trace(FEATURES, trace.values[last])
    output = _score_head(trace, net.head, _tail(trace, net, _stretch(trace, net, cut, count)))
    return first, Graph((FEATURES,), {OUTPUT: output}, tuple(trace.nodes), trace.values)


class _Trace:
    """A graph in the making; each method adds a node and names the value that it gives."""

    def __init__(self, name: str, value: Value) -> None:
        self.nodes: list[Node] = []
        self.values = {name: value}

    def add(self, node: Node, shape: tuple[int, ...], grid: Grid | None = None) -> str:
        self.nodes.append(node)
        self.values[node.gives] = Value(shape, grid)
        return node.gives

    def conv(self, name: str, conv: Conv, norm: Norm, source: str) -> str:
        from compressor.deploy.folding import fold_conv

        side = self.values[source].shape[1]
        side = (side + 2 * conv.padding - conv.weight.shape[-1]) // conv.stride + 1
        return self.add(fold_conv(name, conv, norm, source, name), (len(conv.weight), side, side))

    def linear(self, name: str, linear: Linear, source: str) -> str:
        from compressor.deploy.folding import fold_linear

        return self.add(fold_linear(name, linear, source, name), (len(linear.weight),))

    def act(self, name: str, act: Act, source: str) -> str:
        from compressor.deploy.folding import CAP, grid_of

        shape, grid = self.values[source].shape, grid_of(act)
        if grid:
            return self.add(Round((source,), name), shape, grid)
        if act.function is None:
            return source
        return self.add(Relu((source,), name, CAP if act.function is Activation.RELU6 else None), shape)

    def pool(self, name: str, source: str, kernel: int, padding: int) -> str:
        value = self.values[source]
        side = (value.shape[1] + 2 * padding - kernel) // 2 + 1
        return self.add(MaxPool((source,), name, kernel, 2, padding), (value.shape[0], side, side), value.grid)

    def average(self, name: str, source: str, size: int) -> str:
        return self.add(Average((source,), name, size), (self.values[source].shape[0], size, size))

    def pick(self, name: str, shortcut: PadShortcut, source: str) -> str:
        from compressor.deploy.folding import picked

        value, channels = self.values[source], picked(shortcut)
        side = -(-value.shape[1] // shortcut.stride)
        return self.add(Pick((source,), name, channels, shortcut.stride), (len(channels), side, side), value.grid)


def _stretch(trace: _Trace, net: Network, start: int, end: int) -> str:
    """Add the blocks from `start` to before `end`, and what lies before the first of all."""
    blocks = [(name, cast("BlockNet", block)) for name, block in net.blocks.items()]
    value = FEATURES if start else _entry(trace, net)
    for name, block in blocks[start:end]:
        value = _block(trace, f"blocks.{name}", block, value)
    return value


def _entry(trace: _Trace, net: Network) -> str:
    shape = net.arch.input
    mean, std = (tuple(float(np.float32(x) * np.float32(255)) for x in xs) for xs in (shape.mean, shape.std))
    value = trace.add(Normalise((IMAGES,), "normalised", mean, std), trace.values[IMAGES].shape)
    value = trace.act("image", net.image, value)
    if net.stem:
        value = _unit(trace, "stem", net.stem, value)
        if net.arch.stem and net.arch.stem.pool:
            value = trace.pool("stem.pool", value, 3, 1)
    return value


def _unit(trace: _Trace, name: str, unit: Unit, source: str) -> str:
    return trace.act(f"{name}.act", unit.act, trace.conv(f"{name}.conv", unit.conv, unit.norm, source))


def _block(trace: _Trace, name: str, block: BlockNet, source: str) -> str:
    value = source
    for i in range(1, block.count + 1):
        value = trace.conv(f"{name}.conv{i}", getattr(block, f"conv{i}"), getattr(block, f"norm{i}"), value)
        if i < block.count:
            value = trace.act(f"{name}.act{i}", getattr(block, f"act{i}"), value)
    if block.residual:
        value = trace.add(Add((value, _shortcut(trace, name, block, source)), f"{name}.sum"), trace.values[value].shape)
    value = trace.act(f"{name}.act", block.act, value)
    return trace.pool(f"{name}.pool", value, 2, 0) if block.pool else value


def _shortcut(trace: _Trace, name: str, block: BlockNet, source: str) -> str:
    from compressor.network import ProjectShortcut

    if block.shortcut is None:
        return source
    if isinstance(block.shortcut, ProjectShortcut):
        return trace.conv(f"{name}.shortcut.conv", block.shortcut.conv, block.shortcut.norm, source)
    return trace.pick(f"{name}.shortcut", cast("PadShortcut", block.shortcut), source)


def _tail(trace: _Trace, net: Network, source: str) -> str:
    return _unit(trace, "tail", net.tail, source) if net.tail else source


def _score_head(trace: _Trace, head: ScoreHead, source: str) -> str:
    value = trace.act("head.act", head.act, trace.average("head.mean", source, head.pool))
    for i in range(head.hidden):
        value = trace.linear(f"head.fc{i}", getattr(head, f"fc{i}"), value)
        value = trace.act(f"head.act{i}", getattr(head, f"act{i}"), value)
    return trace.linear("head.score", head.score, value)


def _exit_head(trace: _Trace, name: str, head: ExitHead, source: str) -> str:
    value = source if head.unit is None else _unit(trace, f"{name}.unit", head.unit, source)
    value = trace.act(f"{name}.act", head.act, trace.average(f"{name}.mean", value, 2))
    return trace.linear(f"{name}.score", head.score, value)
