"""Searches with a planted answer: a policy is as good as it is near to one that is known, and within the budget."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import samples
import spaces

from compressor.config.search import SearchBudget
from compressor.model import fresh
from compressor.search.budget import Limits, bill_of
from compressor.search.candidates import Candidates, key_of
from compressor.search.engine import run_agent
from compressor.search.problem import Found, Problem
from compressor.search.space import Space, space_of
from compressor.search.types import Agent, Candidate, Policy
from compressor.search.wishes import levelled, parts_of, walked

SIZE = spaces.budget(size=0.12)
BASELINE = 1.0
AGENTS = tuple(agent for agent in Agent if not agent.fixed)
"""Who can search; the `fixed_` rivals are the method in another mode."""


@dataclass
class Oracle:
    """Scores policies by a function and remembers what it was asked; it dies at the ask numbered `dies`."""

    space: Space
    quality: Callable[[Policy], float]
    known: dict[str, Candidate] | Candidates = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    fresh: int = 0
    dies: int = -1

    def __call__(self, policy: Policy, *, trained: bool = True) -> Candidate:
        key = key_of(policy)
        self.asked.append(key)
        if (found := self.known.get(key)) is None:
            if self.fresh == self.dies:
                raise KeyboardInterrupt
            self.fresh += 1
            np.random.rand(self.fresh % 3)  # an evaluation may draw; an agent must not notice
            quality = self.quality(policy)
            found = Candidate(key, policy, quality - BASELINE, quality, bill_of(policy, self.space), 0, 0.0)
            if isinstance(self.known, Candidates):
                self.known.add(found)
            else:
                self.known[key] = found
        return found


def distance(a: Policy, b: Policy, space: Space) -> float:
    """Give the mean difference of two policies' shares of channels and bits, 0 to 1."""
    keeps = [abs(a.keep[axis] - b.keep[axis]) / size for axis, size in space.axes.items()]
    bits = [abs(x - y) / 8 for name in a.bits for x, y in zip(a.bits[name], b.bits[name], strict=False)]
    acts = [abs(a.acts[tensor] - b.acts[tensor]) / 8 for tensor in a.acts]
    return float(np.mean([*keeps, *bits, *acts]))


def problem(
    quality: Callable[[Policy], float] | int, *, budget: SearchBudget = SIZE, log: Path | None = None, **changes: Any
) -> Problem:
    """Give a problem of a tiny network; a number as `quality` plants an answer drawn with that seed."""
    config = spaces.config(**({"budget": budget, "groups": 2, "evaluations": 40, "warmup": 24} | changes))
    space = space_of(fresh(samples.arch(), 0), config)
    limits = Limits.of(budget, space)
    oracle = Oracle(space, lambda policy: 0.0, Candidates(log) if log else {})
    made = Problem(space, limits, {}, oracle, BASELINE, config.evaluations, config)
    if isinstance(quality, int):
        parts = parts_of(made)
        wishes = np.random.default_rng(1000 + quality).random(len(parts.keep)) ** 0.5
        answer = walked(made, levelled(made, parts, wishes))
        oracle.quality = lambda policy: 1.0 - distance(policy, answer, space)
    else:
        oracle.quality = quality
    return made


def oracle_of(of: Problem) -> Oracle:
    """Give what scores a problem's policies."""
    assert isinstance(of.score, Oracle)
    return of.score


def hunt(agent: Agent, of: Problem, seed: int = 0, study: Path | None = None) -> Found:
    """Run an agent in silence."""
    return run_agent(agent, of, seed, lambda units, remark: None, study)
