"""From a command's settings to its steps: values are resolved and paths become content digests, so keys are known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.arch import Arch, Task
from compressor.codec import digest_file
from compressor.config import BaselineConfig, DistillConfig, FitConfig, Precision, RunConfig
from compressor.data.types import Data
from compressor.errors import CompressorError, ConfigError, FileError, ModelError
from compressor.families import FAMILIES, architecture, stages_of
from compressor.folders import MIXTURE, disk, form_of, read_arch, read_mixture
from compressor.naming import same
from compressor.phase import BY_NAME, Phase, parse_order
from compressor.pipeline import Given, Source, Step, given
from compressor.published.kinds import kind_of
from compressor.store import Store

BF16_FROM = 16
"""Images of fewer pixels a side train faster in fp32, whatever the processor has."""

TEACHERS = ("none", "baseline", "input")
"""What a setting of a teacher may name beside a model's folder; distillation cannot do with `none`."""


@dataclass(frozen=True)
class Plan:
    """What a command runs: its sources first to last, and the file of each digest that a config names."""

    steps: tuple[Source, ...]
    files: dict[str, Path]

    @property
    def last(self) -> Step:
        """The step whose result the command is for."""
        step = self.steps[-1]
        assert isinstance(step, Step), "a plan ends in a step"
        return step


def plan(config: RunConfig, data: Data) -> Plan:
    """Chain the baseline, or a given checkpoint, and the phases of `config.order`.

    Raises:
        CompressorError: a setting is impossible, a file is missing, or a checkpoint does not fit the data.
    """
    files: dict[str, Path] = {}
    phases = parse_order(config.order)
    if config.checkpoint is not None and not phases:
        raise ConfigError(f"checkpoint={config.checkpoint}: an empty order runs nothing on it; give one such as Q")
    steps = [start(config, data, files)]
    for phase in phases:
        steps.append(next_step(config, phase, resolved(config, phase, data, files), data, steps))
    return Plan(tuple(steps), files)


def start(config: RunConfig, data: Data, files: dict[str, Path]) -> Source:
    """Give what a chain begins with: the baseline, or the given checkpoint. Files it reads are added to `files`."""
    if config.checkpoint is None:
        return _baseline(config, data, files)
    return fitting(Path(config.checkpoint), "checkpoint", data)


def next_step(config: RunConfig, phase: Phase, settings: Any, data: Data, steps: Sequence[Source]) -> Step:
    """Put a phase, with its resolved settings, after the steps of a chain so far."""
    if isinstance(settings, DistillConfig) and settings.blocks is not None:
        _check_blocks(settings.blocks, settings.student, arch_of(steps[0]))
    inputs = {"model": steps[-1]} | _teacher(config, phase, data, steps)
    inputs |= _student_original(config, phase, steps, inputs.get("teacher"))
    return Step(phase, settings, tuple(inputs.items()), data.fingerprint)


def _baseline(config: RunConfig, data: Data, files: dict[str, Path]) -> Step:
    arch = architecture(config.architecture, data.channels, data.size, data.mean, data.std, data.task)
    settings = config.baseline
    weights = settings.weights and _content(settings.weights, "baseline.weights", files)
    resolved = BaselineConfig(arch, weights, settings.names, resolved_fit(settings.fit, data.size))
    return Step(BY_NAME["baseline"], resolved, (), data.fingerprint)


def arch_of(first: Source) -> Arch:
    """Give the architecture that a chain begins with."""
    return read_arch(first.folder) if isinstance(first, Given) else first.config.arch


def _check_blocks(blocks: Sequence[int], student: str | None, model: Arch) -> None:
    stages = stages_of(student) if student else len(model.stages)
    if len(blocks) != stages:
        name = student or model.name
        raise ConfigError(
            f"distill.blocks={list(blocks)}: {name} has {stages} stages; give a number of blocks for each"
        )


def resolved(config: RunConfig, phase: Phase, data: Data, files: dict[str, Path]) -> Any:
    """Give the settings of any phase but the baseline, with nothing `auto` and digests, added to `files`, for paths."""
    settings = getattr(config, phase.name)
    settings = replace(settings, fit=resolved_fit(settings.fit, data.size))
    where, teacher = _teacher_setting(settings, phase)
    name = _teacher_name(teacher, where, files)
    if not isinstance(settings, DistillConfig):
        return replace(settings, recovery=replace(settings.recovery, teacher=name))
    if teacher == "none":
        raise ConfigError(f"{where}=none: distillation needs a teacher; give baseline, input or a model's folder")
    if settings.student is not None and settings.student not in FAMILIES:
        raise ConfigError(f"{phase.name}.student={settings.student}: give null or one of {', '.join(FAMILIES)}")
    weights = settings.weights and _content(settings.weights, f"{phase.name}.weights", files)
    return replace(settings, weights=weights, teacher=name)


