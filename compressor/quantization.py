"""Fake quantization: rounding in `forward`, straight-through gradients, learned step sizes, and their calibration.

Source: Esser et al., Learned Step Size Quantization (LSQ), ICLR 2020.
"""

import math
from typing import Any

import torch
from torch import Tensor

TINY = 1e-8
"""The least scale, so that dividing by it stays finite."""

CLIPS = tuple(0.2 + 0.02 * i for i in range(41))
"""Shares of the largest magnitude tried as clipping points by calibration."""

AT_ONCE = 2**18
"""Values that several clipping points are tried on at once; more would leave the processor's cache."""

SURE = 1.001
"""A clipping point is worse for sure where what it cuts off costs so many times the least error: fp32 sums better."""


def act_range(bits: int, signed: bool) -> tuple[int, int]:
    """Give the least and greatest integer of an activation."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def each_of(bits: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """Give the bits of each channel, where one number stands for all."""
    return bits if len(bits) > 1 else bits * channels


def weight_levels(bits: tuple[int, ...], channels: int) -> Tensor:
    """Give the greatest integer of each channel's weights, (channels,): 2^(b-1)-1, 1 for one bit, 0 for none."""
    return torch.tensor([b and max(1, 2 ** (b - 1) - 1) for b in each_of(bits, channels)], dtype=torch.float32)


def alive(bits: tuple[int, ...], channels: int) -> Tensor | None:
    """Give 1 for each channel that has bits and 0 for one of 0 bits, (channels,); None where all have."""
    return torch.tensor([float(b > 0) for b in each_of(bits, channels)]) if 0 in bits else None


class RoundActivation(torch.autograd.Function):
    """Round a tensor to a grid of one step: clamp(round(x / scale), low, high) * scale.

    The gradient of `x` passes where x is inside the grid; that of `scale` is LSQ's, times `gain`. Only x and the
    output are kept: with d the gradient of the output, LSQ's sum is (d . output - d_x . x) / scale.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, gain: float) -> Tensor:
        """Round x of any shape with a scale of shape ()."""
        step = max(scale.item(), TINY)
        out = torch.mul(x, 1 / step).round_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(x, out)
        ctx.grid = (step, low, high, gain)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Give the gradients of x and scale."""
        (grad,) = grads
        x, out = ctx.saved_tensors
        step, low, high, gain = ctx.grid
        dx = torch.ops.aten.hardtanh_backward(grad, x, (low - 0.5) * step, (high + 0.5) * step)
        if x.dtype != torch.float32:  # the difference of what bf16 rounded once more would drown it
            x = x.float()
            out = torch.mul(x, 1 / step).round_().clamp_(low, high).mul_(step)
        dscale = (_dot(grad, out) - _dot(dx, x)) * (gain / step)
        return dx, dscale, None, None, None


def round_traced(x: Tensor, scale: Tensor, low: int, high: int, gain: float) -> Tensor:
    """Round as `RoundActivation` does, in operations that torch.compile can trace; the last bits may differ."""
    step = scale.clamp_min(TINY)
    step = step.detach() + gain * (step - step.detach())
    ratio = x.float() / step
    whole = ratio.round().detach()
    inside = (whole >= low) & (whole <= high)
    return (torch.where(inside, ratio + (whole - ratio).detach(), whole.clamp(low, high)) * step).to(x.dtype)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float32 and a.stride() == b.stride() and a.is_contiguous(memory_format=_format(a)):
        return torch.dot(a.as_strided((a.numel(),), (1,)), b.as_strided((b.numel(),), (1,)))
    return (a.float() * b.float()).sum()  # products of bf16 would drown the difference that LSQ takes


def _format(x: Tensor) -> torch.memory_format:
    is_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


