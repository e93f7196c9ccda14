"""Images leave where they are sure, run nothing more, and are routed alike however they are batched."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import samples
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressor.arch import Arch, BlockKind, Criterion, Exits, Task, TaskKind
from compressor.config import FitConfig
from compressor.data.types import Data, Split
from compressor.layers import Conv, Linear
from compressor.measure import measure, settle
from compressor.model import Model, fresh
from compressor.routing import all_outputs, certainty, choose_thresholds, first_exit, route
from compressor.training import Context, fit

FIT: FitConfig = replace(samples.FIT, epochs=12, lr=0.08, batch=30)
LABELS = Task(TaskKind.MULTILABEL, 10)
NUMBERS = Task(TaskKind.REGRESSION, 2, mean=(4.5, 0.0), scale=(2.9, 1.0))


def asking(data: Data, task: Task) -> Data:
    """Ask another question of the same digits: which of several marks each has, or numbers that it stands for."""

    def retold(split: Split) -> Split:
        digit = np.asarray(split.targets)
        if task.kind is TaskKind.MULTILABEL:
            marks = np.stack([digit == k for k in range(5)] + [digit % k == 0 for k in range(2, 7)], axis=1)
            return replace(split, targets=marks.astype(np.float32))
        return replace(split, targets=np.stack([digit, digit % 2], axis=1).astype(np.float32))

    if task.kind is TaskKind.MULTICLASS:
        return data
    return replace(data, task=task, train=retold(data.train), val=retold(data.val), test=retold(data.test))


def arch_of(task: Task, criterion: Criterion = Criterion.CONFIDENCE) -> Arch:
    exits = Exits((0.25, 0.5, 0.75), criterion, drop=0.05, width=6)
    return samples.arch(BlockKind.SEPARABLE, task=task, exits=exits)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Give a trained network with three exits for each kind of task; its criterion can be changed."""
    made: dict[TaskKind, Model] = {}

    def give(task: Task, criterion: Criterion = Criterion.CONFIDENCE, drop: float = 0.05) -> tuple[Model, Data]:
        data = asking(digits, task)
        if task.kind not in made:
            context = Context(data, tmp_path_factory.mktemp("fit"), samples.RUNTIME)
            made[task.kind] = fit(fresh(arch_of(task), 0), FIT, context)
        out = fresh(replace(arch_of(task), exits=Exits((0.25, 0.5, 0.75), criterion, drop, width=6)), 0)
        out.net.load_state_dict(made[task.kind].net.state_dict())
        return out, data

    return give


CASES = [(samples.TASK, criterion) for criterion in Criterion]
CASES += [(LABELS, criterion) for criterion in Criterion] + [(NUMBERS, Criterion.CONFIDENCE)]
IDS = [f"{task.kind}-{criterion}" for task, criterion in CASES]


@pytest.mark.parametrize(("task", "criterion"), CASES, ids=IDS)
class TestCriteria:
    def test_thresholds_chosen_on_val_keep_val_within_the_allowed_drop_and_save_work(self, task, criterion, trained):
        for drop in (0.0, 0.02, 0.1):
            model, data = trained(task, criterion, drop)
            settle(model, data, samples.RUNTIME)
            val = measure(model, data, samples.RUNTIME).val
            if task.kind is TaskKind.REGRESSION:
                assert val.quality.scores["mae"].value <= val.heads[-1].scores["mae"].value * (1 + drop) + 1e-6
            else:
                assert val.quality.scores["accuracy"].value >= val.heads[-1].scores["accuracy"].value - drop - 1e-6
        assert val.shares[-1] < 1

    def test_a_larger_drop_never_costs_more(self, task, criterion, trained):
        costs = []
        for drop in (0.0, 0.3):
            model, data = trained(task, criterion, drop)
            settle(model, data, samples.RUNTIME)
            costs.append(measure(model, data, samples.RUNTIME).val.bitops)
        assert costs[1] <= costs[0]

    def test_routes_are_equal_and_outputs_agree_however_images_are_batched(self, task, criterion, trained):
        model, data = trained(task, criterion)
        settle(model, data, samples.RUNTIME)
        for split in (data.val, data.test):
            outputs, taken = route(model, split, batch=256)
            for batch in (1, 7):
                others, elsewhere = route(model, split, batch=batch)
                assert torch.equal(elsewhere, taken)
                torch.testing.assert_close(others, outputs, rtol=1e-5, atol=1e-5)

    def test_a_route_is_the_first_head_that_is_sure_enough(self, task, criterion, trained):
        model, data = trained(task, criterion)
        settle(model, data, samples.RUNTIME)
        outputs, taken = route(model, data.test)
        heads = all_outputs(model, data.test)
        for i in range(len(data.test)):
            passed = [head[i : i + 1] for head in heads]
            sure = [
                bool(certainty(passed[: k + 1], model.arch.exits, task) >= model.net.thresholds[k]) for k in range(3)
            ]
            want = sure.index(True) if any(sure) else 3
            assert taken[i] == want
            torch.testing.assert_close(outputs[i], heads[want][i], rtol=1e-5, atol=1e-5)


