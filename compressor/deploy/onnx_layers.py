"""Convolutions and linear layers in ONNX, so that onnxruntime computes them with its integer kernels.

A layer whose output is rounded at once becomes dequantize, layer, quantize with a whole bias, which onnxruntime fuses
to QLinearConv; exactly, where `settle` finds such a bias. Any other is ConvInteger or MatMulInteger, scaled after.
Depthwise ones without such a bias, and layers that read or weigh with floats, are computed in float32.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from compressor.deploy.nodes import MIDDLE, Grid, Kind, Layer
from compressor.deploy.onnx_parts import WIDTHS, Parts
from compressor.deploy.thresholds import Settled, largest_factors

WIDE = 32
"""Input channels from which a convolution is faster as one product of matrices than as ConvInteger."""

LARGEST = 2**31 - 1
"""The largest bias of an integer kernel."""


@dataclass(frozen=True)
class Codes:
    """A tensor of integers (uint8), with the names of its step and its zero."""

    name: str
    step: str
    zero: str
    grid: Grid


def fused(parts: Parts, layer: Layer, codes: Codes, settled: Settled, step: float) -> str:
    """Add a layer with whole biases; the step of its sums is `settled.step` in units of `step`. Gives floats."""
    name = layer.name
    weight = _times(parts, layer, settled.factor)
    sums = settled.step * step
    parts.constant(f"{name}.scale", sums / codes.grid.scale, np.float32)
    parts.constant(f"{name}.bias", settled.bias, np.int32)
    parts.constant(f"{name}.bias.scale", sums, np.float32)
    reads = [weight, f"{name}.scale", parts.constant(f"{name}.weight.zero", np.zeros_like(sums), np.int8)]
    weight = parts.node("DequantizeLinear", reads, f"{name}.weight.real", axis=0)
    bias = parts.node("DequantizeLinear", [f"{name}.bias", f"{name}.bias.scale"], f"{name}.bias.real", axis=0)
    source = parts.node("DequantizeLinear", [_flat(parts, layer, codes.name), codes.step, codes.zero], f"{name}.reads")
    return apply(parts, layer, source, weight, bias)


def rounded(layer: Layer, reads: Grid) -> Settled:
    """Round biases to whole products of the steps, made small by the largest factors; exact only by luck."""
    assert layer.scale is not None
    factor = largest_factors(layer, reads)
    step = layer.scale.astype(np.float64) * reads.scale / factor
    floor = np.abs(layer.bias) / (LARGEST / 2)  # below it the bias would not fit, and the products do not count
    factor, step = np.where(step < floor, 0, factor), np.maximum(step, np.maximum(floor, 1e-12))
    return Settled(factor, np.rint(layer.bias / step).astype(np.int64), step)


def apart(parts: Parts, layer: Layer, codes: Codes) -> str:
    """Add a layer as sums of integers, which are scaled and get their bias as floats; exact. Gives floats."""
    name, conv = layer.name, layer.kind is Kind.CONV
    columns = conv and layer.weight.shape[1] >= WIDE
    assert layer.scale is not None
    add = _conv_integer if conv and not columns else _product
    sums = add(parts, layer, codes)
    parts.constant(f"{name}.scale", layer.scale.astype(np.float64) * codes.grid.scale, np.float32)
    parts.constant(f"{name}.bias", layer.bias.reshape((-1, 1, 1) if conv and not columns else (-1,)), np.float32)
    if not columns:
        value = parts.node("DequantizeLinear", [sums, f"{name}.scale"], f"{name}.scaled", axis=1)
        return parts.node("Add", [value, f"{name}.bias"], layer.gives)
    value = parts.cast(sums, f"{name}.whole", TensorProto.FLOAT)  # faster than DequantizeLinear along the last axis
    value = parts.node("Mul", [value, f"{name}.scale"], f"{name}.scaled")
    value = parts.node("Add", [value, f"{name}.bias"], f"{name}.last")
    return parts.node("Transpose", [value], layer.gives, perm=[0, 3, 1, 2])


def _conv_integer(parts: Parts, layer: Layer, codes: Codes) -> str:
    """Sum with unsigned weights: onnxruntime has no fast kernel for ConvInteger with signed ones."""
    name = layer.name
    weight = parts.cast(_codes(parts, layer), f"{name}.wide", TensorProto.FLOAT)
    parts.constant("middle", MIDDLE, np.float32)
    parts.constant("middle.code", MIDDLE, np.uint8)
    weight = parts.node("Add", [weight, "middle"], f"{name}.raised")
    weight = parts.cast(weight, f"{name}.codes", TensorProto.UINT8)
    return parts.node("ConvInteger", [codes.name, weight, codes.zero, "middle.code"], f"{name}.sums", **_window(layer))


def _product(parts: Parts, layer: Layer, codes: Codes) -> str:
    name = layer.name
    weight = parts.cast(_codes(parts, layer), f"{name}.codes", TensorProto.INT8)
    if layer.kind is Kind.LINEAR:
        rows = _flat(parts, layer, codes.name)
        weight = parts.node("Transpose", [weight], f"{name}.turned", perm=[1, 0])
    else:
        rows = _columns(parts, layer, codes)
        weight = parts.node("Transpose", [weight], f"{name}.turned", perm=[2, 3, 1, 0])
        parts.constant(f"{name}.shape", [-1, len(layer.weight)], np.int64)
        weight = parts.node("Reshape", [weight, f"{name}.shape"], f"{name}.table")
    return parts.node("MatMulInteger", [rows, weight, codes.zero], f"{name}.sums")


def _columns(parts: Parts, layer: Layer, codes: Codes) -> str:
    """Lay out what each output pixel reads along the last axis, (N, H, W, k * k * in)."""
    name, kernel, stride = layer.name, layer.weight.shape[-1], layer.stride
    value = parts.node("Transpose", [codes.name], f"{name}.last_axis", perm=[0, 2, 3, 1])
    if layer.padding:
        around = parts.constant(f"{name}.around", [0, *[layer.padding] * 2, 0] * 2, np.int64)
        value = parts.node("Pad", [value, around, codes.zero], f"{name}.padded")
    if kernel == 1 and stride == 1:
        return value
    axes = parts.constant("rows_columns", [1, 2], np.int64)
    steps = parts.constant(f"every.{stride}", [stride] * 2, np.int64)
    views = []
    for i, j in np.ndindex(kernel, kernel):
        first = parts.constant(f"from.{i}.{j}", [i, j], np.int64)
        ends = [each - kernel + 1 or LARGEST for each in (i, j)]
        end = parts.constant(f"to.{ends[0]}.{ends[1]}", ends, np.int64)
        views.append(parts.node("Slice", [value, first, end, axes, steps], f"{name}.view.{i}{j}"))
    return parts.node("Concat", views, f"{name}.columns", axis=3)


def real(parts: Parts, layer: Layer, source: str, step: float = 1.0) -> str:
    """Add a layer that computes in float32 what it reads times `step`, from weights that may be integers.

    They are scaled by Mul, which onnxruntime does once, at load; DequantizeLinear it would do for each batch.
    """
    name = layer.name
    if layer.scale is None:
        weight = parts.constant(f"{name}.weight", layer.weight * np.float32(step), np.float32)
    else:
        axis = (-1, *[1] * (layer.weight.ndim - 1))
        parts.constant(f"{name}.scale", (layer.scale * np.float32(step)).reshape(axis), np.float32)
        weight = parts.cast(_codes(parts, layer), f"{name}.wide", TensorProto.FLOAT)
        weight = parts.node("Mul", [weight, f"{name}.scale"], f"{name}.weight.real")
    bias = parts.constant(f"{name}.bias", layer.bias, np.float32)
    return apply(parts, layer, _flat(parts, layer, source), weight, bias)


def unscaled(parts: Parts, layer: Layer, codes: Codes) -> str:
    """Give integers as floats, by a cast: after DequantizeLinear, onnxruntime would round float weights and biases."""
    value = parts.cast(codes.name, f"{layer.name}.reads", TensorProto.FLOAT)
    if not codes.grid.signed:
        return value
    return parts.node("Sub", [value, parts.constant("middle", MIDDLE, np.float32)], f"{layer.name}.centred")


def apply(parts: Parts, layer: Layer, source: str, weight: str, bias: str) -> str:
    """Add the convolution or the product itself."""
    if layer.kind is Kind.CONV:
        return parts.node("Conv", [source, weight, bias], layer.gives, **_window(layer))
    return parts.node("Gemm", [source, weight, bias], layer.gives, transB=1)


def _codes(parts: Parts, layer: Layer) -> str:
    assert layer.bits is not None
    return parts.integers(f"{layer.name}.weight", layer.weight, int(layer.bits.max()))


def _times(parts: Parts, layer: Layer, factor: np.ndarray) -> str:
    """Give the integers times a factor for each channel, as int8; what is stored stays narrow."""
    assert layer.bits is not None
    name, factor = layer.name, factor.reshape(-1, *[1] * (layer.weight.ndim - 1))
    if parts.width(int(layer.bits.max())) == max(WIDTHS):
        return parts.integers(f"{name}.weight", layer.weight * factor, max(WIDTHS))
    weight = parts.cast(_codes(parts, layer), f"{name}.wide", TensorProto.FLOAT)
    weight = parts.node("Mul", [weight, parts.constant(f"{name}.factor", factor, np.float32)], f"{name}.times")
    return parts.cast(weight, f"{name}.codes", TensorProto.INT8)


def _flat(parts: Parts, layer: Layer, source: str) -> str:
    return source if layer.kind is Kind.CONV else parts.node("Flatten", [source], f"{layer.name}.flat")


def _window(layer: Layer) -> dict[str, int | list[int]]:
    return {
        "kernel_shape": list(layer.weight.shape[2:]),
        "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4,
        "group": layer.groups,
    }
