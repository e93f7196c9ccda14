"""What a network is, as plain data. A phase that changes the network returns a new Arch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from compressor.errors import ConfigError, ModelError

FLOAT = 32
"""The bits of what is not quantized."""


class TaskKind(StrEnum):
    """What the outputs mean. `ordinal` is trained and scored as `multiclass`, as MedMNIST does."""

    MULTICLASS = "multiclass"
    BINARY = "binary"
    ORDINAL = "ordinal"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"


class BlockKind(StrEnum):
    """How a block computes; the first three have a residual stream, the last two are plain chains."""

    BASIC = "basic"
    BOTTLENECK = "bottleneck"
    INVERTED = "inverted"
    PLAIN = "plain"
    SEPARABLE = "separable"


class Shortcut(StrEnum):
    """What a residual block adds where shapes differ: a 1x1 projection, or CIFAR's "option A" (stride and zero-pad)."""

    PROJECT = "project"
    PAD = "pad"


class Activation(StrEnum):
    """The nonlinearity after each norm."""

    RELU = "relu"
    RELU6 = "relu6"


class Criterion(StrEnum):
    """When an image may leave at an exit. Regression always uses the agreement of successive heads."""

    CONFIDENCE = "confidence"
    ENTROPY = "entropy"
    PATIENCE = "patience"


RESIDUAL = frozenset({BlockKind.BASIC, BlockKind.BOTTLENECK, BlockKind.INVERTED})
INNER = {BlockKind.BASIC: (1,), BlockKind.BOTTLENECK: (2,), BlockKind.INVERTED: (0, 1)}
INNER |= {BlockKind.PLAIN: (1,), BlockKind.SEPARABLE: (1,)}
"""How many widths a block of each kind may have."""


@dataclass(frozen=True)
class Input:
    """What the network reads: uint8 images (N, channels, size, size), scaled to 0..1, less `mean`, over `std`."""

    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "bilinear"


@dataclass(frozen=True)
class Task:
    """What the network answers. For regression the network's output times `scale` plus `mean` is the target."""

    kind: TaskKind
    outputs: int
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


@dataclass(frozen=True)
class Stem:
    """The first convolution. `width` None: it writes into the stream of stage 0 and shares its channels."""

    kernel: int = 3
    stride: int = 1
    pool: bool = False
    width: int | None = None


@dataclass(frozen=True)
class Block:
    """One block; `widths` are the channels that no other block shares.

    basic: (middle,); bottleneck: (reduced, middle); inverted: (expanded,) or () where nothing is expanded;
    plain and separable: (output,).
    """

    kind: BlockKind
    widths: tuple[int, ...]
    stride: int = 1


@dataclass(frozen=True)
class Stage:
    """Blocks in a row. Residual ones write into one stream of `width` channels; chains have width 0."""

    blocks: tuple[Block, ...]
    width: int = 0
    shortcut: Shortcut = Shortcut.PROJECT
    pool: bool = False


@dataclass(frozen=True)
class Head:
    """The final head: average pooling to `pool` x `pool`, hidden linear layers, and the scores."""

    pool: int = 1
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0


@dataclass(frozen=True)
class Bits:
    """Widths in bits of weights (1 to 8) and activations (2 to 8); 32 where not quantized."""

    weight: int
    act: int


@dataclass(frozen=True)
class WeightBits:
    """Explicit weight bits of one layer: one number, or one for each channel of the named output axis."""

    layer: str
    axis: str
    bits: tuple[int, ...]


@dataclass(frozen=True)
class ActBits:
    """Explicit bits of one activation tensor, named by the module that produces it."""

    tensor: str
    bits: int


@dataclass(frozen=True)
class Quantization:
    """A rule that layers added later follow too, and what overrides it. `edge`: first and last layers."""

    bits: Bits
    edge: int
    weights: tuple[WeightBits, ...] = ()
    acts: tuple[ActBits, ...] = ()


@dataclass(frozen=True)
class Exits:
    """Early heads. `positions` are fractions of the depth, `drop` the loss of quality allowed on val (points / 100)."""

    positions: tuple[float, ...]
    criterion: Criterion = Criterion.CONFIDENCE
    drop: float = 0.0
    width: int = 0


