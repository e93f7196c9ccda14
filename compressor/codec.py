"""Frozen dataclasses to JSON and back: one strict reader for configs, architectures and records."""

import hashlib
import json
import math
import re
import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from compressor.decoders import Misfit, decoder_of
from compressor.errors import ConfigError
from compressor.files import JSON_LIMIT, open_regular, read_text

T = TypeVar("T")

SPARSE = "sparse"
"""Marks, in a field's metadata, a part that only some have: it is not written where it is None."""


DEEPEST, WIDEST, LONGEST = 64, 2**63, 80
"""What JSON of this program has at most: levels, the size of a number, characters of it in an error."""

SUSPECT = re.compile(r"\d{19}|\d[eE]\+?\d{3}|\\u[dD][89a-fA-F]")
"""What a number that is too large, or half a character, looks like; most files have none and are not searched."""

PLAIN = frozenset({str, int, float, bool, type(None)})
"""What JSON has itself."""


class CodecError(ConfigError):
    """Data does not have the shape its dataclass declares."""


def encode(value: Any) -> Any:
    """Turn a dataclass tree into plain JSON values."""
    if type(value) in PLAIN:  # most of a tree
        return value
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        found = ((name, getattr(value, name), sparse) for name, sparse in _written(type(value)))
        return {name: encode(item) for name, item, sparse in found if item is not None or not sparse}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, int | float | str):
        return value
    raise CodecError(f"cannot write a {type(value).__name__} as JSON: {value!r}")


@cache
def _written(cls: type) -> tuple[tuple[str, bool], ...]:
    """Give the fields' names, and which of them are left out where they are None."""
    return tuple((f.name, SPARSE in f.metadata) for f in fields(cls))


def decode(cls: type[T], data: Any, where: str = "") -> T:
    """Build `cls` from plain JSON values; unknown, missing and mistyped fields are errors that name their path."""
    try:
        return decoder_of(cls)(data)
    except (Misfit, ConfigError):  # said below, with its place
        return _decode(cls, data, where)


def settled(value: T) -> T:
    """Return a dataclass as it is when it has been written and read: a whole number in a field of floats is a float.

    So what is written does not depend on whether what it was made from was read or computed just before.

    Raises:
        CodecError: a number is not finite.
    """
    return decode(type(value), encode(value))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        CodecError: it is missing, cut or foreign.
        FileError: it is no regular file, or larger than any that this program writes.
    """
    try:
        return parse_json(read_text(path, JSON_LIMIT))
    except OSError as error:
        raise CodecError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise CodecError(f"{path}: is not valid JSON; it is cut, changed or of another program") from None


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is not JSON, or JSON that this program never writes: a key twice in one mapping, numbers that
            are not finite or as large as 2**63, half a character, or more than 64 levels.
    """
    text = text if isinstance(text, str) else text.decode("utf-8")
    try:
        found = json.loads(text, object_pairs_hook=_mapping, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"it has more than {DEEPEST} levels") from None
    if text.count("[") + text.count("{") > DEEPEST or SUSPECT.search(text):
        _refuse_hostile(found)
    return found


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one mapping")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _refuse_hostile(value: Any) -> None:
    pending = [(value, 1)]
    while pending:
        found, level = pending.pop()
        if level > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels")
        if isinstance(found, dict):
            pending += [(item, level + 1) for item in (*found, *found.values())]
        elif isinstance(found, list):
            pending += [(item, level + 1) for item in found]
        elif isinstance(found, str):
            found.encode()  # a UnicodeEncodeError, which is a ValueError, for half a character
        elif (type(found) is int and abs(found) >= WIDEST) or (type(found) is float and not math.isfinite(found)):
            raise ValueError("a number is too large")


def shown(data: Any) -> str:
    """Return a value as an error shows it: on one line, and cut where it is long."""
    try:
        text = repr(data)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of too many digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _decode(hint: Any, data: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(hint), data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise CodecError(f"{where}: expected a list, got {shown(data)}")
        return tuple(_decode(get_args(hint)[0], entry, f"{where}[{i}]") for i, entry in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise CodecError(f"{where}: expected a mapping, got {shown(data)}")
        if odd := [key for key in data if not isinstance(key, str)]:  # 1 and "1" would be one
            raise CodecError(f"{where}: the name {shown(odd[0])} is no text; put it in quotes")
        return {key: _decode(get_args(hint)[1], item, _inside(where, key)) for key, item in data.items()}
    if hint is Any:
        return data
    if is_dataclass(hint):
        return _decode_dataclass(hint, data, where)
    if issubclass(hint, Enum):
        return _decode_enum(hint, data, where)
    return _decode_scalar(hint, data, where)


def _inside(where: str, key: Any) -> str:
    """Return the place of a mapping's entry; a key that would break the line, or the terminal, is quoted."""
    name = str(key)
    return f"{where}.{name if name.isprintable() and len(name) <= LONGEST else shown(name)}"


def _decode_union(hints: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in hints:
        return None
    (inner,) = [hint for hint in hints if hint is not type(None)]
    return _decode(inner, data, where)


def _decode_enum(hint: type[Enum], data: Any, where: str) -> Enum:
    try:
        return hint(data)
    except ValueError:
        choices = ", ".join(str(member.value) for member in hint)
        raise CodecError(f"{where}: {shown(data)} is not one of {choices}") from None


def _decode_scalar(hint: type, data: Any, where: str) -> Any:
    if hint is float and type(data) is int:
        data = float(data) if abs(data) < 1e300 else math.inf
    if type(data) is not hint:
        raise CodecError(f"{where}: expected {hint.__name__}, got {shown(data)}")
    if hint is float and not math.isfinite(data):
        raise CodecError(f"{where}: expected a finite number, got {shown(data)}")
    return data


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _decode_dataclass(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise CodecError(f"{where or cls.__name__}: expected a mapping, got {shown(data)}")
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(map(str, data.keys() - known.keys())):
        raise CodecError(f"{where or cls.__name__}: unknown key {shown(unknown[0])}; it has {', '.join(known)}")
    for name, f in known.items():
        if name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise CodecError(f"{where or cls.__name__}: key {name!r} is missing")
    inside = f"{where}." if where else ""
    values = {name: _decode(_hints(cls)[name], item, f"{inside}{name}") for name, item in data.items()}
    try:
        return cls(**values)
    except ConfigError as error:  # it names the dataclass's usual place; say where this one is
        outer, _, last = where.rpartition(".")
        if outer and str(error).startswith(f"{last}."):
            raise CodecError(f"{outer}.{error}") from None
        raise


def canonical(value: Any) -> bytes:
    """Give the one byte string that stands for `value` in a digest."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(*parts: bytes) -> str:
    """Hash byte strings into the 16 hexadecimal digits used for keys and artifacts."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:16]


def digest_file(path: Path, limit: int | None = None) -> str:
    """Return 16 hexadecimal digits of the hash of a regular file's bytes; errors as for `open_regular`."""
    with open_regular(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
