"""What makes an arch impossible, refused before anything is made of it."""

from difflib import get_close_matches

from compressor.arch.names import layer_axes, tensor_names
from compressor.arch.types import FLOAT, RESIDUAL, Arch, BlockKind, Exits, Quantization, Stage, WeightBits, widths
from compressor.errors import ConfigError, ModelError

INNER = {
    BlockKind.BASIC: (1,),
    BlockKind.BOTTLENECK: (2,),
    BlockKind.INVERTED: (0, 1),
    BlockKind.PLAIN: (1,),
    BlockKind.SEPARABLE: (1,),
}
"""How many widths a block of each kind may have."""


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
        _check_names(arch, arch.quantization)
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


def _check_names(arch: Arch, rule: Quantization) -> None:
    """Refuse explicit bits of what the network does not have, and bits of channels that are another axis'."""
    axes = layer_axes(arch)
    known = {"weights": set(axes), "acts": tensor_names(arch)}
    given = {"weights": [w.layer for w in rule.weights], "acts": [a.tensor for a in rule.acts]}
    for what, names in given.items():
        if unknown := sorted(set(names) - known[what]):
            near = get_close_matches(unknown[0], known[what], 1, 0) or sorted(known[what])
            where = f"network {arch.name!r}: quantization.{what}"
            raise ModelError(f"{where}: there is no {unknown[0]!r}; the nearest is {near[0]!r}")
    for w in rule.weights:
        if len(w.bits) > 1 and w.axis != axes[w.layer]:
            where = f"network {arch.name!r}: quantization.weights: {w.layer!r}"
            raise ModelError(f"{where} has bits for channels of axis {w.axis!r}; it writes {axes[w.layer]!r}")


def check_quantization(rule: Quantization) -> None:
    """Refuse bits outside 1..8 (weights; 0..8 explicitly) and 2..8 (activations); 32 means not quantized."""
    weights = [rule.bits.weight, rule.edge, *(b for w in rule.weights for b in w.bits if b)]
    acts = [rule.bits.act, *(a.bits for a in rule.acts)]
    if bad := [b for b in weights if not (1 <= b <= 8 or b == FLOAT)]:
        raise ConfigError(f"weights of {bad[0]} bits: allowed are 1 to 8, or {FLOAT} for float")
    if bad := [b for b in acts if not (2 <= b <= 8 or b == FLOAT)]:
        raise ConfigError(f"activations of {bad[0]} bits: allowed are 2 to 8, or {FLOAT} for float")
    if rule.edge == 1:
        raise ConfigError("edge bits of 1: the first and last layers read activations; allowed are 2 to 8, or 32")
    for w in rule.weights:
        _check_explicit(w)


def _check_explicit(given: WeightBits) -> None:
    """Refuse 0 bits where outputs would go, and float channels beside others."""
    if 0 in given.bits and given.layer.rpartition(".")[2] == "score":
        raise ConfigError(f"layer {given.layer!r} has a channel of 0 bits: it gives the outputs; allowed are 1 to 8")
    if FLOAT in given.bits and len(set(given.bits)) > 1:
        other = next(b for b in given.bits if b != FLOAT)
        raise ConfigError(f"layer {given.layer!r} has channels of {other} and {FLOAT} bits: give all {FLOAT}, or none")


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
