"""Times of several networks on several engines, taken in turns, and what they say: medians, throughput, ratios.

In turns, because a machine's speed drifts: what is compared is then measured within the same seconds, on the same
images, and ratios of what was measured side by side hold where single times do not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.config import BenchConfig
from compressor.data.types import Rows
from compressor.deploy.bench_records import COMPRESSED, ORIGINAL, Ratio, Timing
from compressor.records import Value

RESAMPLES = 1000
"""Bootstrap samples behind an interval."""

Runner = Callable[[np.ndarray], np.ndarray]
"""Answers images, uint8 (N, C, H, W), and gives the head that each left at (N,)."""

Comparison = Callable[[np.ndarray, np.ndarray], float]
"""Compares the seconds of an original and of a compressed network, each (rounds, calls)."""


@dataclass(frozen=True)
class Cell:
    """One network on one engine. `precision`: fp32 or bf16, that of what is not quantized to integers."""

    network: str
    engine: str
    precision: str


@dataclass(frozen=True)
class Times:
    """The seconds of every call (rounds, calls a visit), and how many images left at each head (heads,).

    Heads after the last one that an image left at are not counted.
    """

    seconds: np.ndarray
    left: np.ndarray


def turns(cells: Sequence[Cell], number: int) -> list[Cell]:
    """Order the cells of a round.

    A network and its original follow each other directly. The pair that begins changes from round to round, and once
    every pair has begun, so does which of the two is first; so each cell stands in each place equally often.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.engine, cell.precision), []).append(cell)
    pairs, start = list(groups.values()), number % len(groups)
    turned = pairs[start:] + pairs[:start]
    step = -1 if number // len(pairs) % 2 else 1
    return [cell for pair in turned for cell in pair[::step]]


def cycle(images: np.ndarray | Rows, batch: int, number: int) -> np.ndarray:
    """Give the batch of a number, uint8 (batch, C, H, W), from images that follow each other in a ring."""
    return np.asarray(images[(number * batch + np.arange(batch)) % len(images)])


def take_times(
    runners: Mapping[Cell, Runner],
    images: np.ndarray | Rows,
    batch: int,
    config: BenchConfig,
    tell: Callable[[float], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Cell, Times]:
    """Time every cell in turns at one batch size; `tell` hears which share of the rounds is done.

    In a round all cells answer the same images; the next round takes the next ones. Rounds go on until there are
    `repeats` of them and they have lasted for `seconds`.
    """
    calls = max(1, config.visit // batch)
    seconds: dict[Cell, list[list[float]]] = {cell: [] for cell in runners}
    exits: dict[Cell, list[np.ndarray]] = {cell: [] for cell in runners}
    began, number, done = clock(), 0, 0
    while done < config.repeats or clock() - began < config.seconds:
        if number == config.warmup:
            began = clock()
        batches = [cycle(images, batch, number * calls + i) for i in range(calls)]
        for cell in turns(list(runners), number):
            taken, left = _visit(runners[cell], batches, clock)
            if number >= config.warmup:
                seconds[cell].append(taken)
                exits[cell].append(left)
        number += 1
        done = max(0, number - config.warmup)
        tell(min(done / config.repeats, (clock() - began) / config.seconds if config.seconds else 1.0, 1.0))
    return {cell: Times(np.array(seconds[cell]), np.bincount(np.concatenate(exits[cell]))) for cell in runners}


def _visit(run: Runner, batches: list[np.ndarray], clock: Callable[[], float]) -> tuple[list[float], np.ndarray]:
    run(batches[-1])  # untimed: brings weights and threads back after the turn of another
    seconds, exits = [], []
    for images in batches:
        began = clock()
        left = run(images)
        seconds.append(clock() - began)
        exits.append(left)
    return seconds, np.concatenate(exits)


def timing(cell: Cell, batch: int, heads: int, times: Times) -> Timing:
    """Summarise what one cell took at one batch size."""
    seconds, left = times.seconds, np.pad(times.left, (0, heads - len(times.left)))
    return Timing(
        network=cell.network,
        engine=cell.engine,
        precision=cell.precision,
        batch=batch,
        rounds=len(seconds),
        calls=seconds.size,
        median_ms=1000 * float(np.median(seconds)),
        p95_ms=1000 * float(np.quantile(seconds, 0.95)),
        images_per_second=float(batch * seconds.shape[1] / np.median(seconds.sum(axis=1))),
        shares=tuple(float(share) for share in left / left.sum()),
    )


def by_rounds(original: np.ndarray, compressed: np.ndarray) -> float:
    """Give the median over the rounds of how many times longer the original took in the same round."""
    return float(np.median(original.sum(axis=1) / compressed.sum(axis=1)))


def by_calls(original: np.ndarray, compressed: np.ndarray) -> float:
    """Give the original's median call over the compressed network's."""
    return float(np.median(original) / np.median(compressed))


def speedup(original: np.ndarray, compressed: np.ndarray, ratio: Comparison, seed: int = 0) -> Value:
    """Give a ratio of the seconds, each (rounds, calls), with its 95 % interval.

    Rounds are resampled with both networks' times together (a paired bootstrap), so drift between rounds cancels.
    """
    source, rounds = np.random.default_rng(seed), len(original)
    each = []
    for _ in range(RESAMPLES):
        rows = source.integers(rounds, size=rounds)
        each.append(ratio(original[rows], compressed[rows]))
    low, high = np.quantile(each, [0.025, 0.975])
    return Value(ratio(original, compressed), float(low), float(high))


def ratios(times: Mapping[Cell, Times], batch: int) -> tuple[Ratio, ...]:
    """Compare each compressed cell with the original on the same engine in the same precision, where both are there."""
    found = []
    for cell, own in times.items():
        other = times.get(Cell(ORIGINAL, cell.engine, cell.precision))
        if cell.network == COMPRESSED and other is not None:
            pair = other.seconds, own.seconds
            both = speedup(*pair, by_rounds), speedup(*pair, by_calls)
            found.append(Ratio(cell.engine, cell.precision, batch, *both))
    return tuple(found)
