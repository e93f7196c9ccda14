"""Torch-Pruning finds coupled channels by tracing; axis names must couple the same ones, in every tensor."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import samples
import torch
from torch import Tensor, nn

from compressor.arch import Arch, Bits, Exits, Quantization, widths
from compressor.config import ArchitectureConfig
from compressor.families import architecture
from compressor.layers import Act, Conv, Linear, Weighted, axes_of
from compressor.model import select

SIZES = {"resnet18": (16, 0.125), "vgg11": (32, 0.125), "mobilenet_v2": (16, 0.25)}
"""The side of the images and the factor of the channels that each network is tried with."""


class FlatLinear(nn.Linear):
    """A linear layer on maps of a few pixels."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        return super().forward(input.flatten(1))


class Rounded(nn.Module):
    """An activation on a grid, written in operations that tracing knows."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.step, self.low, self.high = act.scale.item(), act.low, act.high

    def forward(self, x: Tensor) -> Tensor:
        return (x * (1 / self.step)).round().clamp(self.low, self.high) * self.step


def plain(layer: nn.Module) -> nn.Module | None:
    """Give torch's own layer that computes what one of ours does; quantized weights are rounded for good."""
    if isinstance(layer, Conv):
        cout, cin, kernel, _ = layer.weight.shape
        out = nn.Conv2d(cin * layer.groups, cout, kernel, layer.stride, layer.padding, groups=layer.groups, bias=False)
    elif isinstance(layer, Linear):
        out = FlatLinear(layer.weight[0].numel(), layer.weight.shape[0])
        out.bias.data.copy_(layer.bias)
    elif isinstance(layer, Act) and hasattr(layer, "scale"):
        return Rounded(layer)
    else:
        return None
    out.weight.data.copy_(layer.rounded().view_as(out.weight))
    return out


def twin(net: nn.Module) -> nn.Module:
    """Copy a network with torch's own layers under the same names."""
    out = copy.deepcopy(net)
    for name, module in list(out.named_modules()):
        if (other := plain(module)) is not None:
            parent, _, last = name.rpartition(".")
            setattr(out.get_submodule(parent), last, other)
    return out.eval()


def tiny(name: str, *, quantized: bool) -> Arch:
    size, width = SIZES[name]
    config = ArchitectureConfig(name=name, width=width, stem="small", mean=None, std=None, network=None)
    arch = architecture(config, 3, size, (0.5,) * 3, (0.25,) * 3, samples.TASK)
    if quantized:
        return replace(arch, quantization=Quantization(Bits(4, 4), 8), exits=Exits((0.3, 0.6), width=5))
    return replace(arch, exits=Exits((0.3, 0.6), width=0))


def writer(net: nn.Module, axis: str) -> str:
    """Name a layer that writes an axis, and no depthwise one."""
    layers = {name: m for name, m in net.named_modules() if isinstance(m, Weighted)}
    axes = axes_of(net)
    return next(
        name for name, m in layers.items() if axes[f"{name}.weight"][0] == axis and getattr(m, "groups", 1) == 1
    )


@pytest.fixture
def oracle() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield import_module("torch_pruning")


def shapes(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Give the shapes of the tensors that both kinds of network have."""
    return {name: tuple(tensor.flatten(1).shape if name.endswith("score.weight") else tensor.shape)
            for name, tensor in state.items() if name in like}  # fmt: skip


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "quantized"])
@pytest.mark.parametrize("name", SIZES)
def test_every_axis_loses_the_channels_that_a_traced_graph_loses(name, quantized, oracle):
    model = samples.model(tiny(name, quantized=quantized))
    images = samples.images(2, model.arch)
    traced = twin(model.net)
    axes = {axis: writer(model.net, axis) for axis in widths(model.arch)}
    graph = oracle.DependencyGraph().build_dependency(traced, example_inputs=images / 255)
    layers, source = dict(traced.named_modules()), torch.Generator().manual_seed(0)
    for axis, root in axes.items():
        size = widths(model.arch)[axis]
        drop = sorted(torch.randperm(size, generator=source)[: max(1, size // 4)].tolist())
        cut: Callable[..., Any] = (
            oracle.prune_conv_out_channels if isinstance(layers[root], nn.Conv2d) else oracle.prune_linear_out_channels
        )
        graph.get_pruning_group(layers[root], cut, drop).prune()
        model = select(model, {axis: [c for c in range(size) if c not in drop]})
        ours, theirs = model.net.eval().state_dict(), traced.state_dict()
        assert shapes(ours, theirs) == shapes(theirs, ours), axis
        with torch.no_grad():
            for left, right in zip(model.net(images), traced(images), strict=True):
                assert right.std() > 0.01
                torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3, msg=lambda m, axis=axis: f"{axis}: {m}")
    assert len(axes) == len(widths(model.arch)) > 5
