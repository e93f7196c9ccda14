"""Quality and cost of a model: one function for every phase, before and after."""

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from compressor import cost
from compressor.arch import TaskKind
from compressor.compute import device_of, threads
from compressor.config import RuntimeConfig
from compressor.data.types import Data, Split
from compressor.losses import task_loss
from compressor.model import Model, Trainable
from compressor.quality import per_image, quality
from compressor.records import Cost, Measurement, SplitMetrics
from compressor.routing import BATCH, all_outputs, certainty, choose_thresholds, route

QUICK = 1000
"""Images of val that the loss after each epoch is taken on."""


def worst_macs(model: Model) -> int:
    """Give the multiply-accumulates of one image through the whole network, exit heads included."""
    return cost.paths(model)[-1].macs


def measure(model: Model, data: Data, runtime: RuntimeConfig) -> Measurement:
    """Measure a model on val and test in fp32; `checkpoint_bytes` is 0 until the model is on disk."""
    path = cost.paths(model)
    with threads(runtime, lambda: path[-1].macs):
        model.net.to(device_of(runtime))
        val, test = (_split(model, data, split, path) for split in (data.val, data.test))
        model.net.to("cpu")
    total = Cost(cost.params(model), path[-1].macs, path[-1].bitops, cost.size_bits(model), checkpoint_bytes=0)
    return Measurement(val, test, total)


def _split(model: Model, data: Data, split: Split, path: tuple[cost.PathCost, ...]) -> SplitMetrics:
    targets, medmnist = torch.from_numpy(np.array(split.targets)), data.flag is not None
    heads = tuple(quality(out, targets, data.task, medmnist=medmnist) for out in all_outputs(model, split))
    if len(heads) == 1:
        return SplitMetrics(heads[0], heads, (1.0,), path[0].macs, path[0].bitops)
    outputs, taken = route(model, split)
    shares = (torch.bincount(taken, minlength=len(path)).double() / len(taken)).tolist()
    return SplitMetrics(
        quality=quality(outputs, targets, data.task, medmnist=medmnist),
        heads=heads,
        shares=tuple(shares),
        macs=sum(share * p.macs for share, p in zip(shares, path, strict=True)),
        bitops=sum(share * p.bitops for share, p in zip(shares, path, strict=True)),
    )


def settle(model: Model, data: Data, runtime: RuntimeConfig) -> None:
    """Choose the exits' thresholds on val, in place, against the model's own final head; nothing without exits.

    `exits.drop` is the loss of accuracy allowed, or for regression the allowed rise of MAE as a share of it.
    """
    rule = model.arch.exits
    if rule is None or not model.net.exits:
        return
    path = cost.paths(model)
    with threads(runtime, lambda: path[-1].macs):
        model.net.to(device_of(runtime))
        outputs = all_outputs(model, data.val)
        model.net.to("cpu")
    targets, task = torch.from_numpy(np.array(data.val.targets)), data.task
    each = torch.stack([per_image(out, targets, task) for out in outputs], dim=1).double().numpy()
    seen = [certainty(list(outputs[: i + 1]), rule, task) for i in range(len(outputs) - 1)]
    final = float(each[:, -1].mean())
    floor = final * (1 + rule.drop) if task.kind is TaskKind.REGRESSION else final - rule.drop
    costs = np.array([float(p.bitops) for p in path])
    chosen = choose_thresholds(torch.stack(seen, dim=1).double().numpy(), each, costs, floor - 1e-9)
    model.net.thresholds.copy_(torch.from_numpy(chosen))


@torch.no_grad()
def val_loss(model: Trainable, data: Data, state: dict[str, Tensor] | None = None) -> float:
    """Give the final head's loss on evenly spaced images of val, leaving the network in eval mode.

    `state` are the tensors to compute with, such as their running average; the network's own by default.
    """
    count, total = min(QUICK, len(data.val)), 0.0
    rows = np.arange(count) * len(data.val) // count
    device, loss = next(model.net.parameters()).device, task_loss(data.task, 0.0)
    model.net.eval()
    for first in range(0, count, BATCH):
        chosen = rows[first : first + BATCH]
        images = torch.from_numpy(np.array(data.val.images[chosen])).to(device)
        targets = torch.from_numpy(np.array(data.val.targets[chosen])).to(device)
        out: Tensor = functional_call(model.net, state or {}, (images,))[-1]
        total += loss((out,), images, targets).item() * len(images)
    return total / count
