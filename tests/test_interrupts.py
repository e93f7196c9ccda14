"""A signal at any time ends a command with 128 and its number, and never in a traceback."""

import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from terminal import TINY

from compressor import interrupts
from compressor.errors import Interrupted

BEGIN = "import os, sys; os.write(int(sys.argv.pop(1)), b'!'); from compressor.cli import main; sys.exit(main())"
"""What the console script does, after it told that Python itself, whose start nobody can guard, is ready."""
WORDS = ("run", *TINY, "order=P", "fit.epochs=300")


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, and wait until Python is ready to import it."""
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", BEGIN, str(writing), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(interrupts.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(writing,),
        start_new_session=True,
    )
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    return child


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    """Give how a command ended, and what it wrote to stderr."""
    _, err = child.communicate(timeout=300)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    return child.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("trials", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_signal_while_a_command_starts_is_one_line(trials: int, number: int, tmp_path: Path) -> None:
    for trial in range(trials):
        child = started(tmp_path, *WORDS)
        time.sleep(0.1 + 1.4 * trial / trials)
        os.killpg(child.pid, number)
        code, err = ended(child)
        assert (code, err.count("\n")) == (128 + number, 1), err
        assert err.startswith("compressor: interrupted")


@pytest.mark.parametrize("gap", [0.0, 0.1, pytest.param(0.02, marks=pytest.mark.slow)])
def test_a_second_and_a_third_signal_change_nothing(gap: float, tmp_path: Path) -> None:
    child = started(tmp_path, *WORDS)
    until = time.monotonic() + 120
    while not any(tmp_path.glob("outputs/store/.draft-*/history.jsonl")) and time.monotonic() < until:
        time.sleep(0.02)
    for _ in range(3):
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
        time.sleep(gap)
    code, err = ended(child)
    assert code == 130
    assert err.count("\n") <= 1
    assert any(tmp_path.glob("outputs/store/.draft-*/fit.safetensors")), "what was trained is saved"


def test_an_import_is_not_broken_off_by_a_signal(
    signals: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(0.2)\ndone = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def load() -> None:
        import_module("slow_to_import")
        time.sleep(5)

    with pytest.raises(Interrupted):
        load()
    assert sys.modules["slow_to_import"].done


def test_a_signal_that_a_callback_swallowed_comes_again(signals: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    interrupts.own()

    class Heard:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def forget() -> None:
        Heard()
        time.sleep(5)

    with pytest.raises(Interrupted) as caught:
        forget()
    assert caught.value.signal == signal.SIGTERM
