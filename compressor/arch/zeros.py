"""Which channels are always 0, followed from layer to layer as images go."""

from typing import NamedTuple

from compressor.arch.names import entry, projects, written
from compressor.arch.types import RESIDUAL, Arch, Block, BlockKind, Shortcut, exit_blocks, stream, widths


class _Tensor(NamedTuple):
    """A tensor on its way: the axis of its channels, and those of them that are 0 for every image."""

    axis: str
    zero: frozenset[int]


class _Zeros:
    """What layers write and read.

    `silent` are the channels that each layer which mixes them reads as 0, `dead` those of each axis that all such
    layers do.
    """

    def __init__(self, arch: Arch) -> None:
        self.sizes = widths(arch)
        self.silent: dict[str, frozenset[int]] = {}
        self.dead: dict[str, frozenset[int]] = {}
        explicit = arch.quantization.weights if arch.quantization else ()
        self.bits = {w.layer: w.bits for w in explicit if 0 in w.bits}

    def write(self, layer: str, axis: str) -> _Tensor:
        """Give what a layer writes, after its norm: 0 where it has 0 bits, whatever it reads."""
        bits = self.bits.get(layer, ())
        each = bits if len(bits) > 1 else bits * self.sizes.get(axis, 0)
        return _Tensor(axis, frozenset(i for i, b in enumerate(each) if b == 0))

    def read(self, tensor: _Tensor, layer: str) -> None:
        """Let a layer read a tensor and mix its channels, so that those which are not 0 matter."""
        self.silent[layer] = tensor.zero
        self.dead[tensor.axis] = self.dead.get(tensor.axis, tensor.zero) & tensor.zero


def dead(arch: Arch) -> dict[str, frozenset[int]]:
    """Give the channels of each axis that are 0 wherever a layer that is not depthwise reads them.

    A depthwise layer of 0 bits hides what it reads; a sum is 0 where both summands are; rounding, pooling and the
    activations keep 0.
    """
    found = _followed(arch).dead
    return {axis: found[axis] for axis in widths(arch) if found.get(axis)}


def silent(arch: Arch) -> dict[str, frozenset[int]]:
    """Give the input channels that each layer reads as 0 for every image; depthwise layers are left out."""
    return _followed(arch).silent


def _followed(arch: Arch) -> _Zeros:
    zeros, x, done = _Zeros(arch), _Tensor(entry(arch), frozenset()), 0
    heads = {cut: f"exits.{i}" for i, cut in enumerate(exit_blocks(arch))}
    first = "unit.conv" if arch.exits and arch.exits.width else "score"
    if arch.stem:
        x = zeros.write("stem.conv", x.axis)
    for s, stage in enumerate(arch.stages):
        for b, block in enumerate(stage.blocks):
            x, done = _block(zeros, f"s{s}b{b}", block, stage.shortcut, x, stream(arch, s, b)), done + 1
            if head := heads.get(done):
                zeros.read(x, f"{head}.{first}")
    ends = [("tail.conv", "tail")] if arch.tail else []
    for layer, axis in [*ends, *((f"head.fc{i}", f"fc{i}") for i in range(len(arch.head.hidden)))]:
        zeros.read(x, layer)
        x = zeros.write(layer, axis)
    zeros.read(x, "head.score")
    return zeros


def _block(zeros: _Zeros, name: str, block: Block, shortcut: Shortcut, x: _Tensor, out: str) -> _Tensor:
    y = x
    for i, (axis, depthwise) in enumerate(written(block, name, x.axis, out), start=1):
        layer = f"blocks.{name}.conv{i}"
        if not depthwise:
            zeros.read(y, layer)
        y = zeros.write(layer, axis)
    same, short = x.axis == out, f"blocks.{name}.shortcut"
    if block.kind not in RESIDUAL or (block.kind is BlockKind.INVERTED and not (same and block.stride == 1)):
        return y
    if projects(block, shortcut, same=same):
        zeros.read(x, f"{short}.conv")
        return _Tensor(out, y.zero & zeros.write(f"{short}.conv", out).zero)
    if same:
        return _Tensor(out, y.zero & x.zero)
    zeros.read(x, short)  # an option-A shortcut; which channels it copies is not in the arch
    return y if len(x.zero) == zeros.sizes.get(x.axis) else _Tensor(out, frozenset())
