"""A space is the network in numbers, and the bill of a policy is what the network of that policy costs."""

from dataclasses import replace

import numpy as np
import pytest
import samples
import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.arch import Bits, BlockKind, Exits, Quantization, Shortcut, Stage, condensed, removable
from compressor.arch.types import Block, Stem
from compressor.cost import cost_table, paths, size_bits
from compressor.errors import ConfigError
from compressor.layers import Act, Weighted
from compressor.model import Model, fresh, same, select
from compressor.phases.joint import assigned
from compressor.phases.quantize import quantized
from compressor.search.budget import Limits, bill_of
from compressor.search.space import Space, ranking_of, realise, space_of, split
from compressor.search.types import Bill, Mode, Policy

KINDS = {f"{kind}": samples.arch(kind) for kind in BlockKind}
KINDS["padded twice"] = samples.arch(BlockKind.BASIC, depth=1)
KINDS["projected"] = replace(
    samples.arch(BlockKind.BASIC),
    stages=tuple(replace(stage, shortcut=Shortcut.PROJECT) for stage in samples.arch(BlockKind.BASIC).stages),
    stem=Stem(width=5),
)
KINDS["stem before a depthwise stream"] = replace(
    samples.arch(BlockKind.INVERTED), stages=(Stage((Block(BlockKind.INVERTED, ()),) * 2, 6),), tail=0
)


def cost_of(model: Model, space: Space, policy: Policy, seed: int) -> Bill:
    """Build the network of a policy and count it."""
    kept, rule = realise(policy, space, spaces.ranking(model.arch, seed))
    made = assigned(model, kept, rule, seed=0)
    worst = paths(made)[-1]
    return Bill(size_bits(made), worst.bitops, worst.macs, None)


@pytest.mark.parametrize("name", KINDS)
def test_a_network_is_made_at_once_as_cutting_rounding_and_removing_make_it_one_after_the_other(name):
    start, removed = fresh(KINDS[name], 0), 0
    space = space_of(start, spaces.config(groups=3))
    for seed in range(6):
        source = np.random.default_rng(seed)
        policy = spaces.walked(space, Limits(), iter(lambda source=source: source.random() ** 6, None))
        kept, rule = realise(policy, space, spaces.ranking(start.arch, seed))
        cut = select(start, kept)
        masked = quantized(cut, condensed(replace(cut.arch, quantization=rule)), 0)
        left = removable(masked.arch)
        assert same(assigned(start, kept, rule, 0), select(masked, left))
        removed += len(left)
    assert removed


class TestSpace:
    @pytest.mark.parametrize("name", spaces.NETWORKS)
    def test_its_layers_are_those_that_run_with_what_they_cost_and_read(self, name):
        space, model = spaces.space(name), spaces.model_of(name)
        modules = {n: m for n, m in model.net.named_modules() if isinstance(m, Weighted)}
        rows = cost_table(model)
        assert [layer.name for layer in space.layers] == [row.name for row in rows]
        for layer, row in zip(space.layers, rows, strict=True):
            assert modules[layer.name].weight.numel() * layer.positions == row.macs
            assert modules[layer.name].axes["weight"][0] == layer.writes
        assert space.baseline == Bill(size_bits(model), paths(model)[-1].bitops, paths(model)[-1].macs, None)
        acts = {n for n, m in model.net.named_modules() if isinstance(m, Act)}
        assert {layer.tensor for layer in space.layers} <= acts
        assert space.rounded == len(acts)

    def test_a_residual_network_reads_what_the_module_before_gives(self):
        read = {layer.name: layer.tensor for layer in spaces.space("resnet20").layers}
        assert read["stem.conv"] == "image"
        assert read["blocks.s0b0.conv1"] == "stem.act"
        assert read["blocks.s1b0.conv2"] == "blocks.s1b0.act1"
        assert read["blocks.s2b1.conv1"] == "blocks.s2b0.act"
        assert read["head.score"] == "head.act"

    def test_first_and_last_layers_are_not_decided(self):
        assert [layer.name for layer in spaces.space("resnet20").layers if layer.edge] == ["stem.conv", "head.score"]
        edges = [layer.name for layer in spaces.space("vgg11").layers if layer.edge]
        assert edges == ["blocks.s0b0.conv1", "head.score"]

    def test_channels_go_with_their_last_reader_behind_a_depthwise_layer_and_never_from_a_padded_stream(self):
        space = spaces.space("mobilenet_v2")
        assert space.deciders["s1b0.0"] == ("blocks.s1b0.conv2",)
        assert space.deciders["stem"] == ("blocks.s0b0.conv1",)
        assert space.deciders["s1"] == ("blocks.s1b0.conv3", "blocks.s1b1.conv3")
        assert spaces.space("resnet20").deciders["s1"] == ()

    def test_a_network_with_exits_or_bits_is_refused(self):
        with pytest.raises(ConfigError, match="has early exits; search first"):
            space_of(fresh(samples.arch(exits=Exits((0.5,))), 0), spaces.config())
        with pytest.raises(ConfigError, match="is quantized already"):
            space_of(fresh(samples.arch(quantization=Quantization(Bits(4, 4), 8)), 0), spaces.config())


