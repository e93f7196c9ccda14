"""A finished model as files for other runtimes: written apart, compared with PyTorch, and only then an export."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from compressor.checked import checked
from compressor.codec import digest_file
from compressor.config import RuntimeConfig
from compressor.config.deploy import Arithmetic, ExportConfig, ExportFormat, OverflowFix
from compressor.cost import size_bits
from compressor.data.types import Split
from compressor.deploy.engines import version_of
from compressor.deploy.note import EXPORT, SCHEMA, ExportNote, MixtureNote, Parity, PartNote, SourceNote
from compressor.deploy.parity import DisagreementError, Files, engines_for, measure_parity
from compressor.deploy.rebuilt import input_of
from compressor.deploy.saturation import needed_here
from compressor.deploy.writing import WRITERS, Target, write
from compressor.errors import ConfigError, ModelError, StoreError
from compressor.folders import MIXTURE, disk, form_of, write_json
from compressor.mixture import Mixture, costs, load_mixture
from compressor.model import Model, load
from compressor.pipeline import Given, given
from compressor.progress import Progress, silent


def export(source: Given | Path, config: ExportConfig, folder: Path, test: Split, runtime: RuntimeConfig,
           progress: Progress = silent) -> ExportNote:  # fmt: skip
    """Write a model's or mixture's files into a new folder, whole once they agree with PyTorch on every test image.

    Raises:
        ConfigError: a package is missing, or the folder holds neither.
        ModelError: the files disagree with PyTorch more often than allowed, or answers are not finite.
        StoreError: the folder exists, or cannot be written.
    """
    require(config.format)
    found = given(source, mixtures=True) if isinstance(source, Path) else source
    model = load_mixture(found.folder) if form_of(found.folder) == MIXTURE else load(found.folder)
    with _draft(folder) as draft:
        files, arithmetic, parity = _agreeing(model, config, draft, test, runtime, progress)
        note = _note(found, model, config, files, arithmetic, parity)
        try:
            write_json(draft / EXPORT, checked(note))
        except ValueError:
            line = "an answer or a score is not finite; nothing was exported, give a model that answers"
            raise ModelError(f"{found.folder}: {line}") from None
    return note


def _note(source: Given, model: Model | Mixture, config: ExportConfig, files: Files, arithmetic: Arithmetic | None,
          parity: Parity) -> ExportNote:  # fmt: skip
    written = sorted(files.folder.iterdir())
    alone = files.content if isinstance(files.content, PartNote) else PartNote((), None)
    return ExportNote(
        schema=SCHEMA,
        format=config.format,
        container=config.container if config.format is ExportFormat.ONNX else None,
        source=SourceNote(source.key, source.model),
        input=files.input,
        task=_first(model).arch.task,
        exits=alone.exits,
        stages=alone.stages,
        files={path.name: digest_file(path) for path in written},
        file_bytes=sum(path.stat().st_size for path in written),
        size_bits=costs(model).size_bits if isinstance(model, Mixture) else size_bits(model),
        parity=parity,
        versions=_versions(config.format),
        arithmetic=arithmetic,
        mixture=files.content if isinstance(files.content, MixtureNote) else None,
    )


def require(kind: ExportFormat) -> None:
    """Refuse a format whose packages are not installed, before any work is done."""
    if kind in WRITERS:
        package, extra, _ = WRITERS[kind]
        try:
            import_module(package)
        except ImportError:
            line = f"export.format={kind} needs the package {package}: pip install 'compressor[{extra}]'"
            raise ConfigError(line) from None
    engines_for(kind)


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Give a folder to write into that becomes `folder` by one rename, or is removed when something goes wrong."""
    draft = folder.with_name(f".{folder.name}.part")
    with disk(folder):
        if folder.exists():
            raise StoreError(f"{folder}: is there already; give another folder, such as hydra.run.dir=FOLDER")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            for path in draft.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _agreeing(model: Model | Mixture, config: ExportConfig, folder: Path, test: Split, runtime: RuntimeConfig,
              progress: Progress) -> tuple[Files, Arithmetic | None, Parity]:  # fmt: skip
    """Write the files, in the fastest of the allowed arithmetics with which they agree with PyTorch."""
    reads = input_of(_first(model).arch)
    *others, last = _arithmetics(config)
    for arithmetic in (*others, last):
        files = Files(config.format, folder, reads, write(model, Target(config, arithmetic, folder, _halves(config))))
        try:
            return files, arithmetic, measure_parity(model, files, test, config.differing, runtime, progress)
        except DisagreementError:
            if arithmetic is last:
                raise
    raise AssertionError("the last arithmetic agrees or raises")


def _first(model: Model | Mixture) -> Model:
    """Give a model that reads and answers what the whole does."""
    return model.experts[0] if isinstance(model, Mixture) else model


def _arithmetics(config: ExportConfig) -> tuple[Arithmetic | None, ...]:
    if config.format is not ExportFormat.ONNX:
        return (None,)
    auto = config.arithmetic is Arithmetic.AUTO
    return (Arithmetic.FUSED, Arithmetic.EXACT) if auto else (config.arithmetic,)


def _halves(config: ExportConfig) -> bool:
    """Tell whether to write sums that no processor saturates: where it is asked for, or this one may need it."""
    auto = config.overflow_fix is OverflowFix.AUTO
    return needed_here() if auto else config.overflow_fix is OverflowFix.ALWAYS


def _versions(kind: ExportFormat) -> dict[str, str]:
    names = ["compressor", "torch", "numpy", *([WRITERS[kind][0]] if kind in WRITERS else [])]
    return {str(name): version_of(name) for name in (*names, *engines_for(kind))}
