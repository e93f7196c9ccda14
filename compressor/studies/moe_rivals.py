"""A mixture beside its rivals on the same images: all are weights over the same experts' answers, from one pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.arch import Routing, Rule, Unit
from compressor.compute import threads
from compressor.config import RuntimeConfig
from compressor.data.types import Data, Split
from compressor.folders import proved_metrics
from compressor.measure import measure
from compressor.mixture import Mixture, MixtureCosts, Survey, asked, at_budget, costs, decide, mix, oracle, survey
from compressor.model import load
from compressor.pipeline import Given, Source, Step
from compressor.quality import per_image, quality
from compressor.records import Measurement, Quality, Value
from compressor.routing import route
from compressor.studies.moe_results import AS_LARGE, EQUAL, EQUAL_COST, MIXTURE, ORACLE, Contender, Side, Spot, best

DRAWS = 20
"""Random routers that are averaged."""
SPOTS = 16
"""Budgets that are tried, evenly spaced on a logarithmic scale."""


@dataclass(frozen=True)
class Seen:
    """One split, what all experts of a mixture say of it, and the right answers."""

    survey: Survey
    targets: Tensor
    split: Split


class Arena:
    """A mixture, its costs, and what its experts say of val and test."""

    def __init__(self, mixture: Mixture, key: str, data: Data, runtime: RuntimeConfig) -> None:
        self.mixture, self.key, self.data, self.runtime = mixture, key, data, runtime
        self.costs: MixtureCosts = costs(mixture)
        with threads(runtime, lambda: self.costs.worst(mixture.rule, Unit.MACS)):
            self.val, self.test = (self._seen(split) for split in (data.val, data.test))

    def _seen(self, split: Split) -> Seen:
        return Seen(survey(self.mixture, split), torch.from_numpy(np.array(split.targets)), split)

    def scored(self, outputs: Tensor, seen: Seen) -> Quality:
        """Score answers to a split."""
        return quality(outputs, seen.targets, self.data.task, medmnist=self.data.flag is not None)

    def side(self, weights: Tensor, seen: Seen) -> Side:
        """Give what a split scores and costs when experts answer with these weights (N, E)."""
        answers = mix(seen.survey.outputs, weights, self.data.task)
        return Side(
            self.scored(answers, seen), self.mean(weights, seen, Unit.MACS), self.mean(weights, seen, Unit.BITOPS)
        )

    def mean(self, weights: Tensor, seen: Seen, unit: Unit) -> float:
        """Give what an image of a split costs on average when experts answer with these weights (N, E)."""
        return self.costs.mean(asked(weights, self.mixture.rule), seen.survey.heads, unit)

    def contender(self, name: str, weigh: Callable[[Seen], Tensor], *, shares: bool) -> Contender:
        """Give a rival that weighs the mixture's own experts."""
        val, test = (weigh(seen) for seen in (self.val, self.test))
        ran = tuple((test > 0).double().mean(dim=0).tolist()) if shares else ()
        sides = self.side(val, self.val), self.side(test, self.test)
        return Contender(name, (self.key,), *sides, self.costs.params, self.costs.size_bits, ran)


@dataclass(frozen=True)
class Known:
    """A model that exists: its key, its folder, and how it was measured on these images."""

    key: str
    folder: Path
    measured: Measurement


def known(source: Source, folder: Path, data: Data, runtime: RuntimeConfig) -> Known:
    """Take a model with its stored metrics, or measure one that was given and has none of these images."""
    record = source.record if isinstance(source, Given) else None
    if isinstance(source, Step) or (record and record.data == data.fingerprint):
        return Known(source.key, folder, proved_metrics(folder).after)
    return Known(source.key, folder, measure(load(folder), data, runtime))


def alone(name: str, model: Known) -> Contender:
    """Give a model by itself."""
    after = model.measured
    val, test = (Side(part.quality, part.macs, part.bitops) for part in (after.val, after.test))
    return Contender(name, (model.key,), val, test, after.cost.params, after.cost.size_bits)


def of_mixture(model: Known) -> Contender:
    """Give the mixture itself, as it was measured."""
    return replace(alone(MIXTURE, model), shares=model.measured.test.shares)


def candidates(arena: Arena, experts: Sequence[Known]) -> tuple[Contender, ...]:
    """Give every expert alone: as its recipe left it, and as the mixture trained it further."""
    before = [alone(f"expert {i}", expert) for i, expert in enumerate(experts)]
    return (*before, *(_within(arena, i, contender) for i, contender in enumerate(before)))


def _within(arena: Arena, expert: int, before: Contender) -> Contender:
    """Give an expert as it is in the mixture, run for every image without the router."""
    sides = []
    for seen in (arena.val, arena.test):
        ran = torch.arange(len(arena.costs.experts)) == expert
        spent = [arena.costs.mean(ran, seen.survey.heads, unit) for unit in (Unit.MACS, Unit.BITOPS)]
        router, right = arena.costs.router, arena.scored(seen.survey.outputs[expert], seen)
        sides.append(Side(right, spent[0] - router.macs, spent[1] - router.bitops))
    first, own = arena.costs.first, arena.costs.experts[expert]
    size = first.params + own.params, first.size_bits + own.size_bits
    return Contender(f"{before.name}, from the mixture", (arena.key,), sides[0], sides[1], *size)