@dataclass(frozen=True)
class Arch:
    """Everything `build` needs, and all that a model has beside its tensors."""

    name: str
    input: Input
    task: Task
    stages: tuple[Stage, ...]
    stem: Stem | None = None
    tail: int = 0
    head: Head = Head()
    activation: Activation = Activation.RELU
    quantization: Quantization | None = None
    exits: Exits | None = None


def stream(arch: Arch, s: int, b: int) -> str:
    """Name the axis that block `b` of stage `s` writes."""
    return f"s{s}" if arch.stages[s].blocks[b].kind in RESIDUAL else f"s{s}b{b}.0"


def widths(arch: Arch) -> dict[str, int]:
    """Name every channel axis that pruning may shorten, in the order of the network, with its size."""
    sizes: dict[str, int] = {}
    if arch.stem and arch.stem.width is not None:
        sizes["stem"] = arch.stem.width
    for s, stage in enumerate(arch.stages):
        if stage.width:
            sizes[f"s{s}"] = stage.width
        for b, block in enumerate(stage.blocks):
            sizes |= {f"s{s}b{b}.{i}": width for i, width in enumerate(block.widths)}
    if arch.tail:
        sizes["tail"] = arch.tail
    return sizes | {f"fc{i}": width for i, width in enumerate(arch.head.hidden)}


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


def shrink(arch: Arch, depth: float, width: float) -> Arch:
    """Give a smaller student that keeps the bits and the exits: the first blocks of each stage, thinner by `width`."""
    kept = [max(1, round(depth * len(stage.blocks))) for stage in arch.stages]
    stages = tuple(replace(stage, blocks=stage.blocks[:n]) for stage, n in zip(arch.stages, kept, strict=True))
    thinner = {name: max(1, round(width * size)) for name, size in widths(replace(arch, stages=stages)).items()}
    return without_stale_bits(with_widths(replace(arch, stages=stages), thinner))


def without_stale_bits(arch: Arch) -> Arch:
    """Drop explicit bits of blocks that are gone, and per-channel bits whose axis has another size now."""
    if (rule := arch.quantization) is None:
        return arch
    sizes, blocks = widths(arch), {f"s{s}b{b}" for s, stage in enumerate(arch.stages) for b in range(len(stage.blocks))}

    def alive(name: str) -> bool:
        first, _, rest = name.partition(".")
        return first != "blocks" or rest.partition(".")[0] in blocks

    weights = tuple(w for w in rule.weights if alive(w.layer) and len(w.bits) in (1, sizes.get(w.axis, 1)))
    acts = tuple(a for a in rule.acts if alive(a.tensor))
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


def exit_blocks(arch: Arch) -> tuple[int, ...]:
    """Resolve the exits' fractions: for each head that can stand, the number of blocks before it, rising."""
    total = sum(len(stage.blocks) for stage in arch.stages)
    if arch.exits is None or total < 2:
        return ()
    return tuple(sorted({min(total - 1, max(1, round(p * total))) for p in arch.exits.positions}))


def check(arch: Arch) -> Arch:
    """Refuse an arch that cannot be built, before anything is made of it; return it otherwise."""
    if not arch.stages or not all(stage.blocks for stage in arch.stages):
        raise ModelError(f"network {arch.name!r}: every network needs a stage and every stage a block")
    if sum(len(stage.blocks) for stage in arch.stages) > 2000:
        raise ModelError(f"network {arch.name!r}: more than 2000 blocks")
    for s, stage in enumerate(arch.stages):
        _check_stage(arch.name, s, stage)
    for axis, size in widths(arch).items():
        if not 1 <= size <= 65536:
            raise ModelError(f"network {arch.name!r}: axis {axis!r} has {size} channels; allowed are 1 to 65536")
    if arch.stem is None and arch.stages[0].blocks[0].kind in RESIDUAL:
        raise ModelError(f"network {arch.name!r}: a first stage of residual blocks needs a stem")
    if arch.stem and arch.stem.width is None and not arch.stages[0].width:
        raise ModelError(f"network {arch.name!r}: a stem before a chain of blocks needs a width")
    _check_edges(arch)
    _check_pools(arch)
    if arch.quantization:
        check_quantization(arch.quantization)
    if arch.exits:
        check_exits(arch.exits)
    return arch


