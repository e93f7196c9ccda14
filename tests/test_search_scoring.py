"""A candidate is judged by how alike it answers to the uncompressed network, a number that hardly ever ties."""

import json
from dataclasses import replace

import hunts
import numpy as np
import pytest
import torch
from samples import TASK, normal
from scipy import special, stats

from compressor.arch import Task, TaskKind
from compressor.codec import encode
from compressor.search.problem import Ledger
from compressor.search.scoring import WORST, score_of
from compressor.search.wishes import walked

LABELS = Task(TaskKind.MULTILABEL, 3, ("a", "b", "c"))
NUMBERS = Task(TaskKind.REGRESSION, 1, (), mean=(50.0,), scale=(10.0,))


def bernoulli(p: np.ndarray) -> np.ndarray:
    return np.stack([p, 1 - p])


class TestLikeness:
    def test_of_classes_it_is_minus_scipys_divergence(self):
        out, whole, targets = normal(30, 10), normal(30, 10, seed=1), torch.arange(30) % 10
        p, q = (special.softmax(each.double().numpy(), axis=1) for each in (whole, out))
        score = score_of(out, whole, targets, TASK)
        assert score.likeness == pytest.approx(-stats.entropy(p, q, axis=1).mean(), rel=1e-5)
        assert score.quality == (out.argmax(dim=1) == targets).double().mean().item()

    def test_of_labels_it_is_that_of_each_labels_two_answers(self):
        out, whole, targets = normal(30, 3), normal(30, 3, seed=1), (normal(30, 3, seed=2) > 0).float()
        p, q = (bernoulli(special.expit(each.double().numpy())) for each in (whole, out))
        score = score_of(out, whole, targets, LABELS)
        assert score.likeness == pytest.approx(-stats.entropy(p, q, axis=0).mean(), rel=1e-5)

    def test_of_numbers_it_is_minus_the_squared_difference_in_units_of_their_spread(self):
        out, whole, targets = normal(30, 1), normal(30, 1, seed=1), 50 + 10 * normal(30, 1, seed=2)
        score = score_of(out, whole, targets, NUMBERS)
        assert score.likeness == pytest.approx(-((out - whole) ** 2).mean().item(), rel=1e-5)
        assert score.quality == pytest.approx(-(50 + 10 * out - targets).abs().mean().item(), rel=1e-5)

    def test_the_uncompressed_network_is_like_itself_and_answers_that_are_no_numbers_are_the_worst(self):
        whole, targets = normal(8, 10), torch.zeros(8, dtype=torch.long)
        assert score_of(whole, whole, targets, TASK).likeness == pytest.approx(0, abs=1e-6)
        for wrong in (float("nan"), float("inf"), 1e30):
            score = score_of(torch.full((8, 10), wrong) * torch.eye(10)[:8], whole, targets, TASK)
            assert score.likeness == WORST
            assert json.loads(json.dumps(encode(score), allow_nan=False))

    def test_networks_that_are_equally_right_are_not_equally_alike(self):
        whole = 5 * torch.eye(10)
        near, far = whole + 0.1 * normal(10, 10), whole + 0.5 * normal(10, 10)
        ours, theirs = (score_of(each, whole, torch.arange(10), TASK) for each in (near, far))
        assert ours.quality == theirs.quality == 1
        assert ours.likeness > theirs.likeness


def test_a_search_ends_with_the_most_alike_candidate_whatever_the_quality_that_is_shown():
    problem = hunts.problem(1)
    scores = iter([(-0.2, 0.9), (-0.1, 0.8), (-0.3, 1.0)])

    def scored(policy, *, trained=True):
        likeness, quality = next(scores)
        return replace(hunts.oracle_of(problem)(policy), likeness=likeness, quality=quality)

    ledger = Ledger(replace(problem, score=scored), lambda units, remark: None)
    for share in (1.0, 0.6, 0.3):
        ledger.judge(walked(problem, share * np.ones(len(problem.decisions))))
    assert (ledger.found().best.likeness, ledger.found().best.quality) == (-0.1, 0.8)
