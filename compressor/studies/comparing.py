"""Two orders compared on the same seeds, in families whose pairs lend each other their spread. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special

from compressor.studies.fronts import Frame, Point, Split, frame_of, mean_quality, spots

RESAMPLES = 4000
CHANCE = 0.99
"""So far into the distribution of the ratio of two equal variances, a larger one is held for chance."""
ROUNDING = 1e-9
"""A spread below this part of the qualities is rounding, not noise."""


@dataclass(frozen=True)
class PairPoints:
    """The points of two orders of the same techniques; only settings that both finished with a seed are compared."""

    first: tuple[Point, ...]
    second: tuple[Point, ...]


@dataclass(frozen=True)
class Comparison:
    """How far the first order is ahead of the second on one split, in units of quality; None where nothing is known.

    Attributes:
        seeds: what is paired; differences: first minus second, seed by seed.
        frame: where the fronts were compared, common to both orders and all seeds.
        mean, low, high: the mean difference and its t-interval over seeds (not corrected for the number of pairs).
        sd: the spread of the differences; scale: the spread that interval and p use; df: its degrees of freedom.
        p: two-sided, not corrected; effect: mean / scale.
        flips: share of resamples of the seeds whose mean difference has the other sign.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    frame: Frame | None
    mean: float | None
    low: float | None
    high: float | None
    sd: float | None
    scale: float | None
    df: float | None
    p: float
    effect: float | None
    flips: float

    @property
    def n(self) -> int:
        """How many seeds both orders have."""
        return len(self.seeds)


@dataclass(frozen=True)
class _Sample:
    """The paired differences of one pair; `rounding`: the spread below which there is none."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    frame: Frame | None
    rounding: float

    @property
    def freedom(self) -> int:
        return max(0, len(self.seeds) - 1)

    @property
    def variance(self) -> float:
        variance = float(np.var(self.differences, ddof=1)) if self.freedom else 0.0
        return variance if variance > self.rounding**2 else 0.0


def paired(pair: PairPoints) -> PairPoints:
    """Drop what the other order has not finished with the same seed and setting."""
    both = {(p.seed, p.setting) for p in pair.first} & {(p.seed, p.setting) for p in pair.second}
    first, second = (tuple(p for p in side if (p.seed, p.setting) in both) for side in (pair.first, pair.second))
    return PairPoints(first, second)


def compare(pairs: Sequence[PairPoints], split: Split, step: float, level: float) -> tuple[Comparison, ...]:
    """Compare the orders of each pair by the hypervolume of their fronts, seed by seed.

    The seeds of one pair say little about its spread, so that of the others is called in: the variance is the mean of
    the pair's own and of that pooled over all pairs, but never below its own. What pairs spread more than chance makes
    of equal spreads is not lent. The pair's own degrees of freedom count, and as many again from the others (a third of
    theirs, at most its own). This keeps the level where pairs spread alike and where some spread many times as much as
    others (tests/test_studies_verdicts.py).

    Args:
        pairs: a family; its members share their spread.
        split: whose numbers are compared.
        step: the smallest change of quality, 1 / images for accuracy, 0 where it is continuous. No spread of the
            differences is taken for smaller, as a count of images is not known better than to one.
        level: the intervals are of 1 - level.
    """
    samples = [_sample(paired(pair), split) for pair in pairs]
    own = [max(sample.variance, step**2) for sample in samples]
    free = [sample.freedom for sample in samples]
    total = sum(free)
    results = []
    for sample, variance, df in zip(samples, own, free, strict=True):
        lent = [d * min(v, _highest(variance, d, df)) for v, d in zip(own, free, strict=True) if d and df]
        used = max(variance, (variance + sum(lent) / max(total, 1)) / 2)
        results.append(_comparison(sample, used, df + min(df, (total - df) / 3), level))
    return tuple(results)


def _highest(variance: float, lender: int, borrower: int) -> float:
    """Give the variance that chance can make of an equal spread beside this one, by their degrees of freedom."""
    return variance * float(special.fdtri(lender, borrower, CHANCE))


def _sample(pair: PairPoints, split: Split) -> _Sample:
    places = spots((*pair.first, *pair.second), split)
    if not places:
        return _Sample((), (), None, 0.0)
    frame = frame_of(places)
    seeds = tuple(sorted({point.seed for point in pair.first}))
    sides = [
        [mean_quality(spots((p for p in side if p.seed == seed), split), frame) for seed in seeds]
        for side in (pair.first, pair.second)
    ]
    differences = tuple(a - b for a, b in zip(*sides, strict=True))
    return _Sample(seeds, differences, frame, ROUNDING * max(abs(spot.quality) for spot in places))


def _comparison(sample: _Sample, variance: float, df: float, level: float) -> Comparison:
    if not sample.seeds:
        return Comparison((), (), None, None, None, None, None, None, None, 1.0, None, 0.0)
    given = sample.seeds, sample.differences, sample.frame
    mean = float(np.mean(sample.differences))
    flips = opposite(sample.differences)
    if not sample.freedom:
        return Comparison(*given, mean, None, None, None, None, None, 1.0, None, flips)
    sd, scale = sample.variance**0.5, variance**0.5
    if not scale:
        return Comparison(*given, mean, None, None, sd, None, None, 1.0, None, flips)
    error = scale / len(sample.seeds) ** 0.5
    half = float(special.stdtrit(df, 1 - level / 2)) * error
    p = float(2 * special.stdtr(df, -abs(mean) / error))
    return Comparison(*given, mean, mean - half, mean + half, sd, scale, df, p, mean / scale, flips)


def opposite(differences: Sequence[float]) -> float:
    """Give the share of resamples of the seeds whose mean has the sign that the mean of all has not."""
    means = _resamples(len(differences)) @ np.asarray(differences)
    return float(np.mean(means * np.mean(differences) < 0))


@cache
def _resamples(n: int) -> np.ndarray:
    """Weights of bootstrap resamples, (RESAMPLES, n), the same at every call."""
    return np.random.RandomState(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
