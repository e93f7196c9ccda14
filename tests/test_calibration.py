"""Ranges are chosen with the least error, once, on training images; without training the answers nearly stay."""

from dataclasses import replace

import pytest
import samples
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressor.arch import Bits, BlockKind
from compressor.calibration import calibrate, recalibrate_norms
from compressor.config import FitConfig
from compressor.layers import Act, Norm
from compressor.model import fresh, same
from compressor.phases.quantize import is_scale, quantize
from compressor.quantization import (
    CLIPS,
    RoundActivation,
    RoundWeight,
    act_range,
    best_act_scale,
    best_weight_scale,
)


class TestRanges:
    @pytest.mark.parametrize("bits", range(2, 9))
    def test_the_chosen_weight_scale_is_never_worse_than_the_whole_range_and_better_at_few_bits(self, bits):
        weight, (levels, binary) = samples.normal(16, 200), samples.grid((bits,), 16)

        def error(scale: Tensor) -> Tensor:
            return (RoundWeight.apply(weight, scale, levels, binary) - weight).square().sum(dim=1)

        chosen, whole = error(best_weight_scale(weight, levels)), error(weight.abs().amax(dim=1) / levels)
        assert (chosen <= whole * (1 + 1e-5)).all()
        assert bits > 4 or (chosen < 0.95 * whole).all()

    @pytest.mark.parametrize("shape", [(5, 2, 3, 3), (16, 16, 3, 3), (32, 1, 3, 3), (10, 64), (64, 130, 3, 3)])
    def test_the_chosen_weight_scale_is_the_best_of_all_that_are_tried_one_by_one(self, shape):
        weight = samples.normal(*shape)
        levels, _ = samples.grid(tuple(i % 8 + 1 for i in range(shape[0])), shape[0])
        flat, tops = weight.flatten(1), levels.clamp_min(1)
        steps = [clip * flat.abs().amax(dim=1) / tops for clip in CLIPS]

        def error(step: Tensor) -> Tensor:
            rounded = (flat / step[:, None]).round().clamp(-levels[:, None], levels[:, None])
            return (rounded * step[:, None] - flat).square().sum(dim=1)

        best = torch.stack([error(step) for step in steps]).argmin(dim=0)
        assert torch.equal(best_weight_scale(weight, levels), torch.stack(steps)[best, torch.arange(shape[0])])

    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize("signed", [False, True])
    def test_the_chosen_activation_scale_is_never_worse_than_the_whole_range(self, bits, signed):
        x = samples.normal(5000) if signed else samples.normal(5000).relu()
        low, high = act_range(bits, signed)

        def error(scale: float) -> float:
            return (RoundActivation.apply(x, torch.tensor(scale), low, high, 1.0) - x).square().sum().item()

        chosen, whole = error(best_act_scale(x, low, high)), error(x.abs().max().item() / (-low or high))
        assert chosen <= whole * (1 + 1e-5)
        assert bits > 4 or chosen < 0.9 * whole

    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize("power", [1, 3])
    def test_the_chosen_activation_scale_is_the_best_of_all_that_are_tried(self, bits, power):
        for seed in range(10):
            x = torch.randn(2000, generator=torch.Generator().manual_seed(seed)) ** power
            for values, signed in ((x, True), (x.relu(), False)):
                low, high = act_range(bits, signed)
                top = -low or high
                clips = torch.tensor(CLIPS, dtype=torch.float64)[:, None]
                steps = clips * values.abs().max().double() / top
                errors = ((values / steps).round().clamp(low, high) * steps - values).square().sum(dim=1)
                best = steps[errors.argmin()].item()
                assert best_act_scale(values, low, high) == pytest.approx(best, rel=1e-6)

    @given(st.integers(2, 8), st.floats(1e-3, 1e3))
    def test_a_scale_follows_its_weights_unit(self, bits, factor):
        weight, (levels, _) = samples.normal(4, 30), samples.grid((bits,), 4)
        torch.testing.assert_close(
            best_weight_scale(weight * factor, levels), best_weight_scale(weight, levels) * factor, rtol=1e-3, atol=0
        )


