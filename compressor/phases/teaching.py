"""Learning from a teacher: what distillation does, and what other phases may recover with."""

import torch
from torch import Tensor, nn

from compressor.arch import Task
from compressor.compute import device_of
from compressor.config import RecoveryConfig
from compressor.losses import Loss, Outputs, imitation, over_heads, task_loss
from compressor.model import Model
from compressor.training import Context


def taught(teacher: Model, context: Context, *, temperature: float, weight: float, label_smoothing: float) -> Loss:
    """Give the loss weight x imitation of the teacher's final head + (1 - weight) x task loss, over every head.

    The teacher runs in eval mode and sees the same augmented images, normalised in its own way.
    """
    guide = teacher.net.eval().requires_grad_(requires_grad=False).to(device_of(context.runtime))
    hard = task_loss(context.data.task, label_smoothing)
    task: Task = context.data.task

    def loss(outputs: Outputs, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            target = guide(images)[-1]
        soft = over_heads(outputs, lambda out: imitation(out, target, task, temperature))
        return weight * soft + (1 - weight) * hard(outputs, images, targets)

    return loss


def recovery_loss(
    config: RecoveryConfig, context: Context, teacher: Model | None, label_smoothing: float
) -> Loss | None:
    """Give the loss a phase recovers with: None for the task's own, or the task's with a teacher's."""
    if teacher is None:
        return None
    return taught(
        teacher, context, temperature=config.temperature, weight=config.weight, label_smoothing=label_smoothing
    )


class AttentionHints:
    """Compare where teacher and student look, after each stage that both have.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017: the squared distance of the
    normalised maps of mean squared activation. Widths may differ; maps of other sizes are left out.
    """

    def __init__(self, student: Model, teacher: Model) -> None:
        self.maps: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
        for side, model in zip(self.maps, (student, teacher), strict=True):
            for s, stage in enumerate(model.arch.stages):
                model.net.blocks[f"s{s}b{len(stage.blocks) - 1}"].register_forward_hook(_keep(side, s))

    def __call__(self) -> Tensor:
        """Give the distance for the last batch that both networks saw."""
        ours, theirs = self.maps
        pairs = [(ours[s], theirs[s]) for s in ours if s in theirs and ours[s].shape == theirs[s].shape]
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).mean()


def _keep(side: dict[int, Tensor], s: int):
    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        attention = out.float().square().mean(dim=1).flatten(1)
        side[s] = torch.nn.functional.normalize(attention, dim=1)

    return hook
