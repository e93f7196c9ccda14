"""How every agent that learns or breeds begins: what greed makes of even splits and of what each place loses alone."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from compressor.search.curves import Curve, measure, shrunk
from compressor.search.problem import Ledger, Problem
from compressor.search.wishes import Parts, spread

Way = TypeVar("Way")

Curves = Callable[[], Sequence[Curve]]
"""Measures what is lost where one place alone is cut, or gives what was measured."""

PATIENCE = 2
"""So many in a row that are no better end a climb from the fewest bits to more."""


def opening(
    problem: Problem,
    parts: Parts,
    splits: Sequence[np.ndarray],
    curves: Curves,
    judge: Callable[[np.ndarray], float],
) -> None:
    """Judge the policies that greed makes of even splits, and of what places lose alone.

    Greed decides the channels of axes with the bits of one of the `splits` (falling bits) after the other, from the
    fewest bits up until more are no better; then, with what was best so far, all that was measured, and the bits of
    layers alone. Where no axis was measured the even splits are judged as they are. `judge` brings wishes to the budget
    and gives their likeness.
    """
    measured = curves()
    axes = [each for each in measured if each.kind == "keep"]
    layers = [each for each in measured if each.kind != "keep"]

    def greedy(some: Sequence[Curve], rest: np.ndarray) -> np.ndarray:
        return spread(problem, parts, shrunk(problem, some, rest))

    best, _ = climbed((greedy(axes, wishes) if axes else wishes for wishes in reversed(splits)), judge)
    if axes and layers:
        judge(greedy(measured, best))
    if layers:
        judge(greedy(layers, best))


def climbed(ways: Iterable[Way], judge: Callable[[Way], float]) -> tuple[Way, float]:
    """Judge one way after the other until `PATIENCE` in a row are no better; give the best and its likeness."""
    ways = iter(ways)
    best = next(ways)
    most, worse = judge(best), 0
    for way in ways:
        likeness = judge(way)
        best, most, worse = (way, likeness, 0) if likeness > most else (best, most, worse + 1)
        if worse == PATIENCE:
            break
    return best, most


def probed(problem: Problem, ledger: Ledger, parts: Parts, allowed: np.ndarray) -> list[Curve]:
    """Measure what an agent may decide, `allowed` (decisions,), with at most half of the evaluations that are left."""
    return measure(problem, ledger, parts, allowed, ledger.left // 2)
