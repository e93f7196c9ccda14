"""Small networks, settings and steps that many tests share. Images are real: the embedded handwritten digits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.arch import (
    Arch,
    Bits,
    Block,
    BlockKind,
    Criterion,
    Exits,
    Head,
    Input,
    Quantization,
    Shortcut,
    Stage,
    Stem,
    Task,
    TaskKind,
)
from compressor.codec import encode
from compressor.config import (
    ArchitectureConfig,
    AugmentConfig,
    BaselineSettings,
    DatasetConfig,
    DistillConfig,
    ExitConfig,
    FitConfig,
    Importance,
    Init,
    Optimizer,
    Precision,
    PruneConfig,
    PruneTarget,
    QuantizeConfig,
    RecoveryConfig,
    RunConfig,
    RuntimeConfig,
    Schedule,
    Scope,
    Train,
)
from compressor.data.types import Data
from compressor.layers import Act, Weighted
from compressor.model import Model, fresh, save
from compressor.pipeline import Bench, Step, run
from compressor.planning import plan
from compressor.progress import silent
from compressor.quantization import weight_levels
from compressor.records import Metrics, Record
from compressor.store import Store
from compressor.training import Context

RUNTIME = RuntimeConfig(device="cpu", threads=1, workers=1, data_cache=None, progress=False, save_seconds=60.0)
DATASET = DatasetConfig(
    name="digits",
    root=None,
    flag=None,
    csv=None,
    image_size=None,
    channels=None,
    limit=120,
    val="auto",
    seed=0,
    skip_unreadable=False,
    augment=AugmentConfig(crop=1, flip=False, cutout=0),
)
FIT = FitConfig(
    epochs=1,
    batch=40,
    optimizer=Optimizer.SGD,
    lr=0.02,
    momentum=0.9,
    weight_decay=5e-4,
    schedule=Schedule.COSINE,
    warmup=0.0,
    label_smoothing=0.0,
    ema=0.0,
    precision=Precision.FP32,
    channels_last=False,
    compile=False,
    seed=0,
)
ALONE = RecoveryConfig(teacher="none", temperature=4.0, weight=0.9)
DISTILL = DistillConfig(
    depth=0.5,
    width=1.0,
    student=None,
    init=Init.INHERIT,
    weights=None,
    teacher="baseline",
    temperature=4.0,
    weight=0.9,
    hint=0.0,
    fit=FIT,
)
PRUNE = PruneConfig(
    ratio=0.4,
    target=PruneTarget(None, None),
    criterion=Importance.L1,
    scope=Scope.LAYER,
    round_to=1,
    recalibrate=80,
    recovery=ALONE,
    fit=FIT,
)
QUANTIZE = QuantizeConfig(bits=Bits(4, 4), edge_bits=8, calibrate=80, recovery=ALONE, fit=FIT)
EXIT = ExitConfig(
    positions=(0.3, 0.6),
    criterion=Criterion.CONFIDENCE,
    drop=0.05,
    width=4,
    train=Train.JOINT,
    recovery=ALONE,
    fit=FIT,
)
TASK = Task(TaskKind.MULTICLASS, 10, tuple("0123456789"))
INPUT = Input(1, 8, (0.3,), (0.4,))
STAGES = {
    BlockKind.BASIC: ((Block(BlockKind.BASIC, (6,)),), (Block(BlockKind.BASIC, (8,), 2),)),
    BlockKind.BOTTLENECK: ((Block(BlockKind.BOTTLENECK, (4, 6)),), (Block(BlockKind.BOTTLENECK, (6, 5), 2),)),
    BlockKind.INVERTED: ((Block(BlockKind.INVERTED, ()),), (Block(BlockKind.INVERTED, (12,), 2),)),
    BlockKind.PLAIN: ((Block(BlockKind.PLAIN, (6,)),), (Block(BlockKind.PLAIN, (8,)),)),
    BlockKind.SEPARABLE: ((Block(BlockKind.SEPARABLE, (6,)),), (Block(BlockKind.SEPARABLE, (8,), 2),)),
}
"""Two stages' first blocks of each kind; `arch` repeats them with stride 1."""
SPAN = 4.0
"""The greatest value of every rounded activation of a lively network."""


def arch(kind: BlockKind = BlockKind.BASIC, *, depth: int = 2, **changes: Any) -> Arch:
    """Give a tiny network of one kind of block for the digits: two stages of `depth` blocks, 6 and 8 channels.

    Basic blocks have option-A shortcuts, bottlenecks a projection; plain ones a pool and a hidden linear layer.
    """
    residual = kind in (BlockKind.BASIC, BlockKind.BOTTLENECK, BlockKind.INVERTED)
    stages = []
    for s, (first,) in enumerate(STAGES[kind]):
        widths = first.widths if kind is not BlockKind.INVERTED else (12,)
        blocks = (first, *[replace(first, widths=widths, stride=1)] * (depth - 1))
        shortcut = Shortcut.PAD if kind is BlockKind.BASIC else Shortcut.PROJECT
        stages.append(Stage(blocks, (6, 8)[s] if residual else 0, shortcut, pool=kind is BlockKind.PLAIN))
    stem = {BlockKind.PLAIN: None, BlockKind.BASIC: Stem()}.get(kind, Stem(width=5))
    head = Head(pool=2, hidden=(7,), dropout=0.2) if kind is BlockKind.PLAIN else Head()
    tail = 9 if kind is BlockKind.INVERTED else 0
    return replace(Arch(f"tiny-{kind}", INPUT, TASK, tuple(stages), stem, tail, head), **changes)


