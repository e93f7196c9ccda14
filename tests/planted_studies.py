"""Studies whose truth is planted: fronts with the noise of training again, and effects of known size."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from compressor.studies.comparing import PairPoints
from compressor.studies.fronts import Point

LETTERS = "DPQE"


@dataclass(frozen=True)
class Plant:
    """How a study turns out: sizes in accuracy of 0..1, `costs` in natural logarithms of the ratio.

    `baseline` is shared by all chains of a seed; `noise` is of each chain; `noisy` multiplies it for single pairs.
    """

    seeds: int = 5
    settings: int = 3
    noise: float = 0.004
    baseline: float = 0.006
    costs: float = 0.03
    images: int = 5000
    noisy: Mapping[str, float] | None = None


def study(random: np.random.Generator, effects: Mapping[str, float], plant: Plant) -> dict[tuple[str, str], PairPoints]:
    """Plant both orders of each pair; `effects` says how far an order such as DP is ahead of its reverse."""
    shared = random.normal(0, plant.baseline, plant.seeds)
    pairs = {}
    for x, y in itertools.combinations(LETTERS, 2):
        own = replace(plant, noise=plant.noise * (plant.noisy or {}).get(x + y, 1.0))
        lift = effects.get(x + y, 0.0) / 2
        pairs[x, y] = PairPoints(
            chains(random, x + y, lift, shared, own), chains(random, y + x, -lift, shared, own)
        )  # fmt: skip
    return pairs


def chains(random: np.random.Generator, order: str, lift: float, shared: np.ndarray, plant: Plant) -> tuple[Point, ...]:
    """Plant the chains of one order: each setting doubles the ratio and costs more accuracy than the one before."""
    found = []
    for setting, seed in itertools.product(range(plant.settings), range(plant.seeds)):
        true = 0.95 - 0.005 * setting**2 + shared[seed] + lift
        right = np.round(np.clip(random.normal(true, plant.noise, 2), 0, 1) * plant.images) / plant.images
        ratio = 30 * 2**setting * math.exp(random.normal(0, plant.costs))
        place = f"s{setting}"
        key = f"{order}-{place}-{seed}"
        found.append(Point(order, place, seed, key, float(right[0]), float(right[1]), ratio, ratio * 1.01))
    return tuple(found)


def pair(first: Mapping[int, tuple[float, ...]], second: Mapping[int, tuple[float, ...]]) -> PairPoints:
    """Make a pair from the qualities of each seed, one a setting; both orders cost the same, val and test are equal."""
    return PairPoints(_points("XY", first), _points("YX", second))


def _points(order: str, qualities: Mapping[int, tuple[float, ...]]) -> tuple[Point, ...]:
    return tuple(
        Point(order, f"s{i}", seed, f"{order}-{i}-{seed}", value, value, 10.0 * 2**i, 10.0 * 2**i)
        for seed, values in qualities.items()
        for i, value in enumerate(values)
    )
