"""How alike a compressed network answers to the uncompressed one, and how right it is, on the same images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.arch import Task
from compressor.losses import imitation
from compressor.quality import per_image

WORST = -1e6
"""The least likeness: of answers that are no numbers, such as those of a training that diverged."""


@dataclass(frozen=True)
class Score:
    """What is known of a candidate: its `likeness` decides, as it hardly ever ties; its `quality` is shown.

    The likeness, at most 0 but for rounding, is minus the mean Kullback-Leibler divergence of the uncompressed
    network's answers from the candidate's, over classes or labels, for regression minus their mean squared difference
    in the network's own, standardised unit. The quality is the mean accuracy (0..1) or minus the mean absolute error.
    """

    likeness: float
    quality: float


def score_of(out: Tensor, whole: Tensor, targets: Tensor, task: Task) -> Score:
    """Score answers (N, outputs) beside those of the uncompressed network, and the targets (N, ...).

    Answers that are no numbers are the worst, and as right as answers of 0 are.
    """
    divergence = imitation(out, whole, task, temperature=1.0).item()
    finite = math.isfinite(divergence)
    likeness, out = (max(WORST, -divergence), out) if finite else (WORST, torch.zeros_like(out))
    return Score(likeness, per_image(out, targets, task).double().mean().item())
