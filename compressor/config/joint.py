"""What the step that applies a joint policy of sparsity and bits is told."""

from dataclasses import dataclass
from itertools import pairwise

from compressor.arch import Quantization, check_quantization
from compressor.config.fit import FitConfig
from compressor.config.phases import RecoveryConfig
from compressor.config.ranges import need
from compressor.errors import ConfigError


@dataclass(frozen=True)
class JointConfig:
    """Which channels stay, their bits and those of activations, and how the network trains to its end.

    `kept` are the rising indices of the channels that stay, of each axis that loses some; `quantization` is of the
    network that this leaves, so explicit bits are one number or one for each channel that stays. `recalibrate` images
    set the norms' statistics anew where channels go or have fewer than 8 bits; `calibrate` images set activations'
    ranges.
    """

    kept: dict[str, tuple[int, ...]]
    quantization: Quantization
    recalibrate: int
    calibrate: int
    recovery: RecoveryConfig
    fit: FitConfig

    def __post_init__(self) -> None:
        for axis, index in self.kept.items():
            rising = len(index) > 0 and index[0] >= 0 and all(a < b for a, b in pairwise(index))
            need(rising, f"joint.kept.{axis}", list(index), "rising indices from 0, at least one")
        need(0 <= self.recalibrate <= 100_000, "joint.recalibrate", self.recalibrate, "0 to 100000 images")
        need(1 <= self.calibrate <= 100_000, "joint.calibrate", self.calibrate, "1 to 100000 images")
        try:
            check_quantization(self.quantization)
        except ConfigError as error:
            raise ConfigError(f"joint.quantization: {error}") from None