class RoundWeight(torch.autograd.Function):
    """Round weights channel by channel; channels of one bit become their sign times their mean magnitude.

    Channels of 0 bits become 0 and learn nothing.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scale: Tensor, levels: Tensor, binary: Tensor, heard: Tensor | None = None
    ) -> Tensor:
        """Round a weight (out, ...) with scales, levels and the mask of one-bit channels, each (out,).

        `heard` is as in `effective_scale`.
        """
        shape = (-1, *[1] * (weight.ndim - 1))
        step = effective_scale(weight, scale, binary, heard).view(shape)
        top = levels.view(shape)
        ratio = weight / step
        integers = ratio.round().clamp_(-top, top)
        if _any(binary):
            signs = torch.where(weight < 0, -1.0, 1.0)
            integers = torch.where(binary.view(shape), signs, integers)
        inside = (ratio.abs() <= torch.where(top > 0, top, -1.0)) | binary.view(shape)
        ctx.save_for_backward(inside, torch.where(inside, integers - ratio, integers))
        ctx.gain = torch.rsqrt((levels * weight[0].numel()).clamp_min(1)) * ~binary
        return integers * step

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Give the gradients of the weight and of the scales."""
        (grad,) = grads
        inside, slope = ctx.saved_tensors
        return grad * inside, (grad * slope).flatten(1).sum(dim=1) * ctx.gain, None, None, None


def _any(binary: Tensor) -> bool:
    """Tell whether a channel may have one bit; torch.compile cannot look at values and takes the general way."""
    return torch.compiler.is_compiling() or bool(binary.any())


def effective_scale(weight: Tensor, scale: Tensor, binary: Tensor, heard: Tensor | None = None) -> Tensor:
    """Give the scales (out,) in force: learned ones, or the mean magnitude where a channel has one bit.

    `heard` (in,) is 0 for inputs that are always 0, which the mean leaves out: then removing them changes nothing.
    """
    if not _any(binary):
        return scale.clamp_min(TINY)
    size = weight.abs()
    if heard is None:
        mean = size.flatten(1).mean(dim=1)
    else:
        each = size.flatten(2).mean(dim=2) if size.ndim > 2 else size
        mean = (each * heard).sum(dim=1) / heard.sum().clamp_min(1)
    return torch.where(binary, mean, scale).clamp_min(TINY)


def integers(weight: Tensor, scale: Tensor, levels: Tensor, binary: Tensor, heard: Tensor | None = None) -> Tensor:
    """Give the integers (out, ...) that stand for a weight, as float32."""
    shape = (-1, *[1] * (weight.ndim - 1))
    top = levels.view(shape)
    rounded = (weight / effective_scale(weight, scale, binary, heard).view(shape)).round().clamp(-top, top)
    return torch.where(binary.view(shape), torch.where(weight < 0, -1.0, 1.0), rounded)


def best_weight_scale(weight: Tensor, levels: Tensor) -> Tensor:
    """Give the scale of each channel (out,) of a float32 weight with the least squared error, of 0 bits any above 0."""
    flat, tops = weight.flatten(1), levels.clamp_min(1)
    largest = flat.abs().amax(dim=1).clamp_min(TINY)
    clips = torch.tensor(CLIPS, device=weight.device)
    errors = []
    for some in clips.split(max(1, AT_ONCE // max(1, flat.numel()))):
        step = (some[:, None] * largest / tops)[:, :, None]
        rounded = (flat / step).round_().clamp_(-levels[:, None], levels[:, None])
        errors.append(rounded.mul_(step).sub_(flat).square_().sum(2))
    return clips[torch.cat(errors).argmin(dim=0)] * largest / tops


def best_act_scale(values: Tensor, low: int, high: int) -> float:
    """Give the scale with the least squared error on sampled values of any shape."""
    size = values.abs()
    largest = max(size.max().item(), TINY)
    top = high if low == 0 else -low
    tail = size[size > CLIPS[0] * largest]
    best, least = CLIPS[-1], math.inf
    for clip in reversed(CLIPS):
        if (tail - clip * largest).clamp_min_(0).square_().sum().item() > SURE * least:
            break  # what is clipped alone costs more, and ever more
        step = clip * largest / top
        error = (values / step).round_().clamp_(low, high).mul_(step).sub_(values).square_().sum().item()
        if error <= least:
            best, least = clip, error
    return best * largest / top
