"""The engines that networks are timed on: which are installed, and how each is made to answer images."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.config.deploy import ExportFormat
from compressor.deploy.bench_stats import Runner
from compressor.errors import ConfigError
from compressor.folders import MIXTURE, form_of

if TYPE_CHECKING:
    from compressor.deploy.runtime import Routes
    from compressor.mixture import Answers


@dataclass(frozen=True)
class Engine:
    """The packages an engine needs, the extra that brings them, its files' format (None: the checkpoint's own)."""

    packages: tuple[str, ...]
    extra: str
    format: ExportFormat | None
    bf16: bool


ENGINES = {
    "torch": Engine(("torch",), "", None, bf16=True),
    "onnxruntime": Engine(("onnx", "onnxruntime"), "onnx", ExportFormat.ONNX, bf16=False),
    "openvino": Engine(("openvino",), "openvino", ExportFormat.OPENVINO, bf16=True),
}


def choose(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the engines to time, and a line for each that `auto` leaves out.

    Raises:
        ConfigError: an engine was asked for by name whose package is not installed.
    """
    wanted = tuple(ENGINES) if tuple(names) == ("auto",) else tuple(names)
    lacking = {name: _lack(name) for name in wanted}
    absent = [line for line in lacking.values() if line]
    if absent and tuple(names) != ("auto",):
        raise ConfigError(f"bench.engines={','.join(names)}: {absent[0]}")
    return tuple(name for name in wanted if not lacking[name]), tuple(absent)


def _lack(name: str) -> str:
    engine = ENGINES[name]
    missing = [package for package in engine.packages if find_spec(package) is None]
    return f"{name} needs the package {missing[0]}: pip install 'compressor[{engine.extra}]'" if missing else ""


def ready(engine: str) -> None:
    """Import what an engine needs before it can read a network, so that its own memory is not the network's."""
    names = ("compressor.mixture",) if engine == "torch" else ("compressor.deploy.runtime", engine)
    for name in names:
        import_module(name)


def runner(folder: Path, engine: str, precision: str, threads: int) -> Runner:
    """Read a network, a checkpoint's folder for torch and an export's for the others, and give what answers images."""
    if engine == "torch":
        return _torch(folder, precision, threads)
    from compressor.deploy.runtime import Exported, load_export

    exported = load_export(folder, engine=engine, threads=threads, precision=precision)
    if isinstance(exported, Exported):
        return lambda images: exported.predict(images).exits
    counts = [len(expert.stages) for expert in exported.experts]
    return lambda images: _left(exported.predict(images), counts)


def _left(found: "Answers | Routes", counts: Sequence[int]) -> np.ndarray:
    """Number the heads that a mixture's answers were given at; `counts` are each expert's heads."""
    return (np.asarray(found.heads) + np.cumsum([0, *counts[:-1]]))[np.asarray(found.weights) > 0]


def _torch(folder: Path, precision: str, threads: int) -> Runner:
    """Answer as a checkpoint does: after each exit only the images that stay go on, and only chosen experts are run."""
    import torch

    from compressor.compute import on_threads

    net, answer = (_mixture if form_of(folder) == MIXTURE else _model)(folder)
    bf16 = precision == "bf16"
    net.eval()
    if bf16:
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def run(images: np.ndarray) -> np.ndarray:
        with on_threads(threads), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return answer(images)

    return run


def _model(folder: Path) -> tuple[Any, Runner]:
    from compressor.data.types import Split
    from compressor.model import load
    from compressor.routing import route

    model = load(folder)
    return model.net, lambda images: route(model, Split(images, np.empty(0)), batch=len(images))[1].numpy()


def _mixture(folder: Path) -> tuple[Any, Runner]:
    from torch import from_numpy

    from compressor.mixture import load_mixture, run

    mixture = load_mixture(folder)
    counts = [len(expert.net.cuts) for expert in mixture.experts]
    return mixture.net, lambda images: _left(run(mixture, from_numpy(images)), counts)
