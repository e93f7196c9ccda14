"""What can be decided about a network: its layers and axes as plain numbers, and what a policy means for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from compressor.arch import (
    FLOAT,
    ActBits,
    Arch,
    Bits,
    Quantization,
    WeightBits,
    edges,
    removable,
    tensor_names,
    widths,
)
from compressor.config.phases import Importance
from compressor.config.search import SearchConfig
from compressor.cost import LayerCost, cost_table, paths, size_bits
from compressor.data.types import Data
from compressor.errors import ConfigError
from compressor.layers import Act, Weighted
from compressor.model import Model
from compressor.network import BlockNet, Network, Unit
from compressor.phases.importance import importance, magnitude
from compressor.search.latency import Table
from compressor.search.types import Bill, Mode, Policy

EDGE = 8
"""Bits of the first and the last layer and of what they read; they are not decided."""

MOST, LEAST_ACT = 8, 2
"""The most bits that can be decided, and the fewest of an activation."""

MARK = 1000
"""Bits that no tensor has; from here on they number tensors."""

QUARTERS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer, in numbers.

    `writes` and `reads` are its axes ('' where that side is never pruned), `out` and `into` their full sizes; a channel
    has `area` weights for each channel that it reads, and `positions` results an image. `tensor` is the activation that
    it reads. The bits of an `edge` layer are not decided.
    """

    name: str
    kind: str
    writes: str
    reads: str
    out: int
    into: int
    kernel: int
    stride: int
    area: int
    positions: int
    tensor: str
    edge: bool


@dataclass(frozen=True, eq=False)
class Space:
    """Everything that a walk knows of a network and of the settings of the search. It equals itself only.

    `layers` are in running order; `axes` are the prunable ones with their sizes, `least` the channels that must stay;
    `deciders` are the layers without which a channel of an axis goes: all of 0 bits, nothing reads it as other than 0
    (no layers: it always stays); `tensors` are the activations whose bits are not the edge's, with their axes, and
    `rounded` counts all; `curves` are the shares of an axis' summed magnitude that its first quarter, half and three
    quarters have; `table` has the layers' timings where latency is limited.
    """

    layers: tuple[Layer, ...]
    axes: Mapping[str, int]
    least: Mapping[str, int]
    deciders: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, str]
    curves: Mapping[str, tuple[float, ...]]
    rounded: int
    mode: Mode
    bits: int
    act_bits: int
    search_acts: bool
    groups: int
    baseline: Bill
    table: Table | None = None

    @property
    def top(self) -> int:
        """Give the most bits that a group of channels may have."""
        return self.bits if self.mode is Mode.FIXED else MOST


