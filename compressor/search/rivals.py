"""The agents that do not learn: one sparsity and one number of bits, sensitivity, and chance."""

from dataclasses import dataclass

import numpy as np

from compressor.search.problem import Ledger, Problem
from compressor.search.types import Agent
from compressor.search.wishes import Parts, billed, free, levelled, parts_of, splits_for, starts, walked

PROBES = {"keep": (0.75, 0.5), "acts": (0.5, 0.25), "bits": (0.5, 0.25)}
"""Shares of channels or bits that sensitivity measures a decision at; only the second where evaluations are few."""

NOTCH = {"keep": 1 / 16, "acts": 1 / 8, "bits": 1 / 8}
"""By how much a decision shrinks at a time."""

BELOW = 4.0
"""Nothing at all is taken to lose so many times what the last probe lost."""

FLAT = 1e-4
"""Likeness lost by the whole range of a decision that measurably loses none, so that the dearest goes first."""

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
    best, likeness = _first(problem, ledger, parts)
    spread = np.where(parts.keep, 0.0, (1 - parts.rank) / problem.walk().top)
    greedy = _shrunk(problem, _measured(problem, ledger, parts)) + spread
    greedy = levelled(problem, parts, np.clip(greedy, 0.0, 1.0))
    if (found := ledger.judge(walked(problem, greedy)).likeness) > likeness:
        best, likeness = greedy, found
    while True:
        places = source.permutation(parts.places.max() + 1)[:2]
        size = np.exp(source.uniform(*np.log(MOVES)))
        change = np.select([parts.places == places[0], parts.places == places[-1]], [size, -size], 0.0)
        tried = levelled(problem, parts, np.clip(best + change, 0.0, 1.0))
        if (found := ledger.judge(walked(problem, tried)).likeness) >= likeness:
            best, likeness = tried, found


def _first(problem: Problem, ledger: Ledger, parts: Parts) -> tuple[np.ndarray, float]:
    """Judge the even splits and give the best."""
    tried = [(ledger.judge(walked(problem, wishes)).likeness, wishes) for wishes in starts(problem, parts)]
    likeness, best = max(tried, key=lambda each: each[0])
    return best, likeness


@dataclass(frozen=True)
class Curve:
    """The likeness that one axis, tensor or layer loses alone at rising shares of its channels or bits, 0 to 1."""

    kind: str
    mask: np.ndarray
    shares: tuple[float, ...]
    lost: tuple[float, ...]

    def at(self, share: float) -> float:
        """Give what a share loses."""
        return float(np.interp(share, self.shares, self.lost)) + FLAT * (1 - share)


def _measured(problem: Problem, ledger: Ledger, parts: Parts) -> list[Curve]:
    """Measure each place while all others are whole, at two shares, or at one where evaluations are few."""
    whole, places = np.ones(len(parts.keep)), parts.places.max() + 1
    best, count = ledger.judge(free(problem, whole)).likeness, 2 if ledger.left > 3 * places else 1
    curves = []
    for place in range(places):
        mask = parts.places == place
        kind = problem.walk().decisions[int(mask.argmax())].kind
        probes, lost = PROBES[kind][-count:], [0.0]
        for share in probes:
            loss = best - ledger.judge(free(problem, np.where(mask, share, whole))).likeness
            lost.append(max(lost[-1], loss))
        lost.append(BELOW * lost[-1])
        curves.append(Curve(kind, mask, (0.0, *probes[::-1], 1.0), tuple(lost[::-1])))
    return curves


def _shrunk(problem: Problem, curves: list[Curve]) -> np.ndarray:
    """Shrink the decision that loses least for what it frees of the budget, until all is within."""
    shares = np.ones(len(curves))
    wishes = np.ones(len(curves[0].mask))
    over = _over(problem, wishes)
    while over > 0:
        rates = []
        for place, curve in enumerate(curves):
            less = max(0.0, shares[place] - NOTCH[curve.kind])
            freed = over - _over(problem, np.where(curve.mask, less, wishes))
            rates.append((curve.at(less) - curve.at(shares[place])) / freed if freed > 0 else np.inf)
        if min(rates) == np.inf:
            break
        chosen = int(np.argmin(rates))
        shares[chosen] = max(0.0, shares[chosen] - NOTCH[curves[chosen].kind])
        wishes = np.where(curves[chosen].mask, shares[chosen], wishes)
        over = _over(problem, wishes)
    return wishes


def _over(problem: Problem, wishes: np.ndarray) -> float:
    """Add up by which shares of them the limits are exceeded."""
    both = zip(billed(problem, wishes).totals(), problem.limits.totals(), strict=True)
    return sum(max(0.0, now / limit - 1) for now, limit in both if limit is not None)
