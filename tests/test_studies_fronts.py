"""A front is what nothing beats; its hypervolume is the area below it, read as a mean quality."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.studies.fronts import Frame, Point, Split, Spot, frame_of, front, hypervolume, mean_quality, spots

SPOTS = st.lists(st.builds(Spot, st.floats(0, 3), st.floats(-5, 1)), min_size=1, max_size=8)


def covered(found: list[Spot], frame: Frame) -> float:
    """Average over many savings the best quality that saves as much, as its definition says."""
    savings = np.linspace(frame.saving, frame.reach, 20_001)
    best = [max([s.quality for s in found if s.saving >= saving] + [frame.quality]) for saving in savings]
    return float(np.mean(best))


def test_the_hypervolume_is_the_area_of_the_steps_above_the_reference():
    steps = [Spot(1.0, 0.9), Spot(2.0, 0.7), Spot(1.5, 0.6)]
    assert hypervolume(steps, Spot(0.5, 0.5)) == pytest.approx(0.5 * 0.4 + 1.0 * 0.2)
    assert hypervolume([Spot(0.4, 0.9), Spot(2.0, 0.4)], Spot(0.5, 0.5)) == 0


def test_the_mean_quality_is_the_average_of_what_is_attained():
    random = np.random.default_rng(3)
    for _ in range(5):
        found = [Spot(*random.uniform((1, 0.8), (3, 1))) for _ in range(6)]
        frame = Frame(0.8, 0.75, 3.2)
        assert mean_quality(found, frame) == pytest.approx(covered(found, frame), abs=1e-4)


@settings(max_examples=40)
@given(SPOTS, st.builds(Spot, st.floats(0, 3), st.floats(-5, 1)))
def test_one_more_spot_never_shrinks_the_hypervolume_and_a_beaten_one_leaves_it(found, more):
    reference = Spot(-1.0, -6.0)
    area = hypervolume(found, reference)
    assert hypervolume([*found, more], reference) >= area
    beaten = Spot(found[0].saving - 0.1, found[0].quality - 0.1)
    assert hypervolume([*found, beaten], reference) == pytest.approx(area)


@settings(max_examples=40)
@given(SPOTS)
def test_the_front_dominates_all_that_its_spots_do_and_nothing_of_it_is_beaten(found):
    kept = front(found)
    assert hypervolume(kept, Spot(-1.0, -6.0)) == hypervolume(found[::-1], Spot(-1.0, -6.0))
    assert kept == sorted(kept)
    assert [s.quality for s in kept] == sorted({s.quality for s in kept}, reverse=True)
    assert all(any(k.saving >= s.saving and k.quality >= s.quality for k in kept) for s in found)


@settings(max_examples=40)
@given(SPOTS, st.floats(0.1, 100), st.floats(-2, 2))
def test_scaled_qualities_and_shifted_costs_give_the_scaled_mean_quality(found, scale, shift):
    moved = [Spot(s.saving + shift, scale * s.quality) for s in found]
    expected = scale * mean_quality(found, frame_of(found))
    assert mean_quality(moved, frame_of(moved)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_single_spot_has_its_own_quality_as_the_mean():
    assert mean_quality([Spot(2.0, 0.93)], frame_of([Spot(2.0, 0.93)])) == pytest.approx(0.93)


def test_points_are_placed_by_the_numbers_of_the_split_asked_for():
    point = Point("DP", "s", 0, "k", 0.9, 0.8, 100.0, 1000.0)
    assert spots([point], Split.VAL) == [Spot(2.0, 0.9)]
    assert spots([point], Split.TEST) == [Spot(math.log10(1000), 0.8)]


def test_a_frame_begins_at_half_the_least_saving_and_a_tenth_of_the_range_below_the_worst():
    found = frame_of([Spot(2.0, 0.9), Spot(1.0, 0.8)])
    assert (found.saving, found.quality, found.reach) == pytest.approx((math.log10(10 / 2), 0.79, 2.0))
