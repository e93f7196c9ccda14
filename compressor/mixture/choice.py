"""What is chosen on val: the prices or the threshold that keep a mixture within its budget; and what a rule gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from compressor.arch import Routing, Rule, Task, Unit
from compressor.errors import ConfigError
from compressor.mixture.costs import MixtureCosts, costs
from compressor.mixture.execution import Survey
from compressor.mixture.rule import asked, decide, mix, reach
from compressor.mixture.types import Mixture
from compressor.quality import per_image
from compressor.routing import GAP, candidates

HALVINGS = 40
"""Steps of the search for a price."""

DEAREST = 1e9
"""The largest price tried."""

NEVER = 2.0
"""A threshold that no probability reaches: the dearest expert answers all."""

__all__ = ["Outcome", "at_budget", "decide", "oracle", "outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a rule gives on a split: weights (N, experts), outputs (N, outputs), the share of images of each expert.

    `macs` and `bitops` are means over the images, router and shared first stage included.
    """

    weights: Tensor
    outputs: Tensor
    shares: tuple[float, ...]
    macs: float
    bitops: float


def outcome(mixture: Mixture, found: Survey, rule: Rule) -> Outcome:
    """Say what a mixture would answer by another rule; no network is run."""
    return weighted(mixture, found, decide(found.scores, rule))


def weighted(mixture: Mixture, found: Survey, weights: Tensor) -> Outcome:
    """Say what a mixture would answer with given weights (N, experts), such as an oracle's; no network is run."""
    counted = costs(mixture)
    ran = asked(weights, mixture.rule)
    macs, bitops = (counted.mean(ran, found.heads, unit) for unit in (Unit.MACS, Unit.BITOPS))
    shares = tuple((weights > 0).double().mean(dim=0).tolist())
    return Outcome(weights, mix(found.outputs, weights, mixture.task), shares, macs, bitops)


def oracle(found: Survey, rule: Rule, targets: Tensor, task: Task) -> Tensor:
    """Give the weights (N, experts) of a router that knows the answers; the cheapest of equal experts is asked."""
    right = torch.stack([per_image(out, targets, task) for out in found.outputs], dim=1)[:, list(rule.order)]
    best = (right < right.amax(dim=1, keepdim=True)).long().cumprod(dim=1).sum(dim=1)
    return torch.nn.functional.one_hot(torch.tensor(rule.order)[best], len(rule.order)).float()


def at_budget(
    mixture: Mixture, found: Survey, limit: float, unit: Unit | str = Unit.BITOPS, targets: Tensor | None = None
) -> Rule:
    """Give the rule that keeps the mean cost of a split's images within `limit`, an absolute number.

    The router's scores get the least prices that do, in proportion to the experts' costs. For a threshold or a cascade
    it is the threshold, within the limit and the rule's `busiest`, that answers `targets` best (the cheapest of
    equals), or without targets the largest. All experts have been run: `found` is of the split that it is chosen on.

    Raises:
        ConfigError: even the cheapest experts cost more.
    """
    counted, rule, unit = costs(mixture), replace(mixture.rule, prices=(0.0,) * len(mixture.experts)), Unit(unit)
    if rule.rising:
        return _threshold(mixture, counted, found, limit, unit, targets)

    def spent(rule: Rule) -> float:
        return counted.mean(asked(decide(found.scores, rule), rule), found.heads, unit)

    if spent(rule) <= limit:
        return rule
    means = counted.each(found.heads, unit).mean(dim=0)
    relative = means / means.max()

    def priced(price: float) -> Rule:
        return replace(rule, prices=tuple((price * relative).tolist()))

    if rule.routing is not Routing.SOFT:
        for price in _prices(found.scores.double(), relative, lambda price: spent(priced(price)) <= limit):
            if spent(priced(price)) <= limit:
                return priced(price)
    raise _too_small(limit, unit, counted.always(unit) + float(means.sort().values[: rule.answering].sum()), rule)


def _too_small(limit: float, unit: Unit, least: float, rule: Rule) -> ConfigError:
    what = "first expert costs" if rule.routing is Routing.CASCADE else "router and the cheapest experts cost"
    return ConfigError(
        f"moe.budget: a mean of {limit:.4g} {unit} an image is below {least:.4g}, what the {what}; "
        f"give more, or cheaper experts"
    )


def _prices(scores: Tensor, relative: Tensor, fits: Callable[[float], bool]) -> Iterator[float]:
    """Give prices to try, rising from the least that fits; no image's choice hangs on the last bits of one."""
    high = 1.0
    while not fits(high):
        if (high := 2 * high) > DEAREST:
            return
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    left, right = np.triu_indices(len(relative), 1)
    gaps = relative[left] - relative[right]
    turns = ((scores[:, left] - scores[:, right]) / gaps)[:, gaps != 0].flatten()
    turns = torch.cat([torch.tensor([high], dtype=turns.dtype), turns[turns > high].sort().values]).numpy()
    wide = np.flatnonzero(np.diff(turns) >= GAP)
    yield from (turns[wide] + turns[wide + 1]) / 2
    yield turns[-1] + 1.0


def _threshold(
    mixture: Mixture, counted: MixtureCosts, found: Survey, limit: float, unit: Unit, targets: Tensor | None
) -> Rule:
    """Try thresholds that stand between the probabilities of a split, from the dearest to the cheapest."""
    reached = reach(found.scores, mixture.rule)[:, :-1].double().flatten().numpy()
    tried = [NEVER, *(float(value) for value in candidates(reached) if np.isfinite(value)), 0.0]
    best: tuple[float, Rule] | None = None
    for value in tried:
        rule = replace(mixture.rule, prices=(0.0,) * len(mixture.experts), threshold=value)
        weights = decide(found.scores, rule)
        busiest = float(weights.mean(dim=0).max())
        if counted.mean(asked(weights, rule), found.heads, unit) > limit or busiest > rule.busiest:
            continue
        if targets is None:
            return rule
        score = float(per_image(mix(found.outputs, weights, mixture.task), targets, mixture.task).double().mean())
        if best is None or score >= best[0]:
            best = score, rule
    if best is None and mixture.rule.busiest < 1:
        better = "another first expert" if mixture.router is None else "a router that is trained longer"
        raise ConfigError(
            f"moe.busiest={mixture.rule.busiest:g}: no threshold within the budget leaves every expert at most that of "
            f"val; give more, a larger moe.budget, or {better}"
        )
    if best is None:
        first = float(counted.each(found.heads, unit).mean(dim=0)[mixture.rule.order[0]])
        raise _too_small(limit, unit, counted.always(unit) + first, mixture.rule)
    return best[1]
