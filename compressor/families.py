"""The networks that have a name, and a user's own: what an architecture setting means, as an Arch. No torch here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial

from compressor.arch import (
    Activation,
    Arch,
    Block,
    BlockKind,
    Head,
    Input,
    Shortcut,
    Stage,
    Stem,
    Task,
    check,
    widths,
    with_widths,
)
from compressor.codec import decode
from compressor.config import ArchitectureConfig
from compressor.errors import ConfigError, ModelError

SMALL_BELOW = 96
"""Images of fewer pixels a side get the small-image stem where `architecture.stem` is auto."""


@dataclass(frozen=True)
class NetworkConfig:
    """A network without its input and task: what a family gives, and what `architecture.network` describes."""

    stages: tuple[Stage, ...]
    stem: Stem | None = None
    tail: int = 0
    head: Head = field(default=Head())
    activation: Activation = Activation.RELU


@dataclass(frozen=True)
class Variant:
    """The form of a family: the images' size in pixels, small-image stem or the original, channel factor."""

    size: int
    small: bool
    width: float

    def times(self, channels: int) -> int:
        """Multiply channels by the factor; at least one stays."""
        return max(1, round(self.width * channels))

    def eights(self, channels: float) -> int:
        """Multiply and round to a multiple of 8 that is not 10 % too small, as MobileNets do (torchvision's rule)."""
        wanted = self.width * channels
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wanted else rounded + 8


Family = Callable[[Variant], NetworkConfig]


def _residual(kind: BlockKind, inner: Sequence[int], depth: int, stride: int) -> tuple[Block, ...]:
    return tuple(Block(kind, tuple(inner), stride if b == 0 else 1) for b in range(depth))


