"""Changed files of models end in the right answers or one line: nothing else, not late, and not for all the memory."""

import atexit
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import deployed
import mixtures
import mutated
import numpy as np
import pytest
import samples
import torch
from safetensors.torch import save_file

import compressor
from compressor.arch import Arch
from compressor.config.deploy import Engine, ExportFormat
from compressor.data import load_data
from compressor.deploy.export import export
from compressor.deploy.packing import rebuilt
from compressor.deploy.predict import open_model
from compressor.deploy.runtime import load_export
from compressor.errors import CompressorError
from compressor.folders import ARCH, MIXTURE, WEIGHTS
from compressor.importing import published
from compressor.mixture import run
from compressor.mixture.files import save_mixture
from compressor.model import Model, save

SECONDS, MEGABYTES = 20, 700
"""What reading a changed file of these few kilobytes may take at most, on a busy machine."""

Answer = Callable[[Path], np.ndarray]


@dataclass(frozen=True)
class Target:
    """Files that are read together, made once in `folder`, and how they answer.

    `proved` are those that a digest covers: to change one without a word is a fault.
    """

    folder: Path
    files: tuple[str, ...]
    answer: Answer
    proved: tuple[str, ...] = ()


@cache
def images() -> torch.Tensor:
    """Give eight real images."""
    return torch.from_numpy(np.array(load_data(samples.DATASET, samples.RUNTIME).test.images[:8]))


@torch.no_grad()
def of_weights(arch: Arch, file: str, folder: Path) -> np.ndarray:
    return published(arch, folder / file, {}, 0, images()).net.eval()(images())[-1].numpy()


@torch.no_grad()
def of_model(folder: Path) -> np.ndarray:
    return compressor.load(folder)(images())[-1].numpy()


def of_mixture(folder: Path) -> np.ndarray:
    return run(compressor.load_mixture(str(folder)), images()).outputs.numpy()


def of_predict(folder: Path) -> np.ndarray:
    return open_model(folder, Engine.AUTO, 1).predict(images().numpy()).outputs


def of_export(engine: Engine, folder: Path) -> np.ndarray:
    return load_export(folder, engine, 1).predict(images().numpy()).outputs


@torch.no_grad()
def of_packed(folder: Path) -> np.ndarray:
    return rebuilt(folder / "model.packed").net.eval()(images())[-1].numpy()


def weights(root: Path, model: Model) -> dict[str, Target]:
    """Write the files of weights that people publish."""
    state = model.net.state_dict()
    checkpoint = {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3, "lr": [0.1]}
    torch.save(state, root / "zip.pth")
    torch.save(checkpoint, root / "legacy.ckpt", _use_new_zipfile_serialization=False)
    torch.save({"model": checkpoint, "size": torch.Size([3])}, root / "checkpoint.bin")
    save_file(state, root / "plain.safetensors", {"format": "pt"})
    sums = {"zip.pth": True, "checkpoint.bin": True, "legacy.ckpt": False, "plain.safetensors": False}
    return {
        name: Target(root, (name,), partial(of_weights, model.arch, name), (name,) if proved else ())
        for name, proved in sums.items()
    }


def exports(root: Path, source: Path) -> dict[str, Target]:
    """Write every format."""
    test = load_data(samples.DATASET, samples.RUNTIME).test
    found = {}
    for config, engines in (
        (deployed.PACKED, (Engine.TORCH, Engine.NUMPY)),
        (deployed.ONNX, (Engine.ONNXRUNTIME, Engine.OPENVINO)),
        (deployed.OPENVINO, (Engine.OPENVINO,)),
    ):
        folder = root / config.format
        export(source, config, folder, test, samples.RUNTIME)
        names = tuple(sorted(path.name for path in folder.iterdir()))
        for engine in engines:
            found[f"{config.format} by {engine}"] = Target(folder, names, partial(of_export, engine), names)
    packed = root / ExportFormat.PACKED
    names = ("export.json", "model.packed")
    found["packed alone"] = Target(packed, ("model.packed",), of_packed)
    found["predict"] = Target(packed, names, of_predict, names)
    return found


