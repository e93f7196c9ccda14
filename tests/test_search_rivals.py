"""Rivals keep to what they may decide, and wishes are brought to a budget without clipping anyone."""

import hunts
import numpy as np
import optuna
import pytest
import spaces

from compressor.errors import ConfigError
from compressor.search.problem import Ledger, Problem
from compressor.search.types import Agent, Mode, Policy
from compressor.search.wishes import evened, fits, free, levelled, parts_of, splits, starts, topped, walked

BUDGETS = {
    "size": spaces.budget(size=0.12),
    "bitops": spaces.budget(bitops=0.02),
    "macs": spaces.budget(macs=0.5),
    "both": spaces.budget(size=0.15, macs=0.5),
}


def bits_of(policy: Policy) -> set[int]:
    """Give all numbers of weight bits of a policy."""
    return {bits for group in policy.bits.values() for bits in group}


class TestWishes:
    @pytest.mark.parametrize("mode", Mode)
    @pytest.mark.parametrize("name", BUDGETS)
    def test_levelled_ones_are_walked_as_they_are(self, name, mode):
        problem = hunts.problem(1, budget=BUDGETS[name], mode=mode, search_acts=name == "bitops")
        parts, source = parts_of(problem), np.random.default_rng(3)
        for power in (0.2, 1.0, 5.0) * 8:
            wishes = levelled(problem, parts, source.random(len(parts.keep)) ** power)
            assert fits(problem, wishes)
            assert walked(problem, wishes) == free(problem, wishes)

    def test_levelled_ones_use_what_the_budget_gives(self):
        problem, source = hunts.problem(1), np.random.default_rng(3)
        parts, limit, used = parts_of(problem), problem.limits.size or 0, []
        for _ in range(20):
            policy = walked(problem, levelled(problem, parts, source.random(len(parts.keep))))
            used.append((problem.score(policy).bill.size / limit, bits_of(policy)))
        assert max(share for share, _ in used) <= 1
        assert np.mean([share for share, _ in used]) > 0.95  # one channel of the tiny network is several percent
        assert min(share for share, bits in used if bits != {8}) > 0.98  # one bit of a group is a percent

    def test_a_bit_that_is_left_goes_to_the_most_important_groups_that_it_is_enough_for(self):
        problem = hunts.problem(1)
        parts = parts_of(problem)
        wishes = evened(problem, parts, np.ones(len(parts.keep)), 3)
        more = topped(problem, parts, wishes, wishes)
        assert fits(problem, more)
        policy = free(problem, more)
        assert policy.keep == free(problem, wishes).keep
        assert bits_of(policy) == {3, 4}
        assert all(groups[0] >= groups[-1] for groups in policy.bits.values())
        for i, decision in enumerate(problem.decisions):
            if decision.kind == "bits" and decision.group == 0 and policy.bits[decision.name][0] == 3:
                assert not fits(problem, np.where(np.arange(len(more)) == i, 4 / 8, more))

    @pytest.mark.parametrize("name", BUDGETS)
    def test_in_fixed_mode_a_bit_more_is_the_one_number_of_bits(self, name):
        problem = hunts.problem(1, budget=BUDGETS[name], mode=Mode.FIXED, bits=5)
        parts = parts_of(problem)
        for wish in (0.0, 0.3, 0.6, 1.0):
            wishes = levelled(problem, parts, np.where(parts.keep, 0.5, wish))
            assert fits(problem, wishes)
            assert bits_of(free(problem, wishes)) <= {0, 5}

    def test_a_wish_above_another_of_its_layer_never_gets_fewer_bits(self):
        problem, source = hunts.problem(1), np.random.default_rng(3)
        parts = parts_of(problem)
        wishes = source.random(len(parts.keep))
        policy = walked(problem, levelled(problem, parts, wishes))
        for decision, wish, other in zip(problem.decisions, wishes, wishes[1:], strict=False):
            if decision.kind == "bits" and decision.group == 0 and wish <= other:
                groups = policy.bits[decision.name]
                assert groups[0] <= groups[-1]

    def test_evened_ones_have_one_number_of_bits_and_fill_the_budget_with_channels(self):
        problem, source = hunts.problem(1), np.random.default_rng(3)
        parts = parts_of(problem)
        for bits in (None, 8, 4):
            policy = free(problem, evened(problem, parts, source.random(len(parts.keep)), bits))
            assert len(bits_of(policy)) == 1
            assert problem.limits.allow(problem.score(policy).bill)

    @pytest.mark.parametrize("name", BUDGETS)
    def test_a_split_of_fewer_bits_keeps_more_channels(self, name):
        problem = hunts.problem(1, budget=BUDGETS[name])
        found = list(splits(problem, parts_of(problem)))
        kept = [sum(free(problem, wishes).keep.values()) for _, wishes in found]
        assert kept == sorted(set(kept))
        if name == "macs":
            assert [bits for bits, _ in found] == [8]

    def test_starts_are_the_even_splits_with_leftover_bits_for_the_most_important_channels(self):
        problem = hunts.problem(1)
        parts = parts_of(problem)
        plain = [walked(problem, wishes) for _, wishes in splits(problem, parts)]
        begun = [walked(problem, wishes) for wishes in starts(problem, parts)]
        assert [len(bits_of(policy)) for policy in plain] == [1] * len(plain)
        assert all(groups[0] >= groups[-1] for policy in begun for groups in policy.bits.values())
        assert all(problem.score(b).bill.size >= problem.score(a).bill.size for a, b in zip(plain, begun, strict=True))


