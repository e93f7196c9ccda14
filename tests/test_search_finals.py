"""The few best candidates of a search are trained for a while, and the best of them then is what was found."""

from collections.abc import Callable
from dataclasses import replace

import hunts
import pytest
import samples
import spaces
import torch

from compressor.calibration import recalibrate_norms
from compressor.data.types import Split
from compressor.errors import ConfigError, TrainingError
from compressor.model import Model
from compressor.routing import all_outputs
from compressor.search import evaluation
from compressor.search.candidates import Candidates
from compressor.search.evaluation import Evaluator
from compressor.search.finals import finalists_of, winner
from compressor.search.problem import Found, Problem
from compressor.search.scoring import WORST
from compressor.search.space import ranking_of, space_of
from compressor.search.types import Agent, Candidate, Policy
from compressor.training import Context, Fitting, learn


def silent(units: int, remark: str) -> None:
    """Hear nothing."""


def trained(problem: Problem, found: Found, by_rank: Callable[[int], float]) -> tuple[Candidate, list[Policy]]:
    """Give the winner where the training of the finalist of rank i ends in by_rank(i), and what was trained."""
    asked: list[Policy] = []

    def train(policy: Policy) -> Candidate:
        asked.append(policy)
        return replace(hunts.oracle_of(problem)(policy), likeness=by_rank(len(asked) - 1))

    return winner(problem, found, train, silent), asked


@pytest.mark.parametrize("agent", hunts.AGENTS)
class TestWinner:
    def test_it_is_the_finalist_whose_training_ends_best_as_it_was_found(self, agent):
        problem = hunts.problem(1, finalists=3, evaluations=14, warmup=6)
        found = hunts.hunt(agent, problem)
        best, asked = trained(problem, found, lambda rank: -abs(rank - 1.0))
        finalists = finalists_of(problem, found)
        assert asked == [each.policy for each in finalists]
        assert 2 <= len(asked) <= 3
        assert best == finalists[1]
        assert best in found.history

    def test_finalists_are_the_most_alike_within_the_budget_and_of_equals_the_best_before_wins(self, agent):
        problem = hunts.problem(1, finalists=4, evaluations=14, warmup=6)
        found = hunts.hunt(agent, problem)
        finalists = finalists_of(problem, found)
        assert all(problem.limits.allow(each.bill) for each in finalists)
        assert finalists[0] == found.best == trained(problem, found, lambda rank: WORST)[0]
        rest = [e.likeness for e in found.history if e not in finalists and problem.limits.allow(e.bill)]
        assert min(each.likeness for each in finalists) >= max(rest, default=WORST)


@pytest.mark.parametrize("count", [0, 1])
def test_without_two_finalists_nothing_is_trained(count):
    problem = hunts.problem(1, finalists=count, evaluations=10)
    found = hunts.hunt(Agent.RANDOM, problem)
    assert trained(problem, found, lambda rank: 0.0) == (found.best, [])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"finalists": -1}, r"search.finalists=-1: give 0 \(off\) to 1000 candidates"),
        ({"finalist_batches": 0}, "search.finalist_batches=0: give 1 to 100000 batches"),
    ],
)
def test_settings_out_of_range_are_refused(changes, line):
    with pytest.raises(ConfigError, match=line):
        spaces.config(**changes)


def evaluator_of(model: Model, context: Context, *, teacher: str = "none", **changes) -> Evaluator:
    """Give an evaluator whose finalists are trained for 3 batches, by a teacher or not."""
    config = spaces.config(**({"images": 60, "recalibrate": 40, "finalists": 2, "finalist_batches": 3} | changes))
    recovery = replace(config.joint.recovery, teacher=teacher)
    config = replace(config, joint=replace(config.joint, calibrate=40, recovery=recovery))
    return Evaluator(
        model, context, space_of(model, config), ranking_of(model, context.data, config.criterion, 0), config
    )


def statistics(model: Model) -> dict[str, torch.Tensor]:
    """Copy the running statistics of a model's norms."""
    return {name: tensor.clone() for name, tensor in model.net.state_dict().items() if ".running_" in name}


