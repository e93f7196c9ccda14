"""Attach early heads, so that easy images leave before the network's end."""

from dataclasses import replace

from compressor.arch import Exits, check, exit_blocks, without_stale_bits
from compressor.calibration import calibrate
from compressor.config import ExitConfig, Train
from compressor.errors import ConfigError
from compressor.model import Model, rebuild
from compressor.phases.teaching import recovery_loss
from compressor.training import Context, fit

CALIBRATION_IMAGES = 512


def is_exit(name: str) -> bool:
    """Tell whether a tensor of a network's state belongs to the early heads."""
    return name.startswith("exits.") or name == "thresholds"


def add_exits(config: ExitConfig, context: Context, model: Model, teacher: Model | None = None) -> Model:
    """Attach a head at each position and train all heads, or the new ones alone (the rest then stays bit for bit)."""
    rule = Exits(config.positions, config.criterion, config.drop, config.width)
    arch = check(without_stale_bits(replace(model.arch, exits=rule)))
    if not exit_blocks(arch):
        raise ConfigError(f"exit: network {arch.name!r} has one block, so no head can stand before its end")
    model = rebuild(model, arch, new=is_exit, seed=config.fit.seed)
    calibrate(model, context, images=CALIBRATION_IMAGES, seed=config.fit.seed)
    loss = recovery_loss(config.recovery, context, teacher, config.fit)
    return fit(model, config.fit, context, loss, only="exits" if config.train is Train.HEADS else None)
