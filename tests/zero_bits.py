"""Networks some of whose channels have 0 bits, for tests of joint pruning and quantization."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from compressor.arch import Arch, Bits, Quantization, WeightBits, layer_axes
from compressor.layers import Linear, Weighted
from compressor.model import Model
from compressor.network import Network

RULE = Quantization(Bits(4, 32), 32)
"""Weights of 4 bits, activations and edges float: outputs of equal networks then differ by the rounding of sums."""


def counts(arch: Arch) -> dict[str, int]:
    """Give the output channels of every layer."""
    with torch.device("meta"):
        modules = Network(arch).named_modules()
    return {name: len(module.weight) for name, module in modules if isinstance(module, Weighted)}


def with_zeros(arch: Arch, zeros: Mapping[str, Collection[int]], rule: Quantization = RULE) -> Arch:
    """Give channels of the named layers 0 bits, and their others the rule's."""
    sizes, axes = counts(arch), layer_axes(arch)
    weights = tuple(
        WeightBits(name, axes[name], tuple(0 if i in gone else rule.bits.weight for i in range(sizes[name])))
        for name, gone in zeros.items()
    )
    return replace(arch, quantization=replace(rule, weights=weights))


def at_random(arch: Arch, share: float, seed: int, rule: Quantization = RULE) -> Arch:
    """Give each channel that may have them 0 bits with a probability, and others 1 to 8."""
    source = torch.Generator().manual_seed(seed)
    axes, weights = layer_axes(arch), []
    for name, size in counts(arch).items():
        if not name.endswith("score"):
            live = torch.rand(size, generator=source) >= share
            bits = live * torch.randint(1, 9, (size,), generator=source)
            weights.append(WeightBits(name, axes[name], tuple(bits.tolist())))
    return replace(arch, quantization=replace(rule, weights=tuple(weights)))


def zeros_of(net: nn.Module) -> dict[str, tuple[Weighted, Tensor]]:
    """Give the layers that have channels of 0 bits, by the module after which those are 0, with a mask of them."""
    found = {}
    for name, layer in net.named_modules():
        if isinstance(layer, Weighted) and 0 in layer.bits:
            owner, _, last = name.rpartition(".")
            each = layer.bits if len(layer.bits) > 1 else layer.bits * len(layer.weight)
            where = name if isinstance(layer, Linear) else f"{owner}.{last.replace('conv', 'norm')}"
            found[where] = (layer, torch.tensor(each) == 0)
    return found


def outputs(model: Model, images: Tensor, *, training: bool = False) -> list[Tensor]:
    """Give what a model answers at each head."""
    with torch.no_grad():
        return list(model.net.train(training)(images))
