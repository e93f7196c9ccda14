"""How to train."""

from dataclasses import dataclass
from enum import StrEnum

from compressor.config.ranges import need


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
    """Arithmetic of training; evaluation is fp32. `auto`, bf16 where that is faster, is resolved first."""

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
        need(0 <= self.epochs <= 100_000, "fit.epochs", self.epochs, "0 to 100000")
        need(2 <= self.batch <= 65536, "fit.batch", self.batch, "2 to 65536; batch normalisation needs two")
        need(0 < self.lr <= 100, "fit.lr", self.lr, "a number above 0, at most 100")
        need(0 <= self.momentum < 1, "fit.momentum", self.momentum, "0 to 1, 1 excluded")
        need(0 <= self.weight_decay < 1, "fit.weight_decay", self.weight_decay, "0 to 1, 1 excluded")
        need(
            0 <= self.warmup <= 100_000, "fit.warmup", self.warmup, "epochs, 0 to 100000 (at most fit.epochs are used)"
        )
        need(0 <= self.label_smoothing < 1, "fit.label_smoothing", self.label_smoothing, "0 to 1, 1 excluded")
        need(0 <= self.ema < 1, "fit.ema", self.ema, "0 (off) to 1, 1 excluded")
        need(0 <= self.seed < 2**31, "fit.seed", self.seed, "0 to 2147483647")
