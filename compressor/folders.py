"""A phase's folder: its files, what they say, and whether they are what the record says. No torch here."""

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from compressor.arch import Arch, MixtureArch, check, check_mixture
from compressor.checked import read_checked
from compressor.codec import CodecError, canonical, decode, digest, digest_file, encode, read_json
from compressor.errors import CompressorError, ConfigError, ModelError, StoreError
from compressor.files import JSON_LIMIT, open_regular
from compressor.memory import pass_on
from compressor.records import RECORD_SCHEMA, SCHEMA, Metrics, Record

T = TypeVar("T")

MOST_WEIGHTS = 5 * 2**29
"""Bytes that the tensors of a model or a mixture may take: four networks such as VGG-19."""

FORMAT = 1
"""The version of arch.json and mixture.json."""

ARCH, MIXTURE, WEIGHTS = "arch.json", "mixture.json", "weights.safetensors"
METRICS, HISTORY = "metrics.json", "history.jsonl"
RECORD, CONFIG, CURVES = "record.json", "config.yaml", "tb"
CANDIDATES, FOUND, TRIALS = "candidates.jsonl", "found.json", "trials.db"
"""What a search leaves beside its network: each candidate, what it found, and optuna's study where that searched."""
DIGESTED = (METRICS, HISTORY, CONFIG)
"""The files of a finished step whose digests its record states one by one; those of the model have one together."""
SEARCHED = (CANDIDATES, FOUND, TRIALS)
"""Those of a search's step, of which some have none; records of schema 1 do not state their digests."""
LIMITS = dict.fromkeys((METRICS, HISTORY, CONFIG, FOUND), JSON_LIMIT) | {CANDIDATES: 2**30}
"""Bytes that a file may have; a candidate of a large network has some thousands."""

KEY = re.compile(r"[a-z_]+-[0-9a-f]{16}")
FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_FOLDER = (errno.ENOTDIR, errno.EEXIST)
STORE, RUNS = "store=FOLDER", "runs=FOLDER or hydra.run.dir=FOLDER"
"""What to give where the folder of finished steps, or that of a run, cannot be used."""


@contextmanager
def disk(where: Path, setting: str | None = None) -> Iterator[None]:
    """Turn what the operating system says of files into one line that names the file, or else `where`.

    `setting`: what to give to use another folder, such as `STORE`; None where no setting alone names it.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of our output went away, which is no fault of the disk
        raise
    except OSError as error:
        pass_on(error)
        place = error.filename or where
        raise StoreError(refused(place, error.errno, error.strerror or str(error), setting)) from None
    except SafetensorError as error:  # it is no OSError, and states the system's number in its text only
        pass_on(error)
        if (found := re.search(r"os error (\d+)", str(error))) is None:
            raise
        number = int(found[1])
        raise StoreError(refused(where, number, os.strerror(number), setting)) from None


def refused(where: Any, number: int | None, reason: str, setting: str | None) -> str:
    """Say in one line what the system refused and what would help; arguments as for `disk`."""
    other = f"give another folder, such as {setting}" if setting else "give another one"
    if number in FULL:
        return f"{where}: the disk is full; free some space and type the command again, finished steps are kept"
    if number in DENIED:
        return f"{where}: cannot be read or written ({reason}); allow this user to, or {other}"
    if number in NO_FOLDER:
        if (target := _dangling(Path(where))) is not None:
            return f"{where}: is a link to {target}, which is not there; make that folder, or {other}"
        return f"{where}: a file stands where a folder is needed; {other}"
    return f"{where}: {reason}; it must be a file or folder that can be read and written"


def _dangling(path: Path) -> Path | None:
    """Return where a link points to that leads nowhere, or None."""
    return path.readlink() if path.is_symlink() and not path.exists() else None


def key_of(phase: str, version: int, config: Any, inputs: Mapping[str, str], data: str) -> str:
    """Name a step's result, `PHASE-DIGEST`, by all that can change it; `inputs` are the keys of its models by role."""
    cause = {"phase": [phase, version], "config": config, "inputs": dict(inputs), "data": data}
    return f"{phase}-{digest(canonical(cause))}"


