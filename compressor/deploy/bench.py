"""`compressor bench`: the latency, throughput, memory and file bytes of a compressed network and its original."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.arch import exit_blocks
from compressor.config import BenchConfig, RunConfig
from compressor.config.deploy import Container, ExportConfig
from compressor.data.types import Data, Split
from compressor.deploy.bench_engines import ENGINES, choose, runner
from compressor.deploy.bench_memory import measured, peak_of
from compressor.deploy.bench_records import COMPRESSED, ORIGINAL, SCHEMA, Benchmark, Footprint, Ratio, Timing
from compressor.deploy.bench_stats import Cell, Runner, cycle, ratios, take_times, timing
from compressor.deploy.machine import Machine, machine
from compressor.deploy.note import read_note
from compressor.folders import MIXTURE, WEIGHTS, disk, form_of, read_arch, read_mixture
from compressor.pipeline import Given
from compressor.planning import fitting, original_of
from compressor.progress import Advance, Progress

EXPORTS = "exports"


@dataclass(frozen=True)
class Subject:
    """A network that is timed: its name here, its step's key, its checkpoint, and its heads, of a mixture by expert."""

    name: str
    key: str
    folder: Path
    heads: tuple[int, ...]

    @property
    def mixture(self) -> bool:
        """Whether it is several networks."""
        return len(self.heads) > 1


def subjects(config: RunConfig, data: Data) -> tuple[Subject, ...]:
    """Find the compressed network and its original; one that is its own original is alone.

    Raises:
        ConfigError: a folder holds no model of these images and this task, or the original is not to be found.
    """
    assert config.checkpoint is not None, "the command needs it"
    assert config.bench is not None, "configs/bench.yaml has it"
    source = fitting(Path(config.checkpoint), "checkpoint", data, mixtures=True)
    original = _original_of(config, source, data)
    if original.key == source.key:
        return (_subject(ORIGINAL, source),)
    return _subject(ORIGINAL, original), _subject(COMPRESSED, source)


def _original_of(config: RunConfig, source: Given, data: Data) -> Given:
    named = config.bench.original if config.bench else "auto"
    if named != "auto":
        return fitting(Path(named), "bench.original", data, mixtures=True)
    found = original_of(config, source, "bench.original=auto", "give bench.original=FOLDER, a model's folder")
    assert isinstance(found, Given), "what a checkpoint came from is on disk"
    return found


def _subject(name: str, source: Given) -> Subject:
    mixed = form_of(source.folder) == MIXTURE
    archs = read_mixture(source.folder).experts if mixed else (read_arch(source.folder),)
    return Subject(name, source.key, source.folder, tuple(1 + len(exit_blocks(arch)) for arch in archs))


def benchmark(run: RunConfig, data: Data, folder: Path, progress: Progress) -> Benchmark:
    """Export the networks into `folder`, then time them in turns on every engine, on the test images.

    Raises:
        CompressorError: a network or an engine is missing, or exported files do not answer as PyTorch does.
    """
    assert run.bench is not None, "configs/bench.yaml has it"
    config, here = run.bench, machine()
    (engines, skipped), networks = choose(config.engines), subjects(run, data)
    threads = config.threads or here.cores
    folders = {(s.name, name): _files(s, name, data, run, folder) for s in networks for name in engines}
    footprints = tuple(_footprint(*which, path, data, config, threads) for which, path in folders.items())
    runners = {
        Cell(network, name, precision): runner(path, name, precision, threads)
        for (network, name), path in folders.items()
        for precision in precisions(name, config, here)
    }
    timings, compared = _timed(runners, networks, data, config, progress)
    return Benchmark(
        schema=SCHEMA,
        networks={subject.name: subject.key for subject in networks},
        data=data.fingerprint,
        images=len(data.test),
        machine=here,
        settings=config,
        threads=threads,
        skipped=skipped,
        timings=timings,
        ratios=compared,
        footprints=footprints,
        experts={subject.name: subject.heads for subject in networks if subject.mixture} or None,
    )


def precisions(engine: str, config: BenchConfig, here: Machine) -> tuple[str, ...]:
    """Say in which arithmetic an engine is timed: fp32, and bf16 where it and the processor compute it."""
    return ("fp32", "bf16") if config.bf16 and here.bf16 and ENGINES[engine].bf16 else ("fp32",)


def _files(subject: Subject, engine: str, data: Data, config: RunConfig, folder: Path) -> Path:
    """Give the folder that an engine reads a network from: its checkpoint, or an export, made once a format."""
    if (kind := ENGINES[engine].format) is None:
        return subject.folder
    from compressor.deploy.export import export

    assert config.bench is not None, "configs/bench.yaml has it"
    made, count = folder / EXPORTS / f"{subject.name}-{kind}", config.bench.check
    shown = Split(np.asarray(data.test.images[:count]), data.test.targets[:count])
    export(subject.folder, ExportConfig(kind, Container.INT8), made, shown, config.runtime)
    return made


def _footprint(network: str, engine: str, folder: Path, data: Data, config: BenchConfig, threads: int) -> Footprint:
    batch = max(config.batches)
    if ENGINES[engine].format is None:
        with disk(folder):
            size = sum((folder / name).stat().st_size for name in (form_of(folder), WEIGHTS))
    else:
        size = read_note(folder).file_bytes
    if not (config.memory and measured()):
        return Footprint(network, engine, size, batch, None, None)
    peak = peak_of(folder, engine, "fp32", threads, cycle(data.test.images, batch, 0))
    return Footprint(network, engine, size, batch, peak.peak, peak.growth)


def _timed(
    runners: dict[Cell, Runner], networks: Sequence[Subject], data: Data, config: BenchConfig, progress: Progress
) -> tuple[tuple[Timing, ...], tuple[Ratio, ...]]:
    heads = {subject.name: sum(subject.heads) for subject in networks}
    timings: list[Timing] = []
    compared: list[Ratio] = []
    with progress("bench", 100 * len(config.batches)) as advance:
        for batch in config.batches:
            times = take_times(runners, data.test.images, batch, config, _percents(advance, f"batch {batch}"))
            timings += [timing(cell, batch, heads[cell.network], each) for cell, each in times.items()]
            compared += ratios(times, batch)
    return tuple(timings), tuple(compared)


def _percents(advance: Advance, remark: str) -> Callable[[float], None]:
    """Turn growing shares of the work into whole percents that are told once."""
    told = 0

    def tell(share: float) -> None:
        nonlocal told
        percent = int(100 * share)
        advance(percent - told, remark)
        told = percent

    return tell
