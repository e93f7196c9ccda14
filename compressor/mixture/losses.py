"""What trains a mixture: the likelihood of the answers, under the router's probabilities, of an image's experts.

Source: Jacobs, Jordan, Nowlan and Hinton, Adaptive Mixtures of Local Experts, Neural Computation 3, 1991: an expert
learns from an image by its share in answering it, so experts specialise. The balance is that of Fedus, Zoph and
Shazeer, Switch Transformers, 2021.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.arch import Task, TaskKind
from compressor.compute import device_of, lay_out
from compressor.config import FitConfig, RecoveryConfig
from compressor.losses import Loss, Outputs, standardised
from compressor.mixture.rule import chances
from compressor.mixture.types import Mixture, heads_of
from compressor.model import Model
from compressor.training import Context

Each = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From outputs (N, outputs), images and targets to each image's loss (N,)."""

LEAST = 1e-6
"""The least variance of regression answers."""


def each_task_loss(out: Tensor, targets: Tensor, task: Task, label_smoothing: float) -> Tensor:
    """Give each image's loss (N,), whose mean is the task's."""
    out = out.float()
    if task.kind is TaskKind.REGRESSION:
        return F.mse_loss(out, standardised(targets, task), reduction="none").mean(dim=1)
    if task.kind is TaskKind.MULTILABEL:
        smooth = targets * (1 - label_smoothing) + 0.5 * label_smoothing
        return F.binary_cross_entropy_with_logits(out, smooth, reduction="none").mean(dim=1)
    return F.cross_entropy(out, targets, label_smoothing=label_smoothing, reduction="none")


def each_imitation(out: Tensor, teacher: Tensor, task: Task, temperature: float) -> Tensor:
    """Give each image's distance (N,) from a teacher's outputs, whose mean is `losses.imitation`."""
    out, teacher = out.float(), teacher.float()
    if task.kind is TaskKind.REGRESSION:
        return F.mse_loss(out, teacher, reduction="none").mean(dim=1)
    if task.kind is TaskKind.MULTILABEL:
        soft = torch.sigmoid(teacher / temperature)
        cross, entropy = (
            F.binary_cross_entropy_with_logits(each / temperature, soft, reduction="none") for each in (out, teacher)
        )
        return (cross - entropy).mean(dim=1) * temperature**2
    student, target = F.log_softmax(out / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(student, target, reduction="none", log_target=True).sum(dim=1) * temperature**2


def each_loss(config: RecoveryConfig, context: Context, teacher: Model | None, fit: FitConfig) -> Each:
    """Give an expert's loss on each image: the task's, or the task's with a teacher's."""
    task = context.data.task
    if teacher is None:
        return lambda out, images, targets: each_task_loss(out, targets, task, fit.label_smoothing)
    guide = lay_out(teacher.net.eval().requires_grad_(requires_grad=False), fit, device_of(context.runtime))
    seen: list[tuple[Tensor, Tensor]] = []

    def asked(images: Tensor) -> Tensor:
        """Ask the teacher once a batch, however many experts learn from it."""
        if not seen or seen[0][0] is not images:
            with torch.no_grad():
                seen[:] = [(images, guide(images)[-1])]
        return seen[0][1]

    def loss(out: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        soft = each_imitation(out, asked(images), task, config.temperature)
        return config.weight * soft + (1 - config.weight) * each_task_loss(out, targets, task, fit.label_smoothing)

    return loss


def of_experts(mixture: Mixture, each: Each) -> Callable[[Outputs, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Give the scores and every expert's loss on each image, both (N, experts); half the early heads' mean is added."""

    def over(heads: Sequence[Tensor], images: Tensor, targets: Tensor) -> Tensor:
        *early, final = [each(out, images, targets) for out in heads]
        return final + 0.5 * torch.stack(early).mean(dim=0) if early else final

    def losses(outputs: Outputs, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        scores, heads = heads_of(mixture, outputs)
        return scores, torch.stack([over(outs, images, targets) for outs in heads], dim=1)

    return losses


def alone(mixture: Mixture, each: Each) -> Loss:
    """Train every expert on every image, whatever the router says."""
    losses = of_experts(mixture, each)
    return lambda outputs, images, targets: losses(outputs, images, targets)[1].mean()


def together(mixture: Mixture, each: Each, *, balance: float, cost: float, costs: Sequence[float]) -> Loss:
    """Train router and experts by the likelihood of the mixture, with its balance and its expected cost.

    `costs` are what an image costs that each expert answers, as shares of the dearest.
    """
    losses, shares = of_experts(mixture, each), torch.tensor(costs, dtype=torch.float32)

    def loss(outputs: Outputs, images: Tensor, targets: Tensor) -> Tensor:
        scores, found = losses(outputs, images, targets)
        log = chances(scores, mixture.rule)
        unit = _unit(found, mixture.task)
        likelihood = -unit * torch.logsumexp(log - found / unit, dim=1).mean()
        chance = log.exp().mean(dim=0)
        sent = F.one_hot(log.argmax(dim=1), log.shape[1]).float().mean(dim=0)
        even, spent = len(chance) * (sent * chance).sum(), (chance * shares.to(chance.device)).sum()
        return likelihood + balance * even + cost * spent

    return loss


def _unit(found: Tensor, task: Task) -> Tensor:
    """Give what a difference of losses is measured in: nats for classes, twice the answers' variance for numbers."""
    if task.kind is not TaskKind.REGRESSION:
        return torch.ones((), device=found.device)
    return 2 * found.detach().amin(dim=1).mean().clamp_min(LEAST)
