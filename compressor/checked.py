"""Files that say of themselves whether they were changed: `check` is a digest of all else that they say. No torch here.

What is checked has a `schema`, by which a file that lost its check is told from one of an earlier version, which had
none. A digest finds what happens to files and what is edited by hand; it is no signature, and proves no author.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from compressor.codec import canonical, digest, encode, parse_json, read_json
from compressor.errors import StoreError
from compressor.files import JSON_LIMIT, read_bytes

CHECK = "check"
LINES = 2
"""The schema of a checked line; lines of earlier versions have none."""


def check_of(content: Mapping[str, Any]) -> str:
    """Return the digest of all that a mapping says besides its check; the layout of its JSON does not count."""
    return digest(canonical({name: item for name, item in content.items() if name != CHECK}))


def checked(value: Any, schema: int | None = None) -> dict[str, Any]:
    """Return a dataclass, or a mapping, as plain JSON with its check; `schema` is given to what has none of its own.

    Raises:
        ValueError: a number is not finite.
    """
    content = encode(value) if schema is None else {"schema": schema, **encode(value)}
    return {**content, CHECK: check_of(content)}


def read_checked(path: Path, kind: str, schema: int, earlier: Iterable[int | None] = ()) -> dict[str, Any]:
    """Return what a checked JSON file says, without its check.

    Args:
        path: the file.
        kind: what it is, such as "run", for errors.
        schema: the version that is written now, which has a check.
        earlier: the versions that are read too and have none; None where they did not say their version.

    Raises:
        StoreError: it is of another kind or version, or was changed after it was written.
        CompressorError: as for `read_json`.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not _known(content.get("schema"), (schema, *earlier)):
        raise StoreError(f"{path}: is no {kind} of schema {schema}, which this version reads")
    return _proved(content, schema, str(path))


def _known(found: Any, versions: Iterable[int | None]) -> bool:
    return any(type(found) is type(version) and found == version for version in versions)  # True is no 1


def _proved(content: dict[str, Any], schema: int, where: str) -> dict[str, Any]:
    if content.get("schema") == schema:
        if CHECK not in content:
            raise StoreError(f"{where}: has lost its {CHECK!r}; it was changed")
    elif CHECK not in content:
        return content
    if content[CHECK] != check_of(content):
        raise StoreError(f"{where}: was changed: its {CHECK!r} does not follow from its content")
    return {name: item for name, item in content.items() if name != CHECK}


def append_line(path: Path, value: Any) -> None:
    """Add a line with its check to a file; once this returns, a kill does not lose it."""
    text = json.dumps(checked(value, LINES), allow_nan=False) + "\n"
    with path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path, limit: int = JSON_LIMIT) -> tuple[list[dict[str, Any]], int]:
    """Return what the lines of a file say, without schema and check, and the bytes that they take.

    A last line that a kill cut has no end, and is left out of both. There are no lines where there is no file.

    Raises:
        StoreError: a line is no mapping, or was changed after it was written; the error names its number.
        FileError: it is no regular file, or larger than `limit` bytes.
    """
    try:
        content = read_bytes(path, limit)
    except FileNotFoundError:
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    return list(_lines(whole, path)), len(whole)


def _lines(whole: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(whole.split(b"\n")[:-1], start=1):
        where = f"{path}:{number}"
        try:
            content = parse_json(text)
        except ValueError:
            raise StoreError(f"{where}: is no line of JSON; it was cut or changed") from None
        if not isinstance(content, dict) or not _known(content.get("schema"), (LINES, None)):
            raise StoreError(f"{where}: is no line that this version reads")
        content = _proved(content, LINES, where)
        yield {name: item for name, item in content.items() if name != "schema"}
