"""Small networks whose every tensor matters, calibrated on the digits, and what their stages answer."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import samples
import torch

from compressor.arch import Arch, Bits, BlockKind, Exits, Quantization, WeightBits
from compressor.calibration import calibrate, recalibrate_norms
from compressor.config import ArchitectureConfig
from compressor.deploy.graph import Graph, run_reference, stages_of
from compressor.families import architecture
from compressor.layers import Act, Norm
from compressor.model import Model, fresh
from compressor.training import Context

Stage = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

BITS = (Bits(1, 2), Bits(2, 3), Bits(4, 4), Bits(8, 8), Bits(3, 32), Bits(32, 5))
SAME = 1e-4
"""Outputs of other arithmetic differ by less, unless a value lay on the edge between two numbers of its grid."""


def model(arch: Arch, context: Context) -> Model:
    """Give a model that is calibrated as a trained one is; some norms turn signs, one channel of each is constant."""
    made = samples.lively(fresh(arch, 0))
    for module in made.net.modules():
        if isinstance(module, Norm):
            module.weight.data[::3] *= -1
            module.weight.data[1] = 0
        if isinstance(module, Act) and hasattr(module, "scale"):
            module.scale.data.zero_()
    recalibrate_norms(made, context, images=120, seed=0)
    calibrate(made, context, images=120, seed=0)
    return spread(made)


def spread(net: Model) -> Model:
    """Move the steps of activations a little, so that none is a simple fraction of another and no value on an edge."""
    source = torch.Generator().manual_seed(0)
    for module in net.net.modules():
        if isinstance(module, Act) and hasattr(module, "scale"):
            module.scale.data *= torch.empty(()).uniform_(0.9, 1.1, generator=source)
    return net


def quantized(kind: BlockKind, bits: Bits, **changes) -> Arch:
    """Give a tiny arch with bits and two exits."""
    return replace(samples.compressed(kind, bits=bits), **changes)


def mixed(kind: BlockKind = BlockKind.BASIC) -> Arch:
    """Give a tiny arch where the channels of two layers have 1 to 8 bits each, one activation 6."""
    first, second = ("blocks.s0b0.conv1", "s0b0.0"), ("blocks.s1b1.conv1", "s1b1.0")
    weights = (WeightBits(*first, (1, 8, 2, 3, 5, 4)), WeightBits(*second, (2, 1, 2, 1, 2, 2, 1, 1)))
    return replace(quantized(kind, Bits(4, 4)), quantization=Quantization(Bits(4, 4), 8, weights))


def named(name: str, size: int = 32, bits: Bits | None = None, channels: int = 1) -> Arch:
    """Give a named network, an eighth as wide."""
    config = ArchitectureConfig(name=name, width=0.125, stem="auto", mean=None, std=None, network=None)
    arch = architecture(config, channels, size, (0.3,) * channels, (0.4,) * channels, samples.TASK)
    return replace(arch, quantization=Quantization(bits, 8) if bits else None)


def exits(arch: Arch) -> Arch:
    """Give an arch with two exits."""
    return replace(arch, exits=Exits((0.3, 0.6), width=4))


def answers(net: Model, images: np.ndarray) -> list[np.ndarray]:
    """Give what torch answers at each head."""
    with torch.no_grad():
        return [out.numpy() for out in net.net.eval()(torch.from_numpy(images))]


def reference(graph: Graph) -> Stage:
    """Give the stage that numpy runs."""
    return lambda inputs: run_reference(graph, inputs)


def through(net: Model, images: np.ndarray, stage: Callable[[Graph], Stage]) -> list[np.ndarray]:
    """Answer with every stage, each reading the features that the one before gave."""
    held, outputs = {"images": images}, []
    for graph in stages_of(net):
        gives = stage(graph)(held)
        outputs.append(gives["output"])
        held = {"features": gives.get("features", np.empty(0))}
    return outputs


def agreement(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Give the share of images whose outputs are the same at every head."""
    same = [np.abs(a - b).max(axis=1) <= SAME * (1 + np.abs(b).max()) for a, b in zip(ours, theirs, strict=True)]
    return float(np.all(same, axis=0).mean())
