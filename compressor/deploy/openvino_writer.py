"""A stage as OpenVINO's XML and BIN, in the form that its low-precision passes turn into integer kernels.

Activations are FakeQuantize of 256 levels, which those passes know, after a clamp where the grid has fewer; weights are
int8 constants times a scale. Sums of a residual stream stay unrounded and fuse into the convolution before them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from compressor.deploy.nodes import (
    FEW,
    IMAGES,
    Add,
    Average,
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
    Twice,
    Value,
    sliding,
)

LEVELS = 256
"""Levels of every FakeQuantize."""

LAST = 2**31 - 1
"""The end of an axis, whatever its length."""

Tensor = Any
"""An output of an OpenVINO node."""


def write_openvino(graph: Graph, path: Path) -> None:
    """Write one stage to `path` (.xml) and its neighbour (.bin); float32 stays float32."""
    ov.save_model(as_openvino(graph), path, compress_to_fp16=False)


def as_openvino(graph: Graph) -> ov.Model:
    """Give one stage as an OpenVINO model; its inputs and outputs have the graph's names, the batch is free."""
    held: dict[str, Tensor] = {}
    reads, gives = [], []
    for name in graph.inputs:
        value = graph.values[name]
        kind = np.uint8 if name == IMAGES or value.grid else np.float32
        source = op.parameter(ov.PartialShape([-1, *value.shape]), kind, name)
        reads.append(_named(source, name))
        held[name] = (_real(source.output(0), value.grid) if value.grid else source).output(0)
    for node in graph.nodes:
        made = _node(node, [held[name] for name in node.reads], graph)
        made.set_friendly_name(node.gives)
        held[node.gives] = made.output(0)
    for name, value in graph.outputs.items():
        grid = graph.values[value].grid
        gives.append(_named(op.result(_codes(held[value], grid) if grid else held[value]), name))
    model = ov.Model(gives, reads, "compressor")  # pyright: ignore[reportGeneralTypeIssues] - its stub is wrong
    model.set_rt_info(0, ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])  # float activations stay float
    return model


def _named(node: ov.Node, name: str) -> Any:
    node.output(0).set_names({name})
    return node


def _node(node: Node, sources: list[Tensor], graph: Graph) -> ov.Node:
    x, value = sources[0], graph.values[node.reads[0]]
    match node:
        case Layer():
            return _layer(node, x)
        case Round():
            return _round(x, graph.values[node.gives].grid)
        case Add():
            return op.add(*sources)
        case Normalise():
            shape = (1, -1, 1, 1)
            centred = op.subtract(op.convert(x, "f32"), _floats(node.mean, shape))
            return op.divide(centred, _floats(node.std, shape))
        case Relu():
            return op.relu(x) if node.cap is None else op.clamp(x, 0.0, node.cap)
        case Average():
            return _average(x, value, node.size)
        case MaxPool():
            around = [node.padding] * 2
            return op.max_pool(x, [node.stride] * 2, [1, 1], around, around, [node.kernel] * 2)
        case Pick():
            return _pick(node, x, value)
        case Twice():
            return op.concat([x, x], 1)


def _floats(values: Any, shape: tuple[int, ...] = ()) -> ov.Node:
    return op.constant(np.asarray(values, np.float32).reshape(shape))


def _whole(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int64))


def _round(x: Tensor, grid: Grid | None) -> ov.Node:
    """Round to 256 levels; values beyond the ends of a grid with fewer are clamped before."""
    assert grid
    low, high = -grid.zero, LEVELS - 1 - grid.zero
    if (low, high) != (grid.low, grid.high):
        x = op.clamp(x, grid.low * grid.scale, grid.high * grid.scale).output(0)
    ends = _floats(low * grid.scale), _floats(high * grid.scale)
    return op.fake_quantize(x, *ends, *ends, LEVELS)


def _codes(x: Tensor, grid: Grid) -> ov.Node:
    """Give the integers of a value on a grid as uint8."""
    ends = [_floats((end - grid.zero) * grid.scale) for end in (0, LEVELS - 1)]
    return op.convert(op.fake_quantize(x, *ends, _floats(0), _floats(LEVELS - 1), LEVELS), "u8")