class TestTraining:
    def test_a_finalist_is_noted_beside_the_candidate_and_trained_once(self, context, tmp_path, monkeypatch):
        evaluator, path = evaluator_of(samples.model(samples.arch()), context), tmp_path / "candidates.jsonl"
        policy, known = spaces.whole(evaluator.space), Candidates(path)
        before, after = evaluator.candidate(policy, known), evaluator.finalist(policy, known)
        assert (before.batches, after.batches, len(known)) == (0, 3, 2)
        assert (before.policy, before.bill) == (after.policy, after.bill)
        assert after.key not in {before.key, evaluator_of(evaluator.model, context, finalist_batches=4).key(policy)}
        monkeypatch.setattr(evaluation, "learn", None)
        assert evaluator.finalist(policy, Candidates(path)) == after

    def test_the_same_finalist_ends_in_the_same_score_whatever_was_trained_before(self, context, tmp_path):
        model = samples.model(samples.arch())
        first, second = (evaluator_of(model, context, teacher="baseline") for _ in range(2))
        policy = spaces.whole(first.space)
        half = replace(policy, bits={name: (4,) * len(bits) for name, bits in policy.bits.items()})
        second.finalist(policy, Candidates(tmp_path / "other"))
        scores = [each.finalist(half, Candidates(tmp_path / f"{i}")) for i, each in enumerate((first, second))]
        assert replace(scores[0], seconds=0.0) == replace(scores[1], seconds=0.0)

    def test_a_teacher_is_heard_and_the_uncompressed_network_stays_as_it_was(self, context, tmp_path):
        model = samples.model(samples.arch())
        before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
        for short, count in (("candidate", 2), ("finalist", 0)):
            scores = set()
            for teacher in ("none", "baseline"):
                evaluator, known = (
                    evaluator_of(model, context, teacher=teacher, tune=count),
                    tmp_path / f"{short}-{teacher}",
                )
                scores.add(getattr(evaluator, short)(spaces.whole(evaluator.space), Candidates(known)).likeness)
            assert len(scores) == 2, short
        assert all(torch.equal(before[name], tensor) for name, tensor in model.net.state_dict().items())
        assert all(parameter.requires_grad for parameter in model.net.parameters())

    def test_its_learning_rate_falls_to_the_end_and_it_is_judged_with_norms_of_the_trained_weights(
        self, context, tmp_path, monkeypatch
    ):
        evaluator, rates, judged = evaluator_of(samples.model(samples.arch()), context, tune_lr=0.06), [], []

        def learned(fitting: Fitting, images: torch.Tensor, targets: torch.Tensor) -> float:
            loss = learn(fitting, images, targets)
            rates.append(fitting.optimizer.param_groups[0]["lr"])
            return loss

        def outputs(model: Model, split: Split) -> tuple[torch.Tensor, ...]:
            judged.append(model)
            return all_outputs(model, split)

        monkeypatch.setattr(evaluation, "learn", learned)
        monkeypatch.setattr(evaluation, "all_outputs", outputs)
        evaluator.finalist(spaces.whole(evaluator.space), Candidates(tmp_path / "candidates.jsonl"))
        assert rates == pytest.approx([0.06, 0.04, 0.02])
        (model,) = judged
        before = statistics(model)
        recalibrate_norms(model, context, images=evaluator.config.recalibrate, seed=evaluator.config.joint.fit.seed)
        assert before
        assert all(torch.equal(before[name], tensor) for name, tensor in statistics(model).items())

    @pytest.mark.parametrize("tune", [0, 2])
    def test_a_training_that_diverges_is_the_worst_and_ends_no_search(self, tune, context, tmp_path, monkeypatch):
        def diverge(*_: object) -> float:
            raise TrainingError("the loss is nan")

        evaluator = evaluator_of(samples.model(samples.arch()), context, tune=tune)
        policy, known = spaces.whole(evaluator.space), Candidates(tmp_path / "candidates.jsonl")
        monkeypatch.setattr(evaluation, "learn", diverge)
        assert evaluator.finalist(policy, known).likeness == WORST
        assert (evaluator.candidate(policy, known).likeness == WORST) is (tune > 0)
        assert len(Candidates(known.path)) == 2
