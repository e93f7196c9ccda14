"""Cheap steps on the real digits, in which things go wrong as planted: what executors must survive."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import samples

from compressor import interrupts
from compressor.cli import complain
from compressor.config import BaselineConfig, RuntimeConfig
from compressor.config.execution import ExecutionConfig
from compressor.data import load_data
from compressor.data.types import Data
from compressor.errors import CompressorError, Interrupted, TrainingError
from compressor.model import Model, fresh
from compressor.phase import BY_NAME, Phase
from compressor.pipeline import Source, Step
from compressor.studies.execution import Tally, Workplace, execute
from compressor.training import Context


@dataclass(frozen=True)
class Planted:
    """`act`: what happens in the step, the first `times` times that it is run; `seconds`: what it takes besides."""

    name: str
    act: str = ""
    times: int = 1
    seconds: float = 0.0


def technique(config: Planted, context: Context, model: Model | None = None, other: Model | None = None) -> Model:
    """Say in the log that it starts, do what is planted, and give the model on, or a new one."""
    log = context.files["log"]
    with log.open("a") as file:
        file.write(f"{config.name} {os.getpid()} {context.runtime.threads}\n")
    if starts(log).count(config.name) <= config.times:
        _misbehave(config.act, context)
    time.sleep(config.seconds)
    with log.open("a") as file:
        file.write(f"end-{config.name} {os.getpid()} {context.runtime.threads}\n")
    return model or fresh(samples.arch(), seed=0)


def _misbehave(act: str, context: Context) -> None:
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "fail":
        raise TrainingError("a planted failure; plant none")
    if act == "crash":
        raise RuntimeError("a planted defect")
    if act == "exit":
        os._exit(3)
    if act == "vanish":
        root = context.scratch.parent
        root.rename(root.with_name("elsewhere"))


def step(name: str, *inputs: Source, data: Data, act: str = "", times: int = 1, seconds: float = 0.0) -> Step:
    """Give a step that reads up to two others."""
    roles = ("model", "other")[: len(inputs)]
    phase = Phase("planted", "X", 1, Planted, "planted:technique", roles)
    return Step(phase, Planted(name, act, times, seconds), tuple(zip(roles, inputs, strict=True)), data.fingerprint)


def workplace(root: Path, runtime: RuntimeConfig = samples.RUNTIME) -> Workplace:
    """Give a place whose store and log are below `root`."""
    return Workplace(root / "store", samples.DATASET, runtime, {"log": root / "log"})


def starts(log: Path) -> list[str]:
    """List the names of the steps that were started, in order; `end-NAME` where one came to its end."""
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def pids(log: Path) -> dict[str, int]:
    """Give the process that each step was started in last."""
    words = [line.split() for line in log.read_text().splitlines()]
    return {word[0]: int(word[1]) for word in words}


def training(data: Data, epochs: int) -> Step:
    """Give a baseline that trains for so many epochs of some milliseconds."""
    config = BaselineConfig(samples.arch(), None, {}, replace(samples.FIT, epochs=epochs))
    return Step(BY_NAME["baseline"], config, (), data.fingerprint)


def until(condition: Callable[[], object], seconds: float = 400.0) -> None:
    """Wait for something to become true."""
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest, "it has not happened"
        time.sleep(0.02)


def driver(root: Path, *words: str) -> subprocess.Popen[str]:
    """Start `main` as a process in a group of its own."""
    here = Path(__file__).parent
    paths = f"{here}{os.pathsep}{here.parent}"
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "PLANTED": str(root)}
    command = [sys.executable, str(Path(__file__)), str(root), *words]
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)


def family(root: Path) -> dict[int, str]:
    """Give the processes that the driver of a root has started, and itself, with their command lines."""
    wanted, found = f"PLANTED={root}".encode(), {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


class Watcher:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.tallies: list[Tally] = []

    def __call__(self, tally: Tally) -> None:
        self.tallies.append(tally)


def main(words: list[str]) -> int:
    """Run a study of a training and a step after it: ROOT EXECUTOR WORKERS ADDRESS EPOCHS."""
    interrupts.install()
    data = load_data(samples.DATASET, samples.RUNTIME)
    steps = [first := training(data, int(words[4])), step("after", first, data=data)]
    config = ExecutionConfig(words[1], int(words[2]), words[3], cpus=1, retries=0)
    try:
        outcomes = execute(steps, workplace(Path(words[0])), config)
    except Interrupted as interrupt:
        return 128 + interrupt.signal
    except CompressorError as error:
        return complain(error)
    return len([outcome for outcome in outcomes.values() if outcome.error])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
