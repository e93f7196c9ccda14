"""The only place that turns an Arch into modules."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.arch import (
    FLOAT,
    RESIDUAL,
    Activation,
    Arch,
    Block,
    BlockKind,
    Shortcut,
    Stage,
    exit_blocks,
    silent,
    stream,
)
from compressor.layers import Act, Axes, Axis, Conv, Linear, Norm, PadShortcut, Stream


class Rule:
    """The bits that each layer and each activation of an arch has."""

    def __init__(self, arch: Arch) -> None:
        self.q = arch.quantization
        self.weights = {w.layer: w.bits for w in self.q.weights} if self.q else {}
        self.acts = {a.tensor: a.bits for a in self.q.acts} if self.q else {}
        self.zeros = silent(arch)

    def weight(self, layer: str, *, edge: bool = False) -> tuple[int, ...]:
        """Give the weight bits of a layer; `edge` for the first and the last."""
        if self.q is None:
            return (FLOAT,)
        return self.weights.get(layer, (self.q.edge if edge else self.q.bits.weight,))

    def silent(self, layer: str) -> frozenset[int]:
        """Give the input channels that a layer reads as 0 for every image, as what writes them has 0 bits."""
        return self.zeros.get(layer, frozenset())

    def act(self, tensor: str, *, edge: bool = False) -> int:
        """Give the bits of an activation; `edge` for what the first and the last layers read."""
        if self.q is None:
            return FLOAT
        return self.acts.get(tensor, self.q.edge if edge else self.q.bits.act)


class Unit(nn.Module):
    """Convolution, norm, activation."""

    def __init__(self, name: str, source: Stream, cout: Axis, kernel: int, stride: int, f: Activation, rule: Rule,
                 *, edge: bool = False) -> None:  # fmt: skip
        super().__init__()
        bits, zero = rule.weight(f"{name}.conv", edge=edge), rule.silent(f"{name}.conv")
        self.conv = Conv(source, cout, kernel, stride, bits=bits, silent=zero)
        self.norm = Norm(cout, self.conv.bits)
        self.act = Act(f, rule.act(f"{name}.act"), signed=False)
        self.out = self.act.stream(cout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H', W')."""
        return self.act(self.norm(self.conv(x)))


class ProjectShortcut(nn.Module):
    """A 1x1 convolution and a norm, where a residual block changes the stream's shape."""

    def __init__(self, name: str, source: Stream, cout: Axis, stride: int, rule: Rule) -> None:
        super().__init__()
        self.conv = Conv(source, cout, 1, stride, bits=rule.weight(f"{name}.conv"), silent=rule.silent(f"{name}.conv"))
        self.norm = Norm(cout, self.conv.bits)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H', W')."""
        return self.norm(self.conv(x))


class BlockNet(nn.Module):
    """A block of any kind: convolutions with norms, activations between and after them, and perhaps a shortcut."""

    def __init__(self, name: str, source: Stream, cout: Axis, block: Block, stage: Stage, f: Activation, rule: Rule,
                 *, pool: bool, first: bool) -> None:  # fmt: skip
        super().__init__()
        self.pool, self.residual, self.count = pool, False, 0
        entry, short = source, name.removeprefix("blocks.")
        plan = _plan(block, source.axis, cout, short)
        for i, (axis, kernel, stride, depthwise) in enumerate(plan, start=1):
            bits = rule.weight(f"{name}.conv{i}", edge=first and i == 1)
            conv = Conv(
                source, axis, kernel, stride, bits=bits, silent=rule.silent(f"{name}.conv{i}"), depthwise=depthwise
            )
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", Norm(axis, bits))
            if i < len(plan):
                act = Act(f, rule.act(f"{name}.act{i}"), signed=False)
                self.add_module(f"act{i}", act)
                source = act.stream(axis)
        self.count = len(plan)
        linear = block.kind is BlockKind.INVERTED
        self.act = Act(None if linear else f, rule.act(f"{name}.act"), signed=linear)
        self.out = self.act.stream(cout)
        self.shortcut: nn.Module | None = None
        if block.kind in RESIDUAL:
            self.shortcut, self.residual = self._shortcut(name, entry, cout, block, stage, rule)

    @staticmethod
    def _shortcut(
        name: str, source: Stream, cout: Axis, block: Block, stage: Stage, rule: Rule
    ) -> tuple[nn.Module | None, bool]:
        if source.axis.name == cout.name and block.stride == 1:
            return None, True
        if block.kind is BlockKind.INVERTED:
            return None, False
        if stage.shortcut is Shortcut.PAD:
            return PadShortcut(source.axis, cout, block.stride), True
        return ProjectShortcut(f"{name}.shortcut", source, cout, block.stride, rule), True

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H', W')."""
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = getattr(self, f"act{i}")(y)
        if self.residual:
            y = y + (x if self.shortcut is None else self.shortcut(x))
        y = self.act(y)
        return F.max_pool2d(y, 2) if self.pool else y


