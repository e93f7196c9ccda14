"""Fronts of quality against computation saved, and how much of that plane a front dominates. No torch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

LEAD = math.log10(2)
"""A reference point saves half of what the least saving point does, so that this point's quality counts too."""
MARGIN = 0.1
"""A reference point lies this part of the range of quality below the worst point, so that reaching further counts."""


class Split(StrEnum):
    """Which images a number is of: val decides, test is shown beside."""

    VAL = "val"
    TEST = "test"


@dataclass(frozen=True)
class Point:
    """One finished chain of a study.

    `key`: of the chain's last step; `val` and `test`: quality, higher is better (accuracy in 0..1, or -MAE);
    `val_bitops` and `test_bitops`: the bitops_ratio of the mean path over that split, above 0.
    """

    order: str
    setting: str
    seed: int
    key: str
    val: float
    test: float
    val_bitops: float
    test_bitops: float


class Spot(NamedTuple):
    """A place in the plane of a front. `saving`: log10 of the bitops_ratio; of both, higher is better."""

    saving: float
    quality: float


@dataclass(frozen=True)
class Frame:
    """The part of the plane in which fronts are compared: its lower corner, and the furthest saving of any point."""

    saving: float
    quality: float
    reach: float


def spots(points: Iterable[Point], split: Split) -> list[Spot]:
    """Place points in the plane by their numbers on one split."""
    if split is Split.VAL:
        return [Spot(math.log10(point.val_bitops), point.val) for point in points]
    return [Spot(math.log10(point.test_bitops), point.test) for point in points]


def front(found: Iterable[Spot]) -> list[Spot]:
    """Keep what no other spot beats or equals in both; savings rise, qualities fall."""
    kept: list[Spot] = []
    for spot in sorted(found, reverse=True):
        if not kept or spot.quality > kept[-1].quality:
            kept.append(spot)
    return kept[::-1]


def hypervolume(found: Iterable[Spot], reference: Spot) -> float:
    """Measure the area that spots dominate above and beyond a reference, in quality times decades of saving."""
    area, best = 0.0, reference.quality
    for spot in sorted(found, reverse=True):
        if spot.saving > reference.saving and spot.quality > best:
            area += (spot.saving - reference.saving) * (spot.quality - best)
            best = spot.quality
    return area


def frame_of(found: Sequence[Spot]) -> Frame:
    """Choose the frame in which all these spots count: those of every order and seed that are compared."""
    savings, qualities = [spot.saving for spot in found], [spot.quality for spot in found]
    worst = min(qualities)
    return Frame(min(savings) - LEAD, worst - MARGIN * (max(qualities) - worst), max(savings))


def mean_quality(found: Iterable[Spot], frame: Frame) -> float:
    """Give the dominated hypervolume as a quality: the mean over the frame's savings of the best that saves as much.

    Where nothing reaches so far, the frame's lowest quality stands. Two fronts of equal savings thus differ by their
    mean difference of quality.
    """
    area = hypervolume(found, Spot(frame.saving, frame.quality))
    return frame.quality + area / (frame.reach - frame.saving)