class TestCalibration:
    @pytest.mark.parametrize("threads", [0, 1])
    def test_ranges_are_of_training_images_alone_however_many_threads_there_are(self, context, threads, monkeypatch):
        seen = []
        monkeypatch.setattr("compressor.calibration.best_act_scale", lambda x, low, high: seen.append(x.numel()) or 1.0)
        model = fresh(samples.compressed(), 0)
        told = replace(context, runtime=replace(context.runtime, threads=threads))
        calibrate(model, told, images=20, seed=0)
        assert seen
        assert all(count % 20 == 0 for count in seen)  # none is of another image

    def test_calibration_sets_what_has_no_scale_and_leaves_the_rest(self, context):
        model = fresh(samples.compressed(), 0)
        model.net.stem.conv.scale.data.fill_(0.5)  # pyright: ignore
        calibrate(model, context, images=64, seed=0)
        first = {name: p.clone() for name, p in model.net.named_parameters()}
        assert torch.equal(first["stem.conv.scale"], torch.full((6,), 0.5))
        assert all((p > 0).all() for name, p in first.items() if is_scale(name))
        calibrate(model, context, images=8, seed=5)
        assert all(torch.equal(first[name], p) for name, p in model.net.named_parameters())

    def test_forward_changes_no_scale(self):
        model = fresh(samples.compressed(), 0)
        before = {name: p.clone() for name, p in model.net.named_parameters()}
        model.net.train()(samples.images(8))
        assert all(torch.equal(before[name], p) for name, p in model.net.named_parameters())

    def test_norms_take_the_plain_mean_over_batches_of_training_images(self, context):
        model = samples.model(samples.arch())
        recalibrate_norms(model, context, images=120, seed=0)
        norm, seen = model.net.stem.norm, []  # pyright: ignore[reportOptionalMemberAccess]
        norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        model.net(torch.from_numpy(context.data.train.images[:]))
        torch.testing.assert_close(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            norm.running_var, seen[0].transpose(0, 1).flatten(1).var(dim=1), rtol=1e-4, atol=1e-5
        )
        assert {m.momentum for m in model.net.modules() if isinstance(m, Norm)} == {0.1}
        assert not model.net.training

    @pytest.mark.parametrize("count", [0, 1])
    def test_fewer_than_two_images_leave_the_norms_as_they_are(self, count, context):
        model = samples.model(samples.arch())
        recalibrate_norms(model, context, images=count, seed=0)
        assert same(model, samples.model(samples.arch()))

    def test_a_last_part_of_one_image_counts_too(self, context, monkeypatch):
        sizes = []
        model = samples.model(samples.arch())
        model.net.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
        monkeypatch.setattr("compressor.calibration.BATCH", 7)
        recalibrate_norms(model, context, images=15, seed=0)
        assert sizes == [7, 8]

    def test_norms_are_taken_without_dropout_and_the_callers_random_state(self, context):
        model, before = samples.model(samples.arch(BlockKind.PLAIN)), torch.get_rng_state()
        recalibrate_norms(model, context, images=20, seed=0)
        assert torch.equal(torch.get_rng_state(), before)
        assert not any(module.training for module in model.net.modules())


class TestPostTraining:
    def without_epochs(self) -> FitConfig:
        return replace(samples.FIT, epochs=0)

    def test_it_leaves_the_weights_and_at_8_bits_nearly_the_answers(self, context):
        model = samples.model(samples.arch(BlockKind.BOTTLENECK))
        recalibrate_norms(model, context, images=120, seed=0)
        before = {name: t.clone() for name, t in model.net.state_dict().items()}
        x = torch.from_numpy(context.data.test.images[:])
        want = model.net(x)[-1]
        config = replace(samples.QUANTIZE, bits=Bits(8, 8), calibrate=120, fit=self.without_epochs())
        out = quantize(config, context, model)
        after = out.net.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert after.keys() - before.keys() == {name for name in after if is_scale(name)}
        got = out.net(x)[-1]
        assert (got.argmax(dim=1) == want.argmax(dim=1)).float().mean() > 0.97
        assert (got - want).square().mean() < 1e-2 * want.var()

    def test_more_bits_answer_nearer_to_the_float_network(self, context):
        x, errors = torch.from_numpy(context.data.test.images[:]), []
        for bits in (2, 4, 8):
            model = samples.model(samples.arch())
            want = model.net(x)[-1]
            config = replace(samples.QUANTIZE, bits=Bits(bits, bits), fit=self.without_epochs())
            errors.append((quantize(config, context, model).net(x)[-1] - want).square().mean().item())
        assert errors[0] > 4 * errors[1] > 16 * errors[2]

    def test_a_model_that_has_these_bits_keeps_its_learned_scales(self, context):
        config = replace(samples.QUANTIZE, fit=self.without_epochs())
        model = quantize(config, context, samples.model(samples.arch()))
        with torch.no_grad():
            for name, p in model.net.named_parameters():
                if is_scale(name):
                    p.mul_(1.1)
        before = {name: p.clone() for name, p in model.net.named_parameters()}
        again = quantize(config, context, model)
        assert all(torch.equal(before[name], p) for name, p in again.net.named_parameters())
        other = quantize(replace(config, bits=Bits(3, 4)), context, model)
        assert not torch.equal(other.net.stem.conv.scale, before["stem.conv.scale"])  # pyright: ignore

    def test_activations_that_can_be_negative_are_signed(self):
        model = fresh(samples.compressed(BlockKind.INVERTED), 0)
        signed = {name for name, m in model.net.named_modules() if isinstance(m, Act) and m.signed}
        blocks = {f"blocks.s{s}b{b}.act" for s in (0, 1) for b in (0, 1)}
        assert signed == {"image"} | blocks
