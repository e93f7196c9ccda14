"""Early exits at work: who leaves where, running only what each image needs, and thresholds chosen on val."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from compressor.arch import Criterion, Exits, Task, TaskKind
from compressor.data.types import Split
from compressor.model import Model
from compressor.network import Network

BATCH = 256
NOTCHES = 64
"""Candidate thresholds an exit."""

GAP = 2e-6
"""How far apart two scores must be for a threshold to stand between them; other batches move scores by about 1e-7."""


def certainty(outputs: list[Tensor], rule: Exits, task: Task) -> Tensor:
    """Tell how sure images (N,) are at the last of the heads passed so far; they leave at or above the threshold.

    confidence: the largest probability (multi-label: the least max(p, 1 - p)); entropy: 1 minus the normalised entropy;
    patience: how many heads in a row agree (Zhou et al. 2020); regression: minus the change since the head before.
    """
    out = outputs[-1]
    if task.kind is TaskKind.REGRESSION:
        if len(outputs) == 1:
            return torch.full((len(out),), -torch.inf)
        return -(out - outputs[-2]).abs().amax(dim=1)
    if rule.criterion is Criterion.PATIENCE:
        return _agreement(outputs, task)
    if rule.criterion is Criterion.CONFIDENCE:
        return confidence(out, task)
    if task.kind is TaskKind.MULTILABEL:
        p = torch.sigmoid(out)
        return 1 - _entropy(torch.stack([p, 1 - p])).mean(dim=1)
    return 1 - _entropy(torch.softmax(out, dim=1).T)


def confidence(out: Tensor, task: Task) -> Tensor:
    """Give the largest probability (N,) of outputs (N, outputs); of several labels, the least max(p, 1 - p)."""
    if task.kind is TaskKind.MULTILABEL:
        p = torch.sigmoid(out)
        return torch.maximum(p, 1 - p).amin(dim=1)
    return torch.softmax(out, dim=1).amax(dim=1)


def _entropy(p: Tensor) -> Tensor:
    """Give the entropy over the first dimension, 1 for a uniform distribution."""
    return torch.special.entr(p).sum(dim=0) / np.log(max(2, len(p)))


def _agreement(outputs: list[Tensor], task: Task) -> Tensor:
    multilabel = task.kind is TaskKind.MULTILABEL
    answers = [out > 0 if multilabel else out.argmax(dim=1, keepdim=True) for out in outputs]
    count = torch.ones(len(outputs[-1]))
    same = torch.ones(len(outputs[-1]), dtype=torch.bool)
    for answer in reversed(answers[:-1]):
        same = same & (answer == answers[-1]).all(dim=1)
        count += same
    return count


@dataclass
class _Waiting:
    """Images on their way to a head: their numbers, their streams, and the outputs of the heads they passed."""

    index: list[Tensor] = field(default_factory=list)
    stream: list[Tensor] = field(default_factory=list)
    passed: list[list[Tensor]] = field(default_factory=list)

    def add(self, index: Tensor, stream: Tensor, passed: list[Tensor]) -> None:
        self.index.append(index)
        self.stream.append(stream)
        self.passed.append(passed)

    def count(self) -> int:
        return sum(map(len, self.index))

    def take(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        passed = [torch.cat(outs) for outs in zip(*self.passed, strict=True)]
        taken = torch.cat(self.index), torch.cat(self.stream), passed
        self.index, self.stream, self.passed = [], [], []
        return taken


@torch.no_grad()
def route(model: Model, split: Split, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """Answer every image, running only the segments that it needs.

    Images that stay at an exit wait until a batch of them is full. Gives outputs (N, outputs) and the head that each
    image left at (N,), on the CPU.
    """
    net, count = model.net.eval(), len(model.net.cuts)
    outputs = torch.empty(len(split), model.arch.task.outputs)
    taken = torch.empty(len(split), dtype=torch.int64)
    waiting = [_Waiting() for _ in range(count)]
    device = next(net.parameters()).device

    def advance(head: int) -> None:
        index, stream, passed = waiting[head].take()
        stream, out = net.segment(head, stream.to(device))
        passed = [*passed, out.float().cpu()]
        leaves = _leaves(model, net, head, passed)
        outputs[index[leaves]], taken[index[leaves]] = passed[-1][leaves], head
        stays = ~leaves
        if stays.any():
            rest = [out[stays] for out in passed]
            waiting[head + 1].add(index[stays], stream[stays.to(device)], rest)

    for index, images in chunks(split, batch):
        waiting[0].add(index, images, [])
        for head in range(count):
            if waiting[head].count() >= (batch if head else 1):
                advance(head)
    for head in range(count):
        if waiting[head].count():
            advance(head)
    return outputs, taken


def _leaves(model: Model, net: Network, head: int, passed: list[Tensor]) -> Tensor:
    rule = model.arch.exits
    if rule is None or head == len(net.exits):
        return torch.ones(len(passed[-1]), dtype=torch.bool)
    return certainty(passed, rule, model.arch.task) >= net.thresholds[head].cpu()


def chunks(split: Split, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the numbers of a split's images and the images themselves, uint8 (batch, C, H, W), in their order."""
    for first in range(0, len(split), batch):
        images = torch.from_numpy(np.array(split.images[first : first + batch]))
        yield torch.arange(first, first + len(images)), images


