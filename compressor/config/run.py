"""What every command gets."""

import re
from dataclasses import dataclass, field
from typing import Any

from compressor.config.bench import BenchConfig
from compressor.config.deploy import ExportConfig, PredictConfig
from compressor.config.fit import FitConfig
from compressor.config.images import DatasetConfig
from compressor.config.moe import MoeSettings
from compressor.config.phases import BaselineSettings, DistillConfig, ExitConfig, PruneConfig, QuantizeConfig
from compressor.config.ranges import need
from compressor.config.search import SearchConfig
from compressor.config.study import StudyConfig


@dataclass(frozen=True)
class ArchitectureConfig:
    """Which network. Values: configs/architecture/. `network` describes one's own (see docs/networks.md).

    `mean` and `std` null: the training images' own; published weights want what they were trained with.
    """

    name: str
    width: float
    stem: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    network: dict[str, Any] | None

    def __post_init__(self) -> None:
        need(0 < self.width <= 16, "architecture.width", self.width, "a factor above 0, at most 16")
        need(self.stem in ("auto", "small", "large"), "architecture.stem", self.stem, "auto, small or large")


@dataclass(frozen=True)
class RuntimeConfig:
    """How to run. Nothing here is part of a key. Values: configs/run.yaml.

    `threads` and `workers` 0 mean: chosen for the network and the machine. `data_cache` null: the user's cache folder.
    """

    device: str
    threads: int
    workers: int
    data_cache: str | None
    progress: bool
    save_seconds: float

    def __post_init__(self) -> None:
        need(self.device in ("auto", "cpu", "cuda"), "runtime.device", self.device, "auto, cpu or cuda")
        need(0 <= self.threads <= 1024, "runtime.threads", self.threads, "0 (chosen) to 1024")
        need(0 <= self.workers <= 1024, "runtime.workers", self.workers, "0 (chosen) to 1024")
        need(self.save_seconds > 0, "runtime.save_seconds", self.save_seconds, "seconds above 0")


@dataclass(frozen=True)
class CleanConfig:
    """What `compressor clean` does: list what nothing refers to, or delete it."""

    delete: bool


@dataclass(frozen=True)
class RunConfig:
    """What every command gets. Values: configs/run.yaml and what it includes."""

    name: str
    order: str
    checkpoint: str | None
    seed: int
    store: str
    runs: str
    cost_table: bool
    dataset: DatasetConfig
    architecture: ArchitectureConfig
    fit: FitConfig
    baseline: BaselineSettings
    distill: DistillConfig
    prune: PruneConfig
    quantize: QuantizeConfig
    exit: ExitConfig
    runtime: RuntimeConfig
    clean: CleanConfig = field(default=CleanConfig(delete=False))
    bench: BenchConfig | None = None
    study: StudyConfig | None = None
    moe: MoeSettings | None = None
    search: SearchConfig | None = None
    export: ExportConfig | None = None
    predict: PredictConfig | None = None
    model: str | None = None
    input: str | None = None

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name)
        need(plain is not None, "name", self.name, "letters, digits, dots, dashes and underscores: it names a folder")
