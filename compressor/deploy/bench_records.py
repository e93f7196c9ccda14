"""What is written of a benchmark, as plain data: the content of bench.json."""

from dataclasses import dataclass, field

from compressor.codec import SPARSE
from compressor.config import BenchConfig
from compressor.deploy.machine import Machine
from compressor.records import Value

SCHEMA = 1
ORIGINAL, COMPRESSED = "original", "compressed"


@dataclass(frozen=True)
class Timing:
    """What one network took, milliseconds a call. `shares` are the fractions of images that left at each head.

    A mixture's heads are the first expert's, then the second's and so on; `shares` are those of all its experts'
    answers. `images_per_second`: of the median round, as a stall of a busy machine would outweigh many rounds.
    """

    network: str
    engine: str
    precision: str
    batch: int
    rounds: int
    calls: int
    median_ms: float
    p95_ms: float
    images_per_second: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """How many times faster the compressed network is than its original, with 95 % intervals over the rounds.

    `throughput`: the median of the rounds' ratios; `latency`: the ratio of the median calls.
    """

    engine: str
    precision: str
    batch: int
    throughput: Value
    latency: Value


@dataclass(frozen=True)
class Footprint:
    """What a network takes on an engine, bytes. `file`: the files that the engine reads.

    `peak`: memory of a fresh process that answers a batch; `growth`: what of it came with the network. Null: not known.
    """

    network: str
    engine: str
    file: int
    batch: int
    peak: int | None
    growth: int | None


@dataclass(frozen=True)
class Benchmark:
    """The content of bench.json. `networks` gives the key of each; `images` counts the test images that were used.

    `experts`: how many heads each expert has, of networks that are mixtures.
    """

    schema: int
    networks: dict[str, str]
    data: str
    images: int
    machine: Machine
    settings: BenchConfig
    threads: int
    skipped: tuple[str, ...]
    timings: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]
    footprints: tuple[Footprint, ...]
    experts: dict[str, tuple[int, ...]] | None = field(default=None, metadata={SPARSE: True})
