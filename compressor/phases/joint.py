"""Apply a joint policy of sparsity and bits: pruning a channel is giving it 0 bits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compressor.arch import Arch, Quantization, check, condensed, edges, keep, layer_axes, removable, widths
from compressor.calibration import calibrate, calibrate_weights, recalibrate_norms
from compressor.config.joint import JointConfig
from compressor.layers import float_activations
from compressor.model import Model
from compressor.network import Rule
from compressor.phases.quantize import quantized
from compressor.phases.teaching import recovery_loss
from compressor.training import Context, fit

KEEPING = 8
"""Bits of a weight from which on its rounding leaves the norms' statistics as they were."""


def decided(
    arch: Arch, kept: Mapping[str, Sequence[int]], rule: Quantization
) -> tuple[dict[str, tuple[int, ...]], Arch]:
    """Give the channels of each axis that stay, and the arch that they and their bits make.

    Of the `kept` ones those go that have 0 bits wherever their axis is written; what has 0 bits in some layers is
    masked there.

    Raises:
        ModelError: `kept` names what is not there.
        ConfigError: the bits do not fit the arch.
    """
    masked = check(condensed(replace(keep(replace(arch, quantization=None), kept), quantization=rule)))
    there = {axis: tuple(index) for axis, index in kept.items()}
    for axis, index in (left := removable(masked)).items():
        there[axis] = tuple(there[axis][i] for i in index) if axis in there else tuple(index)
    return there, keep(masked, left)


def assigned(model: Model, kept: Mapping[str, Sequence[int]], rule: Quantization, seed: int) -> Model:
    """Give a model the channels and bits of a policy; what has 0 bits wherever its axis is written goes.

    Scales wait for calibration, norms have the statistics they had.
    """
    there, arch = decided(model.arch, kept, rule)
    return quantized(model, arch, seed, there)


def unsettled(arch: Arch, before: Arch) -> bool:
    """Tell whether norms' statistics are taken anew: channels went, or a decided weight has fewer than 8 bits."""
    rule, ends = Rule(arch), edges(arch)
    given = (bits for name in layer_axes(arch) if name not in ends for bits in rule.weight(name))
    return widths(arch) != widths(before) or any(bits < KEEPING for bits in given)


def assign(config: JointConfig, context: Context, model: Model, teacher: Model | None = None) -> Model:
    """Prune, quantize channel by channel, and train what is left to its end.

    Norms' statistics are taken anew where channels went or weights have fewer than 8 bits, on activations that are not
    rounded yet. 8 bits that cut nothing are quantization, bit for bit. Without epochs this is post-training.
    """
    before = model.arch
    model = assigned(model, config.kept, config.quantization, config.fit.seed)
    if unsettled(model.arch, before):
        calibrate_weights(model)
        with float_activations(model.net):
            recalibrate_norms(model, context, images=config.recalibrate, seed=config.fit.seed)
    calibrate(model, context, images=config.calibrate, seed=config.fit.seed)
    loss = recovery_loss(config.recovery, context, teacher, config.fit)
    return fit(model, config.fit, context, loss)
