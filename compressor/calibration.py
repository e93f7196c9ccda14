"""Setting what quantizers and norms know of the data: an explicit step on training images, never inside `forward`."""

import numpy as np
import torch
from torch import Tensor, nn

from compressor.compute import threads
from compressor.data.types import Data
from compressor.layers import Act, Norm, Weighted, float_activations
from compressor.measure import worst_macs
from compressor.model import Model
from compressor.quantization import best_act_scale, best_weight_scale
from compressor.training import Context, generator

SAMPLES = 100_000
"""Values of an activation that its range is chosen on."""

BATCH = 128
SOME = 32
"""Images that show whether a network answers at all."""


def images_of(data: Data, count: int, seed: int) -> Tensor:
    """Draw `count` training images, uint8 (count, C, H, W), or all there are."""
    order = torch.randperm(len(data.train), generator=generator(seed, 2))[:count].numpy()
    return torch.from_numpy(np.ascontiguousarray(data.train.images[np.sort(order)]))


def some_images(data: Data) -> Tensor:
    """Return the first training images, uint8 (at most 32, C, H, W)."""
    return torch.from_numpy(np.array(data.train.images[:SOME]))


@torch.no_grad()
def calibrate_weights(model: Model) -> None:
    """Give scales to every layer's weights that have none yet, by least squared error."""
    for layer in model.net.modules():
        if isinstance(layer, Weighted) and layer.quantized and not layer.scale.any():
            layer.scale.copy_(best_weight_scale(layer.weight, layer.levels))


@torch.no_grad()
def calibrate(model: Model, context: Context, *, images: int, seed: int) -> None:
    """Give a scale to every quantizer that has none yet, by least squared error on training images.

    Activations are seen as the float network computes them.
    """
    with threads(context.runtime, lambda: worst_macs(model)):
        calibrate_weights(model)
        for act, values in _sampled(model, context, images, seed):
            act.scale.fill_(best_act_scale(values, act.low, act.high))


def _sampled(model: Model, context: Context, images: int, seed: int) -> list[tuple[Act, Tensor]]:
    """Give each activation that has no scale yet with some of its values on training images."""
    model.net.eval()
    with float_activations(model.net) as acts:
        open_ = [act for _, act in acts if act.scale == 0]
        if not open_:
            return []
        samples: dict[Act, list[Tensor]] = {act: [] for act in open_}
        chosen = images_of(context.data, images, seed)
        each = max(1, SAMPLES // max(1, -(-len(chosen) // BATCH)))

        def sample(act: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
            assert isinstance(act, Act)
            flat = out.flatten()
            samples[act].append(flat[:: max(1, flat.numel() // each)].clone())

        hooks = [act.register_forward_hook(sample) for act in open_]
        for part in chosen.split(BATCH):
            model.net(part)
        for hook in hooks:
            hook.remove()
    return [(act, torch.cat(values)) for act, values in samples.items()]


@torch.no_grad()
def recalibrate_norms(model: Model, context: Context, *, images: int, seed: int) -> None:
    """Take the running statistics of every norm anew from training images, as their plain average over batches.

    Fewer than two images leave them as they are.
    """
    norms = [m for m in model.net.modules() if isinstance(m, Norm)]
    chosen = images_of(context.data, images, seed)
    if len(chosen) < 2 or not norms:
        return
    parts = list(chosen.split(BATCH))
    if len(parts[-1]) == 1:  # a norm needs two
        parts[-2:] = [torch.cat(parts[-2:])]
    momenta = [norm.momentum for norm in norms]
    with threads(context.runtime, lambda: worst_macs(model)):
        model.net.eval()  # dropout draws no random numbers
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for part in parts:
            model.net(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.net.eval()
