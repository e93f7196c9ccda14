"""What a joint search of sparsity and bits can be told."""

from dataclasses import dataclass, replace
from enum import StrEnum

from compressor.config.fit import FitConfig
from compressor.config.phases import Importance, RecoveryConfig
from compressor.config.ranges import need
from compressor.search.types import Agent, Mode

LIMITS = ("size", "bitops", "macs", "latency_ms")
"""What a budget may limit: shares of the baseline's size in bits, BitOps and MACs, and milliseconds."""


class Algorithm(StrEnum):
    """How a controller learns (stable-baselines3)."""

    DDPG = "ddpg"
    TD3 = "td3"
    SAC = "sac"


@dataclass(frozen=True)
class SearchBudget:
    """What the found network may cost at most; null: no such limit.

    `size`, `bitops` and `macs` are shares of the baseline's; `latency_ms` is milliseconds an image on this machine.
    """

    size: float | None
    bitops: float | None
    macs: float | None
    latency_ms: float | None

    def __post_init__(self) -> None:
        for name in ("size", "bitops", "macs"):
            value = getattr(self, name)
            need(value is None or 0 < value <= 1, f"search.budget.{name}", value, "a share above 0, at most 1")
        milliseconds = self.latency_ms
        need(milliseconds is None or milliseconds > 0, "search.budget.latency_ms", milliseconds, "a number above 0")
        need(bool(self.given), "search.budget", "null", f"at least one of {', '.join(LIMITS)}")

    @property
    def given(self) -> dict[str, float]:
        """Give the limits that are set, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class FinalConfig:
    """How what was found is trained to its end: images that calibrate and set norms anew, a teacher, the training."""

    calibrate: int
    recalibrate: int
    recovery: RecoveryConfig
    fit: FitConfig

    def __post_init__(self) -> None:
        need(1 <= self.calibrate <= 100_000, "search.joint.calibrate", self.calibrate, "1 to 100000 images")
        need(0 <= self.recalibrate <= 100_000, "search.joint.recalibrate", self.recalibrate, "0 to 100000 images")
        teacher = self.recovery.teacher
        need(teacher in ("none", "baseline"), "search.joint.recovery.teacher", teacher, "none or baseline")


@dataclass(frozen=True)
class SearchConfig:
    """What is searched, by whom, and how long. Values: configs/search/.

    `bits` is what a channel has in fixed mode if not 0; `groups` the number of groups into which a layer's kept
    channels are split by importance; `min_keep` the least share of an axis that stays; `images` those of val that a
    candidate is evaluated on (0: all); `tune` the batches of training before that, at a learning rate that falls
    from `tune_lr` to 0, with the teacher of `joint.recovery` and otherwise as `joint.fit`; `warmup` the evaluations
    before a controller learns; `noise` that on its actions; `workers` the processes that search and train at once. Of
    the best candidates `finalists` are scored again, to choose from, after `finalist_batches` of such training (0 or
    1: off).
    """

    budget: SearchBudget
    agent: Agent
    algorithm: Algorithm
    mode: Mode
    bits: int
    act_bits: int
    search_acts: bool
    groups: int
    min_keep: float
    criterion: Importance
    evaluations: int
    images: int
    recalibrate: int
    tune: int
    tune_lr: float
    rivals: tuple[Agent, ...]
    seeds: tuple[int, ...]
    warmup: int
    noise: float
    workers: int
    figures: bool
    joint: FinalConfig
    finalists: int
    finalist_batches: int

    def __post_init__(self) -> None:
        self._check_space()
        self._check_agents()
        need(1 <= self.workers <= 256, "search.workers", self.workers, "1 (this process) to 256 processes")
        need(1 <= self.evaluations <= 1_000_000, "search.evaluations", self.evaluations, "1 to 1000000 candidates")
        need(0 <= self.images <= 1_000_000, "search.images", self.images, "0 (all of val) to 1000000 images")
        need(0 <= self.recalibrate <= 100_000, "search.recalibrate", self.recalibrate, "0 (off) to 100000 images")
        need(0 <= self.tune <= 100_000, "search.tune", self.tune, "0 (off) to 100000 batches")
        need(0 < self.tune_lr <= 100, "search.tune_lr", self.tune_lr, "a number above 0, at most 100")
        need(0 <= self.finalists <= 1000, "search.finalists", self.finalists, "0 (off) to 1000 candidates")
        batches = self.finalist_batches
        need(1 <= batches <= 100_000, "search.finalist_batches", batches, "1 to 100000 batches")
        need(0 <= self.warmup <= 1_000_000, "search.warmup", self.warmup, "0 to 1000000 evaluations")
        need(0 <= self.noise <= 1, "search.noise", self.noise, "0 to 1")
        seeds = self.seeds
        need(len(seeds) > 0, "search.seeds", list(seeds), "at least one seed, three for a spread")
        need(len(set(seeds)) == len(seeds), "search.seeds", list(seeds), "each seed once")
        need(all(0 <= seed < 2**31 for seed in seeds), "search.seeds", list(seeds), "seeds of 0 to 2147483647")

    def _check_space(self) -> None:
        need(1 <= self.bits <= 8, "search.bits", self.bits, "1 to 8")
        need(2 <= self.act_bits <= 8, "search.act_bits", self.act_bits, "2 to 8")
        need(1 <= self.groups <= 64, "search.groups", self.groups, "1 to 64 groups of channels")
        need(0 < self.min_keep <= 1, "search.min_keep", self.min_keep, "a share above 0, at most 1")

    def _check_agents(self) -> None:
        ours, rivals = self.agent, self.rivals
        need(ours in (Agent.JOINT, Agent.FLAT), "search.agent", ours, "joint or flat; the others are search.rivals")
        need(ours not in rivals, "search.rivals", _names(rivals), f"agents other than search.agent={ours}")
        need(len(set(rivals)) == len(rivals), "search.rivals", _names(rivals), "each rival once")
        itself = self.mode is Mode.FIXED and self.bits in [rival.fixed for rival in rivals]
        but = f"other than fixed_{self.bits}, as search.mode=fixed search.bits={self.bits} is that"
        need(not itself, "search.rivals", _names(rivals), f"agents {but}")

    def told(self, agent: Agent) -> "SearchConfig":
        """Give what a rival is told: a `fixed_` one that it is in fixed mode, with its number of bits."""
        return replace(self, mode=Mode.FIXED, bits=agent.fixed, rivals=()) if agent.fixed else self


@dataclass(frozen=True)
class SearchTask:
    """One search: all that its step's key contains beside the network.

    `agent` is who decides, so none of the `fixed_` rivals, who are the method in fixed mode. `latency` is the digest of
    the layers' timings, where latency is limited.
    """

    search: SearchConfig
    agent: Agent
    seed: int
    latency: str | None


def _names(agents: tuple[Agent, ...]) -> list[str]:
    return [str(agent) for agent in agents]
