"""The candidates that a search has evaluated, kept in a file to which lines are only added."""

import json
import os
from pathlib import Path
from typing import Any

from compressor.codec import CodecError, canonical, decode, digest, encode
from compressor.errors import StoreError
from compressor.folders import STORE, disk
from compressor.search.types import Candidate


def key_of(*causes: Any) -> str:
    """Give the digest of all that is evaluated: dataclasses and plain values."""
    return digest(*(canonical(cause) for cause in causes))


class Candidates:
    """Candidates by key, as the lines of a file have them; each key is written once.

    A last line that a kill cut is dropped.

    Raises:
        StoreError: a line is no candidate; the file was changed or is another program's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Candidate] = {}
        with disk(path, STORE):
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                os.truncate(path, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
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
        line = json.dumps(encode(candidate), allow_nan=False) + "\n"
        with disk(self.path, STORE), self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._known[candidate.key] = candidate


def _read(line: bytes, where: str) -> Candidate:
    try:
        return decode(Candidate, json.loads(line), "")
    except (ValueError, RecursionError, CodecError) as error:
        reason = str(error) if isinstance(error, CodecError) else "it is not JSON"
        raise StoreError(f"{where}: is no candidate of a search ({reason}); remove the file to search anew") from None