def resolved_fit(fit: FitConfig, size: int) -> FitConfig:
    """Give how to train on images of `size` pixels a side, with the precision that `auto` means on this machine."""
    if fit.precision is not Precision.AUTO:
        return fit
    fast = size >= BF16_FROM and _computes_bf16()
    return replace(fit, precision=Precision.BF16 if fast else Precision.FP32)


def _computes_bf16() -> bool:
    """Tell whether bf16 trains faster than fp32: with matrix units, or AMD's vector units (Intel's are slower)."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return "amx_bf16" in words or {"AuthenticAMD", "avx512_bf16"} <= words


def _content(path: str, where: str, files: dict[str, Path]) -> str:
    file = Path(path)
    try:
        kind_of(file)  # what is no file of weights is not hashed, which could take hours
        name = f"sha256:{digest_file(file)}"
    except OSError as error:
        raise ConfigError(f"{where}={path}: {error.strerror}; give a file of weights, .safetensors or .pth") from None
    except (FileError, ModelError) as error:
        raise ConfigError(f"{where}={error}") from None
    files[name] = file
    return name


def _teacher_setting(settings: Any, phase: Phase) -> tuple[str, str]:
    if isinstance(settings, DistillConfig):
        return f"{phase.name}.teacher", settings.teacher
    return f"{phase.name}.recovery.teacher", settings.recovery.teacher


def _teacher_name(teacher: str, where: str, files: dict[str, Path]) -> str:
    if teacher in TEACHERS:
        return teacher
    folder = Path(teacher)
    name = f"sha256:{_given(folder, where).model}"
    files[name] = folder
    return name


def _teacher(config: RunConfig, phase: Phase, data: Data, steps: Sequence[Source]) -> dict[str, Source]:
    where, teacher = _teacher_setting(getattr(config, phase.name), phase)
    if teacher == "none":
        return {}
    if teacher == "input":
        return {"teacher": steps[-1]}
    if teacher != "baseline":
        return {"teacher": fitting(Path(teacher), where, data)}
    return {"teacher": original_of(config, steps[0], f"{where}=baseline", f"give {where}=FOLDER, a model's folder")}


def _student_original(
    config: RunConfig, phase: Phase, steps: Sequence[Source], teacher: Source | None
) -> dict[str, Source]:
    """Give the original of a named student, whose widths are fractions of it, where the teacher is another model."""
    settings = getattr(config, phase.name)
    if not isinstance(settings, DistillConfig) or settings.student is None:
        return {}
    original = original_of(config, steps[0], f"{phase.name}.student={settings.student}", "put its folder there")
    return {} if teacher and teacher.key == original.key else {"original": original}


def original_of(config: RunConfig, start: Source, where: str, remedy: str) -> Source:
    """Find the network that a chain began with; that of a checkpoint is in the store, or in a folder beside it."""
    if not isinstance(start, Given) or start.record is None or start.record.original.key == start.key:
        return start
    key, store = start.record.original.key, Store(Path(config.store))
    if store.record(key) is not None:
        return given(store.folder(key))
    with disk(start.folder):
        beside = sorted(start.folder.resolve().parent.iterdir())
    for folder in beside:
        try:
            found = given(folder)
        except CompressorError:  # other folders may lie there
            continue
        if found.key == key:
            return found
    raise ConfigError(
        f"{where}: {start.folder} came from {key}, which is neither in the store {store.root} nor beside it; {remedy}"
    )


def fitting(folder: Path, where: str, data: Data, *, mixtures: bool = False) -> Given:
    """Take a model's folder that reads these images and answers this task; `where` is the setting that names it.

    Raises:
        ConfigError: there is no model, it is damaged, or it does not fit the data.
    """
    source = _given(folder, where, mixtures=mixtures)
    arch = read_mixture(folder).experts[0] if form_of(folder) == MIXTURE else read_arch(folder)
    shape, wanted = _shape(arch.input.channels, arch.input.size), _shape(data.channels, data.size)
    if shape != wanted:
        raise ConfigError(f"{where}={folder}: reads {shape}, {data.name} has {wanted}; give a model of such images")
    answers, asked = _answers(arch.task), _answers(data.task)
    if answers != asked:
        raise ConfigError(f"{where}={folder}: answers {answers}, {data.name} asks {asked}; give a model of that task")
    if other := _other_class(arch.task, data):
        raise ConfigError(f"{where}={folder}: has class {other[0]!r} for {data.name}'s {other[1]!r}; order counts")
    return source


def _given(folder: Path, where: str, *, mixtures: bool = False) -> Given:
    try:
        return given(folder, mixtures=mixtures)
    except CompressorError as error:
        raise ConfigError(f"{where}={error}") from None


def _shape(channels: int, size: int) -> str:
    return f"images of {channels} x {size} x {size}"


def _answers(task: Task) -> str:
    return f"{task.kind} with {task.outputs} outputs"


def _other_class(task: Task, data: Data) -> tuple[str, str] | None:
    pairs = zip(task.names, data.task.names, strict=False)
    return next(((mine, asked) for mine, asked in pairs if same(mine) != same(asked)), None)
