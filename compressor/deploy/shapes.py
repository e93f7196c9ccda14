"""The shapes of a network's layers, from its arch alone: known before anything is allocated, and without torch."""

from dataclasses import dataclass

from compressor.arch import Arch, Block, BlockKind, Shortcut, Stage, exit_blocks, stream, widths
from compressor.arch.names import entry, projects, written

Shape = tuple[int, ...]

KERNELS = {
    BlockKind.BASIC: (3, 3),
    BlockKind.BOTTLENECK: (1, 3, 1),
    BlockKind.INVERTED: (1, 3, 1),
    BlockKind.PLAIN: (3,),
    BlockKind.SEPARABLE: (3, 1),
}
"""The kernel of each convolution of a block; an inverted one that expands nothing lacks the first."""

EXIT_POOL = 2
"""The side that an exit's head pools to."""


@dataclass(frozen=True)
class Shapes:
    """Shapes by name: `maps` are those of option-A shortcuts (out, in).

    `layers` are the weights of convolutions (out, in / groups, k, k) and of linear layers (out, in).
    """

    layers: dict[str, Shape]
    maps: dict[str, Shape]


def shapes_of(arch: Arch) -> Shapes:
    """Give the shapes of a network that passed `check`."""
    sizes, source, found, ends = widths(arch) | {"": arch.input.channels}, entry(arch), Shapes({}, {}), []
    if arch.stem:
        found.layers["stem.conv"] = (sizes[source], arch.input.channels, arch.stem.kernel, arch.stem.kernel)
    for s, stage in enumerate(arch.stages):
        for b, block in enumerate(stage.blocks):
            out = stream(arch, s, b)
            _add_block(found, f"s{s}b{b}", block, stage, (source, out), sizes)
            source = out
            ends.append(sizes[out])
    last = ends[-1]
    if arch.tail:
        found.layers["tail.conv"], last = (arch.tail, last, 1, 1), arch.tail
    _add_heads(found, arch, last, [ends[cut - 1] for cut in exit_blocks(arch)])
    return found


def _add_block(
    found: Shapes, name: str, block: Block, stage: Stage, ends: tuple[str, str], sizes: dict[str, int]
) -> None:
    plan, reads = written(block, name, *ends), sizes[ends[0]]
    for i, ((axis, depthwise), kernel) in enumerate(zip(plan, KERNELS[block.kind][-len(plan) :], strict=True), start=1):
        found.layers[f"blocks.{name}.conv{i}"] = (sizes[axis], 1 if depthwise else reads, kernel, kernel)
        reads = sizes[axis]
    if projects(block, Shortcut.PROJECT, same=ends[0] == ends[1]):  # or would, were it not padded
        pair, shortcut = (sizes[ends[1]], sizes[ends[0]]), f"blocks.{name}.shortcut"
        if stage.shortcut is Shortcut.PAD:
            found.maps[shortcut] = pair
        else:
            found.layers[f"{shortcut}.conv"] = (*pair, 1, 1)


def _add_heads(found: Shapes, arch: Arch, last: int, exits: list[int]) -> None:
    reads = last * arch.head.pool**2
    for i, width in enumerate(arch.head.hidden):
        found.layers[f"head.fc{i}"], reads = (width, reads), width
    found.layers["head.score"] = (arch.task.outputs, reads)
    width = arch.exits.width if arch.exits else 0
    for i, channels in enumerate(exits):
        if width:
            found.layers[f"exits.{i}.unit.conv"] = (width, channels, 1, 1)
        found.layers[f"exits.{i}.score"] = (arch.task.outputs, (width or channels) * EXIT_POOL**2)
