"""Controllers that play episodes together, remember all that was tried, and refine what was best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.search.actor import Controller, Played
from compressor.search.envs import WalkEnv, observe
from compressor.search.opening import Curves, opening
from compressor.search.problem import Ledger, Problem
from compressor.search.types import Candidate, Policy
from compressor.search.walk import Walk
from compressor.search.wishes import Parts, Settle, parts_of, starts, walked

SHARED = 0.8
"""How much of the noise the groups of one layer share; sqrt(1 - 0.8^2) is each group's own."""

LAST_NOISE = 0.1
"""The noise of the last episode, as a share of the first's."""

ELITE = 5
"""So many of the best episodes are refined."""

TRIED = 6
"""Refinements of which the critics choose one."""

DRAWN = 24
"""Changes drawn until so many are new."""

REFINED = 0.75
"""The share of episodes that refine a good one; the others are played by the actors."""

MEMORY = 2000
"""Episodes that a controller remembers."""

STALE = 50
"""Episodes in a row that were all known: there is nothing new to be found."""


@dataclass(frozen=True)
class Episode:
    """Wishes that were brought to the budget, what they came to, and what each controller saw and wished."""

    wishes: np.ndarray
    candidate: Candidate
    played: tuple[Played, ...]


class Team:
    """Controllers that share the reward of an episode; each decides the decisions of some kinds.

    `settle` brings the wishes of an episode to the budget, and wishes for what no controller decides; `form`, where
    given, says which policy is evaluated for settled wishes if not the one they walk to; `splits`, where given, are the
    even splits to begin with, if not all there are.
    """

    def __init__(
        self,
        problem: Problem,
        ledger: Ledger,
        seed: int,
        kinds: Sequence[tuple[str, ...]],
        settle: Settle,
        form: Callable[[np.ndarray], Policy] | None = None,
        splits: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.problem, self.ledger, self.parts = problem, ledger, parts_of(problem)
        self.episodes: list[Episode] = []
        self._learned = 0
        self._kinds, self._settle, self._form = tuple(kinds), settle, form
        self._splits = list(starts(problem, self.parts)) if splits is None else splits
        self._source = np.random.default_rng(seed)
        self._noise = np.zeros(len(self.parts.keep))
        self._envs = tuple(WalkEnv(problem, each, self.judge, self._others) for each in self._kinds)
        capacity = min(MEMORY, problem.evaluations) * len(self.parts.keep)
        self._controllers = tuple(
            Controller(env, problem.config.algorithm, seed * len(self._envs) + i, capacity)
            for i, env in enumerate(self._envs)
        )

    def judge(self, wishes: np.ndarray) -> float:
        """Evaluate wishes, brought to the budget; remember the episode if it is new; give its likeness."""
        wishes = self._settle(wishes)
        walk, seen = self.problem.walk(), [([], []) for _ in self._kinds]
        for wish in wishes.tolist():
            for kinds, env, (features, taken) in zip(self._kinds, self._envs, seen, strict=True):
                if walk.decision.kind in kinds:
                    features.append(observe(walk, kinds, env.width))
                    taken.append(wish)
            walk.choose(wish)
        candidate = self.ledger.judge(self._form(wishes) if self._form else walk.policy())
        if all(candidate.key != episode.candidate.key for episode in self.episodes):
            played = tuple(Played(np.array(features), np.array(taken)) for features, taken in seen)
            for controller, each in zip(self._controllers, played, strict=True):
                controller.store(each, len(self.episodes))
            self.episodes.append(Episode(wishes, candidate, played))
        return candidate.likeness

    def play(self, noise: float) -> None:
        """Let the actors decide an episode, with noise of a standard deviation on their wishes."""
        self._noise = self.drawn(noise)
        env, done = self._envs[0], False
        seen, _ = env.reset()
        while not done:
            wish = self._noisy(0, seen, env.position)
            seen, _, done, _, _ = env.step(np.array([2 * wish - 1], np.float32))

    def drawn(self, noise: float) -> np.ndarray:
        """Draw noise for every decision, most of which the groups of a layer share."""
        shared = self._source.standard_normal(self.parts.places.max() + 1)[self.parts.places]
        own = self._source.standard_normal(len(self.parts.places))
        return noise * (SHARED * shared + (1 - SHARED**2) ** 0.5 * own)

    def _others(self, walk: Walk) -> float:
        for i, (kinds, env) in enumerate(zip(self._kinds, self._envs, strict=True)):
            if walk.decision.kind in kinds:
                return self._noisy(i, observe(walk, kinds, env.width), walk.position)
        return 0.5

    def _noisy(self, controller: int, seen: np.ndarray, position: int) -> float:
        wish = self._controllers[controller].wish(seen) + self._noise[position]
        return float(np.clip(wish, 0.0, 1.0))

    def warm(self) -> None:
        """Try one of the first episodes or a random vector, with much noise."""
        if self._source.random() < 0.5:
            wishes = self.episodes[self._source.integers(len(self.episodes))].wishes
        else:
            wishes = self._source.random(self.parts.places.max() + 1)[self.parts.places]
        self.judge(np.clip(wishes + self.drawn(self.problem.config.noise), 0.0, 1.0))

    def refine(self) -> None:
        """Try a small change of one of the best episodes: of several new ones, what the critics expect most of."""
        best = sorted(self.episodes, key=lambda episode: -episode.candidate.likeness)[:ELITE]
        episode = best[min(self._source.geometric(0.4) - 1, len(best) - 1)]
        other, tried = best[self._source.integers(len(best))], []
        for _ in range(DRAWN):
            wishes = self._settle(self._changed(episode.wishes, other.wishes))
            if not self.ledger.knows(self._policy(wishes)):
                tried.append(wishes)
            if len(tried) == TRIED:
                break
        if tried:
            self.judge(max(tried, key=lambda wishes: self._worth(episode, wishes)))

    def _policy(self, wishes: np.ndarray) -> Policy:
        return self._form(wishes) if self._form else walked(self.problem, wishes)

    def _changed(self, wishes: np.ndarray, other: np.ndarray) -> np.ndarray:
        places, source = self.parts.places, self._source
        count = places.max() + 1
        chosen = source.permutation(count)[: source.geometric(0.4)]
        mask = np.isin(places, chosen)
        if source.random() < 0.25:
            return np.where(mask | (source.random(count) < 0.2)[places], other, wishes)
        size = np.exp(source.uniform(np.log(0.05), np.log(0.3)))
        return np.where(mask, np.clip(wishes + self.drawn(size), 0.0, 1.0), wishes)

    def _worth(self, episode: Episode, wishes: np.ndarray) -> float:
        kinds, total = kinds_of(self.parts), 0.0
        for controller, of, played in zip(self._controllers, self._kinds, episode.played, strict=True):
            total += float(controller.worth(played.features, wishes[np.isin(kinds, of)]).mean())
        return total

    def learn(self) -> None:
        """Let every controller learn from all that is remembered, unless it did."""
        if self._learned == len(self.episodes):
            return
        self._learned = len(self.episodes)
        rewards = rewards_of(np.array([episode.candidate.likeness for episode in self.episodes]))
        for controller in self._controllers:
            controller.learn(rewards)

    def run(self, evaluations: int, curves: Curves) -> None:
        """Search with so many evaluations more: the opening with `curves`, random changes, then what was learned.

        What the opening evaluates is part of the warm-up.
        """
        last = self.ledger.left - evaluations
        warmup, stale = min(self.problem.config.warmup, evaluations // 2), 0
        if not self.episodes:
            opening(self.problem, self.parts, self._splits, curves, self.judge)
            warmup -= evaluations - (self.ledger.left - last) - len(self.episodes)
        while self.ledger.left > last and stale < STALE:
            known = len(self.episodes)
            if known < warmup:
                self.warm()
            else:
                self._improve(1 - (self.ledger.left - last) / evaluations)
            stale = 0 if len(self.episodes) > known else stale + 1

    def _improve(self, done: float) -> None:
        """Learn, then refine or play; `done` is the share of the search that is over."""
        self.learn()
        if self._source.random() < REFINED:
            self.refine()
        else:
            self.play(self.problem.config.noise * LAST_NOISE**done)


def kinds_of(parts: Parts) -> np.ndarray:
    """Give the kind of each decision."""
    return np.select([parts.keep, parts.acts], ["keep", "acts"], "bits")


def rewards_of(likenesses: np.ndarray) -> np.ndarray:
    """Turn the likenesses of all episodes into rewards in [-1, 1]: their ranks, so the baseline moves with them."""
    _, ranks, counts = np.unique(likenesses, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    return ((2 * below + counts) / len(likenesses) - 1.0)[ranks]
