"""A candidate's quality is that of the network that the policy's step makes without epochs; nothing is done twice."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import samples
import spaces
import torch

from compressor.arch import Arch, BlockKind
from compressor.config import RecoveryConfig
from compressor.errors import StoreError
from compressor.model import Model, fresh
from compressor.phases.quantize import quantize
from compressor.quality import per_image
from compressor.routing import all_outputs
from compressor.search.budget import Limits, bill_of
from compressor.search.candidates import Candidates, key_of
from compressor.search.evaluation import Evaluator
from compressor.search.scoring import score_of
from compressor.search.space import Space, ranking_of, space_of
from compressor.search.stage import Rounded
from compressor.search.types import Bill, Candidate, Mode, Policy
from compressor.training import Context, fit

TAUGHT = RecoveryConfig("baseline", 4.0, 0.9)


def learned(arch: Arch, context: Context) -> Model:
    """Give a network that has learned a little."""
    model = fresh(arch, 0)
    return fit(model, replace(samples.FIT, epochs=2, lr=0.05), samples.afresh(context, f"{arch.name}-start"))


def evaluator_of(model: Model, context: Context, **changes) -> Evaluator:
    config = spaces.config(**({"images": 60, "recalibrate": 64} | changes))
    space = space_of(model, config)
    return Evaluator(model, context, space, ranking_of(model, context.data, config.criterion, 0), config)


def some(space: Space, seed: int, limits: Limits | None = None) -> Policy:
    return spaces.walked(space, limits or Limits(), iter(random.Random(seed).random, None))


def outputs(evaluator: Evaluator, model: Model) -> torch.Tensor:
    return all_outputs(model, evaluator.val)[-1]


def alike(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Tell whether answers (N, outputs) are equal but for the last bits, which may turn a rounding for a few images."""
    far = (ours - theirs).abs().amax(dim=1) > 1e-4 * theirs.abs().max()
    return far.double().mean().item() <= 0.05


class TestEquality:
    @pytest.mark.parametrize("kind", BlockKind)
    def test_the_stage_answers_as_what_the_step_makes(self, kind, context):
        model = learned(samples.arch(kind), context)
        for mode in Mode:
            evaluator = evaluator_of(model, context, mode=mode, search_acts=True, groups=3)
            for seed in range(3):
                policy = some(evaluator.space, seed)
                score, made = evaluator.evaluate(policy), evaluator.made(policy)
                theirs, ours = outputs(evaluator, made), outputs(evaluator, Model(made.arch, evaluator.stage.net))
                assert alike(ours, theirs)
                right = per_image(theirs, evaluator.targets, context.data.task).double().mean().item()
                assert score.quality == pytest.approx(right, abs=1 / 60)
                said = score_of(theirs, evaluator.whole, evaluator.targets, context.data.task).likeness
                assert score.likeness == pytest.approx(said, rel=0.05, abs=1e-3)

    @pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
    def test_named_networks_within_a_budget_too(self, name, context):
        model = learned(spaces.arch_of(name), context)
        evaluator = evaluator_of(model, context)
        limits = Limits.of(spaces.budget(size=0.2, macs=0.6), evaluator.space)
        policy = some(evaluator.space, 1, limits)
        evaluator.evaluate(policy)
        made = evaluator.made(policy)
        ours = outputs(evaluator, Model(made.arch, evaluator.stage.net))
        assert alike(ours, outputs(evaluator, made))

    def test_a_policy_that_cuts_nothing_is_plain_quantization_to_8_bits(self, context):
        model = learned(samples.arch(), context)
        evaluator = evaluator_of(model, context)
        evaluator.evaluate(spaces.whole(evaluator.space))
        joint = evaluator.config.joint
        config = replace(
            samples.QUANTIZE, bits=replace(samples.QUANTIZE.bits, weight=8, act=8), calibrate=joint.calibrate
        )
        plain = quantize(replace(config, fit=replace(joint.fit, epochs=0)), context, model)
        assert torch.equal(outputs(evaluator, Model(plain.arch, evaluator.stage.net)), outputs(evaluator, plain))

    def test_few_bits_are_scored_with_norms_of_their_own_though_nothing_is_pruned(self, context):
        start = samples.afresh(context, "start")
        model = fit(fresh(samples.arch(), 0), replace(samples.FIT, epochs=20, lr=0.1), start)
        anew, stale = evaluator_of(model, context, recalibrate=120), evaluator_of(model, context, recalibrate=0)
        policy = spaces.whole(stale.space)
        coarse = replace(policy, bits={name: (2,) * len(groups) for name, groups in policy.bits.items()})
        assert anew.evaluate(coarse).quality > stale.evaluate(coarse).quality + 0.1
        assert anew.evaluate(coarse).likeness > stale.evaluate(coarse).likeness
        made = anew.made(coarse)
        assert alike(outputs(anew, made), outputs(anew, Model(made.arch, anew.stage.net)))

    def test_what_was_evaluated_before_changes_nothing(self, context):
        model = learned(samples.arch(BlockKind.INVERTED), context)
        busy, rested = evaluator_of(model, context), evaluator_of(model, context)
        for seed in range(4):
            busy.evaluate(some(busy.space, seed))
        policy = some(busy.space, 9)
        assert busy.evaluate(policy) == rested.evaluate(policy)
        state = busy.stage.net.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in rested.stage.net.state_dict().items())

    def test_the_model_stays_as_it_was(self, context):
        model = learned(samples.arch(), context)
        before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
        evaluator = evaluator_of(model, context, tune=2)
        evaluator.evaluate(some(evaluator.space, 0))
        assert all(torch.equal(before[name], tensor) for name, tensor in model.net.state_dict().items())


