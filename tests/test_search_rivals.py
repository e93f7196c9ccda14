"""Rivals keep to what they may decide, and wishes are brought to a budget without clipping anyone."""

import hunts
import numpy as np
import optuna
import pytest
import spaces

from compressor.errors import ConfigError
from compressor.search.engine import run_agent
from compressor.search.types import Agent, Mode, Policy
from compressor.search.wishes import evened, fits, free, levelled, parts_of, splits, starts, walked

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
            used.append(problem.score(policy).bill.size / limit)
        assert max(used) <= 1
        assert np.mean(used) > 0.95  # one channel of the tiny network is several percent

    def test_a_wish_above_another_of_its_layer_never_gets_fewer_bits(self):
        problem, source = hunts.problem(1), np.random.default_rng(3)
        parts = parts_of(problem)
        wishes = source.random(len(parts.keep))
        policy = walked(problem, levelled(problem, parts, wishes))
        for decision, wish, other in zip(problem.walk().decisions, wishes, wishes[1:], strict=False):
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
        needy = next(iter(walked(any_, np.ones(len(any_.walk().decisions))).bits))
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
        assert {trial.values[0] for trial in study.trials if trial.values} == {each.quality for each in found.history}
        assert [each.name for each in tmp_path.iterdir()] == ["trials.db"]

    def test_an_agent_without_a_way_to_the_budget_is_an_error_in_one_line(self):
        problem = hunts.problem(1, budget=spaces.budget(size=0.06), min_keep=0.9)
        with pytest.raises(ConfigError, match=r"^search.budget: none of \d+ candidates is within it"):
            run_agent(Agent.UNIFORM, problem, 0, lambda units, remark: None)
