"""This machine: what of its processor matters to arithmetic, its load, and versions."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

FAST = ("sse4_2", "avx2", "avx512", "avx_vnni", "avxvnni", "amx", "avx10", "asimddp", "i8mm", "sve", "bf16")
"""What the names of processor flags that change the speed of arithmetic begin with; any x86 has sse4_2."""
BF16 = ("amx_bf16", "avx512_bf16", "bf16")
VNNI = ("avx512_vnni", "avx_vnni")
"""Flags of x86 processors that add products of 8-bit integers in 32 bits; without one, kernels saturate at 16."""
X86 = ("x86_64", "amd64", "i386", "i686")
PACKAGES = ("compressor", "torch", "onnx", "onnxruntime", "openvino", "numpy")


@dataclass(frozen=True)
class Machine:
    """`cores` are those this process may use, `load` the processes that wanted one in the last minute, at the start."""

    cpu: str
    cores: int
    flags: tuple[str, ...]
    system: str
    load: float | None
    versions: dict[str, str]

    @property
    def bf16(self) -> bool:
        """Whether the processor computes in bf16."""
        return not set(self.flags).isdisjoint(BF16)

    @property
    def saturates(self) -> bool | None:
        """Whether kernels for 8-bit integers add products in 16 bits; None where the processor's flags are unknown."""
        if not self.system.lower().endswith(X86):
            return False
        return set(self.flags).isdisjoint(VNNI) if self.flags else None


def machine() -> Machine:
    """Describe this machine, without importing torch or an engine."""
    lines = _cpuinfo()
    return Machine(
        cpu=next((value for name, value in lines if name == "model name"), platform.processor()),
        cores=cores(),
        flags=fast_flags(next((value for name, value in lines if name in ("flags", "Features")), "")),
        system=f"{platform.system()} {platform.machine()}",
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        versions={"python": platform.python_version()} | {name: package_version(name) for name in PACKAGES},
    )


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fast_flags(words: str) -> tuple[str, ...]:
    """Choose the flags that matter, sorted."""
    return tuple(sorted(word for word in set(words.split()) if word.startswith(FAST)))


def _cpuinfo() -> list[tuple[str, str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    parts = [line.partition(":") for line in text.splitlines()]
    return [(name.strip(), value.strip()) for name, _, value in parts]


def package_version(package: str) -> str:
    """Return the version of a package, or that it is not installed; the package is not imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
