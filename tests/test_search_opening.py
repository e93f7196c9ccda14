"""What a place loses alone is measured in the whole network, and agents begin with what greed makes of it."""

from dataclasses import replace

import hunts
import numpy as np
import pytest
import spaces

from compressor.search.curves import Curve, measure, over, shrunk
from compressor.search.opening import climbed, opening
from compressor.search.problem import Ledger, Problem
from compressor.search.types import Agent, Candidate, Policy
from compressor.search.wishes import fits, free, parts_of, spread, starts, walked

HALF = spaces.budget(macs=0.5)
LEARNING = (Agent.JOINT, Agent.FLAT, Agent.SPARSITY, Agent.BITS, Agent.STEPWISE, Agent.NSGA2)


def sparing(axis: str) -> Problem:
    """Give a problem where one axis loses a hundred times what the others do."""
    sizes = hunts.problem(1).space.axes

    def quality(policy: Policy) -> float:
        lost = {name: 1 - kept / sizes[name] for name, kept in policy.keep.items()}
        return 1.0 - sum((100 if name == axis else 1) * share for name, share in lost.items()) / 100

    return hunts.problem(quality, budget=HALF, evaluations=60)


def beyond(problem: Problem, agent: Agent) -> list[Policy]:
    """Give the candidates of an agent that are not within the budget, in order."""
    found = hunts.hunt(agent, problem)
    return [each.policy for each in found.history if not problem.limits.allow(each.bill)]


def changed(policy: Policy, whole: Policy) -> set[tuple[str, str]]:
    """Give the places at which a policy takes less than everything."""
    both = (("keep", policy.keep, whole.keep), ("bits", policy.bits, whole.bits), ("acts", policy.acts, whole.acts))
    return {
        (kind, name)
        for kind, each, full in both
        for name, value in each.items()
        if (set(value) != {8} if isinstance(value, tuple) else value != full[name])
    }


class TestCurves:
    @pytest.mark.parametrize("twice", [False, True])
    def test_each_place_is_cut_alone_while_all_else_is_whole(self, twice):
        problem = hunts.problem(1, evaluations=200)
        parts, whole = parts_of(problem), free(problem, np.ones(len(problem.decisions)))
        ledger, places = Ledger(problem, lambda units, remark: None), int(parts.places.max()) + 1
        curves = measure(problem, ledger, parts, parts.keep | parts.bits, 1000 if twice else places)
        assert len(curves) == len({(d.kind, d.name) for d in problem.decisions})
        cuts = [changed(each.policy, whole) for each in judged(problem, ledger)]
        assert all(len(cut) == 1 for cut in cuts)
        assert len(cuts) == (2 if twice else 1) * len(curves)

    def test_places_are_measured_untrained_and_nothing_else_is(self):
        problem, untrained = hunts.problem(1), list[Policy]()

        def score(policy: Policy, *, trained: bool = True) -> Candidate:
            if not trained:
                untrained.append(policy)
            return problem.score(policy)

        assert untrained == beyond(replace(problem, score=score), Agent.JOINT)
        assert untrained

    def test_a_curve_loses_nothing_where_all_is_kept_and_never_less_where_less_is(self):
        problem = sparing(next(iter(hunts.problem(1).space.axes)))
        parts = parts_of(problem)
        for curve in measure(problem, Ledger(problem, lambda units, remark: None), parts, parts.keep, 1000):
            losses = [curve.at(share) for share in np.linspace(1, 0, 9)]
            assert losses[0] == 0
            assert losses == sorted(losses)

    def test_what_one_probe_says_of_other_shares_is_what_squares_and_rounding_say(self):
        channels = Curve("keep", np.ones(1, bool), (1.0, 0.5), (0.0, 0.4))
        assert channels.at(0.75) == pytest.approx(0.1, abs=1e-4)
        assert channels.at(0.0) == pytest.approx(1.6, abs=1e-3)
        bits = Curve("bits", np.ones(1, bool), (1.0, 0.25), (0.0, 0.4))  # 2 of 8
        assert bits.at(3 / 8) == pytest.approx(0.1, abs=1e-3)
        assert bits.at(1 / 8) == pytest.approx(1.6, abs=1e-3)

    def test_what_was_measured_twice_is_passed_through(self):
        curve = Curve("keep", np.ones(1, bool), (1.0, 0.75, 0.5), (0.0, 0.05, 0.4))
        assert [curve.at(share) for share in (0.75, 0.5)] == pytest.approx([0.05, 0.4], abs=1e-4)

    def test_the_places_that_free_most_are_measured_where_not_all_can_be(self):
        problem = hunts.problem(1, evaluations=200)
        parts, whole = parts_of(problem), np.ones(len(problem.decisions))
        curves = measure(problem, Ledger(problem, lambda units, remark: None), parts, parts.bits, 2)
        freed = {
            int(place): -over(problem, np.where(parts.places == place, 0.25, whole))
            for place in np.unique(parts.places[parts.bits])
        }
        dearest = sorted(freed, key=lambda place: -freed[place])[:2]
        assert {int(parts.places[curve.mask][0]) for curve in curves} == set(dearest)

    def test_axes_are_measured_before_layers(self):
        problem = hunts.problem(1, evaluations=200)
        parts = parts_of(problem)
        for most in (1, len(problem.space.axes), len(problem.space.axes) + 1):
            ledger = Ledger(problem, lambda units, remark: None)
            curves = measure(problem, ledger, parts, parts.keep | parts.bits, most)
            assert [curve.kind for curve in curves] == (["keep"] * len(problem.space.axes) + ["bits"])[:most]

    def test_nothing_is_evaluated_where_nothing_may_be_measured(self):
        problem = hunts.problem(1)
        parts = parts_of(problem)
        ledger = Ledger(problem, lambda units, remark: None)
        assert measure(problem, ledger, parts, parts.keep, 0) == []
        assert ledger.left == problem.evaluations


