"""What `compressor bench` can be told."""

from dataclasses import dataclass

from compressor.config.ranges import need

ENGINES = ("torch", "onnxruntime", "openvino")


@dataclass(frozen=True)
class BenchConfig:
    """What is timed and for how long. Values: configs/bench.yaml.

    `original`: the folder of the network to compare with, or auto. `engines`: (auto,) are all that are installed.
    `threads` 0: all cores. `visit`: the images that one network answers before it is another's turn. `check`: the
    images on which exported files must answer as PyTorch does before they are timed.
    """

    original: str
    engines: tuple[str, ...]
    batches: tuple[int, ...]
    threads: int
    warmup: int
    repeats: int
    seconds: float
    visit: int
    check: int
    bf16: bool
    memory: bool

    def __post_init__(self) -> None:
        known = self.engines == ("auto",) or (set(self.engines) <= set(ENGINES) and len(self.engines) > 0)
        need(known, "bench.engines", list(self.engines), f"[auto] or some of {', '.join(ENGINES)}, in brackets")
        need(len(set(self.engines)) == len(self.engines), "bench.engines", list(self.engines), "each engine once")
        sizes = len(self.batches) > 0 and all(1 <= size <= 65_536 for size in self.batches)
        need(sizes, "bench.batches", list(self.batches), "at least one size, each 1 to 65536, as in [1,64,256]")
        need(len(set(self.batches)) == len(self.batches), "bench.batches", list(self.batches), "each size once")
        need(0 <= self.threads <= 1024, "bench.threads", self.threads, "0 (all cores) to 1024")
        need(0 <= self.warmup <= 1000, "bench.warmup", self.warmup, "0 to 1000 rounds")
        need(3 <= self.repeats <= 100_000, "bench.repeats", self.repeats, "3 to 100000 rounds")
        need(0 <= self.seconds <= 86_400, "bench.seconds", self.seconds, "0 to 86400 seconds")
        need(1 <= self.check <= 10_000_000, "bench.check", self.check, "1 to 10000000 images")
        need(1 <= self.visit <= 65_536, "bench.visit", self.visit, "1 to 65536 images")
