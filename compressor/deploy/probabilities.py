"""Outputs as probabilities, with numpy alone and without overflow; arrays (..., outputs) of float32."""

import numpy as np

from compressor.arch import Task, TaskKind


def softmax(out: np.ndarray) -> np.ndarray:
    """Turn scores of classes into probabilities."""
    raised = np.exp(out - out.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def sigmoid(out: np.ndarray) -> np.ndarray:
    """Turn scores of labels into probabilities."""
    small = np.exp(-np.abs(out))
    return np.where(out >= 0, 1 / (1 + small), small / (1 + small))


def log_softmax(out: np.ndarray) -> np.ndarray:
    """Give the logarithms of `softmax`."""
    lowered = out - out.max(axis=-1, keepdims=True)
    return lowered - np.log(np.exp(lowered).sum(axis=-1, keepdims=True))


def log_sigmoid(out: np.ndarray) -> np.ndarray:
    """Give the logarithms of `sigmoid`."""
    return np.minimum(out, 0) - np.log1p(np.exp(-np.abs(out)))


def confidence(out: np.ndarray, task: Task) -> np.ndarray:
    """Give the largest probability (N,) of outputs (N, outputs); of several labels, the least max(p, 1 - p)."""
    if task.kind is TaskKind.MULTILABEL:
        p = sigmoid(out)
        return np.maximum(p, 1 - p).min(axis=1)
    return softmax(out).max(axis=1)