class TestGreed:
    def test_it_spares_what_loses_most_and_stops_within_the_budget(self):
        for axis in hunts.problem(1).space.axes:
            problem = sparing(axis)
            parts = parts_of(problem)
            curves = measure(problem, Ledger(problem, lambda units, remark: None), parts, parts.keep, 99)
            wishes = shrunk(problem, curves, np.ones(len(parts.keep)))
            assert fits(problem, wishes)
            kept = {name: count / problem.space.axes[name] for name, count in free(problem, wishes).keep.items()}
            assert kept[axis] == max(kept.values()) > min(kept.values())

    def test_a_share_that_rounds_to_the_same_channels_does_not_end_it(self):
        problem = sparing("s1")  # the axes have 6 to 12 channels: one is more than a notch
        parts = parts_of(problem)
        curves = measure(
            problem, Ledger(problem, lambda units, remark: None), parts, parts.keep, len(problem.space.axes)
        )
        assert fits(problem, shrunk(problem, curves, np.ones(len(parts.keep))))

    def test_what_was_not_measured_stays_as_it_is_wished(self):
        problem = sparing(next(iter(hunts.problem(1).space.axes)))
        parts = parts_of(problem)
        curves = measure(problem, Ledger(problem, lambda units, remark: None), parts, parts.keep, 1)
        rest = np.full(len(parts.keep), 0.7)
        wishes = shrunk(problem, curves, rest)
        assert len(curves) == 1
        assert (wishes[~curves[0].mask] == 0.7).all()


