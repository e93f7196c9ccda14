"""A stage as an ONNX file: integers for weights and activations, dequantized where floats are needed."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from compressor.deploy.nodes import (
    FEW,
    IMAGES,
    Add,
    Arithmetic,
    Average,
    Container,
    Graph,
    Grid,
    Layer,
    MaxPool,
    Node,
    Normalise,
    Pick,
    Relu,
    Round,
    Twice,
    sliding,
    windows,
)
from compressor.deploy.onnx_layers import Codes, apart, fused, real, rounded, unscaled
from compressor.deploy.onnx_parts import Parts
from compressor.deploy.thresholds import settle

SPAN = 255
"""Steps between the least and the greatest uint8."""


def write_onnx(
    graph: Graph, path: Path, container: Container = Container.INT8, arithmetic: Arithmetic = Arithmetic.EXACT
) -> tuple[str, ...]:
    """Write one stage; the batch is free. Give the layers that were trained in integers but are computed in float32.

    Inputs and outputs have the graph's names and order, but that a stage between two exits gives `features.next`:
    in ONNX no two values share a name.
    """
    writer = _written(graph, container, arithmetic)
    onnx.save(writer.model(), path)
    return tuple(writer.in_float)


def as_onnx(
    graph: Graph, container: Container = Container.INT8, arithmetic: Arithmetic = Arithmetic.EXACT
) -> onnx.ModelProto:
    """Give one stage as an ONNX model. Activations on a grid are uint8; signed ones have their zero at 128."""
    return _written(graph, container, arithmetic).model()


def _written(graph: Graph, container: Container, arithmetic: Arithmetic) -> "_Writer":
    writer = _Writer(graph, container, arithmetic)
    for node in graph.nodes:
        writer.add(node)
    return writer


def _info(name: str, held: str, graph: Graph) -> onnx.ValueInfoProto:
    value = graph.values[held]
    kind = TensorProto.UINT8 if name == IMAGES or value.grid else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, ["N", *value.shape])


class _Writer:
    """Where each value of the graph is held: as floats, as codes, or both once both were asked for.

    `in_float` names the layers of integers that read integers and for which only float32 is fast and exact enough.
    """

    def __init__(self, graph: Graph, container: Container, arithmetic: Arithmetic) -> None:
        self.graph, self.arithmetic, self.parts = graph, arithmetic, Parts(container)
        self.floats: dict[str, str] = {}
        self.codes: dict[str, Codes] = {}
        self.in_float: list[str] = []
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.reads:
                self.readers.setdefault(name, []).append(node)
        for name in graph.inputs:
            if grid := graph.values[name].grid:
                self._hold(name, name, grid)
            else:
                self.floats[name] = name

    def _hold(self, value: str, codes: str, grid: Grid) -> None:
        """Note that a value is held as the integers named `codes`."""
        step = self.parts.constant(f"{value}.step", grid.scale, np.float32)
        zero = self.parts.constant(f"{value}.zero", grid.zero, np.uint8)
        self.codes[value] = Codes(codes, step, zero, grid)

    def real(self, value: str) -> str:
        """Give a value as floats."""
        if value not in self.floats:
            codes = self.codes[value]
            reads = [codes.name, codes.step, codes.zero]
            self.floats[value] = self.parts.node("DequantizeLinear", reads, f"{value}.real")
        return self.floats[value]

    def model(self) -> onnx.ModelProto:
        """Give the model, once all nodes are added."""
        graph = self.graph
        gives = {f"{name}.next" if name in graph.inputs else name: value for name, value in graph.outputs.items()}
        for name, value in gives.items():
            held = self.codes[value].name if graph.values[value].grid else self.real(value)
            self.parts.node("Identity", [held], name)
        reads = [_info(name, name, graph) for name in graph.inputs]
        return self.parts.model(reads, [_info(name, value, graph) for name, value in gives.items()])

    def add(self, node: Node) -> None:
        """Add what computes one node."""
        match node:
            case Layer():
                self._layer(node)
            case Round():
                self._round(node)
            case Normalise():
                self._normalise(node)
            case Add():
                self.floats[node.gives] = self.parts.node("Add", [self.real(name) for name in node.reads], node.gives)
            case Relu():
                self._relu(node)
            case Average():
                self._average(node)
            case MaxPool() | Pick() | Twice():
                self._either(node)

    def _normalise(self, node: Normalise) -> None:
        shape = (1, -1, 1, 1)
        value = self.parts.cast(node.reads[0], "pixels", TensorProto.FLOAT)
        mean = self.parts.constant("mean", np.reshape(node.mean, shape), np.float32)
        std = self.parts.constant("std", np.reshape(node.std, shape), np.float32)
        value = self.parts.node("Sub", [value, mean], "centred")
        self.floats[node.gives] = self.parts.node("Div", [value, std], node.gives)

    def _layer(self, node: Layer) -> None:
        parts, codes = self.parts, self.codes.get(node.reads[0])
        grid = self._rounded_to(node.gives)
        if codes is None:
            value = real(parts, node, self.real(node.reads[0]))
        elif node.scale is None:
            value = real(parts, node, unscaled(parts, node, codes), codes.grid.scale)
        elif self.arithmetic is Arithmetic.FUSED:
            value = self._narrowed(node.gives, fused(parts, node, codes, rounded(node, codes.grid), 1.0))
        elif grid and (settled := settle(node, codes.grid, grid)):
            value = fused(parts, node, codes, settled, grid.scale)
        elif node.groups > 1:  # ConvInteger takes a multiple of the time
            self.in_float.append(node.name)
            value = real(parts, node, unscaled(parts, node, codes), codes.grid.scale)
        else:
            value = apart(parts, node, codes)
        self.floats[node.gives] = value

    def _rounded_to(self, value: str) -> Grid | None:
        """Give the grid of the only reader of a value, where that rounds."""
        readers = self.readers.get(value, [])
        return self.graph.values[readers[0].gives].grid if len(readers) == 1 and isinstance(readers[0], Round) else None

    def _narrowed(self, value: str, name: str) -> str:
        """Round a summand of a rounded sum to 8 bits, over all of the range in which it decides the sum."""
        sums = [node for node in self.readers.get(value, []) if isinstance(node, Add)]
        grid = self._rounded_to(sums[0].gives) if sums else None
        if grid is None:
            return name
        (other,) = [self.graph.values[each].grid or grid for each in sums[0].reads if each != value]
        low = grid.low * grid.scale - other.high * other.scale
        high = grid.high * grid.scale - other.low * other.scale
        step = (high - low) / SPAN
        reads = [
            name,
            self.parts.constant(f"{value}.step", step, np.float32),
            self.parts.constant(f"{value}.zero", round(-low / step), np.uint8),
        ]
        reads[0] = self.parts.node("QuantizeLinear", reads, f"{value}.codes8")
        return self.parts.node("DequantizeLinear", reads, f"{value}.narrow")

    def _round(self, node: Round) -> None:
        """Quantize to uint8; codes beyond a narrower grid are clipped, which is what clipping before would give."""
        grid, name, source = self.graph.values[node.gives].grid, node.gives, self.real(node.reads[0])
        assert grid
        codes = self.parts.node("QuantizeLinear", [source, f"{name}.step", f"{name}.zero"], f"{name}.codes8")
        low, high = grid.low + grid.zero, grid.greatest
        if (low, high) != (0, SPAN):
            self.parts.constant(f"{name}.low", low, np.uint8)
            self.parts.constant(f"{name}.high", high, np.uint8)
            codes = self.parts.node("Clip", [codes, f"{name}.low", f"{name}.high"], f"{name}.clipped")
        self._hold(name, codes, grid)

    def _relu(self, node: Relu) -> None:
        reads = [self.real(node.reads[0])]
        if node.cap is None:
            self.floats[node.gives] = self.parts.node("Relu", reads, node.gives)
            return
        reads.append(self.parts.constant(f"{node.gives}.low", 0, np.float32))
        reads.append(self.parts.constant(f"{node.gives}.high", node.cap, np.float32))
        self.floats[node.gives] = self.parts.node("Clip", reads, node.gives)

    def _average(self, node: Average) -> None:
        source, (channels, side, _) = self.real(node.reads[0]), self.graph.values[node.reads[0]].shape
        few = channels * node.size**2 < FEW
        if node.size == 1:
            axes = [self.parts.constant(f"{node.gives}.axes", [2, 3], np.int64)] if few else []
            value = self.parts.node("ReduceMean" if few else "GlobalAveragePool", [source, *axes], node.gives)
        elif window := sliding(side, node.size):
            value = self._slid(node.gives, source, window, FEW - channels if few else 0)
        else:
            spans = windows(side, node.size)
            weights = np.array([[(a <= i < b) / (b - a) for i in range(side)] for a, b in spans])
            rows = self.parts.constant(f"{node.gives}.rows", weights, np.float32)
            columns = self.parts.constant(f"{node.gives}.columns", weights.T, np.float32)
            value = self.parts.node("MatMul", [rows, source], f"{node.gives}.across")
            value = self.parts.node("MatMul", [value, columns], node.gives)
        self.floats[node.gives] = value

    def _slid(self, name: str, source: str, window: tuple[int, int], more: int) -> str:
        """Average over windows, with so many channels of zeros more, which are dropped again."""
        size = {"kernel_shape": [window[0]] * 2, "strides": [window[1]] * 2}
        if not more:
            return self.parts.node("AveragePool", [source], name, **size)
        frame = self.parts.constant(f"{name}.frame", [0, 0, 0, 0, 0, more, 0, 0], np.int64)
        wide = self.parts.node("Pad", [source, frame], f"{name}.framed")
        many = self.parts.node("AveragePool", [wide], f"{name}.wide", **size)
        ends = {"first": [0], "end": [-more], "axis": [1]}
        reads = [self.parts.constant(f"{name}.{end}", values, np.int64) for end, values in ends.items()]
        return self.parts.node("Slice", [many, *reads], name)

    def _either(self, node: MaxPool | Pick | Twice) -> None:
        """Add what computes on codes as it does on floats."""
        codes = self.codes.get(node.reads[0])
        source = codes.name if codes else self.floats[node.reads[0]]
        if isinstance(node, MaxPool):
            size = {"kernel_shape": [node.kernel] * 2, "strides": [node.stride] * 2, "pads": [node.padding] * 4}
            value = self.parts.node("MaxPool", [source], node.gives, **size)
        elif isinstance(node, Twice):
            value = self.parts.node("Concat", [source, source], node.gives, axis=1)
        else:
            value = self._pick(node, source, codes)
        if codes:
            self.codes[node.gives] = Codes(value, codes.step, codes.zero, codes.grid)
        else:
            self.floats[node.gives] = value

    def _pick(self, node: Pick, source: str, codes: Codes | None) -> str:
        name, parts = node.gives, self.parts
        count = self.graph.values[node.reads[0]].shape[0]
        if node.stride > 1:
            ends = {"first": [0, 0], "end": [2**31, 2**31], "axes": [2, 3], "stride": [node.stride] * 2}
            reads = [parts.constant(f"{name}.{end}", values, np.int64) for end, values in ends.items()]
            source = parts.node("Slice", [source, *reads], f"{name}.thin")
        frame = node.frame(count)
        before, after = frame or (0, 1)  # one channel of zeros is enough to gather from
        reads = [source, parts.constant(f"{name}.frame", [0, before, 0, 0, 0, after, 0, 0], np.int64)]
        source = parts.node("Pad", [*reads, codes.zero] if codes else reads, name if frame else f"{name}.wide")
        if frame:
            return source
        index = [count if channel < 0 else channel for channel in node.channels]
        return parts.node("Gather", [source, parts.constant(f"{name}.channels", index, np.int64)], name, axis=1)
