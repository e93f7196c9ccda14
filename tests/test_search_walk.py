"""A walk never leaves its budget, whatever is wished."""

import random
import time
from collections.abc import Iterator, Sequence

import pytest
import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import ConfigError
from compressor.search.budget import Limits, Tally, bill_of
from compressor.search.space import Space, split
from compressor.search.types import Mode, Policy
from compressor.search.walk import Decision, Walk

BUDGETS = (
    {"size": 0.1},
    {"bitops": 0.01},
    {"macs": 0.3},
    {"size": 0.2, "macs": 0.5},
    {"size": 0.15, "bitops": 0.02, "macs": 0.6},
)
SPACES = {(name, mode): spaces.space(name, mode=mode) for name in spaces.NETWORKS for mode in Mode}


def limits_of(space: Space, given: dict[str, float]) -> Limits:
    """Give a budget's limits, those raised that no model of the space meets."""
    least = Tally(space).bill()
    totals = {
        name: max(int(share * getattr(space.baseline, name)), getattr(least, name)) for name, share in given.items()
    }
    return Limits(**totals)


def policy_of(space: Space, taken: Sequence[tuple[Decision, int]]) -> Policy:
    """Give the policy of some decisions, with the least of everything that is not decided."""
    keep, bits = dict(space.least), {}
    acts = dict.fromkeys(space.tensors, 2 if space.search_acts else space.act_bits)
    keep |= {d.name: number for d, number in taken if d.kind == "keep"}
    acts |= {d.name: number for d, number in taken if d.kind == "acts"}
    for layer in space.layers:
        if not layer.edge:
            groups = len(split(keep[layer.writes], space.groups))
            given = {d.group: number for d, number in taken if d.name == layer.name}
            least = [space.bits if space.mode is Mode.FIXED else 1] + [0] * (groups - 1)
            bits[layer.name] = tuple(given.get(j, low) for j, low in enumerate(least))
    return Policy(keep, bits, acts)


