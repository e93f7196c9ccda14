"""Everything a command can be told. Values and their comments: configs/; here are the types and the ranges."""

from compressor.config.fit import FitConfig, Optimizer, Precision, Schedule
from compressor.config.images import AugmentConfig, DatasetConfig
from compressor.config.phases import (
    BaselineConfig,
    BaselineSettings,
    DistillConfig,
    ExitConfig,
    Importance,
    Init,
    PruneConfig,
    PruneTarget,
    QuantizeConfig,
    RecoveryConfig,
    Scope,
    Train,
)
from compressor.config.ranges import need
from compressor.config.run import ArchitectureConfig, CleanConfig, RunConfig, RuntimeConfig

__all__ = [
    "ArchitectureConfig",
    "AugmentConfig",
    "BaselineConfig",
    "BaselineSettings",
    "CleanConfig",
    "DatasetConfig",
    "DistillConfig",
    "ExitConfig",
    "FitConfig",
    "Importance",
    "Init",
    "Optimizer",
    "Precision",
    "PruneConfig",
    "PruneTarget",
    "QuantizeConfig",
    "RecoveryConfig",
    "RunConfig",
    "RuntimeConfig",
    "Schedule",
    "Scope",
    "Train",
    "need",
]
