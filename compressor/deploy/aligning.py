"""Widths that kernels like: a few channels of zeros where a pruned network lies just below a multiple of 8 or 16.

Such a channel reads and gives zeros only, so what is computed stays the same, but vector units run full: of 15, 31 and
61 channels, OpenVINO and onnxruntime take longer than of 16, 32 and 64.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from compressor.deploy.nodes import IMAGES, Graph, Kind, Layer, Node, Pick, Value

MULTIPLES, SPARE = (16, 8), 1 / 8
"""The multiples that widths are rounded up to, the best first, and the greatest share of channels that this may add."""


def aligned(graph: Graph) -> Graph:
    """Give a stage of the same answers whose maps have widths that kernels like; stages of one network still fit."""
    images = graph.values.get(IMAGES)
    if images and roomy(images.shape[0]) != images.shape[0]:
        return graph
    values = {name: _widened(value) for name, value in graph.values.items()}
    nodes = tuple(_node(node, graph.values, values) for node in graph.nodes)
    return replace(graph, nodes=nodes, values=values)


def roomy(channels: int) -> int:
    """Give the width to compute a map of so many channels with; a multiple of 8 stays."""
    if channels % min(MULTIPLES) == 0:
        return channels
    rounded = (-(-channels // multiple) * multiple for multiple in MULTIPLES)
    return next((width for width in rounded if width - channels <= SPARE * channels), channels)


def _widened(value: Value) -> Value:
    maps = len(value.shape) == 3  # not those behind a linear layer
    return replace(value, shape=(roomy(value.shape[0]), *value.shape[1:])) if maps else value


def _node(node: Node, before: Mapping[str, Value], after: Mapping[str, Value]) -> Node:
    source, gives = node.reads[0], node.gives
    if isinstance(node, Layer):
        return _layer(node, before[source], after[source], after[gives].shape[0])
    if isinstance(node, Pick):
        return _pick(node, before[source].shape[0], after[source].shape[0], after[gives].shape[0])
    return node


def _layer(layer: Layer, before: Value, after: Value, out: int) -> Layer:
    """Add rows and columns of zeros; a scale of 0 is that of a channel that gives a constant."""
    count, more = len(layer.weight), out - len(layer.weight)
    weight = layer.weight
    if len(before.shape) == 3 and layer.groups == 1:
        columns = ((0, 0), (0, after.shape[0] - before.shape[0]), (0, 0), (0, 0))
        shape = before.shape if layer.kind is Kind.LINEAR else weight.shape[1:]
        weight = np.pad(weight.reshape(count, *shape), columns)
    if layer.kind is Kind.LINEAR:
        weight = weight.reshape(count, -1)
    rows = ((0, more), *[(0, 0)] * (weight.ndim - 1))
    scale, bits = (each if each is None else np.pad(each, (0, more)) for each in (layer.scale, layer.bits))
    groups = out if layer.groups > 1 else 1
    return replace(layer, weight=np.pad(weight, rows), scale=scale, bits=bits, bias=np.pad(layer.bias, (0, more)),
                   groups=groups)  # fmt: skip


def _pick(node: Pick, count: int, wide: int, out: int) -> Pick:
    """Fill up with zeros; where all channels stand in a frame of zeros, the source's new ones do, too."""
    frame = node.frame(count)
    if frame and (after := out - frame[0] - wide) >= 0:
        return replace(node, channels=(*[-1] * frame[0], *range(wide), *[-1] * after))
    return replace(node, channels=(*node.channels, *[-1] * (out - len(node.channels))))
