"""Which order of a pair is better, decided on val over seeds, and whether that holds with a third between. No torch."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import special

from compressor.studies.comparing import Comparison, PairPoints, compare, paired
from compressor.studies.fronts import Split

FEWEST = 3
"""Fewer seeds decide nothing."""
FIRM = 5
"""Fewer seeds decide, but their verdict is marked as indicative."""
FLIPS = 0.01
"""Where more resamples of the seeds than this turn the sign, nothing is decided."""
POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Rule:
    """What a verdict needs: the family-wise level, and the smallest change of quality on each split.

    `val_step` and `test_step`: 1 / images for accuracy, 0 for a quality that is continuous.
    """

    level: float
    val_step: float
    test_step: float


@dataclass(frozen=True)
class Verdict:
    """Which of two orders is better, and how sure that is.

    Attributes:
        orders: the two; differences are the first minus the second.
        winner: one of them, or None: undecided.
        val: what decided; test: the same statistic on test, which decides nothing.
        adjusted_p: of val, corrected for all the pairs (Holm); indicative: under 5 seeds.
        seeds_needed: how many seeds would decide an undecided pair with a power of 0.8 if its mean difference is the
            true one; None: it is decided, nothing is known of its spread, or 1000 would not do.
        unpaired: points left out because the other order has none with that seed and setting.
        keys: of the last steps of all chains compared.
    """

    orders: tuple[str, str]
    winner: str | None
    val: Comparison
    test: Comparison
    adjusted_p: float
    indicative: bool
    seeds_needed: int | None
    unpaired: int
    keys: tuple[str, ...]

    @property
    def pair(self) -> tuple[str, str]:
        """The two techniques whose order it is about: the first and the last of the first order."""
        return self.orders[0][0], self.orders[0][-1]


class Holding(StrEnum):
    """What becomes of a pair's verdict when another technique stands between."""

    HOLDS = "holds"
    NOT_CONTRADICTED = "not contradicted"
    CONTRADICTED = "contradicted"
    NO_VERDICT = "no verdict to hold"


@dataclass(frozen=True)
class Insertion:
    """A pair with a third technique between: XZY against YZX, judged as a pair is."""

    third: str
    holding: Holding
    verdict: Verdict


def decide(pairs: Mapping[tuple[str, str], PairPoints], rule: Rule) -> tuple[Verdict, ...]:
    """Judge each pair X, Y by the points of XY and of YX; the level holds for all pairs together."""
    return judge([((x + y, y + x), points) for (x, y), points in pairs.items()], rule)


def insert(
    verdicts: Sequence[Verdict], between: Mapping[tuple[str, str, str], PairPoints], rule: Rule
) -> tuple[Insertion, ...]:
    """Judge each X, Y with Z between, by the points of XZY and of YZX; keys of `between` are X, Y, Z."""
    judged = judge([((x + z + y, y + z + x), points) for (x, y, z), points in between.items()], rule)
    winners = {orders: verdict.winner for verdict in verdicts for orders in (verdict.orders, verdict.orders[::-1])}
    return tuple(
        Insertion(z, _holding(winners.get((x + y, y + x)), verdict), verdict)
        for (x, y, z), verdict in zip(between, judged, strict=True)
    )


def _holding(winner: str | None, verdict: Verdict) -> Holding:
    if winner is None:
        return Holding.NO_VERDICT
    if verdict.winner is None:
        return Holding.NOT_CONTRADICTED
    return Holding.HOLDS if verdict.winner[0] == winner[0] else Holding.CONTRADICTED


def judge(
    pairs: Sequence[tuple[tuple[str, str], PairPoints]], rule: Rule, family: int | None = None
) -> tuple[Verdict, ...]:
    """Judge pairs of any two orders together; `family`: how many comparisons they stand for, if more than there are."""
    points = [found for _, found in pairs]
    vals = compare(points, Split.VAL, rule.val_step, rule.level)
    tests = compare(points, Split.TEST, rule.test_step, rule.level)
    adjusted, levels = holm([val.p for val in vals], rule.level, family)
    return tuple(
        _verdict(orders, found, val, test, p, level, rule)
        for (orders, found), val, test, p, level in zip(pairs, vals, tests, adjusted, levels, strict=True)
    )


def _verdict(
    orders: tuple[str, str], found: PairPoints, val: Comparison, test: Comparison, p: float, level: float, rule: Rule
) -> Verdict:
    used = paired(found)
    compared = (*used.first, *used.second)
    decided = p < rule.level and val.n >= FEWEST and val.flips <= FLIPS
    winner = orders[0 if (val.mean or 0) > 0 else 1] if decided else None
    return Verdict(
        orders, winner, val, test, p, val.n < FIRM, None if decided else seeds_needed(val, level),
        len(found.first) + len(found.second) - len(compared), tuple(point.key for point in compared),
    )  # fmt: skip


def holm(p: Sequence[float], level: float, family: int | None = None) -> tuple[list[float], list[float]]:
    """Correct p-values for their number (Holm, 1979), and give the level that each was held against, in their order."""
    family = family or len(p)
    adjusted, levels, highest = [1.0] * len(p), [level] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (family - rank) * p[place]))
        adjusted[place], levels[place] = highest, level / (family - rank)
    return adjusted, levels


def seeds_needed(comparison: Comparison, level: float) -> int | None:
    """Find how many seeds give a t-test the power, at the mean and spread seen; None: none up to 1000 does."""
    if not comparison.scale or comparison.mean is None or comparison.df is None:
        return None
    lent, effect = comparison.df - (comparison.n - 1), abs(comparison.mean) / comparison.scale

    def power(seeds: int) -> float:
        df = seeds - 1 + lent
        return 1 - float(special.nctdtr(df, effect * seeds**0.5, special.stdtrit(df, 1 - level / 2)))

    more = range(max(FEWEST, comparison.n + 1), MOST_SEEDS + 1)
    place = bisect_left(more, POWER, key=power)
    return more[place] if place < len(more) else None
