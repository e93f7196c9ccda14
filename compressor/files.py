"""Read files that anybody may have put there: only regular ones, none larger than its kind may be. No torch here.

What a library writes gets the mode that the umask gives.
"""

import os
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from compressor.errors import FileError

JSON_LIMIT = 64 * 2**20
"""Bytes that a JSON file may have; the largest that this program writes, a study's, has about one million."""

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path, limit: int | None = None) -> BufferedReader:
    """Open a regular file for reading bytes; links are followed, and nothing is waited for.

    Args:
        path: the file.
        limit: the largest size in bytes, or None where any size will do.

    Raises:
        FileError: it is a folder, a pipe, a device or a socket, or has more bytes than `limit`.
        OSError: it cannot be opened.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        check_regular(path, os.fstat(number), limit)
    except BaseException:
        os.close(number)
        raise
    return os.fdopen(number, "rb")


def check_regular(path: Path | str, found: os.stat_result, limit: int | None = None) -> None:
    """Refuse what is no regular file, or larger than `limit` bytes, by what `stat` said of it."""
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in KINDS if is_kind(found.st_mode)), "no regular file")
        raise FileError(f"{path}: is {kind}; a regular file is needed")
    if limit is not None and found.st_size > limit:
        raise FileError(f"{path}: has {found.st_size} bytes; a file of this kind has at most {limit}")


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; errors as for `open_regular`."""
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)  # it may have grown since it was opened
    if len(content) > limit:
        raise FileError(f"{path}: has more than {limit} bytes; a file of this kind has at most {limit}")
    return content


def read_text(path: Path, limit: int) -> str:
    """Return the content of a regular UTF-8 file of at most `limit` bytes; a ValueError where it is not UTF-8."""
    return read_bytes(path, limit).decode("utf-8")


def write_shared(path: Path, write: Callable[[Path], object]) -> None:
    """Have a library write a file, and give it the mode that the umask gives, which some libraries do not.

    safetensors makes its files private, so that who answers with an export, or goes on in a draft, may not read them.
    """
    path.unlink(missing_ok=True)
    path.touch()  # the system alone knows the umask, and a folder's default rights, without changing them
    mode = stat.S_IMODE(path.stat().st_mode)
    write(path)
    path.chmod(mode)
