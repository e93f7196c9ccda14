"""What a result was computed with, and for how long: also over the sittings of a step that was interrupted."""

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path

from compressor.checked import checked, read_checked
from compressor.codec import decode
from compressor.config import RuntimeConfig
from compressor.errors import CompressorError
from compressor.folders import write_json

NOTE = "draft.json"
"""A draft's note of the environment it was begun in and the seconds it took so far."""

SCHEMA = 1
"""The version of the note; earlier ones said none, and had no check."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Environment:
    """Versions and the machine. `threads` is a number, or `auto/CORES` where it is chosen for the network."""

    python: str
    torch: str
    compressor: str
    machine: str
    cpu: str
    threads: str
    device: str

    def difference(self, earlier: "Environment") -> str:
        """Name what differs of that which can change the last bits of a result, such as `torch 2.5 -> 2.6`; or ''."""
        pairs = ((f.name, getattr(earlier, f.name), getattr(self, f.name)) for f in fields(self))
        ignored = ("python", "compressor")
        return ", ".join(f"{name} {was} -> {now}" for name, was, now in pairs if was != now and name not in ignored)


def environment_of(runtime: RuntimeConfig) -> Environment:
    """Describe this process, without importing torch."""
    return Environment(
        python=platform.python_version(),
        torch=_version("torch"),
        compressor=_version("compressor"),
        machine=f"{platform.system()} {platform.machine()}",
        cpu=_cpu(),
        threads=str(runtime.threads or f"auto/{os.cpu_count()}"),
        device=runtime.device,
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@contextmanager
def sitting(draft: Path, environment: Environment) -> Iterator[Callable[[], float]]:
    """Give the clock of a step, in seconds over all its sittings; an end by an error or a signal notes them.

    Says in one line where the step goes on in another environment than it was begun in.
    """
    earlier, began = _earlier(draft, environment), time.monotonic()

    def seconds() -> float:
        return earlier + time.monotonic() - began

    _note(draft, environment, earlier)
    try:
        yield seconds
    except BaseException:
        with suppress(OSError):  # what went wrong first counts, and the disk may be full
            _note(draft, environment, seconds())
        raise


def _note(draft: Path, environment: Environment, seconds: float) -> None:
    write_json(draft / NOTE, checked({"environment": environment, "seconds": seconds}, SCHEMA))


def _earlier(draft: Path, environment: Environment) -> float:
    if not (draft / NOTE).exists():
        return 0.0
    try:
        note = read_checked(draft / NOTE, "note of a draft", SCHEMA, earlier=(None,))
        begun, seconds = decode(Environment, note.get("environment"), NOTE), decode(float, note.get("seconds"), NOTE)
    except CompressorError as error:  # only a note: the training's state is checked apart
        log.warning("%s; the step goes on, and its seconds are counted anew", error)
        return 0.0
    if difference := environment.difference(begun):
        step = draft.name.removeprefix(".draft-")
        log.warning("%s goes on in another environment (%s); its last bits may differ", step, difference)
    return seconds
