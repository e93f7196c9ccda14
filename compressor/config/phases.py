"""What each phase can be told."""

from dataclasses import dataclass, field
from enum import StrEnum

from compressor.arch import Arch, Bits, Criterion, check_exits, check_quantization
from compressor.arch import Exits as ExitRule
from compressor.arch import Quantization as QuantizationRule
from compressor.codec import SPARSE
from compressor.config.fit import FitConfig
from compressor.config.ranges import need
from compressor.errors import ConfigError


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
    blocks: tuple[int, ...] | None = field(default=None, metadata={SPARSE: True})

    def __post_init__(self) -> None:
        blocks = self.blocks
        need(blocks is None or min(blocks, default=0) > 0, "distill.blocks", blocks, "null, or 1 or more of each stage")
        need(0 < self.depth <= 1, "distill.depth", self.depth, "a fraction above 0, at most 1")
        need(0 < self.width <= 1, "distill.width", self.width, "a fraction above 0, at most 1")
        need(self.temperature > 0, "distill.temperature", self.temperature, "a number above 0")
        need(0 <= self.weight <= 1, "distill.weight", self.weight, "0 (labels only) to 1 (teacher only)")
        need(self.hint >= 0, "distill.hint", self.hint, "0 (off) or a weight above 0")
        wants_file = self.init is Init.WEIGHTS
        need(
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
        need(self.temperature > 0, "recovery.temperature", self.temperature, "a number above 0")
        need(0 <= self.weight <= 1, "recovery.weight", self.weight, "0 (labels only) to 1 (teacher only)")


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
        need(self.macs is None or self.params is None, "prune.target", self, "macs or params, not both")
        for name in ("macs", "params"):
            value = getattr(self, name)
            need(value is None or 0 < value < 1, f"prune.target.{name}", value, "a fraction between 0 and 1")


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
        need(0 <= self.ratio < 1, "prune.ratio", self.ratio, "0 to 1, 1 excluded")
        need(1 <= self.round_to <= 256, "prune.round_to", self.round_to, "1 to 256 channels")
        need(0 <= self.recalibrate <= 100_000, "prune.recalibrate", self.recalibrate, "0 to 100000 images")


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
        need(1 <= self.calibrate <= 100_000, "quantize.calibrate", self.calibrate, "1 to 100000 images")


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
