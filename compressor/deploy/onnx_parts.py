"""The pieces of an ONNX graph: constants, nodes, and weights in the narrowest integers."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressor.deploy.nodes import Container

WIDTHS = {2: TensorProto.INT2, 4: TensorProto.INT4, 8: TensorProto.INT8}
"""ONNX's signed integers by their bits."""

OPSETS = {2: (25, 12), 4: (21, 10), 8: (21, 10)}
"""The opset that has integers of some bits, and the version of the file format that it came with."""


class Parts:
    """Constants and nodes in the making."""

    def __init__(self, container: Container) -> None:
        self.container, self.narrowest = container, 8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: Any, dtype: Any) -> str:
        """Add a constant and give its name."""
        self.constants[name] = numpy_helper.from_array(np.array(values, dtype), name)
        return name

    def node(self, kind: str, reads: list[str], gives: str, **attributes: Any) -> str:
        """Add a node with one output and give its name."""
        self.nodes.append(helper.make_node(kind, reads, [gives], **attributes))
        return gives

    def width(self, bits: int) -> int:
        """Give the bits that weights of `bits` are stored with."""
        return next(each for each in WIDTHS if bits <= each) if self.container is Container.SMALLEST else 8

    def integers(self, name: str, codes: np.ndarray, bits: int) -> str:
        """Add weights as integers; `bits` are those of the widest channel."""
        width = self.width(bits)
        self.narrowest = min(self.narrowest, width)
        raw = packed(codes, width)
        self.constants[name] = helper.make_tensor(name, WIDTHS[width], codes.shape, raw.tobytes(), raw=True)
        return name

    def cast(self, source: str, gives: str, kind: int) -> str:
        """Change a tensor's type."""
        return self.node("Cast", [source], gives, to=kind)

    def model(self, reads: list[onnx.ValueInfoProto], gives: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """Close the graph; the opset is the oldest that has all types in use."""
        graph = helper.make_graph(self.nodes, "compressor", reads, gives, list(self.constants.values()))
        opset, version = OPSETS[self.narrowest]
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version, producer_name="compressor"
        )


def packed(codes: np.ndarray, width: int) -> np.ndarray:
    """Pack signed integers of 2, 4 or 8 bits into bytes, the first in the lowest bits, as ONNX stores them."""
    each = 8 // width
    flat = codes.astype(np.int8).view(np.uint8).ravel() & (2**width - 1)
    rows = np.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
    return np.bitwise_or.reduce(rows << (np.arange(each, dtype=np.uint8) * width), axis=1).astype(np.uint8)
