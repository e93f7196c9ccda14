"""A mixture at work: images go where the rule says, only chosen experts are run, however images are batched."""

from collections import Counter
from dataclasses import replace

import mixtures
import pytest
import samples
import torch

from compressor.arch import Limit, Routing, Rule, TaskKind, Unit
from compressor.errors import ConfigError
from compressor.layers import Weighted
from compressor.measure import settle
from compressor.mixture import Mixture, answer, asked, at_budget, costs, decide, mix, outcome, run, survey
from compressor.model import Model
from compressor.quality import per_image

KINDS = {
    **{routing.value: lambda routing=routing: mixtures.toy(routing) for routing in Routing},
    "exits": lambda: mixtures.toy(exits=True),
    "shared": mixtures.shared_toy,
    "shared-topk": lambda: mixtures.shared_toy(Routing.TOPK),
    "multilabel": lambda: mixtures.toy(Routing.TOPK, mixtures.TASKS["multilabel"]),
    "regression": lambda: mixtures.toy(Routing.TOPK, mixtures.TASKS["regression"]),
}


@pytest.fixture(params=KINDS)
def mixture(request, digits) -> Mixture:
    """Give an untrained mixture of each kind; exits have thresholds that let some images leave."""
    found = KINDS[request.param]()
    for expert in found.experts:
        settle(expert, mixtures.asking(digits, found.task), samples.RUNTIME)
    return found


class TestExecution:
    def test_images_in_groups_are_answered_as_each_alone(self, mixture, digits):
        whole = answer(mixture, digits.test)
        for batch in (1, 7):
            parts = answer(mixture, digits.test, batch=batch)
            assert torch.equal(parts.weights > 0, whole.weights > 0)
            assert torch.equal(parts.heads, whole.heads)
            torch.testing.assert_close(parts.weights, whole.weights, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(parts.outputs, whole.outputs, rtol=1e-5, atol=1e-5)
        assert (whole.weights.sum(dim=0) > 0).sum() >= 2

    def test_it_answers_as_a_survey_of_all_experts_and_the_rule_say(self, mixture, digits):
        given, seen = answer(mixture, digits.test), survey(mixture, digits.test)
        told = outcome(mixture, seen, mixture.rule)
        torch.testing.assert_close(told.outputs, given.outputs, rtol=1e-5, atol=1e-5)
        ran = asked(given.weights, mixture.rule)
        assert torch.equal(told.weights > 0, given.weights > 0)
        assert torch.equal(seen.heads[ran], given.heads[ran])
        assert (given.heads[~ran] == -1).all()
        assert told.bitops == pytest.approx(costs(mixture).mean(ran, given.heads, Unit.BITOPS))

    def test_each_layer_sees_the_images_of_its_expert_and_no_others(self, mixture, digits):
        seen: Counter[int] = Counter()
        for module in mixture.net.modules():
            if isinstance(module, Weighted):
                module.register_forward_hook(lambda layer, inputs, _: seen.update({id(layer): len(inputs[0])}))
        ran = asked(answer(mixture, digits.test).weights, mixture.rule).sum(dim=0).tolist()
        count = len(digits.test)
        router = [(mixture.router, count)] if mixture.router else []
        for model, expected in [*router, *zip(mixture.experts, ran, strict=True)]:
            for name, layer in layers(model).items():
                shared = mixture.net.first is not None and name.startswith(("stem.", "blocks.s0"))
                early = not model.net.exits or name.startswith(("stem.", "blocks.s0b0"))
                if early:
                    assert seen[id(layer)] == (count if shared else expected), name
                else:
                    assert seen[id(layer)] <= expected, name

    def test_the_networks_rows_do_not_depend_on_each_other(self, mixture, digits):
        images = torch.from_numpy(digits.test.images[:20])
        whole, half = run(mixture, images), run(mixture, images[:10])
        torch.testing.assert_close(whole.outputs[:10], half.outputs, rtol=1e-5, atol=1e-5)


def layers(model: Model) -> dict[str, Weighted]:
    return {name: layer for name, layer in model.net.named_modules() if isinstance(layer, Weighted)}


@pytest.mark.parametrize("expert", range(3))
def test_the_forward_of_an_expert_that_is_not_chosen_is_never_called(expert, digits):
    mixture, calls = mixtures.toy(), Counter()
    for i, network in enumerate(mixture.net.experts):
        network.register_forward_hook(lambda *_, i=i: calls.update([i]))
    mixture.follow(replace(mixture.rule, prices=tuple(0.0 if i == expert else 1000.0 for i in range(3))))
    for batch in (1, 256):
        answer(mixture, digits.test, batch)
    assert set(calls) == {expert}
    assert calls[expert] == len(digits.test) + 1


class TestRule:
    rule = Rule(Routing.TOP1, 2, False, (2, 0, 1), (0.0, 0.0, 0.0), 0.6)

    def test_top1_takes_the_largest_score_after_prices(self):
        scores = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.1, 0.05]])
        assert decide(scores, self.rule).argmax(dim=1).tolist() == [0, 1]
        assert decide(scores, replace(self.rule, prices=(0.9, 0.0, 0.0))).argmax(dim=1).tolist() == [1, 1]

    def test_topk_weighs_the_k_largest_by_their_softmax(self):
        weights = decide(torch.tensor([[2.0, 1.0, 0.0]]), replace(self.rule, routing=Routing.TOPK))
        torch.testing.assert_close(weights[0, :2], torch.softmax(torch.tensor([2.0, 1.0]), dim=0))
        assert weights[0, 2] == 0

    @pytest.mark.parametrize(("threshold", "expert"), [(0.0, 2), (0.15, 2), (0.3, 0), (0.75, 0), (0.85, 1), (2.0, 1)])
    def test_a_threshold_takes_the_cheapest_until_the_router_is_sure_enough(self, threshold, expert):
        scores = torch.tensor([[0.6, 0.2, 0.2]]).log()
        rule = replace(self.rule, routing=Routing.THRESHOLD, threshold=threshold)
        assert decide(scores, rule).argmax().item() == expert

    @pytest.mark.parametrize("task", mixtures.TASKS.values(), ids=mixtures.TASKS)
    def test_a_mix_is_the_weighted_mean_of_probabilities_or_numbers(self, task):
        outputs = 3 * samples.normal(3, 5, task.outputs)
        weights = torch.softmax(samples.normal(5, 3, seed=1), dim=1)
        known = {TaskKind.REGRESSION: lambda out: out, TaskKind.MULTILABEL: torch.sigmoid}
        answers = known.get(task.kind, lambda out: torch.softmax(out, dim=-1))
        want = (answers(outputs) * weights.T[:, :, None]).sum(dim=0)
        torch.testing.assert_close(answers(mix(outputs, weights, task)), want)

    def test_one_expert_alone_answers_as_it_is(self):
        outputs = samples.normal(2, 4, 10)
        weights = torch.tensor([[0.0, 1.0]] * 4)
        assert torch.equal(mix(outputs, weights, samples.TASK), outputs[1])


