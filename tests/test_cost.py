"""Costs are counted on the network itself: equal to other people's counters, and to numbers worked out by hand."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import samples
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.arch import Arch, Bits, Block, BlockKind, Exits, Head, Input, Quantization, Stage, Stem, WeightBits
from compressor.cost import cost_table, params, paths, size_bits
from compressor.errors import ModelError
from compressor.measure import measure
from compressor.model import fresh

EXITS = Exits((0.3, 0.6), width=4)
FLOAT = {f"{kind}": samples.arch(kind) for kind in BlockKind}
FLOAT |= {f"{kind} with exits": samples.arch(kind, exits=EXITS) for kind in BlockKind}
FLOAT["large stem"] = samples.arch(BlockKind.BOTTLENECK, stem=Stem(7, 2, pool=True, width=4))
FLOAT["deep head"] = samples.arch(BlockKind.SEPARABLE, head=Head(2, (5, 6)), tail=7)


@contextmanager
def fvcore() -> Iterator[Any]:
    """Give fvcore's counters, which use what torch warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield import_module("fvcore.nn")


@pytest.mark.parametrize("name", FLOAT)
class TestOracles:
    def test_macs_are_half_of_what_torchs_counter_counts(self, name):
        model = fresh(FLOAT[name], 0)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.net.eval()(samples.images(1, model.arch))
        assert 2 * sum(row.macs for row in cost_table(model)) == counter.get_total_flops()
        assert 2 * paths(model)[-1].macs == counter.get_total_flops()

    def test_every_row_is_fvcores(self, name):
        model = fresh(FLOAT[name], 0)
        with fvcore() as counters:
            counted = counters.FlopCountAnalysis(model.net.eval(), samples.images(1, model.arch))
            counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            theirs = counted.by_module_and_operator()
        rows = {row.name: row for row in cost_table(model)}
        for layer, operators in theirs.items():
            found = operators.get("conv", 0) + operators.get("linear", 0)
            if layer in rows:
                assert rows.pop(layer).macs == found, layer
        assert rows == {}

    def test_parameters_are_fvcores_and_the_rows_add_up_to_them(self, name):
        model = fresh(FLOAT[name], 0)
        with fvcore() as counters:
            theirs = counters.parameter_count(model.net)[""]
        assert params(model) == theirs == sum(row.params for row in cost_table(model))


def toy(**changes) -> Arch:
    """One plain convolution of 3 channels on 4x4 grey pixels, pooled to a score for 2 classes."""
    task = replace(samples.TASK, outputs=2, names=())
    stages = (Stage((Block(BlockKind.PLAIN, (3,)),)),)
    return replace(Arch("toy", Input(1, 4, (0.5,), (0.5,)), task, stages), **changes)