class TestQuality:
    def test_it_is_that_of_evenly_spaced_images_of_val(self, context):
        model = learned(samples.arch(), context)
        evaluator = evaluator_of(model, context, images=40)
        rows = np.arange(40) * len(context.data.val) // 40
        assert np.array_equal(evaluator.val.images, context.data.val.images[rows])
        answers = all_outputs(model, context.data.val)[-1][rows].argmax(dim=1).numpy()
        assert evaluator.baseline == pytest.approx((answers == context.data.val.targets[rows]).mean())
        assert len(evaluator_of(model, context, images=0).val) == len(context.data.val)

    def test_more_bits_are_better_and_a_short_training_helps(self, context):
        model = learned(samples.arch(), context)
        evaluator = evaluator_of(model, context, images=0)
        few = spaces.walked(evaluator.space, Limits(), iter(lambda: 0.6, 1.0))
        whole = evaluator.evaluate(spaces.whole(evaluator.space))
        assert evaluator.evaluate(few).quality < whole.quality
        assert evaluator.evaluate(few).likeness < whole.likeness <= 0
        tuned = evaluator_of(model, context, images=0, tune=20, tune_lr=0.05)
        assert tuned.evaluate(few).quality > evaluator.evaluate(few).quality
        assert tuned.evaluate(few) == tuned.evaluate(few)

    def test_what_a_teacher_said_before_changes_no_score(self, context, monkeypatch):
        model, found = learned(samples.arch(), context), []
        joint = replace(spaces.config().joint, recovery=TAUGHT)
        for memory in (0, 3, 100):
            monkeypatch.setattr("compressor.search.evaluation.MEMORY", memory)
            evaluator = evaluator_of(model, context, tune=5, joint=joint)
            found.append([evaluator.evaluate(some(evaluator.space, seed)) for seed in (0, 1, 0)])
        assert found[0] == found[1] == found[2]

    def test_a_probe_is_what_a_candidate_is_without_training(self, context, tmp_path):
        model = learned(samples.arch(), context)
        tuned, plain = evaluator_of(model, context, tune=2), evaluator_of(model, context)
        policy, known = some(tuned.space, 0), Candidates(tmp_path / "candidates.jsonl")
        candidate, probe = tuned.candidate(policy, known), tuned.candidate(policy, known, trained=False)
        assert (candidate.batches, probe.batches, len(known)) == (2, 0, 2)
        assert (probe.likeness, probe.quality) == tuple(vars(plain.evaluate(policy)).values())
        assert probe.likeness != candidate.likeness
        assert tuned.candidate(policy, Candidates(known.path)) == candidate


