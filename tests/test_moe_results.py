"""Mixtures and rivals over seeds: means, intervals, who is chosen, and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from test_moe_settings import TWO_RECIPES, moe

from compressor.records import Quality, TimeRecord, Value
from compressor.report import moe_tables as shown
from compressor.studies.moe import advice
from compressor.studies.moe_results import (
    BASELINE,
    EQUAL_COST,
    MIXTURE,
    Collapse,
    Contender,
    Side,
    Spot,
    Study,
    Trial,
    best,
    over_seeds,
    summaries,
    verdict,
)


def contender(name: str, val: float, test: float, bitops: float = 100.0, *, scores: str = "accuracy") -> Contender:
    def side(score: float) -> Side:
        value = Value(score, score - 0.01, score + 0.01)
        return Side(Quality(200, 0.1, {scores: value}), bitops / 10, bitops)

    return Contender(name, (f"{name.replace(' ', '')}-0",), side(val), side(test), 10, int(bitops), (0.75, 0.25))


def trial(seed: int, mixture: float, rival: float | None, baseline: float = 0.99) -> Trial:
    """Give a seed whose mixture and rivals score these on test."""
    contenders = [contender(MIXTURE, 0.9, mixture), contender(BASELINE, 0.9, baseline, 5000.0)]
    contenders += [] if rival is None else [contender(EQUAL_COST, 0.9, rival, 90.0)]
    experts = tuple(contender(f"expert {i}", 0.8, 0.8) for i in range(2))
    spots = (Spot(50.0, 0.8, 0.8, 50.0, 51.0), Spot(100.0, 0.9, mixture, 99.0, 100.0))
    times = (TimeRecord(1, 2.0, 0.5), TimeRecord(256, 1.0, 0.1))
    shares = ((1.0, 0.0), (0.5, 0.5))
    return Trial(
        seed, f"moe-{seed}", "baseline-0", ("a", "b"), tuple(contenders), experts, spots, shares, 0.1, times, None
    )


def study(*trials: Trial, score: str = "accuracy") -> Study:
    rows, experts = [t.contenders for t in trials], [t.candidates for t in trials]
    originals = [row[1] for row in rows]
    tables = summaries(rows, originals), summaries(experts, originals)
    return Study(1, "test", "data", 0, ("cat", "dog"), score, moe(*TWO_RECIPES), *tables, verdict(trials), trials)


def test_an_interval_over_seeds_is_students() -> None:
    values = [0.91, 0.93, 0.98]
    found, oracle = over_seeds(values), stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), oracle.low, oracle.high))
    assert over_seeds([0.5]) == Value(0.5, 0.5, 0.5)


class TestBest:
    def test_is_chosen_on_val_whatever_test_says(self) -> None:
        found = [contender("a", 0.9, 0.99), contender("b", 0.95, 0.5)]
        assert best(found) is found[1]

    def test_is_the_cheaper_of_equals(self) -> None:
        found = [contender("a", 0.9, 0.9, 100), contender("b", 0.9, 0.9, 50), contender("c", 0.9, 0.9, 70)]
        assert best(found) is found[1]

    def test_may_cost_no_more_than_the_limit(self) -> None:
        found = [contender("a", 0.9, 0.9, 100), contender("b", 0.8, 0.8, 50)]
        assert best(found, limit=60) is found[1]
        assert best(found, limit=100) is found[0]
        assert best(found, limit=40) is None

    def test_is_as_cheap_on_val_whatever_it_costs_on_test(self) -> None:
        found = [contender("a", 0.9, 0.9, 50), contender("b", 0.8, 0.8, 50)]
        found[0] = replace(found[0], val=replace(found[0].val, bitops=70.0))
        found[1] = replace(found[1], test=replace(found[1].test, bitops=70.0))
        assert best(found, limit=60) is found[1]

    def test_has_the_least_mae(self) -> None:
        found = [contender("a", 3.0, 3.0, scores="mae"), contender("b", 2.0, 2.0, scores="mae")]
        assert best(found) is found[1]


class TestVerdict:
    def test_is_the_mean_difference_on_test_of_the_same_seeds(self) -> None:
        found = verdict([trial(0, 0.95, 0.93), trial(1, 0.96, 0.95), trial(2, 0.94, 0.94)])
        assert found.seeds == (0, 1, 2)
        assert found.differences == pytest.approx((0.02, 0.01, 0.0))
        assert found.difference == over_seeds(found.differences)
        assert found.ahead
        assert found.uncertain

    def test_leaves_out_seeds_where_no_expert_is_as_cheap(self) -> None:
        found = verdict([trial(0, 0.95, None), trial(1, 0.96, 0.95)])
        assert found.seeds == (1,)
        assert found.rivals == (f"{EQUAL_COST.replace(' ', '')}-0",)

    def test_is_not_ahead_when_equal(self) -> None:
        assert not verdict([trial(0, 0.95, 0.95)]).ahead


class TestWords:
    @pytest.mark.parametrize(
        ("trials", "words"),
        [
            ([trial(0, 0.95, 0.93)], "beats the best single expert of equal active cost: +2.00 points"),
            ([trial(0, 0.93, 0.95)], "does NOT beat the best single expert of equal active cost: -2.00 points"),
            ([trial(0, 0.95, 0.95)], "does NOT beat"),
            ([trial(0, 0.95, None)], "no single expert is as cheap"),
            ([trial(0, 0.95, 0.93), trial(1, 0.92, 0.93)], "(95 % interval over 2 seeds"),
            ([trial(0, 0.95, 0.93), trial(1, 0.92, 0.93)], "the interval holds 0"),
        ],
    )
    def test_the_verdict_is_said(self, trials: list[Trial], words: str) -> None:
        assert words in shown.verdict_line(study(*trials))

    def test_a_sure_verdict_has_no_reservation(self) -> None:
        sure = [trial(i, 0.95 + i * 1e-4, 0.90) for i in range(3)]
        assert "holds 0" not in shown.verdict_line(study(*sure))

    def test_a_collapsed_router_is_named_with_what_to_change(self) -> None:
        collapsed = replace(trial(0, 0.95, 0.93), collapse=Collapse(1, 0.97, 0.9, 0.95, "raise moe.balance"))
        (line,) = shown.collapse_lines(study(collapsed))
        assert line == (
            "seed 0: the router collapsed: expert 1 gets 97.0 % of val, though the right choices would score 0.95, "
            "not 0.9; raise moe.balance"
        )
        assert list(shown.collapse_lines(study(trial(0, 0.95, 0.93)))) == []

    @pytest.mark.parametrize(
        ("cheapest", "dearest", "first"),
        [(True, False, "lower moe.cost"), (False, True, "raise moe.cost"), (True, True, "raise moe.balance")],
    )
    def test_the_advice_is_for_the_expert_that_got_all(self, cheapest: bool, dearest: bool, first: str) -> None:
        assert advice(cheapest=cheapest, dearest=dearest).startswith(first)
        assert "router" not in advice(cheapest=cheapest, dearest=dearest, routed=False)

    def test_the_routers_part_is_a_share_of_macs_and_of_measured_time(self) -> None:
        line = shown.router_line(study(trial(0, 0.95, 0.93)))
        assert line == "router: 10.0 % of the mean MACs, 25 % of the time at batch 1, 10 % of the time at batch 256"


class TestSummaries:
    def test_ratios_are_of_means_to_the_baselines(self) -> None:
        mixture, baseline, _ = study(trial(0, 0.95, 0.9), trial(1, 0.97, 0.9)).summaries
        assert (mixture.bitops_ratio, mixture.macs_ratio, mixture.size_ratio) == (50.0, 50.0, 50.0)
        assert (baseline.bitops_ratio, baseline.n) == (1.0, 2)
        assert mixture.test.value == pytest.approx(0.96)
        assert mixture.largest_share == 0.75

    def test_one_seed_keeps_the_interval_over_images(self) -> None:
        mixture = study(trial(0, 0.95, 0.9)).summaries[0]
        assert mixture.test == Value(0.95, 0.95 - 0.01, 0.95 + 0.01)

    def test_an_interval_of_accuracy_stays_within_its_range(self) -> None:
        mixture = study(trial(0, 0.99, 0.9), trial(1, 0.90, 0.9)).summaries[0]
        assert mixture.test.high == 1.0

    def test_a_rival_that_some_seeds_lack_says_how_many_have_it(self) -> None:
        found = study(trial(0, 0.95, 0.9), trial(1, 0.95, None))
        table = shown.rivals_table(found)
        assert f"{EQUAL_COST} (n=1)" in list(table.columns[0].cells)
