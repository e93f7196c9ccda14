"""Layers whose channel dimensions have names. Two dimensions with one name are pruned together."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.arch import FLOAT, Activation
from compressor.errors import ModelError
from compressor.quantization import (
    RoundActivation,
    RoundWeight,
    act_range,
    alive,
    each_of,
    effective_scale,
    integers,
    round_traced,
    weight_levels,
)

Axes = dict[str, tuple[str, ...]]
"""For each tensor of a layer's state, the names of its leading dimensions ('' for one that is never pruned)."""


class Axis(NamedTuple):
    """A named channel dimension."""

    name: str
    size: int


class Stream(NamedTuple):
    """A tensor on its way: its channel axis, the bits it was rounded to, and whether it can be negative."""

    axis: Axis
    bits: int = FLOAT
    signed: bool = True


class Weighted(nn.Module):
    """What convolutions and linear layers share: a weight that may be rounded. `reads` are its input's bits."""

    weight: nn.Parameter
    scale: nn.Parameter
    levels: Tensor
    binary: Tensor
    heard: Tensor | None
    axes: Axes
    bits: tuple[int, ...]
    reads: int

    def describe(self, axes: tuple[str, ...], bits: tuple[int, ...], reads: int, silent: Collection[int]) -> None:
        """Name the weight's axes and give it bits: one number, or one for each output channel.

        `silent` are the input channels that are always 0.
        """
        self.bits, self.reads, self.axes = bits, reads, {"weight": axes}
        if bits == (FLOAT,):
            return
        channels = self.weight.shape[0]
        if len(bits) not in (1, channels):
            raise ModelError(f"axis {axes[0]!r}: explicit bits for {len(bits)} channels, the layer has {channels}")
        self.scale = nn.Parameter(torch.zeros(channels))  # 0: not calibrated yet
        self.axes["scale"] = axes[:1]
        self.register_buffer("levels", weight_levels(bits, channels), persistent=False)
        self.register_buffer("binary", torch.tensor([b == 1 for b in each_of(bits, channels)]), persistent=False)
        inputs = torch.tensor([float(i not in silent) for i in range(self.weight.shape[1])]) if silent else None
        self.register_buffer("heard", inputs, persistent=False)

    @property
    def quantized(self) -> bool:
        """Tell whether the weight is rounded."""
        return self.bits != (FLOAT,)

    def rounded(self) -> Tensor:
        """Give the weight that `forward` computes with."""
        if not self.quantized:
            return self.weight
        out = RoundWeight.apply(self.weight, self.scale, self.levels, self.binary, self.heard)
        assert isinstance(out, Tensor)
        return out

    def integers(self) -> Tensor:
        """Give the integers of a quantized weight, as float32 of the weight's shape."""
        return integers(self.weight, self.scale, self.levels, self.binary, self.heard)

    def steps(self) -> Tensor:
        """Give the scales in force of a quantized weight, (out,)."""
        return effective_scale(self.weight, self.scale, self.binary, self.heard)


class Conv(Weighted):
    """A convolution without bias; `depthwise` has one axis on both sides."""

    def __init__(
        self,
        source: Stream,
        cout: Axis,
        kernel: int,
        stride: int = 1,
        *,
        bits: tuple[int, ...],
        silent: Collection[int] = (),
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = stride, kernel // 2, cout.size if depthwise else 1
        cin = 1 if depthwise else source.axis.size
        self.weight = nn.Parameter(torch.empty(cout.size, cin, kernel, kernel))
        if not self.weight.is_meta:  # drawing without a memory to draw into imports torch's compiler: seconds
            nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.describe((cout.name, "" if depthwise else source.axis.name), bits, source.bits, silent)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, in, H, W)."""
        return F.conv2d(x, self.rounded(), None, self.stride, self.padding, 1, self.groups)


class Linear(Weighted):
    """A linear layer on features pooled to `pool` x `pool`; its weight is (out, in, pool, pool) where pool > 1."""

    alive: Tensor | None

    def __init__(
        self, source: Stream, cout: Axis, pool: int = 1, *, bits: tuple[int, ...], silent: Collection[int] = ()
    ) -> None:
        super().__init__()
        spatial = (pool, pool) if pool > 1 else ()
        self.weight = nn.Parameter(torch.empty(cout.size, source.axis.size, *spatial))
        self.bias = nn.Parameter(torch.empty(cout.size))
        bound = self.weight[0].numel() ** -0.5
        if not self.weight.is_meta:  # as above
            nn.init.uniform_(self.weight, -bound, bound)
            nn.init.uniform_(self.bias, -bound, bound)
        self.describe((cout.name, source.axis.name), bits, source.bits, silent)
        self.axes["bias"] = (cout.name,)
        self.register_buffer("alive", alive(bits, cout.size), persistent=False)

    @property
    def shift(self) -> Tensor:
        """Give the bias that is added, (out,): 0 for channels of 0 bits."""
        return self.bias if self.alive is None else self.bias * self.alive

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in) or (N, in, pool, pool) to (N, out)."""
        return F.linear(x.flatten(1), self.rounded().flatten(1), self.shift)


