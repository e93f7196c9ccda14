"""Times taken in turns and what they say: planted times give the medians, shares and ratios that they must."""

from dataclasses import replace

import numpy as np
import pytest

from compressor.config import BenchConfig
from compressor.deploy.bench_stats import (
    Cell,
    Times,
    by_calls,
    by_rounds,
    cycle,
    ratios,
    speedup,
    take_times,
    timing,
    turns,
)

CONFIG = BenchConfig(
    original="auto",
    engines=("auto",),
    batches=(4,),
    threads=1,
    warmup=2,
    repeats=6,
    seconds=0,
    visit=8,
    check=10,
    bf16=False,
    memory=False,
)
PAIRS = (("torch", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
CELLS = tuple(Cell(network, *pair) for pair in PAIRS for network in ("original", "compressed"))
OLD, NEW = CELLS[:2]
IMAGES = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)


class Planted:
    """Networks that take a planted time by a clock of their own, and note what they were given."""

    def __init__(self, seconds: dict[Cell, float]) -> None:
        self.now, self.seconds = 0.0, seconds
        self.calls: list[tuple[Cell, list[int]]] = []

    def runner(self, cell: Cell):
        def run(images: np.ndarray) -> np.ndarray:
            self.calls.append((cell, images.ravel().tolist()))
            self.now += self.seconds[cell] * (10 if self.calls[-2:-1] and self.calls[-2][0] != cell else 1)
            return images.ravel() % 2

        return run

    def taken(self, config: BenchConfig, batch: int = 4) -> dict[Cell, Times]:
        runners = {cell: self.runner(cell) for cell in self.seconds}
        return take_times(runners, IMAGES, batch, config, lambda share: None, lambda: self.now)


class TestTurns:
    def test_a_network_and_its_original_follow_each_other(self) -> None:
        for number in range(12):
            order = turns(CELLS, number)
            assert sorted(map(str, order)) == sorted(map(str, CELLS))
            for first, second in zip(order[::2], order[1::2], strict=True):
                assert (first.engine, first.precision) == (second.engine, second.precision)

    def test_each_one_stands_in_each_place_equally_often(self) -> None:
        places = {cell: [turns(CELLS, number).index(cell) for number in range(len(CELLS))] for cell in CELLS}
        assert all(sorted(found) == list(range(len(CELLS))) for found in places.values())


class TestTakingTimes:
    def test_warm_up_and_the_call_after_another_network_are_not_counted(self) -> None:
        planted = Planted({OLD: 2.0, NEW: 0.5})
        times = planted.taken(CONFIG)
        assert times[OLD].seconds.shape == (6, 2)
        assert (times[OLD].seconds == 2.0).all()
        assert (times[NEW].seconds == 0.5).all()
        assert len(planted.calls) == 2 * (2 + 6) * (1 + 2)

    def test_every_network_answers_the_same_images_which_go_round_the_test_set(self) -> None:
        planted = Planted({OLD: 1.0, NEW: 1.0})
        planted.taken(CONFIG)
        of = {cell: [given for by, given in planted.calls if by == cell] for cell in (OLD, NEW)}
        assert of[OLD] == of[NEW]
        assert of[OLD][:6] == [[4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [2, 3, 4, 5], [8, 9, 0, 1], [2, 3, 4, 5]]

    def test_rounds_go_on_until_the_seconds_have_passed(self) -> None:
        planted = Planted({OLD: 1.0, NEW: 1.0})
        times = planted.taken(replace(CONFIG, seconds=1000))
        assert len(times[OLD].seconds) > CONFIG.repeats
        longest = 2 * (10 + 2)
        assert 1000 <= planted.now < 1000 + longest * (1 + CONFIG.warmup)

    def test_a_batch_larger_than_the_test_set_repeats_its_images(self) -> None:
        assert cycle(IMAGES, 25, 1).ravel().tolist() == [i % 10 for i in range(25, 50)]

    def test_where_images_left_is_counted(self) -> None:
        times = Planted({OLD: 1.0}).taken(CONFIG)[OLD]
        assert times.left.tolist() == [24, 24]
        assert timing(OLD, 4, 3, times).shares == (0.5, 0.5, 0.0)


class TestStatistics:
    def test_a_timing_is_the_median_the_percentile_and_the_images_of_the_median_round(self) -> None:
        seconds = np.array([[0.010] * 10] * 9 + [[0.030] * 10])
        found = timing(OLD, 64, 1, Times(seconds, np.array([1])))
        assert (found.rounds, found.calls) == (10, 100)
        assert found.median_ms == pytest.approx(10)
        assert found.p95_ms == pytest.approx(30)
        assert found.images_per_second == pytest.approx(64 / 0.010)

    def test_drift_that_both_networks_share_leaves_the_ratio_exact(self) -> None:
        drift = np.linspace(1, 3, 40)[:, None]
        for ratio in (by_rounds, by_calls):
            value = speedup(0.6 * drift, 0.2 * drift, ratio)
            assert (value.value, value.low, value.high) == pytest.approx((3, 3, 3))

    def test_a_stall_in_one_round_changes_no_ratio(self) -> None:
        old, new = np.full((20, 3), 0.4), np.full((20, 3), 0.1)
        new[7, 1] = 5.0
        for ratio in (by_rounds, by_calls):
            assert speedup(old, new, ratio).value == pytest.approx(4)

    def test_a_round_with_slow_images_counts_all_of_them(self) -> None:
        early, late = 0.1, 0.4
        compressed = np.array([[early, early, early, late]] * 10)
        assert by_rounds(np.full((10, 4), 0.7), compressed) == pytest.approx(4)
        assert by_calls(np.full((10, 4), 0.7), compressed) == pytest.approx(7)

    def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says(self) -> None:
        source, held = np.random.default_rng(0), 0
        for trial in range(50):
            old, new = (mean * source.gamma(50, 1 / 50, size=(30, 2)) for mean in (4.0, 2.0))
            found = speedup(old, new, by_rounds, seed=trial)
            held += found.low <= 2 <= found.high
        assert 43 <= held <= 49

    def test_only_pairs_on_one_engine_in_one_precision_are_compared(self) -> None:
        ones = Times(np.ones((5, 1)), np.array([5]))
        found = ratios({CELLS[0]: ones, CELLS[1]: ones, CELLS[3]: ones}, 64)
        assert [(each.engine, each.precision, each.batch) for each in found] == [("torch", "fp32", 64)]
