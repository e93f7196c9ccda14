"""How much each channel of a named axis matters. Every function gives {axis: scores (size,)}."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from compressor.arch import dead, widths
from compressor.config import Importance
from compressor.data.types import Data
from compressor.layers import Norm, Weighted
from compressor.losses import task_loss
from compressor.model import Model
from compressor.training import batches

TAYLOR_BATCHES, TAYLOR_BATCH = 10, 64


def strongest(scores: Tensor, count: int) -> list[int]:
    """Give the rising indices of the `count` highest scores; of equal ones the first stay."""
    return sorted(torch.argsort(scores, descending=True, stable=True)[:count].tolist())


def importance(model: Model, data: Data, criterion: Importance, seed: int) -> dict[str, Tensor]:
    """Score every channel of every axis that pruning may shorten; one that is 0 wherever it is read scores 0."""
    scores = _scored(model, data, criterion, seed)
    for axis, gone in dead(model.arch).items():
        scores[axis][list(gone)] = 0
    return scores


def _scored(model: Model, data: Data, criterion: Importance, seed: int) -> dict[str, Tensor]:
    match criterion:
        case Importance.L1:
            return magnitude(model, power=1)
        case Importance.L2:
            return magnitude(model, power=2)
        case Importance.BN_SCALE:
            return bn_scale(model)
        case Importance.FPGM:
            return fpgm(model)
        case Importance.TAYLOR:
            return taylor(model, data, seed)
        case Importance.RANDOM:
            source = torch.Generator().manual_seed(seed)
            return {axis: torch.rand(size, generator=source) for axis, size in widths(model.arch).items()}


def _layers(model: Model) -> Iterator[tuple[str, int, Weighted]]:
    """Yield (axis, dimension, layer) for each dimension of each layer's weight that is a prunable axis."""
    sizes = widths(model.arch)
    for layer in model.net.modules():
        if isinstance(layer, Weighted):
            yield from ((axis, dim, layer) for dim, axis in enumerate(layer.axes["weight"]) if axis in sizes)


def _gathered(model: Model, score: Callable[[int, Weighted], Tensor | None]) -> dict[str, Tensor]:
    """Sum the scores of all weights that share an axis."""
    total = {axis: torch.zeros(size) for axis, size in widths(model.arch).items()}
    for axis, dim, layer in _layers(model):
        part = score(dim, layer)
        if part is not None:
            total[axis] += part
    return total


def _rows(dim: int, tensor: Tensor) -> Tensor:
    return tensor.detach().transpose(0, dim).flatten(1)


def _weight(layer: Weighted) -> Tensor:
    """Give a layer's weight, 0 where a channel has 0 bits."""
    weight = layer.weight.detach()
    return weight * (layer.levels > 0).view(-1, *[1] * (weight.ndim - 1)) if layer.quantized else weight


def magnitude(model: Model, power: int) -> dict[str, Tensor]:
    """Sum the mean |w|^power of a channel over every layer that writes or reads it (a group norm)."""
    return _gathered(model, lambda dim, layer: _rows(dim, _weight(layer)).abs().pow(power).mean(dim=1))


def bn_scale(model: Model) -> dict[str, Tensor]:
    """Sum the magnitudes of the norms' scales (Liu et al., Network Slimming, 2017); axes without a norm use l1."""
    total = {axis: torch.zeros(size) for axis, size in widths(model.arch).items()}
    for module in model.net.modules():
        if isinstance(module, Norm) and module.axes["weight"][0] in total:
            total[module.axes["weight"][0]] += module.factors()[0].detach().abs()
    l1 = magnitude(model, power=1)
    return {axis: scores if scores.any() else l1[axis] for axis, scores in total.items()}


def fpgm(model: Model) -> dict[str, Tensor]:
    """Sum each filter's distances to the others: one near the geometric median is replaceable (He et al. 2019)."""

    def distances(dim: int, layer: Weighted) -> Tensor | None:
        rows = _rows(0, _weight(layer))
        return torch.cdist(rows, rows).sum(dim=1) if dim == 0 else None

    return _gathered(model, distances)


def taylor(model: Model, data: Data, seed: int) -> dict[str, Tensor]:
    """Sum the squared first-order change of the loss when a channel's weights go to 0 (Molchanov et al. 2019)."""
    model.net.eval()
    model.net.zero_grad()
    loss = task_loss(data.task, 0.0)
    for i, (images, targets) in enumerate(batches(data.train, TAYLOR_BATCH, seed=seed, epoch=0)):
        if i == TAYLOR_BATCHES:
            break
        loss(model.net(images), images, targets).backward()

    def change(dim: int, layer: Weighted) -> Tensor | None:
        if layer.weight.grad is None:
            return None
        return _rows(dim, layer.weight * layer.weight.grad).sum(dim=1).square()

    scores = _gathered(model, change)
    model.net.zero_grad(set_to_none=True)
    return scores


def relative(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Divide each axis' scores by their mean, so that axes can compete."""
    return {axis: each / each.mean().clamp_min(float(np.finfo(np.float32).tiny)) for axis, each in scores.items()}
