"""A finished model as files for other runtimes: written apart, compared with PyTorch, and only then an export."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path

from compressor.codec import digest_file
from compressor.config import RuntimeConfig
from compressor.config.deploy import Arithmetic, ExportConfig, ExportFormat
from compressor.cost import size_bits
from compressor.data.types import Split
from compressor.deploy import nodes
from compressor.deploy.engines import version_of
from compressor.deploy.graph import Graph, stages_of
from compressor.deploy.note import EXPORT, SCHEMA, ExportNote, InputNote, Parity, SourceNote, StageNote
from compressor.deploy.packed import write_packed
from compressor.deploy.packing import packed_of
from compressor.deploy.parity import DisagreementError, Files, engines_for, measure_parity
from compressor.deploy.rebuilt import exits_of
from compressor.errors import ConfigError, StoreError
from compressor.folders import disk, write_json
from compressor.model import Model, load
from compressor.pipeline import Given, given
from compressor.progress import Progress, silent

WRITERS = {
    ExportFormat.ONNX: ("onnx", "onnx", "compressor.deploy.onnx_writer"),
    ExportFormat.OPENVINO: ("openvino", "openvino", "compressor.deploy.openvino_writer"),
}
"""The package that writes a format, the extra that brings it, and the module."""


def export(source: Given | Path, config: ExportConfig, folder: Path, test: Split, runtime: RuntimeConfig,
           progress: Progress = silent) -> ExportNote:  # fmt: skip
    """Write a model's files into a new folder, which appears whole once they agree with PyTorch on every test image.

    Raises:
        ConfigError: a package is missing, or the folder holds no single model.
        ModelError: the files disagree with PyTorch more often than allowed.
        StoreError: the folder exists, or cannot be written.
    """
    require(config.format)
    found = given(source) if isinstance(source, Path) else source
    model = load(found.folder)
    with _draft(folder) as draft:
        files, arithmetic, parity = _agreeing(model, config, draft, test, runtime, progress)
        written = sorted(draft.iterdir())
        note = ExportNote(
            schema=SCHEMA,
            format=config.format,
            container=config.container if config.format is ExportFormat.ONNX else None,
            source=SourceNote(found.key, found.model),
            input=files.input,
            task=model.arch.task,
            exits=files.exits,
            stages=files.stages,
            files={path.name: digest_file(path) for path in written},
            file_bytes=sum(path.stat().st_size for path in written),
            size_bits=size_bits(model),
            parity=parity,
            versions=_versions(config.format),
            arithmetic=arithmetic,
        )
        write_json(draft / EXPORT, note)
    return note


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


def _agreeing(model: Model, config: ExportConfig, folder: Path, test: Split, runtime: RuntimeConfig,
              progress: Progress) -> tuple[Files, Arithmetic | None, Parity]:  # fmt: skip
    """Write the files, in the fastest of the allowed arithmetics with which they agree with PyTorch."""
    shape = model.arch.input
    reads = InputNote(shape.channels, shape.size, shape.resize)
    *others, last = _arithmetics(config)
    for arithmetic in (*others, last):
        stages = _write(model, config, arithmetic, folder)
        files = Files(config.format, folder, stages, reads, exits_of(model))
        try:
            return files, arithmetic, measure_parity(model, files, test, config.differing, runtime, progress)
        except DisagreementError:
            if arithmetic is last:
                raise
    raise AssertionError("the last arithmetic agrees or raises")


def _arithmetics(config: ExportConfig) -> tuple[Arithmetic | None, ...]:
    if config.format is not ExportFormat.ONNX:
        return (None,)
    auto = config.arithmetic is Arithmetic.AUTO
    return (Arithmetic.FUSED, Arithmetic.EXACT) if auto else (config.arithmetic,)


def _write(model: Model, config: ExportConfig, arithmetic: Arithmetic | None, folder: Path) -> tuple[StageNote, ...]:
    if config.format is ExportFormat.PACKED:
        write_packed(packed_of(model), folder / "model.packed")
        return (StageNote("model.packed", (nodes.IMAGES,), (nodes.OUTPUT,)),)
    return tuple(_stage(_distinct(graph), i, config, arithmetic, folder) for i, graph in enumerate(stages_of(model)))


def _distinct(graph: Graph) -> Graph:
    """Rename the features that a stage gives where it reads features too: in ONNX, names are given once."""
    outputs = {f"{name}.next" if name in graph.inputs else name: value for name, value in graph.outputs.items()}
    return replace(graph, outputs=outputs)


def _stage(graph: Graph, i: int, config: ExportConfig, arithmetic: Arithmetic | None, folder: Path) -> StageNote:
    writer = import_module(WRITERS[config.format][2])
    name = f"stage-{i}.xml" if config.format is ExportFormat.OPENVINO else f"stage-{i}.onnx"
    if arithmetic is None:
        writer.write_openvino(graph, folder / name)
    else:
        kinds = (nodes.Container(config.container), nodes.Arithmetic(arithmetic))
        writer.write_onnx(graph, folder / name, *kinds)
    return StageNote(name, tuple(graph.inputs), tuple(graph.outputs))


def _versions(kind: ExportFormat) -> dict[str, str]:
    names = ["compressor", "torch", "numpy", *([WRITERS[kind][0]] if kind in WRITERS else [])]
    return {name: metadata.version(name) for name in names} | {str(e): version_of(e) for e in engines_for(kind)}
