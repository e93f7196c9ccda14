"""Two orders are compared seed by seed: what a seed shares cancels, and little spread is never taken for none."""

import itertools
from dataclasses import astuple, replace

import numpy as np
import planted_studies
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_studies import Plant
from scipy import stats

from compressor.studies.comparing import Comparison, PairPoints, compare, opposite
from compressor.studies.fronts import Point, Split

QUALITIES = st.lists(st.tuples(*[st.floats(0.5, 1)] * 4), min_size=2, max_size=6)


def one(pair: PairPoints, step: float = 0.0) -> Comparison:
    (found,) = compare([pair], Split.VAL, step, 0.05)
    return found


def seeds(rows) -> PairPoints:
    """Take of each row, a seed, two qualities of the first order and two of the second."""
    return planted_studies.pair(
        {s: tuple(row[:2]) for s, row in enumerate(rows)}, {s: tuple(row[2:]) for s, row in enumerate(rows)}
    )


def moved(pair: PairPoints, change) -> PairPoints:
    return PairPoints(tuple(map(change, pair.first)), tuple(map(change, pair.second)))


def test_at_equal_costs_the_difference_is_the_mean_difference_of_quality():
    first = {0: (0.95, 0.90), 1: (0.96, 0.92)}
    found = one(planted_studies.pair(first, {seed: (a - 0.01, b - 0.03) for seed, (a, b) in first.items()}))
    assert found.differences == pytest.approx((0.02, 0.02))
    assert found.mean == pytest.approx(0.02)


def test_a_single_pair_is_tested_as_scipy_does():
    rows = [(0.95, 0.95, 0.94, 0.94), (0.96, 0.96, 0.93, 0.93), (0.94, 0.94, 0.945, 0.945), (0.97, 0.97, 0.95, 0.95)]
    found = one(seeds(rows))
    oracle = stats.ttest_1samp(found.differences, 0)
    interval = oracle.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((oracle[1], interval.low, interval.high))
    assert found.effect == pytest.approx(np.mean(found.differences) / np.std(found.differences, ddof=1))
    assert found.df == 3


@settings(max_examples=40)
@given(QUALITIES)
def test_swapping_the_orders_turns_the_sign_and_nothing_else(rows):
    pair = seeds(rows)
    there, back = one(pair, 0.001), one(PairPoints(pair.second, pair.first), 0.001)
    assert back.differences == tuple(-d for d in there.differences)
    assert (back.mean, back.p, back.flips, back.scale) == (-(there.mean or 0), there.p, there.flips, there.scale)
    assert back.low == pytest.approx(-(there.high or 0))


@settings(max_examples=40)
@given(QUALITIES, st.floats(0.01, 100), st.floats(-3, 3), st.floats(0.1, 10))
def test_units_of_quality_and_of_cost_change_no_verdict(rows, scale, shift, ratio):
    pair = seeds(rows)
    change = lambda p: replace(p, val=scale * p.val + shift, val_bitops=ratio * p.val_bitops)  # noqa: E731
    plain, other = one(pair, 0.001), one(moved(pair, change), 0.001 * scale)
    assert other.mean == pytest.approx(scale * plain.mean, abs=1e-9 * scale)
    assert other.p == pytest.approx(plain.p, abs=1e-6)


def test_what_all_chains_of_a_seed_share_cancels():
    random = np.random.default_rng(1)
    pair = planted_studies.study(random, {"DP": 0.01}, Plant(baseline=0.0, costs=0.0, images=10**9))["D", "P"]
    other = moved(pair, lambda p: replace(p, val=p.val + (0.0, 0.3, -0.2, 0.1, -0.4)[p.seed]))
    assert one(other).differences == pytest.approx(one(pair).differences)


def test_differences_without_spread_prove_nothing_without_a_known_step():
    rows = [(0.95 + s / 7, 0.95 + s / 7, 0.94 + s / 7, 0.94 + s / 7) for s in range(5)]  # equal but for rounding
    found = one(seeds(rows))
    assert found.mean == pytest.approx(0.01)
    assert (found.p, found.low, found.scale) == (1.0, None, None)


