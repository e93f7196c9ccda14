"""The candidates that a search has evaluated, kept in a file to which lines are only added."""

import os
from pathlib import Path
from typing import Any

from compressor.checked import append_line, read_lines
from compressor.codec import CodecError, canonical, decode, digest
from compressor.errors import CompressorError, StoreError
from compressor.folders import CANDIDATES, LIMITS, disk
from compressor.search.types import Candidate


def key_of(*causes: Any) -> str:
    """Give the digest of all that is evaluated: dataclasses and plain values."""
    return digest(*(canonical(cause) for cause in causes))


class Candidates:
    """Candidates by key, as the lines of a file have them; each key is written once.

    A last line that a kill cut is dropped; one that was changed later is refused.

    Raises:
        StoreError: a line is no candidate; the file was changed or is another program's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Candidate] = {}
        try:
            with disk(path):
                lines, size = read_lines(path, LIMITS[CANDIDATES])
                if path.exists() and path.stat().st_size > size:
                    os.truncate(path, size)  # what is behind is a line that a kill cut
        except CompressorError as error:
            raise StoreError(f"{error}; remove the file to search anew") from None
        for number, line in enumerate(lines, start=1):
            candidate = _read(line, f"{path}:{number}")
            self._known.setdefault(candidate.key, candidate)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Candidate | None:
        """Give the candidate of a key, if it was evaluated."""
        return self._known.get(key)

    def add(self, candidate: Candidate) -> None:
        """Write a candidate; once this returns, a kill does not lose it."""
        if candidate.key in self._known:
            return
        with disk(self.path):
            append_line(self.path, candidate)
        self._known[candidate.key] = candidate


def _read(line: dict[str, Any], where: str) -> Candidate:
    try:
        return decode(Candidate, line)
    except CodecError as error:
        raise StoreError(f"{where}: is no candidate of a search ({error}); remove the file to search anew") from None
