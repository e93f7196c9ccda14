"""What a mixture costs: each network's own part, and what an image costs that some of them answer."""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from compressor import cost
from compressor.arch import FLOAT, Routing, Rule, Unit
from compressor.cost import SCALE_BITS, THRESHOLD_BITS, LayerCost, PathCost, params, paths, size_bits
from compressor.layers import Act, Norm, Weighted
from compressor.mixture.types import FIRST, Mixture
from compressor.model import Model


@dataclass(frozen=True)
class PartCost:
    """One network: what it holds, and what an image costs that leaves at each of its heads, the final one last."""

    params: int
    size_bits: int
    paths: tuple[PathCost, ...]

    @property
    def macs(self) -> int:
        """The multiply-accumulates of an image that goes through all of it."""
        return self.paths[-1].macs

    @property
    def bitops(self) -> int:
        """The BitOps of an image that goes through all of it."""
        return self.paths[-1].bitops


@dataclass(frozen=True)
class MixtureCosts:
    """The shared first stage and the router, zeros where there is none, and each network without the former.

    `rule_bits` are the bits that the rule of sending images is stored in.
    """

    first: PartCost
    router: PartCost
    experts: tuple[PartCost, ...]
    rule_bits: int

    @property
    def params(self) -> int:
        """All parameters, the shared ones once."""
        return sum(part.params for part in (self.first, self.router, *self.experts))

    @property
    def size_bits(self) -> int:
        """All bits, the shared ones once."""
        return self.rule_bits + sum(part.size_bits for part in (self.first, self.router, *self.experts))

    def always(self, unit: Unit) -> int:
        """Give what every image costs, whoever answers: the first stage and the router."""
        return _of(self.first, unit) + _of(self.router, unit)

    def each(self, heads: Tensor, unit: Unit) -> Tensor:
        """Give what each expert costs each image, (N, experts) in float64; 0 where `heads` says that it was not run."""
        columns = []
        for expert, part in enumerate(self.experts):
            costs = torch.tensor([getattr(path, unit) for path in part.paths] + [0], dtype=torch.float64)
            columns.append(costs[heads[:, expert]])  # -1, not run, is the 0 at the end
        return torch.stack(columns, dim=1)

    def mean(self, ran: Tensor, heads: Tensor, unit: Unit) -> float:
        """Give the mean over images; `ran`, (N, experts) or (experts,), says what each image, or every one, runs."""
        spent = self.each(heads, unit) * ran
        return self.always(unit) + float(spent.sum(dim=1).mean())

    def worst(self, rule: Rule, unit: Unit) -> int:
        """Give what the most expensive image can cost."""
        dearest = sorted(self.whole(rule, unit), reverse=True)
        return self.always(unit) + sum(dearest[: rule.answering])

    def whole(self, rule: Rule, unit: Unit) -> list[int]:
        """Give what an answer of each expert costs, no exit being taken; in a cascade with those asked before."""
        costs = [_of(part, unit) for part in self.experts]
        if rule.routing is Routing.CASCADE:
            for before, expert in pairwise(rule.order):
                costs[expert] += costs[before]
        return costs

    def least(self, rule: Rule, unit: Unit) -> int:
        """Give what the cheapest image can cost."""
        first = [getattr(part.paths[0], unit) for part in self.experts]
        least = first[rule.order[0]] if rule.routing is Routing.CASCADE else sum(sorted(first)[: rule.answering])
        return self.always(unit) + least


NOTHING = PartCost(0, 0, (PathCost(0, 0),))
"""What a part costs that a mixture does not have."""


def _of(part: PartCost, unit: Unit) -> int:
    return getattr(part.paths[-1], unit)


def costs(mixture: Mixture) -> MixtureCosts:
    """Count every network of a mixture; raises ModelError for a layer whose cost is not known."""
    router, shared = mixture.router, mixture.rule.shared
    first = _first(router) if router and shared else NOTHING
    routing = _without(router, first) if router else NOTHING
    experts = tuple(_without(expert, first) for expert in mixture.experts)
    prices = SCALE_BITS * len(experts) if any(mixture.rule.prices) else 0
    threshold = THRESHOLD_BITS if mixture.rule.rising else 0
    return MixtureCosts(first, routing, experts, prices + threshold)


def cost_table(mixture: Mixture) -> tuple[LayerCost, ...]:
    """Count every layer of every network, the shared ones once, under the names that the weights' file has."""
    rows = []
    parts = [("router", mixture.router)] if mixture.router else []
    parts = [*parts, *((f"experts.{i}", expert) for i, expert in enumerate(mixture.experts))]
    for i, (name, model) in enumerate(parts):
        for row in cost.cost_table(model):
            shared = mixture.rule.shared and row.name.startswith(FIRST)
            if not shared or i == 0:
                rows.append(replace(row, name=f"{'first' if shared else name}.{row.name}"))
    return tuple(rows)


def _without(model: Model, first: PartCost) -> PartCost:
    shared = first.paths[-1]
    found = tuple(PathCost(path.macs - shared.macs, path.bitops - shared.bitops) for path in paths(model))
    return PartCost(params(model) - first.params, size_bits(model) - first.size_bits, found)


def _first(model: Model) -> PartCost:
    rows = [row for row in cost.cost_table(model) if row.name.startswith(FIRST)]
    named = [(f"{name}.", module) for name, module in model.net.named_modules()]
    modules = [module for name, module in named if name.startswith(FIRST)]
    acts = sum(isinstance(module, Act) and module.bits != FLOAT for module in modules)
    owned = [module for module in modules if isinstance(module, Weighted | Norm)]
    count = sum(p.numel() for module in owned for name, p in module.named_parameters(recurse=False) if name != "scale")
    path = PathCost(sum(row.macs for row in rows), sum(row.bitops for row in rows))
    return PartCost(count, sum(row.size_bits for row in rows) + SCALE_BITS * acts, (path,))
