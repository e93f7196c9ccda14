"""Remove whole channels, then recover."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from compressor import cost
from compressor.arch import Arch, with_widths
from compressor.calibration import recalibrate_norms
from compressor.compute import threads
from compressor.config import PruneConfig, Scope
from compressor.errors import ConfigError
from compressor.measure import worst_macs
from compressor.model import Model, select
from compressor.network import Network
from compressor.phases.importance import importance, relative, strongest
from compressor.phases.teaching import recovery_loss
from compressor.training import Context, fit

TOLERANCE = 0.02
"""How far from its target, as a share of it, a solved pruning may end."""

LEAST = 1e-9
"""A ratio that cuts only what `round_to` asks for."""

SPARED = 0.05
"""The share of each axis that global pruning never takes."""


def layer_counts(scores: Mapping[str, Tensor], ratio: float, round_to: int) -> dict[str, int]:
    """Give how many channels each axis keeps when each loses the same share."""
    step = round_to if ratio else 1
    return {axis: _rounded(len(each) * (1 - ratio), len(each), step) for axis, each in scores.items()}


def global_counts(scores: Mapping[str, Tensor], ratio: float, round_to: int) -> dict[str, int]:
    """Give how many channels each axis keeps when all compete; every axis keeps a few."""
    each = relative(dict(scores))
    ranked = torch.cat(list(each.values())).sort().values
    cut = ranked[min(len(ranked) - 1, round(ratio * len(ranked)))]
    counts = {axis: int((values >= cut).sum().item()) for axis, values in each.items()}
    spared = {axis: math.ceil(SPARED * len(values)) for axis, values in each.items()}
    step = round_to if ratio else 1
    return {a: _rounded(max(counts[a], spared[a]), len(values), step) for a, values in each.items()}


def _rounded(kept: float, size: int, round_to: int) -> int:
    """Give the nearest multiple that the axis has room for; an axis shorter than one step stays whole."""
    if size < round_to:
        return size
    return min(size - size % round_to, max(round_to, round(kept / round_to) * round_to))


def solve(arch: Arch, scores: Mapping[str, Tensor], config: PruneConfig) -> dict[str, int]:
    """Give how many channels each axis keeps: by `ratio`, or by the ratio that leaves the target MACs or parameters.

    Bisection finds the ratio; then single channels go or come back, axis by axis, as long as that comes nearer.
    """
    count = layer_counts if config.scope is Scope.LAYER else global_counts
    target = config.target.macs or config.target.params
    if target is None:
        return count(scores, config.ratio, config.round_to)
    whole = _size(arch, config)
    goal, low, high = target * whole, 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        above = _size(with_widths(arch, count(scores, middle, config.round_to)), config) > goal
        low, high = (middle, high) if above else (low, middle)
    ends = (count(scores, ratio, config.round_to) for ratio in (low or LEAST, high))
    counts = min(ends, key=lambda counts: abs(_size(with_widths(arch, counts), config) - goal))
    counts = _polish(arch, scores, counts, config, goal)
    reached = _size(with_widths(arch, counts), config)
    if abs(reached - goal) > TOLERANCE * goal:
        raise ConfigError(
            f"prune.target={target}: the nearest that whole channels allow is {reached / whole:.3f}; "
            f"give that, or a smaller prune.round_to"
        )
    return counts


def _polish(arch: Arch, scores: Mapping[str, Tensor], counts: dict[str, int], config: PruneConfig, goal: float
            ) -> dict[str, int]:  # fmt: skip
    gap = abs(_size(with_widths(arch, counts), config) - goal)
    if gap <= TOLERANCE * goal / 2:
        return counts
    for axis, each in scores.items():
        for step in (config.round_to, -config.round_to):
            trial = counts | {axis: counts[axis] + step}
            if not config.round_to <= trial[axis] <= len(each):
                continue
            new = abs(_size(with_widths(arch, trial), config) - goal)
            if new < gap:
                counts, gap = trial, new
    return counts


def _size(arch: Arch, config: PruneConfig) -> int:
    """Count MACs or parameters of an arch without weights."""
    bare = replace(arch, quantization=None)
    with torch.device("meta"):
        model = Model(bare, Network(bare))
    return cost.params(model) if config.target.params else sum(row.macs for row in cost.cost_table(model))


def prune(config: PruneConfig, context: Context, model: Model, teacher: Model | None = None) -> Model:
    """Keep the strongest channels of each axis, take the norms' statistics anew, then recover."""
    with threads(context.runtime, lambda: worst_macs(model)):
        scores = importance(model, context.data, config.criterion, config.fit.seed)
    counts = solve(model.arch, scores, config)
    pruned = select(model, {axis: strongest(scores[axis], count) for axis, count in counts.items()})
    recalibrate_norms(pruned, context, images=config.recalibrate, seed=config.fit.seed)
    loss = recovery_loss(config.recovery, context, teacher, config.fit)
    return fit(pruned, config.fit, context, loss)
