"""The agents that do not learn: one sparsity and one number of bits, sensitivity, and chance."""

from functools import partial

import numpy as np

from compressor.search.opening import opening, probed
from compressor.search.problem import Ledger, Problem
from compressor.search.types import Agent
from compressor.search.wishes import levelled, parts_of, splits_for, starts, walked

MOVES = (0.05, 0.3)
"""The least and the largest change of a wish that a local move tries."""


def uniform(problem: Problem, ledger: Ledger, seed: int) -> None:
    """Try each number of bits with the one share of all axes that then fits: its own best split.

    Raises:
        ConfigError: no such split is within the budget.
    """
    for _, wishes in splits_for(Agent.UNIFORM, problem, parts_of(problem)):
        ledger.judge(walked(problem, wishes))


def chance(problem: Problem, ledger: Ledger, seed: int) -> None:
    """Try random wishes, brought to the budget."""
    parts, source = parts_of(problem), np.random.default_rng(seed)
    while True:
        ledger.judge(walked(problem, levelled(problem, parts, source.random(len(parts.keep)))))


def sensitivity(problem: Problem, ledger: Ledger, seed: int) -> None:
    """Measure what each axis, tensor and layer loses alone, shrink by loss per budget gained, then try local moves."""
    parts, source = parts_of(problem), np.random.default_rng(seed)
    best, likeness = np.ones(len(parts.keep)), -np.inf

    def judge(wishes: np.ndarray) -> float:
        nonlocal best, likeness
        tried = levelled(problem, parts, wishes)
        if (found := ledger.judge(walked(problem, tried)).likeness) >= likeness:
            best, likeness = tried, found
        return found

    curves = partial(probed, problem, ledger, parts, np.ones(len(best), bool))
    opening(problem, parts, list(starts(problem, parts)), curves, judge)
    while True:
        places = source.permutation(parts.places.max() + 1)[:2]
        size = np.exp(source.uniform(*np.log(MOVES)))
        change = np.select([parts.places == places[0], parts.places == places[-1]], [size, -size], 0.0)
        judge(np.clip(best + change, 0.0, 1.0))
