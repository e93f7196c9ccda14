"""The meter counts wishes as a walk without limits does, whatever was counted before."""

import numpy as np
import pytest
import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.search.budget import Limits, Tally, bill_of
from compressor.search.meter import Meter
from compressor.search.space import Space
from compressor.search.types import Mode
from compressor.search.walk import Walk

STEPS = 12

SPACES = {
    "mixed": spaces.space("resnet20"),
    "activations": spaces.space("resnet20", search_acts=True, groups=3),
    "fixed": spaces.space("vgg11", mode=Mode.FIXED, bits=3),
    "many groups": spaces.space("resnet20", groups=9, min_keep=0.02),
    "depthwise": spaces.space("mobilenet_v2"),
}


def counted(of: Space, wishes: np.ndarray) -> Tally:
    """Walk wishes where nothing is limited."""
    walk = Walk(of, Limits())
    for wish in wishes.tolist():
        walk.choose(wish)
    return walk.tally


def state(tally: Tally) -> dict[str, object]:
    """Give all that a tally has come to."""
    return {name: value for name, value in vars(tally).items() if name != "space"}


def steps(of: Space, seed: int) -> list[np.ndarray]:
    """Give wishes few of which differ from the ones before, now and then all: whole, none, ties, beyond the range."""
    source, count = np.random.default_rng(seed), len(Walk(of, Limits()).decisions)
    wishes, made = source.random(count), []
    for _ in range(STEPS):
        few = source.random(count) < source.choice([0.02, 0.2, 1.0])
        ties, none = source.integers(-2, 19, count) / 16, np.full(count, np.nan)  # no number is no wish
        new = source.choice([source.random(count), np.zeros(count), np.ones(count), ties, none])
        made.append(wishes := np.where(few, new, wishes))
    return made


@pytest.mark.parametrize("name", SPACES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_any_row_of_wishes_costs_what_a_walk_without_limits_counts(name, seed):
    meter = Meter(SPACES[name])
    for wishes in steps(SPACES[name], seed):
        tally = meter.read(wishes)
        assert state(tally) == state(counted(SPACES[name], wishes))
        assert tally.bill() == bill_of(tally.policy(), SPACES[name])