def form_of(folder: Path) -> str:
    """Name the JSON file that says what a model's folder holds: one network, or a mixture."""
    return MIXTURE if (folder / MIXTURE).exists() else ARCH


def digest_of(folder: Path) -> str:
    """Hash what a model's folder says and holds; the layout of its JSON does not count."""
    form = form_of(folder)
    arch = read_json(folder / form)
    try:
        with open_regular(folder / WEIGHTS, MOST_WEIGHTS) as file:
            return digest(canonical(arch), hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise StoreError(f"{folder / WEIGHTS}: {error.strerror}; a model is {form} and {WEIGHTS}") from None
    except (ValueError, RecursionError):  # JSON of this program holds no NaN and is not deep
        raise StoreError(f"{folder / form}: is not a network of this program") from None


def read_arch(folder: Path) -> Arch:
    """Read what network a model's folder holds, without its weights.

    Raises:
        ModelError: there is no arch.json, or it is cut, changed or of another format or program.
    """
    path = folder / ARCH
    with disk(folder):
        found = path.is_file()
    if not found:
        raise ModelError(f"{folder}: no {ARCH}; give the folder of a phase, such as outputs/NAME/TIME/02-prune")
    return _read_form(path, "arch", lambda data: check(decode(Arch, data, "arch")))


def read_mixture(folder: Path) -> MixtureArch:
    """Read what networks a mixture's folder holds, and who answers what, without weights; errors as for `read_arch`."""
    return _read_form(folder / MIXTURE, "mixture", lambda data: check_mixture(decode(MixtureArch, data, "mixture")))


def _read_form(path: Path, name: str, read: Callable[[Any], T]) -> T:
    data = read_json(path)
    if not isinstance(data, dict) or data.keys() != {"format", name}:
        raise ModelError(f"{path}: is not a network of this program; it needs 'format' and {name!r}")
    if data["format"] != FORMAT:
        raise ModelError(f"{path}: has format {data['format']!r}, this version reads {FORMAT}")
    try:
        return read(data[name])
    except (CodecError, ModelError, ConfigError) as error:
        raise ModelError(f"{path}: {error}") from None


def read_record(folder: Path) -> Record:
    """Read a phase folder's record; one that is cut, changed or foreign is refused.

    Of schema 1, which has no check of its own, only what its key depends on is proved here, the rest by `verify`.
    """
    path = folder / RECORD
    record = decode(Record, read_checked(path, "record", RECORD_SCHEMA, earlier=(1,)), str(path))
    inputs = {role: source.key for role, source in record.inputs.items()}
    if record.key != key_of(record.phase, record.version, record.config, inputs, record.data):
        raise StoreError(f"{folder / RECORD}: was changed: its key {record.key!r} does not follow from its content")
    for key in (record.key, record.original.key, *inputs.values()):
        if not KEY.fullmatch(key):  # keys become names of folders
            raise StoreError(f"{folder / RECORD}: was changed: {key!r} is no key; keys are like prune-0123456789abcdef")
    return record


def read_metrics(folder: Path) -> Metrics:
    """Read a phase folder's metrics, which have no check of their own: the record beside them states their digest."""
    path = folder / METRICS
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise StoreError(f"{path}: is not metrics of schema {SCHEMA}, which this version reads")
    return decode(Metrics, data, str(path))


def proved_metrics(folder: Path) -> Metrics:
    """Return a phase folder's metrics, which its record vouches for; weights are not hashed.

    Raises:
        CompressorError: the record or the metrics are gone, cut or changed.
    """
    record = read_record(folder)
    verify_file(folder / METRICS, record)
    metrics = read_metrics(folder)
    _prove_original(folder, record, metrics)
    return metrics


def verify(folder: Path, record: Record) -> None:
    """Refuse a phase folder whose files are not, bit for bit, those that its record describes."""
    _verify_model(folder, digest_of(folder), record)
    for name in (*DIGESTED, *_searched(folder, record)):
        verify_file(folder / name, record)
    _prove_original(folder, record, read_metrics(folder))


def _searched(folder: Path, record: Record) -> Iterator[str]:
    for name in SEARCHED:
        if name in record.files or (record.schema == RECORD_SCHEMA and os.path.lexists(folder / name)):
            yield name


def _prove_original(folder: Path, record: Record, metrics: Metrics) -> None:
    """Refuse what a record says of the original, which ratios refer to, unless it follows from the step's metrics."""
    original, after, path = record.original, metrics.after, folder / RECORD
    if metrics.key != record.key or metrics.original != original:
        raise StoreError(f"{path}: names another original than {METRICS}; it was changed")
    ratios = original.bitops / after.test.bitops, original.size_bits / after.cost.size_bits
    if not all(map(math.isclose, ratios, (metrics.bitops_ratio, metrics.size_ratio))):
        raise StoreError(f"{folder / METRICS}: has ratios that do not follow from its numbers; it was changed")
    own = (after.test.bitops, after.cost.size_bits)
    if original.key == record.key and (original.bitops, original.size_bits) != own:
        raise StoreError(f"{path}: costs as the original something else than by {METRICS}; it was changed")


def _prove_beside(folder: Path, record: Record) -> None:
    """Refuse a record that says of its original what the original's own record, where it lies beside, does not."""
    for place in _beside(folder.resolve().parent, record.original.key):
        try:
            found = read_record(place)
        except CompressorError:  # other folders may lie there
            continue
        if found.key == record.original.key and found.original != record.original:
            raise StoreError(f"{folder / RECORD}: its original is not what {place / RECORD} says; one was changed")


def _beside(parent: Path, key: str) -> list[Path]:
    """List where in a store, or in a run's folder, the step of a key may be."""
    return [parent / key] if (parent / key).is_dir() else sorted(parent.glob(f"[0-9]*-{key.rpartition('-')[0]}"))


def model_of(folder: Path) -> tuple[str, Record | None]:
    """Return the digest of a model's folder, and its record where it has one, which must be of that very model."""
    with disk(folder):
        model = digest_of(folder)
        if not os.path.lexists(folder / RECORD):  # one whose link is broken is damaged, not absent
            return model, None
        try:
            return model, _vouched(folder, model)
        except CompressorError as error:
            raise StoreError(f"{error}; remove {RECORD} to use it as a model of its own") from None


def _vouched(folder: Path, model: str) -> Record:
    record = read_record(folder)
    _verify_model(folder, model, record)
    if os.path.lexists(folder / METRICS):
        verify_file(folder / METRICS, record)
        _prove_original(folder, record, read_metrics(folder))
    elif record.schema != RECORD_SCHEMA:
        raise StoreError(f"{folder}: no {METRICS}, from which what {RECORD} says of its original follows")
    _prove_beside(folder, record)
    return record


def _verify_model(folder: Path, model: str, record: Record) -> None:
    if model != record.model:
        raise StoreError(f"{folder}: {form_of(folder)} or {WEIGHTS} is not what {RECORD} says; it was cut or changed")


def verify_file(path: Path, record: Record) -> None:
    """Refuse a file beside a record that is not, bit for bit, the one the record describes."""
    with disk(path):
        if digest_file(path, LIMITS.get(path.name)) != record.files.get(path.name):
            raise StoreError(f"{path}: is not what {RECORD} says; it was cut or changed")


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass tree as JSON, whole or not at all. Raises ValueError for numbers that are not finite."""
    text = json.dumps(encode(value), indent=1, allow_nan=False) + "\n"
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