def _check_stage(name: str, s: int, stage: Stage) -> None:
    residual = {block.kind in RESIDUAL for block in stage.blocks}
    if residual == {True, False} or (True in residual) != bool(stage.width):
        raise ModelError(
            f"network {name!r}: stage {s} needs a width for residual blocks, none for plain ones, not both"
        )
    for b, block in enumerate(stage.blocks):
        if len(block.widths) not in INNER[block.kind]:
            raise ModelError(f"network {name!r}: stage {s} block {b} ({block.kind}) has {len(block.widths)} widths")
        if not 1 <= block.stride <= 4:
            raise ModelError(f"network {name!r}: stage {s} block {b} has stride {block.stride}; allowed are 1 to 4")


def _check_edges(arch: Arch) -> None:
    shape = arch.input
    if not (1 <= shape.channels <= 64 and 1 <= shape.size <= 4096):
        raise ModelError(f"network {arch.name!r}: an input of {shape.channels} x {shape.size} x {shape.size}")
    if len(shape.mean) != shape.channels or len(shape.std) != shape.channels or min(shape.std) <= 0:
        raise ModelError(f"network {arch.name!r}: mean and std need {shape.channels} numbers, std above 0")
    if not 1 <= arch.task.outputs <= 65536:
        raise ModelError(f"network {arch.name!r}: {arch.task.outputs} outputs")
    if not (1 <= arch.head.pool <= 16 and 0 <= arch.head.dropout < 1):
        raise ModelError(f"network {arch.name!r}: its head pools to 1..16 and drops out 0..1 (1 excluded)")
    if len(arch.head.hidden) > 16:
        raise ModelError(f"network {arch.name!r}: its head has {len(arch.head.hidden)} hidden layers; at most 16")
    if arch.stem and not (1 <= arch.stem.kernel <= 15 and 1 <= arch.stem.stride <= 4):
        raise ModelError(f"network {arch.name!r}: its stem has a kernel of 1..15 and a stride of 1..4")


def _check_pools(arch: Arch) -> None:
    """Refuse to halve a map of one pixel. Convolutions pad, so a stride takes any map."""
    side = arch.input.size
    if arch.stem:
        side = (side + 2 * (arch.stem.kernel // 2) - arch.stem.kernel) // arch.stem.stride + 1
        side = -(-side // 2) if arch.stem.pool else side
    for s, stage in enumerate(arch.stages):
        for block in stage.blocks:
            side = -(-side // block.stride)
        if stage.pool and side < 2:
            where = f"network {arch.name!r}: stages[{s}].pool"
            raise ModelError(f"{where}: images of {arch.input.size} pixels are 1x1 here already; leave it out")
        side = side // 2 if stage.pool else side


def check_quantization(rule: Quantization) -> None:
    """Refuse bits outside 1..8 (weights) and 2..8 (activations); 32 means not quantized."""
    weights = [rule.bits.weight, rule.edge, *(b for w in rule.weights for b in w.bits)]
    acts = [rule.bits.act, *(a.bits for a in rule.acts)]
    if bad := [b for b in weights if not (1 <= b <= 8 or b == FLOAT)]:
        raise ConfigError(f"weights of {bad[0]} bits: allowed are 1 to 8, or {FLOAT} for float")
    if bad := [b for b in acts if not (2 <= b <= 8 or b == FLOAT)]:
        raise ConfigError(f"activations of {bad[0]} bits: allowed are 2 to 8, or {FLOAT} for float")
    if rule.edge == 1:
        raise ConfigError("edge bits of 1: the first and last layers read activations; allowed are 2 to 8, or 32")


def check_exits(exits: Exits) -> None:
    """Refuse exits outside the network and impossible settings."""
    if not exits.positions or not all(0 < p < 1 for p in exits.positions):
        raise ConfigError(f"exit positions {list(exits.positions)}: give fractions of the depth between 0 and 1")
    if list(exits.positions) != sorted(set(exits.positions)):
        raise ConfigError(f"exit positions {list(exits.positions)}: give each once, rising")
    if not 0 <= exits.drop <= 1:
        raise ConfigError(f"exit drop {exits.drop}: give the allowed loss of quality as 0 to 1 (0.01 is one point)")
    if not 0 <= exits.width <= 65536:
        raise ConfigError(f"exit width {exits.width}: give 0 (no convolution) or a number of channels")
