"""Giving an expert another network's first stage: what read its own is made to read the new one as well as it can."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from compressor.arch import (
    FLOAT,
    ActBits,
    Arch,
    Bits,
    Quantization,
    WeightBits,
    layer_names,
    stream,
    tensor_names,
    without_stale_bits,
)
from compressor.calibration import images_of
from compressor.data.types import Data
from compressor.errors import ModelError
from compressor.layers import Weighted, axes_of
from compressor.mixture.types import FIRST, First
from compressor.model import Model, fresh
from compressor.network import Rule

IMAGES = 256
"""Training images on which the streams of two first stages are compared."""

RIDGE = 1e-4
"""Keeps the least squares of streams with dead channels solvable, as a share of the mean square."""


def sharing_arch(arch: Arch, source: Arch) -> Arch:
    """Give the arch with the input, the stem, the first stage and their bits of another."""
    out = replace(
        arch,
        input=source.input,
        stem=source.stem,
        activation=source.activation,
        stages=(source.stages[0], *arch.stages[1:]),
    )
    if arch.quantization is None and source.quantization is None:
        return out
    rule = arch.quantization or Quantization(Bits(FLOAT, FLOAT), FLOAT)
    weights = tuple(w for w in rule.weights if not _first(w.layer)) + tuple(_weights(source))
    acts = tuple(a for a in rule.acts if not _first(a.tensor)) + tuple(_acts(source))
    return without_stale_bits(replace(out, quantization=replace(rule, weights=weights, acts=acts)))


def _first(name: str) -> bool:
    return f"{name}.".startswith(FIRST)


def _weights(source: Arch) -> Iterator[WeightBits]:
    """Yield the bits of each shared layer, spelled out."""
    rule, axes = Rule(source), {w.layer: w.axis for w in (source.quantization.weights if source.quantization else ())}
    edge = "stem.conv" if source.stem else "blocks.s0b0.conv1"
    for layer in sorted(filter(_first, layer_names(source))):
        yield WeightBits(layer, axes.get(layer, ""), rule.weight(layer, edge=layer == edge))


def _acts(source: Arch) -> Iterator[ActBits]:
    rule = Rule(source)
    for tensor in sorted(filter(_first, tensor_names(source))):
        yield ActBits(tensor, rule.act(tensor, edge=tensor == "image"))


@torch.no_grad()
def sharing(model: Model, source: Model, data: Data, seed: int) -> Model:
    """Give a model with the first stage of another; what read its own stream reads the nearest to it in the new one.

    Convolutions get the least-squares map between the two streams folded in, on training images; what cannot hold a map
    (depthwise convolutions, option-A shortcuts) gets the most alike channel. Changed scales are 0: calibrate.

    Raises:
        ModelError: the two streams have other sizes.
    """
    if model is source:
        return model
    out = fresh(sharing_arch(model.arch, source.arch), seed=0)
    old, new = (_stream(each, data, seed) for each in (model, source))
    if old.shape[1] != new.shape[1]:
        raise ModelError(f"{model.arch.name!r} and {source.arch.name!r} have first stages of other strides")
    alike = _alike(old, new)
    state, theirs = model.net.state_dict(), source.net.state_dict()
    blocks = len(model.arch.stages[0].blocks), len(source.arch.stages[0].blocks)
    was, now = (stream(each.arch, 0, count - 1) for each, count in zip((model, source), blocks, strict=True))
    axes = axes_of(model.net)
    depthwise = any(names[:1] == (was,) for name, names in axes.items() if not name.startswith(FIRST))
    fold = _choose(alike) if depthwise else _least_squares(old, new)
    result = {name: tensor for name, tensor in theirs.items() if name.startswith(FIRST)}
    for name, tensor in state.items():
        if not name.startswith(FIRST):
            result[name] = _read(tensor, axes[name], was, fold, alike, exact=tensor.dtype == torch.uint8)
    out.net.load_state_dict(result)
    _forget_scales(out, now)
    out.net.eval()
    return out


def _stream(model: Model, data: Data, seed: int) -> Tensor:
    """Give the first stage's stream on training images, (channels, values) in float64."""
    model.net.eval()
    found = First(model.net)(images_of(data, IMAGES, seed))
    return found.double().transpose(0, 1).flatten(1)


def _least_squares(old: Tensor, new: Tensor) -> Tensor:
    """Give the map (old, new) that makes the new stream most like the old one."""
    square = new @ new.T
    square += RIDGE * (square.diagonal().mean() + 1e-12) * torch.eye(len(square), dtype=square.dtype)
    return torch.linalg.solve(square, new @ old.T).T


def _alike(old: Tensor, new: Tensor) -> Tensor:
    """Give the correlations (old, new) of channels; a channel that never changes is like none."""
    scaled = [(each - each.mean(dim=1, keepdim=True)) for each in (old, new)]
    scaled = [each / each.norm(dim=1, keepdim=True).clamp_min(1e-12) for each in scaled]
    return scaled[0] @ scaled[1].T


def _choose(alike: Tensor) -> Tensor:
    """Give the map (old, new) by which each new channel stands for the old one most like it."""
    chosen = torch.nn.functional.one_hot(alike.argmax(dim=0), len(alike)).T.double()
    return chosen / chosen.sum(dim=1, keepdim=True).clamp_min(1)


def _read(tensor: Tensor, names: tuple[str, ...], axis: str, fold: Tensor, alike: Tensor, *, exact: bool) -> Tensor:
    """Bring the dimensions of a tensor that have the old stream's axis to the new stream."""
    if exact and names[1:2] == (axis,):  # the map of an option-A shortcut
        chosen = torch.nn.functional.one_hot(alike.argmax(dim=1), alike.shape[1]).to(tensor.dtype)
        return tensor.long().mm(chosen.long()).to(tensor.dtype)
    if names[:1] == (axis,):
        tensor = tensor.index_select(0, alike.argmax(dim=0))
    if names[1:2] == (axis,):
        tensor = torch.einsum("oj...,jc->oc...", tensor.double(), fold).to(tensor.dtype)
    return tensor


def _forget_scales(model: Model, axis: str) -> None:
    for name, layer in model.net.named_modules():
        if isinstance(layer, Weighted) and layer.quantized and axis in layer.axes["weight"] and not _first(name):
            layer.scale.zero_()
