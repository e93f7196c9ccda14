"""What a network is, as plain data."""

from dataclasses import dataclass
from enum import StrEnum

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
    """Explicit weight bits of one layer: one number, or one for each channel of the named output axis.

    A channel of 0 bits is 0 after its norm, or after its linear layer: a channel that is masked, not yet removed.
    """

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


def exit_blocks(arch: Arch) -> tuple[int, ...]:
    """Resolve the exits' fractions: for each head that can stand, the number of blocks before it, rising."""
    total = sum(len(stage.blocks) for stage in arch.stages)
    if arch.exits is None or total < 2:
        return ()
    return tuple(sorted({min(total - 1, max(1, round(p * total))) for p in arch.exits.positions}))
