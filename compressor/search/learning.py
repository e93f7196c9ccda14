"""The agents that learn: who decides what, and how wishes are brought to the budget."""

from collections.abc import Sequence
from functools import cache, partial

import numpy as np

from compressor.search.envs import ALL, CHANNEL, LAYER
from compressor.search.opening import Curves, climbed, probed
from compressor.search.problem import Ledger, Problem
from compressor.search.team import Team, kinds_of
from compressor.search.types import Agent, Policy
from compressor.search.wishes import Parts, Settle, evened, free, levelled, parts_of, splits_for, walked

QUANTIZED = 0.2
"""The share of a step-wise search that quantizes what was pruned."""


def joint(problem: Problem, ledger: Ledger, seed: int) -> None:
    """Search with a layer controller and a channel controller."""
    _alone(problem, ledger, seed, (LAYER, CHANNEL), partial(levelled, problem, parts_of(problem)))


def flat(problem: Problem, ledger: Ledger, seed: int) -> None:
    """Search with one controller of all decisions."""
    _alone(problem, ledger, seed, (ALL,), partial(levelled, problem, parts_of(problem)))


def sparsity(problem: Problem, ledger: Ledger, seed: int) -> None:
    """Search the channels of every axis, with one number of bits for all (as AMC, then uniform bits)."""
    _alone(problem, ledger, seed, (("keep",),), partial(evened, problem, parts_of(problem)))


def bits(problem: Problem, ledger: Ledger, seed: int) -> None:
    """Search bits, at least one a group (as HAQ); channels go only where that alone cannot meet the budget."""
    parts = parts_of(problem)

    def settle(wishes: np.ndarray) -> np.ndarray:
        return levelled(problem, parts, np.where(parts.keep, 1.0, wishes), floor=1)

    _alone(problem, ledger, seed, (("acts", "bits"),), settle)


def _alone(problem: Problem, ledger: Ledger, seed: int, kinds: Sequence[tuple[str, ...]], settle: Settle) -> None:
    team = Team(problem, ledger, seed, kinds, settle)
    allowed = np.isin(kinds_of(team.parts), [kind for each in kinds for kind in each])
    team.run(ledger.left, partial(probed, problem, ledger, team.parts, allowed))


def stepwise(problem: Problem, ledger: Ledger, seed: int) -> None:
    """Prune first, then quantize to one number of bits, and search which number: the split between the two.

    How much is pruned follows from the bits. Which channels go is searched by what pruning alone loses (weights of 8
    bits lose next to nothing), as the technique that comes first knows nothing of the second; the best pruned networks
    are then quantized. From the fewest bits up, until more are no better, each number of bits gets an equal share of
    half of the evaluations; the best gets what is left.

    Raises:
        ConfigError: no number of bits for all is within the budget.
    """
    parts = parts_of(problem)
    curves = cache(partial(probed, problem, ledger, parts, parts.keep))
    splits = splits_for(Agent.STEPWISE, problem, parts)
    chains = (Chain(problem, ledger, parts, seed, number, wishes, curves) for number, wishes in reversed(splits))
    share = ledger.left // (2 * len(splits))
    best, _ = climbed(chains, lambda chain: chain.tried(share))
    left = None
    while ledger.left and ledger.left != left:  # where nothing new is found, there is nothing more
        left = ledger.left
        best.run(left)


class Chain:
    """Pruning, then quantizing to one number of bits, at the budget; `split` is the even one for these bits."""

    def __init__(
        self,
        problem: Problem,
        ledger: Ledger,
        parts: Parts,
        seed: int,
        number: int,
        split: np.ndarray,
        curves: Curves,
    ) -> None:
        self.problem, self.ledger, self.parts, self.number = problem, ledger, parts, number
        self.best, self._split, self._curves = -np.inf, split, curves
        settle = partial(evened, problem, parts, bits=number)
        self._team = Team(problem, ledger, seed, (("keep",),), settle, self._pruned, [split])

    def _pruned(self, wishes: np.ndarray) -> Policy:
        return free(self.problem, np.where(self.parts.keep, wishes, 1.0))

    def tried(self, evaluations: int) -> float:
        """Judge the even split, then prune and quantize with the other evaluations; give the best likeness."""
        self.quantize(self._split)
        self.run(evaluations - 1)
        return self.best

    def run(self, evaluations: int) -> None:
        """Prune with most of the evaluations, and quantize the best that it gave."""
        quantized = max(1, round(evaluations * QUANTIZED))
        if evaluations > quantized:
            self._team.run(evaluations - quantized, self._curves)
        last = self.ledger.left - quantized
        for episode in sorted(self._team.episodes, key=lambda episode: -episode.candidate.likeness):
            if self.ledger.left <= max(0, last):
                return
            self.quantize(episode.wishes)

    def quantize(self, wishes: np.ndarray) -> None:
        """Judge what wishes come to after both."""
        self.best = max(self.best, self.ledger.judge(walked(self.problem, wishes)).likeness)


AGENTS = {
    Agent.JOINT: joint,
    Agent.FLAT: flat,
    Agent.SPARSITY: sparsity,
    Agent.BITS: bits,
    Agent.STEPWISE: stepwise,
}