def _cifar_resnet(depth: int, form: Variant) -> NetworkConfig:
    """He et al. 2015 (arXiv 1512.03385), section 4.2: 6n + 2 layers, shortcuts of option A."""
    planes = [form.times(channels) for channels in (16, 32, 64)]
    stages = (
        Stage(_residual(BlockKind.BASIC, (width,), (depth - 2) // 6, stride), width, Shortcut.PAD)
        for width, stride in zip(planes, (1, 2, 2), strict=True)
    )
    return NetworkConfig(tuple(stages), Stem())


def _imagenet_resnet(kind: BlockKind, depths: Sequence[int], form: Variant) -> NetworkConfig:
    """He et al. 2015, section 4.1, with the stride of a bottleneck on its 3x3 convolution as in torchvision."""
    bottleneck = kind is BlockKind.BOTTLENECK
    stages = []
    for s, depth in enumerate(depths):
        inner = form.times(64 * 2**s)
        width = form.times(256 * 2**s) if bottleneck else inner
        stages.append(Stage(_residual(kind, (inner,) * (2 if bottleneck else 1), depth, 1 if s == 0 else 2), width))
    own = form.times(64) if bottleneck else None
    stem = Stem(width=own) if form.small else Stem(kernel=7, stride=2, pool=True, width=own)
    return NetworkConfig(tuple(stages), stem)


def _vgg(depths: Sequence[int], form: Variant) -> NetworkConfig:
    """Simonyan and Zisserman 2014 (arXiv 1409.1556) with BatchNorm.

    Images of 32 pixels or more are pooled five times, smaller ones only while 2x2 are left.
    """
    stages, side = [], form.size
    for depth, channels in zip(depths, (64, 128, 256, 512, 512), strict=True):
        pool = form.size >= 32 or side >= 4
        side = side // 2 if pool else side
        stages.append(Stage((Block(BlockKind.PLAIN, (form.times(channels),)),) * depth, pool=pool))
    hidden = form.times(4096)
    return NetworkConfig(tuple(stages), head=Head() if form.small else Head(7, (hidden, hidden), dropout=0.5))


def _mobilenet_v1(form: Variant) -> NetworkConfig:
    """Howard et al. 2017 (arXiv 1704.04861); the small form's stem has stride 1."""
    plan = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
    stages = (
        Stage(_residual(BlockKind.SEPARABLE, (form.eights(channels),), depth, stride))
        for channels, depth, stride in plan
    )
    return NetworkConfig(tuple(stages), Stem(stride=1 if form.small else 2, width=form.eights(32)))


def _mobilenet_v2(form: Variant) -> NetworkConfig:
    """Sandler et al. 2018 (arXiv 1801.04381); the small form's stem and second stage have stride 1."""
    plan = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
    stages, last = [], form.eights(32)
    for s, (channels, depth, stride) in enumerate(plan):
        width = form.eights(channels)
        blocks = [
            Block(
                BlockKind.INVERTED,
                () if s == 0 else (6 * (last if b == 0 else width),),
                stride if b == 0 and not (form.small and s == 1) else 1,
            )
            for b in range(depth)
        ]
        stages.append(Stage(tuple(blocks), width))
        last = width
    stem = Stem(stride=1 if form.small else 2, width=form.eights(32))
    tail = form.eights(1280) if form.width > 1 else 1280
    return NetworkConfig(tuple(stages), stem, tail, Head(dropout=0.2), Activation.RELU6)


CIFAR_RESNETS: dict[str, Family] = {f"resnet{depth}": partial(_cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)}
"""They have one stem, for images of any size."""

FAMILIES: dict[str, Family] = CIFAR_RESNETS | {
    "resnet18": partial(_imagenet_resnet, BlockKind.BASIC, (2, 2, 2, 2)),
    "resnet34": partial(_imagenet_resnet, BlockKind.BASIC, (3, 4, 6, 3)),
    "resnet50": partial(_imagenet_resnet, BlockKind.BOTTLENECK, (3, 4, 6, 3)),
    "vgg11": partial(_vgg, (1, 1, 2, 2, 2)),
    "vgg16": partial(_vgg, (2, 2, 3, 3, 3)),
    "vgg19": partial(_vgg, (2, 2, 4, 4, 4)),
    "mobilenet_v1": _mobilenet_v1,
    "mobilenet_v2": _mobilenet_v2,
}


def architecture(
    config: ArchitectureConfig,
    channels: int,
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    task: Task,
) -> Arch:
    """Give the arch of a setting for images (N, channels, size, size).

    `mean` and `std` are the data's, of pixels in 0..1, a number a channel; the setting's own replace them.
    Raises ConfigError, naming the setting, where there is no such network or it does not fit the images.
    """
    mean, std = _normalisation(config, channels, mean, std)
    network = _named(config, size) if config.network is None else _own(config)
    arch = Arch(
        config.name,
        Input(channels, size, mean, std),
        task,
        network.stages,
        network.stem,
        network.tail,
        network.head,
        network.activation,
    )
    return check(arch) if config.network is None else _check_own(arch, config.width)


def stages_of(name: str) -> int:
    """Count the stages of a family's networks."""
    return len(FAMILIES[name](Variant(SMALL_BELOW, small=True, width=1.0)).stages)


def _normalisation(
    config: ArchitectureConfig, channels: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for name, values in (("mean", config.mean), ("std", config.std)):
        if values is not None and len(values) != channels:
            raise ConfigError(f"architecture.{name}={list(values)}: the images need {channels} numbers, one a channel")
    if config.std is not None and min(config.std) <= 0:
        raise ConfigError(f"architecture.std={list(config.std)}: give numbers above 0")
    return mean if config.mean is None else config.mean, std if config.std is None else config.std


def _named(config: ArchitectureConfig, size: int) -> NetworkConfig:
    if config.name not in FAMILIES:
        near = get_close_matches(config.name, FAMILIES, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(FAMILIES)},"
        own = "and architecture.network for your own" if not near else "Your own goes to architecture.network"
        raise ConfigError(f"architecture.name={config.name!r}: no such network; {hint} {own}")
    if config.stem == "large" and config.name in CIFAR_RESNETS:
        raise ConfigError(f"architecture.stem=large: {config.name} has the small stem only; give auto or small")
    small = size < SMALL_BELOW if config.stem == "auto" else config.stem == "small"
    return FAMILIES[config.name](Variant(size, small, config.width))


def _own(config: ArchitectureConfig) -> NetworkConfig:
    if config.name in FAMILIES:
        raise ConfigError(
            f"architecture.name={config.name!r} is the name of a known network; give your architecture.network another"
        )
    if config.stem != "auto":
        raise ConfigError(f"architecture.stem={config.stem}: architecture.network states its own stem; leave auto")
    return decode(NetworkConfig, config.network, "architecture.network")


def _check_own(arch: Arch, width: float) -> Arch:
    try:
        check(arch)
        return check(with_widths(arch, {axis: max(1, round(width * n)) for axis, n in widths(arch).items()}))
    except ModelError as error:
        reason = str(error).removeprefix(f"network {arch.name!r}: ")
        joint = "." if reason.startswith("stages[") else ": "
        raise ConfigError(f"architecture.network{joint}{reason}") from None
