"""Digests of a large file block by block, so that what is read of it is checked and no more."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from compressor.errors import DataError

BLOCK = 2**22
"""Bytes of a block: large enough for few digests, small enough to be read for one image of it."""

CHECKED_WHOLE = 2**28
"""A file of at most so many bytes is checked when it is opened, which takes about 0.1 s."""


def block_digests(path: Path, *, first_only: bool = False) -> tuple[str, ...]:
    """Return the digest of each block of a file, or of the first alone."""
    content = np.memmap(path, np.uint8, mode="r")
    starts = range(0, min(len(content), BLOCK) if first_only else len(content), BLOCK)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter
        return tuple(pool.map(lambda start: _digest(content, start), starts))


class Blocks:
    """The blocks of a file of equal rows after a header, each checked before its first use.

    Args:
        path: the file.
        digests: of its blocks, as `block_digests` gives them.
        header: bytes before the first row.
        row: bytes of a row.
    """

    def __init__(self, path: Path, digests: Sequence[str], header: int, row: int) -> None:
        self._path = path
        self._digests = digests
        self._header = header
        self._row = row
        self._content = np.memmap(path, np.uint8, mode="r")
        self._checked = np.zeros(len(digests), bool)

    def check(self, rows: np.ndarray) -> None:
        """Refuse rows, by their numbers, of which a byte is not the one that was written.

        Raises:
            DataError: names the file, and the folder to remove.
        """
        first = self._header + rows.astype(np.int64) * self._row
        last = first + max(self._row - 1, 0)
        touched = np.unique(np.concatenate([first // BLOCK, last // BLOCK]))
        # A row may be longer than a block and span several.
        if self._row > BLOCK:
            touched = np.arange(touched.min(initial=0), touched.max(initial=-1) + 1)
        for block in touched[~self._checked[touched]]:
            if _digest(self._content, int(block) * BLOCK) != self._digests[block]:
                raise DataError(
                    f"{self._path}: was changed or is damaged; remove {self._path.parent}, "
                    "and its images are decoded again"
                )
            self._checked[block] = True


def _digest(content: np.ndarray, start: int) -> str:
    return hashlib.sha256(content[start : start + BLOCK].data).hexdigest()