class TestByHand:
    # conv1: 3 x 1 x 3 x 3 = 27 weights at 16 places: 432 MACs; score: 2 x 3 = 6 weights, 6 MACs.

    def test_a_float_network(self):
        model = fresh(toy(), 0)
        conv, score = cost_table(model)
        assert (conv.name, conv.kind, conv.macs, conv.bitops) == ("blocks.s0b0.conv1", "conv", 432, 432 * 32 * 32)
        assert (score.name, score.kind, score.macs, score.bitops) == ("head.score", "linear", 6, 6 * 32 * 32)
        assert (conv.params, score.params) == (27 + 2 * 3, 6 + 2)
        assert size_bits(model) == (27 + 3) * 32 + (6 + 2) * 32
        assert paths(model)[0].bitops == 438 * 1024

    def test_a_quantized_network_has_its_edge_bits_on_both_of_its_layers(self):
        model = fresh(toy(quantization=Quantization(Bits(2, 3), 8)), 0)
        conv, score = cost_table(model)
        assert (conv.weight_bits, conv.act_bits, conv.bitops) == (8, 8, 432 * 8 * 8)
        assert (score.weight_bits, score.act_bits, score.bitops) == (8, 8, 6 * 8 * 8)
        # each channel: weights, a bias, a scale; three activations (image, block, pooled) have a scale each
        assert size_bits(model) == (27 * 8 + 3 * 64) + (6 * 8 + 2 * 64) + 3 * 32

    def test_channels_of_several_bits_cost_what_each_has_and_4_bits_to_say_so(self):
        rule = Quantization(Bits(2, 3), 8, (WeightBits("blocks.s0b0.conv1", "s0b0.0", (1, 2, 6)),))
        conv, _ = cost_table(fresh(toy(quantization=rule), 0))
        assert (conv.weight_bits, conv.bitops) == (3, 9 * 16 * (1 + 2 + 6) * 8)
        assert conv.size_bits == 9 * (1 + 2 + 6) + 3 * (32 + 32 + 4)

    def test_equal_bits_written_out_for_each_channel_cost_no_more_than_one_number(self):
        sizes = set()
        for bits in ((4,), (4, 4, 4)):
            rule = Quantization(Bits(2, 3), 8, (WeightBits("blocks.s0b0.conv1", "s0b0.0", bits),))
            sizes.add(size_bits(fresh(toy(quantization=rule), 0)))
        assert len(sizes) == 1

    def test_each_exit_adds_its_head_and_all_earlier_ones_to_the_path(self):
        stages = (Stage((Block(BlockKind.PLAIN, (3,)), Block(BlockKind.PLAIN, (5,)))),)
        model = fresh(toy(stages=stages, exits=Exits((0.5,))), 0)
        first, second = 3 * 1 * 9 * 16, 5 * 3 * 9 * 16
        exit_, score = 2 * 3 * 2 * 2, 2 * 5
        assert [row.head for row in cost_table(model)] == [0, 0, 1, 1]
        assert [path.macs for path in paths(model)] == [first + exit_, first + exit_ + second + score]
        assert size_bits(model) == 32 * (27 + 3 + 24 + 2 + 135 + 5 + 10 + 2) + 32  # the last one is the threshold

    def test_an_exits_convolution_is_counted(self):
        stages = (Stage((Block(BlockKind.PLAIN, (3,)), Block(BlockKind.PLAIN, (5,)))),)
        model = fresh(toy(stages=stages, exits=Exits((0.5,), width=7)), 0)
        assert paths(model)[0].macs == 432 + 7 * 3 * 16 + 2 * 7 * 4

    def test_a_depthwise_convolution_reads_one_channel_each(self):
        stages = (Stage((Block(BlockKind.SEPARABLE, (5,)),)),)
        rows = cost_table(fresh(toy(stages=stages, stem=Stem(width=3)), 0))
        assert [(row.kind, row.macs) for row in rows] == [
            ("conv", 3 * 9 * 16), ("depthwise", 3 * 9 * 16), ("conv", 5 * 3 * 16), ("linear", 10),
        ]  # fmt: skip


class TestPromises:
    @pytest.mark.parametrize("kind", BlockKind)
    def test_the_rows_add_up_to_paths_and_size(self, kind):
        model = fresh(samples.compressed(kind), 0)
        rows = cost_table(model)
        assert paths(model)[-1].bitops == sum(row.bitops for row in rows)
        macs = [path.macs for path in paths(model)]
        assert macs == sorted(macs)
        assert len(macs) == 3
        assert size_bits(model) > sum(row.size_bits for row in rows)
        assert paths(model)[-1].bitops < paths(fresh(samples.arch(kind), 0))[-1].bitops / 30

    def test_costs_depend_on_the_arch_alone(self):
        arch = samples.compressed(BlockKind.BOTTLENECK)
        assert cost_table(fresh(arch, 0)) == cost_table(samples.model(arch, 5))

    def test_counting_leaves_the_network_as_it_was(self):
        model = samples.model(samples.arch())
        model.net.train()
        before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
        cost_table(model)
        assert model.net.training
        assert all(torch.equal(before[name], tensor) for name, tensor in model.net.state_dict().items())
        assert not any(module._forward_hooks for module in model.net.modules())

    @pytest.mark.parametrize("layer", [nn.PReLU(), nn.Conv2d(6, 6, 1), nn.LayerNorm(8)])
    def test_an_unknown_layer_is_an_error_and_never_free(self, layer):
        model = fresh(samples.arch(), 0)
        model.net.blocks["s0b0"].add_module("more", layer)
        with pytest.raises(
            ModelError, match=rf"'blocks.s0b0.more' is a {type(layer).__name__}, whose cost is not known"
        ):
            cost_table(model)

    def test_scales_of_quantizers_are_not_parameters_of_the_network(self):
        assert params(fresh(samples.compressed(), 0)) == params(fresh(samples.arch(exits=EXITS), 0))

    def test_measured_costs_are_means_over_the_paths_really_taken(self, digits):
        model = samples.model(samples.compressed())
        model.net.thresholds.copy_(torch.tensor([0.139, 0.25]))
        seen, path = measure(model, digits, samples.RUNTIME), paths(model)
        for split in (seen.val, seen.test):
            assert sum(split.shares) == pytest.approx(1)
            assert 0 < split.shares[0] < 1
            assert split.bitops == pytest.approx(sum(s * p.bitops for s, p in zip(split.shares, path, strict=True)))
            assert split.macs == pytest.approx(sum(s * p.macs for s, p in zip(split.shares, path, strict=True)))
        assert (seen.cost.macs, seen.cost.bitops) == (path[-1].macs, path[-1].bitops)
        assert seen.cost.size_bits == size_bits(model)