def space_of(model: Model, config: SearchConfig) -> Space:
    """Describe what can be decided about a model.

    Raises:
        ConfigError: the model has early exits, which come after the search, or is quantized already.
    """
    if model.arch.exits:
        raise ConfigError(f"search: network {model.arch.name!r} has early exits; search first and add them after it")
    if model.arch.quantization:
        raise ConfigError(f"search: network {model.arch.name!r} is quantized already; give one that is not")
    arch = model.arch
    axes, (layers, tensors, rounded) = widths(arch), _described(model)
    scores = magnitude(model, power=1)
    return Space(
        layers=layers,
        axes=axes,
        least={axis: max(1, -int(-config.min_keep * size // 1)) for axis, size in axes.items()},
        deciders={axis: _deciders(arch, axis, layers) for axis in axes},
        tensors=tensors,
        curves={axis: _curve(scores[axis]) for axis in axes},
        rounded=rounded,
        mode=config.mode,
        bits=config.bits,
        act_bits=config.act_bits,
        search_acts=config.search_acts,
        groups=config.groups,
        baseline=Bill(size_bits(model), paths(model)[-1].bitops, paths(model)[-1].macs, None),
    )


def _described(model: Model) -> tuple[tuple[Layer, ...], dict[str, str], int]:
    """Give the layers, the decided tensors with their axes, and the number of all rounded tensors.

    Each tensor gets bits of its own, so that what reads it can be found by the bits that it reads.
    """
    arch = model.arch
    names = sorted(tensor_names(arch))
    marks = tuple(ActBits(name, MARK + i) for i, name in enumerate(names))
    with torch.device("meta"):
        marked = Network(replace(arch, quantization=Quantization(Bits(FLOAT, FLOAT), FLOAT, acts=marks)))
    ends = edges(arch)
    layers = tuple(
        _layer(row, module, names[module.reads - MARK], edge=row.name in ends)
        for row in cost_table(model)
        if isinstance(module := marked.get_submodule(row.name), Weighted)
    )
    acts = [name for name, module in marked.named_modules() if isinstance(module, Act)]
    written = {layer.tensor: layer.reads for layer in layers}
    for name, module in marked.named_modules():
        if isinstance(module, BlockNet | Unit):
            written[f"{name}.act"] = module.out.axis.name
    return layers, {name: written[name] for name in acts if name not in ends}, len(acts)


def _layer(row: LayerCost, module: Weighted, tensor: str, *, edge: bool) -> Layer:
    writes, reads = module.axes["weight"]
    shape, depthwise = module.weight.shape, row.kind == "depthwise"
    return Layer(
        name=row.name,
        kind=row.kind,
        writes=writes,
        reads=writes if depthwise else reads,
        out=shape[0],
        into=shape[0] if depthwise else shape[1],
        kernel=shape[2] if len(shape) == 4 else 1,
        stride=getattr(module, "stride", 1),
        area=module.weight[0, 0].numel(),
        positions=row.macs // module.weight.numel(),
        tensor=tensor,
        edge=edge,
    )


def _deciders(arch: Arch, axis: str, layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Give the layers each of which alone keeps an axis' channels alive; none where they live without any."""
    names = [layer.name for layer in layers if layer.writes == axis]

    def lives(but: str) -> bool:
        zeros = tuple(WeightBits(name, axis, (0,)) for name in names if name != but)
        rule = Quantization(Bits(MOST, MOST), MOST, zeros)
        return axis not in removable(replace(arch, quantization=rule))

    return () if lives("") else tuple(name for name in names if lives(name))


def _curve(scores: torch.Tensor) -> tuple[float, ...]:
    falling = scores.double().sort(descending=True).values.cumsum(0)
    return tuple(float(falling[max(0, round(q * len(scores)) - 1)] / falling[-1].clamp_min(1e-30)) for q in QUARTERS)


def ranking_of(model: Model, data: Data, criterion: Importance, seed: int) -> dict[str, tuple[int, ...]]:
    """Give the channels of each prunable axis, the most important first; of equal ones the first is first."""
    scores = importance(model, data, criterion, seed)
    return {axis: tuple(torch.argsort(each, descending=True, stable=True).tolist()) for axis, each in scores.items()}


@lru_cache(maxsize=65536)
def split(count: int, groups: int) -> tuple[int, ...]:
    """Give the sizes of `groups` groups of `count` channels, as even as can be; fewer channels make fewer groups."""
    groups = min(count, groups)
    return tuple(count // groups + (i < count % groups) for i in range(groups))


def realise(
    policy: Policy, space: Space, ranking: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], Quantization]:
    """Give the kept channels of each axis, rising, and the bits of every layer and activation."""
    kept = {axis: tuple(sorted(ranking[axis][: policy.keep[axis]])) for axis in space.axes}
    weights = []
    for layer in space.layers:
        if layer.edge:
            continue
        sizes = split(policy.keep[layer.writes], space.groups)
        ranked = [bits for bits, size in zip(policy.bits[layer.name], sizes, strict=True) for _ in range(size)]
        of = dict(zip(ranking[layer.writes], ranked, strict=False))
        each = tuple(of[channel] for channel in kept[layer.writes])
        weights.append(WeightBits(layer.name, layer.writes, each if len(set(each)) > 1 else each[:1]))
    acts = tuple(ActBits(name, bits) for name, bits in policy.acts.items() if bits != space.act_bits)
    usual = space.bits if space.mode is Mode.FIXED else MOST
    return kept, Quantization(Bits(usual, space.act_bits), EDGE, tuple(weights), acts)
