"""Where answers go: to a stream as they come, or to a file that appears whole, kept in a part file until it does."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from compressor.codec import canonical, digest
from compressor.errors import ConfigError, FileError
from compressor.files import check_regular, open_regular
from compressor.folders import disk
from compressor.interrupts import deferred

PART, WHOLE = ".part", ".whole"
"""How the names of the file of kept answers, and of the file that becomes the whole one, end."""

BLOCK = 2**20
"""Bytes of an image file that are read at once for its digest."""


@dataclass(frozen=True)
class Piece:
    """What came of files that were answered together: their rows as they are written, and who has none.

    `of` is a digest of the files; `answered` counts the rows; `unreadable` says of each other file why it has none;
    `converted` counts the images whose pixels did not have 8 bits, by their kind.
    """

    of: str
    rows: str
    answered: int
    unreadable: tuple[str, ...]
    converted: dict[str, int]


class Printed:
    """Pieces that are written to a stream at once."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.answered = 0

    def begin(self, head: str) -> None:
        """Write what stands above the rows."""
        self.out.write(head)

    def digest(self, files: Sequence[str]) -> str:
        """Return nothing: what is printed cannot be taken up again."""
        return ""

    def kept(self, of: str) -> Piece | None:
        """Return None: nothing is kept."""
        return None

    def add(self, piece: Piece) -> None:
        """Write rows, whole ones whenever a signal arrives."""
        with deferred():
            self.out.write(piece.rows)
            self.out.flush()
            self.answered += piece.answered

    def stopped(self, total: int) -> str:
        """Say which answers were written."""
        return (
            f"interrupted; the answers to {self.answered} of {total} files are printed; the same command begins again, "
            "predict.output=FILE keeps what is answered"
        )


class Kept:
    """Pieces in a locked part file, one a line, after a line that says what they are of.

    Each line is a digest and then JSON, so that what was cut or changed is seen, and answered again.
    """

    def __init__(self, path: Path, part: BinaryIO, identity: dict[str, Any]) -> None:
        self.path = path
        self.name = _part(path)
        self.part = part
        self.identity = identity
        self.head = ""
        self.ours = os.fstat(part.fileno()).st_size == 0
        self.found: dict[str, tuple[int, int, int]] = {}
        self.order: list[str] = []

    def begin(self, head: str) -> None:
        """Take over what an interrupted command has kept.

        Raises:
            ConfigError: the part file holds the answers of another model, or answers in another form.
        """
        self.head = head
        first = _line(self.identity | {"head": head})
        self.part.seek(0)
        there = self.part.read(len(first))
        if there == first:
            self.ours = True
            self._index()
        elif first.startswith(there):  # new, or cut in the first line
            self.ours = True
            self.part.seek(0)
            self.part.truncate()
            self._append(first)
        else:
            raise ConfigError(
                f"{self.name}: holds answers of another model or other settings, or what is no answer; "
                "remove it, or give another predict.output"
            )

    def _index(self) -> None:
        """Find the whole lines, and cut off what comes after the last of them."""
        at = self.part.tell()
        end = at
        for line in self.part:
            found = _read(line)
            if found is not None:
                self.found[found["of"]] = (at, len(line), found["answered"])
                end = at + len(line)
            at += len(line)
        self.part.seek(end)
        self.part.truncate()

    def digest(self, files: Sequence[str]) -> str:
        """Name files by their names and their content, so that changed ones are answered again."""
        return digest(*(part for file in files for part in (os.fsencode(file), _content(file))))

    def kept(self, of: str) -> Piece | None:
        """Return what was kept of the files of a digest, or None."""
        if of not in self.found:
            return None
        piece = self._piece(of)
        self.order.append(of)
        return piece

    def _piece(self, of: str) -> Piece:
        at, length, _ = self.found[of]
        self.part.seek(at)
        found = _read(self.part.read(length))
        if found is None:
            raise ConfigError(f"{self.name}: was changed while it was in use; type the command again")
        return Piece(of, found["rows"], found["answered"], tuple(found["unreadable"]), found["converted"])

    def add(self, piece: Piece) -> None:
        """Keep a piece, whole or not at all."""
        line = _line(asdict(piece))
        with deferred():
            self.found[piece.of] = (self._append(line), len(line), piece.answered)
            self.order.append(piece.of)

    def _append(self, line: bytes) -> int:
        at = self.part.seek(0, os.SEEK_END)
        self.part.write(line)
        self.part.flush()
        return at

    def stopped(self, total: int) -> str:
        """Say where the answers are."""
        answered = min(total, sum(found[-1] for found in self.found.values()))
        if not answered:
            return "interrupted before the first answers were kept; the same command begins again"
        return (
            f"interrupted; the answers to {answered} of {total} files are in {self.name}; "
            "the same command goes on from there"
        )

    def publish(self) -> None:
        """Make the whole file of the pieces in the order in which they were asked for, by one rename."""
        whole = self.path.with_name(self.path.name + WHOLE)
        whole.unlink(missing_ok=True)
        try:
            with whole.open("x", encoding="utf-8", newline="") as file:
                file.write(self.head)
                file.writelines(self._piece(of).rows for of in self.order)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            whole.unlink(missing_ok=True)
            raise
        with deferred():
            whole.replace(self.path)
            self.name.unlink(missing_ok=True)


Keeper = Printed | Kept
"""Takes pieces in their order, after `begin` got what stands above them."""


@contextmanager
def keeping(path: Path, identity: dict[str, Any]) -> Iterator[Kept]:
    """Open the part file of a new file for this process alone; at the end the file appears under its name.

    What was kept stays when the work breaks off; a part file without an answer goes.

    Args:
        path: the file that gets the answers.
        identity: all that can change an answer but the files that are answered.

    Raises:
        ConfigError: the file is there already, or another process writes it.
        StoreError: it cannot be written.
    """
    with disk(path):
        _refuse(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path) as part:
            _refuse(path)  # another process may have written it since
            kept = Kept(path, part, identity)
            try:
                yield kept
                kept.publish()
            except BaseException:
                if kept.ours and not kept.found:
                    kept.name.unlink(missing_ok=True)
                raise


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _refuse(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"predict.output={path}: is there already; give another name, or remove it")


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    name = _part(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe is not waited for
    while True:
        with _regular(name, os.open(name, flags, 0o666)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"predict.output={path}: another predict is writing it, and keeps its answers in {name}; "
                    "wait until it ends, or give another name"
                ) from None
            if _same(file, name):  # else the one that held it has removed it meanwhile
                yield file
                return


def _regular(name: Path, number: int) -> BinaryIO:
    try:
        check_regular(name, os.fstat(number))
    except FileError:
        os.close(number)
        raise
    return os.fdopen(number, "r+b")


def _same(file: BinaryIO, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), name.stat())
    except FileNotFoundError:
        return False


def _content(file: str) -> bytes:
    """Return a digest of a file's content; of one that cannot be read, why."""
    parts = []
    try:
        with open_regular(Path(file)) as opened:
            while block := opened.read(BLOCK):
                parts.append(digest(block).encode())
    except (OSError, FileError) as error:
        return type(error).__name__.encode()
    return b"".join(parts)


def _line(value: dict[str, Any]) -> bytes:
    text = canonical(value)
    return f"{digest(text)} ".encode() + text + b"\n"


def _read(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, or None where it is cut or was changed."""
    stated, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or stated != digest(text[:-1]).encode():
        return None
    return json.loads(text)