def _plan(block: Block, cin: Axis, cout: Axis, name: str) -> list[tuple[Axis, int, int, bool]]:
    inner = [Axis(f"{name}.{i}", width) for i, width in enumerate(block.widths)]
    match block.kind:
        case BlockKind.BASIC:
            return [(inner[0], 3, block.stride, False), (cout, 3, 1, False)]
        case BlockKind.BOTTLENECK:
            return [(inner[0], 1, 1, False), (inner[1], 3, block.stride, False), (cout, 1, 1, False)]
        case BlockKind.INVERTED:
            wide = inner[0] if inner else cin
            expand = [(wide, 1, 1, False)] if inner else []
            return [*expand, (wide, 3, block.stride, True), (cout, 1, 1, False)]
        case BlockKind.PLAIN:
            return [(cout, 3, block.stride, False)]
        case BlockKind.SEPARABLE:
            return [(cin, 3, block.stride, True), (cout, 1, 1, False)]


class ScoreHead(nn.Module):
    """The final head: pooling, hidden linear layers, scores."""

    def __init__(self, source: Stream, arch: Arch, rule: Rule) -> None:
        super().__init__()
        hidden, self.pool = arch.head.hidden, arch.head.pool
        self.act = Act(None, rule.act("head.act", edge=not hidden), signed=source.signed)
        source, pool = self.act.stream(source.axis), self.pool
        self.hidden, self.dropout = len(hidden), nn.Dropout(arch.head.dropout)
        for i, width in enumerate(hidden):
            axis, bits, zero = Axis(f"fc{i}", width), rule.weight(f"head.fc{i}"), rule.silent(f"head.fc{i}")
            self.add_module(f"fc{i}", Linear(source, axis, pool, bits=bits, silent=zero))
            act = Act(Activation.RELU, rule.act(f"head.act{i}", edge=i == len(hidden) - 1), signed=False)
            self.add_module(f"act{i}", act)
            source, pool = act.stream(axis), 1
        bits, zero = rule.weight("head.score", edge=True), rule.silent("head.score")
        self.score = Linear(source, Axis("", arch.task.outputs), pool, bits=bits, silent=zero)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, outputs)."""
        x = self.act(_average(x, self.pool))
        for i in range(self.hidden):
            x = self.dropout(getattr(self, f"act{i}")(getattr(self, f"fc{i}")(x)))
        return self.score(self.dropout(x) if not self.hidden else x)


class ExitHead(nn.Module):
    """An early head: a 1x1 convolution to `width` channels (none where 0), pooling to 2x2, scores."""

    def __init__(self, name: str, source: Stream, width: int, outputs: int, rule: Rule) -> None:
        super().__init__()
        self.unit = None
        if width:
            self.unit = Unit(f"{name}.unit", source, Axis("", width), 1, 1, Activation.RELU, rule)
            source = self.unit.out
        self.act = Act(None, rule.act(f"{name}.act", edge=True), signed=source.signed)
        read = self.act.stream(source.axis)
        bits, zero = rule.weight(f"{name}.score", edge=True), rule.silent(f"{name}.score")
        self.score = Linear(read, Axis("", outputs), 2, bits=bits, silent=zero)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, outputs)."""
        return self.score(self.act(_average(x if self.unit is None else self.unit(x), 2)))


def _average(x: Tensor, size: int) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True) if size == 1 else F.adaptive_avg_pool2d(x, size)


