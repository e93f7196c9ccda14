"""The command line as a user has it, called within this process or as one of its own."""

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from compressor import cli

TINY = ("fit=smoke", "fit.lr=0.01", "architecture.width=0.25", "dataset.limit=100", "runtime.progress=false")
"""Settings with which a phase takes well under a second."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def call(*words: str) -> Ended:
    """Run `compressor` with these words here, and leave this process as it was."""
    out, err = io.StringIO(), io.StringIO()
    with _untouched(), redirect_stdout(out), redirect_stderr(err):
        code = cli.main(words)
    return Ended(code, out.getvalue(), err.getvalue())


@contextmanager
def _untouched() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    try:
        yield
    finally:
        root.handlers[:] = before
        for number, handler in handlers.items():
            signal.signal(number, handler)


def process(*words: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` in a folder, as a process of its own."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cli.__file__).parents[1]), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