class TestSplit:
    @given(st.integers(1, 300), st.integers(1, 20))
    def test_groups_are_even_and_none_is_empty(self, count, groups):
        sizes = split(count, groups)
        assert sum(sizes) == count
        assert len(sizes) == min(count, groups)
        assert max(sizes) - min(sizes) <= 1
        assert list(sizes) == sorted(sizes, reverse=True)


class TestRealise:
    def test_the_most_important_channels_stay_and_the_first_group_has_the_first_bits(self):
        space, arch = spaces.space("resnet20", groups=2), spaces.arch_of("resnet20")
        ranking = spaces.ranking(arch, 3)
        policy = spaces.whole(space)
        policy = replace(policy, keep=policy.keep | {"s0b0.0": 5}, bits=policy.bits | {"blocks.s0b0.conv1": (6, 2)})
        kept, rule = realise(policy, space, ranking)
        assert kept["s0b0.0"] == tuple(sorted(ranking["s0b0.0"][:5]))
        (bits,) = [w.bits for w in rule.weights if w.layer == "blocks.s0b0.conv1"]
        first = set(ranking["s0b0.0"][:3])
        assert bits == tuple(6 if channel in first else 2 for channel in kept["s0b0.0"])

    def test_the_ranking_is_by_importance(self, digits):
        model = spaces.model_of("resnet20")
        ranking = ranking_of(model, digits, spaces.config().criterion, 0)
        conv1, conv2 = (
            model.net.get_parameter("blocks.s0b0.conv1.weight"),
            model.net.get_parameter("blocks.s0b0.conv2.weight"),
        )
        scores = conv1.abs().flatten(1).mean(1) + conv2.abs().transpose(0, 1).flatten(1).mean(1)
        assert ranking["s0b0.0"] == tuple(scores.argsort(descending=True).tolist())


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("name", spaces.NETWORKS)
def test_a_bill_is_what_the_network_costs(name, mode):
    space, model = spaces.space(name, mode=mode, search_acts=mode is Mode.MIXED, min_keep=0.3), spaces.model_of(name)
    for seed in range(2):
        policy = spaces.walked(space, Limits(), iter(np.random.default_rng(seed).random, None))
        assert bill_of(policy, space) == cost_of(model, space, policy, seed)


@pytest.mark.parametrize("name", KINDS)
@given(st.randoms(use_true_random=False), st.sampled_from(Mode), st.integers(1, 5))
@settings(max_examples=15)
def test_a_bill_is_what_any_network_costs(name, source, mode, groups):
    model = fresh(KINDS[name], 0)
    space = space_of(model, spaces.config(mode=mode, groups=groups, search_acts=True, min_keep=0.3))
    zeros = source.random()
    wishes = iter(lambda: 0.0 if source.random() < zeros else source.random(), None)
    policy = spaces.walked(space, Limits(), wishes)
    assert bill_of(policy, space) == cost_of(model, space, policy, 0)


def test_all_channels_at_8_bits_cost_what_plain_quantization_does():
    space = spaces.space("resnet20")
    bill = bill_of(spaces.whole(space), space)
    assert bill.macs == space.baseline.macs
    assert bill.bitops * 16 == space.baseline.bitops
