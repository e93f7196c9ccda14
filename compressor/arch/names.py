"""What the layers and rounded tensors of a network are called, so that explicit bits can name them."""

from compressor.arch.types import RESIDUAL, Arch, Block, BlockKind, Shortcut, exit_blocks, stream


def written(block: Block, name: str, source: str, out: str) -> list[tuple[str, bool]]:
    """Give for each convolution of a block the axis it writes, and whether it is depthwise.

    `source` is the axis that the block reads, `out` the one its last convolution writes.
    """
    inner = [f"{name}.{i}" for i in range(len(block.widths))]
    match block.kind:
        case BlockKind.BASIC | BlockKind.BOTTLENECK:
            return [*((axis, False) for axis in inner), (out, False)]
        case BlockKind.INVERTED:
            return [*((axis, False) for axis in inner), (inner[0] if inner else source, True), (out, False)]
        case BlockKind.PLAIN:
            return [(out, False)]
        case BlockKind.SEPARABLE:
            return [(source, True), (out, False)]


def layer_axes(arch: Arch) -> dict[str, str]:
    """Name every convolution and linear layer, with the axis it writes ('' for one that is never pruned)."""
    axes = {"head.score": "", **{f"head.fc{i}": f"fc{i}" for i in range(len(arch.head.hidden))}}
    axes |= {f"exits.{i}.score": "" for i in range(len(exit_blocks(arch)))}
    axes |= {f"{unit}.conv": "" for unit in _units(arch)}
    source = entry(arch)
    if arch.stem:
        axes["stem.conv"] = source
    if arch.tail:
        axes["tail.conv"] = "tail"
    for s, stage in enumerate(arch.stages):
        for b, block in enumerate(stage.blocks):
            name, out = f"s{s}b{b}", stream(arch, s, b)
            for i, (axis, _) in enumerate(written(block, name, source, out), start=1):
                axes[f"blocks.{name}.conv{i}"] = axis
            if projects(block, stage.shortcut, same=source == out):
                axes[f"blocks.{name}.shortcut.conv"] = out
            source = out
    return axes


def layer_names(arch: Arch) -> set[str]:
    """Name every convolution and linear layer."""
    return set(layer_axes(arch))


def tensor_names(arch: Arch) -> set[str]:
    """Name every tensor that activation bits can round, by the module that produces it."""
    names = {"image", "head.act", *(f"head.act{i}" for i in range(len(arch.head.hidden)))}
    names |= {f"{unit}.act" for unit in _units(arch)}
    names |= {f"exits.{i}.act" for i in range(len(exit_blocks(arch)))}
    for s, stage in enumerate(arch.stages):
        for b, block in enumerate(stage.blocks):
            inner = range(1, len(written(block, "", "", "")))
            names |= {f"blocks.s{s}b{b}.act", *(f"blocks.s{s}b{b}.act{i}" for i in inner)}
    return names


def edges(arch: Arch) -> set[str]:
    """Name the layers and tensors that have the rule's edge bits: first and last layers, and what those read."""
    last = f"head.act{len(arch.head.hidden) - 1}" if arch.head.hidden else "head.act"
    ends = {f"exits.{i}.{part}" for i in range(len(exit_blocks(arch))) for part in ("score", "act")}
    return {"image", "stem.conv" if arch.stem else "blocks.s0b0.conv1", "head.score", last} | ends


def entry(arch: Arch) -> str:
    """Name the axis that the first block reads: the stem's, or '' for the image."""
    if arch.stem is None:
        return ""
    return "s0" if arch.stem.width is None else "stem"


def projects(block: Block, shortcut: Shortcut, *, same: bool) -> bool:
    """Tell whether a block's shortcut is a convolution; `same` where it reads the stream that it writes."""
    kind, identity = block.kind, same and block.stride == 1
    return kind in RESIDUAL and kind is not BlockKind.INVERTED and shortcut is Shortcut.PROJECT and not identity


def _units(arch: Arch) -> list[str]:
    ends = [name for name, present in (("stem", arch.stem), ("tail", arch.tail)) if present]
    width = arch.exits.width if arch.exits else 0
    return ends + [f"exits.{i}.unit" for i in range(len(exit_blocks(arch)) if width else 0)]
