"""Pure edits: a phase that changes the network returns a new Arch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compressor.arch.names import edges, layer_names, tensor_names
from compressor.arch.types import FLOAT, Arch, Block, Quantization, WeightBits, widths
from compressor.arch.zeros import dead
from compressor.errors import ConfigError, ModelError


def with_widths(arch: Arch, sizes: Mapping[str, int]) -> Arch:
    """Give the arch whose named axes have the given sizes; unnamed ones stay."""
    sizes = widths(arch) | dict(sizes)
    stages = tuple(
        replace(stage, width=sizes.get(f"s{s}", 0), blocks=_with_widths(stage.blocks, s, sizes))
        for s, stage in enumerate(arch.stages)
    )
    stem = arch.stem and (arch.stem if arch.stem.width is None else replace(arch.stem, width=sizes["stem"]))
    head = replace(arch.head, hidden=tuple(sizes[f"fc{i}"] for i in range(len(arch.head.hidden))))
    return replace(arch, stem=stem, stages=stages, tail=sizes.get("tail", 0), head=head)


def _with_widths(blocks: tuple[Block, ...], s: int, sizes: Mapping[str, int]) -> tuple[Block, ...]:
    return tuple(
        replace(block, widths=tuple(sizes[f"s{s}b{b}.{i}"] for i in range(len(block.widths))))
        for b, block in enumerate(blocks)
    )


def keep(arch: Arch, kept: Mapping[str, Sequence[int]]) -> Arch:
    """Keep the given channels of each named axis, and their bits. This is the only edit that pruning makes."""
    sizes = widths(arch)
    for axis, index in kept.items():
        if axis not in sizes:
            raise ModelError(f"no axis {axis!r} to prune; the network has {', '.join(sizes)}")
        if not index or min(index) < 0 or max(index) >= sizes[axis] or len(set(index)) < len(index):
            raise ModelError(f"axis {axis!r}: keep needs distinct channels of 0..{sizes[axis] - 1}, at least one")
    smaller = with_widths(arch, {axis: len(index) for axis, index in kept.items()})
    if (rule := arch.quantization) is None:
        return smaller
    chosen = tuple(
        replace(w, bits=tuple(w.bits[i] for i in kept[w.axis])) if w.axis in kept and len(w.bits) > 1 else w
        for w in rule.weights
    )
    return replace(smaller, quantization=replace(rule, weights=chosen))


def removable(arch: Arch) -> dict[str, list[int]]:
    """Give the channels to keep of each axis that has some which are 0 wherever they are read.

    Dropping the others changes no output. An axis keeps at least its first channel. What an option-A shortcut copies
    from another axis counts as live unless all of that axis is 0: which channels it copies is not in the arch.
    """
    sizes = widths(arch)
    kept = {axis: [i for i in range(sizes[axis]) if i not in gone] or [0] for axis, gone in dead(arch).items()}
    return {axis: index for axis, index in kept.items() if len(index) < sizes[axis]}


def condensed(arch: Arch) -> Arch:
    """Leave out explicit bits that say what the rule says; bits that are mixed, or 0, stay as they are."""
    if (rule := arch.quantization) is None:
        return arch
    ends = edges(arch)

    def own(name: str, general: int) -> int:
        return rule.edge if name in ends else general

    weights = tuple(w for w in rule.weights if set(w.bits) != {own(w.layer, rule.bits.weight)})
    acts = tuple(a for a in rule.acts if a.bits != own(a.tensor, rule.bits.act))
    return replace(arch, quantization=replace(rule, weights=weights, acts=acts))


def requantized(arch: Arch, rule: Quantization) -> Arch:
    """Give the arch other bits by a rule; channels of 0 bits, which are pruned in all but name, keep those.

    Raises:
        ConfigError: the rule leaves weights float where channels have 0 bits.
    """
    ends, weights = edges(arch), []
    for w in arch.quantization.weights if arch.quantization else ():
        if 0 not in w.bits:
            continue
        own = rule.edge if w.layer in ends else rule.bits.weight
        if own == FLOAT:
            raise ConfigError(f"weights of {FLOAT} bits: layer {w.layer!r} has channels of 0 bits; give it 1 to 8")
        weights.append(WeightBits(w.layer, w.axis, tuple(b and own for b in w.bits)))
    return replace(arch, quantization=replace(rule, weights=tuple(weights)))


def shrink(arch: Arch, depth: float, width: float) -> Arch:
    """Give a smaller student that keeps the bits and the exits: the first blocks of each stage, thinner by `width`."""
    shallow = with_blocks(arch, [max(1, round(depth * len(stage.blocks))) for stage in arch.stages])
    thinner = {name: max(1, round(width * size)) for name, size in widths(shallow).items()}
    return without_stale_bits(with_widths(shallow, thinner))


def with_blocks(arch: Arch, most: Sequence[int]) -> Arch:
    """Keep the first blocks of each stage, at most as many as `most` says of it, and the bits and the exits."""
    stages = tuple(replace(stage, blocks=stage.blocks[:n]) for stage, n in zip(arch.stages, most, strict=True))
    return without_stale_bits(replace(arch, stages=stages))


def without_stale_bits(arch: Arch) -> Arch:
    """Drop explicit bits of layers and tensors that are gone, and per-channel bits whose axis has another size now."""
    if (rule := arch.quantization) is None:
        return arch
    sizes, there, tensors = widths(arch), layer_names(arch), tensor_names(arch)
    weights = tuple(w for w in rule.weights if w.layer in there and len(w.bits) in (1, sizes.get(w.axis, 1)))
    acts = tuple(a for a in rule.acts if a.tensor in tensors)
    return replace(arch, quantization=replace(rule, weights=weights, acts=acts))


def fitted(student: Arch, original: Arch, model: Arch) -> Arch:
    """Give `student` what compression did to `model`: the kept fraction of each axis, the bits and the exits.

    The fraction of an axis is its size in `model` over that in `original`, the network before compression; an axis
    that those two lack keeps the mean fraction.
    """
    full, now = widths(original), widths(model)
    fractions = {axis: min(1.0, now[axis] / full[axis]) for axis in now if axis in full}
    mean = sum(fractions.values()) / len(fractions) if fractions else 1.0
    sizes = {axis: max(1, round(size * fractions.get(axis, mean))) for axis, size in widths(student).items()}
    done = replace(with_widths(student, sizes), quantization=model.quantization, exits=model.exits)
    return without_stale_bits(done)
