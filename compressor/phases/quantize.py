"""Train with rounded weights and activations."""

from collections.abc import Mapping, Sequence

import torch

from compressor.arch import Arch, Quantization, requantized
from compressor.calibration import calibrate
from compressor.config import QuantizeConfig
from compressor.model import Model, rebuild
from compressor.phases.teaching import recovery_loss
from compressor.training import Context, fit


def is_scale(name: str) -> bool:
    """Tell whether a tensor of a network's state is a quantizer's scale."""
    return name.rpartition(".")[2] == "scale"


def quantized(model: Model, arch: Arch, seed: int, kept: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Move the weights into an arch with other bits, and the `kept` channels only; the scales wait for calibration."""
    out = rebuild(model, arch, new=is_scale, seed=seed, kept=kept)
    with torch.no_grad():
        for name, parameter in out.net.named_parameters():
            if is_scale(name):
                parameter.zero_()
    return out


def quantize(config: QuantizeConfig, context: Context, model: Model, teacher: Model | None = None) -> Model:
    """Give every layer bits; the float weights stay, so a later phase can still change them.

    Without epochs this is post-training quantization. A model that has these very bits keeps its learned scales, and
    channels of 0 bits keep those.
    """
    arch = requantized(model.arch, Quantization(config.bits, config.edge_bits))
    if model.arch != arch:
        model = quantized(model, arch, config.fit.seed)
        calibrate(model, context, images=config.calibrate, seed=config.fit.seed)
    loss = recovery_loss(config.recovery, context, teacher, config.fit)
    return fit(model, config.fit, context, loss)
