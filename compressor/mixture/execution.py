"""A mixture at work: images are grouped by expert, and an expert that is not chosen is not run."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.data.types import Split
from compressor.mixture.rule import decide, mix
from compressor.mixture.types import Mixture
from compressor.routing import BATCH, chunks, route

NOT_RUN = -1
NO_TARGETS = np.empty(0)

__all__ = ["Answers", "Survey", "answer", "entered", "mix", "routed", "run", "survey"]


@dataclass(frozen=True)
class Answers:
    """What a mixture answered: outputs (N, outputs), each expert's weight (N, experts), 0 where it was not run.

    `heads` (N, experts) is the exit that the image left that expert at, -1 where it was not run. All on the CPU.
    """

    outputs: Tensor
    weights: Tensor
    heads: Tensor


@dataclass(frozen=True)
class Survey:
    """What the router and every expert say of a split, whoever would be chosen, on the CPU.

    `scores` (N, experts), `outputs` (experts, N, outputs), and the exits `heads` (N, experts) that images left at.
    """

    scores: Tensor
    outputs: Tensor
    heads: Tensor


@torch.no_grad()
def run(mixture: Mixture, images: Tensor) -> Answers:
    """Answer images, uint8 (N, C, H, W): route them, and run each chosen expert once, on its images alone."""
    x = entered(mixture, images)
    weights = routed(mixture, x)
    count, size = len(mixture.experts), mixture.task.outputs
    outputs = torch.zeros(count, len(images), size)
    heads = torch.full((len(images), count), NOT_RUN)
    for expert in range(count):
        rows = weights[:, expert].nonzero()[:, 0]
        if len(rows):
            there = rows.cpu()
            outputs[expert, there], heads[there, expert] = _ask(mixture, expert, x[rows])
    weights = weights.cpu()
    return Answers(mix(outputs, weights, mixture.task), weights, heads)


@torch.no_grad()
def entered(mixture: Mixture, images: Tensor) -> Tensor:
    """Give what router and experts read: images, uint8 (N, C, H, W), or the stream of the first stage they share."""
    net = mixture.net.eval()
    return net.enter(images.to(next(net.parameters()).device))


@torch.no_grad()
def routed(mixture: Mixture, x: Tensor) -> Tensor:
    """Give the weights (N, experts) for what `entered` gave, running no expert."""
    return decide(mixture.net.scores(x), mixture.rule)


def _ask(mixture: Mixture, expert: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give one expert's outputs and the heads that images left at, for what `enter` gave; on the CPU."""
    model = mixture.experts[expert]
    if len(model.net.exits):
        return route(model, Split(x.cpu().numpy(), NO_TARGETS), batch=max(1, len(x)))
    return mixture.net.experts[expert](x)[-1].float().cpu(), torch.zeros(len(x), dtype=torch.int64)


def answer(mixture: Mixture, split: Split, batch: int = BATCH) -> Answers:
    """Answer every image of a split, `batch` at a time."""
    parts = [run(mixture, images) for _, images in chunks(split, batch)]
    outputs, weights, heads = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("outputs", "weights", "heads")
    )
    return Answers(outputs, weights, heads)


@torch.no_grad()
def survey(mixture: Mixture, split: Split, batch: int = BATCH) -> Survey:
    """Run the router and every expert on every image of a split, once."""
    found: list[Survey] = []
    for _, images in chunks(split, batch):
        x = entered(mixture, images)
        asked = [_ask(mixture, expert, x) for expert in range(len(mixture.experts))]
        outputs, heads = zip(*asked, strict=True)
        found.append(Survey(mixture.net.scores(x).cpu(), torch.stack(outputs), torch.stack(heads, dim=1)))
    return Survey(
        torch.cat([part.scores for part in found]),
        torch.cat([part.outputs for part in found], dim=1),
        torch.cat([part.heads for part in found]),
    )
