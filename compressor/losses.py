"""What training minimises: the task's loss, and the imitation of a teacher."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.arch import Task, TaskKind

Outputs = tuple[Tensor, ...]
"""Every head's outputs, each (N, outputs), the final one last."""

Loss = Callable[[Outputs, Tensor, Tensor], Tensor]
"""From all heads' outputs, the images (N, C, H, W) as the network reads them, and the targets to a scalar."""


def over_heads(outputs: Outputs, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Add half the early heads' mean loss to the final head's loss."""
    final = loss(outputs[-1])
    if len(outputs) == 1:
        return final
    return final + 0.5 * torch.stack([loss(out) for out in outputs[:-1]]).mean()


def standardised(targets: Tensor, task: Task) -> Tensor:
    """Return regression targets in the network's own unit: (target - mean) / scale, float32 (N, outputs).

    Targets that float32 cannot tell apart are float64 until then.
    """
    kept = torch.float64 if targets.dtype == torch.float64 else torch.float32
    options = {"dtype": kept, "device": targets.device}
    return ((targets - torch.tensor(task.mean, **options)) / torch.tensor(task.scale, **options)).float()


def task_loss(task: Task, label_smoothing: float) -> Loss:
    """Give the loss against the targets: cross-entropy, binary cross-entropy per label, or squared error."""

    def one(out: Tensor, targets: Tensor) -> Tensor:
        if task.kind is TaskKind.REGRESSION:
            return F.mse_loss(out.float(), standardised(targets, task))
        if task.kind is TaskKind.MULTILABEL:
            smooth = targets * (1 - label_smoothing) + 0.5 * label_smoothing
            return F.binary_cross_entropy_with_logits(out.float(), smooth)
        return F.cross_entropy(out.float(), targets, label_smoothing=label_smoothing)

    return lambda outputs, images, targets: over_heads(outputs, lambda out: one(out, targets))


def imitation(out: Tensor, teacher: Tensor, task: Task, temperature: float) -> Tensor:
    """Compare with a teacher: MSE, or KL divergence times T^2 over classes or per label (Hinton et al. 2015)."""
    out, teacher = out.float(), teacher.float()
    if task.kind is TaskKind.REGRESSION:
        return F.mse_loss(out, teacher)
    if task.kind is TaskKind.MULTILABEL:
        soft = torch.sigmoid(teacher / temperature)
        cross = F.binary_cross_entropy_with_logits(out / temperature, soft)
        entropy = F.binary_cross_entropy_with_logits(teacher / temperature, soft)
        return (cross - entropy) * temperature**2
    student, target = F.log_softmax(out / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2
