"""Peak memory of one network on one engine, in a process of its own: `python -m compressor.deploy.bench_memory`.

A process's peak never falls again, and engines share pools, so each measurement needs a fresh one.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.errors import CompressorError, ModelError

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Peak:
    """Bytes of memory at most. `growth`: beyond what the process had before the network was read."""

    peak: int
    growth: int


def measured() -> bool:
    """Say whether this system tells a process's peak."""
    return STATUS.exists()


def peak_of(folder: Path, engine: str, precision: str, threads: int, images: np.ndarray) -> Peak:
    """Read a network in a fresh process, let it answer the images once as one batch, and give the process's peak.

    Raises:
        ModelError: the process failed; the last line it wrote says why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "images.npy"
        np.save(file, images)
        words = [str(folder), engine, precision, str(threads), str(file)]
        done = subprocess.run(  # noqa: S603 - our own module, started by our own interpreter
            [sys.executable, "-m", __name__, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(word for word in sys.path if word)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise ModelError(f"{folder}: peak memory on {engine} cannot be measured: {said[-1]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def main(words: list[str]) -> int:
    """Print the peak as JSON; words: FOLDER ENGINE PRECISION THREADS IMAGES.npy."""
    folder, engine, precision, threads, file = words
    from compressor.deploy.bench_engines import ready, runner

    images = np.load(file)
    ready(engine)
    before = _peak()
    try:
        runner(Path(folder), engine, precision, int(threads))(images)
    except CompressorError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    after = _peak()
    sys.stdout.write(json.dumps({"peak": after, "growth": after - before}) + "\n")
    return 0


def _peak() -> int:
    """Give this process's peak resident memory: not getrusage's, which a child inherits from its parent."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