def test_images_that_left_run_nothing_of_the_rest(trained):
    model, data = trained(samples.TASK, drop=0.1)
    settle(model, data, samples.RUNTIME)
    seen: Counter[str] = Counter()
    for name, module in model.net.named_modules():
        if isinstance(module, Conv | Linear):
            module.register_forward_hook(lambda _, inputs, __, name=name: seen.update({name: len(inputs[0])}))
    _, taken = route(model, data.test, batch=32)
    left = torch.bincount(taken, minlength=4)
    assert (left > 0).sum() >= 3
    for i, block in enumerate(model.net.blocks):
        still = len(taken) - int(left[:i].sum())
        assert seen[f"blocks.{block}.conv1"] == seen[f"blocks.{block}.conv2"] == still
        if i < 3:
            assert seen[f"exits.{i}.score"] == still
    assert seen["head.score"] == int(left[3])


def test_images_that_stay_are_gathered_into_whole_batches(trained):
    model, data = trained(samples.TASK, drop=0.1)
    settle(model, data, samples.RUNTIME)
    sizes: dict[str, list[int]] = {"blocks.s0b0.conv1": [], "blocks.s1b1.conv1": []}
    for name, module in model.net.named_modules():
        if name in sizes:
            module.register_forward_hook(lambda _, inputs, __, name=name: sizes[name].append(len(inputs[0])))
    route(model, data.test, batch=10)
    assert sizes["blocks.s0b0.conv1"] == [10] * 12
    late = sizes["blocks.s1b1.conv1"]
    assert all(size >= 10 for size in late[:-1])
    assert len(late) < 12


@pytest.mark.parametrize(("threshold", "head"), [(torch.inf, 3), (-torch.inf, 0)])
def test_nobody_leaves_over_an_infinite_threshold_and_all_over_none(threshold, head, trained):
    model, data = trained(samples.TASK)
    model.net.thresholds.fill_(threshold)
    outputs, taken = route(model, data.val)
    assert (taken == head).all()
    torch.testing.assert_close(outputs, all_outputs(model, data.val)[head], rtol=1e-5, atol=1e-5)


def test_a_network_without_exits_needs_no_thresholds(digits):
    model = samples.model(samples.arch())
    before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    settle(model, digits, samples.RUNTIME)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.net.state_dict().items())
    assert measure(model, digits, samples.RUNTIME).val.shares == (1.0,)


def outputs(*rows: list[float]) -> list[Tensor]:
    return [torch.tensor([row]) for row in rows]