@pytest.mark.parametrize(("images", "p"), [(1, 0.0890), (2, 0.0111), (3, 0.00256)])
def test_equal_differences_of_a_few_images_count_as_if_they_spread_by_one(images, p):
    rows = [(0.95 + s / 360, 0.95 + s / 360, *[0.95 + (s - images) / 360] * 2) for s in range(5)]
    found = one(seeds(rows), 1 / 360)
    assert found.p == pytest.approx(p, rel=0.01)
    assert found.scale == pytest.approx(1 / 360)


def test_two_orders_that_are_everywhere_equal_differ_by_nothing():
    found = one(seeds([(0.95, 0.9, 0.95, 0.9)] * 5), 0.0)
    assert (found.mean, found.p, found.flips) == (0.0, 1.0, 0.0)


def spreading(sd: float) -> PairPoints:
    return seeds([(0.95 + d, 0.95 + d, 0.94, 0.94) for d in (-sd, 0.0, sd)])


def test_a_pair_borrows_spread_from_noisier_ones_and_lends_none_away():
    family = [spreading(0.001), *[spreading(0.005)] * 3]
    alone, (beside, loud, *_) = one(family[0]), compare(family, Split.VAL, 0.0, 0.05)
    assert alone.scale == pytest.approx(0.001)
    assert beside.scale == pytest.approx(((0.001**2 + (0.001**2 + 3 * 0.005**2) / 4) / 2) ** 0.5)
    assert loud.scale == loud.sd == pytest.approx(0.005)
    assert (alone.df, beside.df) == (2, 4)


def test_no_pair_borrows_more_spread_than_chance_makes_of_an_equal_one():
    most = stats.f.ppf(0.99, 2, 2)
    quiet, _ = compare([spreading(0.001), spreading(0.03)], Split.VAL, 0.0, 0.05)
    assert quiet.scale == pytest.approx((0.001**2 * (1 + (1 + most) / 2) / 2) ** 0.5)


def test_a_setting_that_one_order_lacks_with_a_seed_is_not_compared():
    pair = seeds([(0.95, 0.9, 0.94, 0.89)] * 3)
    lacking = PairPoints(pair.first, pair.second[:-1])
    without = PairPoints(pair.first[:-1], pair.second[:-1])
    assert one(lacking, 0.001) == one(without, 0.001)
    gone = PairPoints(pair.first, tuple(p for p in pair.second if p.seed != 1))
    assert one(gone, 0.001).seeds == (0, 2)


def test_one_seed_gives_a_difference_and_no_interval_and_no_seed_gives_nothing():
    single = one(seeds([(0.95, 0.9, 0.94, 0.89)]), 0.001)
    assert single.mean == pytest.approx(0.01)
    assert (single.n, single.p, single.low) == (1, 1.0, None)
    nothing = one(PairPoints((), ()), 0.001)
    assert (nothing.n, nothing.mean, nothing.p) == (0, None, 1.0)


def test_an_order_that_reaches_further_at_equal_quality_is_ahead():
    def points(order: str, ratios: tuple[float, ...]) -> tuple[Point, ...]:
        return tuple(
            Point(order, f"s{i}", seed, f"{order}{i}{seed}", q, q, r, r)
            for seed in range(3)
            for i, (q, r) in enumerate(zip((0.95, 0.93), ratios, strict=True))
        )

    for further in ((50, 220), (60, 200)):
        assert min(one(PairPoints(points("XY", further), points("YX", (50, 200)))).differences) > 0


@pytest.mark.parametrize("differences", [(0.5, 0.6, -0.2), (1.0, -0.4, 0.3, 0.2), (1.0, 2.0, 3.0)])
def test_the_share_of_turned_signs_is_that_of_all_resamples(differences):
    means = [np.mean(drawn) for drawn in itertools.product(differences, repeat=len(differences))]
    assert opposite(differences) == pytest.approx(np.mean(np.array(means) < -1e-12), abs=0.015)
    assert opposite(differences) == opposite(differences)


def test_nothing_in_a_comparison_is_a_number_of_numpy():
    found = one(seeds([(0.95, 0.9, 0.94, 0.89), (0.9, 0.9, 0.94, 0.89)]), 0.001)
    numbers = [*found.differences, *(value for value in astuple(found) if not isinstance(value, tuple))]
    assert all(type(number) in (int, float) for number in numbers)
