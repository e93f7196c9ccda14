"""The steps of a study as a graph: which are ready, which run, how each ended, and how long the rest may take."""

import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from compressor.pipeline import Step


class State(StrEnum):
    """How a step ended: the store had it, it was run, it failed, or something that it reads failed."""

    STORED = "stored"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"


USABLE = (State.STORED, State.DONE)
"""The ends of a step whose result others can read."""


@dataclass(frozen=True)
class Outcome:
    """The end of one step. `seconds`: what its record says, or how long it took to fail. `error`: one line."""

    key: str
    state: State
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Tally:
    """How far a study is. `seconds_left` is None while no step of it has ever been timed."""

    total: int
    stored: int
    done: int
    failed: int
    blocked: int
    running: int
    seconds_left: float | None

    @property
    def ended(self) -> int:
        """How many steps need no more work."""
        return self.stored + self.done + self.failed + self.blocked


Watch = Callable[[Tally], None]
"""Hears how far a study is: whenever that changed, and now and then."""


class Durations:
    """How long steps take, by the seconds of like ones: those of the same phase, or else of any phase."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, phase: str, seconds: float) -> None:
        """Take in a step that was timed."""
        self._sums[phase] += seconds
        self._counts[phase] += 1

    def expected(self, phase: str) -> float | None:
        """Give the mean seconds of a phase; None while nothing was timed."""
        if phase in self._counts:
            return self._sums[phase] / self._counts[phase]
        return sum(self._sums.values()) / sum(self._counts.values()) if self._counts else None


def blocked_by(step: Step, key: str) -> Outcome:
    """Give the end of a step that reads one without a result."""
    return Outcome(step.key, State.BLOCKED, 0.0, f"{step.key}: reads {key}, which has no result")


class Board:
    """The one account of a study that every executor keeps. `lanes`: how many steps can run at once.

    Steps are listed inputs before readers, each key once.
    """

    def __init__(self, steps: Sequence[Step], lanes: int = 1) -> None:
        self.lanes = lanes
        self.steps = {step.key: step for step in steps}
        self.durations = Durations()
        self._ended: dict[str, Outcome] = {}
        self._counts: dict[State, int] = dict.fromkeys(State, 0)
        self._place = {key: place for place, key in enumerate(self.steps)}
        self._readers: dict[str, list[str]] = {key: [] for key in self.steps}
        self._waits: dict[str, int] = {}
        self._open: dict[str, int] = defaultdict(int)
        self._running: dict[str, float] = {}
        for key, step in self.steps.items():
            reads = needs(step)
            assert all(self._place.get(read, len(steps)) < self._place[key] for read in reads), "inputs come first"
            for read in reads:
                self._readers[read].append(key)
            self._waits[key] = len(reads)
            self._open[step.name] += 1
        self._ready = [place for key, place in self._place.items() if not self._waits[key]]
        self._keys = list(self.steps)

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """How the steps ended that have, in the order of the list."""
        return {key: self._ended[key] for key in self.steps if key in self._ended}

    @property
    def open(self) -> list[Step]:
        """The steps that have not ended, in the order of the list."""
        return [step for key, step in self.steps.items() if key not in self._ended]

    @property
    def finished(self) -> bool:
        """Whether every step has ended."""
        return len(self._ended) == len(self.steps)

    def outcome(self, key: str) -> Outcome | None:
        """Say how a step ended, if it has."""
        return self._ended.get(key)

    def take(self) -> Step | None:
        """Give the first step of the list that can run now, and note that it does."""
        while self._ready:
            key = self._keys[heapq.heappop(self._ready)]
            if key not in self._ended:
                self._running[key] = time.monotonic()
                return self.steps[key]
        return None

    def give_back(self, step: Step) -> None:
        """Note that a step that was taken is not run after all; it is ready again."""
        del self._running[step.key]
        heapq.heappush(self._ready, self._place[step.key])

    def settle(self, outcome: Outcome) -> None:
        """Take in the end of a step: its readers become ready, or are blocked, and so are theirs."""
        self._end(outcome)
        if outcome.state in USABLE:
            self.durations.add(self.steps[outcome.key].name, outcome.seconds)
            for reader in self._readers[outcome.key]:
                self._waits[reader] -= 1
                if not self._waits[reader]:
                    heapq.heappush(self._ready, self._place[reader])
            return
        pending = [(reader, outcome.key) for reader in self._readers[outcome.key]]
        while pending:
            key, cause = pending.pop()
            if key not in self._ended:
                self._end(blocked_by(self.steps[key], cause))
                pending += [(reader, key) for reader in self._readers[key]]

    def _end(self, outcome: Outcome) -> None:
        self._ended[outcome.key] = outcome
        self._counts[outcome.state] += 1
        self._open[self.steps[outcome.key].name] -= 1
        self._running.pop(outcome.key, None)

    def tally(self, running: int | None = None) -> Tally:
        """Count; `running` where somebody else knows better how many steps run."""
        counts = {state.value: count for state, count in self._counts.items()}
        now = len(self._running) if running is None else running
        return Tally(total=len(self.steps), running=now, seconds_left=self._seconds_left(), **counts)

    def _seconds_left(self) -> float | None:
        """Share what the open steps take among the lanes; what running ones have behind them counts."""
        if self.finished:
            return 0.0
        expected = {phase: self.durations.expected(phase) for phase in self._open}
        whole, now = 0.0, time.monotonic()
        for phase, count in self._open.items():
            seconds = expected[phase]
            if seconds is None:
                return None
            whole += seconds * count
        for key, began in self._running.items():
            whole -= min(expected[self.steps[key].name] or 0.0, now - began)
        return whole / max(1, min(self.lanes, len(self.steps) - len(self._ended)))


def needs(step: Step) -> tuple[str, ...]:
    """Give the keys of the steps that a step reads, each once; given models are there already."""
    return tuple(dict.fromkeys(read.key for _, read in step.inputs if isinstance(read, Step)))
