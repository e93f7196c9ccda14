"""How every agent that learns or breeds begins: even splits, and what greed makes of what each place loses alone."""

from collections.abc import Callable, Sequence

import numpy as np

from compressor.search.curves import Curve, measure, shrunk
from compressor.search.problem import Ledger, Problem
from compressor.search.wishes import Parts, spread, starts

Curves = Callable[[], Sequence[Curve]]
"""Measures what is lost where one place alone is cut, or gives what was measured."""


def opening(problem: Problem, parts: Parts, curves: Curves, judge: Callable[[np.ndarray], float]) -> None:
    """Judge the even splits, then the policies that greed makes of the best of them and what places lose alone.

    Greed decides all that was measured, then, where that is of several kinds, each kind alone: the channels of axes
    with the bits of the even split, the bits of layers with its channels. `judge` brings wishes to the budget and gives
    their likeness. Without curves there are the even splits alone.
    """
    tried = [(judge(wishes), wishes) for wishes in starts(problem, parts)]
    _, best = max(tried, key=lambda each: each[0])
    for some in _kinds_of(curves()):
        judge(spread(problem, parts, shrunk(problem, some, best)))


def _kinds_of(measured: Sequence[Curve]) -> Sequence[Sequence[Curve]]:
    """Give all curves, then those of each kind where there are several kinds."""
    kinds = dict.fromkeys(each.kind for each in measured)
    alone = [[each for each in measured if each.kind == kind] for kind in kinds]
    return [measured, *alone] if len(alone) > 1 else alone


def probed(problem: Problem, ledger: Ledger, parts: Parts, allowed: np.ndarray) -> list[Curve]:
    """Measure what an agent may decide, `allowed` (decisions,), with at most half of the evaluations that are left."""
    return measure(problem, ledger, parts, allowed, ledger.left // 2)
