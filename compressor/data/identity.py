"""What files hold, told by digests of their content; files that cannot have changed are not read again.

A file's device, number, size, time of change and time of its last change of status are equal twice
only where nothing was written in between: a program may set the time of change back, but not that
of the status. Clocks of file systems are coarse, though, so what changed a moment ago is read again.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from compressor.codec import canonical, digest
from compressor.errors import FileError
from compressor.files import open_regular, read_bytes

COARSEST = 2_000_000_000
"""Nanoseconds: the coarsest clock of a file system in use, FAT's."""

MEMO_LIMIT = 2**30
"""Bytes that a memo may have: some eight million files."""

DIGESTED = 2**32
"""Bytes up to which a file is read for its digest; a larger one is told by its stamp alone."""

UNREAD = "unread"
"""Stands for the content of what cannot be read; decoding it will say why."""


def content_digests(paths: Sequence[str], memo: Path) -> list[str]:
    """Return a digest of each file's content, or its stamp where that cannot be read or is very large.

    Args:
        paths: the files.
        memo: where digests are remembered by stamp; it is made, and made anew where it is damaged.
    """
    now = time.time_ns()
    found = [_stamp(path) for path in paths]
    known = _read(memo)
    unknown = sorted({(stamp, path) for stamp, path in zip(found, paths, strict=True) if stamp not in known})
    # Hashing releases the interpreter, so threads use all cores.
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_digest, [path for _, path in unknown])
        fresh = {stamp: value for (stamp, _), value in zip(unknown, digests, strict=True)}
    content = known | fresh
    settled = {stamp: content[stamp] for stamp in found if _is_settled(stamp, now)}
    if settled != known:
        with suppress(OSError):  # a cache that may only be read: files are read again each time
            _write(memo, settled)
    return [_identity(stamp, content[stamp]) for stamp in found]


def _stamp(path: str) -> str:
    """Return what tells a file's present content from any other, but for what changed a moment ago."""
    try:
        status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat
    except OSError as error:
        return f"{UNREAD} {error.errno} {path}"
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return " ".join(map(str, parts))


def _is_settled(stamp: str, now: int) -> bool:
    """Tell whether a stamp was old enough, when it was taken, to change with the next write."""
    changed = stamp.rpartition(" ")[2]
    return not stamp.startswith(UNREAD) and int(changed) < now - COARSEST


def _identity(stamp: str, content: str) -> str:
    """Return the digest, or the stamp of what has none: what is too large, or cannot be read."""
    if content == UNREAD:
        return stamp
    return content


def _digest(path: str) -> str:
    try:
        with open_regular(Path(path), DIGESTED) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, FileError):
        return UNREAD


def _read(memo: Path) -> dict[str, str]:
    try:
        said = json.loads(read_bytes(memo, MEMO_LIMIT))
        known = said["digests"]
        if said["check"] == digest(canonical(known)):
            return known
    except (OSError, FileError, ValueError, KeyError, TypeError, RecursionError):
        pass  # there is none yet, or it is damaged: the files are read again
    return {}


def _write(memo: Path, known: dict[str, str]) -> None:
    part = memo.with_name(f"{memo.name}.{os.getpid()}.part")
    part.write_text(json.dumps({"check": digest(canonical(known)), "digests": known}), encoding="utf-8")
    part.replace(memo)