class TestRivals:
    def test_uniform_is_one_share_and_one_number_of_bits(self):
        found = hunts.hunt(Agent.UNIFORM, hunts.problem(1))
        for each in found.history:
            shares = [kept / hunts.problem(1).space.axes[axis] for axis, kept in each.policy.keep.items()]
            assert len(bits_of(each.policy)) == 1
            assert max(shares) - min(shares) <= 1 / 6

    def test_sparsity_has_one_number_of_bits_and_different_shares(self):
        best = hunts.hunt(Agent.SPARSITY, hunts.problem(1)).history[-1].policy
        assert len(bits_of(best)) == 1

    def test_bits_keeps_every_channel_and_gives_each_a_bit(self):
        problem = hunts.problem(1)
        for each in hunts.hunt(Agent.BITS, problem).history:
            assert each.policy.keep == problem.space.axes
            assert 0 not in bits_of(each.policy)

    def test_stepwise_prunes_by_what_pruning_alone_loses_then_quantizes_to_one_number_of_bits(self):
        problem = hunts.problem(1)
        found = hunts.hunt(Agent.STEPWISE, problem)
        pruned = [each for each in found.history if not problem.limits.allow(each.bill)]
        assert pruned
        assert all(bits_of(each.policy) == {8} for each in pruned)
        assert all(len(bits_of(each.policy)) == 1 for each in found.history)
        assert len({bits for each in found.history for bits in bits_of(each.policy)}) > 1

    def test_sensitivity_gives_the_bits_to_the_layer_that_needs_them(self):
        def quality(policy: Policy) -> float:
            pruned = sum(1 - kept / axes[axis] for axis, kept in policy.keep.items())
            return 1.0 - sum(4.0**-b for b in policy.bits[needy]) - pruned

        axes = (any_ := hunts.problem(1)).space.axes
        needy = next(iter(walked(any_, np.ones(len(any_.decisions))).bits))
        best = hunts.hunt(Agent.SENSITIVITY, hunts.problem(quality, evaluations=60)).best.policy
        assert min(best.bits[needy]) == 8
        assert min(bits_of(best)) < 8

    def test_nsga2_begins_as_the_joint_search_does(self):
        bred, learned = (hunts.hunt(agent, hunts.problem(1)) for agent in (Agent.NSGA2, Agent.JOINT))
        begun = len(list(starts(hunts.problem(1), parts_of(hunts.problem(1)))))
        assert [each.key for each in bred.history[:begun]] == [each.key for each in learned.history[:begun]]

    def test_nsga2_leaves_a_study_that_optuna_reads(self, tmp_path):
        problem, path = hunts.problem(1, evaluations=20), tmp_path / "trials.db"
        _, found = [hunts.hunt(Agent.NSGA2, problem, study=path) for _ in range(2)]  # the second writes over the first
        study = optuna.load_study(study_name="search", storage=f"sqlite:///{path}")
        within = [each for each in found.history if problem.limits.allow(each.bill)]  # the others were only measured
        assert {trial.values[0] for trial in study.trials if trial.values} == {each.likeness for each in within}
        assert 2 * len(within) >= len(found.history)  # at most half is measured
        assert [each.name for each in tmp_path.iterdir()] == ["trials.db"]

    @pytest.mark.parametrize("agent", hunts.AGENTS)
    def test_a_budget_that_cannot_give_every_group_a_bit_is_met_or_refused_with_one_that_can(self, agent):
        def tiny(size: float) -> Problem:
            return hunts.problem(1, budget=spaces.budget(size=size), min_keep=0.9, evaluations=8)

        problem = tiny(0.06)
        assert not list(splits(problem, parts_of(problem)))
        if agent not in (Agent.UNIFORM, Agent.STEPWISE):
            assert problem.limits.allow(hunts.hunt(agent, problem).best.bill)
            return
        with pytest.raises(ConfigError, match=r"^search.budget.size=0.06: the smallest feasible value is ") as caught:
            hunts.hunt(agent, problem)
        said = str(caught.value)
        assert said.endswith(f"with one number of bits for all; give that, or leave {agent} out of search.rivals")
        feasible = float(said.partition("value is ")[2].partition(" ")[0])
        assert hunts.hunt(agent, tiny(feasible)).unique > 0

    def test_an_account_without_a_candidate_within_the_budget_is_an_error_in_one_line(self):
        with pytest.raises(ConfigError, match=r"^search.budget: none of 0 candidates is within it"):
            Ledger(hunts.problem(1), lambda units, remark: None).found()
