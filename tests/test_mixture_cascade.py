"""A cascade: the cheapest expert answers what it is sure of, the next is run for the rest, and there is no router."""

from collections import Counter
from dataclasses import replace

import mixtures
import pytest
import samples
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.arch import Routing, Rule, TaskKind, Unit
from compressor.arch.mixtures import MixtureArch, check_mixture, check_routed
from compressor.data.types import Data
from compressor.deploy import bench_engines
from compressor.errors import ConfigError, ModelError
from compressor.mixture import Mixture, answer, asked, at_budget, costs, decide, measure, outcome, survey
from compressor.mixture.rule import certainties, chances, reach
from compressor.training import Context

RULE = Rule(Routing.CASCADE, 1, False, (2, 0, 1), (0.0, 0.0, 0.0), 0.6)
NEVER, ALWAYS = 2.0, 0.0


def toy() -> Mixture:
    return mixtures.toy(Routing.CASCADE)


class TestRule:
    @pytest.mark.parametrize(
        ("sure", "expert"),
        [
            ((0.0, 0.0, 0.6), 2),  # the cheapest, number 2, is sure enough
            ((0.2, 0.0, 0.5), 0),  # 1 - 0.5 * 0.8 = 0.6
            ((0.1, 1.0, 0.5), 1),  # 1 - 0.5 * 0.9 = 0.55: the dearest answers, however sure it is
            ((0.1, 0.0, 0.5), 1),
        ],
    )
    def test_an_image_rises_until_one_of_those_asked_is_sure_enough(self, sure, expert):
        rule = replace(RULE, threshold=0.6 - 1e-6)
        assert decide(torch.tensor([sure]), rule).argmax().item() == expert

    def test_all_up_to_the_one_that_answers_are_run(self):
        ran = asked(torch.eye(3), RULE)
        assert ran.tolist() == [[True, False, True], [True, True, True], [False, False, True]]

    def test_other_rules_run_those_that_answer(self):
        weights = torch.tensor([[0.3, 0.7, 0.0]])
        assert asked(weights, replace(RULE, routing=Routing.TOPK)).tolist() == [[True, True, False]]

    @given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
    def test_the_chances_to_answer_are_probabilities_and_add_up_as_far_as_it_is_reached(self, sure):
        scores = torch.tensor(sure)
        found = chances(scores, RULE).exp()
        torch.testing.assert_close(found.sum(dim=1), torch.ones(len(sure)), rtol=0, atol=1e-5)
        risen = found[:, list(RULE.order)].cumsum(dim=1)[:, :-1]
        torch.testing.assert_close(risen, reach(scores, RULE)[:, :-1], rtol=0, atol=1e-5)

    def test_a_cascade_is_as_sure_as_its_largest_probability(self):
        outputs = samples.normal(3, 20, 10)
        want = torch.softmax(outputs, dim=2).amax(dim=2).T
        torch.testing.assert_close(certainties(outputs, samples.TASK), want)
        labels = certainties(outputs, mixtures.TASKS["multilabel"])
        p = torch.sigmoid(outputs)
        torch.testing.assert_close(labels, torch.maximum(p, 1 - p).amin(dim=2).T)


class TestCosts:
    def test_an_image_costs_every_expert_that_is_asked_about_it(self, digits: Data):
        mixture = toy()
        found, given = costs(mixture), answer(mixture, digits.test)
        shares = given.weights.mean(dim=0).tolist()
        cheap, middle, dear = (found.experts[i].macs for i in mixture.rule.order)
        passed = 1 - shares[mixture.rule.order[0]]
        want = cheap + passed * middle + shares[mixture.rule.order[2]] * dear
        told = outcome(mixture, survey(mixture, digits.test), mixture.rule)
        assert told.macs == pytest.approx(want)
        assert measure(mixture, digits, samples.RUNTIME).test.macs == pytest.approx(want)
        assert 0 < shares[mixture.rule.order[2]] < passed < 1

    def test_the_cheapest_image_asks_one_expert_and_the_dearest_all(self):
        mixture = toy()
        found = costs(mixture)
        every = [part.bitops for part in found.experts]
        assert found.least(mixture.rule, Unit.BITOPS) == every[mixture.rule.order[0]] == min(every)
        assert found.worst(mixture.rule, Unit.BITOPS) == sum(every)

    def test_an_answer_costs_its_expert_and_those_asked_before(self):
        mixture = toy()
        found, order = costs(mixture), mixture.rule.order
        every = [part.bitops for part in found.experts]
        whole = found.whole(mixture.rule, Unit.BITOPS)
        assert [whole[i] for i in order] == [sum(every[i] for i in order[: n + 1]) for n in range(3)]
        assert found.whole(replace(mixture.rule, routing=Routing.THRESHOLD), Unit.BITOPS) == every

    def test_what_it_holds_is_its_experts_and_a_threshold(self):
        found = costs(toy())
        assert found.size_bits == sum(part.size_bits for part in found.experts) + 32
        assert (found.router.params, found.always(Unit.MACS)) == (0, 0)

    @pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
    def test_the_mean_cost_over_val_stays_within_a_budget(self, share, digits: Data):
        mixture, targets = toy(), torch.from_numpy(digits.val.targets)
        seen, counted = survey(mixture, digits.val), costs(mixture)
        least, most = counted.least(mixture.rule, Unit.MACS), counted.worst(mixture.rule, Unit.MACS)
        limit = least + share * (most - least)
        mixture.follow(at_budget(mixture, seen, limit, Unit.MACS, targets))
        given = answer(mixture, digits.val)
        assert counted.mean(given.heads >= 0, given.heads, Unit.MACS) <= limit
        with pytest.raises(ConfigError, match="give more"):
            at_budget(mixture, seen, least - 1, Unit.MACS, targets)


