"""Where the steps of a study run, and on how much."""

from dataclasses import dataclass

from compressor.config.ranges import need

EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class ExecutionConfig:
    """Which executor runs a study's steps. Values: the section of the study, such as configs/study/.

    `workers`: processes of `local`; 1 is this one. `address`: `local` starts Ray here, anything else is a cluster's.
    `cpus`: what Ray reserves for a step. `retries`: how often a step is run again whose worker died.
    """

    executor: str
    workers: int
    address: str
    cpus: float
    retries: int

    def __post_init__(self) -> None:
        need(self.executor in EXECUTORS, "study.executor", self.executor, " or ".join(EXECUTORS))
        need(1 <= self.workers <= 256, "study.workers", self.workers, "1 to 256 processes")
        need(self.address.strip() != "", "study.address", "''", "local, or the address of a Ray cluster such as auto")
        whole = self.cpus < 1 or self.cpus == int(self.cpus)
        need(0 < self.cpus <= 1024 and whole, "study.cpus", self.cpus, "a part of 1 such as 0.5, or 1, 2 .. 1024")
        need(0 <= self.retries <= 100, "study.retries", self.retries, "0 to 100")
