"""What an order study can be told."""

from dataclasses import dataclass
from typing import Any

from compressor.config.execution import ExecutionConfig
from compressor.config.ranges import need


@dataclass(frozen=True)
class PartsConfig:
    """Which parts of a study are run."""

    singles: bool
    pairwise: bool
    insertion: bool
    permutations: bool
    repetition: bool


@dataclass(frozen=True)
class StudyConfig:
    """Which orders are compared, over which settings and seeds. Values: configs/study/.

    `grid` gives each letter its settings, mildest first: what differs from the phase's own, such as `{ratio: 0.3}`.
    """

    letters: str
    seeds: tuple[int, ...]
    grid: dict[str, tuple[dict[str, Any], ...]]
    cross: bool
    setting: int
    parts: PartsConfig
    repeats: tuple[str, ...]
    reference: str
    level: float
    figures: bool
    plan: bool
    executor: str
    workers: int
    address: str
    cpus: float
    retries: int

    def __post_init__(self) -> None:
        letters = self.letters
        need(len(letters) >= 2, "study.letters", letters, "two letters or more, such as DPQE")
        need(
            len(set(letters)) == len(letters), "study.letters", letters, "each letter once; study.repeats repeats them"
        )
        need(len(self.seeds) > 0, "study.seeds", list(self.seeds), "at least one seed, five for a verdict")
        need(len(set(self.seeds)) == len(self.seeds), "study.seeds", list(self.seeds), "each seed once")
        need(all(0 <= seed < 2**31 for seed in self.seeds), "study.seeds", list(self.seeds), "seeds of 0 to 2147483647")
        need(0.001 <= self.level <= 0.5, "study.level", self.level, "0.001 to 0.5")
        assert self.execution, "its ranges are checked where it is made"
        self._check_grid()
        self._check_orders()

    @property
    def execution(self) -> ExecutionConfig:
        """Where the steps run."""
        return ExecutionConfig(self.executor, self.workers, self.address, self.cpus, self.retries)

    def _check_grid(self) -> None:
        for letter in self.letters:
            need(letter in self.grid, "study.letters", self.letters, f"settings for {letter} in study.grid.{letter}")
            need(len(self.grid[letter]) > 0, f"study.grid.{letter}", "[]", "at least one setting, such as [{}]")
        fewest = min(len(self.grid[letter]) for letter in self.letters)
        known = 0 <= self.setting < fewest
        need(known, "study.setting", self.setting, f"the number of a setting that all letters have: 0 to {fewest - 1}")
        lengths = {len(self.grid[letter]) for letter in self.letters}
        need(
            self.cross or len(lengths) == 1,
            "study.cross",
            self.cross,
            "true, or each letter the same number of settings",
        )

    def _check_orders(self) -> None:
        for order in (*self.repeats, self.reference):
            known = set(order) <= set(self.letters)
            need(
                known,
                "study.repeats" if order in self.repeats else "study.reference",
                order,
                f"letters of {self.letters}",
            )
