"""A channel of 0 bits is a pruned one: exactly 0 where it is read, without gradients, and removed without a trace."""

from copy import deepcopy
from dataclasses import replace

import pytest
import samples
import torch
import zero_bits
from torch import Tensor, nn
from zero_bits import at_random, zeros_of

from compressor.arch import BlockKind, Exits, layer_axes, removable, widths
from compressor.layers import Axis, Norm
from compressor.model import select
from compressor.quantization import RoundWeight, best_weight_scale, integers

EXITS = Exits((0.3, 0.6), width=4)
MIXED = (0, 1, 2, 0, 4, 8, 0, 3)


class TestRounding:
    def test_channels_of_0_bits_are_0_beside_others_of_any_bits_in_one_operation(self):
        weight, scale = samples.normal(8, 3, 3, 3), torch.linspace(0.02, 0.4, 8)
        found = RoundWeight.apply(weight, scale, *samples.grid(MIXED, 8))
        for c, bits in enumerate(MIXED):
            alone = RoundWeight.apply(weight[c : c + 1], scale[c : c + 1], *samples.grid((bits or 1,), 1))
            assert torch.equal(found[c], alone[0] if bits else torch.zeros(3, 3, 3))
        assert (integers(weight, scale, *samples.grid(MIXED, 8))[torch.tensor(MIXED) == 0] == 0).all()

    def test_neither_their_weights_nor_their_scales_have_a_gradient_not_even_at_0(self):
        weight, dead = samples.normal(8, 20), torch.tensor(MIXED) == 0
        weight[:, :3] = 0
        weight, scale = weight.requires_grad_(), torch.full((8,), 0.1).requires_grad_()
        (RoundWeight.apply(weight, scale, *samples.grid(MIXED, 8)) * samples.normal(8, 20, seed=1)).sum().backward()
        assert weight.grad is not None
        assert scale.grad is not None
        assert (weight.grad[dead] == 0).all()
        assert (scale.grad[dead] == 0).all()
        assert (weight.grad[~dead] != 0).any(dim=1).all()
        assert (scale.grad[(~dead) & (torch.tensor(MIXED) > 1)] != 0).all()

    def test_the_other_channels_have_the_gradients_that_they_have_without_them(self):
        weight, scale, dead = samples.normal(8, 20), torch.full((8,), 0.1), torch.tensor(MIXED) == 0
        grads = []
        for bits in (MIXED, tuple(b or 5 for b in MIXED)):
            ours = [x.clone().requires_grad_() for x in (weight, scale)]
            (RoundWeight.apply(*ours, *samples.grid(bits, 8)) * samples.normal(8, 20, seed=1)).sum().backward()
            grads.append([x.grad[~dead] for x in ours if x.grad is not None])
        assert all(map(torch.equal, *grads))

    def test_they_get_scales_that_can_be_divided_by(self):
        levels, _ = samples.grid(MIXED, 8)
        found = best_weight_scale(samples.normal(8, 20), levels)
        assert ((found > 0) & found.isfinite()).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", BlockKind)
class TestMask:
    def test_a_channel_is_exactly_0_after_its_norm_or_hidden_layer(self, kind, training):
        seen: dict[str, Tensor] = {}
        model = samples.model(at_random(samples.arch(kind, exits=EXITS), 0.4, 3))
        for name in (zeros := zeros_of(model.net)):
            model.net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        zero_bits.outputs(model, samples.images(9), training=training)
        assert seen.keys() == zeros.keys()
        assert len(seen) >= len(layer_axes(model.arch)) - 4
        for name, (_, dead) in zeros.items():
            assert (seen[name][:, dead] == 0).all(), name
            assert (seen[name].transpose(0, 1)[~dead] != 0).flatten(1).any(dim=1).all(), name

    def test_nothing_of_it_has_a_gradient_and_everything_is_finite(self, kind, training):
        model = samples.model(at_random(samples.arch(kind, exits=EXITS), 0.4, 3))
        model.net.train(training)
        torch.cat(model.net(samples.images(9))).square().mean().backward()
        for name, parameter in model.net.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name
        for name, (layer, dead) in zeros_of(model.net).items():
            after = model.net.get_submodule(name)
            for module in (layer, after):
                for parameter in module.parameters():
                    if parameter.ndim and parameter.grad is not None:
                        assert (parameter.grad[dead] == 0).all(), name

    def test_pruning_it_gives_the_same_outputs(self, kind, training):
        arch, cut = samples.arch(kind, depth=3, exits=EXITS), 0
        arch = replace(arch, head=replace(arch.head, dropout=0.0))
        for seed in range(4):
            model = samples.model(at_random(arch, 0.6, seed), seed)
            kept = removable(model.arch)
            cut += sum(widths(model.arch)[axis] - len(index) for axis, index in kept.items())
            ours = zero_bits.outputs(deepcopy(model), samples.images(9), training=training)
            theirs = zero_bits.outputs(select(model, kept), samples.images(9), training=training)
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert cut > 8


def test_a_compiler_traces_the_mask_and_gets_the_same_outputs_and_gradients():
    torch.compiler.reset()
    model, found = samples.model(at_random(samples.arch(BlockKind.SEPARABLE), 0.4, 3)), []
    twin = deepcopy(model)
    for net in (model.net.train(), torch.compile(twin.net.train(), backend="aot_eager", fullgraph=True)):
        net(samples.images(9))[-1].square().mean().backward()
    for one, other in zip(model.net.parameters(), twin.net.parameters(), strict=True):
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)
            found.append(one)
    assert len(found) > 20
    for name, (layer, dead) in zeros_of(twin.net).items():
        assert layer.weight.grad is not None
        assert (layer.weight.grad[dead] == 0).all(), name


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_masking_norm_keeps_the_statistics_that_torchs_keeps(momentum):
    ours, theirs, live = Norm(Axis("a", 5), (4, 0, 4, 4, 0)), nn.BatchNorm2d(5), [0, 2, 3]
    ours.momentum = theirs.momentum = momentum
    for seed in range(6):
        x, training = samples.normal(4, 5, 3, 3, seed=seed), seed < 3
        assert torch.equal(ours.train(training)(x)[:, live], theirs.train(training)(x)[:, live])
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
