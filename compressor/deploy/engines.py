"""What runs one exported stage: onnxruntime, OpenVINO or numpy. Each is imported only when it is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from compressor.config.deploy import Engine, ExportFormat
from compressor.errors import ConfigError, ModelError
from compressor.memory import pass_on

Stage = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""Maps images, uint8 (n, C, H, W), or features to a head's outputs (n, outputs) and the next features.

Features are uint8 where they are on a grid, else float32, and are the stage's own memory: its next run overwrites them.
"""

READERS = {
    ExportFormat.ONNX: (Engine.ONNXRUNTIME, Engine.OPENVINO),
    ExportFormat.OPENVINO: (Engine.OPENVINO,),
    ExportFormat.PACKED: (Engine.TORCH, Engine.NUMPY),
}
"""The engines that read a format, the usual one first."""

PRECISIONS = {
    Engine.ONNXRUNTIME: ("fp32",),
    Engine.OPENVINO: ("fp32", "bf16"),
    Engine.TORCH: ("fp32",),
    Engine.NUMPY: ("fp32",),
}
"""What each engine computes exported files in, but for integers."""

EXTRAS = {Engine.ONNXRUNTIME: "onnx", Engine.OPENVINO: "openvino"}


def package(engine: Engine) -> ModuleType:
    """Import an engine's package; without it the error names the extra that brings it."""
    try:
        return import_module(engine.value)
    except ImportError:
        hint = f": pip install 'compressor[{EXTRAS[engine]}]'" if engine in EXTRAS else ""
        raise ConfigError(f"engine {engine} needs the package {engine}{hint}") from None


def installed(engine: Engine) -> bool:
    """Tell whether an engine can be used here."""
    try:
        package(engine)
    except ConfigError:
        return False
    return True


def version_of(name: str) -> str:
    """Give the version of a package that can be imported, such as an engine's, however it was installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return str(vars(import_module(name)).get("__version__", "unknown"))


def refuse_precision(engine: Engine, precision: str) -> None:
    """Refuse an arithmetic that an engine does not compute exported files in."""
    if precision not in PRECISIONS[engine]:
        raise ConfigError(f"precision {precision}: {engine} computes in {' or '.join(PRECISIONS[engine])}")


def open_stage(engine: Engine, path: Path, threads: int, precision: str) -> Stage:
    """Make a stage's file ready to run on the CPU; `threads` 0 lets the engine choose.

    `precision` is that of what is not integers: fp32, or with OpenVINO bf16.

    Raises:
        ConfigError: the engine is not installed, or has no such precision.
        ModelError: the engine cannot read the file; the stage raises it where the engine cannot run it.
    """
    refuse_precision(engine, precision)
    module = package(engine)
    with _named(engine, path):
        opened = (
            _openvino(path, threads, precision) if engine is Engine.OPENVINO else _onnxruntime(module, path, threads)
        )

    def run(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        with _named(engine, path):
            return opened(values)

    return run


@contextmanager
def _named(engine: Engine, path: Path) -> Iterator[None]:
    """Turn what an engine says against a file into one line that names both."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - engines raise classes of their own
        pass_on(error)
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: {engine} {version_of(engine)} cannot run it ({reason})") from None


@cache
def openvino_core() -> Any:
    """Give OpenVINO's core, one for the whole process.

    Each core lends the thread that makes it a stack for signals, takes it back when it goes, and restores the one
    before: of two that do not end in the opposite order, the second restores a stack that is gone, and the next
    Ctrl-C or SIGTERM ends the process with SIGSEGV.
    """
    return package(Engine.OPENVINO).Core()


def _onnxruntime(module: Any, path: Path, threads: int) -> Stage:
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = module.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (source,) = (each.name for each in session.get_inputs())
    names = _ordered([each.name for each in session.get_outputs()])

    def run(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        out, *features = session.run(names, {source: values})
        return out, features[0] if features else None

    return run


def _ordered(names: list[str]) -> list[str]:
    """Put a stage's `output` first; a second one is the features, whatever their name."""
    return sorted(names, key=lambda name: name != "output")


def _openvino(path: Path, threads: int, precision: str) -> Stage:
    hint = "f32" if precision == "fp32" else precision  # without one, OpenVINO takes bf16 wherever it is faster
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino_core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    names = [next(iter(port.get_names())) for port in compiled.outputs]
    ports = [names.index(name) for name in _ordered(names)]

    source = compiled.inputs[0]
    kind, shape = source.get_element_type().to_dtype(), [size.to_string() for size in source.get_partial_shape()][1:]

    def run(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        if values.dtype != kind or list(map(str, values.shape[1:])) != shape:  # it would read beyond their end
            raise ValueError(f"it reads {kind} [N, {', '.join(shape)}], not {values.dtype} {list(values.shape)}")
        request.infer({0: values}, share_inputs=True)
        out, *features = (request.get_output_tensor(port).data for port in ports)
        return np.array(out), features[0] if features else None

    return run
