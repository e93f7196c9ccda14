"""Scores and intervals are those of the libraries that define them."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from medmnist.evaluator import getACC, getAUC
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score, root_mean_squared_error, top_k_accuracy_score
from torch import Tensor

from compressor.arch import Task, TaskKind
from compressor.quality import MEDMNIST, mean, per_image, pull, quality, resampled, wilson

KINDS = {kind: Task(kind, 2 if kind is TaskKind.BINARY else 5) for kind in MEDMNIST}
REGRESSION = Task(TaskKind.REGRESSION, 3, mean=(10.0, -5.0, 0.0), scale=(3.0, 2.0, 0.5))


def answers(task: Task, n: int = 300, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Give outputs that are right more often than not, and targets."""
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, task.outputs, generator=source)
    if task.kind is TaskKind.MULTILABEL:
        targets = (torch.rand(n, task.outputs, generator=source) < 0.4).float()
        return noise + 2 * targets - 1, targets
    if task.kind is TaskKind.REGRESSION:
        want = torch.randn(n, task.outputs, generator=source)
        return want + 0.3 * noise, want * torch.tensor(task.scale) + torch.tensor(task.mean)
    targets = torch.randint(0, task.outputs, (n,), generator=source)
    return noise + 1.5 * torch.nn.functional.one_hot(targets, task.outputs), targets


class TestIntervals:
    @given(st.integers(1, 5000), st.data())
    def test_wilsons_interval_is_scipys(self, n, data):
        hits = data.draw(st.integers(0, n))
        ours, theirs = wilson(hits, n), binomtest(hits, n).proportion_ci(0.95, "wilson")
        assert ours.value == hits / n
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
        assert 0 <= ours.low <= ours.value + 1e-12
        assert ours.value - 1e-12 <= ours.high <= 1

    def test_a_means_interval_covers_the_truth_19_times_in_20(self):
        source = np.random.default_rng(0)
        found = [mean(source.normal(3, 2, 50)) for _ in range(1000)]
        assert sum(v.low <= 3 <= v.high for v in found) / 1000 == pytest.approx(0.95, abs=0.02)

    def test_a_resampled_interval_covers_the_truth_about_19_times_in_20(self):
        source, covered = np.random.default_rng(0), 0
        for _ in range(200):
            values = source.normal(0, 2, 100)
            found = resampled(lambda index, values=values: float(values[index].mean()), 100)
            covered += found.low <= 0 <= found.high
        assert covered / 200 == pytest.approx(0.95, abs=0.05)

    def test_one_image_has_a_score_without_a_spread(self):
        value = mean(np.array([2.0]))
        assert (value.low, value.value, value.high) == (2, 2, 2)