class TestAgents:
    @pytest.mark.parametrize("agent", LEARNING)
    def test_at_most_half_of_the_evaluations_measure_and_that_comes_first(self, agent):
        problem = hunts.problem(2, evaluations=16, warmup=4)
        found = hunts.hunt(agent, problem)
        outside = [not problem.limits.allow(each.bill) for each in found.history]
        assert outside[0] != (agent is Agent.STEPWISE)  # which looks at its even splits, and judges what is pruned only
        assert agent is Agent.STEPWISE or sum(outside) <= 16 // 2

    @pytest.mark.parametrize("agent", [Agent.JOINT, Agent.FLAT, Agent.SPARSITY, Agent.NSGA2])
    def test_the_greedy_policy_follows_and_is_better_than_every_even_split(self, agent):
        problem = sparing(next(iter(hunts.problem(1).space.axes)))
        even = max(problem.score(walked(problem, wishes)).likeness for wishes in starts(problem, parts_of(problem)))
        found = hunts.hunt(agent, problem)
        last = max(i for i, each in enumerate(found.history) if not problem.limits.allow(each.bill))
        assert found.history[last + 1].likeness > even

    def test_greed_decides_axes_at_the_bits_of_each_split_then_all_that_was_measured_and_layers_alone(self):
        problem = hunts.problem(1, budget=spaces.budget(size=0.03), evaluations=200)
        parts = parts_of(problem)
        splits = list(starts(problem, parts))

        def judged_with(allowed: np.ndarray) -> list[np.ndarray]:
            judged = list[np.ndarray]()
            curves = measure(problem, Ledger(problem, lambda units, remark: None), parts, allowed, 1000)
            opening(problem, parts, splits, lambda: curves, lambda wishes: float(len(judged.append(wishes) or judged)))
            return judged

        axes, rising = judged_with(parts.keep), splits[::-1]
        for cut, split in zip(axes, rising, strict=True):
            assert np.array_equal(cut[~parts.keep], spread(problem, parts, split)[~parts.keep])
            assert not np.array_equal(cut[parts.keep], split[parts.keep])
        assert len({cut[parts.keep].tobytes() for cut in axes}) > 1
        *even, layers = judged_with(parts.bits)
        assert all(map(np.array_equal, even, rising))
        assert np.array_equal(layers[parts.keep], rising[-1][parts.keep])  # the later, the better
        *cuts, both, layers = judged_with(parts.keep | parts.bits)
        assert [cut[parts.bits].tolist() for cut in cuts] == [cut[parts.bits].tolist() for cut in axes]
        assert np.array_equal(layers[parts.keep], cuts[-1][parts.keep])
        assert not np.array_equal(both[parts.keep], cuts[-1][parts.keep])
        assert not np.array_equal(layers[parts.bits], both[parts.bits])

    @pytest.mark.parametrize(
        ("likenesses", "judged", "best"),
        [("12345", 5, 4), ("13221", 4, 1), ("32451", 5, 3), ("31245", 3, 0), ("7", 1, 0)],
    )
    def test_numbers_of_bits_rise_until_two_in_a_row_are_no_better(self, likenesses, judged, best):
        asked = list[int]()

        def judge(number: int) -> float:
            asked.append(number)
            return float(likenesses[number])

        assert climbed(range(len(likenesses)), judge) == (best, float(likenesses[best]))
        assert asked == list(range(judged))

    def test_an_agent_measures_only_what_it_decides(self):
        whole = free(problem := hunts.problem(1, evaluations=60), np.ones(len(problem.decisions)))
        kinds = {
            agent: {
                kind for policy in beyond(hunts.problem(1, evaluations=60), agent) for kind, _ in changed(policy, whole)
            }
            for agent in (Agent.SPARSITY, Agent.BITS, Agent.STEPWISE, Agent.JOINT)
        }
        assert kinds[Agent.SPARSITY] == kinds[Agent.STEPWISE] == {"keep"}
        assert kinds[Agent.BITS] == {"bits"}
        assert kinds[Agent.JOINT] == {"keep", "bits"}

    def test_sensitivity_reaches_a_greedy_policy_where_places_outnumber_its_evaluations(self):
        problem = hunts.problem(1, evaluations=10)
        assert parts_of(problem).places.max() + 1 >= 6
        even = [walked(problem, wishes) for wishes in starts(problem, parts_of(problem))]
        found = hunts.hunt(Agent.SENSITIVITY, problem)
        within = [each.policy for each in found.history if problem.limits.allow(each.bill)]
        assert any(policy not in even for policy in within)

    @pytest.mark.parametrize("evaluations", [1, 2, 3])
    @pytest.mark.parametrize("agent", LEARNING)
    def test_one_evaluation_is_enough_to_find_something(self, agent, evaluations):
        problem = hunts.problem(1, evaluations=evaluations, warmup=0)
        found = hunts.hunt(agent, problem)
        assert problem.limits.allow(found.best.bill)


def judged(problem: Problem, ledger: Ledger) -> tuple[Candidate, ...]:
    """Give what was judged, after one candidate within the budget is added so that the account may be closed."""
    ledger.judge(walked(problem, np.zeros(len(problem.decisions))))
    return ledger.found().history[:-1]
