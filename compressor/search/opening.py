"""How every agent that learns or breeds begins: even splits, one thing less at a time, and what follows from these."""

from collections.abc import Callable

import numpy as np

from compressor.search.problem import Problem
from compressor.search.wishes import Parts, billed, starts

PROBE = 0.25
"""The share of an axis' channels, or of 8 bits, that a probe takes away: 2 bits."""

SLOPES = (0.03, 0.06, 0.12)
"""Changes of a wish for each doubling of what a probe lost for what it freed; 0.06 is half a bit.

The error of rounding falls by 4 with each bit, so half a bit for each doubling evens out what the next bit is worth.
"""

FARTHEST = 4.0
"""Doublings beyond which a probe says no more."""

SPARE = 10
"""Evaluations of the warm-up that are not probes."""

LEAST = 0.02
"""The least loss that counts, as a share of the greatest."""


def opening(
    problem: Problem, parts: Parts, source: np.random.Generator, probes: int, judge: Callable[[np.ndarray], float]
) -> None:
    """Judge the even splits, then the best of them with less of one axis, tensor or layer, which others then get.

    So many are probed, in random order; then what lost much for the little that it freed gets more, at once.
    `judge` brings wishes to the budget and gives their likeness.
    """
    tried = [(judge(wishes), wishes) for wishes in starts(problem, parts)]
    likeness, best = max(tried, key=lambda each: each[0])
    places = source.permutation(parts.places.max() + 1)[:probes]
    if not len(places):
        return
    spent = _used(problem, best)
    lost, freed = np.zeros(len(places)), np.zeros(len(places))
    for i, place in enumerate(places):
        less = np.where(parts.places == place, np.clip(best - PROBE, 0.0, 1.0), best)
        lost[i], freed[i] = likeness - judge(less), (spent - _used(problem, less)).sum()
    if lost.max() <= 0 or freed.max() <= 0:
        return
    worth = np.maximum(lost, LEAST * lost.max()) / np.maximum(freed, LEAST * freed.max())
    doublings = np.log2(worth) - np.median(np.log2(worth))
    change = np.zeros(parts.places.max() + 1)
    change[places] = np.clip(doublings, -FARTHEST, FARTHEST)
    for slope in SLOPES:
        judge(np.clip(best + slope * change[parts.places], 0.0, 1.0))


def probes_of(problem: Problem, evaluations: int) -> int:
    """Give the number of probes of a search of so many evaluations: its warm-up but for some."""
    return max(0, min(problem.config.warmup, evaluations // 2) - SPARE)


def _used(problem: Problem, wishes: np.ndarray) -> np.ndarray:
    """Give the shares of the limits that wishes use, of those that there are."""
    both = zip(billed(problem, wishes).totals(), problem.limits.totals(), strict=True)
    return np.array([now / limit for now, limit in both if limit is not None])