class TestMemo:
    def test_an_identical_candidate_is_evaluated_once(self, context, tmp_path):
        evaluator = evaluator_of(fresh(samples.arch(), 0), context)
        known, policy = Candidates(tmp_path / "candidates.jsonl"), some(evaluator.space, 0)
        first, second = evaluator.candidate(policy, known), evaluator.candidate(policy, known)
        assert first == second
        assert (evaluator.count, len(known)) == (1, 1)
        assert evaluator.per_second > 0
        evaluator.candidate(some(evaluator.space, 1), known)
        assert (evaluator.count, len(known)) == (2, 2)

    def test_a_search_that_goes_on_evaluates_nothing_again(self, context, tmp_path):
        evaluator = evaluator_of(fresh(samples.arch(), 0), context)
        path, policy = tmp_path / "candidates.jsonl", some(evaluator.space, 0)
        before = evaluator.candidate(policy, Candidates(path))
        assert evaluator.candidate(policy, Candidates(path)) == before
        assert evaluator.count == 1
        assert before.bill == bill_of(policy, evaluator.space)

    def test_two_policies_of_one_network_are_one_candidate(self, context):
        evaluator = evaluator_of(fresh(samples.arch(BlockKind.PLAIN), 0), context, groups=2)
        policy = spaces.whole(evaluator.space)
        size = evaluator.space.axes["s0b1.0"]
        half = policy.bits | {"blocks.s0b1.conv1": (8, 0)}
        pruned = replace(policy, keep=policy.keep | {"s0b1.0": size // 2})
        assert evaluator.key(replace(policy, bits=half)) == evaluator.key(pruned)
        assert evaluator.key(policy) != evaluator.key(pruned)

    def test_the_key_says_how_it_is_evaluated(self, context):
        model = fresh(samples.arch(), 0)
        keys = {
            evaluator_of(model, context, **changes).key(spaces.whole(space_of(model, spaces.config())))
            for changes in ({}, {"images": 50}, {"recalibrate": 65}, {"tune": 1})
        }
        assert len(keys) == 4


class TestRounded:
    def test_what_is_forgotten_is_rounded_again_alike(self):
        weight, out = samples.normal(6, 5, 3, 3), torch.arange(6)
        bits = torch.tensor([0, 1, 2, 4, 8, 8])
        tight, roomy = Rounded(limit=1), Rounded()
        for into in (None, (0, 2), (1, 3, 4)):
            assert torch.equal(tight.rows("a", weight, out, into, bits), roomy.rows("a", weight, out, into, bits))
            tight.rows("b", weight, out, into, bits)
        assert len(tight.tables) == 1
        assert len(roomy.tables) == 3
        assert torch.equal(
            roomy.rows("a", weight, out[1:], None, bits[1:]), tight.rows("a", weight, out, None, bits)[1:]
        )
        assert not roomy.rows("a", weight, out, None, bits)[0].any()


def candidate(number: int) -> Candidate:
    policy = Policy({"s0": number}, {"conv": (8, 0)}, {"act": 8})
    return Candidate(key_of(number), policy, -0.25, 0.5, Bill(number, 2, 3, None), 0, 0.25)


class TestFile:
    def test_what_was_added_is_there_when_it_is_opened_again(self, tmp_path):
        path = tmp_path / "candidates.jsonl"
        known = Candidates(path)
        for number in range(3):
            known.add(candidate(number))
        known.add(candidate(1))
        again = Candidates(path)
        assert len(path.read_text().splitlines()) == len(again) == 3
        assert again.get(candidate(2).key) == candidate(2)
        assert again.get("other") is None

    @pytest.mark.parametrize("cut", [1, 10, 100])
    def test_a_last_line_that_a_kill_cut_is_dropped(self, cut, tmp_path):
        path = self._written(tmp_path)
        path.write_bytes(path.read_bytes()[:-cut])
        known = Candidates(path)
        assert len(known) == 1
        known.add(candidate(1))
        assert len(Candidates(path)) == 2

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("garbage", "is no line of JSON"),
            ('{"key": "a"}', "key 'policy' is missing"),
            (json.dumps({"epoch": 1}), "unknown key 'epoch'"),
        ],
    )
    def test_a_foreign_line_is_refused_by_name(self, line, reason, tmp_path):
        path = self._written(tmp_path)
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(StoreError) as caught:
            Candidates(path)
        said = str(caught.value)
        assert said.startswith(f"{path}:3: is no ")
        assert reason in said
        assert "\n" not in said

    @staticmethod
    def _written(folder: Path) -> Path:
        known = Candidates(folder / "candidates.jsonl")
        for number in range(2):
            known.add(candidate(number))
        return known.path
