"""`kill -9` at any moment of a chain costs time and nothing else."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from terminal import TINY, process

from compressor.folders import digest_of

SETTINGS = (*TINY, "order=DPQE", "fit.epochs=3", "fit.warmup=0.5", "fit.ema=0.9", "runtime.save_seconds=0.02")


def command(store: Path) -> list[str]:
    return ["-m", "compressor", "run", *SETTINGS, f"store={store}", f"runs={store.parent / 'runs'}"]


def weights(store: Path) -> dict[str, str]:
    return {folder.name: digest_of(folder) for folder in store.iterdir() if not folder.name.startswith(".")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """The digests of an uninterrupted chain's steps, and how many seconds it worked after its store was there."""
    folder = tmp_path_factory.mktemp("whole")
    child = subprocess.Popen([sys.executable, *command(folder / "store")], cwd=folder, stdout=subprocess.DEVNULL)
    _wait_for(folder / "store", child)
    began = time.monotonic()
    assert child.wait(timeout=300) == 0
    return weights(folder / "store"), time.monotonic() - began


def _wait_for(store: Path, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not store.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def killed_then_typed_again(folder: Path, moment: float) -> tuple[int, dict[str, str]]:
    """Kill the command `moment` seconds into its work; give how it ended, and the digests after typing it again."""
    store = folder / "store"
    child = subprocess.Popen([sys.executable, *command(store)], cwd=folder, stdout=subprocess.DEVNULL)
    _wait_for(store, child)
    time.sleep(moment)
    child.kill()
    code = child.wait(timeout=60)
    again = process(*command(store), folder=folder)
    assert again.returncode == 0, again.stderr
    return code, weights(store)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("trials", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_a_chain_killed_at_random_moments_ends_in_equal_weights(
    trials: int, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    expected, latest = whole
    assert len(expected) == 5
    moments, killed = random.Random(trials), 0
    while killed < trials:
        folder = tmp_path / f"{killed}-{latest}"
        folder.mkdir()
        moment = moments.uniform(0, latest)
        code, found = killed_then_typed_again(folder, moment)
        assert found == expected, f"killed after {moment:.3f} s, ended with {code}"
        if code == -signal.SIGKILL:
            killed += 1
        else:  # it had ended before, as the machine is faster now; such a trial does not count
            latest = moment
