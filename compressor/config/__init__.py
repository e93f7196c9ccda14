"""Everything a command can be told. Values and their comments: configs/; here are the types and the ranges."""

from compressor.config.bench import BenchConfig
from compressor.config.deploy import (
    Arithmetic,
    Container,
    Engine,
    ExportConfig,
    ExportFormat,
    OverflowFix,
    PredictConfig,
    PredictFormat,
)
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
from compressor.config.study import PartsConfig, StudyConfig

__all__ = [
    "ArchitectureConfig",
    "Arithmetic",
    "AugmentConfig",
    "BaselineConfig",
    "BaselineSettings",
    "BenchConfig",
    "CleanConfig",
    "Container",
    "DatasetConfig",
    "DistillConfig",
    "Engine",
    "ExitConfig",
    "ExportConfig",
    "ExportFormat",
    "FitConfig",
    "Importance",
    "Init",
    "Optimizer",
    "OverflowFix",
    "PartsConfig",
    "Precision",
    "PredictConfig",
    "PredictFormat",
    "PruneConfig",
    "PruneTarget",
    "QuantizeConfig",
    "RecoveryConfig",
    "RunConfig",
    "RuntimeConfig",
    "Schedule",
    "Scope",
    "StudyConfig",
    "Train",
    "need",
]