class TestExecution:
    @pytest.mark.parametrize(("threshold", "run"), [(ALWAYS, 1), (NEVER, 3)])
    def test_a_dearer_expert_is_never_called_for_what_a_cheaper_one_is_sure_of(self, threshold, run, digits: Data):
        mixture, calls = toy(), Counter()
        for i, network in enumerate(mixture.net.experts):
            network.register_forward_hook(lambda *_, i=i: calls.update([i]))
        mixture.follow(replace(mixture.rule, threshold=threshold))
        given = answer(mixture, digits.test, 40)
        assert calls == dict.fromkeys(mixture.rule.order[:run], 3)
        assert (given.weights.argmax(dim=1) == mixture.rule.order[run - 1]).all()

    def test_it_answers_as_its_networks_one_after_the_other_by_hand(self, digits: Data):
        mixture = toy()
        images, order, threshold = torch.from_numpy(digits.test.images[:]), mixture.rule.order, mixture.rule.threshold
        with torch.no_grad():
            outs = [mixture.experts[i].net(images)[-1] for i in order]
        given, wrong = answer(mixture, digits.test), 1.0
        want = outs[-1].clone()
        left = torch.ones(len(images), dtype=torch.bool)
        for out in outs[:-1]:
            wrong = wrong * (1 - torch.softmax(out, dim=1).amax(dim=1))
            takes = left & (1 - wrong >= threshold)
            want[takes], left = out[takes], left & ~takes
        torch.testing.assert_close(given.outputs, want, rtol=1e-5, atol=1e-5)
        assert 0 < left.sum() < len(images)


def test_bench_counts_an_image_where_it_is_answered_and_nowhere_else(digits: Data):
    mixture = mixtures.toy(Routing.CASCADE, exits=True)
    given, counts = answer(mixture, digits.test), [len(expert.net.cuts) for expert in mixture.experts]
    left = bench_engines._left(given, counts)
    assert len(left) == len(digits.test)
    firsts = [0, counts[0], counts[0] + counts[1]]
    answered = [((left >= first) & (left < first + count)).mean() for first, count in zip(firsts, counts, strict=True)]
    assert answered == pytest.approx(given.weights.mean(dim=0).tolist())


class TestBadInput:
    def test_a_cascade_with_a_router_and_a_rule_that_lacks_one_are_refused(self):
        routed, cascade = mixtures.toy().arch, toy().arch
        with pytest.raises(ModelError, match="routing cascade has no router"):
            check_mixture(MixtureArch(cascade.rule, routed.router, cascade.experts))
        with pytest.raises(ModelError, match="routing top1 has a router"):
            check_mixture(MixtureArch(routed.rule, None, routed.experts))
        with pytest.raises(ModelError, match="a cascade of numbers does not know how sure it is"):
            check_routed(cascade.rule, TaskKind.REGRESSION, routed=False)
        with pytest.raises(ModelError, match="a cascade shares no first stage"):
            check_mixture(MixtureArch(replace(cascade.rule, shared=True), None, cascade.experts))

    def test_numbers_are_refused_before_training(self, context: Context):
        data = mixtures.asking(context.data, mixtures.TASKS["regression"])
        config = replace(mixtures.CONFIG, routing=Routing.CASCADE)
        with pytest.raises(ConfigError, match=r"moe\.routing=cascade: give another; numbers do not say") as caught:
            mixtures.made(replace(context, data=data), config)
        assert "\n" not in str(caught.value)
        assert not list(context.scratch.iterdir())
