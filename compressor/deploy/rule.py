"""Who answers, given the router's scores, and how several answers become one: `compressor.mixture.rule` in numpy."""

import numpy as np

from compressor.arch import Routing, Rule, Task, TaskKind
from compressor.deploy.probabilities import log_sigmoid, log_softmax, softmax


def decide(scores: np.ndarray, rule: Rule) -> np.ndarray:
    """Give each expert's weight (N, experts), float32, from scores; rows sum to 1, 0 means: does not answer."""
    scores = scores.astype(np.float32)
    priced = scores - np.array(rule.prices, np.float32)
    match rule.routing:
        case Routing.SOFT:
            return softmax(scores)
        case Routing.TOP1:
            return _only(priced.argmax(axis=1), scores.shape[1])
        case Routing.TOPK:
            top = np.argsort(-priced, axis=1, kind="stable")[:, : rule.k]
            weights = np.zeros_like(scores)
            np.put_along_axis(weights, top, softmax(np.take_along_axis(scores, top, axis=1)), axis=1)
            return weights
        case Routing.THRESHOLD | Routing.CASCADE:
            passed = np.logical_and.accumulate(short(scores, rule)[:, :-1], axis=1).sum(axis=1)
            return _only(np.array(rule.order)[passed], scores.shape[1])


def short(scores: np.ndarray, rule: Rule) -> np.ndarray:
    """Tell where, in the order of cost, the probability (N, experts) that one so far is right is below the threshold.

    A cascade's scores are how sure each expert is; those of experts that follow change nothing.
    """
    scores = scores.astype(np.float32)
    if rule.routing is Routing.CASCADE:
        reach = 1 - (1 - scores[:, list(rule.order)]).cumprod(axis=1)
    else:
        reach = softmax(scores)[:, list(rule.order)].cumsum(axis=1)
    return reach < np.float32(rule.threshold)


def _only(experts: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[experts]


def mix(outputs: np.ndarray, weights: np.ndarray, task: Task) -> np.ndarray:
    """Average the answers (experts, N, outputs) of the experts with the weights (N, experts), to (N, outputs).

    Averaged are probabilities, or for regression the numbers; what comes out are outputs as one network gives them,
    whose softmax or sigmoid is that average. One expert alone answers as it is.
    """
    mixed = outputs[weights.argmax(axis=1), np.arange(len(weights))]
    several = (weights > 0).sum(axis=1) > 1
    if several.any():
        mixed[several] = _averaged(outputs[:, several], weights[several].T[:, :, None], task)
    return mixed


def _averaged(outputs: np.ndarray, weights: np.ndarray, task: Task) -> np.ndarray:
    """Average outputs (experts, n, outputs) with weights (experts, n, 1); those of weight 0 are not read."""
    ran = weights > 0
    outputs = np.where(ran, outputs, np.float32(0))
    if task.kind is TaskKind.REGRESSION:
        return (outputs * weights).sum(axis=0)
    logs = np.log(weights, out=np.full_like(weights, -np.inf), where=ran)
    if task.kind is TaskKind.MULTILABEL:
        return _log_sum(logs + log_sigmoid(outputs)) - _log_sum(logs + log_sigmoid(-outputs))
    return _log_sum(logs + log_softmax(outputs))


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """Give the logarithm of the sum of exponentials over the first dimension, of which one is finite."""
    top = logs.max(axis=0)
    return top + np.log(np.exp(logs - top).sum(axis=0))
