"""From trained layers to what ships: norms folded into weights and biases, rounded weights as integers."""

import numpy as np
import torch
from torch import Tensor

from compressor.arch import FLOAT, Activation
from compressor.deploy.nodes import Grid, Kind, Layer
from compressor.layers import Act, Conv, Linear, Norm, PadShortcut, Weighted
from compressor.quantization import TINY

CAP = 6.0
"""Where ReLU6 ends."""


def grid_of(act: Act) -> Grid | None:
    """Give the grid that an activation rounds to, or None. ReLU6 only lowers the grid's upper end."""
    if act.bits == FLOAT:
        return None
    scale = max(act.scale.item(), TINY)
    high = act.high
    if act.function is Activation.RELU6:
        high = min(high, round(float(np.float32(CAP) * np.float32(1 / scale))))
    return Grid(scale, act.low, high, act.bits)


def fold_conv(name: str, conv: Conv, norm: Norm, reads: str, gives: str) -> Layer:
    """Fold the norm after a convolution; a channel whose gain is negative has its integers' signs turned."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor, shift = norm.factors()
    gain = factor.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = shift.double() - norm.running_mean.double() * gain
    weight, scale, bits = _weight(conv, gain)
    return Layer(name, (reads,), gives, Kind.CONV, weight, scale, bits, _single(bias),
                 conv.stride, conv.padding, conv.groups)  # fmt: skip


def fold_linear(name: str, linear: Linear, reads: str, gives: str) -> Layer:
    """Flatten a linear layer's weight to (out, in)."""
    ones = torch.ones(len(linear.bias), dtype=torch.float64)
    weight, scale, bits = _weight(linear, ones if linear.alive is None else linear.alive.double())
    flat = weight.reshape(len(weight), -1)
    return Layer(name, (reads,), gives, Kind.LINEAR, flat, scale, bits, _single(linear.shift))


def picked(shortcut: PadShortcut) -> tuple[int, ...]:
    """Give the input channel of each output channel of an option-A shortcut, -1 where there is none."""
    index, present = shortcut.map.argmax(dim=1).tolist(), shortcut.map.amax(dim=1).tolist()
    return tuple(i if there else -1 for i, there in zip(index, present, strict=True))


def _weight(layer: Weighted, gain: Tensor) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    weight, shape = layer.weight.detach(), (-1, *[1] * (layer.weight.ndim - 1))
    gain = gain.detach()
    if not layer.quantized:
        return _single(weight.double() * gain.view(shape)), None, None
    sign = torch.where(gain < 0, -1.0, 1.0).to(weight.dtype)
    codes = (layer.integers() * sign.view(shape)).to(torch.int8)
    scale = layer.steps().detach().double() * gain.abs()
    bits = np.broadcast_to(np.array(layer.bits, np.uint8), len(weight)).copy()
    return codes.cpu().numpy(), _single(scale), bits


def _single(x: Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()
