"""What is made of a finished model: files for other runtimes, and answers to images."""

from dataclasses import dataclass
from enum import StrEnum

from compressor.config.ranges import need


class ExportFormat(StrEnum):
    """What an export's files are: ONNX, OpenVINO's XML and BIN, or this program's own bit-packed file."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    PACKED = "packed"


class Container(StrEnum):
    """How ONNX stores integers: a byte each, which runs fastest, or the smallest type that a layer's widest fits."""

    INT8 = "int8"
    SMALLEST = "smallest"


class Arithmetic(StrEnum):
    """How ONNX rounds: as in training, or as the fastest kernels do; `auto`: the latter where it still agrees."""

    AUTO = "auto"
    EXACT = "exact"
    FUSED = "fused"


class OverflowFix(StrEnum):
    """Whether 8-bit layers are written so that x86 processors without VNNI are right; `auto`: if this may be one."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class PredictFormat(StrEnum):
    """How answers are written; `auto`: by the file's suffix, else a table in a terminal and JSON lines elsewhere."""

    AUTO = "auto"
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class Engine(StrEnum):
    """What computes; `auto`: onnxruntime or OpenVINO for their files, torch for checkpoints and packed files."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    NUMPY = "numpy"
    TORCH = "torch"


@dataclass(frozen=True)
class ExportConfig:
    """What `compressor export` writes. Values: configs/export.yaml."""

    format: ExportFormat
    container: Container
    arithmetic: Arithmetic = Arithmetic.AUTO
    differing: float = 0.001
    overflow_fix: OverflowFix = OverflowFix.AUTO

    def __post_init__(self) -> None:
        need(0 <= self.differing <= 1, "export.differing", self.differing, "a share of the test answers, 0 to 1")
        fits = self.container is Container.INT8 or self.format is ExportFormat.ONNX
        need(fits, "export.container", self.container, f"int8; smallest is for onnx, not for {self.format}")
        free = self.arithmetic is Arithmetic.AUTO or self.format is ExportFormat.ONNX
        need(free, "export.arithmetic", self.arithmetic, f"auto; exact and fused are for onnx, not for {self.format}")
        fixes = self.overflow_fix is not OverflowFix.ALWAYS or self.format is not ExportFormat.PACKED
        need(fixes, "export.overflow_fix", self.overflow_fix, "auto or never; packed files hold integers as they are")


@dataclass(frozen=True)
class PredictConfig:
    """How `compressor predict` answers. Values: configs/predict.yaml. `output` null: to the terminal or a pipe."""

    format: PredictFormat
    output: str | None
    engine: Engine
    batch: int

    def __post_init__(self) -> None:
        need(1 <= self.batch <= 256, "predict.batch", self.batch, "1 to 256 images")
