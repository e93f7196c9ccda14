"""Settings as the command line gives them, and model folders without networks, for tests of planning."""

import json
from dataclasses import replace
from pathlib import Path

import fakes

from compressor.arch import Bits, Criterion
from compressor.checked import checked
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
    PartsConfig,
    Precision,
    PruneConfig,
    PruneTarget,
    QuantizeConfig,
    RecoveryConfig,
    RunConfig,
    Schedule,
    Scope,
    StudyConfig,
    Train,
)
from compressor.data.types import Data
from compressor.families import architecture
from compressor.folders import FORMAT, RECORD
from compressor.pipeline import Step
from compressor.planning import Plan, plan
from compressor.records import RECORD_SCHEMA, InputRecord, Original, Record
from compressor.store import digest_of

NO_TEACHER = RecoveryConfig("none", 4.0, 0.9)
FIT = FitConfig(
    epochs=2,
    batch=32,
    optimizer=Optimizer.SGD,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule=Schedule.COSINE,
    warmup=1.0,
    label_smoothing=0.0,
    ema=0.0,
    precision=Precision.AUTO,
    channels_last=False,
    compile=False,
    seed=0,
)
CONFIG = RunConfig(
    name="test",
    order="DPQE",
    checkpoint=None,
    seed=0,
    store="store",
    runs="runs",
    cost_table=False,
    dataset=DatasetConfig(
        "fake", None, None, None, None, None, None, "auto", 0, skip_unreadable=False, augment=AugmentConfig(0, False, 0)
    ),
    architecture=ArchitectureConfig("resnet20", 0.25, "auto", None, None, None),
    fit=FIT,
    baseline=BaselineSettings(None, {}, FIT),
    distill=DistillConfig(0.5, 1.0, None, Init.FRESH, None, "baseline", 4.0, 0.5, 0.0, FIT),
    prune=PruneConfig(0.5, PruneTarget(None, None), Importance.L1, Scope.LAYER, 1, 0, NO_TEACHER, FIT),
    quantize=QuantizeConfig(Bits(4, 4), 8, 100, NO_TEACHER, FIT),
    exit=ExitConfig((0.5,), Criterion.CONFIDENCE, 0.01, 0, Train.JOINT, NO_TEACHER, FIT),
    runtime=fakes.RUNTIME,
)
STUDY = StudyConfig(
    letters="DPQE",
    seeds=(0, 1),
    grid={
        "D": ({"depth": 0.67}, {"depth": 0.34}),
        "P": ({"ratio": 0.3}, {"ratio": 0.6}),
        "Q": ({"bits": {"weight": 4, "act": 4}}, {"bits": {"weight": 2, "act": 4}}),
        "E": ({"drop": 0.0}, {"drop": 0.02}),
    },
    cross=True,
    setting=1,
    parts=PartsConfig(singles=True, pairwise=True, insertion=True, permutations=True, repetition=True),
    repeats=("DPQE", "DPPQE", "DPQPQE"),
    reference="DPQE",
    level=0.05,
    figures=False,
    plan=False,
    executor="local",
    workers=1,
    address="local",
    cpus=1.0,
    retries=1,
)
DATA = fakes.data()


def keys(config: RunConfig, data: Data = DATA) -> list[str]:
    return [source.key for source in plan(config, data).steps]


def steps(planned: Plan) -> list[Step]:
    return [source for source in planned.steps if isinstance(source, Step)]


def model_folder(folder: Path, data: Data = DATA, **changes) -> Path:
    """Write a model's folder with an arch and some bytes for weights."""
    folder.mkdir(parents=True)
    arch = architecture(CONFIG.architecture, data.channels, data.size, data.mean, data.std, data.task)
    arch = replace(arch, **changes)
    (folder / "arch.json").write_text(json.dumps({"format": FORMAT, "arch": encode(arch)}))
    (folder / "weights.safetensors").write_bytes(folder.name.encode())
    return folder


def recorded(folder: Path, step: Step, original: str | None = None) -> Path:
    """Write the record of a step beside a model."""
    record = Record(
        schema=RECORD_SCHEMA,
        key=step.key,
        phase=step.phase.name,
        version=step.phase.version,
        config=encode(step.config),
        inputs={role: InputRecord(source.key, "digest") for role, source in step.inputs},
        data=step.data,
        model=digest_of(folder),
        original=Original(original or step.key, 1.0, 1),
        seconds=1.0,
        created="2026-01-01T00:00:00+00:00",
        environment={},
    )
    (folder / RECORD).write_text(json.dumps(checked(record)))
    return folder