def lively(model: Model, seed: int = 0) -> Model:
    """Give every norm, bias and scale values that a wrong place would show; evaluation mode."""
    source = torch.Generator().manual_seed(seed)
    for module in model.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.data.uniform_(0.5, 1.5, generator=source)
            module.bias.data.normal_(0, 0.2, generator=source)
            module.running_mean.normal_(0, 0.2, generator=source)
            module.running_var.uniform_(0.5, 1.5, generator=source)
        if isinstance(module, Weighted) and module.quantized:
            largest = module.weight.detach().abs().flatten(1).amax(dim=1)
            module.scale.data.copy_(
                largest / module.levels.clamp_min(1) * torch.empty(len(largest)).uniform_(0.5, 1, generator=source)
            )
        if isinstance(module, Act) and hasattr(module, "scale"):
            module.scale.data.fill_(SPAN / module.high)
    model.net.eval()
    return model


def model(arch: Arch, seed: int = 0) -> Model:
    """Give a model whose every tensor matters."""
    return lively(fresh(arch, seed), seed)


def compressed(kind: BlockKind = BlockKind.BASIC, *, bits: Bits = Bits(4, 4)) -> Arch:  # noqa: B008 - it is frozen
    """Give a tiny network with bits and exits."""
    return arch(kind, quantization=Quantization(bits, 8), exits=Exits((0.3, 0.6), drop=0.05, width=4))


def images(count: int = 6, arch: Arch | None = None, seed: int = 0) -> Tensor:
    """Give random images, uint8 (count, C, H, W), as an arch reads them."""
    shape = (arch or STANDARD).input
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, shape.channels, shape.size, shape.size), dtype=torch.uint8, generator=source)


def outputs(model: Model) -> list[Tensor]:
    """Give what a model answers to five random images, head by head."""
    with torch.no_grad():
        return list(model.net.eval()(images(5, model.arch)))


def saved(folder: Path, arch: Arch | None = None) -> Path:
    """Write a model and give its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save(model(arch or STANDARD), folder)
    return folder


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Give normal random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grid(bits: tuple[int, ...], channels: int) -> tuple[Tensor, Tensor]:
    """Give the greatest integers, and the mask of one-bit channels, that rounding a weight needs."""
    each = bits if len(bits) > 1 else bits * channels
    return weight_levels(bits, channels), torch.tensor([b == 1 for b in each])


def network(arch: Arch) -> dict[str, Any]:
    """Describe an arch as a user does, under architecture.network."""
    described = encode(arch)
    return {name: described[name] for name in ("stages", "stem", "tail", "head", "activation")}


def settings(root: Path, order: str, network_of: Arch, **changes: Any) -> RunConfig:
    """Give the settings of a run of the digits with a store below `root`."""
    own = ArchitectureConfig(
        name=network_of.name, width=1.0, stem="auto", mean=None, std=None, network=network(network_of)
    )
    config = RunConfig(
        name="test",
        order=order,
        checkpoint=None,
        seed=0,
        store=str(root / "store"),
        runs=str(root / "runs"),
        cost_table=False,
        dataset=DATASET,
        architecture=own,
        fit=FIT,
        baseline=BaselineSettings(None, {}, FIT),
        distill=DISTILL,
        prune=PRUNE,
        quantize=QUANTIZE,
        exit=EXIT,
        runtime=RUNTIME,
    )
    return replace(config, **changes)


def finish(config: RunConfig, data: Data) -> tuple[Step, Record, Metrics, list[str]]:
    """Run an order; give its last step, record and metrics, and the keys of the steps that were really run."""
    planned, ran, seen = plan(config, data), [], {}

    def hear(source: Any, record: Record, metrics: Metrics, stored: bool) -> None:
        seen[source.key] = metrics
        if not stored:
            ran.append(source.key)

    bench = Bench(Store(Path(config.store)), data, RUNTIME, planned.files, silent)
    record = run(planned.last, bench, hear)
    return planned.last, record, seen[planned.last.key], ran


def afresh(context: Context, name: str) -> Context:
    """Give the same context with another empty scratch folder."""
    folder = context.scratch.parent / name
    folder.mkdir()
    return replace(context, scratch=folder)


STANDARD = arch()
