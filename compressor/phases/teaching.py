"""Learning from a teacher: what distillation does, and what other phases may recover with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from torch import Tensor, nn

from compressor.arch import Task
from compressor.compute import device_of, lay_out
from compressor.config import FitConfig, RecoveryConfig
from compressor.errors import ConfigError
from compressor.losses import Loss, Outputs, imitation, over_heads, task_loss
from compressor.model import Model
from compressor.training import Context


def taught(
    teacher: Model, context: Context, *, temperature: float, weight: float, fit: FitConfig, memory: int = 0
) -> Loss:
    """Give the loss weight x imitation of the teacher's final head + (1 - weight) x task loss, over every head.

    The teacher runs in eval mode, laid out as what `fit` trains, and sees the same augmented images, normalised in its
    own way. Its answers to the first `memory` batches are remembered, for trainings that see the same ones again.
    """
    net = lay_out(teacher.net.eval().requires_grad_(requires_grad=False), fit, device_of(context.runtime))
    guide = remembering(lambda images: net(images)[-1], memory)
    hard = task_loss(context.data.task, fit.label_smoothing)
    task: Task = context.data.task

    def loss(outputs: Outputs, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            target = guide(images)
        soft = over_heads(outputs, lambda out: imitation(out, target, task, temperature))
        return weight * soft + (1 - weight) * hard(outputs, images, targets)

    return loss


def remembering(ask: Callable[[Tensor], Tensor], memory: int) -> Callable[[Tensor], Tensor]:
    """Ask once for each batch of images (N, C, H, W), known by its bytes, while no more than `memory` are remembered.

    An answer is given again as it is, so it must not be changed.
    """
    answers: dict[tuple[torch.Size, bytes], Tensor] = {}

    def answer(images: Tensor) -> Tensor:
        key = images.shape, blake2b(images.cpu().numpy().tobytes()).digest()
        if (known := answers.get(key)) is not None:
            return known
        found = ask(images)
        if len(answers) < memory:
            answers[key] = found
        return found

    return answer if memory else ask


def recovery_loss(
    config: RecoveryConfig, context: Context, teacher: Model | None, fit: FitConfig, memory: int = 0
) -> Loss | None:
    """Give the loss a phase recovers with: None for the task's own, or the task's with a teacher's; as `taught`."""
    if teacher is None:
        return None
    return taught(teacher, context, temperature=config.temperature, weight=config.weight, fit=fit, memory=memory)


@contextmanager
def attention_hints(student: Model, teacher: Model) -> Iterator[Callable[[], Tensor]]:
    """Compare where teacher and student look; give the distance for the last batch that both networks saw.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017: the squared distance of the
    normalised maps of mean squared activation. For each size of map above 1x1 that both have, the last stage's maps of
    that size are compared; widths and numbers of stages may differ.

    Raises:
        ConfigError: no size is common.
    """
    with _attention(student) as ours, _attention(teacher) as theirs:
        for model in (student, teacher):
            shape = model.arch.input
            with torch.no_grad():
                images = torch.zeros(1, shape.channels, shape.size, shape.size, dtype=torch.uint8)
                model.net.eval()(images.to(next(model.net.parameters()).device))
        common = [pixels for pixels in ours if pixels in theirs and pixels > 1]
        if not common:
            raise ConfigError(
                f"distill.hint: {student.arch.name!r} and its teacher {teacher.arch.name!r} have no maps of one size "
                f"above 1x1 to compare; give 0"
            )
        yield lambda: torch.stack([(ours[p] - theirs[p]).square().sum(dim=1).mean() for p in common]).mean()


@contextmanager
def _attention(model: Model) -> Iterator[dict[int, Tensor]]:
    """Keep the attention maps (N, pixels) of the last batch that a network sees, by their number of pixels."""
    maps: dict[int, Tensor] = {}

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        attention = out.float().square().mean(dim=1).flatten(1)
        maps[attention.shape[1]] = torch.nn.functional.normalize(attention, dim=1)

    ends = [f"s{s}b{len(stage.blocks) - 1}" for s, stage in enumerate(model.arch.stages)]
    hooks = [model.net.blocks[end].register_forward_hook(keep) for end in ends]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()
