"""Who answers, given the router's scores, and how several answers become one: pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.arch import Routing, Rule, Task, TaskKind
from compressor.routing import confidence

LEAST = 1e-6
"""The least probability that an expert of a cascade answers, or that a later one does."""


def decide(scores: Tensor, rule: Rule) -> Tensor:
    """Give each expert's weight (N, experts) from scores; rows sum to 1, 0 means: does not answer."""
    count = scores.shape[1]
    scores = scores.float()
    priced = scores - torch.tensor(rule.prices, dtype=torch.float32, device=scores.device)
    match rule.routing:
        case Routing.SOFT:
            return torch.softmax(scores, dim=1)
        case Routing.TOP1:
            return F.one_hot(priced.argmax(dim=1), count).float()
        case Routing.TOPK:
            top = priced.topk(rule.k, dim=1).indices
            return torch.zeros_like(scores).scatter(1, top, torch.softmax(scores.gather(1, top), dim=1))
        case Routing.THRESHOLD | Routing.CASCADE:
            order = torch.tensor(rule.order, device=scores.device)
            short = reach(scores, rule) < rule.threshold
            passed = short[:, :-1].long().cumprod(dim=1).sum(dim=1)
            return F.one_hot(order[passed], count).float()


def reach(scores: Tensor, rule: Rule) -> Tensor:
    """Give, in the order of cost, the probability (N, experts) that an expert or a cheaper one is right.

    A cascade's scores are how sure each expert is; those of experts that follow change nothing.
    """
    if rule.routing is Routing.CASCADE:
        return 1 - (1 - scores.float()[:, list(rule.order)]).cumprod(dim=1)
    return torch.softmax(scores.float(), dim=1)[:, list(rule.order)].cumsum(dim=1)


def chances(scores: Tensor, rule: Rule) -> Tensor:
    """Give the logarithm of the probability (N, experts) that each expert is to answer.

    In a cascade an expert answers as likely as it is sure, unless a cheaper one did, and the last one all the rest.
    """
    if rule.routing is not Routing.CASCADE:
        return F.log_softmax(scores.float(), dim=1)
    sure = scores.float()[:, list(rule.order)].clamp(LEAST, 1 - LEAST)
    logs, left = [], torch.zeros_like(sure[:, 0])
    for column in sure.unbind(dim=1)[:-1]:
        logs.append(left + column.log())
        left = left + (1 - column).log()
    return _by_expert(torch.stack([*logs, left], dim=1), rule)


def asked(weights: Tensor, rule: Rule) -> Tensor:
    """Tell which experts (N, experts) are run for answers of these weights: in a cascade all that come before, too."""
    ran = weights > 0
    if rule.routing is not Routing.CASCADE:
        return ran
    return _by_expert(ran[:, list(rule.order)].flip(1).cumsum(dim=1).flip(1) > 0, rule)


def _by_expert(columns: Tensor, rule: Rule) -> Tensor:
    """Bring columns (N, experts) from the order of cost to that of the experts' numbers."""
    return columns[:, [rule.order.index(i) for i in range(len(rule.order))]]


def certainties(outputs: Tensor, task: Task) -> Tensor:
    """Give how sure (N, experts) each expert is of its own answers (experts, N, outputs): the scores of a cascade."""
    return torch.stack([confidence(out, task) for out in outputs.float()], dim=1)


def mix(outputs: Tensor, weights: Tensor, task: Task) -> Tensor:
    """Average the answers (experts, N, outputs) of the experts with the weights (N, experts), to (N, outputs).

    Averaged are probabilities, or for regression the numbers; what comes out are outputs as one network gives them,
    whose softmax or sigmoid is that average. One expert alone answers as it is; rows of weight 0 are not read.
    """
    one = outputs.gather(0, weights.argmax(dim=1)[None, :, None].expand(1, -1, outputs.shape[2]))[0]
    ran = weights.T[:, :, None] > 0
    logs = torch.where(ran, weights.T[:, :, None], 1.0).log().masked_fill(~ran, -torch.inf)
    outputs = outputs.masked_fill(~ran, 0.0)
    if task.kind is TaskKind.REGRESSION:
        mixed = (outputs * weights.T[:, :, None]).sum(dim=0)
    elif task.kind is TaskKind.MULTILABEL:
        yes, no = (torch.logsumexp(logs + F.logsigmoid(side), dim=0) for side in (outputs, -outputs))
        mixed = yes - no
    else:
        mixed = torch.logsumexp(logs + F.log_softmax(outputs, dim=2), dim=0)
    return torch.where((weights > 0).sum(dim=1, keepdim=True) > 1, mixed, one)
