"""What an agent is given to solve, and the ledger that keeps count of what it asks."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from compressor.config.search import SearchConfig
from compressor.errors import ConfigError
from compressor.progress import Advance
from compressor.search.budget import Limits
from compressor.search.meter import Meter
from compressor.search.space import Space
from compressor.search.types import Candidate, Policy
from compressor.search.walk import Decision, Walk, decisions_of

STALE = 200
"""So many times in a row an agent may ask for what it knows before it is taken to know all there is."""


class SpentError(Exception):
    """All evaluations are used; the engine ends the agent."""


class Scorer(Protocol):
    """Evaluates a policy, or gives what it gave before."""

    def __call__(self, policy: Policy, *, trained: bool = True) -> Candidate:
        """Score its network after the short training that candidates have, or without any."""
        ...


@dataclass(frozen=True)
class Problem:
    """A search: what may be decided, what it may cost and how it is judged.

    `baseline` is the quality of the uncompressed network on the images that candidates are scored on; `evaluations` is
    what each agent has, identical candidates counted once.
    """

    space: Space
    limits: Limits
    ranking: Mapping[str, tuple[int, ...]]
    score: Scorer
    baseline: float
    evaluations: int
    config: SearchConfig

    @cached_property
    def meter(self) -> Meter:
        """Count what wishes cost; there is one, as the next wishes differ little from the last."""
        return Meter(self.space)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """List what is to be decided, in the order of a walk."""
        return decisions_of(self.space)

    def walk(self) -> Walk:
        """Begin a policy that will be within the budget."""
        return Walk(self.space, self.limits)


@dataclass(frozen=True)
class Found:
    """What an agent came to: the most alike candidate within the budget and all it evaluated, in order.

    `unique` is the number of different candidates, `seconds` the time of the agent and its evaluations.
    """

    best: Candidate
    history: tuple[Candidate, ...]
    unique: int
    seconds: float


class Ledger:
    """Scores policies for one agent, counts different ones and remembers the best that is within the budget."""

    def __init__(self, problem: Problem, watch: Advance) -> None:
        self._problem, self._watch = problem, watch
        self._known: dict[tuple[object, ...], Candidate] = {}
        self._history: dict[str, Candidate] = {}
        self._repeats = 0
        self._began = time.monotonic()
        self.best: Candidate | None = None

    @property
    def left(self) -> int:
        """Give the number of evaluations that are left."""
        return self._problem.evaluations - len(self._history)

    def knows(self, policy: Policy) -> bool:
        """Tell whether a policy was judged before."""
        return (True, *_identity(policy)) in self._known

    def judge(self, policy: Policy, *, trained: bool = True) -> Candidate:
        """Evaluate a policy, after the short training that candidates have or without any.

        Raises:
            SpentError: it is new and no evaluations are left, or the agent only repeats itself.
        """
        identity = (trained, *_identity(policy))
        known = self._known.get(identity)
        self._repeats = self._repeats + 1 if known else 0
        if self._repeats > STALE or (known is None and self.left == 0):
            raise SpentError
        if known is not None:
            return known
        candidate = self._known[identity] = self._problem.score(policy, trained=trained)
        if candidate.key not in self._history:
            self._enter(candidate)
        return candidate

    def _enter(self, candidate: Candidate) -> None:
        self._history[candidate.key] = candidate
        within = self._problem.limits.allow(candidate.bill)
        if within and (self.best is None or candidate.likeness > self.best.likeness):
            self.best = candidate
        self._watch(1, f"best {self.best.quality:.4f}" if self.best else "")

    def found(self) -> Found:
        """Close the account.

        Raises:
            ConfigError: no candidate within the budget was evaluated.
        """
        if self.best is None:
            spent = len(self._history)
            raise ConfigError(f"search.budget: none of {spent} candidates is within it; give more, or more evaluations")
        seconds = time.monotonic() - self._began
        return Found(self.best, tuple(self._history.values()), len(self._history), seconds)


def _identity(policy: Policy) -> tuple[object, ...]:
    return tuple(tuple(sorted(part.items())) for part in (policy.keep, policy.bits, policy.acts))
