"""Steps and their keys, given checkpoints, and the one function that runs a chain of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from compressor.arch import FLOAT
from compressor.checked import checked
from compressor.codec import digest_file, encode, settled
from compressor.config import RuntimeConfig
from compressor.data.types import Data
from compressor.environment import environment_of, sitting
from compressor.errors import ModelError, StoreError, TrainingError
from compressor.folders import (
    ARCH,
    CONFIG,
    DIGESTED,
    HISTORY,
    METRICS,
    MIXTURE,
    RECORD,
    SEARCHED,
    STORE,
    WEIGHTS,
    digest_of,
    disk,
    form_of,
    key_of,
    model_of,
    proved_metrics,
    read_metrics,
    write_json,
)
from compressor.interrupts import deferred
from compressor.phase import Phase, function
from compressor.progress import Progress
from compressor.records import RECORD_SCHEMA, SCHEMA, InputRecord, Measurement, Metrics, Original, Record
from compressor.store import Store


@dataclass(frozen=True)
class Given:
    """A model that exists already: its own folder, read-only to us.

    A folder with a record keeps that step's key; any other has a key of its content.
    """

    key: str
    folder: Path
    model: str
    record: Record | None = None

    @property
    def name(self) -> str:
        """The phase that made it, or `given`."""
        return self.record.phase if self.record else "given"

    @property
    def inputs(self) -> tuple[tuple[str, "Source"], ...]:
        """What must be there before it: nothing."""
        return ()


@dataclass(frozen=True, eq=False)
class Step:
    """One phase, its resolved config, the models it reads by role, and the data's fingerprint: the whole cause."""

    phase: Phase
    config: Any
    inputs: tuple[tuple[str, "Source"], ...]
    data: str

    @property
    def name(self) -> str:
        """The phase's name."""
        return self.phase.name

    @cached_property
    def key(self) -> str:
        """Name the result before it exists."""
        inputs = {role: source.key for role, source in self.inputs}
        return key_of(self.phase.name, self.phase.version, self.config, inputs, self.data)


Source = Step | Given


@dataclass(frozen=True)
class Bench:
    """Where steps run: what they share and no key contains. `files` gives the file of each digest in a config."""

    store: Store
    data: Data
    runtime: RuntimeConfig
    files: Mapping[str, Path]
    progress: Progress


@dataclass(frozen=True)
class Made:
    """A source as it lies on disk, verified."""

    key: str
    folder: Path
    model: str
    record: Record | None


Report = Callable[[Source, Record, Metrics, bool], None]
"""Hears of each finished step, inputs first, and whether its result was there already."""


def given(folder: Path, *, mixtures: bool = False) -> Given:
    """Take a model's folder as the step its record names, or, where it has no record, as a model of its own.

    Raises:
        CompressorError: the folder holds no model, cannot be read, is not what its record says, or holds a mixture and
            `mixtures` does not say that one will do.
    """
    with disk(folder):
        form = form_of(folder)
        if form == MIXTURE and not mixtures:
            raise ModelError(f"{folder}: is a mixture of models; give the folder of one model, which phases can change")
        if not (folder / form).is_file():
            raise ModelError(f"{folder}: no {ARCH}; give the folder of a phase, such as outputs/NAME/TIME/02-prune")
    model, record = model_of(folder)
    return Given(record.key if record else f"given-{model}", folder, model, record)


def inputs_first(last: Source) -> tuple[Source, ...]:
    """List a source and all it is made from, each key once, in an order that can be run."""
    found: dict[str, Source] = {}
    pending = [last]
    while pending:
        if missing := [source for _, source in pending[-1].inputs if source.key not in found]:
            pending += missing
        else:
            source = pending.pop()
            found.setdefault(source.key, source)
    return tuple(found.values())


def run(step: Step, bench: Bench, report: Report) -> Record:
    """Give the record of a step; it and what it reads are run only where the store has no result.

    Raises:
        StoreError: a stored result is damaged or was made from other inputs, or files cannot be written.
        Interrupted: a signal arrived; the running step's draft stays and goes on with the next call.
    """
    made: dict[str, Made] = {}
    for source in inputs_first(step):
        if isinstance(source, Given):
            made[source.key] = _unchanged(source)
            continue
        record, stored = _finish(source, {role: made[read.key] for role, read in source.inputs}, bench)
        folder = bench.store.folder(source.key)
        made[source.key] = Made(source.key, folder, record.model, record)
        report(source, record, read_metrics(folder), stored)
    final = made[step.key].record
    assert final is not None, "a step has a record"
    return final


def _unchanged(source: Given) -> Made:
    if digest_of(source.folder) != source.model:
        raise StoreError(f"{source.folder}: its files changed while they were in use; type the command again")
    return Made(source.key, source.folder, source.model, source.record)