class Norm(nn.BatchNorm2d):
    """Batch normalisation over a named axis, after a layer of given bits; channels of 0 bits become 0."""

    alive: Tensor | None

    def __init__(self, axis: Axis, bits: tuple[int, ...]) -> None:
        super().__init__(axis.size)
        self.axes: Axes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (axis.name,))
        self.axes["num_batches_tracked"] = ()
        self.register_buffer("alive", alive(bits, axis.size), persistent=False)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Give what normalised channels are multiplied by, and what is added: 0 and 0 for channels of 0 bits."""
        if self.alive is None:
            return self.weight, self.bias
        return self.weight * self.alive, self.bias * self.alive

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """Normalise (N, C, H, W); masking factor and shift costs no pass over the map."""
        if self.alive is None:
            return super().forward(input)
        (factor, shift), momentum = self.factors(), self.momentum or 0.0
        if self.training:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            momentum = momentum or 1 / self.num_batches_tracked.item()  # none: a cumulative average
        return F.batch_norm(
            input, self.running_mean, self.running_var, factor, shift, self.training, momentum, self.eps
        )


class Act(nn.Module):
    """What produces a tensor that others read: an activation function, then rounding where the tensor has bits."""

    def __init__(self, function: Activation | None, bits: int, *, signed: bool) -> None:
        super().__init__()
        self.function, self.bits, self.signed, self.bypass = function, bits, signed, False
        self.axes: Axes = {}
        if bits != FLOAT:
            self.low, self.high = act_range(bits, signed)
            self.scale = nn.Parameter(torch.zeros(()))  # 0: not calibrated yet
            self.axes["scale"] = ()

    def stream(self, axis: Axis) -> Stream:
        """Describe the tensor that comes out."""
        return Stream(axis, self.bits, self.signed)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function and round; the grid's own lower end is the ReLU where rounding follows one."""
        if self.function is Activation.RELU6:
            x = F.relu6(x)
        elif self.function is Activation.RELU and (self.bits == FLOAT or self.bypass):
            x = F.relu(x)
        if self.bits == FLOAT or self.bypass:
            return x
        gain = (x[0].numel() * self.high) ** -0.5
        if torch.compiler.is_compiling():
            return round_traced(x, self.scale, self.low, self.high, gain)
        out = RoundActivation.apply(x, self.scale, self.low, self.high, gain)
        assert isinstance(out, Tensor)
        return out


class PadShortcut(nn.Module):
    """CIFAR's "option A" shortcut: every stride-th pixel, each channel copied to where `map` (out, in) has a 1.

    A gather without multiplications; channels that nothing maps to are 0. Source: He et al. 2015, section 4.2.
    """

    map: Tensor

    def __init__(self, cin: Axis, cout: Axis, stride: int) -> None:
        super().__init__()
        self.stride = stride
        offset = max(0, (cout.size - cin.size) // 2)
        self.register_buffer("map", torch.zeros(cout.size, cin.size, dtype=torch.uint8))
        self.map.diagonal(-offset).fill_(1)
        self.axes: Axes = {"map": (cout.name, cin.name)}

    def forward(self, x: Tensor) -> Tensor:
        """Give (N, out, H / stride, W / stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        present = self.map.amax(dim=1).to(x.dtype).view(1, -1, 1, 1)
        source = (self.map * torch.arange(self.map.shape[1], device=x.device)).sum(dim=1)  # compiled argmax overruns
        return x.index_select(1, source) * present


def axes_of(net: nn.Module) -> Axes:
    """Collect the axis names of every tensor in the network's state."""
    return {
        f"{prefix}.{name}" if prefix else name: names
        for prefix, layer in net.named_modules()
        for name, names in getattr(layer, "axes", {}).items()
    }


@contextmanager
def float_activations(net: nn.Module) -> Iterator[list[tuple[str, Act]]]:
    """Switch activation rounding off for a while; give the activations that have bits, with their names."""
    acts = [(name, m) for name, m in net.named_modules() if isinstance(m, Act) and m.bits != FLOAT]
    for _, act in acts:
        act.bypass = True
    try:
        yield acts
    finally:
        for _, act in acts:
            act.bypass = False
