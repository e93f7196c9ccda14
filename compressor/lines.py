"""Lines for a terminal: what is in them is shown and not obeyed, whoever wrote it."""

import logging
import re
from typing import TextIO

from compressor.naming import printable


def line(text: str) -> str:
    """Return a text as one line in which nothing moves the cursor, changes colours or turns words around."""
    return printable(re.sub(r"\s*\n\s*", " ", text.strip()).replace("\t", " "))


def write(stream: TextIO, text: str) -> None:
    """Write one line at once."""
    stream.write(f"{line(text)}\n")
    stream.flush()


class Printable:
    """A filter of logging that makes messages printable; configs/run.yaml gives it to all handlers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace a record's message; tabs and the ends of lines, which logs of Hydra have, stay."""
        parts = re.split(r"([\n\t])", record.getMessage())
        record.msg = "".join(part if part in ("\n", "\t") else printable(part) for part in parts)
        record.args = None
        return True