def _finish(step: Step, inputs: Mapping[str, Made], bench: Bench) -> tuple[Record, bool]:
    used = {role: InputRecord(read.key, read.model) for role, read in inputs.items()}
    record, stored = bench.store.record(step.key), True
    if record is None:
        with bench.store.lock(step.key):
            record = bench.store.record(step.key) or bench.store.recover(step.key)
            if record is None:
                record, stored = _perform(step, inputs, used, bench), False
    if record.inputs != used:
        folder = bench.store.folder(step.key)
        role = next(role for role in used if record.inputs.get(role) != used[role])
        raise StoreError(
            f"{folder}: was made from another {used[role].key} than the one there is now ({role}); "
            f"remove {folder} and the step is run again"
        )
    return record, stored


def _perform(step: Step, inputs: Mapping[str, Made], used: dict[str, InputRecord], bench: Bench) -> Record:
    from compressor.compute import on_threads
    from compressor.model import load
    from compressor.training import Context

    settle, measure, save = map(function, (step.phase.makes.settle, step.phase.makes.measure, step.phase.makes.save))
    draft, environment = bench.store.draft(step.key), environment_of(bench.runtime)
    context = Context(bench.data, draft, bench.runtime, bench.files, bench.progress)
    with disk(draft, STORE), on_threads(bench.runtime.threads), sitting(draft, environment) as seconds:
        models = {role: load(read.folder) for role, read in inputs.items()}
        before = _before(step, inputs, models, bench)
        original = _original(inputs, before, models)
        model = step.phase.run(step.config, context, **models)
        settle(model, bench.data, bench.runtime)
        after = measure(model, bench.data, bench.runtime)
        digest = save(model, draft)
        after = with_bytes(after, draft)
        original = original or Original(step.key, after.test.bitops, after.cost.size_bits)
        with deferred():
            made = _Result(digest, before, after, original, seconds(), encode(environment))
            record = _write(step, used, made, draft)
            bench.store.publish(step.key)
    return record


def _before(step: Step, inputs: Mapping[str, Made], models: Mapping[str, Any], bench: Bench) -> Measurement | None:
    if "model" not in inputs:
        return None
    source = inputs["model"]
    if source.record and source.record.data == step.data and (source.folder / METRICS).exists():
        return proved_metrics(source.folder).after
    from compressor.measure import measure

    return with_bytes(measure(models["model"], bench.data, bench.runtime), source.folder)


def _original(inputs: Mapping[str, Made], before: Measurement | None, models: Mapping[str, Any]) -> Original | None:
    """Give the original of a step's model; None where the step is the original itself."""
    role = "model" if before else "original"  # a mixture has no model that it was made from
    if role not in inputs:
        return None
    source = inputs[role]
    if source.record:
        return source.record.original
    from compressor.cost import size_bits
    from compressor.measure import worst_macs
    from compressor.model import fresh

    macs = before.test.macs if before else worst_macs(models[role])
    unquantized = fresh(replace(models[role].arch, quantization=None), seed=0)
    return Original(source.key, macs * FLOAT * FLOAT, size_bits(unquantized))


def with_bytes(measured: Measurement, folder: Path) -> Measurement:
    """Fill in the bytes of a model's two files."""
    size = sum((folder / name).stat().st_size for name in (form_of(folder), WEIGHTS))
    return replace(measured, cost=replace(measured.cost, checkpoint_bytes=size))


@dataclass(frozen=True)
class _Result:
    model: str
    before: Measurement | None
    after: Measurement
    original: Original
    seconds: float
    environment: dict[str, str]


def _write(step: Step, used: dict[str, InputRecord], result: _Result, draft: Path) -> Record:
    """Write what is said of a result; the record last, as it makes the draft whole."""
    after, original, config = result.after, result.original, encode(step.config)
    metrics = Metrics(
        SCHEMA,
        step.key,
        step.name,
        result.before,
        after,
        original,
        bitops_ratio=original.bitops / after.test.bitops,
        size_ratio=original.size_bits / after.cost.size_bits,
        seconds=result.seconds,
    )
    try:
        write_json(draft / METRICS, settled(metrics))
    except ValueError:
        raise TrainingError(f"{step.key}: a measured number is not finite; try a lower fit.lr") from None
    (draft / HISTORY).touch()
    (draft / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    record = Record(
        RECORD_SCHEMA,
        step.key,
        step.name,
        step.phase.version,
        config,
        used,
        step.data,
        result.model,
        original,
        result.seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=result.environment,
        files={name: digest_file(draft / name) for name in (*DIGESTED, *SEARCHED) if (draft / name).exists()},
    )
    record = settled(record)
    write_json(draft / RECORD, checked(record))
    return record
