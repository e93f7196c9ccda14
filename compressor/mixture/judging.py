"""A router that learns the task itself, and then to say how sure of an image that makes it: sure ones are cheap ones.

A router cannot learn which images are hard from experts that answer all training images right. A small network's own
doubt about new images says it well (Hendrycks and Gimpel, A Baseline for Detecting Misclassified Examples, ICLR 2017).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.arch import Arch, Head, Task, TaskKind
from compressor.losses import Loss, Outputs
from compressor.mixture.types import Mixture, Rest
from compressor.network import Network

UNIT, MOST_SURE = 4.0, 2.0
"""A margin between scores is counted in units of 4 nats, up to 2: beyond, an image is as easy as any."""

JUDGE, SCORES = "judge", "router.head"
"""What is trained first, and what then."""


class Judge(nn.Module):
    """The router beside a copy that answers the task; `forward` gives the scores, and the answers last."""

    def __init__(self, mixture: Mixture, judge: Network) -> None:
        super().__init__()
        shared = mixture.net.first is not None
        assert mixture.net.router is not None, "what is sent by a judge has a router"
        self.first = mixture.net.first
        self.judge: nn.Module = Rest(judge) if shared else judge
        self.router = mixture.net.router

    def forward(self, images: Tensor) -> Outputs:
        """Map images (N, C, H, W) to the router's scores (N, experts) and the judge's answers (N, outputs)."""
        x = images if self.first is None else self.first(images)
        return self.router(x)[-1], self.judge(x)[-1]

    def hand_over(self) -> None:
        """Give the router all that the judge has learned but for its head."""
        learned = self.judge.state_dict()
        own = self.router.state_dict()
        self.router.load_state_dict({name: own[name] if name.startswith("head.") else learned[name] for name in own})


@dataclass
class Judging:
    """A judge as something that can be trained."""

    net: Judge


def judge_arch(router: Arch, task: Task) -> Arch:
    """Give the router's network with the task's outputs instead of its own and without its hidden layers."""
    return replace(router, task=task, head=Head())


def answering(loss: Loss) -> Loss:
    """Take a loss of the judge's answers alone."""
    return lambda outputs, images, targets: loss(outputs[-1:], images, targets)


def telling(mixture: Mixture) -> Loss:
    """Give the loss of scores that are to fall, expert by expert from the cheapest, by how sure the judge is."""
    steps = max(1, len(mixture.experts) - 1)
    ranks = torch.tensor([mixture.rule.order.index(expert) / steps for expert in range(len(mixture.experts))])

    def loss(outputs: Outputs, images: Tensor, targets: Tensor) -> Tensor:
        scores, answers = outputs
        wanted = -sureness(answers.detach(), mixture.task)[:, None] * ranks.to(answers.device)
        return F.mse_loss(scores.float(), wanted)

    return loss


def sureness(answers: Tensor, task: Task) -> Tensor:
    """Give how far (N,) the first class is before the second, or the least sure label from even, in units of 4 nats."""
    answers = answers.float()
    if task.kind is TaskKind.MULTILABEL:
        margin = answers.abs().amin(dim=1)
    else:
        best = answers.topk(2, dim=1).values
        margin = best[:, 0] - best[:, 1]
    return (margin / UNIT).clamp(max=MOST_SURE)
