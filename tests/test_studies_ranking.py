"""Orders are ranked by val, and told apart only where the seeds do so."""

import itertools
import json
from dataclasses import replace

import numpy as np
import planted_studies
import pytest
from planted_studies import Plant
from scipy import stats

from compressor.codec import decode, encode
from compressor.studies.fronts import Point
from compressor.studies.ranking import Standing, centred, rank, spread, summaries
from compressor.studies.verdicts import Rule

RULE = Rule(0.05, 1 / 5000, 1 / 5000)
ORDERS = tuple("".join(letters) for letters in itertools.permutations("DPQ"))


def permutations(lifts: dict[str, float], plant: Plant, seed: int = 0) -> list[Point]:
    """Plant all orders of three letters at one setting; those not named in `lifts` are equally good."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, plant.baseline, plant.seeds)
    plant = replace(plant, settings=1)
    return [p for o in ORDERS for p in planted_studies.chains(random, o, lifts.get(o, 0.0), shared, plant)]


def test_an_order_that_is_better_stands_first_and_the_others_are_told_apart_from_it():
    standings = rank(permutations({"DPQ": 0.02}, Plant(noise=0.002)), RULE)
    assert standings[0].order == "DPQ"
    assert standings[0].against is None
    assert [s.score for s in standings] == sorted((s.score for s in standings), reverse=True)
    for standing in standings[1:]:
        assert standing.against is not None
        assert standing.against.winner == "DPQ"
        assert standing.against.orders == (standing.order, "DPQ")


def test_equally_good_orders_are_hardly_ever_told_apart_from_the_one_that_happens_to_be_best():
    alarms = [
        any(s.against and s.against.winner for s in rank(permutations({}, Plant(), seed), RULE)) for seed in range(100)
    ]
    assert np.mean(alarms) <= 0.05


def test_an_order_named_beforehand_is_what_all_are_compared_with():
    standings = rank(permutations({"QPD": 0.02}, Plant(noise=0.002)), RULE, base="DPQ")
    assert standings[0].order == "QPD"
    (base,) = (s for s in standings if s.against is None)
    assert base.order == "DPQ"
    assert standings[0].against is not None
    assert standings[0].against.winner == "QPD"


def test_at_equal_cost_orders_are_ranked_by_quality_and_at_equal_quality_by_cost():
    points = [Point(o, "s", seed, o, q, q, r, r) for o, q, r in (("A", 0.9, 50), ("B", 0.91, 50)) for seed in range(3)]
    assert [s.order for s in rank(points, RULE)] == ["B", "A"]
    points += [Point("C", "s", seed, "C", 0.91, 0.9, 60, 60) for seed in range(3)]
    assert [s.order for s in rank(points, RULE)] == ["C", "B", "A"]


def test_nothing_is_ranked_where_nothing_has_finished():
    assert rank([], RULE) == ()
    assert [s.order for s in rank([Point("A", "s", 0, "k", 0.9, 0.9, 50, 50)], RULE, base="B")] == ["A"]


def test_a_spread_is_the_t_interval_of_scipy():
    values = [0.91, 0.93, 0.90, 0.95]
    found, oracle = spread(values, 0.1), stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert spread([0.9], 0.05).low is None


def test_a_summary_holds_each_setting_apart_and_its_ratios_are_geometric_means():
    points = [
        Point("A", s, seed, f"{s}{seed}", 0.9, 0.8, r, 2 * r) for s in "xy" for seed, r in enumerate((10.0, 40.0))
    ]
    first, second = summaries(points, 0.05)
    assert (first.settings, second.settings) == (("x",), ("y",))
    assert (first.val_bitops.mean, first.test_bitops.mean) == pytest.approx((20, 40))
    assert first.keys == ("x0", "x1")
    assert first.val_bitops.low is not None
    assert first.val_bitops.low < 20


def test_what_seeds_share_is_taken_out_of_intervals_and_means_stay():
    plain = permutations({"DPQ": 0.02}, Plant(baseline=0.0, noise=0.002, images=10**9))
    shifted = [replace(p, val=p.val + 0.1 * p.seed, test=p.test - 0.1 * p.seed) for p in plain]
    for one, other in zip(centred(plain), centred(shifted), strict=True):
        assert other.val - one.val == pytest.approx(0.2)  # the mean of the shifts
        assert other.test - one.test == pytest.approx(-0.2)
    for one, other in zip(summaries(centred(plain), 0.05), summaries(plain, 0.05), strict=True):
        assert one.val.mean == pytest.approx(other.val.mean)


def test_intervals_without_what_seeds_share_have_the_width_of_the_noise_on_average():
    widths = {True: [], False: []}
    for seed in range(60):
        points = permutations({}, Plant(baseline=0.02, images=10**9), seed)
        for shared in widths:
            found = summaries(points if shared else centred(points), 0.05)
            widths[shared] += [(s.val.high or 0) - s.val.mean for s in found]
    half = 0.004 * stats.t.isf(0.025, 4) / 5**0.5 * 0.94  # a standard deviation of 5 is 6 % small on average
    assert np.mean(widths[False]) == pytest.approx(half, rel=0.05)
    assert np.mean(widths[True]) > 3 * half


def test_standings_are_read_back_from_json_as_they_were():
    for standing in rank(permutations({}, Plant()), RULE):
        assert decode(Standing, json.loads(json.dumps(encode(standing)))) == standing
