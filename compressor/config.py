"""Everything a command can be told. Values and their comments: configs/; here are the types and the ranges."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from compressor.arch import Arch, Bits, Criterion, check_exits, check_quantization
from compressor.arch import Exits as ExitRule
from compressor.arch import Quantization as QuantizationRule
from compressor.errors import ConfigError


def _need(condition: bool, where: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{where}={value}: give {allowed}")


class Optimizer(StrEnum):
    """How weights step: SGD with Nesterov momentum, or AdamW."""

    SGD = "sgd"
    ADAMW = "adamw"


class Schedule(StrEnum):
    """How the learning rate moves after warm-up."""

    COSINE = "cosine"
    ONECYCLE = "onecycle"
    CONSTANT = "constant"


class Precision(StrEnum):
    """Arithmetic of training; evaluation is fp32. `auto`, bf16 where the processor computes it, is resolved first."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True)
class FitConfig:
    """How to train. Values: configs/fit/."""

    epochs: int
    batch: int
    optimizer: Optimizer
    lr: float
    momentum: float
    weight_decay: float
    schedule: Schedule
    warmup: float
    label_smoothing: float
    ema: float
    precision: Precision
    channels_last: bool
    compile: bool
    seed: int

    def __post_init__(self) -> None:
        _need(0 <= self.epochs <= 100_000, "fit.epochs", self.epochs, "0 to 100000")
        _need(1 <= self.batch <= 65536, "fit.batch", self.batch, "1 to 65536")
        _need(0 < self.lr <= 100, "fit.lr", self.lr, "a number above 0, at most 100")
        _need(0 <= self.momentum < 1, "fit.momentum", self.momentum, "0 to 1, 1 excluded")
        _need(0 <= self.weight_decay < 1, "fit.weight_decay", self.weight_decay, "0 to 1, 1 excluded")
        _need(
            0 <= self.warmup <= 100_000, "fit.warmup", self.warmup, "epochs, 0 to 100000 (at most fit.epochs are used)"
        )
        _need(0 <= self.label_smoothing < 1, "fit.label_smoothing", self.label_smoothing, "0 to 1, 1 excluded")
        _need(0 <= self.ema < 1, "fit.ema", self.ema, "0 (off) to 1, 1 excluded")
        _need(0 <= self.seed < 2**31, "fit.seed", self.seed, "0 to 2147483647")


@dataclass(frozen=True)
class AugmentConfig:
    """Batched augmentation of training images, on uint8 tensors. Values: configs/dataset/."""

    crop: int
    flip: bool
    cutout: int

    def __post_init__(self) -> None:
        _need(0 <= self.crop <= 64, "dataset.augment.crop", self.crop, "0 to 64 pixels of padding")
        _need(0 <= self.cutout <= 256, "dataset.augment.cutout", self.cutout, "0 to 256 pixels, the side of the square")


@dataclass(frozen=True)
class DatasetConfig:
    """Which images, how they are split and augmented. Values: configs/dataset/.

    `val` is `auto` (the set's own split, or 0.1 of train; digits 60/20/20), a fraction of train such as `0.2`, or
    `test_half` (val is a fixed half of test, and test the other half).
    """

    name: str
    root: str | None
    flag: str | None
    csv: str | None
    image_size: int | None
    channels: int | None
    limit: int | None
    val: str
    seed: int
    skip_unreadable: bool
    augment: AugmentConfig

    def __post_init__(self) -> None:
        _need(
            self.image_size is None or 4 <= self.image_size <= 1024, "dataset.image_size", self.image_size, "4 to 1024"
        )
        _need(self.channels in (None, 1, 3), "dataset.channels", self.channels, "1 (grey) or 3 (RGB)")
        _need(self.limit is None or self.limit >= 10, "dataset.limit", self.limit, "null or at least 10")
        if self.val not in ("auto", "test_half"):
            try:
                fraction = float(self.val)
            except ValueError:
                fraction = -1.0
            _need(0 < fraction < 1, "dataset.val", self.val, "auto, test_half or a fraction between 0 and 1")


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
        _need(0 < self.width <= 16, "architecture.width", self.width, "a factor above 0, at most 16")
        _need(self.stem in ("auto", "small", "large"), "architecture.stem", self.stem, "auto, small or large")


@dataclass(frozen=True)
class BaselineSettings:
    """Where the network starts. Values: configs/phase/baseline.yaml."""

    weights: str | None
    names: dict[str, str]
    fit: FitConfig


@dataclass(frozen=True)
class BaselineConfig:
    """The baseline step: a resolved arch, the digest of its published weights if any, and how to train it."""

    arch: Arch
    weights: str | None
    names: dict[str, str]
    fit: FitConfig


class Init(StrEnum):
    """Where a student's weights come from: fresh, the model's kept blocks, or a file of published weights."""

    FRESH = "fresh"
    INHERIT = "inherit"
    WEIGHTS = "weights"


