"""Rounding is what it says, channel by channel; its gradients are LSQ's; ranges are chosen well."""

import pytest
import samples
import torch
from torch import Tensor

from compressor.arch import ActBits, Bits, BlockKind, Quantization, WeightBits
from compressor.calibration import calibrate
from compressor.layers import Conv, Linear, Weighted
from compressor.model import Model, fresh
from compressor.phases.quantize import is_scale, quantized
from compressor.quantization import (
    RoundActivation,
    RoundWeight,
    act_range,
    effective_scale,
    integers,
)

MIXED = (1, 2, 3, 4, 5, 6, 7, 8)


def one_channel(weight: Tensor, scale: float, bits: int) -> Tensor:
    """Round one channel's weights as its definition reads, weight by weight."""
    values = weight.flatten().tolist()
    if bits == 1:
        size = sum(map(abs, values)) / len(values)
        return torch.tensor([-size if v < 0 else size for v in values]).view_as(weight)
    top = 2 ** (bits - 1) - 1
    return torch.tensor([min(top, max(-top, round(v / scale))) * scale for v in values]).view_as(weight)


def step(x: Tensor) -> Tensor:
    """Round with the gradient of the identity."""
    return x + (x.round() - x).detach()


def learned(scale: Tensor, gain: Tensor) -> Tensor:
    """Scale the gradient of a step size and leave its value, as in LSQ's appendix."""
    return scale * gain + (scale * (1 - gain)).detach()


class TestWeights:
    @pytest.mark.parametrize("bits", [*((b,) for b in range(1, 9)), MIXED, MIXED[::-1], (4, 1) * 4])
    def test_channels_of_any_bits_in_one_operation_equal_a_loop_over_channels(self, bits):
        weight, scale = samples.normal(8, 3, 3, 3), torch.linspace(0.02, 0.4, 8)
        out = RoundWeight.apply(weight, scale, *samples.grid(bits, 8))
        each = bits if len(bits) > 1 else bits * 8
        for c in range(8):
            torch.testing.assert_close(out[c], one_channel(weight[c], scale[c].item(), each[c]), rtol=1e-6, atol=1e-7)
            assert len(out[c].unique()) <= 2 ** each[c]

    def test_one_bit_is_the_sign_times_the_mean_magnitude(self):
        weight = samples.normal(4, 30)
        out = RoundWeight.apply(weight, torch.full((4,), 9.0), *samples.grid((1,), 4))
        torch.testing.assert_close(out, weight.sign() * weight.abs().mean(dim=1, keepdim=True))

    @pytest.mark.parametrize("bits", range(1, 9))
    def test_a_negated_channel_rounds_to_the_negated_values_so_a_negative_norm_folds_exactly(self, bits):
        weight, scale, rule = samples.normal(8, 20), torch.full((8,), 0.3), samples.grid((bits,), 8)
        assert torch.equal(RoundWeight.apply(-weight, scale, *rule), -RoundWeight.apply(weight, scale, *rule))
        assert torch.equal(integers(-weight, scale, *rule), -integers(weight, scale, *rule))

    @pytest.mark.parametrize("bits", range(1, 9))
    def test_integers_are_whole_stay_within_the_grid_and_times_the_scale_are_the_weight(self, bits):
        weight, scale, (levels, binary) = 9 * samples.normal(8, 50), torch.full((8,), 0.1), samples.grid((bits,), 8)
        whole = integers(weight, scale, levels, binary)
        assert torch.equal(whole, whole.round())
        assert whole.abs().max() == max(1, 2 ** (bits - 1) - 1)
        assert bits > 1 or whole.abs().min() == 1
        steps = effective_scale(weight, scale, binary)[:, None]
        assert torch.equal(whole * steps, RoundWeight.apply(weight, scale, levels, binary))

    @pytest.mark.parametrize("bits", [(b,) for b in range(2, 9)])
    def test_gradients_are_those_of_plain_autograd(self, bits):
        weight, scale = samples.normal(8, 3, 3, 3), torch.linspace(0.05, 0.5, 8)
        levels, binary = samples.grid(bits, 8)
        pull = samples.normal(8, 3, 3, 3, seed=1)
        ours = [x.clone().requires_grad_() for x in (weight, scale)]
        (RoundWeight.apply(*ours, levels, binary) * pull).sum().backward()
        theirs = [x.clone().requires_grad_() for x in (weight, scale)]
        steps = learned(theirs[1], 1 / torch.sqrt(27 * levels)).view(8, 1, 1, 1)
        top = levels.view(8, 1, 1, 1)
        (step(torch.maximum(torch.minimum(theirs[0] / steps, top), -top)) * steps * pull).sum().backward()
        torch.testing.assert_close(ours[0].grad, theirs[0].grad)
        torch.testing.assert_close(ours[1].grad, theirs[1].grad, rtol=1e-4, atol=1e-5)

    def test_one_bit_channels_pass_the_gradient_straight_and_learn_no_step(self):
        weight, scale = samples.normal(2, 10).requires_grad_(), torch.ones(2, requires_grad=True)
        pull = samples.normal(2, 10, seed=1)
        (RoundWeight.apply(weight, scale, *samples.grid((1, 4), 2)) * pull).sum().backward()
        assert weight.grad is not None
        assert scale.grad is not None
        assert torch.equal(weight.grad[0], pull[0])
        assert scale.grad[0] == 0 != scale.grad[1]

    def test_a_channel_of_zeros_stays_zero_and_finite(self):
        for bits in (2, 8):
            out = RoundWeight.apply(torch.zeros(2, 5), torch.zeros(2), *samples.grid((bits,), 2))
            assert torch.equal(out, torch.zeros(2, 5))