def rivals(
    arena: Arena, mixture: Contender, found: Sequence[Contender], single: Known, experts: Sequence[Known]
) -> tuple[Contender, ...]:
    """Give the rivals of a mixture, but for the baseline: `found` are its candidates, its experts one by one.

    The network as large as the mixture is its rival at equal cost too, where it is as cheap.
    """
    large = alone(AS_LARGE, single)
    anyhow, equal = best(found), best((*found, large), limit=EQUAL * mixture.val.bitops)
    chosen = ((anyhow, "best single expert"), (equal, EQUAL_COST))
    return (
        *(replace(expert, name=name) for expert, name in chosen if expert),
        large,
        _ensemble(arena, experts),
        random_router(arena),
        arena.contender(ORACLE, lambda seen: _oracle(arena, seen), shares=True),
    )


def _oracle(arena: Arena, seen: Seen) -> Tensor:
    return oracle(seen.survey, arena.mixture.rule, seen.targets, arena.data.task)


def _ensemble(arena: Arena, experts: Sequence[Known]) -> Contender:
    """Give all experts together, as their recipes left them, which is better than as specialists."""
    sides, models = [], [load(expert.folder) for expert in experts]
    for seen, name in ((arena.val, "val"), (arena.test, "test")):
        with threads(arena.runtime, lambda: arena.costs.worst(arena.mixture.rule, Unit.MACS)):
            outputs = torch.stack([route(model, seen.split)[0] for model in models])
        weights = torch.full_like(seen.survey.scores, 1 / len(experts))
        spent = [getattr(expert.measured, name) for expert in experts]
        answers = arena.scored(mix(outputs, weights, arena.data.task), seen)
        sides.append(Side(answers, sum(s.macs for s in spent), sum(s.bitops for s in spent)))
    totals = [expert.measured.cost for expert in experts]
    size = sum(cost.params for cost in totals), sum(cost.size_bits for cost in totals)
    return Contender("uniform ensemble", tuple(expert.key for expert in experts), sides[0], sides[1], *size)


def random_router(arena: Arena) -> Contender:
    """Give a router that sends as many images to each expert as the mixture's does, but any: the mean of DRAWS."""
    seats = [decide(seen.survey.scores, arena.mixture.rule) for seen in (arena.val, arena.test)]
    drawn = []
    for draw in range(DRAWS):
        source = torch.Generator().manual_seed(draw)
        orders = [torch.randperm(len(weights), generator=source) for weights in seats]
        shuffled = {id(seen): w[o] for seen, w, o in zip((arena.val, arena.test), seats, orders, strict=True)}
        drawn.append(arena.contender("random router", lambda seen, w=shuffled: w[id(seen)], shares=True))
    val, test = _averaged([c.val for c in drawn]), _averaged([c.test for c in drawn])
    return replace(drawn[0], val=val, test=test)


def _averaged(sides: Sequence[Side]) -> Side:
    scores = [side.quality.scores for side in sides]
    common = [name for name in scores[0] if all(name in each for each in scores)]
    means = {name: _mean_value([each[name] for each in scores]) for name in common}
    loss = float(np.mean([side.quality.loss for side in sides]))
    macs, bitops = (float(np.mean([getattr(side, part) for side in sides])) for part in ("macs", "bitops"))
    return Side(Quality(sides[0].quality.n, loss, means), macs, bitops)


def _mean_value(values: Sequence[Value]) -> Value:
    return Value(*(float(np.mean([getattr(v, part) for v in values])) for part in ("value", "low", "high")))


def sweep(arena: Arena) -> tuple[Spot, ...]:
    """Give what the mixture scores as its budget of BitOps moves from the cheapest experts' cost to the dearest's.

    Where all experts always run there is nothing to move, and one spot is given.
    """
    rule = arena.mixture.rule
    if rule.routing is Routing.SOFT:
        return (_spot(arena, rule, arena.costs.worst(rule, Unit.BITOPS)),)
    limits = np.geomspace(_least(arena) * (1 + 1e-6), arena.costs.worst(rule, Unit.BITOPS) * (1 + 1e-6), SPOTS)
    seen, targets, free = arena.val.survey, arena.val.targets, replace(arena.mixture, rule=replace(rule, busiest=1.0))
    rules = ((at_budget(free, seen, limit, Unit.BITOPS, targets), limit) for limit in limits.tolist())
    return tuple(_spot(arena, found, limit) for found, limit in rules)


def _least(arena: Arena) -> float:
    """Give the mean BitOps on val where the cheapest experts, or the first that a threshold asks, answer all images."""
    each = arena.costs.each(arena.val.survey.heads, Unit.BITOPS).mean(dim=0)
    rule = arena.mixture.rule
    if rule.rising:
        return arena.costs.always(Unit.BITOPS) + float(each[rule.order[0]])
    return arena.costs.always(Unit.BITOPS) + float(each.sort().values[: rule.answering].sum())


def _spot(arena: Arena, rule: Rule, limit: float) -> Spot:
    val, test = ((decide(seen.survey.scores, rule), seen) for seen in (arena.val, arena.test))
    spent = [arena.mean(weights, seen, Unit.BITOPS) for weights, seen in (val, test)]
    return Spot(limit, _score(arena, *val), _score(arena, *test), spent[0], spent[1])


def _score(arena: Arena, weights: Tensor, seen: Seen) -> float:
    answers = mix(seen.survey.outputs, weights, arena.data.task)
    return per_image(answers, seen.targets, arena.data.task).double().mean().item()
