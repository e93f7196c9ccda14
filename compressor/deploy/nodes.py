"""The network that ships: a list of nodes on named values, norms folded, weights as integers. numpy only.

A value has a shape without the batch, and a grid where its numbers are whole multiples of one step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from compressor.config.deploy import Container

__all__ = [
    "FEATURES", "FEW", "IMAGES", "OUTPUT", "Add", "Arithmetic", "Average", "Container", "Graph", "Grid", "Kind",
    "Layer", "MaxPool", "Node", "Normalise", "Pick", "Relu", "Round", "Twice", "Value", "sliding", "windows",
]  # fmt: skip

IMAGES, FEATURES, OUTPUT = "images", "features", "output"
"""What stages read and give: uint8 pixels (N, C, H, W), the trunk's stream, the outputs of the stage's head.

A stream on a grid goes from stage to stage as uint8: its integers, plus the grid's `zero`.
"""

MIDDLE = 128
"""What stands for 0 where signed integers of 8 bits are held as unsigned ones."""

FEW = 16
"""Of fewer means of one image OpenVINO 2026.4 rounds those that lie between two integers otherwise, with AVX2 alone."""


class Arithmetic(StrEnum):
    """How ONNX computes: every rounding as in training, or with the roundings that onnxruntime's fastest kernels add.

    `fused` rounds biases to whole products of steps, and what is added to a residual stream to 8 bits.
    """

    EXACT = "exact"
    FUSED = "fused"


class Kind(StrEnum):
    """What a layer is: a convolution of (N, in, H, W), or a linear layer that flattens what it reads."""

    CONV = "conv"
    LINEAR = "linear"


@dataclass(frozen=True)
class Grid:
    """The numbers an activation can be: `scale` times the integers low..high; `bits` as trained."""

    scale: float
    low: int
    high: int
    bits: int

    @property
    def signed(self) -> bool:
        """Tell whether a number can be negative."""
        return self.low < 0

    @property
    def zero(self) -> int:
        """Give what stands for 0 where the integers are held as uint8."""
        return MIDDLE if self.signed else 0

    @property
    def greatest(self) -> int:
        """Give the greatest of the integers as they are held in uint8."""
        return self.high + self.zero


@dataclass(frozen=True)
class Value:
    """A tensor of the graph; `shape` is without the batch, `grid` None where it is float."""

    shape: tuple[int, ...]
    grid: Grid | None = None


@dataclass(frozen=True)
class Normalise:
    """Pixels 0..255 less `mean`, over `std`, both in units of pixels and one a channel."""

    reads: tuple[str]
    gives: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer with the norm after it folded in.

    `weight` is (out, in / groups, k, k), or (out, in) of the flattened input: int8 integers with `scale` (out,) float32
    (0 for a channel whose norm gives a constant) and `bits` (out,) uint8, or float32 where `scale` and `bits` are None.
    `bias` is (out,) float32. `name` is the layer's in the cost table.
    """

    name: str
    reads: tuple[str]
    gives: str
    kind: Kind
    weight: np.ndarray
    scale: np.ndarray | None
    bits: np.ndarray | None
    bias: np.ndarray
    stride: int = 1
    padding: int = 0
    groups: int = 1


@dataclass(frozen=True)
class Add:
    """The sum of two values of one shape."""

    reads: tuple[str, str]
    gives: str


@dataclass(frozen=True)
class Relu:
    """max(x, 0), and at most `cap` if there is one; for values that stay float."""

    reads: tuple[str]
    gives: str
    cap: float | None = None


@dataclass(frozen=True)
class Round:
    """Round half to even to the grid of the value it gives, and clip; the grid's ends are the ReLU before it."""

    reads: tuple[str]
    gives: str


@dataclass(frozen=True)
class MaxPool:
    """The largest of each window; what lies outside of the map never is."""

    reads: tuple[str]
    gives: str
    kernel: int
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class Twice:
    """All channels, and behind them all of them again."""

    reads: tuple[str]
    gives: str


@dataclass(frozen=True)
class Average:
    """The mean of each of `size` x `size` windows, as torch's adaptive pooling cuts them."""

    reads: tuple[str]
    gives: str
    size: int


@dataclass(frozen=True)
class Pick:
    """Every `stride`-th pixel; output channel i is input channel `channels[i]`, or 0 where that is -1."""

    reads: tuple[str]
    gives: str
    channels: tuple[int, ...]
    stride: int

    def frame(self, count: int) -> tuple[int, int] | None:
        """Give how many channels of zeros stand before and after all `count` in order; None where it is no frame."""
        before = next((i for i, channel in enumerate(self.channels) if channel >= 0), len(self.channels))
        after = len(self.channels) - before - count
        framed = (*[-1] * before, *range(count), *[-1] * max(0, after))
        return (before, after) if self.channels == framed else None


Node = Normalise | Layer | Add | Relu | Round | MaxPool | Average | Pick | Twice


@dataclass(frozen=True, eq=False)
class Graph:
    """One stage: nodes in the order they run.

    `inputs` names what is read; `outputs` maps what is given (OUTPUT, and FEATURES unless the stage is the last;
    FEATURES alone where networks share a first stage) to the value that holds it. `values` describes every value by
    name, inputs included.
    """

    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    nodes: tuple[Node, ...]
    values: Mapping[str, Value]


def windows(side: int, size: int) -> list[tuple[int, int]]:
    """Give the first and the one-past-last pixel of each adaptive pooling window along a side."""
    return [(i * side // size, -(-(i + 1) * side // size)) for i in range(size)]


def sliding(side: int, size: int) -> tuple[int, int] | None:
    """Give the kernel and the stride of adaptive pooling along a side; None where its windows are not alike."""
    spans = windows(side, size)
    kernel, stride = spans[0][1], spans[-1][0] // max(1, size - 1)
    alike = all(span == (i * stride, i * stride + kernel) for i, span in enumerate(spans))
    return (kernel, max(1, stride)) if alike and (stride or size == 1) else None
