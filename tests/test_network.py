"""A network computes what its arch says, from tensors whose names and axes are promised."""

from dataclasses import replace

import pytest
import samples
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.arch import (
    Activation,
    Arch,
    Bits,
    BlockKind,
    Exits,
    Head,
    Quantization,
    Shortcut,
    Stem,
    exit_blocks,
    widths,
)
from compressor.layers import Axis, PadShortcut, axes_of
from compressor.network import build

ARCHS = {f"{kind}": samples.arch(kind) for kind in BlockKind}
ARCHS |= {f"{kind} compressed": samples.compressed(kind) for kind in BlockKind}
ARCHS["relu6"] = samples.arch(BlockKind.SEPARABLE, activation=Activation.RELU6, tail=7, head=Head(2, (5, 6), 0.5))
ARCHS["large stem"] = samples.arch(BlockKind.BOTTLENECK, stem=Stem(7, 2, pool=True, width=4))
ARCHS["three channels"] = samples.arch(input=replace(samples.INPUT, channels=3, mean=(0.1,) * 3, std=(0.2,) * 3))
FLOAT = [name for name, arch in ARCHS.items() if arch.quantization is None]


class Reference:
    """The network written once more, function by function, from the tensors of its state alone."""

    def __init__(self, arch: Arch, state: dict[str, Tensor]) -> None:
        self.arch, self.state = arch, state

    def act(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6) if self.arch.activation is Activation.RELU6 else x.clamp_min(0)

    def conv(self, x: Tensor, name: str, i: str = "", stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.conv{i}.weight"]
        groups = x.shape[1] if weight.shape[1] == 1 < x.shape[1] else 1
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        shift, gain, mean, var = (
            self.state[f"{name}.norm{i}.{part}"].view(1, -1, 1, 1)
            for part in ("bias", "weight", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + shift

    def block(self, x: Tensor, s: int, b: int) -> Tensor:
        stage, name = self.arch.stages[s], f"blocks.s{s}b{b}"
        block = stage.blocks[b]
        count = sum(1 for key in self.state if key.startswith(f"{name}.conv") and key.endswith(".weight"))
        deep = {BlockKind.BOTTLENECK: "2", BlockKind.INVERTED: str(count - 1)}.get(block.kind, "1")
        y = x
        for i in map(str, range(1, count + 1)):
            y = self.conv(y, name, i, block.stride if i == deep else 1)
            y = self.act(y) if int(i) < count else y
        first_of_stage = b == 0
        if block.kind in (BlockKind.BASIC, BlockKind.BOTTLENECK):
            y = y + (x if not (first_of_stage and self.reshapes(s)) else self.shortcut(x, s, name, block.stride))
        elif block.kind is BlockKind.INVERTED and not first_of_stage and block.stride == 1:
            y = y + x
        return y if block.kind is BlockKind.INVERTED else self.act(y)

    def reshapes(self, s: int) -> bool:
        shared = self.arch.stem is not None and self.arch.stem.width is None
        return s > 0 or not shared

    def shortcut(self, x: Tensor, s: int, name: str, stride: int) -> Tensor:
        if self.arch.stages[s].shortcut is Shortcut.PROJECT:
            return self.conv(x, f"{name}.shortcut", "", stride)
        extra = self.arch.stages[s].width - x.shape[1]
        return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, extra // 2, extra - extra // 2))

    def __call__(self, images: Tensor) -> Tensor:
        shape, arch = self.arch.input, self.arch
        x = images.float() / 255
        x = (x - torch.tensor(shape.mean).view(-1, 1, 1)) / torch.tensor(shape.std).view(-1, 1, 1)
        if arch.stem:
            x = self.act(self.conv(x, "stem", stride=arch.stem.stride))
            x = F.max_pool2d(x, 3, 2, 1) if arch.stem.pool else x
        for s, stage in enumerate(arch.stages):
            for b in range(len(stage.blocks)):
                x = self.block(x, s, b)
            x = F.max_pool2d(x, 2) if stage.pool else x
        x = self.act(self.conv(x, "tail")) if arch.tail else x
        x = F.adaptive_avg_pool2d(x, arch.head.pool).flatten(1)
        for i in range(len(arch.head.hidden)):
            x = self.linear(x, f"head.fc{i}").clamp_min(0)
        return self.linear(x, "head.score")

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].flatten(1).T + self.state[f"{name}.bias"]


@pytest.mark.parametrize("name", FLOAT)
def test_every_kind_of_block_computes_its_definition_from_tensors_of_promised_names(name):
    model = samples.model(ARCHS[name])
    images = samples.images(4, model.arch)
    want = Reference(model.arch, model.net.state_dict())(images)
    with torch.no_grad():
        torch.testing.assert_close(model.net(images)[-1], want, rtol=1e-4, atol=1e-4)
    assert want.std() > 0.1


@pytest.mark.parametrize("name", ARCHS)
def test_every_tensor_names_its_axes_and_they_have_the_sizes_of_the_arch(name):
    net, sizes = build(ARCHS[name], 0), widths(ARCHS[name])
    state, axes, used = net.state_dict(), axes_of(net), set()
    assert axes.keys() == state.keys()
    for tensor, names in axes.items():
        for dim, axis in enumerate(names):
            assert axis == "" or state[tensor].shape[dim] == sizes[axis], (tensor, axis)
            used.add(axis)
    assert used - {""} == set(sizes)


@pytest.mark.parametrize("name", ARCHS)
def test_heads_answer_in_order_and_segments_add_up_to_the_whole(name):
    model = samples.model(ARCHS[name])
    images, cuts = samples.images(3, model.arch), exit_blocks(model.arch)
    assert model.net.cuts == (*cuts, 4)
    with torch.no_grad():
        whole, x = model.net(images), images
        assert [out.shape for out in whole] == [(3, 10)] * (1 + len(cuts))
        for i, want in enumerate(whole):
            x, out = model.net.segment(i, x)
            assert torch.equal(out, want)


def test_images_are_bytes_or_floats_from_0_to_1():
    model, images = samples.model(ARCHS["three channels"]), samples.images(4, ARCHS["three channels"])
    with torch.no_grad():
        torch.testing.assert_close(model.net(images)[0], model.net(images / 255)[0], rtol=1e-4, atol=1e-5)


def test_normalisation_belongs_to_the_network():
    arch = samples.arch()
    other = replace(arch, input=replace(arch.input, mean=(0.0,), std=(1.0,)))
    nets = [samples.model(a).net for a in (arch, other)]
    with torch.no_grad():
        normalised = (samples.images() / 255 - 0.3) / 0.4
        torch.testing.assert_close(nets[0](samples.images())[0], nets[1](normalised)[0], rtol=1e-4, atol=1e-5)


def test_building_depends_on_the_seed_alone_and_leaves_the_callers_random_state():
    before = torch.get_rng_state()
    first = build(samples.arch(), 3).state_dict()
    torch.rand(5)
    again, other = build(samples.arch(), 3).state_dict(), build(samples.arch(), 4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])
    torch.set_rng_state(before)
    build(samples.arch(), 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("cin", "cout", "stride"), [(6, 8, 2), (4, 4, 2), (3, 12, 1), (16, 32, 2)])
def test_an_option_a_shortcut_strides_and_pads_with_zero_channels_on_both_sides(cin, cout, stride):
    x = torch.randn(2, cin, 8, 8)
    shortcut = PadShortcut(Axis("a", cin), Axis("b", cout), stride)
    extra = cout - cin
    want = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, extra // 2, extra - extra // 2))
    assert torch.equal(shortcut(x), want)


def test_exits_at_one_block_are_one_head_and_a_network_of_one_block_has_none():
    crowded = samples.arch(exits=Exits((0.24, 0.25, 0.26), width=0))
    assert build(crowded, 0).cuts == (1, 4)
    assert len(build(crowded, 0)(samples.images())) == 2
    single = samples.arch(stages=samples.arch(depth=1).stages[:1], exits=Exits((0.5,)))
    assert len(build(single, 0)(samples.images())) == 1


def test_thresholds_wait_at_infinity_so_that_nobody_leaves_before_they_are_chosen():
    assert torch.equal(build(samples.compressed(), 0).thresholds, torch.full((2,), torch.inf))


@pytest.mark.parametrize("bits", [Bits(32, 4), Bits(4, 32), Bits(32, 32)])
def test_32_bits_means_not_rounded(bits):
    arch = samples.arch(quantization=Quantization(bits, 32))
    model = samples.model(arch)
    scales = [name for name in model.net.state_dict() if name.endswith("scale")]
    assert any(name.endswith("act1.scale") for name in scales) == (bits.act != 32)
    assert any(name.endswith("conv1.scale") for name in scales) == (bits.weight != 32)
    assert not any(name.startswith(("stem.conv", "head.score")) for name in scales)
    assert model.net(samples.images())[0].isfinite().all()
