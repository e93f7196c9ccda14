"""What a network costs, counted layer by layer on the network itself. Definitions: docs/numbers.md."""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from compressor.arch import FLOAT
from compressor.errors import ModelError
from compressor.layers import Act, Conv, Linear, Norm, Weighted
from compressor.model import Model
from compressor.network import Network

SCALE_BITS = BIAS_BITS = THRESHOLD_BITS = 32
MIXED_BITS = 4
"""Bits that say how wide a channel is, where a layer's channels have several widths."""


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer.

    `head` is the head whose way it lies on, `bias` the biases after folding the norm; `macs` are for one image;
    `weight_bits` is the mean over channels; `size_bits` includes biases and scales.
    """

    name: str
    kind: str
    head: int
    params: int
    macs: int
    weight_bits: float
    act_bits: int
    bitops: int
    size_bits: int


@dataclass(frozen=True)
class PathCost:
    """What one image costs that leaves at a given head, all earlier exit heads included."""

    macs: int
    bitops: int


def cost_table(model: Model) -> tuple[LayerCost, ...]:
    """Count every convolution and linear layer, in the order they run; an unknown layer is an error, never 0."""
    net, positions, rows = model.net, {}, []
    _refuse_unknown(net)
    layers = {module: name for name, module in net.named_modules() if isinstance(module, Weighted)}

    def note(layer: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        positions[layer] = out[0, 0].numel()

    hooks = [layer.register_forward_hook(note) for layer in layers]
    training, shape = net.training, model.arch.input
    device = next(net.parameters()).device
    with torch.no_grad():
        net.eval()(torch.zeros(1, shape.channels, shape.size, shape.size, device=device))
    net.train(training)
    for hook in hooks:
        hook.remove()
    for layer, outputs in positions.items():
        rows.append(_row(net, layers[layer], layer, outputs))
    return tuple(rows)


def _row(net: Network, name: str, layer: Weighted, positions: int) -> LayerCost:
    channels, each = layer.weight.shape[0], layer.weight[0].numel()
    bits = layer.bits if len(layer.bits) > 1 else layer.bits * channels
    norm = 2 * channels if isinstance(layer, Conv) else channels
    size = each * sum(bits) + BIAS_BITS * channels
    if layer.quantized:
        size += SCALE_BITS * channels + (MIXED_BITS * channels if len(set(bits)) > 1 else 0)
    return LayerCost(
        name=name,
        kind="linear" if isinstance(layer, Linear) else "depthwise" if getattr(layer, "groups", 1) > 1 else "conv",
        head=_head_of(net, name),
        params=layer.weight.numel() + norm,
        macs=layer.weight.numel() * positions,
        weight_bits=sum(bits) / channels,
        act_bits=layer.reads,
        bitops=each * positions * sum(bits) * layer.reads,
        size_bits=size,
    )


def _head_of(net: Network, name: str) -> int:
    part, _, rest = name.partition(".")
    if part == "exits":
        return int(rest.partition(".")[0])
    if part == "blocks":
        block = list(net.blocks).index(rest.partition(".")[0])
        return next(i for i, cut in enumerate(net.cuts) if block < cut)
    return 0 if part == "stem" else len(net.cuts) - 1


def _refuse_unknown(net: nn.Module) -> None:
    for name, module in net.named_modules():
        if next(module.parameters(recurse=False), None) is not None and not isinstance(module, Weighted | Norm | Act):
            raise ModelError(f"layer {name!r} is a {type(module).__name__}, whose cost is not known")


def paths(model: Model) -> tuple[PathCost, ...]:
    """Give the cost of leaving at each head, the final one last."""
    macs, bitops = [0] * len(model.net.cuts), [0] * len(model.net.cuts)
    for row in cost_table(model):
        macs[row.head] += row.macs
        bitops[row.head] += row.bitops
    return tuple(PathCost(*both) for both in zip(accumulate(macs), accumulate(bitops), strict=True))


def size_bits(model: Model) -> int:
    """Count the folded network: weights at their bits, biases, scales, thresholds."""
    acts = sum(isinstance(module, Act) and module.bits != FLOAT for module in model.net.modules())
    rows = sum(row.size_bits for row in cost_table(model))
    return rows + SCALE_BITS * acts + THRESHOLD_BITS * len(model.net.exits)


def params(model: Model) -> int:
    """Count weights, biases and norms, as other tools do; scales of quantizers are not parameters of the network."""
    kinds = (Weighted, Norm)
    owners = [module for module in model.net.modules() if isinstance(module, kinds)]
    return sum(p.numel() for m in owners for name, p in m.named_parameters(recurse=False) if name != "scale")
