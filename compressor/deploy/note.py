"""What an export folder says of itself: export.json, read without torch. The files beside it are named by digest."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from compressor.arch import Criterion, Rule, Task
from compressor.arch.mixtures import check_routed, check_rule
from compressor.checked import read_checked
from compressor.codec import SPARSE, decode, digest_file
from compressor.config.deploy import Arithmetic, Container, ExportFormat
from compressor.errors import CompressorError, FileError, ModelError

EXPORT = "export.json"
SCHEMA = 2
"""The version of export.json; the first had no check of its own."""
CHANNELS, LARGEST, MOST_OUTPUTS = (1, 3), 4096, 65536
"""What images and networks may have: channels, pixels a side, outputs."""
FILE = re.compile(r"((expert-\d+-)?stage-\d+|first|router)\.(onnx|xml|bin)|(model|router|expert-\d+)\.packed")


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
    """What runs between two heads: its file, and the names of the tensors it reads and gives.

    `in_float` names the layers that were trained in integers, weights and what they read, and that this file computes
    in float32; absent where there are none. So is `saturating`: the layers whose sums may saturate on x86 processors
    without VNNI.
    """

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    in_float: tuple[str, ...] | None = field(default=None, metadata={SPARSE: True})
    saturating: tuple[str, ...] | None = field(default=None, metadata={SPARSE: True})


@dataclass(frozen=True)
class PartNote:
    """One network: its stages, a head each (a packed file is one for all), and when images leave early."""

    stages: tuple[StageNote, ...]
    exits: ExitsNote | None


@dataclass(frozen=True)
class MixtureNote:
    """Several networks and who answers what. `rule` is that of the mixture's own folder.

    `first` reads the images and gives features, which router and experts read; null where they share no first stage,
    and in packed files, where the router's file holds it for all. A cascade has no `router`.
    """

    rule: Rule
    first: StageNote | None
    router: StageNote | None
    experts: tuple[PartNote, ...]


@dataclass(frozen=True)
class EngineParity:
    """How one engine agreed with PyTorch over the whole test set.

    `differing` answers differ, `moved` images left at another exit, `largest` is the largest difference of an output
    among images that left at the same exit; `score` is what the engine reached. `refused` says why an engine that is
    installed could not read the files; the numbers are then null. `rerouted`, of mixtures alone: images that other
    experts answered; `moved` counts the others.
    """

    engine: str
    version: str
    differing: int | None
    moved: int | None
    largest: float | None
    score: float | None
    refused: str | None = None
    rerouted: int | None = field(default=None, metadata={SPARSE: True})


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

    `container` and `arithmetic` are of ONNX alone. A mixture has no `stages` and no `exits` of its own, but `mixture`.
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
    mixture: MixtureNote | None = field(default=None, metadata={SPARSE: True})

    @property
    def content(self) -> PartNote | MixtureNote:
        """What the files hold."""
        return self.mixture or PartNote(self.stages, self.exits)

    @property
    def files_in_order(self) -> Iterator[StageNote]:
        """Give what each file is, in the order in which images pass them."""
        yield from self.stages
        if mixture := self.mixture:
            yield from (stage for stage in (mixture.first, mixture.router) if stage)
            for part in mixture.experts:
                yield from part.stages


def read_note(folder: Path) -> ExportNote:
    """Read what an export folder holds, and refuse files that are not, bit for bit, those it describes.

    Raises:
        ModelError: there is no export.json, or it or a file is cut, changed, foreign or of another schema.
    """
    path = folder / EXPORT
    if not path.is_file():
        raise ModelError(f"{folder}: no {EXPORT}; give a folder that `compressor export` made")
    try:
        note = decode(ExportNote, read_checked(path, "export", SCHEMA, earlier=(1,)))
    except CompressorError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise ModelError(f"{path}: {text}; export the model again") from None
    _check(note, path)
    for name, wanted in note.files.items():
        _verify(folder / name, wanted, note.file_bytes)
    return note


def _check(note: ExportNote, path: Path) -> None:
    if reason := _impossible(note.input, note.task):
        raise ModelError(f"{path}: {reason}; export the model again")
    if bad := [name for name in note.files if not FILE.fullmatch(name)]:
        raise ModelError(f"{path}: names the file {bad[0]!r}; an export's files are like stage-0.onnx")
    parts = note.mixture.experts if note.mixture else (PartNote(note.stages, note.exits),)
    if not all(part.stages for part in parts) or any(stage.file not in note.files for stage in note.files_in_order):
        raise ModelError(f"{path}: has a stage without a file; export the model again")
    for part in parts:
        heads = 1 if part.exits is None else len(part.exits.thresholds) + 1
        if note.format is not ExportFormat.PACKED and heads != len(part.stages):
            raise ModelError(f"{path}: has {len(part.stages)} stages for {heads} heads; export the model again")
    if note.mixture:
        _check_mixture(note.mixture, note, path)


def _impossible(shape: InputNote, task: Task) -> str | None:
    """Say what no network reads or answers, or nothing."""
    if shape.channels not in CHANNELS or not 1 <= shape.size <= LARGEST:
        return f"input is {shape.channels} x {shape.size} x {shape.size}; images have 1 or 3 channels of 1 to {LARGEST}"
    if not 1 <= task.outputs <= MOST_OUTPUTS:
        return f"task.outputs is {task.outputs}; a network has 1 to {MOST_OUTPUTS}"
    for name, given in (("names", task.names), ("mean", task.mean), ("scale", task.scale)):
        if len(given) not in (0, task.outputs):
            return f"task.{name} has {len(given)} entries; give {task.outputs}, one an output, or none"
    return None


def _check_mixture(mixture: MixtureNote, note: ExportNote, path: Path) -> None:
    try:
        check_rule(mixture.rule, len(mixture.experts))
        check_routed(mixture.rule, note.task.kind, routed=mixture.router is not None)
    except ModelError as error:
        raise ModelError(f"{path}: {error}; export the model again") from None
    apart = mixture.rule.shared and note.format is not ExportFormat.PACKED
    if apart != (mixture.first is not None):
        raise ModelError(
            f"{path}: has {'no' if apart else 'a'} first stage that its rule says otherwise of; export again"
        )


def _verify(path: Path, wanted: str, limit: int) -> None:
    try:
        found = digest_file(path, limit)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; {EXPORT} names it, export the model again") from None
    except FileError as error:
        raise ModelError(f"{error}; {EXPORT} names it, export the model again") from None
    if found != wanted:
        raise ModelError(f"{path}: is not what {EXPORT} says; it was cut or changed, export the model again")
