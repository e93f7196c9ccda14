"""A mixture at work: images are grouped by expert, and an expert that is not chosen is not run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.data.types import Split
from compressor.mixture.rule import certainties, decide, mix, reach
from compressor.mixture.types import Mixture
from compressor.model import refuse_unfit
from compressor.routing import BATCH, chunks, confidence, route

NOT_RUN = -1
NO_TARGETS = np.empty(0)

__all__ = ["Answers", "Survey", "answer", "entered", "mix", "routed", "run", "survey"]


@dataclass(frozen=True)
class Answers:
    """What a mixture answered: outputs (N, outputs), and each expert's weight in them (N, experts).

    `heads` (N, experts) is the exit that the image left that expert at, -1 where it was not run. All on the CPU.
    """

    outputs: Tensor
    weights: Tensor
    heads: Tensor


@dataclass(frozen=True)
class Survey:
    """What the router and every expert say of a split, whoever would be chosen, on the CPU.

    `scores` (N, experts), the router's or how sure the experts of a cascade are, `outputs` (experts, N, outputs), and
    the exits `heads` (N, experts) that images left at.
    """

    scores: Tensor
    outputs: Tensor
    heads: Tensor


@torch.no_grad()
def run(mixture: Mixture, images: Tensor) -> Answers:
    """Answer images, uint8 (N, C, H, W): route them, and run each chosen expert once, on its images alone.

    Raises:
        ModelError: the images are of another type, shape or range.
    """
    refuse_unfit(images, mixture.experts[0].arch.input.channels)
    x = entered(mixture, images)
    count, size = len(mixture.experts), mixture.task.outputs
    outputs = torch.zeros(count, len(images), size)
    heads = torch.full((len(images), count), NOT_RUN)

    def ask(expert: int, rows: Tensor) -> None:
        if len(rows):
            outputs[expert, rows], heads[rows, expert] = _ask(mixture, expert, x[rows.to(x.device)])

    if (weights := routed(mixture, x)) is None:
        weights = _risen(mixture, outputs, ask)
    else:
        weights = weights.cpu()
        for expert in range(count):
            ask(expert, weights[:, expert].nonzero()[:, 0])
    return Answers(mix(outputs, weights, mixture.task), weights, heads)


def _risen(mixture: Mixture, outputs: Tensor, ask: Callable[[int, Tensor], None]) -> Tensor:
    """Ask the experts of a cascade from the cheapest, each about the images that those before are not sure of.

    `outputs` (experts, N, outputs) is what `ask` fills. Gives the weights (N, experts).
    """
    rule, rows = mixture.rule, torch.arange(outputs.shape[1])
    scores = torch.zeros(outputs.shape[1], len(rule.order))
    for step, expert in enumerate(rule.order):
        ask(expert, rows)
        scores[rows, expert] = confidence(outputs[expert, rows], mixture.task)
        rows = rows[reach(scores[rows], rule)[:, step] < rule.threshold]
    return decide(scores, rule)


@torch.no_grad()
def entered(mixture: Mixture, images: Tensor) -> Tensor:
    """Give what router and experts read: images, uint8 (N, C, H, W), or the stream of the first stage they share."""
    net = mixture.net.eval()
    return net.enter(images.to(next(net.parameters()).device))


@torch.no_grad()
def routed(mixture: Mixture, x: Tensor) -> Tensor | None:
    """Give the weights (N, experts) for what `entered` gave, running no expert; None for a cascade."""
    scores = mixture.net.scores(x)
    return None if scores is None else decide(scores, mixture.rule)


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
        outputs, heads = map(torch.stack, zip(*asked, strict=True))
        scores = mixture.net.scores(x)
        scores = certainties(outputs, mixture.task) if scores is None else scores.cpu()
        found.append(Survey(scores, outputs, heads.T))
    return Survey(
        torch.cat([part.scores for part in found]),
        torch.cat([part.outputs for part in found], dim=1),
        torch.cat([part.heads for part in found]),
    )
