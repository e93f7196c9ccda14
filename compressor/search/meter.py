"""What wishes cost where nothing is limited: only what differs from the wishes before is counted anew."""

from collections.abc import Iterator

import numpy as np

from compressor.search.budget import Tally, least_of
from compressor.search.space import LEAST_ACT, MOST, Space
from compressor.search.walk import Decision, decisions_of


class Meter:
    """A bill that follows wishes, one in [0, 1] for each decision of a space, as a walk without limits would count it.

    Each becomes the nearest number that its decision has, of equally near ones the lower; a group that has no channels
    becomes 0.
    """

    def __init__(self, space: Space) -> None:
        self._decisions, self._tally = decisions_of(space), least_of(space).copy()
        self._two = len(self._tally.options) == 1  # numbers of bits: 0 and one other
        ranges = [self._range(decision) for decision in self._decisions]
        self._least, self._top = (np.array(each) for each in zip(*ranges, strict=True))
        self._bits = np.array([decision.kind == "bits" for decision in self._decisions])
        self._groups = np.array([decision.group for decision in self._decisions])
        written = {layer.name: layer.writes for layer in space.layers}
        axes = {d.name: i for i, d in enumerate(self._decisions) if d.kind == "keep"}
        self._axes = np.array([axes[written[d.name]] if d.kind == "bits" else 0 for d in self._decisions])
        self._now = self._least

    def read(self, wishes: np.ndarray) -> Tally:
        """Give the bill of wishes (decisions,); it is good until the next is read, so copy what is to stay."""
        numbers = self._numbers(wishes)
        for i in self._changes(numbers):
            decision, number = self._decisions[i], int(numbers[i])
            match decision.kind:
                case "keep":
                    self._tally.keep(decision.name, number)
                case "acts":
                    self._tally.act(decision.name, number)
                case _:
                    self._tally.weigh(decision.name, decision.group, number)
        self._now = numbers
        return self._tally

    def _changes(self, numbers: np.ndarray) -> Iterator[int]:
        """List the decisions that change: bits that go before their groups do, bits that come after these came."""
        changed = numbers != self._now
        goes, comes = changed & self._bits & (numbers == 0), changed & self._bits & (numbers != 0)
        for each in (goes, changed & ~self._bits, comes):
            yield from np.flatnonzero(each).tolist()

    def _numbers(self, wishes: np.ndarray) -> np.ndarray:
        wanted = np.fmin(1.0, np.fmax(0.0, wishes)) * self._top
        whole = np.floor(wanted)
        nearest = np.where(wanted - whole <= 0.5, whole, whole + 1).astype(int)
        if self._two:
            nearest = np.where(self._bits, np.where(wanted <= self._top - wanted, 0, self._top), nearest)
        numbers = np.maximum(nearest, self._least)
        return np.where(self._bits & (self._groups >= numbers[self._axes]), 0, numbers)

    def _range(self, decision: Decision) -> tuple[int, int]:
        """Give the least and the greatest number of a decision, which a wish of 1 stands for."""
        space, options = self._tally.space, self._tally.options
        if decision.kind == "keep":
            return space.least[decision.name], space.axes[decision.name]
        if decision.kind == "acts":
            return LEAST_ACT, MOST
        return (0 if decision.group else options[0]), options[-1]
