"""What seeds say of each chain: means with intervals, and orders of the same techniques ranked. No torch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from compressor.studies.comparing import PairPoints
from compressor.studies.fronts import Frame, Point, Split, frame_of, mean_quality, spots
from compressor.studies.verdicts import Rule, Verdict, judge


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and its t-interval, None with one seed. A ratio's are those of its logarithm."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Summary:
    """Points of one order over their seeds: quality and bitops_ratio on val and test, and the keys behind them."""

    order: str
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    val: Spread
    test: Spread
    val_bitops: Spread
    test_bitops: Spread
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """One order in a ranking.

    `score`: what it is ranked by, its hypervolume on val as a quality in the frame common to all orders;
    `against`: its difference from the order that all are compared with, None for that order.
    """

    score: float
    summary: Summary
    against: Verdict | None

    @property
    def order(self) -> str:
        """Its letters."""
        return self.summary.order


def summaries(points: Sequence[Point], level: float) -> tuple[Summary, ...]:
    """Summarise each setting of each order, in the order in which they come."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.order, point.setting), []).append(point)
    return tuple(_summary(group, level) for group in groups.values())


def rank(points: Sequence[Point], rule: Rule, base: str | None = None) -> tuple[Standing, ...]:
    """Rank orders by val, and compare each with `base`, or with the best of them.

    An order that was made the best by the data is compared as if all pairs were, which is what choosing it amounts to.
    """
    names = dict.fromkeys(point.order for point in points)
    groups = {order: [point for point in points if point.order == order] for order in names}
    if not groups:
        return ()
    frame = frame_of(spots(points, Split.VAL))
    scores = {order: _score(found, frame) for order, found in groups.items()}
    ordered = sorted(groups, key=lambda order: (-scores[order], order))
    chosen = base if base in groups else ordered[0]
    others = [order for order in ordered if order != chosen]
    pairs = [((order, chosen), PairPoints(tuple(groups[order]), tuple(groups[chosen]))) for order in others]
    family = len(others) if chosen == base else math.comb(len(groups), 2)
    against = dict(zip(others, judge(pairs, rule, family), strict=True))
    return tuple(Standing(scores[order], _summary(groups[order], rule.level), against.get(order)) for order in ordered)


def centred(points: Sequence[Point]) -> tuple[Point, ...]:
    """Take out of the qualities what all points of a seed share, so that intervals show what differences are made of.

    The means of each order and setting stay. Cousineau's method with Morey's correction (2008): what is left is
    stretched as much as taking seeds out has shrunk it.
    """
    cells: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        cells.setdefault((point.order, point.setting), []).append(point)
    means = {cell: np.mean([(p.val, p.test) for p in found], axis=0) for cell, found in cells.items()}
    rests = [np.array((p.val, p.test)) - means[p.order, p.setting] for p in points]
    shared = {seed: np.mean([rest for rest, p in zip(rests, points, strict=True) if p.seed == seed], axis=0)
              for seed in {p.seed for p in points}}  # fmt: skip
    stretch = math.sqrt(len(cells) / (len(cells) - 1)) if len(cells) > 1 else 0.0
    placed = [
        means[p.order, p.setting] + stretch * (rest - shared[p.seed]) for rest, p in zip(rests, points, strict=True)
    ]
    return tuple(replace(p, val=float(val), test=float(test)) for p, (val, test) in zip(points, placed, strict=True))


def _by_seed(points: Iterable[Point]) -> dict[int, list[Point]]:
    found: dict[int, list[Point]] = {}
    for point in points:
        found.setdefault(point.seed, []).append(point)
    return dict(sorted(found.items()))


def _score(points: Iterable[Point], frame: Frame) -> float:
    return float(np.mean([mean_quality(spots(own, Split.VAL), frame) for own in _by_seed(points).values()]))


def _summary(points: Sequence[Point], level: float) -> Summary:
    seeds = _by_seed(points)
    columns = [
        [(p.val, p.test, math.log(p.val_bitops), math.log(p.test_bitops)) for p in own] for own in seeds.values()
    ]
    val, test, val_log, test_log = (
        spread(values, level) for values in zip(*(np.mean(rows, axis=0).tolist() for rows in columns), strict=True)
    )
    settings = tuple(dict.fromkeys(point.setting for point in points))
    keys = tuple(point.key for point in points)
    return Summary(points[0].order, settings, tuple(seeds), val, test, _powers(val_log), _powers(test_log), keys)


def _powers(logs: Spread) -> Spread:
    low, high = (None if value is None else math.exp(value) for value in (logs.low, logs.high))
    return Spread(math.exp(logs.mean), low, high)


def spread(values: Sequence[float], level: float) -> Spread:
    """Give the mean of some values, one a seed, and its t-interval of 1 - level."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Spread(mean, None, None)
    half = float(special.stdtrit(len(values) - 1, 1 - level / 2) * np.std(values, ddof=1) / len(values) ** 0.5)
    return Spread(mean, mean - half, mean + half)
