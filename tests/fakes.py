"""A tiny stand-in for torch, networks and training, so that steps and their store are tested alone, in milliseconds."""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from compressor.arch import Task, TaskKind
from compressor.config import AugmentConfig, RuntimeConfig
from compressor.data.types import Data, Split
from compressor.errors import Interrupted
from compressor.phase import Phase
from compressor.pipeline import Bench, Source, Step, run
from compressor.progress import silent
from compressor.records import Cost, Measurement, Quality, Record, SplitMetrics, Value
from compressor.store import Store, digest_of


@dataclass(frozen=True)
class FakeConfig:
    amount: int = 1
    seconds: float = 0.0
    stop_after: int = -1


@dataclass
class FakeModel:
    arch: Any
    weights: bytes


@dataclass(frozen=True)
class FakeContext:
    data: Data
    scratch: Path
    runtime: RuntimeConfig
    files: dict[str, Path]
    progress: Any


def technique(config: FakeConfig, context: FakeContext, **models: FakeModel) -> FakeModel:
    """Mix the inputs in steps that resume from the scratch folder; with `stop_after`, stop once before that step."""
    with (context.files["log"]).open("a") as log:
        log.write(context.scratch.name.removeprefix(".draft-") + "\n")
    state, began = context.scratch / "fit.json", time.monotonic()
    done = json.loads(state.read_text()) if state.exists() else []
    for i in range(len(done), 4):
        if i == config.stop_after and not (context.scratch / "fit.stopped").exists():
            (context.scratch / "fit.stopped").touch()
            raise Interrupted(15)
        done.append(i + config.amount)
        state.write_text(json.dumps(done))
        with (context.scratch / "history.jsonl").open("a") as history:
            history.write(json.dumps({"epoch": i}) + "\n")
    (context.scratch / "tb").mkdir(exist_ok=True)
    (context.scratch / "tb" / "events").write_text("curves")
    time.sleep(max(0.0, config.seconds - (time.monotonic() - began)))
    mixed = hashlib.sha256(json.dumps(done).encode())
    for role in sorted(models):
        mixed.update(role.encode() + models[role].weights)
    return FakeModel({"size": sum(done), "quantization": None}, mixed.digest() * 4)


def load(folder: Path) -> FakeModel:
    return FakeModel(json.loads((folder / "arch.json").read_text()), (folder / "weights.safetensors").read_bytes())


def save(model: FakeModel, folder: Path) -> str:
    (folder / "arch.json").write_text(json.dumps(model.arch))
    (folder / "weights.safetensors").write_bytes(model.weights)
    return digest_of(folder)


measured: list[bytes] = []


def measure(model: FakeModel, data: Data, runtime: RuntimeConfig) -> Measurement:
    measured.append(model.weights)
    quality = Quality(10, float(model.weights[0]), {"accuracy": Value(0.5, 0.4, 0.6)})
    size = 1 + model.weights[1]
    split = SplitMetrics(quality, (quality,), (1.0,), float(size), float(size * 1024))
    return Measurement(split, split, Cost(size, size, size * 1024, size * 32, checkpoint_bytes=0))


def modules() -> dict[str, ModuleType]:
    """Give what `sys.modules` must hold for the kernel to find the fakes."""
    contents: dict[str, dict[str, Any]] = {
        "compressor.model": {"load": load, "save": save},
        "compressor.measure": {
            "measure": measure,
            "settle": lambda model, data, runtime: None,
            "worst_macs": lambda model: 1 + model.weights[1],
        },
        "compressor.training": {"Context": FakeContext},
        "fake_techniques": {"technique": technique},
    }
    found = {}
    for name, attributes in contents.items():
        found[name] = ModuleType(name)
        vars(found[name]).update(attributes)
    return found


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel find the fakes in this process."""
    measured.clear()
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)


def phase(name: str, letter: str, reads: tuple[str, ...] = ("model",), version: int = 1) -> Phase:
    return Phase(name, letter, version, FakeConfig, "fake_techniques:technique", reads)


BASELINE = phase("baseline", "B", ())
PHASES = {
    "D": phase("distill", "D", ("model", "teacher")),
    "P": phase("prune", "P"),
    "Q": phase("quantize", "Q"),
    "E": phase("exit", "E"),
}


def data(fingerprint: str = "data") -> Data:
    split = Split(np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4, np.int64))
    task = Task(TaskKind.MULTICLASS, 10, tuple("0123456789"))
    return Data("fake", fingerprint, task, 1, 8, (0.5,), (0.5,), AugmentConfig(0, False, 0), split, split, split)


RUNTIME = RuntimeConfig("cpu", 1, 0, None, False, 60.0)


def baseline(config: FakeConfig = FakeConfig()) -> Step:
    return Step(BASELINE, config, (), "data")


def chain(order: str, config: FakeConfig = FakeConfig(), start: Source | None = None) -> Step:
    first = last = start or baseline(config)
    for letter in order:
        roles = {"model": last, "teacher": first}
        last = Step(PHASES[letter], config, tuple((role, roles[role]) for role in PHASES[letter].reads), "data")
    assert isinstance(last, Step)
    return last


def bench(root: Path, fingerprint: str = "data") -> Bench:
    return Bench(Store(root / "store"), data(fingerprint), RUNTIME, {"log": root / "log"}, silent)


def finish(root: Path, step: Step, fingerprint: str = "data") -> tuple[Record, list[Any]]:
    """Run a step below `root`; give its record and what was reported."""
    reported: list[Any] = []
    record = run(step, bench(root, fingerprint), lambda *line: reported.append(line))
    return record, reported


def copied(record: Record, root: Path, target: Path) -> Path:
    """Copy a finished step out of the store, as a user may."""
    shutil.copytree(Store(root / "store").folder(record.key), target)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def ran(root: Path) -> list[str]:
    """List the keys of the techniques that were started, in order."""
    return (root / "log").read_text().split() if (root / "log").exists() else []


def kill_at(count: int, root: Path) -> None:
    """Kill this process at the count-th time it is about to touch a file below `root`."""
    left = count

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        touches = event in ("open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.rmdir", "os.link")
        if touches and str(root) in str(details[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main(words: list[str]) -> None:
    """Run an order in a process of its own: ROOT ORDER SECONDS KILL_AT (0: live)."""
    sys.modules.update(modules())
    root = Path(words[0])
    if int(words[3]):
        kill_at(int(words[3]), root)
    _, reported = finish(root, chain(words[1], FakeConfig(seconds=float(words[2]))))
    sys.stdout.writelines(f"{source.key} {stored}\n" for source, _, _, stored in reported)


if __name__ == "__main__":
    main(sys.argv[1:])
