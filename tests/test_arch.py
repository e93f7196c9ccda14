"""Edits of an architecture are pure, commute, and are checked before anything is built."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from compressor.arch import (
    INNER,
    RESIDUAL,
    ActBits,
    Activation,
    Arch,
    Bits,
    Block,
    BlockKind,
    Exits,
    Head,
    Quantization,
    Shortcut,
    Stage,
    Stem,
    WeightBits,
    check,
    exit_blocks,
    fitted,
    keep,
    shrink,
    stream,
    widths,
    with_blocks,
    with_widths,
    without_stale_bits,
)
from compressor.codec import decode, encode
from compressor.errors import CompressorError, ConfigError, ModelError

SIZES = st.integers(1, 12)
QUANTIZATIONS = st.builds(
    Quantization,
    st.builds(Bits, st.integers(1, 8), st.integers(2, 8)),
    st.sampled_from([2, 4, 8, 32]),
)
EXITS = st.builds(
    Exits,
    st.lists(st.floats(0.05, 0.95), min_size=1, max_size=3, unique=True).map(lambda p: tuple(sorted(p))),
    width=st.integers(0, 8),
)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    residual = draw(st.booleans())
    kinds = sorted(RESIDUAL) if residual else [BlockKind.PLAIN, BlockKind.SEPARABLE]
    blocks = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(kinds))
        count = draw(st.sampled_from(INNER[kind]))
        inner = tuple(draw(SIZES) for _ in range(count))
        blocks.append(Block(kind, inner, draw(st.integers(1, 2))))
    return Stage(tuple(blocks), draw(SIZES) if residual else 0, draw(st.sampled_from(Shortcut)))


@st.composite
def archs(draw: st.DrawFn) -> Arch:
    rows = tuple(draw(st.lists(stages(), min_size=1, max_size=3)))
    shared = rows[0].width > 0 and draw(st.booleans())
    head = Head(draw(st.integers(1, 2)), tuple(draw(st.lists(SIZES, max_size=2))), 0.1)
    arch = Arch(
        "any",
        samples.INPUT,
        samples.TASK,
        rows,
        Stem(width=None if shared else draw(SIZES)),
        draw(st.integers(0, 5)),
        head,
        draw(st.sampled_from(Activation)),
        draw(st.none() | QUANTIZATIONS),
        draw(st.none() | EXITS),
    )
    return check(arch)


def kept_of(draw: Callable, arch: Arch) -> dict[str, list[int]]:
    """Draw some channels of some axes."""
    axes = draw(st.lists(st.sampled_from(sorted(widths(arch))), unique=True))
    return {
        axis: draw(st.lists(st.integers(0, widths(arch)[axis] - 1), min_size=1, unique=True).map(sorted))
        for axis in axes
    }


class TestProperties:
    @given(archs())
    def test_an_arch_goes_to_json_and_back_unchanged(self, arch):
        assert decode(Arch, json.loads(json.dumps(encode(arch)))) == arch

    @given(archs(), st.data())
    def test_keeping_channels_changes_their_axes_widths_and_nothing_else(self, arch, data):
        kept = kept_of(data.draw, arch)
        smaller = check(keep(arch, kept))
        assert widths(smaller) == widths(arch) | {axis: len(index) for axis, index in kept.items()}
        assert with_widths(smaller, widths(arch)) == arch

    @given(archs())
    def test_keeping_all_channels_changes_nothing(self, arch):
        assert keep(arch, {axis: range(size) for axis, size in widths(arch).items()}) == arch

    @given(archs(), st.data(), st.floats(0.1, 1))
    def test_keeping_channels_and_taking_blocks_away_commute(self, arch, data, depth):
        kept = kept_of(data.draw, arch)
        shallow = shrink(arch, depth, 1)
        left = {axis: index for axis, index in kept.items() if axis in widths(shallow)}
        assert shrink(keep(arch, kept), depth, 1) == keep(shallow, left)

    @given(archs(), QUANTIZATIONS, EXITS, st.data(), st.floats(0.1, 1))
    def test_bits_and_exits_commute_with_everything(self, arch, quantization, exits, data, depth):
        kept = kept_of(data.draw, arch)
        marks = {"quantization": quantization, "exits": exits}
        assert replace(keep(arch, kept), **marks) == keep(replace(arch, **marks), kept)
        assert replace(shrink(arch, depth, 0.5), **marks) == shrink(replace(arch, **marks), depth, 0.5)

    @given(archs(), st.floats(0.01, 1), st.floats(0.01, 1))
    def test_a_student_has_every_stage_and_no_empty_axis(self, arch, depth, width):
        student = check(shrink(arch, depth, width))
        assert len(student.stages) == len(arch.stages)
        for small, large in zip(student.stages, arch.stages, strict=True):
            assert [b.stride for b in small.blocks] == [b.stride for b in large.blocks[: len(small.blocks)]]
        assert all(size <= widths(arch)[axis] for axis, size in widths(student).items())

    @given(archs(), st.data())
    def test_a_student_has_at_most_the_blocks_that_it_is_told_and_they_are_the_first(self, arch, data):
        most = [data.draw(st.integers(1, 4)) for _ in arch.stages]
        student = check(with_blocks(arch, most))
        assert [s.blocks for s in student.stages] == [s.blocks[:n] for s, n in zip(arch.stages, most, strict=True)]
        assert with_blocks(student, most) == student

    @given(archs())
    def test_the_whole_depth_and_width_is_the_same_network(self, arch):
        assert shrink(arch, 1, 1) == arch

    @given(archs())
    def test_exits_stand_after_the_first_block_and_before_the_end(self, arch):
        total = sum(len(stage.blocks) for stage in arch.stages)
        cuts = exit_blocks(arch)
        assert list(cuts) == sorted(set(cuts))
        assert all(1 <= cut < total for cut in cuts)
        assert bool(cuts) == (arch.exits is not None and total > 1)

    @given(archs(), archs())
    def test_a_named_student_of_an_unchanged_model_is_changed_only_by_its_bits_and_exits(self, student, model):
        marks = {"quantization": model.quantization, "exits": model.exits}
        assert fitted(student, model, model) == without_stale_bits(replace(student, **marks))


class TestAxes:
    def test_they_are_named_in_the_order_of_the_network(self):
        assert widths(samples.arch()) == {
            "s0": 6, "s0b0.0": 6, "s0b1.0": 6, "s1": 8, "s1b0.0": 8, "s1b1.0": 8,
        }  # fmt: skip
        assert list(widths(samples.arch(BlockKind.BOTTLENECK)))[:4] == ["stem", "s0", "s0b0.0", "s0b0.1"]
        assert list(widths(samples.arch(BlockKind.INVERTED)))[-1] == "tail"
        assert list(widths(samples.arch(BlockKind.PLAIN))) == ["s0b0.0", "s0b1.0", "s1b0.0", "s1b1.0", "fc0"]

    def test_residual_blocks_share_a_stream_and_plain_ones_have_their_own(self):
        assert stream(samples.arch(), 1, 1) == "s1"
        assert stream(samples.arch(BlockKind.SEPARABLE), 1, 1) == "s1b1.0"


class TestKeep:
    RULE = Quantization(Bits(4, 4), 8, (WeightBits("blocks.s0b0.conv1", "s0b0.0", (1, 2, 3, 4, 5, 6)),))

    def test_it_takes_each_kept_channels_bits_along(self):
        smaller = keep(samples.arch(quantization=self.RULE), {"s0b0.0": [5, 0, 2]})
        assert smaller.quantization is not None
        assert smaller.quantization.weights[0].bits == (6, 1, 3)

    def test_bits_of_a_whole_layer_stay(self):
        rule = replace(self.RULE, weights=(WeightBits("blocks.s0b0.conv1", "s0b0.0", (3,)),))
        assert keep(samples.arch(quantization=rule), {"s0b0.0": [1]}).quantization == rule

    @pytest.mark.parametrize(
        ("kept", "message"),
        [
            ({"s9": [0]}, "no axis 's9' to prune; the network has s0, s0b0.0"),
            ({"s0": []}, "keep needs distinct channels of 0..5, at least one"),
            ({"s0": [6]}, "keep needs distinct channels"),
            ({"s0": [-1]}, "keep needs distinct channels"),
            ({"s0": [1, 1]}, "keep needs distinct channels"),
        ],
    )
    def test_it_refuses_channels_that_are_not_there(self, kept, message):
        with pytest.raises(ModelError, match=message):
            keep(samples.arch(), kept)


class TestStudents:
    def test_bits_of_blocks_that_are_gone_go_too_and_others_stay(self):
        weights = (
            WeightBits("blocks.s0b1.conv1", "s0b1.0", (2,)),
            WeightBits("blocks.s0b0.conv1", "s0b0.0", (1, 2, 3, 4, 5, 6)),
            WeightBits("head.score", "", (5,)),
        )
        rule = Quantization(Bits(4, 4), 8, weights, (ActBits("blocks.s0b1.act", 3), ActBits("blocks.s0b0.act", 3)))
        student = shrink(samples.arch(quantization=rule), 0.5, 1)
        assert student.quantization == replace(rule, weights=weights[1:], acts=rule.acts[1:])

    def test_bits_of_single_channels_go_where_the_student_is_thinner(self):
        rule = replace(TestKeep.RULE)
        student = shrink(samples.arch(quantization=rule), 1, 0.5)
        assert student.quantization is not None
        assert student.quantization.weights == ()

    def test_a_named_student_keeps_each_axis_kept_fraction_and_the_mean_elsewhere(self):
        original = samples.arch()
        model = keep(original, {"s0": [0, 1, 2], "s1": range(8), "s0b0.0": range(3)})
        deeper = samples.arch(depth=3)
        sizes = widths(fitted(deeper, original, model))
        assert (sizes["s0"], sizes["s0b0.0"], sizes["s1"], sizes["s0b1.0"]) == (3, 3, 8, 6)
        mean = (0.5 + 0.5 + 4 * 1) / 6
        assert sizes["s0b2.0"] == round(6 * mean)


def stage(**changes) -> Arch:
    first, *rest = samples.arch().stages
    return samples.arch(stages=(replace(first, **changes), *rest))


PLAIN = Block(BlockKind.PLAIN, (4,))
BAD: dict[str, tuple[Arch, str]] = {
    "no stage": (samples.arch(stages=()), "every network needs a stage"),
    "no block": (stage(blocks=()), "every stage a block"),
    "too many blocks": (stage(blocks=(Block(BlockKind.BASIC, (1,)),) * 2001), "more than 2000 blocks"),
    "huge width": (stage(width=65537), "axis 's0' has 65537 channels"),
    "no width": (stage(width=0), "needs a width for residual blocks"),
    "negative width": (stage(width=-1), "axis 's0' has -1 channels"),
    "mixed stage": (stage(blocks=(Block(BlockKind.BASIC, (4,)), PLAIN)), "not both"),
    "plain with a stream": (stage(blocks=(PLAIN,)), "none for plain ones"),
    "missing widths": (stage(blocks=(Block(BlockKind.BASIC, ()),)), r"block 0 \(basic\) has 0 widths"),
    "too many widths": (stage(blocks=(Block(BlockKind.BOTTLENECK, (1, 2, 3)),)), r"\(bottleneck\) has 3 widths"),
    "stride": (stage(blocks=(Block(BlockKind.BASIC, (4,), 5),)), "stride 5; allowed are 1 to 4"),
    "stride 0": (stage(blocks=(Block(BlockKind.BASIC, (4,), 0),)), "stride 0"),
    "no stem": (samples.arch(stem=None), "needs a stem"),
    "stem without width": (samples.arch(BlockKind.PLAIN, stem=Stem()), "needs a width"),
    "stem kernel": (samples.arch(stem=Stem(kernel=0)), "kernel of 1..15"),
    "channels": (samples.arch(input=replace(samples.INPUT, channels=0, mean=(), std=())), "an input of 0 x 8 x 8"),
    "size": (samples.arch(input=replace(samples.INPUT, size=5000)), "an input of 1 x 5000 x 5000"),
    "mean": (samples.arch(input=replace(samples.INPUT, mean=(0.1, 0.2))), "mean and std need 1 numbers"),
    "std": (samples.arch(input=replace(samples.INPUT, std=(0.0,))), "std above 0"),
    "outputs": (samples.arch(task=replace(samples.TASK, outputs=0)), "0 outputs"),
    "dropout": (samples.arch(head=Head(dropout=1.0)), "drops out 0..1"),
    "pool": (samples.arch(head=Head(pool=0)), "pools to 1..16"),
    "hidden": (samples.arch(head=Head(hidden=(0,))), "axis 'fc0' has 0 channels"),
    "tail": (samples.arch(tail=70000), "axis 'tail' has 70000 channels"),
    "9 bits": (samples.arch(quantization=Quantization(Bits(9, 4), 8)), "weights of 9 bits: allowed are 1 to 8"),
    "0 bits": (samples.arch(quantization=Quantization(Bits(0, 4), 8)), "weights of 0 bits"),
    "1 bit activations": (samples.arch(quantization=Quantization(Bits(4, 1), 8)), "activations of 1 bits"),
    "1 bit edges": (samples.arch(quantization=Quantization(Bits(4, 4), 1)), "edge bits of 1"),
    "exit past the end": (samples.arch(exits=Exits((1.0,))), "fractions of the depth between 0 and 1"),
    "exits that fall": (samples.arch(exits=Exits((0.6, 0.3))), "give each once, rising"),
    "drop": (samples.arch(exits=Exits((0.5,), drop=2.0)), "exit drop 2.0"),
    "exit width": (samples.arch(exits=Exits((0.5,), width=-1)), "exit width -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_impossible_arch_is_refused_in_one_line(name):
    arch, message = BAD[name]
    with pytest.raises((ModelError, ConfigError), match=message) as caught:
        check(arch)
    assert isinstance(caught.value, CompressorError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", BlockKind)
def test_a_possible_arch_is_returned_as_it_is(kind):
    assert check(samples.compressed(kind)) == samples.compressed(kind)
