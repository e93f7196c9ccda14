"""The graph run in numpy: slow, exact in integers; what other runtimes are compared with."""

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from compressor.deploy.nodes import (
    Add,
    Average,
    Graph,
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
    windows,
)


def run_reference(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run one stage on a batch; give its head's outputs as float32, and its features as the next stage reads them.

    Values on a grid are kept as integers, all others in float64, so sums of products of integers are exact.
    """
    held = {name: np.asarray(inputs[name], np.float64) - _zero(graph.values[name]) for name in graph.inputs}
    for node in graph.nodes:
        held[node.gives] = _run(
            node, [(held[name], graph.values[name]) for name in node.reads], graph.values[node.gives]
        )
    return {name: _given(held[value], graph.values[value]) for name, value in graph.outputs.items()}


def _zero(value: Value) -> int:
    return value.grid.zero if value.grid else 0


def _given(x: np.ndarray, value: Value) -> np.ndarray:
    return (x + _zero(value)).astype(np.uint8 if value.grid else np.float32)


def _real(x: np.ndarray, value: Value) -> np.ndarray:
    return x * value.grid.scale if value.grid else x


def _run(node: Node, sources: list[tuple[np.ndarray, Value]], gives: Value) -> np.ndarray:
    (x, value) = sources[0]
    match node:
        case Normalise():
            mean, std = np.array(node.mean, np.float32), np.array(node.std, np.float32)
            return (x - mean[:, None, None]) / std[:, None, None]
        case Layer():
            return _layer(node, x, value)
        case Add():
            return np.add(*(_real(*source) for source in sources))
        case Relu():
            return np.clip(x, 0, node.cap)
        case Round():
            assert gives.grid
            steps = np.rint(_real(x, value) / gives.grid.scale)
            return np.clip(steps, gives.grid.low, gives.grid.high)
        case MaxPool():
            around = ((0, 0), (0, 0), (node.padding,) * 2, (node.padding,) * 2)
            views = sliding_window_view(np.pad(x, around, constant_values=-np.inf), (node.kernel,) * 2, (2, 3))
            return views[:, :, :: node.stride, :: node.stride].max(axis=(4, 5))
        case Average():
            return _average(_real(x, value), node.size)
        case Pick():
            channels = np.array(node.channels)
            return x[:, channels, :: node.stride, :: node.stride] * (channels >= 0)[:, None, None]
        case Twice():
            return np.concatenate([x, x], axis=1)


def _layer(layer: Layer, x: np.ndarray, value: Value) -> np.ndarray:
    """Sum integers first where both sides are integers; then scale, then add the bias."""
    weight = layer.weight.astype(np.float64)
    sums = _conv(layer, x, weight) if layer.kind is Kind.CONV else x.reshape(len(x), -1) @ weight.T
    shape = (-1, 1, 1) if layer.kind is Kind.CONV else (-1,)
    scale = 1.0 if layer.scale is None else layer.scale.astype(np.float64).reshape(shape)
    return sums * (scale * (value.grid.scale if value.grid else 1.0)) + layer.bias.reshape(shape)


def _conv(layer: Layer, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    around = ((0, 0), (0, 0), (layer.padding,) * 2, (layer.padding,) * 2)
    views = sliding_window_view(np.pad(x, around), weight.shape[2:], (2, 3))[:, :, :: layer.stride, :: layer.stride]
    if layer.groups > 1:
        return np.einsum("nchwij,cij->nchw", views, weight[:, 0])
    return np.tensordot(views, weight, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def _average(x: np.ndarray, size: int) -> np.ndarray:
    out = np.empty((*x.shape[:2], size, size))
    for i, (top, bottom) in enumerate(windows(x.shape[2], size)):
        for j, (left, right) in enumerate(windows(x.shape[3], size)):
            out[:, :, i, j] = x[:, :, top:bottom, left:right].mean(axis=(2, 3))
    return out
