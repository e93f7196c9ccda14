"""A router that learned the task: what it takes over, what it says of an image, and that experts leave it as it is."""

from dataclasses import replace

import mixtures
import numpy as np
import pytest
import samples
import torch

from compressor.arch import FLOAT, Bits, Routing, TaskKind
from compressor.calibration import calibrate
from compressor.config.moe import MoeStem
from compressor.data import load_data
from compressor.errors import ConfigError
from compressor.mixture import survey
from compressor.mixture.judging import Judge, judge_arch, sureness, telling
from compressor.model import fresh
from compressor.phases.moe import router_arch
from compressor.training import Context, fit

JUDGED = replace(mixtures.CONFIG, routing=Routing.THRESHOLD, router=mixtures.JUDGING)


def judge_of(mixture, seed: int = 11) -> Judge:
    return Judge(mixture, samples.model(judge_arch(mixtures.router_of(mixture).arch, mixture.task), seed).net)


def epochs(count: int, router=mixtures.JUDGING):
    """Give the settings of a mixture whose joint training has so many epochs."""
    joint = replace(mixtures.CONFIG.joint, fit=replace(mixtures.FIT, epochs=count))
    return replace(JUDGED, joint=joint, router=router)


@pytest.mark.parametrize("make", [mixtures.toy, mixtures.shared_toy], ids=["own", "shared"])
def test_the_router_takes_over_what_the_judge_learned_but_for_its_head(make):
    mixture = make()
    judge = judge_of(mixture)
    head = {name: t.clone() for name, t in mixtures.router_of(mixture).net.head.state_dict().items()}
    judge.hand_over()
    learned, own = judge.judge.state_dict(), judge.router.state_dict()
    assert any(name.startswith("blocks.") for name in own)
    for name, tensor in own.items():
        want = head[name.removeprefix("head.")] if name.startswith("head.") else learned[name]
        assert torch.equal(tensor, want), name


class TestSureness:
    def test_is_the_margin_between_two_classes_in_units_of_four_up_to_two(self):
        answers = torch.tensor([[5.0, 1.0, -3.0], [2.0, 2.0, 0.0], [90.0, 0.0, 0.0]])
        torch.testing.assert_close(sureness(answers, samples.TASK), torch.tensor([1.0, 0.0, 2.0]))

    def test_of_several_labels_is_that_of_the_least_sure(self):
        answers = torch.tensor([[5.0, -0.4, 2.0], [-4.0, 6.0, 8.0]])
        torch.testing.assert_close(sureness(answers, mixtures.TASKS["multilabel"]), torch.tensor([0.1, 1.0]))

    def test_scores_shall_fall_with_it_from_the_cheapest_expert_to_the_dearest(self):
        mixture = mixtures.toy()
        answers = torch.zeros(1, 10)
        answers[0, 3] = 4.0
        wanted = torch.tensor([[-0.5, 0.0, -1.0]])
        assert mixture.rule.order == (1, 0, 2)
        nothing = torch.zeros(1, dtype=torch.int64)
        assert telling(mixture)((wanted, answers), nothing, nothing).item() == 0
        assert telling(mixture)((wanted + 0.5, answers), nothing, nothing).item() == pytest.approx(0.25)

    @pytest.mark.parametrize("kind", [TaskKind.MULTICLASS, TaskKind.BINARY, TaskKind.MULTILABEL])
    def test_every_task_with_labels_has_it(self, kind, digits, tmp_path):
        task = mixtures.TASKS[str(kind)]
        data = mixtures.asking(digits, task)
        mixture = mixtures.made(Context(data, tmp_path, samples.RUNTIME), epochs(0))
        assert survey(mixture, data.val).scores.std(dim=0).min() > 0

    def test_numbers_have_none_which_is_said_in_one_line(self, digits, tmp_path):
        data = mixtures.asking(digits, mixtures.TASKS["regression"])
        with pytest.raises(ConfigError, match=r"moe\.router\.task\.epochs=3: give 0; numbers do not say") as caught:
            mixtures.made(Context(data, tmp_path, samples.RUNTIME), JUDGED)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stem", MoeStem)
def test_experts_learn_while_the_router_stays(stem, context):
    before, after = (
        mixtures.made(samples.afresh(context, str(count)), replace(epochs(count), stem=stem)) for count in (0, 2)
    )
    ours, theirs = (mixture.net.state_dict() for mixture in (before, after))
    router = [name for name in ours if name.startswith("router.")]
    assert router
    assert all(torch.equal(ours[name], theirs[name]) for name in router)
    weights = [mixture.experts[0].net.head.score.weight for mixture in (before, after)]
    assert not torch.equal(*weights)


def test_hidden_layers_stand_before_the_scores():
    expert = samples.arch()
    assert router_arch(mixtures.JUDGING, expert, 3, shared=False).head.hidden == (6, 6)
    assert router_arch(mixtures.ROUTER, expert, 3, shared=False).head.hidden == ()
    shared = router_arch(mixtures.JUDGING, expert, 3, shared=True)
    assert judge_arch(shared, samples.TASK).head.hidden == ()


def test_it_doubts_the_images_that_a_cheap_expert_answers_wrong(tmp_path):
    data = load_data(replace(samples.DATASET, limit=None), samples.RUNTIME)
    context = Context(data, tmp_path, samples.RUNTIME)
    learning = replace(mixtures.FIT, epochs=12, lr=0.1)
    cheap = fresh(mixtures.archs()[1], 1)
    calibrate(cheap, context, images=200, seed=0)
    fit(cheap, learning, samples.afresh(context, "cheap"))
    router = replace(mixtures.JUDGING, width=12, hidden=16, bits=Bits(FLOAT, FLOAT), edge_bits=FLOAT)
    task, scores = replace(learning, epochs=30), replace(learning, epochs=40, lr=0.05)
    config = epochs(0, replace(router, task=task, fit=scores))
    found = survey(mixtures.made(context, config, expert1=cheap), data.test)
    right = found.outputs[1].argmax(dim=1) == torch.from_numpy(np.array(data.test.targets))
    trust = found.scores[:, 1] - found.scores[:, 2]
    assert 0.3 < right.float().mean() < 0.98
    assert (trust[right][:, None] > trust[~right]).float().mean() > 0.65