@torch.no_grad()
def all_outputs(model: Model, split: Split, batch: int = BATCH) -> tuple[Tensor, ...]:
    """Give every head's outputs (N, outputs) on all images, on the CPU."""
    net = model.net.eval()
    device = next(net.parameters()).device
    parts = [[out.float().cpu() for out in net(images.to(device))] for _, images in chunks(split, batch)]
    return tuple(torch.cat(outs) for outs in zip(*parts, strict=True))


def first_exit(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Give the head (N,) that each image leaves at; `scores` is (N, exits), the final head is number `exits`."""
    leaves = np.concatenate([scores >= thresholds, np.ones((len(scores), 1), bool)], axis=1)
    return leaves.argmax(axis=1)


def candidates(scores: np.ndarray) -> np.ndarray:
    """Give thresholds to try at an exit, (NOTCHES + 1,), falling from infinity; `scores` is (N,).

    Each lies between two scores that are at least GAP apart, so that no route hangs on a score's last bits.
    """
    values = np.sort(scores[np.isfinite(scores)])[::-1]
    if not len(values):
        return np.full(NOTCHES + 1, np.inf)
    below = np.append(values[1:], values[-1] - 2 * GAP)
    between = ((values + below) / 2)[values - below >= GAP]
    chosen = between[np.unique(np.linspace(0, len(between) - 1, NOTCHES).round().astype(int))]
    return np.concatenate([[np.inf], chosen, np.full(NOTCHES - len(chosen), chosen[-1])])


def choose_thresholds(scores: np.ndarray, quality: np.ndarray, cost: np.ndarray, floor: float) -> np.ndarray:
    """Lower thresholds notch by notch, the best saving for the least loss first, while mean quality is above `floor`.

    Args:
        scores: certainty at each exit, (N, exits).
        quality: each image's quality at every head, (N, exits + 1).
        cost: the cost of leaving at each head, (exits + 1,).
        floor: the least mean quality allowed.

    Returns:
        A threshold an exit, (exits,); infinity where nobody may leave.
    """
    exits, rows = scores.shape[1], np.arange(len(scores))
    grid = np.stack([candidates(column) for column in scores.T], axis=1)
    notch = np.zeros(exits, dtype=int)

    def outcome(candidate: np.ndarray) -> tuple[float, float]:
        head = first_exit(scores, grid[candidate, np.arange(exits)])
        return float(cost[head].mean()), float(quality[rows, head].mean())

    now_cost, now_quality = outcome(notch)
    while True:
        best: tuple[float, np.ndarray, float, float] | None = None
        for exit_ in range(exits):
            for step in (1, 4, 16):
                candidate = notch.copy()
                candidate[exit_] = min(NOTCHES, notch[exit_] + step)
                new_cost, new_quality = outcome(candidate)
                if new_cost >= now_cost or new_quality < floor:
                    continue
                gain = (now_cost - new_cost) / max(now_quality - new_quality, 1e-6)
                if best is None or gain > best[0]:
                    best = (gain, candidate, new_cost, new_quality)
        if best is None:
            return grid[notch, np.arange(exits)]
        _, notch, now_cost, now_quality = best
