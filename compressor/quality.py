"""How right answers are: scores with 95 % intervals."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compressor.arch import Task, TaskKind
from compressor.losses import task_loss
from compressor.records import Quality, Value

Z = 1.959964
"""The normal distribution's 97.5 % point."""

RESAMPLES = 200
MEDMNIST = {
    TaskKind.MULTICLASS: "multi-class",
    TaskKind.BINARY: "binary-class",
    TaskKind.ORDINAL: "ordinal-regression",
    TaskKind.MULTILABEL: "multi-label, binary-class",
}


def wilson(hits: int, n: int) -> Value:
    """Give a proportion with Wilson's interval."""
    share = hits / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * ((share * (1 - share) / n + Z * Z / (4 * n * n)) ** 0.5)
    return Value(share, max(0.0, centre - half), min(1.0, centre + half))


def mean(values: np.ndarray) -> Value:
    """Give a mean with its normal interval; `values` is (N,)."""
    middle = float(values.mean())
    half = Z * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Value(middle, middle - half, middle + half)


def resampled(score: Callable[[np.ndarray], float], n: int) -> Value:
    """Give a score of images 0..n-1 with its percentile bootstrap interval; resamples without a score are left out."""
    source = np.random.default_rng(0)
    draws = [score(source.integers(0, n, n)) for _ in range(RESAMPLES)]
    finite = [draw for draw in draws if np.isfinite(draw)]
    value = score(np.arange(n))
    low, high = np.quantile(finite, [0.025, 0.975]) if finite else (value, value)
    return Value(value, min(float(low), value), max(float(high), value))


def in_units(out: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return a regression network's outputs (N, outputs) in the targets' unit and in their precision."""
    kept = torch.float64 if targets.dtype == torch.float64 else torch.float32
    return out.to(kept) * torch.tensor(task.scale, dtype=kept) + torch.tensor(task.mean, dtype=kept)


def per_image(out: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Give each image's quality (N,): 1 or 0, the share of right labels, or minus the mean absolute error."""
    if task.kind is TaskKind.REGRESSION:
        return -(in_units(out, targets, task) - targets).abs().mean(dim=1)
    if task.kind is TaskKind.MULTILABEL:
        return ((out > 0) == (targets > 0.5)).float().mean(dim=1)
    return (out.argmax(dim=1) == targets).float()


def quality(out: Tensor, targets: Tensor, task: Task, *, medmnist: bool) -> Quality:
    """Score outputs (N, outputs): accuracy, top-5 above 10 classes, AUC for MedMNIST; for regression MAE, RMSE, R2."""
    n = len(out)
    loss = task_loss(task, 0.0)((out,), out, targets).item()
    right = per_image(out, targets, task)
    if task.kind is TaskKind.REGRESSION:
        return Quality(n, loss, _defined(_regression(in_units(out, targets, task).numpy(), targets.numpy())))
    if task.kind is TaskKind.MULTILABEL:
        scores = {"accuracy": mean(right.double().numpy())}
    else:
        scores = {"accuracy": wilson(int(right.sum().item()), n)}
        if task.outputs > 10:
            hits = (out.topk(5, dim=1).indices == targets[:, None]).any(dim=1)
            scores["top5"] = wilson(int(hits.sum().item()), n)
    if medmnist:
        scores["auc"] = _auc(out, targets, task)
    return Quality(n, loss, _defined(scores))


def _defined(scores: dict[str, Value]) -> dict[str, Value]:
    """Leave out what few images may not have: AUC without one of the classes, R2 of targets that are all equal."""
    return {name: score for name, score in scores.items() if name not in ("auc", "r2") or np.isfinite(score.value)}


def _regression(answers: np.ndarray, targets: np.ndarray) -> dict[str, Value]:
    error = answers - targets

    def rmse(index: np.ndarray) -> float:
        return float(np.sqrt(np.square(error[index]).mean()))

    def r2(index: np.ndarray) -> float:
        spread = np.square(targets[index] - targets[index].mean(axis=0)).sum()
        return float(1 - np.square(error[index]).sum() / spread) if spread > 0 else float("nan")

    return {
        "mae": mean(np.abs(error).mean(axis=1)),
        "rmse": resampled(rmse, len(error)),
        "r2": resampled(r2, len(error)),
    }


def _auc(out: Tensor, targets: Tensor, task: Task) -> Value:
    """Give the mean AUC over classes with DeLong's interval, on the logit scale so that it stays within 0 to 1."""
    from medmnist.evaluator import getAUC

    multilabel = task.kind is TaskKind.MULTILABEL
    scores = (torch.sigmoid(out) if multilabel else torch.softmax(out, dim=1)).numpy()
    truth = targets.numpy()
    asked = range(1, 2) if task.kind is TaskKind.BINARY else range(task.outputs)
    positive = [truth[:, k] > 0.5 if multilabel else truth == k for k in asked]
    if any(each.all() or not each.any() for each in positive):
        return Value(float("nan"), float("nan"), float("nan"))  # a class that is lacking has no AUC
    value = float(getAUC(truth, scores, MEDMNIST[task.kind]))
    pulls = np.mean([pull(scores[:, k], each) for k, each in zip(asked, positive, strict=True)], axis=0)
    spread = float(np.sqrt(np.square(pulls).sum()))
    if not 0 < value < 1:
        return Value(value, value, value)
    odds, half = np.log(value / (1 - value)), Z * spread / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-np.clip(odds + side, -700, 700)))) for side in (-half, half))
    return Value(value, low, high)


def pull(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Give how far each image pulls the AUC of one class, (N,); the sum of squares is DeLong's variance.

    Placements come from sorting (Sun and Xu, Fast Implementation of DeLong's Algorithm, 2014). Pulls of several
    classes add up, as each is the AUC's derivative to an image's weight.
    """

    def centred(own: np.ndarray, others: np.ndarray) -> np.ndarray:
        ranked, n = np.sort(others), len(own)
        below = (np.searchsorted(ranked, own, "left") + np.searchsorted(ranked, own, "right")) / (2 * len(ranked))
        return (below - below.mean()) / np.sqrt(n * max(1, n - 1))

    out = np.empty(len(scores))
    out[positive] = centred(scores[positive], scores[~positive])
    out[~positive] = -centred(scores[~positive], scores[positive])
    return out
