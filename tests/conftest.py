"""What every test may ask for; torch runs on one thread, which is fastest for networks this small."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import samples
import torch
from absl import logging

from compressor import interrupts
from compressor.data import load_data
from compressor.data.types import Data
from compressor.training import Context

torch.set_num_threads(1)
logging.get_absl_handler().python_handler.stream = sys.__stderr__  # else it closes a captured one; openvino brings it
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True
)  # equal examples, however busy the machine
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def digits() -> Data:
    """120 of the embedded handwritten digits in each split, 8 x 8 grey pixels."""
    return load_data(samples.DATASET, samples.RUNTIME)


@pytest.fixture
def context(digits: Data, tmp_path: Path) -> Context:
    """What a phase gets that trains on the digits; its scratch folder is empty."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Context(digits, scratch, samples.RUNTIME)


@pytest.fixture
def unpickled() -> Iterator[list[tuple[str, str]]]:
    """Collect (module, name) of every class or function that unpickling asks for while the test runs."""
    found: list[tuple[str, str]] = []
    active = True

    def hear(event: str, args: tuple) -> None:
        if active and event == "pickle.find_class":
            found.append(args)

    sys.addaudithook(hear)  # it cannot be removed, so it is switched off
    yield found
    active = False


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let SIGTERM and SIGINT raise `Interrupted` while the test runs; the given function forgets one that came."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts.install()

    def forget() -> None:
        monkeypatch.setattr(interrupts, "_pending", None)

    forget()
    yield forget
    for number, handler in before.items():
        signal.signal(number, handler)