class Network(nn.Module):
    """A network that returns a tuple with the outputs (N, outputs) of every head, the final one last.

    It reads uint8 images (N, C, H, W), or floats in 0..1, and normalises them itself. `cuts[i]` is the number of blocks
    before head i. Images left after the exit `i` go on with `segment(i + 1, stream)`.
    """

    thresholds: Tensor

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.arch, rule = arch, Rule(arch)
        self.axes: Axes = {}
        self.image = Act(None, rule.act("image", edge=True), signed=True)
        source = self.image.stream(Axis("", arch.input.channels))
        self.stem = self._stem(source, arch, rule)
        source = self.stem.out if self.stem else source
        self.blocks, sources = nn.ModuleDict(), []
        for name, block, cout, stage, pool in _blocks(arch):
            first = self.stem is None and not self.blocks
            net = BlockNet(f"blocks.{name}", source, cout, block, stage, arch.activation, rule, pool=pool, first=first)
            self.blocks[name] = net
            source = net.out
            sources.append(source)
        self.tail = None
        if arch.tail:
            self.tail = Unit("tail", source, Axis("tail", arch.tail), 1, 1, arch.activation, rule)
            source = self.tail.out
        self.head = ScoreHead(source, arch, rule)
        self.exits, cuts = nn.ModuleDict(), exit_blocks(arch)
        for i, cut in enumerate(cuts):
            width = arch.exits.width if arch.exits else 0
            self.exits[str(i)] = ExitHead(f"exits.{i}", sources[cut - 1], width, arch.task.outputs, rule)
        if cuts:
            self.register_buffer("thresholds", torch.full((len(cuts),), torch.inf))
            self.axes["thresholds"] = ("",)
        self.cuts = (*cuts, len(self.blocks))

    @staticmethod
    def _stem(source: Stream, arch: Arch, rule: Rule) -> Unit | None:
        if arch.stem is None:
            return None
        shared = arch.stem.width is None
        axis = Axis("s0", arch.stages[0].width) if shared else Axis("stem", arch.stem.width or 0)
        return Unit("stem", source, axis, arch.stem.kernel, arch.stem.stride, arch.activation, rule, edge=True)

    def normalise(self, images: Tensor) -> Tensor:
        """Scale uint8 images to 0..1, subtract the mean, divide by the standard deviation."""
        shape, unit = self.arch.input, 1.0 if images.is_floating_point() else 255.0
        options = {"dtype": torch.float32, "device": images.device}
        mean = torch.tensor(shape.mean, **options).view(1, -1, 1, 1)
        std = torch.tensor(shape.std, **options).view(1, -1, 1, 1)
        return (images.to(torch.float32) - mean * unit) / (std * unit)

    def enter(self, images: Tensor) -> Tensor:
        """Run what lies before the first block."""
        x = self.image(self.normalise(images))
        if self.stem:
            x = self.stem(x)
            x = F.max_pool2d(x, 3, 2, 1) if self.arch.stem and self.arch.stem.pool else x
        return x

    def segment(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run what lies between head i - 1 and head i (images for i = 0); give the stream and head i's outputs."""
        if i == 0:
            x = self.enter(x)
        start = self.cuts[i - 1] if i else 0
        for block in list(self.blocks.values())[start : self.cuts[i]]:
            x = block(x)
        if i < len(self.exits):
            return x, self.exits[str(i)](x)
        return x, self.head(self.tail(x) if self.tail else x)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give every head's outputs, each (N, outputs), the final one last."""
        outputs = []
        for i in range(len(self.cuts)):
            x, out = self.segment(i, x)
            outputs.append(out)
        return tuple(outputs)


def _blocks(arch: Arch) -> list[tuple[str, Block, Axis, Stage, bool]]:
    rows = []
    for s, stage in enumerate(arch.stages):
        for b, block in enumerate(stage.blocks):
            width = stage.width if block.kind in RESIDUAL else block.widths[-1]
            last = b == len(stage.blocks) - 1
            rows.append((f"s{s}b{b}", block, Axis(stream(arch, s, b), width), stage, stage.pool and last))
    return rows


def build(arch: Arch, seed: int) -> Network:
    """Build the network of an arch with fresh weights, without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(arch)
