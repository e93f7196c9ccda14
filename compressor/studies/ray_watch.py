"""A process of its own that outlives the one that started Ray, and then ends what Ray left. The standard library alone.

It is given a mark and a folder. Every process that Ray starts inherits the mark in its environment, so all of them are
found, whoever their parent is by now; the folder is Ray's, and is removed last.
"""

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

MARK = "COMPRESSOR_RAY"
"""The variable of the environment that says which Ray a process belongs to."""

SECONDS = 15.0
"""How long processes are looked for, as one that is just starting may not be seen at once."""

PROC = Path("/proc")


def main(mark: str, folder: str) -> None:
    """Wait for the end of the parent, or of its pipe, then end the processes of a mark and remove the folder."""
    parent = os.getppid()
    while not select.select([sys.stdin], [], [], 1.0)[0]:
        if os.getppid() != parent:  # a child of the parent may hold the pipe open
            break
    until, unseen = time.monotonic() + SECONDS, 0
    while unseen < 2 and time.monotonic() < until:
        found = [number for number in marked(mark) if _parent(number) != parent]
        for number in found:
            _kill(number)
        unseen = 0 if found else unseen + 1
        time.sleep(0.2)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def marked(mark: str) -> list[int]:
    """List the processes with a mark in their environment; none where the system does not tell."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in PROC.glob("[0-9]*"):
        try:
            if wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def _parent(number: int) -> int | None:
    try:
        return int((PROC / str(number) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _kill(number: int) -> None:
    try:
        os.kill(number, signal.SIGKILL)
    except OSError:
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
