"""Mixtures in the runtime: numpy decides and mixes as torch does, and experts that are not chosen are not run."""

from dataclasses import replace

import deployed
import mixtures
import numpy as np
import pytest
import samples
import torch

from compressor.arch import Exits, Routing, Rule
from compressor.arch.mixtures import MixtureArch, check_mixture
from compressor.config import Engine
from compressor.deploy import rule as numpy_rule
from compressor.deploy.rebuilt import open_mixture
from compressor.errors import ModelError
from compressor.measure import settle
from compressor.mixture import Mixture, answer, decide, mix

KINDS = {
    **{routing.value: lambda routing=routing: mixtures.toy(routing) for routing in Routing},
    "exits": lambda: mixtures.toy(exits=True),
    "shared": mixtures.shared_toy,
    "shared-topk": lambda: mixtures.shared_toy(Routing.TOPK),
    "multilabel": lambda: mixtures.toy(Routing.TOPK, mixtures.TASKS["multilabel"]),
    "regression": lambda: mixtures.toy(Routing.TOPK, mixtures.TASKS["regression"]),
}


def settled(name: str, digits) -> Mixture:
    """Give an untrained mixture of a kind, whose experts' exits let some images leave."""
    found = KINDS[name]()
    for expert in found.experts:
        settle(expert, mixtures.asking(digits, found.task), samples.RUNTIME)
    return found


class TestRule:
    RULE = Rule(Routing.TOP1, 2, False, (2, 0, 3, 1), (0.3, 0.0, 0.1, 0.25), 0.55)

    @pytest.mark.parametrize("routing", Routing)
    def test_decides_as_the_mixture_does(self, routing):
        rule, scores = replace(self.RULE, routing=routing), 2 * samples.normal(5000, 4)
        scores = torch.sigmoid(scores - 1) if routing is Routing.CASCADE else scores  # how sure experts are
        want, found = decide(scores, rule).numpy(), numpy_rule.decide(scores.numpy(), rule)
        assert found.dtype == np.float32
        assert ((found > 0) == (want > 0)).all()
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)
        assert len(np.unique(found.argmax(axis=1))) == 4

    @pytest.mark.parametrize("value", [0.0, 2.0])
    def test_a_threshold_may_be_beyond_all_probabilities(self, value):
        rule, scores = replace(self.RULE, routing=Routing.THRESHOLD, threshold=value), samples.normal(50, 4)
        assert set(numpy_rule.decide(scores.numpy(), rule).argmax(axis=1)) == {2 if value == 0 else 1}

    @pytest.mark.parametrize("task", mixtures.TASKS.values(), ids=mixtures.TASKS)
    def test_mixes_as_the_mixture_does(self, task):
        outputs, weights = (
            5 * samples.normal(4, 300, task.outputs),
            torch.softmax(samples.normal(300, 4, seed=1), dim=1),
        )
        weights[:100] *= weights[:100] > weights[:100].median(dim=1, keepdim=True).values
        weights[100:200] = torch.nn.functional.one_hot(weights[100:200].argmax(dim=1), 4)
        weights = weights / weights.sum(dim=1, keepdim=True)
        outputs[weights.T == 0] = torch.nan  # what was not run is not read
        found = numpy_rule.mix(outputs.numpy(), weights.numpy(), task)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, mix(outputs, weights, task).numpy(), rtol=1e-5, atol=2e-5)

    def test_a_router_with_exits_is_refused(self):
        arch = mixtures.toy().arch
        router = samples.arch(task=mixtures.router_of(mixtures.toy()).arch.task, exits=Exits((0.5,)))
        with pytest.raises(ModelError, match="the router has exits"):
            check_mixture(MixtureArch(arch.rule, router, arch.experts))


@pytest.mark.parametrize("name", KINDS)
class TestExecution:
    @pytest.mark.parametrize("batch", [1, 7, 120])
    def test_images_in_groups_are_answered_as_pytorch_answers_each_alone(self, name, batch, digits):
        mixture = settled(name, digits)
        want = answer(mixture, digits.test, batch=1)
        found = deployed.routes(open_mixture(mixture, Engine.TORCH, 0), digits.test.images[:], batch)
        assert (found.heads == want.heads.numpy()).all()
        np.testing.assert_allclose(found.weights, want.weights.numpy(), atol=1e-5)
        np.testing.assert_allclose(found.outputs, want.outputs.numpy(), atol=1e-4)
        assert ((found.heads >= 0).sum(axis=0) > 0).sum() >= 2

    @pytest.mark.parametrize("batch", [1, 30])
    def test_an_expert_that_is_not_chosen_is_never_run(self, name, batch, digits):
        exported, ran = open_mixture(settled(name, digits), Engine.TORCH, 0), {}

        def counted(stage, *key):
            def run(values):
                assert len(values) > 0
                ran[key] = ran.get(key, 0) + len(values)
                return stage(values)

            return run

        experts = tuple(
            replace(expert, stages=tuple(counted(stage, i, head) for head, stage in enumerate(expert.stages)))
            for i, expert in enumerate(exported.experts)
        )
        first = exported.first and counted(exported.first, "first")
        router = exported.router and counted(exported.router, "router")
        counting = replace(exported, experts=experts, router=router, first=first)
        heads = deployed.routes(counting, digits.test.images[:], batch).heads
        want = {(name,): len(heads) for name, stage in (("router", router), ("first", first)) if stage}
        for i, expert in enumerate(exported.experts):
            want |= {(i, head): int((heads[:, i] >= head).sum()) for head in range(len(expert.stages))}
        assert ran == {key: count for key, count in want.items() if count}

    def test_no_images_are_no_answers(self, name, digits):
        mixture = settled(name, digits)
        found = open_mixture(mixture, Engine.TORCH, 0).predict(np.empty((0, 1, 8, 8), np.uint8))
        count = len(mixture.experts)
        assert (found.outputs.shape, found.heads.shape) == ((0, mixture.task.outputs), (0, count))
        assert found.exits.shape == (0,)