class TestClassification:
    @pytest.mark.parametrize("kind", [TaskKind.MULTICLASS, TaskKind.BINARY, TaskKind.ORDINAL])
    def test_accuracy_and_loss_are_sklearns_and_torchs(self, kind):
        out, targets = answers(KINDS[kind])
        found = quality(out, targets, KINDS[kind], medmnist=False)
        assert found.n == 300
        assert found.loss == pytest.approx(torch.nn.functional.cross_entropy(out, targets).item())
        assert found.scores.keys() == {"accuracy"}
        assert found.scores["accuracy"].value == accuracy_score(targets, out.argmax(dim=1))

    def test_top_5_is_told_above_10_classes(self):
        task = Task(TaskKind.MULTICLASS, 20)
        out, targets = answers(task)
        found = quality(out, targets, task, medmnist=False).scores
        assert found["top5"].value == pytest.approx(top_k_accuracy_score(targets, out, k=5))
        assert found["top5"].value > found["accuracy"].value
        assert (
            "top5"
            not in quality(
                *answers(Task(TaskKind.MULTICLASS, 10)), Task(TaskKind.MULTICLASS, 10), medmnist=False
            ).scores
        )

    @pytest.mark.parametrize("kind", MEDMNIST)
    def test_auc_and_accuracy_are_those_of_medmnists_evaluator(self, kind):
        task = KINDS[kind]
        out, targets = answers(task)
        found = quality(out, targets, task, medmnist=True).scores
        scores = (torch.sigmoid(out) if kind is TaskKind.MULTILABEL else torch.softmax(out, dim=1)).numpy()
        truth = targets.numpy() if kind is TaskKind.MULTILABEL else targets.numpy()[:, None]
        assert found["auc"].value == pytest.approx(getAUC(truth, scores, MEDMNIST[kind]))
        assert found["accuracy"].value == pytest.approx(getACC(truth, scores, MEDMNIST[kind]))
        assert 0 < found["auc"].low < found["auc"].value < found["auc"].high < 1

    @pytest.mark.parametrize("kind", MEDMNIST)
    def test_an_aucs_interval_is_that_of_a_bootstrap(self, kind):
        task = KINDS[kind]
        out, targets = answers(task)
        found = quality(out, targets, task, medmnist=True).scores["auc"]
        scores, truth = out.sigmoid() if kind is TaskKind.MULTILABEL else out.softmax(dim=1), targets.numpy()
        slow = resampled(lambda rows: float(getAUC(truth[rows], scores.numpy()[rows], MEDMNIST[kind])), len(out))
        assert (found.low, found.high) == pytest.approx((slow.low, slow.high), abs=0.2 * (slow.high - slow.low))

    def test_the_spread_of_one_aucs_images_is_delongs_variance(self):
        source = np.random.default_rng(0)
        positive = source.random(60) < 0.3
        scores = (source.normal(0, 1, 60) + positive).round(1)  # with ties
        wins = np.sign(scores[positive][:, None] - scores[~positive]) / 2 + 0.5
        want = sum(wins.mean(axis=axis).var(ddof=1) / wins.shape[1 - axis] for axis in (0, 1))
        assert np.square(pull(scores, positive)).sum() == pytest.approx(want)

    def test_an_auc_of_thousands_of_images_takes_less_than_a_second(self):
        task = Task(TaskKind.MULTICLASS, 8)
        out, targets = answers(task, n=3421)
        quality(out, targets, task, medmnist=True)
        began = time.process_time()
        quality(out, targets, task, medmnist=True)
        assert time.process_time() - began < 1

    def test_perfect_answers_have_an_auc_of_1(self):
        targets = torch.arange(20) % 5
        found = quality(50.0 * torch.eye(5)[targets], targets, KINDS[TaskKind.MULTICLASS], medmnist=True).scores["auc"]
        assert (found.low, found.value, found.high) == (1, 1, 1)

    def test_where_a_class_is_lacking_there_is_no_auc_and_the_rest_is_told(self):
        task = KINDS[TaskKind.MULTICLASS]
        out, targets = answers(task)
        found = quality(out, targets.clamp_max(3), task, medmnist=True)
        assert found.scores.keys() == {"accuracy"}

    def test_each_label_of_several_counts(self):
        task = Task(TaskKind.MULTILABEL, 4)
        out, targets = torch.tensor([[1.0, -1, 1, -1]]), torch.tensor([[1.0, 0, 0, 0]])
        assert per_image(out, targets, task).tolist() == [0.75]


class TestRegression:
    def test_errors_are_sklearns_in_the_targets_unit(self):
        out, targets = answers(REGRESSION)
        found = quality(out, targets, REGRESSION, medmnist=False).scores
        given = (out * torch.tensor(REGRESSION.scale) + torch.tensor(REGRESSION.mean)).numpy()
        assert found["mae"].value == pytest.approx(mean_absolute_error(targets, given), rel=1e-5)
        assert found["rmse"].value == pytest.approx(
            root_mean_squared_error(targets.numpy().ravel(), given.ravel()), rel=1e-5
        )
        assert found["r2"].value == pytest.approx(r2_score(targets, given, multioutput="variance_weighted"), rel=1e-5)
        for value in found.values():
            assert value.low < value.value < value.high

    def test_the_quality_of_an_image_is_minus_its_error(self):
        out, targets = answers(REGRESSION)
        assert -per_image(out, targets, REGRESSION).mean().item() == pytest.approx(
            quality(out, targets, REGRESSION, medmnist=False).scores["mae"].value, rel=1e-5
        )

    def test_targets_without_a_spread_have_no_r2_and_the_rest_is_told(self):
        task = Task(TaskKind.REGRESSION, 1, mean=(0.0,), scale=(1.0,))
        found = quality(torch.randn(20, 1), torch.ones(20, 1), task, medmnist=False)
        assert found.scores.keys() == {"mae", "rmse"}
        assert all(math.isfinite(value.value) for value in found.scores.values())