class TestActivations:
    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize("signed", [False, True])
    def test_values_are_rounded_to_the_grid_and_clipped_at_its_ends(self, bits, signed):
        low, high = act_range(bits, signed)
        assert high - low == 2**bits - 1
        x, scale = 100 * samples.normal(500), 0.25
        out = RoundActivation.apply(x, torch.tensor(scale), low, high, 1.0)
        want = torch.tensor([min(high, max(low, round(v / scale))) * scale for v in x.tolist()])
        torch.testing.assert_close(out, want)

    @pytest.mark.parametrize("bits", range(2, 9))
    @pytest.mark.parametrize("signed", [False, True])
    def test_gradients_are_those_of_plain_autograd(self, bits, signed):
        low, high = act_range(bits, signed)
        x, scale, pull, gain = (
            samples.normal(2, 3, 8, 8),
            torch.tensor(1.0 / high),
            samples.normal(2, 3, 8, 8, seed=1),
            0.37,
        )
        ours = [t.clone().requires_grad_() for t in (x, scale)]
        (RoundActivation.apply(*ours, low, high, gain) * pull).sum().backward()
        theirs = [t.clone().requires_grad_() for t in (x, scale)]
        size = learned(theirs[1], torch.tensor(gain))
        whole = (x / scale).round()
        rounded = torch.where((whole >= low) & (whole <= high), step(theirs[0] / size), whole.clamp(low, high))
        (rounded * size * pull).sum().backward()
        torch.testing.assert_close(ours[0].grad, theirs[0].grad)
        torch.testing.assert_close(ours[1].grad, theirs[1].grad, rtol=1e-3, atol=1e-3)

    def test_the_gradient_is_the_same_in_both_memory_layouts(self):
        grads = []
        for layout in (torch.contiguous_format, torch.channels_last):
            x = samples.normal(2, 3, 4, 4).contiguous(memory_format=layout).requires_grad_()
            scale = torch.tensor(0.1, requires_grad=True)
            pull = samples.normal(2, 3, 4, 4, seed=1)
            (RoundActivation.apply(x, scale, 0, 15, 1.0) * pull).sum().backward()
            grads.append((x.grad, scale.grad))
        torch.testing.assert_close(grads[0], grads[1])


def layers(model: Model) -> dict[str, Weighted]:
    return {name: m for name, m in model.net.named_modules() if isinstance(m, Weighted)}


class TestNetworks:
    def test_edges_have_their_own_bits_and_every_layer_reads_what_was_produced(self):
        arch = samples.compressed(BlockKind.PLAIN, bits=Bits(3, 5))
        model = fresh(arch, 0)
        weights = {name: layer.bits for name, layer in layers(model).items()}
        edges = {"blocks.s0b0.conv1", "head.score", "exits.0.score", "exits.1.score"}
        assert {name for name, bits in weights.items() if bits == (8,)} == edges
        assert {bits for name, bits in weights.items() if name not in edges} == {(3,)}
        assert {name for name, layer in layers(model).items() if layer.reads == 8} == edges

    def test_explicit_bits_override_the_rule_where_they_are_named(self):
        weights = (WeightBits("blocks.s0b0.conv1", "s0b0.0", (1, 2, 4, 8, 3, 3)), WeightBits("head.score", "", (2,)))
        rule = Quantization(Bits(4, 4), 8, weights, (ActBits("blocks.s0b0.act1", 2),))
        model = fresh(samples.arch(quantization=rule), 0)
        bits = {name: layer.bits for name, layer in layers(model).items()}
        assert bits["blocks.s0b0.conv1"] == (1, 2, 4, 8, 3, 3)
        assert (bits["head.score"], bits["blocks.s0b1.conv1"], bits["stem.conv"]) == ((2,), (4,), (8,))
        assert layers(model)["blocks.s0b0.conv2"].reads == 2

    @pytest.mark.parametrize(("weight", "act"), [*((b, 8) for b in range(1, 9)), *((4, b) for b in range(2, 8))])
    def test_a_network_of_any_bits_calibrates_computes_and_learns(self, weight, act, context):
        model = samples.model(samples.arch(quantization=Quantization(Bits(weight, act), 8)))
        zeroed = quantized(model, model.arch, 0)
        calibrate(zeroed, context, images=64, seed=0)
        loss = zeroed.net.train()(samples.images(8))[-1].square().mean()
        loss.backward()
        scales = {name: p for name, p in zeroed.net.named_parameters() if is_scale(name)}
        assert all((p > 0).all() for p in scales.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in zeroed.net.parameters())
        for layer in layers(zeroed).values():
            whole = layer.integers()
            assert (whole.abs().flatten(1).amax(dim=1) <= layer.levels).all()
            steps = effective_scale(layer.weight, layer.scale, layer.binary).view(-1, *[1] * (whole.ndim - 1))
            assert torch.equal(whole * steps, layer.rounded())

    def test_every_reader_gets_the_rounded_tensor(self):
        model = samples.model(samples.compressed(BlockKind.BASIC, bits=Bits(4, 3)))
        seen: dict[str, Tensor] = {}
        for name, module in model.net.named_modules():
            if isinstance(module, Conv | Linear) or name.endswith(".shortcut"):
                module.register_forward_hook(lambda _, inputs, __, name=name: seen.update({name: inputs[0]}))
        model.net(samples.images(32))
        assert "blocks.s1b0.shortcut" in seen
        for name, x in seen.items():
            bits = 8 if name in ("stem.conv", "head.score", "exits.0.score", "exits.1.score") else 3
            unit = samples.SPAN / act_range(bits, signed=name == "stem.conv")[1]
            assert 1 < len(x.unique()) <= 2**bits, name
            torch.testing.assert_close(x / unit, (x / unit).round(), atol=1e-4, rtol=0)