def _real(codes: Tensor, grid: Grid) -> ov.Node:
    """Give the value that integers held as uint8 stand for."""
    whole = op.convert(codes, "f32")
    centred = op.subtract(whole, _floats(grid.zero)) if grid.zero else whole
    return op.multiply(centred, _floats(grid.scale))


def _layer(layer: Layer, x: Tensor) -> ov.Node:
    """Add a layer: a constant weight, or integers times a scale, and a float bias."""
    axis = (-1, *[1] * (layer.weight.ndim - 1))
    if layer.scale is None:
        weight = op.constant(layer.weight)
    else:
        constant = layer.scale == 0  # a scale of 0 would be divided by
        codes = np.where(constant.reshape(axis), 0, layer.weight).astype(np.int8)
        weight = op.multiply(op.convert(op.constant(codes), "f32"), _floats(np.where(constant, 1, layer.scale), axis))
    if layer.kind is Kind.LINEAR:
        flat = op.reshape(x, _whole(0, layer.weight.shape[1]), special_zero=True)
        return op.add(op.matmul(flat, weight, False, True), _floats(layer.bias, (1, -1)))
    window = [layer.stride] * 2, [layer.padding] * 2, [layer.padding] * 2, [1, 1]
    if layer.groups > 1:
        each = len(layer.weight) // layer.groups
        grouped = op.reshape(weight, _whole(layer.groups, each, *layer.weight.shape[1:]), special_zero=False)
        sums = op.group_convolution(x, grouped, *window)
    else:
        sums = op.convolution(x, weight, *window)
    return op.add(sums, _floats(layer.bias, (1, -1, 1, 1)))


def _average(x: Tensor, value: Value, size: int) -> ov.Node:
    channels, few = value.shape[0], value.shape[0] * size**2 < FEW
    if size == 1 and few:
        return op.reduce_mean(x, _whole(2, 3), keep_dims=True)
    if few:  # with channels of zeros they are many
        frame = _whole(0, 0, 0, 0), _whole(0, FEW - channels, 0, 0)
        wide = op.pad(x, *frame, "constant", op.constant(np.float32(0)))
        many = _average(wide, replace(value, shape=(FEW, *value.shape[1:])), size)
        return op.slice(many, _whole(0), _whole(channels), _whole(1), _whole(1))
    if window := sliding(value.shape[1], size):
        kernel, stride = window
        return op.avg_pool(x, [stride] * 2, [0, 0], [0, 0], [kernel] * 2, exclude_pad=True)
    return op.adaptive_avg_pool(x, _whole(size, size))


def _pick(node: Pick, x: Tensor, value: Value) -> ov.Node:
    """Thin out the pixels and put zeros around the channels; where some are dropped or moved, by a 1x1 convolution.

    Its weights are 1 and 0, so it gives the same numbers, and sooner than a gather, which changes the layout twice.
    """
    frame = node.frame(value.shape[0])
    if frame is None:
        chosen = np.array(node.channels)[:, None] == np.arange(value.shape[0])
        ones = _floats(np.ones(len(chosen)), (-1, 1, 1, 1))
        weight = op.multiply(op.convert(op.constant(chosen[:, :, None, None].astype(np.int8)), "f32"), ones)
        found = op.convolution(x, weight, [node.stride] * 2, [0, 0], [0, 0], [1, 1])
        return _round(found.output(0), value.grid) if value.grid else found  # rounded already, but so it gives integers
    y = x
    if node.stride > 1:
        steps, kept = _whole(1, 1, node.stride, node.stride), [1, 1, 0, 0]
        y = op.strided_slice(x, _whole(0, 0, 0, 0), _whole(0, 0, LAST, LAST), steps, kept, kept)
    before, after = frame
    return op.pad(y, _whole(0, before, 0, 0), _whole(0, after, 0, 0), "constant", _floats(0))
