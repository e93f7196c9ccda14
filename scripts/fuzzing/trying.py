"""Run commands in forked children, which need not import torch again, within limits; and say how they ended."""

import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
BLOWN = 3 * GIB // 2
"""Bytes of memory that a command may take beyond what its parent had."""
ADDRESSES = 4 * GIB
"""Bytes of addresses that it gets beyond those, so that a blow-up cannot harm the machine."""
OWNED = "OWNED"
"""The file in its working folder by which a mutated file shows that it ran code."""

WRITTEN = "answers.csv"
"""The file whose content counts as what a command says."""

VARYING = (
    (re.compile(r"\d{4}-\d{2}-\d{2}[T_ ][\d:.\-]+"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? (m?s|min|h)\b"), "SECONDS"),
    (re.compile(r"\s\d+\.\d\s*$", re.MULTILINE), " SECONDS\n"),  # the last column of a chain's table
)
"""What differs from one call to the next."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, minus a signal's number; what it wrote; its memory in bytes; its seconds."""

    code: int
    out: str
    err: str
    memory: int
    seconds: float
    owned: bool

    @property
    def numbers(self) -> str:
        """What it printed, but for times and the blanks that tables are filled with."""
        text = self.out
        for pattern, name in VARYING:
            text = pattern.sub(name, text)
        return " ".join(text.split())


@dataclass
class Running:
    """A child that runs a command."""

    number: int
    place: Path
    began: float
    limit: float
    killed: bool = False

    def done(self) -> Ended | None:
        """Say how it ended, or None while it runs; one that hangs is killed."""
        number, status, used = os.wait4(self.number, os.WNOHANG)
        if not number:
            if time.monotonic() - self.began > self.limit and not self.killed:
                self.killed = True
                os.killpg(self.number, signal.SIGKILL)
            return None
        code = -signal.SIGXCPU if self.killed else os.waitstatus_to_exitcode(status)
        texts = [(self.place / name).read_bytes().decode(errors="replace") for name in ("stdout", "stderr")]
        seconds = time.monotonic() - self.began
        owned = (self.place / "work" / OWNED).exists()
        written = self.place / "work" / WRITTEN
        answers = written.read_bytes().decode(errors="replace") if written.is_file() else ""
        return Ended(code, texts[0] + answers, texts[1], used.ru_maxrss * 1024, seconds, owned)

    def kill(self) -> None:
        """End it, as nobody waits for it any more."""
        with suppress(ProcessLookupError):
            os.killpg(self.number, signal.SIGKILL)
        remove(self.place)

    @property
    def hung(self) -> bool:
        """Whether it was killed because it hung."""
        return self.killed


def begin(
    origin: Path, place: Path, words: Sequence[str], change: Callable[[Path], None], limit: float = 600.0
) -> Running:
    """Fork a child that copies a folder, changes the copy, and runs a command in it; it hangs after `limit` seconds."""
    remove(place)
    place.mkdir(parents=True)
    for name in ("stdout", "stderr"):
        (place / name).touch()
    number = os.fork()
    if number:
        return Running(number, place, time.monotonic(), limit)
    code = 70
    try:
        os.setsid()
        _redirect(place)
        shutil.copytree(origin, place / "work", symlinks=True)
        os.chdir(place / "work")
        change(place / "work")
        code = _call(words)
    except BaseException:  # noqa: BLE001 - it is what is looked for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(place: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_APPEND), number)


def _call(words: Sequence[str]) -> int:
    from compressor import cli

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, used + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (GIB, GIB))
    try:
        return cli.main(words)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1


def wait(running: Running) -> Ended:
    """Wait for the end of a child."""
    while (ended := running.done()) is None:
        time.sleep(0.02)
    return ended


def remove(place: Path) -> None:
    """Remove the folder of a child, whatever rights its files got."""
    shutil.rmtree(place, ignore_errors=True)
