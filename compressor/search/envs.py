"""The two environments of an episode's walk: a layer controller decides axes, a channel controller their groups."""

from collections.abc import Callable, Collection
from typing import Any

import gymnasium
import numpy as np

from compressor.search.problem import Problem
from compressor.search.walk import Walk

LAYER = ("keep", "acts")
CHANNEL = ("bits",)
ALL = ("keep", "acts", "bits")

Wish = Callable[[Walk], float]
"""Gives the wish, in [0, 1], for the decision that a walk stands at."""

Judge = Callable[[np.ndarray], float]
"""Gives the reward of an episode's wishes, (decisions,)."""


class WalkEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Decides the given kinds of an episode, while `others` wishes for what is of other kinds.

    Observations are the walk's features, (features,) in [0, 1]; an action in [-1, 1], (1,), is the wish. The reward of
    the last step is that of the whole episode, whoever decided what; all others are 0.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own type

    def __init__(self, problem: Problem, kinds: Collection[str], judge: Judge, others: Wish) -> None:
        self._problem, self._kinds, self._judge, self._others = problem, kinds, judge, others
        self._walk, self._wishes = problem.walk(), []
        self.width = observed(problem, kinds)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (self.width,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def position(self) -> int:
        """Give the number of decisions that are taken."""
        return self._walk.position

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode at its first decision of our kinds."""
        super().reset(seed=seed)
        self._walk, self._wishes = self._problem.walk(), []
        self._advance()
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Take a decision; after the last one the episode is judged."""
        self._take((float(action[0]) + 1) / 2)
        self._advance()
        reward = float(self._judge(np.array(self._wishes))) if self._walk.done else 0.0
        return self._observation(), reward, self._walk.done, False, {}

    def _advance(self) -> None:
        while not self._walk.done and self._walk.decision.kind not in self._kinds:
            self._take(self._others(self._walk))

    def _take(self, wish: float) -> None:
        self._wishes.append(wish)
        self._walk.choose(wish)

    def _observation(self) -> np.ndarray:
        if self._walk.done:
            return np.zeros(self.width, np.float32)
        return observe(self._walk, self._kinds, self.width)


def layer_env(problem: Problem, judge: Judge, others: Wish) -> WalkEnv:
    """Give the environment of the sparsity of layers, and of the bits of their activations where those are searched."""
    return WalkEnv(problem, LAYER, judge, others)


def channel_env(problem: Problem, judge: Judge, others: Wish) -> WalkEnv:
    """Give the environment of the bits of groups of channels."""
    return WalkEnv(problem, CHANNEL, judge, others)


def flat_env(problem: Problem, judge: Judge) -> WalkEnv:
    """Give the environment of all decisions; features that a kind lacks are 0."""
    return WalkEnv(problem, ALL, judge, lambda walk: 0.5)


def observe(walk: Walk, kinds: Collection[str], width: int) -> np.ndarray:
    """Give what a controller of some kinds sees, (width,): which kind it is where it has several, and the features."""
    kind = walk.decision.kind
    which = [float(kind == each) for each in kinds] if len(kinds) > 1 else []
    seen = np.zeros(width, np.float32)
    values = np.array([*which, *walk.features()], np.float32)
    seen[: len(values)] = np.clip(values, 0.0, 1.0)
    return seen


def observed(problem: Problem, kinds: Collection[str]) -> int:
    """Give the number of values that a controller of some kinds sees."""
    walk, longest = problem.walk(), 0
    while not walk.done:
        if walk.decision.kind in kinds:
            longest = max(longest, len(walk.features()))
        walk.choose(0.5)
    return longest + (len(kinds) if len(kinds) > 1 else 0)
