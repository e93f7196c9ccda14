"""Training learns, says what it did, changes what it may, and stops where numbers end."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest
import samples
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressor import history, measure
from compressor.arch import BlockKind
from compressor.compute import threads
from compressor.config import Schedule
from compressor.data.types import Split
from compressor.errors import DataError, TrainingError
from compressor.losses import task_loss
from compressor.measure import val_loss
from compressor.model import fresh, same
from compressor.training import average_in, batches, copied, fit, generator, optimizer_for, rate

FIT = replace(samples.FIT, epochs=3, batch=32)
"""Three epochs of three batches."""
STEPS = 9


class TestFit:
    def test_it_learns_the_digits(self, context):
        model = fit(fresh(samples.arch(), 0), replace(FIT, epochs=20, lr=0.1), context)
        with torch.no_grad():
            answers = model.net(torch.from_numpy(context.data.val.images[:]))[-1].argmax(dim=1)
        assert (answers.numpy() == context.data.val.targets).mean() > 0.5
        losses = [line["loss"] for line in history.read(context.scratch)]
        assert losses[-1] < 0.5 * losses[0]

    def test_no_epochs_leave_the_model_as_it_is(self, context):
        model = samples.model(samples.arch())
        assert same(fit(model, replace(FIT, epochs=0), context), samples.model(samples.arch()))
        assert list(context.scratch.iterdir()) == []

    def test_heads_only_leaves_the_rest_bit_for_bit_and_the_final_outputs_too(self, context):
        before = samples.model(samples.compressed())
        after = fit(samples.model(samples.compressed()), replace(FIT, ema=0.5), context, only="exits")
        x, old, new = samples.images(20), before.net.state_dict(), after.net.state_dict()
        changed = {name for name in old if not torch.equal(old[name], new[name])}
        assert changed
        assert all(name.startswith("exits.") for name in changed)
        with torch.no_grad():
            assert torch.equal(before.net(x)[-1], after.net(x)[-1])
            assert not torch.equal(before.net(x)[0], after.net(x)[0])
        assert all(p.requires_grad for p in after.net.parameters())

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite_is_an_error_with_epoch_batch_and_rate(self, value, context):
        calls = []

        def loss(outputs: tuple[Tensor, ...], images: Tensor, targets: Tensor) -> Tensor:
            calls.append(1)
            return outputs[-1].square().mean() * (value if len(calls) == 5 else 1)

        config = replace(FIT, schedule=Schedule.CONSTANT)
        with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at epoch 2, batch 2, learning rate 0\.02; try"):
            fit(samples.model(samples.arch()), config, context, loss)
        assert len(history.read(context.scratch)) == 1

    def test_a_rate_that_is_far_too_high_is_that_error_too(self, context):
        model = samples.model(samples.arch(BlockKind.PLAIN))
        with pytest.raises(TrainingError, match="learning rate"):
            fit(model, replace(FIT, epochs=9, lr=100.0), context, lambda outs, x, y: outs[0].pow(4).sum())

    def test_the_running_average_is_what_comes_back(self, context):
        config, seen = replace(FIT, ema=0.9), []
        task = task_loss(context.data.task, 0.0)
        model = samples.model(samples.arch())
        states = [copied(model.net.state_dict())]

        def loss(outputs: tuple[Tensor, ...], images: Tensor, targets: Tensor) -> Tensor:
            seen.append(copied(model.net.state_dict()))  # the parameters before this step, the norms after it
            return task(outputs, images, targets)

        fit(model, config, context, loss)
        plain = fit(samples.model(samples.arch()), FIT, replace(context, scratch=context.scratch.parent))
        after = [{k: v for k, v in s.items() if "running" not in k} for s in [*seen[1:], plain.net.state_dict()]]
        average = {name: states[0][name].double() for name in after[0]}
        for i, state in enumerate(after):
            decay = min(0.9, (1 + i) / (10 + i))
            average = {name: decay * average[name] + (1 - decay) * state[name] for name in average}
        for name, want in average.items():
            if want.ndim and name != "thresholds":
                torch.testing.assert_close(model.net.state_dict()[name].double(), want, rtol=1e-4, atol=1e-6)
        assert int(model.net.state_dict()["stem.norm.num_batches_tracked"]) == STEPS

    def test_buffers_are_averaged_and_counts_are_copied(self):
        average = {"mean": torch.zeros(2), "count": torch.tensor(1), "thresholds": torch.zeros(1)}
        average_in(average, {"mean": torch.ones(2), "count": torch.tensor(7), "thresholds": torch.ones(1)}, 0.75)
        assert torch.equal(average["mean"], torch.full((2,), 0.25))
        assert (average["count"], average["thresholds"]) == (7, 1)

    def test_weight_decay_is_for_the_weights_of_layers_alone(self):
        net = samples.model(samples.compressed()).net
        decayed, free = optimizer_for(net, FIT).param_groups
        assert (decayed["weight_decay"], free["weight_decay"]) == (FIT.weight_decay, 0)
        named = {id(p): name for name, p in net.named_parameters()}
        assert all(".norm" not in named[id(p)] and "weight" in named[id(p)] for p in decayed["params"])
        assert all(named[id(p)].endswith(("bias", "scale", "weight")) and p.ndim <= 1 for p in free["params"])
        assert len(decayed["params"]) + len(free["params"]) == len(named)

    def test_history_says_loss_rate_val_and_seconds_of_every_epoch(self, context):
        fit(samples.model(samples.arch()), FIT, context)
        lines = history.read(context.scratch)
        assert [sorted(line) for line in lines] == [["epoch", "loss", "lr", "seconds", "val"]] * 3
        assert all(math.isfinite(value) and value >= 0 for line in lines for value in line.values())
        history.write_curves(context.scratch)
        assert len(list((context.scratch / "tb").iterdir())) == 1

    @pytest.mark.parametrize(("asked", "macs", "count"), [(0, 1000, 1), (0, 10**9, os.cpu_count()), (2, 10, 2)])
    def test_tiny_networks_run_on_one_thread_unless_told_otherwise(self, asked, macs, count):
        with threads(replace(samples.RUNTIME, threads=asked), lambda: macs) as used:
            assert used == count == torch.get_num_threads()
        assert torch.get_num_threads() == 1

    def test_a_network_is_not_counted_where_the_threads_are_given(self):
        with threads(replace(samples.RUNTIME, threads=1), lambda: pytest.fail("counted")) as used:
            assert used == 1


def split(n: int) -> Split:
    return Split(np.arange(n, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(n, dtype=np.int64))


def test_one_training_image_is_refused_in_one_line_before_anything_is_written(context):
    one = replace(context.data, train=Split(context.data.train.images[:1], context.data.train.targets[:1]))
    with pytest.raises(DataError, match="dataset digits: one training image; batch normalisation needs at least 2"):
        fit(samples.model(samples.arch()), FIT, replace(context, data=one))
    assert list(context.scratch.iterdir()) == []


class TestValLoss:
    def test_it_is_of_the_network_that_is_kept(self, context):
        model = fit(samples.model(samples.arch()), replace(FIT, ema=0.9), context)
        assert history.read(context.scratch)[-1]["val"] == pytest.approx(val_loss(model, context.data), rel=1e-5)

    def test_its_images_are_spread_evenly_over_val(self, context, monkeypatch):
        seen, whole = [], context.data.val
        model = samples.model(samples.arch())
        hook = model.net.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        monkeypatch.setattr(measure, "QUICK", 40)
        found = val_loss(model, context.data)
        hook.remove()
        assert torch.equal(torch.cat(seen), torch.from_numpy(whole.images[::3]))
        third = replace(context.data, val=Split(whole.images[::3], whole.targets[::3]))
        assert found == pytest.approx(val_loss(model, third))


class TestBatches:
    def test_they_depend_on_seed_and_epoch_alone(self):
        def rows(seed: int, epoch: int) -> list[list[int]]:
            return [targets.tolist() for _, targets in batches(split(100), 30, seed=seed, epoch=epoch)]

        first = rows(0, 0)
        torch.rand(3)
        assert rows(0, 0) == first
        assert rows(0, 1) != first
        assert rows(1, 0) != first

    @given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 3))
    def test_images_keep_their_targets_and_come_once_an_epoch(self, n, size, epoch):
        rows = list(batches(split(n), size, seed=0, epoch=epoch))
        seen = [int(t) for _, targets in rows for t in targets]
        assert all(torch.equal(images.flatten().long(), targets) for images, targets in rows)
        assert len(seen) == len(set(seen)) == (n if n < size else n - n % size)
        assert all(len(targets) == min(size, n) for _, targets in rows)

    @given(st.integers(0, 5))
    def test_starting_later_gives_the_same_later_batches(self, start):
        whole = [t.tolist() for _, t in batches(split(50), 10, seed=3, epoch=2)]
        assert [t.tolist() for _, t in batches(split(50), 10, seed=3, epoch=2, start=start)] == whole[start:]

    def test_random_sources_of_different_numbers_differ(self):
        parts = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0, 1), (0, 0, 1, 1), (0, 1, 0, 1), (1, 0, 0, 1)]
        assert len({torch.rand((), generator=generator(*numbers)).item() for numbers in parts}) == len(parts)


class TestRate:
    CONFIG = replace(samples.FIT, epochs=10, lr=0.1)

    @pytest.mark.parametrize(
        ("schedule", "warmup", "step", "share"),
        [
            (Schedule.COSINE, 0.0, 0, 1),
            (Schedule.COSINE, 0.0, 50, 0.5),
            (Schedule.COSINE, 0.0, 100, 0),
            (Schedule.COSINE, 2.0, 0, 1 / 21),
            (Schedule.COSINE, 2.0, 19, 20 / 21),
            (Schedule.COSINE, 2.0, 20, 1),
            (Schedule.COSINE, 2.0, 60, 0.5),
            (Schedule.CONSTANT, 0.0, 0, 1),
            (Schedule.CONSTANT, 1.0, 0, 1 / 11),
            (Schedule.CONSTANT, 1.0, 99, 1),
            (Schedule.ONECYCLE, 0.0, 0, 0.04),
            (Schedule.ONECYCLE, 0.0, 15, 0.52),
            (Schedule.ONECYCLE, 0.0, 30, 1),
            (Schedule.ONECYCLE, 0.0, 100, 1e-4),
        ],
    )
    def test_schedules_pass_their_known_points(self, schedule, warmup, step, share):
        config = replace(self.CONFIG, schedule=schedule, warmup=warmup)
        assert rate(config, step, 10) == pytest.approx(0.1 * share, rel=1e-3, abs=1e-9)

    @given(st.sampled_from(Schedule), st.floats(0, 20), st.integers(1, 50), st.integers(1, 30))
    def test_every_step_has_a_rate_above_zero_that_is_at_most_the_highest(self, schedule, warmup, epochs, per_epoch):
        config = replace(self.CONFIG, schedule=schedule, warmup=warmup, epochs=epochs)
        rates = [rate(config, step, per_epoch) for step in range(epochs * per_epoch)]
        assert all(0 < value <= 0.1 * (1 + 1e-9) for value in rates)