class TestBudgets:
    @pytest.mark.parametrize(("name", "mode"), SPACES)
    def test_200_random_policies_are_within_every_budget(self, name, mode):
        space, source = SPACES[name, mode], random.Random(name)
        for i in range(200):
            limits = limits_of(space, BUDGETS[i % len(BUDGETS)])
            policy = spaces.walked(space, limits, _mixed(source, source.random()))
            assert limits.allow(bill_of(policy, space))
            assert all(space.least[axis] <= kept <= space.axes[axis] for axis, kept in policy.keep.items())
            assert all(0 <= b <= 8 for bits in policy.bits.values() for b in bits)
            assert all(bits[0] > 0 for bits in policy.bits.values())

    @given(
        st.sampled_from(list(SPACES)),
        st.sampled_from(BUDGETS),
        st.lists(st.floats(0, 1), min_size=1, max_size=50),
    )
    @settings(max_examples=60)
    def test_any_wishes_end_within_the_budget_and_the_walk_knows_its_bill(self, which, given, wishes):
        space = SPACES[which]
        walk, i = Walk(space, limits_of(space, given)), 0
        while not walk.done:
            low, high = walk.bounds()
            chosen = walk.choose(wishes[i % len(wishes)])
            assert low <= chosen <= high
            i += 1
        assert walk.tally.bill() == bill_of(walk.policy(), space)
        assert walk.limits.allow(walk.tally.bill())

    @pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
    @pytest.mark.parametrize("mode", Mode)
    def test_allowed_is_exactly_what_leaves_the_least_rest_within_the_limits(self, name, mode):
        space, source = spaces.space(name, mode=mode, groups=3, search_acts=True), random.Random(1)
        limits = limits_of(space, {"size": 0.08, "bitops": 0.006, "macs": 0.4})
        walk, taken, checked = Walk(space, limits), [], 0
        while not walk.done:
            decision = walk.decision
            if source.random() < 0.2:
                bits = (0, 4) if mode is Mode.FIXED else range(9)
                options = {"keep": range(space.least.get(decision.name, 0), space.axes.get(decision.name, 0) + 1)}
                every = options.get(decision.kind, range(2, 9) if decision.kind == "acts" else bits)
                fits = [n for n in every if _allowed(space, limits, [*taken, (decision, n)])]
                assert list(walk.allowed()) == fits
                checked += 1
            taken.append((decision, walk.choose(source.random())))
        assert checked > 20
        assert walk.policy() == policy_of(space, taken)

    def test_without_limits_wishes_come_true(self):
        space = SPACES["resnet20", Mode.MIXED]
        policy = spaces.walked(space, Limits(), iter(lambda: 0.5, 1.0))
        assert policy.keep == {axis: size // 2 for axis, size in space.axes.items()}
        assert {b for bits in policy.bits.values() for b in bits} == {4}
        policy = spaces.walked(SPACES["resnet20", Mode.FIXED], Limits(), iter(lambda: 0.6, 1.0))
        assert {b for bits in policy.bits.values() for b in bits} == {4}

    def test_a_wish_beyond_the_budget_becomes_the_nearest_that_is_allowed(self):
        space = SPACES["resnet20", Mode.MIXED]
        walk, cut = Walk(space, limits_of(space, {"macs": 0.05})), 0
        while not walk.done:
            high = walk.bounds()[1]
            cut += walk.decision.kind == "keep" and high < space.axes[walk.decision.name]
            assert walk.choose(1.0) == high
        assert cut > 3


def _mixed(source: random.Random, share: float) -> Iterator[float]:
    """Yield wishes, a share of them anywhere and the others at an end."""
    while True:
        yield source.random() if source.random() < share else float(source.random() < 0.8)


def _allowed(space: Space, limits: Limits, taken: list[tuple[Decision, int]]) -> bool:
    decision, number = taken[-1]
    policy = policy_of(space, taken)
    if decision.kind == "bits":
        groups = len(policy.bits[decision.name])
        if decision.group >= groups:
            return number == 0
        if decision.group == 0 and number == 0:
            return False
    return limits.allow(bill_of(policy, space))


class TestRefusals:
    @pytest.mark.parametrize("limit", ["size", "bitops", "macs"])
    def test_an_infeasible_budget_is_refused_with_the_smallest_feasible_value(self, limit):
        space = SPACES["resnet20", Mode.MIXED]
        with pytest.raises(ConfigError) as caught:
            Limits.of(spaces.budget(**{limit: 1e-5}), space)
        line = str(caught.value)
        assert line.startswith(f"search.budget.{limit}=1e-05: the smallest feasible value is ")
        assert "\n" not in line
        least = float(line.rpartition(" ")[2])
        limits = Limits.of(spaces.budget(**{limit: least}), space)
        spaces.walked(space, limits, iter(lambda: 1.0, 2.0))
        with pytest.raises(ConfigError, match="smallest feasible"):
            Limits.of(spaces.budget(**{limit: 0.98 * least}), space)

    def test_several_limits_are_refused_by_the_one_that_cannot_be_met(self):
        with pytest.raises(ConfigError, match=r"search.budget.macs=1e-05: the smallest"):
            Limits.of(spaces.budget(size=0.5, macs=1e-5), SPACES["resnet20", Mode.MIXED])

    def test_a_limit_of_latency_needs_timings(self):
        with pytest.raises(ConfigError, match="latency_ms: the layers have not been timed"):
            Limits.of(spaces.budget(latency_ms=1.0), SPACES["resnet20", Mode.MIXED])

    def test_a_walk_does_not_begin_below_the_least(self):
        with pytest.raises(ConfigError, match=r"search.budget: .* below what the least model costs"):
            Walk(SPACES["resnet20", Mode.MIXED], Limits(size=10))


class TestFeatures:
    @pytest.mark.parametrize("name", spaces.NETWORKS)
    def test_they_are_between_0_and_1_and_have_one_length_a_kind(self, name):
        space, source = spaces.space(name, search_acts=True), random.Random(0)
        walk, seen = Walk(space, limits_of(space, {"size": 0.1})), {}
        while not walk.done:
            features = walk.features()
            assert all(0 <= each <= 1 for each in features)
            seen.setdefault(walk.decision.kind, set()).add(len(features))
            walk.choose(source.random())
        assert {kind: len(lengths) for kind, lengths in seen.items()} == {"keep": 1, "acts": 1, "bits": 1}

    def test_they_tell_decisions_and_the_way_so_far_apart(self):
        space = SPACES["resnet20", Mode.MIXED]
        first, second = (Walk(space, limits_of(space, {"size": 0.1})) for _ in range(2))
        first.choose(0.2)
        second.choose(0.9)
        assert first.features() != second.features()

    def test_all_is_decided_once_keeps_first(self):
        space = SPACES["resnet56", Mode.MIXED]
        decisions = Walk(space, Limits()).decisions
        assert len(decisions) == len({(d.kind, d.name, d.group) for d in decisions})
        assert [d.name for d in decisions[: len(space.axes)]] == list(space.axes)
        assert len(decisions) == len(space.axes) + 4 * sum(not layer.edge for layer in space.layers)


def test_hundreds_of_walks_a_second_are_possible():
    space = SPACES["resnet20", Mode.MIXED]
    limits, source, began = limits_of(space, {"size": 0.1}), random.Random(0), time.process_time()
    for _ in range(50):
        spaces.walked(space, limits, iter(source.random, None))
    assert time.process_time() - began < 1.0
