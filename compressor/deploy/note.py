"""What an export folder says of itself: export.json, read without torch. The files beside it are named by digest."""

import re
from dataclasses import dataclass
from pathlib import Path

from compressor.arch import Criterion, Task
from compressor.codec import decode, digest_file, read_json
from compressor.config.deploy import Arithmetic, Container, ExportFormat
from compressor.errors import CompressorError, ModelError

EXPORT = "export.json"
SCHEMA = 1
FILE = re.compile(r"stage-\d+\.(onnx|xml|bin)|model\.packed")


@dataclass(frozen=True)
class SourceNote:
    """The model that was exported: its step's key and the digest of its files."""

    key: str
    model: str


@dataclass(frozen=True)
class InputNote:
    """What stage 0 reads: uint8 images (N, channels, size, size), pixels 0..255; `resize` makes them that size."""

    channels: int
    size: int
    resize: str


@dataclass(frozen=True)
class ExitsNote:
    """When an image leaves early. A threshold an exit; null where nobody may leave."""

    criterion: Criterion
    thresholds: tuple[float | None, ...]


@dataclass(frozen=True)
class StageNote:
    """What runs between two heads: its file, and the names of the tensors it reads and gives."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class EngineParity:
    """How one engine agreed with PyTorch over the whole test set.

    `differing` answers differ, `moved` images left at another exit, `largest` is the largest difference of an output
    among images that left at the same exit; `score` is what the engine reached. `refused` says why an engine that is
    installed could not read the files; the numbers are then null.
    """

    engine: str
    version: str
    differing: int | None
    moved: int | None
    largest: float | None
    score: float | None
    refused: str | None = None


@dataclass(frozen=True)
class Parity:
    """Agreement with PyTorch, whose own score is `reference`: at most `allowed` of `answers` may differ.

    `score` is accuracy, or mae for regression; `tolerance`: what regression outputs may differ by, in deviations of the
    target, and null elsewhere.
    """

    images: int
    answers: int
    allowed: int
    tolerance: float | None
    score: str
    reference: float
    engines: tuple[EngineParity, ...]


@dataclass(frozen=True)
class ExportNote:
    """The content of export.json. `files` are digests by name, `file_bytes` their sum on disk.

    `container` and `arithmetic` are of ONNX alone.
    """

    schema: int
    format: ExportFormat
    container: Container | None
    source: SourceNote
    input: InputNote
    task: Task
    exits: ExitsNote | None
    stages: tuple[StageNote, ...]
    files: dict[str, str]
    file_bytes: int
    size_bits: int
    parity: Parity
    versions: dict[str, str]
    arithmetic: Arithmetic | None = None


def read_note(folder: Path) -> ExportNote:
    """Read what an export folder holds, and refuse files that are not, bit for bit, those it describes.

    Raises:
        ModelError: there is no export.json, or it or a file is cut, changed, foreign or of another schema.
    """
    path = folder / EXPORT
    if not path.is_file():
        raise ModelError(f"{folder}: no {EXPORT}; give a folder that `compressor export` made")
    try:
        data = read_json(path)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ModelError(f"{path}: is no export of schema {SCHEMA}, which this version reads")
        note = decode(ExportNote, data)
    except CompressorError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise ModelError(f"{path}: {text}") from None
    _check(note, path)
    for name, wanted in note.files.items():
        _verify(folder / name, wanted)
    return note


def _check(note: ExportNote, path: Path) -> None:
    if bad := [name for name in note.files if not FILE.fullmatch(name)]:
        raise ModelError(f"{path}: names the file {bad[0]!r}; an export's files are like stage-0.onnx")
    if not note.stages or any(stage.file not in note.files for stage in note.stages):
        raise ModelError(f"{path}: has a stage without a file; export the model again")
    heads = 1 if note.exits is None else len(note.exits.thresholds) + 1
    if note.format is not ExportFormat.PACKED and heads != len(note.stages):
        raise ModelError(f"{path}: has {len(note.stages)} stages for {heads} heads; export the model again")


def _verify(path: Path, wanted: str) -> None:
    try:
        found = digest_file(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; {EXPORT} names it, export the model again") from None
    if found != wanted:
        raise ModelError(f"{path}: is not what {EXPORT} says; it was cut or changed, export the model again")
