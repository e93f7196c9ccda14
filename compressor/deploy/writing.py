"""The files of an export: a model's stages, or those of each network of a mixture, in the format that is asked for."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from compressor.config.deploy import Arithmetic, ExportConfig, ExportFormat
from compressor.deploy import nodes
from compressor.deploy.aligning import aligned
from compressor.deploy.graph import Graph, halves_of, stages_of
from compressor.deploy.note import MixtureNote, PartNote, StageNote
from compressor.deploy.packed import Packed, write_packed
from compressor.deploy.packing import packed_of, packed_parts
from compressor.deploy.rebuilt import exits_of
from compressor.deploy.saturation import halved, saturating
from compressor.mixture import Mixture
from compressor.model import Model

WRITERS = {
    ExportFormat.ONNX: ("onnx", "onnx", "compressor.deploy.onnx_writer"),
    ExportFormat.OPENVINO: ("openvino", "openvino", "compressor.deploy.openvino_writer"),
}
"""The package that writes a format, the extra that brings it, and the module."""


@dataclass(frozen=True)
class Target:
    """Where files go, and how: `arithmetic` is that of ONNX, None for other formats; `halves` fixes overflow."""

    config: ExportConfig
    arithmetic: Arithmetic | None
    folder: Path
    halves: bool


def write(model: Model | Mixture, target: Target) -> PartNote | MixtureNote:
    """Write the files of a model or of a mixture, and say which they are."""
    if isinstance(model, Mixture):
        return _packed_mixture(model, target) if _packs(target) else _mixture(model, target)
    if _packs(target):
        return PartNote((_packed(packed_of(model), "model", target),), exits_of(model))
    return PartNote(_stages(stages_of(model), "", target), exits_of(model))


def _packs(target: Target) -> bool:
    return target.config.format is ExportFormat.PACKED


def _packed_mixture(mixture: Mixture, target: Target) -> MixtureNote:
    router, experts = packed_parts(mixture)
    files = [_packed(each, f"expert-{i}", target) for i, each in enumerate(experts)]
    parts = (PartNote((file,), exits_of(model)) for file, model in zip(files, mixture.experts, strict=True))
    return MixtureNote(mixture.rule, None, router and _packed(router, "router", target), tuple(parts))


def _packed(packed: Packed, name: str, target: Target) -> StageNote:
    write_packed(packed, target.folder / f"{name}.packed")
    return StageNote(f"{name}.packed", (nodes.IMAGES,), (nodes.OUTPUT,))


def _mixture(mixture: Mixture, target: Target) -> MixtureNote:
    """Write the first stage once where all share it, the router if there is one, and the stages of each expert."""
    router = mixture.router
    if router and mixture.rule.shared:
        first, routing = halves_of(router)
        experts = [halves_of(model)[1:] for model in mixture.experts]
    else:
        first, routing = None, router and stages_of(router)[0]
        experts = [stages_of(model) for model in mixture.experts]
    parts = (
        PartNote(_stages(stages, f"expert-{i}-", target), exits_of(model))
        for i, (model, stages) in enumerate(zip(mixture.experts, experts, strict=True))
    )
    lent, sending = (graph and _file(graph, name, target) for graph, name in ((first, "first"), (routing, "router")))
    return MixtureNote(mixture.rule, lent, sending, tuple(parts))


def _stages(graphs: Iterable[Graph], name: str, target: Target) -> tuple[StageNote, ...]:
    return tuple(_file(graph, f"{name}stage-{i}", target) for i, graph in enumerate(graphs))


def _file(graph: Graph, name: str, target: Target) -> StageNote:
    graph, writer = _distinct(graph), import_module(WRITERS[target.config.format][2])
    if target.config.container is nodes.Container.INT8:  # for speed
        graph = aligned(graph)
    graph = halved(graph) if target.halves else graph
    file = f"{name}.xml" if target.config.format is ExportFormat.OPENVINO else f"{name}.onnx"
    in_float: tuple[str, ...] = ()
    if target.arithmetic is None:
        writer.write_openvino(graph, target.folder / file)
    else:
        kinds = (nodes.Container(target.config.container), nodes.Arithmetic(target.arithmetic))
        in_float = writer.write_onnx(graph, target.folder / file, *kinds)
    return StageNote(file, tuple(graph.inputs), tuple(graph.outputs), in_float or None, saturating(graph) or None)


def _distinct(graph: Graph) -> Graph:
    """Rename the features that a stage gives where it reads features too: in ONNX, names are given once."""
    outputs = {f"{name}.next" if name in graph.inputs else name: value for name, value in graph.outputs.items()}
    return replace(graph, outputs=outputs)