@dataclass(frozen=True)
class DistillConfig:
    """How much smaller the student is and how it is taught. Values: configs/phase/distill.yaml."""

    depth: float
    width: float
    student: str | None
    init: Init
    weights: str | None
    teacher: str
    temperature: float
    weight: float
    hint: float
    fit: FitConfig

    def __post_init__(self) -> None:
        _need(0 < self.depth <= 1, "distill.depth", self.depth, "a fraction above 0, at most 1")
        _need(0 < self.width <= 1, "distill.width", self.width, "a fraction above 0, at most 1")
        _need(self.temperature > 0, "distill.temperature", self.temperature, "a number above 0")
        _need(0 <= self.weight <= 1, "distill.weight", self.weight, "0 (labels only) to 1 (teacher only)")
        _need(self.hint >= 0, "distill.hint", self.hint, "0 (off) or a weight above 0")
        wants_file = self.init is Init.WEIGHTS
        _need(
            wants_file == (self.weights is not None),
            "distill.weights",
            self.weights,
            "a file exactly when init=weights",
        )


@dataclass(frozen=True)
class RecoveryConfig:
    """Whether a phase recovers with a teacher beside the labels. `teacher`: none, baseline, input or a model folder."""

    teacher: str
    temperature: float
    weight: float

    def __post_init__(self) -> None:
        _need(self.temperature > 0, "recovery.temperature", self.temperature, "a number above 0")
        _need(0 <= self.weight <= 1, "recovery.weight", self.weight, "0 (labels only) to 1 (teacher only)")


class Importance(StrEnum):
    """What makes a channel worth keeping."""

    L1 = "l1"
    L2 = "l2"
    BN_SCALE = "bn_scale"
    FPGM = "fpgm"
    TAYLOR = "taylor"
    RANDOM = "random"


class Scope(StrEnum):
    """Whether channels compete within their axis (`layer`) or across the network (`global`)."""

    LAYER = "layer"
    GLOBAL = "global"


@dataclass(frozen=True)
class PruneTarget:
    """The share of MACs or of parameters that pruning leaves; at most one of the two."""

    macs: float | None
    params: float | None

    def __post_init__(self) -> None:
        _need(self.macs is None or self.params is None, "prune.target", self, "macs or params, not both")
        for name in ("macs", "params"):
            value = getattr(self, name)
            _need(value is None or 0 < value < 1, f"prune.target.{name}", value, "a fraction between 0 and 1")


@dataclass(frozen=True)
class PruneConfig:
    """Which channels go, and how the rest recovers. Values: configs/phase/prune.yaml."""

    ratio: float
    target: PruneTarget
    criterion: Importance
    scope: Scope
    round_to: int
    recalibrate: int
    recovery: RecoveryConfig
    fit: FitConfig

    def __post_init__(self) -> None:
        _need(0 <= self.ratio < 1, "prune.ratio", self.ratio, "0 to 1, 1 excluded")
        _need(1 <= self.round_to <= 256, "prune.round_to", self.round_to, "1 to 256 channels")
        _need(0 <= self.recalibrate <= 100_000, "prune.recalibrate", self.recalibrate, "0 to 100000 images")


@dataclass(frozen=True)
class QuantizeConfig:
    """The bits, how ranges are found, and how weights recover. Values: configs/phase/quantize.yaml."""

    bits: Bits
    edge_bits: int
    calibrate: int
    recovery: RecoveryConfig
    fit: FitConfig

    def __post_init__(self) -> None:
        try:
            check_quantization(QuantizationRule(self.bits, self.edge_bits))
        except ConfigError as error:
            raise ConfigError(f"quantize: {error}") from None
        _need(1 <= self.calibrate <= 100_000, "quantize.calibrate", self.calibrate, "1 to 100000 images")


class Train(StrEnum):
    """Which weights early exits train: the heads alone, or the whole network with them."""

    JOINT = "joint"
    HEADS = "heads"


@dataclass(frozen=True)
class ExitConfig:
    """Where early heads stand, when images leave, and how heads train. Values: configs/phase/exit.yaml."""

    positions: tuple[float, ...]
    criterion: Criterion
    drop: float
    width: int
    train: Train
    recovery: RecoveryConfig
    fit: FitConfig

    def __post_init__(self) -> None:
        try:
            check_exits(ExitRule(self.positions, self.criterion, self.drop, self.width))
        except ConfigError as error:
            raise ConfigError(f"exit: {error}") from None


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
        _need(self.device in ("auto", "cpu", "cuda"), "runtime.device", self.device, "auto, cpu or cuda")
        _need(0 <= self.threads <= 1024, "runtime.threads", self.threads, "0 (chosen) to 1024")
        _need(0 <= self.workers <= 1024, "runtime.workers", self.workers, "0 (chosen) to 1024")
        _need(self.save_seconds > 0, "runtime.save_seconds", self.save_seconds, "seconds above 0")


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

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name)
        _need(plain is not None, "name", self.name, "letters, digits, dots, dashes and underscores: it names a folder")
