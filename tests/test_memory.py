"""Too little memory is one line, exit code 2, and finished steps stay."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from terminal import TINY

from compressor import memory
from compressor.data import images
from compressor.errors import ShortageError
from compressor.folders import disk
from compressor.store import Store

LIMITED = """
import resource, sys, torch
import compressor.commands, compressor.composing, compressor.training
from compressor.cli import main
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + int(sys.argv.pop(1)) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
sys.exit(main())
"""


def limited(room: int, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with so many MiB beside what Python, torch and this program take."""
    here = str(Path(memory.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(room), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": here},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the size of this process")
def test_too_little_memory_is_one_line_and_finished_steps_stay(tmp_path: Path) -> None:
    small = (*TINY, "order=", "fit.epochs=0")
    assert limited(4000, tmp_path, "run", *small).returncode == 0
    wide = [word for word in small if not word.startswith("architecture.width")]
    ended = limited(150, tmp_path, "run", *wide, "architecture=resnet18", "architecture.width=8")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert ended.stderr.startswith("compressor: out of memory")
    assert "lower fit.batch, dataset.limit" in ended.stderr
    store = Store(tmp_path / "outputs" / "store")
    assert [store.record(path.name) is not None for path in store.root.glob("[a-z]*-*")] == [True]


def test_every_library_is_understood() -> None:
    with pytest.raises(MemoryError) as array:
        np.empty(2**60, np.uint8)
    with pytest.raises(RuntimeError) as tensor:
        torch.empty(2**60, dtype=torch.uint8)
    others = (
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity"),
        RuntimeError("Exception from src/core: std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 99"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
    )
    assert all(memory.is_shortage(error) for error in (array.value, tensor.value, *others))
    assert "asked for at once); lower predict.batch, or" in str(memory.shortage(tensor.value, "predict"))
    assert "(2.00 GiB were asked for" in str(memory.shortage(others[1]))


def test_other_errors_are_none() -> None:
    assert not any(map(memory.is_shortage, (ValueError("no"), OSError(errno.ENOENT, "gone"), KeyboardInterrupt())))


def test_a_shortage_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Cannot allocate"), disk(tmp_path):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def test_an_image_that_memory_is_too_short_for_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(images, "decoded", short)
    file = images.ImageFile("train", "a.png", "a.png", 0)
    with pytest.raises(MemoryError):
        list(images.read_files([file], 8, 1, 1))


def test_the_line_is_bad_input_of_its_own_kind() -> None:
    assert memory.shortage(MemoryError()).code == 2
    assert isinstance(memory.shortage(MemoryError()), ShortageError)
