"""Bits of 0 in an arch: which channels may go, what later edits keep, what is refused, and what is counted."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import samples
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cost import toy
from zero_bits import at_random, counts, with_zeros

from compressor.arch import (
    ActBits,
    Arch,
    Bits,
    Block,
    BlockKind,
    Exits,
    Quantization,
    Shortcut,
    Stage,
    Stem,
    WeightBits,
    check,
    condensed,
    edges,
    keep,
    layer_axes,
    removable,
    requantized,
    widths,
)
from compressor.config import ArchitectureConfig
from compressor.cost import LayerCost, cost_table, size_bits
from compressor.errors import ConfigError, ModelError
from compressor.families import FAMILIES, architecture
from compressor.layers import Act, Weighted
from compressor.model import fresh, load, same, save, select
from compressor.network import Network

BASIC = samples.arch()
STREAM: tuple[str, ...] = ("stem.conv", "blocks.s0b0.conv2", "blocks.s0b1.conv2")
"""Everything that writes the first stream of `BASIC`: its blocks have identity shortcuts, its stem writes into it."""


class TestRemovable:
    def test_nothing_is_where_every_channel_has_bits(self):
        assert removable(BASIC) == removable(samples.compressed()) == {}

    def test_a_blocks_own_channel_goes_with_its_one_writer(self):
        found = removable(with_zeros(BASIC, {"blocks.s0b0.conv1": [1, 4]}))
        assert found == {"s0b0.0": [0, 2, 3, 5]}

    def test_a_streams_channel_goes_only_when_everything_that_writes_it_has_0_bits_there(self):
        zeros: dict[str, list[int]] = dict(zip(STREAM, ([0, 1, 2], [1, 2, 3], [2, 1, 5]), strict=True))
        assert removable(with_zeros(BASIC, zeros)) == {"s0": [0, 3, 4, 5]}
        for writer in STREAM:
            assert removable(with_zeros(BASIC, {name: zeros[name] for name in STREAM if name != writer})) == {}

    def test_a_stream_that_a_live_one_is_copied_into_stays(self):
        into = {"blocks.s1b0.conv2": range(8), "blocks.s1b1.conv2": range(8)}
        assert removable(with_zeros(BASIC, into)) == {}
        found = removable(with_zeros(BASIC, into | dict.fromkeys(STREAM, range(6))))
        assert found == {"s0": [0], "s1": [0]}

    def test_a_projection_writes_the_stream_too(self):
        arch = samples.arch(BlockKind.BOTTLENECK)
        into = {"blocks.s1b0.conv3": [2, 3], "blocks.s1b1.conv3": [2, 3]}
        assert removable(with_zeros(arch, into)) == {}
        assert removable(with_zeros(arch, into | {"blocks.s1b0.shortcut.conv": [3]})) == {"s1": [0, 1, 2, 4, 5, 6, 7]}

    def test_a_depthwise_layer_hides_what_it_reads_and_lets_nothing_else_through(self):
        arch = samples.arch(BlockKind.INVERTED)
        wide = list(range(12))
        assert removable(with_zeros(arch, {"blocks.s1b0.conv2": [7]})) == {"s1b0.0": wide[:7] + wide[8:]}
        assert removable(with_zeros(arch, {"blocks.s1b0.conv1": [7]})) == {}  # a norm's shift comes after 0

    def test_a_depthwise_layer_does_not_hide_what_an_early_head_reads_as_well(self):
        arch = samples.arch(BlockKind.SEPARABLE, depth=3)
        zeros = {"blocks.s0b1.conv1": [2]}
        assert removable(with_zeros(arch, zeros)) == {"s0b0.0": [0, 1, 3, 4, 5]}
        assert removable(with_zeros(replace(arch, exits=Exits((0.2,))), zeros)) == {}

    def test_an_axis_keeps_its_first_channel_when_all_have_0_bits(self):
        assert removable(with_zeros(BASIC, {"blocks.s0b0.conv1": range(6)})) == {"s0b0.0": [0]}

    def test_hidden_layers_the_stem_and_the_tail_are_axes_like_others(self):
        plain = samples.arch(BlockKind.PLAIN)
        assert removable(with_zeros(plain, {"head.fc0": [0]})) == {"fc0": list(range(1, 7))}
        inverted = samples.arch(BlockKind.INVERTED)
        zeros = {"stem.conv": [4], "blocks.s0b0.conv1": [4], "tail.conv": [0, 8]}
        assert removable(with_zeros(inverted, zeros)) == {"stem": [0, 1, 2, 3], "tail": list(range(1, 8))}

    def test_a_stride_within_a_stage_copies_each_channel_to_itself(self):
        blocks = (Block(BlockKind.BASIC, (4,)), Block(BlockKind.BASIC, (4,), 2))
        arch = replace(BASIC, stem=Stem(), stages=(Stage(blocks, 6, Shortcut.PAD),))
        assert removable(with_zeros(arch, {name: [3] for name in STREAM})) == {"s0": [0, 1, 2, 4, 5]}

    @pytest.mark.parametrize("kind", BlockKind)
    def test_once_removed_nothing_more_is(self, kind):
        for seed in range(6):
            arch = at_random(samples.arch(kind, exits=Exits((0.5,))), 0.6, seed)
            smaller = keep(arch, removable(arch))
            assert check(smaller) == smaller
            single = {axis: [0] for axis, size in widths(smaller).items() if size == 1}
            assert removable(smaller).keys() <= single.keys()
            Network(smaller)


def family(name: str) -> Arch:
    config = ArchitectureConfig(name=name, width=0.25, stem="auto", mean=None, std=None, network=None)
    return architecture(config, 1, 32, (0.3,), (0.4,), samples.TASK)


NETWORKS = {str(kind): samples.compressed(kind) for kind in BlockKind} | {name: family(name) for name in FAMILIES}


@pytest.mark.parametrize("arch", NETWORKS.values(), ids=NETWORKS)
class TestNames:
    def test_axes_and_edges_are_those_of_the_networks_modules(self, arch):
        with torch.device("meta"):
            modules = dict(Network(replace(arch, quantization=Quantization(Bits(4, 5), 7))).named_modules())
        layers = {name: module for name, module in modules.items() if isinstance(module, Weighted)}
        assert layer_axes(arch) == {name: layer.axes["weight"][0] for name, layer in layers.items()}
        ends = {name for name, layer in layers.items() if layer.bits == (7,)}
        assert edges(arch) == ends | {name for name, act in modules.items() if isinstance(act, Act) and act.bits == 7}

    def test_bits_that_say_what_the_rule_says_are_left_out(self, arch):
        rule, ends = Quantization(Bits(4, 5), 7), edges(arch)
        sizes, names = counts(arch), layer_axes(arch)
        own = {name: 7 if name in ends else 4 for name in names}
        with torch.device("meta"):
            acts = [name for name, m in Network(arch).named_modules() if isinstance(m, Act)]
        spelled = tuple(WeightBits(name, axis, (own[name],) * sizes[name]) for name, axis in names.items())
        tensors = tuple(ActBits(name, 7 if name in ends else 5) for name in acts)
        plain = replace(arch, quantization=rule)
        assert condensed(replace(arch, quantization=replace(rule, weights=spelled, acts=tensors))) == plain
        other = replace(rule, weights=(WeightBits("head.score", "", (4,)),), acts=(ActBits("image", 5),))
        assert condensed(replace(arch, quantization=other)).quantization == other


def layers(net: Network) -> Iterator[tuple[str, Weighted]]:
    yield from ((name, module) for name, module in net.named_modules() if isinstance(module, Weighted))


class TestEdits:
    def test_other_bits_by_a_rule_leave_0_bits_and_replace_the_rest(self):
        arch = with_zeros(BASIC, {"stem.conv": [1], "blocks.s0b0.conv1": [0, 5], "blocks.s0b1.conv1": []})
        found = requantized(arch, Quantization(Bits(3, 2), 6)).quantization
        assert found is not None
        assert (found.bits, found.edge, found.acts) == (Bits(3, 2), 6, ())
        assert {w.layer: w.bits for w in found.weights} == {
            "stem.conv": (6, 0, 6, 6, 6, 6),
            "blocks.s0b0.conv1": (0, 3, 3, 3, 3, 0),
        }

    def test_weights_cannot_be_float_beside_0_bits(self):
        arch = with_zeros(BASIC, {"blocks.s0b0.conv1": [0]})
        with pytest.raises(ConfigError, match=r"weights of 32 bits: layer 'blocks.s0b0.conv1' has channels of 0 bits"):
            requantized(arch, Quantization(Bits(32, 4), 8))

    def test_it_saves_loads_and_selects(self, tmp_path):
        model = samples.model(at_random(samples.compressed(BlockKind.INVERTED), 0.5, 1, Quantization(Bits(4, 4), 8)))
        save(model, tmp_path)
        again = load(tmp_path)
        assert same(model, again)
        kept = {"s1": [0, 3, 5], "s1b0.0": [1, 2, 7, 9]}
        smaller, before, compared = select(again, kept), dict(layers(model.net)), 0
        for name, layer in layers(smaller.net):
            index = kept.get(layer.axes["weight"][0], range(len(before[name].bits)))
            assert layer.bits == tuple(before[name].bits[i] for i in index)
            compared += 0 in layer.bits
        assert compared > 3
        assert smaller.net(samples.images())[-1].isfinite().all()


def refused(layer: str, bits: tuple[int, ...], axis: str = "") -> Arch:
    return samples.arch(quantization=Quantization(Bits(4, 4), 8, (WeightBits(layer, axis, bits),)), exits=Exits((0.5,)))


BAD = {
    "outputs": (refused("head.score", (0,)), "'head.score' has a channel of 0 bits: it gives the outputs"),
    "one output": (refused("head.score", (4,) * 9 + (0,)), "'head.score' has a channel of 0 bits"),
    "an exit's outputs": (refused("exits.0.score", (0,)), "'exits.0.score' has a channel of 0 bits"),
    "float and 0": (refused("stem.conv", (32, 0, 32, 32, 32, 32), "s0"), "channels of 0 and 32 bits: give all 32"),
    "float and 4": (refused("stem.conv", (4, 32, 4, 4, 4, 4), "s0"), "channels of 4 and 32 bits"),
    "another axis": (refused("stem.conv", (4, 0, 4, 4, 4, 4), "s1"), "channels of axis 's1'; it writes 's0'"),
    "no rule of 0": (samples.arch(quantization=Quantization(Bits(0, 4), 8)), "weights of 0 bits: allowed are 1 to 8"),
    "no edge of 0": (samples.arch(quantization=Quantization(Bits(4, 4), 0)), "weights of 0 bits: allowed are 1 to 8"),
    "below 0": (refused("stem.conv", (-1,)), "weights of -1 bits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bits_that_cannot_be_are_refused_in_one_line(name):
    arch, message = BAD[name]
    with pytest.raises((ModelError, ConfigError), match=message) as caught:
        check(arch)
    assert "\n" not in str(caught.value)


def test_bits_of_too_few_channels_are_refused():
    with pytest.raises(ModelError, match="explicit bits for 3 channels, the layer has 6"):
        fresh(refused("stem.conv", (4, 0, 4), "s0"), 0)


class TestCost:
    # the toy's convolution: 3 channels of 9 weights at 16 places, read at 8 bits

    def test_by_hand_a_channel_of_0_bits_has_no_bitops_and_no_weights_but_macs_a_bias_and_a_scale(self):
        rule = Quantization(Bits(2, 3), 8, (WeightBits("blocks.s0b0.conv1", "s0b0.0", (0, 2, 6)),))
        conv, score = cost_table(fresh(toy(quantization=rule), 0))
        assert (conv.macs, conv.params) == (432, 27 + 6)
        assert conv.bitops == 9 * 16 * 8 * (2 + 6)
        assert conv.size_bits == 9 * (2 + 6) + 3 * (32 + 32 + 4)
        assert conv.weight_bits == pytest.approx(8 / 3)
        assert (score.macs, score.bitops, score.size_bits) == (6, 6 * 64, 6 * 8 + 2 * 64)  # it reads the channel's 0

    def test_by_hand_once_removed_nothing_of_it_is_counted(self):
        rule = Quantization(Bits(2, 3), 8, (WeightBits("blocks.s0b0.conv1", "s0b0.0", (0, 2, 6)),))
        model = fresh(toy(quantization=rule), 0)
        conv, score = cost_table(select(model, removable(model.arch)))
        assert (conv.macs, conv.bitops, conv.size_bits) == (288, 9 * 16 * 8 * 8, 9 * 8 + 2 * 68)
        assert (score.macs, score.bitops, score.size_bits) == (4, 4 * 64, 4 * 8 + 2 * 64)

    def test_by_hand_a_layer_of_nothing_but_0_bits_costs_biases_and_scales(self):
        rule = Quantization(Bits(2, 3), 8, (WeightBits("blocks.s0b0.conv1", "s0b0.0", (0,)),))
        conv, _ = cost_table(fresh(toy(quantization=rule), 0))
        assert (conv.macs, conv.bitops, conv.size_bits, conv.weight_bits) == (432, 0, 3 * 64, 0)

    @settings(max_examples=25)
    @given(st.lists(st.integers(0, 8), min_size=6, max_size=6), st.sampled_from(list(BlockKind)), st.integers(2, 8))
    def test_channels_of_several_bits_cost_the_mean_of_what_each_would_in_a_layer_of_its_own(self, bits, kind, act):
        arch = samples.arch(kind)
        layer, axis = next((name, axis) for name, axis in layer_axes(arch).items() if counts(arch)[name] == 6)

        def row(*bits: int) -> tuple[LayerCost, int]:
            rule = Quantization(Bits(4, act), 8, (WeightBits(layer, axis, bits),))
            model = fresh(replace(arch, quantization=rule), 0)
            return next(row for row in cost_table(model) if row.name == layer), size_bits(model)

        (mixed, whole), alone = row(*bits), [row(b) for b in bits]
        assert mixed.macs == alone[0][0].macs
        assert mixed.bitops * 6 == sum(each.bitops for each, _ in alone)
        said = 6 * 4 * (len(set(bits)) > 1)
        assert (mixed.size_bits - said) * 6 == sum(each.size_bits for each, _ in alone)
        assert (whole - said) * 6 == sum(size for _, size in alone)
        assert mixed.weight_bits == pytest.approx(sum(bits) / 6)
        assert mixed.bitops == mixed.macs // 6 * sum(bits) * mixed.act_bits
