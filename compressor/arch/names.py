"""What the layers and rounded tensors of a network are called, so that explicit bits can name them."""

from compressor.arch.types import RESIDUAL, Arch, BlockKind, Shortcut, Stage, exit_blocks

FIXED = {
    BlockKind.BASIC: 1,
    BlockKind.BOTTLENECK: 1,
    BlockKind.INVERTED: 2,
    BlockKind.PLAIN: 0,
    BlockKind.SEPARABLE: 1,
}
"""Convolutions of a block beside one for each of its own widths."""


def layer_names(arch: Arch) -> set[str]:
    """Name every convolution and linear layer."""
    names = {"head.score", *(f"head.fc{i}" for i in range(len(arch.head.hidden)))}
    names |= {f"{unit}.conv" for unit in _units(arch)}
    names |= {f"exits.{i}.score" for i in range(len(exit_blocks(arch)))}
    source = "s0" if arch.stem and arch.stem.width is None else ""
    for s, stage in enumerate(arch.stages):
        for b, block in enumerate(stage.blocks):
            names |= {f"blocks.s{s}b{b}.conv{i}" for i in range(1, len(block.widths) + FIXED[block.kind] + 1)}
            if _projects(stage, b, same=source == f"s{s}"):
                names.add(f"blocks.s{s}b{b}.shortcut.conv")
            source = f"s{s}"
    return names


def tensor_names(arch: Arch) -> set[str]:
    """Name every tensor that activation bits can round, by the module that produces it."""
    names = {"image", "head.act", *(f"head.act{i}" for i in range(len(arch.head.hidden)))}
    names |= {f"{unit}.act" for unit in _units(arch)}
    names |= {f"exits.{i}.act" for i in range(len(exit_blocks(arch)))}
    for s, stage in enumerate(arch.stages):
        for b, block in enumerate(stage.blocks):
            inner = range(1, len(block.widths) + FIXED[block.kind])
            names |= {f"blocks.s{s}b{b}.act", *(f"blocks.s{s}b{b}.act{i}" for i in inner)}
    return names


def _units(arch: Arch) -> list[str]:
    edges = [name for name, present in (("stem", arch.stem), ("tail", arch.tail)) if present]
    width = arch.exits.width if arch.exits else 0
    return edges + [f"exits.{i}.unit" for i in range(len(exit_blocks(arch)) if width else 0)]


def _projects(stage: Stage, b: int, *, same: bool) -> bool:
    """Tell whether a block's shortcut is a convolution; `same` where it reads the stream that it writes."""
    kind, stride = stage.blocks[b].kind, stage.blocks[b].stride
    identity = same and stride == 1
    return kind in RESIDUAL and kind is not BlockKind.INVERTED and stage.shortcut is Shortcut.PROJECT and not identity