class TestBudget:
    @pytest.mark.parametrize("unit", Unit)
    @pytest.mark.parametrize("routing", [Routing.TOP1, Routing.TOPK, Routing.THRESHOLD])
    def test_the_mean_cost_over_val_stays_within_any_budget_that_can_be_met(self, routing, unit, digits):
        mixture = mixtures.toy(routing, exits=True)
        seen, counted = survey(mixture, digits.val), costs(mixture)
        count = 2 if routing is Routing.TOPK else 1
        means = counted.each(seen.heads, unit).mean(dim=0).sort().values
        least, most = (counted.always(unit) + float(part.sum()) for part in (means[:count], means[-count:]))
        spent = []
        for share in (0.0, 0.3, 0.6, 1.0):
            limit = least + share * (most - least) + 1e-6
            rule = at_budget(mixture, seen, limit, unit)
            told = outcome(mixture, seen, rule)
            spent.append(getattr(told, unit))
            assert spent[-1] <= limit
        assert spent[0] < spent[2]
        with pytest.raises(Exception, match="give more") as caught:
            at_budget(mixture, seen, least - 1, unit)
        assert "\n" not in str(caught.value)

    def test_a_budget_that_everything_meets_changes_nothing(self, digits):
        mixture = mixtures.toy()
        assert at_budget(mixture, survey(mixture, digits.val), 1e15) == mixture.rule

    def test_of_the_thresholds_within_a_budget_the_one_that_answers_val_best_is_taken(self, digits):
        mixture, targets = mixtures.toy(Routing.THRESHOLD), torch.from_numpy(digits.val.targets)
        seen = survey(mixture, digits.val)

        def right(rule: Rule) -> float:
            return float(per_image(outcome(mixture, seen, rule).outputs, targets, samples.TASK).mean())

        best = at_budget(mixture, seen, float("inf"), targets=targets)
        others = [replace(mixture.rule, threshold=share) for share in (0.0, 0.3, 0.5, 0.7, 0.9, 2.0)]
        assert right(best) >= max(map(right, others)) - 0.01
        assert right(best) > min(map(right, others))

    def test_a_threshold_leaves_no_expert_more_of_val_than_asked_for(self, digits):
        mixture, targets = mixtures.toy(Routing.THRESHOLD), torch.from_numpy(digits.val.targets)
        seen = survey(mixture, digits.val)
        free = at_budget(mixture, seen, float("inf"), targets=targets)
        mixture.follow(replace(mixture.rule, busiest=0.6))
        for wanted in (targets, None):
            rule = at_budget(mixture, seen, float("inf"), targets=wanted)
            assert max(outcome(mixture, seen, rule).shares) <= 0.6
        assert max(outcome(mixture, seen, free).shares) > 0.6

    def test_a_share_that_no_threshold_within_the_budget_keeps_to_is_refused_in_one_line(self, digits):
        mixture = mixtures.toy(Routing.THRESHOLD)
        seen, counted = survey(mixture, digits.val), costs(mixture)
        mixture.follow(replace(mixture.rule, busiest=0.5))
        least = counted.least(mixture.rule, Unit.BITOPS)
        with pytest.raises(ConfigError, match=r"moe\.busiest=0\.5: no threshold within the budget") as caught:
            at_budget(mixture, seen, 1.01 * least)
        assert "\n" not in str(caught.value)

    def test_no_image_hangs_on_the_last_bits_of_a_price(self, digits):
        mixture = mixtures.toy()
        seen, counted = survey(mixture, digits.val), costs(mixture)
        limit = Limit(Unit.BITOPS, counted.always(Unit.BITOPS) + 1.5 * counted.experts[1].bitops)
        rule = at_budget(mixture, seen, limit.mean)
        moved = replace(rule, prices=tuple(price * (1 + 1e-7) for price in rule.prices))
        assert any(rule.prices)
        assert torch.equal(decide(seen.scores, rule), decide(seen.scores, moved))
