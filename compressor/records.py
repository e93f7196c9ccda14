"""What is written of a finished step, as plain data: metrics and record. Definitions: docs/numbers.md."""

from dataclasses import dataclass, field
from typing import Any

from compressor.codec import SPARSE

SCHEMA, RECORD_SCHEMA = 1, 2
"""The versions of metrics.json and of record.json, whose first version had no check of its own."""


@dataclass(frozen=True)
class Value:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """How well `n` images are answered. Keys of `scores`: accuracy, top5, auc, mae, rmse, r2 (as the task has them)."""

    n: int
    loss: float
    scores: dict[str, Value]


@dataclass(frozen=True)
class SplitMetrics:
    """One split. `quality` is of the path each image takes; `heads` are every head's on all images, final one last.

    `shares` are the fractions of images that leave at each head; `macs` and `bitops` are means over the images. Of a
    mixture, `heads` are its experts' and `shares` the fractions of images that each answers.
    """

    quality: Quality
    heads: tuple[Quality, ...]
    shares: tuple[float, ...]
    macs: float
    bitops: float


@dataclass(frozen=True)
class Cost:
    """What a model costs. `macs` and `bitops`: one image through the whole network, exit heads included."""

    params: int
    macs: int
    bitops: int
    size_bits: int
    checkpoint_bytes: int


@dataclass(frozen=True)
class PartRecord:
    """What one network of a mixture costs; without the first stage where that is shared."""

    params: int
    macs: int
    bitops: int
    size_bits: int


@dataclass(frozen=True)
class RoutesRecord:
    """Who answers one split.

    `by_class`: of each class, or of the images with each label, the fraction that each expert answers; empty for
    regression. `oracle`: the mean quality of an image, accuracy or minus MAE, where its best expert answers.
    """

    by_class: tuple[tuple[float, ...], ...]
    oracle: float


@dataclass(frozen=True)
class TimeRecord:
    """Seconds an image in batches of `batch`: in all, and for the router's scores and choice, 0 without a router."""

    batch: int
    seconds: float
    router: float


@dataclass(frozen=True)
class MixtureRecord:
    """What only a mixture has. `overhead`: the router's share of the mean MACs over test.

    `first`: the first stage where it is shared, else zeros. `collapsed`: the expert that gets nearly all images of val
    although the others would help, or None.
    """

    routing: str
    first: PartRecord
    router: PartRecord
    experts: tuple[PartRecord, ...]
    val: RoutesRecord
    test: RoutesRecord
    overhead: float
    collapsed: int | None
    times: tuple[TimeRecord, ...]


@dataclass(frozen=True)
class Measurement:
    """Quality and cost of one model."""

    val: SplitMetrics
    test: SplitMetrics
    cost: Cost
    mixture: MixtureRecord | None = field(default=None, metadata={SPARSE: True})


@dataclass(frozen=True)
class Original:
    """The full-precision network at the start of a chain, which ratios refer to."""

    key: str
    bitops: float
    size_bits: int


@dataclass(frozen=True)
class Metrics:
    """The content of metrics.json. `bitops_ratio` uses the mean BitOps over test."""

    schema: int
    key: str
    phase: str
    before: Measurement | None
    after: Measurement
    original: Original
    bitops_ratio: float
    size_ratio: float
    seconds: float


@dataclass(frozen=True)
class InputRecord:
    """A model that a step read: the key of the step that made it and the digest of its files."""

    key: str
    model: str


@dataclass(frozen=True)
class Record:
    """The content of record.json: what a finished step was made from and what it made.

    `model` is the digest of arch.json, or mixture.json, and weights.safetensors; `files` are those of the other files
    by name.
    """

    schema: int
    key: str
    phase: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, InputRecord]
    data: str
    model: str
    original: Original
    seconds: float
    created: str
    environment: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