class TestCertainty:
    def sure(self, outs: list[Tensor], criterion: Criterion, task: Task) -> float:
        return certainty(outs, Exits((0.5,), criterion), task).item()

    def test_confidence_is_the_largest_probability(self):
        out = outputs([2.0, 0.0, 1.0])
        p = np.exp([2, 0, 1]) / np.exp([2, 0, 1]).sum()
        task = Task(TaskKind.MULTICLASS, 3)
        assert self.sure(out, Criterion.CONFIDENCE, task) == pytest.approx(p.max())
        entropy = -(p * np.log(p)).sum() / np.log(3)
        assert self.sure(out, Criterion.ENTROPY, task) == pytest.approx(1 - entropy)

    def test_of_several_labels_the_least_sure_counts(self):
        out, task = outputs([3.0, -0.5, -4.0]), Task(TaskKind.MULTILABEL, 3)
        p = 1 / (1 + np.exp([-3.0, 0.5, 4.0]))
        assert self.sure(out, Criterion.CONFIDENCE, task) == pytest.approx(np.maximum(p, 1 - p).min())
        entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean()
        assert self.sure(out, Criterion.ENTROPY, task) == pytest.approx(1 - entropy)

    @pytest.mark.parametrize(
        ("rows", "count"),
        [([[1, 0]], 1), ([[0, 1], [1, 0]], 1), ([[1, 0], [2, 0]], 2), ([[0, 1], [1, 0], [3, 1]], 2), ([[1, 0]] * 3, 3)],
    )
    def test_patience_counts_the_heads_in_a_row_that_agree(self, rows, count):
        outs = [torch.tensor([row], dtype=torch.float32) for row in rows]
        assert self.sure(outs, Criterion.PATIENCE, Task(TaskKind.MULTICLASS, 2)) == count

    def test_patience_of_labels_needs_all_of_them_equal(self):
        task = Task(TaskKind.MULTILABEL, 2)
        assert self.sure(outputs([1.0, -1.0], [2.0, -3.0]), Criterion.PATIENCE, task) == 2
        assert self.sure(outputs([1.0, -1.0], [2.0, 3.0]), Criterion.PATIENCE, task) == 1

    @pytest.mark.parametrize("criterion", Criterion)
    def test_of_numbers_successive_heads_must_agree_and_the_first_has_nobody_to_agree_with(self, criterion):
        assert self.sure(outputs([1.0, 2.0]), criterion, NUMBERS) == -torch.inf
        assert self.sure(outputs([1.0, 2.0], [1.1, 2.5]), criterion, NUMBERS) == pytest.approx(-0.5)

    def test_a_certain_answer_has_no_entropy_and_an_even_one_no_certainty(self):
        task = Task(TaskKind.MULTICLASS, 4)
        assert self.sure(outputs([500.0, 0, 0, 0]), Criterion.ENTROPY, task) == 1
        assert self.sure(outputs([1.0, 1, 1, 1]), Criterion.ENTROPY, task) == pytest.approx(0, abs=1e-6)


class TestThresholds:
    @given(st.integers(0, 10_000), st.integers(1, 3), st.floats(0, 0.3), st.booleans())
    def test_the_chosen_ones_keep_the_quality_asked_for_and_never_cost_more(self, seed, exits, drop, tied):
        source = np.random.default_rng(seed)
        scores = source.random((60, exits)).round(1 if tied else 9)
        quality = (source.random((60, exits + 1)) < np.linspace(0.6, 0.9, exits + 1)).astype(float)
        cost = np.arange(1.0, exits + 2)
        floor = quality[:, -1].mean() - drop - 1e-9
        chosen = choose_thresholds(scores, quality, cost, floor)
        head = first_exit(scores, chosen)
        assert quality[np.arange(60), head].mean() >= floor
        assert cost[head].mean() <= cost[-1]

    def test_all_leave_at_once_where_the_first_head_is_as_good(self):
        source = np.random.default_rng(0)
        quality = np.ones((50, 3))
        chosen = choose_thresholds(source.random((50, 2)), quality, np.array([1.0, 2, 3]), 1.0)
        assert (first_exit(source.random((50, 2)) + 1, chosen) == 0).all()

    def test_nobody_leaves_where_early_heads_are_always_wrong(self):
        source = np.random.default_rng(0)
        quality = np.array([[0.0, 0.0, 1.0]] * 50)
        chosen = choose_thresholds(source.random((50, 2)), quality, np.array([1.0, 2, 3]), 1.0)
        assert np.isinf(chosen).all()

    @given(st.integers(0, 1000))
    def test_one_exit_that_is_right_when_sure_takes_every_image_it_may(self, seed):
        source = np.random.default_rng(seed)
        sure = source.permutation(64) / 64.0
        quality = np.stack([(sure >= 0.5).astype(float), np.ones(64)], axis=1)
        chosen = choose_thresholds(sure[:, None], quality, np.array([1.0, 5.0]), 1.0)
        left = first_exit(sure[:, None], chosen) == 0
        assert left.sum() >= 30
        assert quality[left, 0].all()

    def test_images_leave_at_the_first_head_that_is_sure(self):
        scores = np.array([[0.9, 0.9], [0.1, 0.9], [0.1, 0.1], [0.5, 0.1]])
        assert first_exit(scores, np.array([0.5, 0.5])).tolist() == [0, 1, 2, 0]