@cache
def targets() -> dict[str, Target]:
    """Make everything that is read, once."""
    root = Path(mkdtemp(prefix="fuzzed-"))
    atexit.register(shutil.rmtree, root)
    plain = samples.model(samples.arch())
    for name in ("weights", "model", "mixture", "exports", "source"):
        (root / name).mkdir()
    save(samples.model(samples.compressed()), root / "model")
    save(deployed.exiting(), root / "source")
    save_mixture(mixtures.toy(), root / "mixture")
    step, *_ = samples.finish(samples.settings(root, "", samples.arch()), load_data(samples.DATASET, samples.RUNTIME))
    record = root / "store" / step.key
    found = weights(root / "weights", plain) | exports(root / "exports", root / "source")
    found["model"] = Target(root / "model", (ARCH, WEIGHTS), of_model)
    found["mixture"] = Target(root / "mixture", (MIXTURE, WEIGHTS), of_mixture)
    found["step"] = Target(record, (ARCH, WEIGHTS), of_model, (ARCH, WEIGHTS))
    found["step by predict"] = Target(record, (ARCH, WEIGHTS), of_predict, (ARCH, WEIGHTS))
    return found


@contextmanager
def limited() -> Iterator[None]:
    """Refuse what takes too long: the alarm ends what waits, the clock finds what computes."""

    def late(*_: object) -> None:
        raise TimeoutError(f"nothing was said in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    began = time.process_time()
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - began < SECONDS


def outcome(target: Target, folder: Path) -> np.ndarray | str:
    """Return the answers, or the line that refuses the files."""
    try:
        with limited():
            return target.answer(folder)
    except CompressorError as error:
        return str(error)


def fuzz(target: Target, seed: int, folder: Path, count: int) -> list[str]:
    """Change one file at a time; return what went wrong."""
    source, wanted, faults = random.Random(seed), target.answer(target.folder), []
    for number in range(count):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(target.folder, folder)
        for path in (folder, *folder.iterdir()):  # steps are read-only
            path.chmod(0o755)
        name = source.choice(target.files)
        path = folder / name
        content = path.read_bytes()
        if source.random() < 0.1:
            mutated.replace_by_oddity(path, source)
        else:
            change = mutated.changed_json if name.endswith(".json") else mutated.changed
            path.write_bytes(change(content, source))
        try:
            found = outcome(target, folder)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            faults.append(f"{name} {number}: {type(error).__name__}: {str(error)[:200]}")
            continue
        if isinstance(found, str):
            if not found.isprintable() or len(found) > 1000:
                faults.append(f"{name} {number}: {found[:200]!r}")
        elif found.shape != wanted.shape or (name in target.proved and not np.array_equal(found, wanted)):
            faults.append(f"{name} {number}: other answers, and not a word")
    return faults


def fuzzed(what: str, seed: int, folder: Path, count: int) -> None:
    target = targets()[what]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fuzz(target, seed, folder, count) == []
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


WHAT = (
    *("zip.pth", "checkpoint.bin", "legacy.ckpt", "plain.safetensors", "model", "mixture", "step", "step by predict"),
    *("packed by torch", "packed by numpy", "packed alone", "predict"),
    *("onnx by onnxruntime", "onnx by openvino", "openvino by openvino"),
)


@pytest.mark.parametrize("what", WHAT)
def test_changed_files_answer_rightly_or_are_refused_in_one_line(what, tmp_path) -> None:
    fuzzed(what, 0, tmp_path / "changed", 10)


@pytest.mark.slow
@pytest.mark.parametrize("what", WHAT)
def test_many_changed_files_answer_rightly_or_are_refused_in_one_line(what, tmp_path) -> None:
    fuzzed(what, 1, tmp_path / "changed", 60)
