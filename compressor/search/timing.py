"""The table of layers' timings, measured on this machine's runtime, and how far it is from whole networks."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls

from compressor.arch import Bits, Quantization
from compressor.calibration import calibrate_weights
from compressor.checked import checked, read_checked
from compressor.codec import decode
from compressor.compute import on_threads
from compressor.config.deploy import Engine
from compressor.deploy.engines import installed, open_stage
from compressor.deploy.graph import stages_of
from compressor.deploy.nodes import FEATURES, IMAGES, OUTPUT, Graph, Grid, Kind, Round, Value
from compressor.deploy.nodes import Layer as Node
from compressor.errors import CompressorError, StoreError
from compressor.folders import write_json
from compressor.layers import Act
from compressor.model import Model
from compressor.phases.joint import assigned
from compressor.search.latency import Table, Timing
from compressor.search.space import EDGE, Layer, Space

SCHEMA = 1
"""The version of a table's file; earlier ones said none, and had no check."""

SHARES = (0.0, 0.3, 0.55, 0.8, 1.0)
"""Shares of a layer's channels that it is timed at, on each side; 0 is one channel.

Most are no multiples of 8 channels, as most that a search tries: onnxruntime takes longer for these.
"""

FITTED, CHECKED = SHARES, (0.9, 0.75, 0.5, 0.35)
"""Shares of all axes of the whole networks that the table is fitted to, and of those that tell its error."""

SECONDS, FEWEST = 0.02, 15
"""What is timed runs for so long, and at least so often; its first decile counts, which others disturb least."""

STEP = 0.05
"""The step of activations; times do not depend on it."""


@dataclass(frozen=True)
class Check:
    """A whole network of `share` of all channels: what the table says that it takes, and what it takes."""

    share: float
    predicted_ms: float
    measured_ms: float


@dataclass(frozen=True)
class LatencyRecord:
    """The table and how it was made: of one image, on one thread, at 8 bits.

    `factor` is what layers' own timings, less that of a call, were multiplied by to fit networks of some shares of all
    channels; `error` is the largest share by which the table is off a network that it was not fitted to.
    """

    engine: str
    table: Table
    factor: float
    error: float
    checks: tuple[Check, ...]
    seconds: float


def latency_of(model: Model, space: Space, path: Path) -> LatencyRecord:
    """Read the timings of a file, or measure them and write it, so that a search that goes on has the same limits.

    Raises:
        StoreError: the file is no table of this network.
    """
    if not path.exists():
        write_json(path, checked(measured(model, space), SCHEMA))
    record = read_latency(path)
    if record.table.layers.keys() != {layer.name for layer in space.layers}:
        raise StoreError(f"{path}: has the layers of another network; remove it to time the layers again")
    return record


def read_latency(path: Path) -> LatencyRecord:
    """Return the timings of a file.

    Raises:
        StoreError: the file is gone, cut, changed or of another program.
    """
    try:
        said = read_checked(path, "table of layers' times", SCHEMA, earlier=(None,))
        said.pop("schema", None)
        return decode(LatencyRecord, said)
    except CompressorError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise StoreError(f"{path}: {text}; remove it to time the layers again") from None


def runtime() -> Engine:
    """Choose what times are taken on: onnxruntime or OpenVINO where installed, else torch."""
    return next((each for each in (Engine.ONNXRUNTIME, Engine.OPENVINO) if installed(each)), Engine.TORCH)


def measured(model: Model, space: Space, engine: Engine | None = None) -> LatencyRecord:
    """Time every layer at several widths, and whole networks to fit the sum of them and to tell how far it is off."""
    began, engine = time.monotonic(), engine or runtime()
    with tempfile.TemporaryDirectory() as name, on_threads(1), torch.inference_mode():
        folder = Path(name)
        layers = _layers(space, engine, folder)
        whole = {share: _time(_network(engine, folder, model, space, share)) for share in (*FITTED, *CHECKED)}
    rough = Table(layers, 0)
    factor, base = _line([_sum(rough, space, share) for share in FITTED], [whole[share] for share in FITTED])
    scaled = {
        name: Timing(each.into, each.out, tuple(tuple(round(factor * t) for t in row) for row in each.nanoseconds))
        for name, each in layers.items()
    }
    table = Table(scaled, base)
    checks = tuple(Check(share, _sum(table, space, share) / 1e6, whole[share] / 1e6) for share in CHECKED)
    error = max(abs(check.predicted_ms / check.measured_ms - 1) for check in checks)
    return LatencyRecord(str(engine), table, factor, error, checks, round(time.monotonic() - began, 3))


def _line(sums: list[int], taken: list[int]) -> tuple[float, int]:
    """Give the factor and the base, neither below 0, with which sums of layers come nearest to whole networks."""
    (factor, base), _ = nnls(np.array([[each, 1.0] for each in sums]), np.array(taken, float))
    return float(factor), round(base)


def _channels(size: int, share: float) -> int:
    return max(1, round(share * size))


def _sum(table: Table, space: Space, share: float) -> int:
    """Give what the table says of the network of a share of all channels."""
    return table.base + sum(
        table.nanoseconds(
            layer.name,
            _channels(layer.into, share) if layer.reads else layer.into,
            _channels(layer.out, share) if layer.writes else layer.out,
        )
        for layer in space.layers
    )


def _layers(space: Space, engine: Engine, folder: Path) -> dict[str, Timing]:
    """Time the layers; those of one shape once."""
    tiny = Layer("call", "conv", "", "", 1, 1, 1, 1, 1, 1, "", edge=False)
    call, known, found = _time(_alone(engine, folder, tiny, 1, 1)), {}, {}
    for layer in space.layers:
        shape = (layer.kind, layer.into, layer.out, layer.kernel, layer.stride, layer.positions, layer.area)
        shape = (*shape, bool(layer.reads), bool(layer.writes))
        if shape not in known:
            known[shape] = _timed(engine, folder, layer, call)
        found[layer.name] = known[shape]
    return found


def _timed(engine: Engine, folder: Path, layer: Layer, call: int) -> Timing:
    into, out = (
        tuple(sorted({_channels(size, share) for share in SHARES})) if axis else (size,)
        for axis, size in ((layer.reads, layer.into), (layer.writes, layer.out))
    )
    if layer.kind == "depthwise":
        rows = [[_time(_alone(engine, folder, layer, n, n)) for n in out]]
        into = (layer.into,)
    else:
        rows = [[_time(_alone(engine, folder, layer, n, m)) for m in out] for n in into]
    net = np.maximum(0, np.array(rows) - call)
    rising = np.maximum.accumulate(np.maximum.accumulate(net, axis=0), axis=1)
    return Timing(into, out, tuple(tuple(row) for row in rising.tolist()))


def _time(call: Callable[[], Any]) -> int:
    """Give the nanoseconds of a call."""
    call()
    taken, began = [], time.perf_counter_ns()
    while len(taken) < FEWEST or time.perf_counter_ns() - began < SECONDS * 1e9:
        start = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - start)
    return int(np.quantile(taken, 0.1))


def _alone(engine: Engine, folder: Path, layer: Layer, into: int, out: int) -> Callable[[], Any]:
    """Make a layer of some channels ready to run by itself, with the rounding of what it reads and writes."""
    groups, source = (out, np.random.default_rng(0)) if layer.kind == "depthwise" else (1, np.random.default_rng(0))
    side = round(layer.positions**0.5)
    if layer.kind == "linear":
        shape, result, form = (into, round(layer.area**0.5), round(layer.area**0.5)), (out,), (out, into * layer.area)
    else:
        shape, result = (into, side * layer.stride, side * layer.stride), (out, side, side)
        form = (out, into // groups, layer.kernel, layer.kernel)
    weight = source.integers(-127, 128, form).astype(np.int8)
    reads = source.random((1, *shape), np.float32)
    if engine is Engine.TORCH:
        return _in_torch(layer, torch.from_numpy(weight).float(), torch.from_numpy(reads), groups)
    kind = Kind.LINEAR if layer.kind == "linear" else Kind.CONV
    ones = np.ones(out, np.float32)
    node = Node("layer", ("codes",), "sums", kind, weight, ones * STEP, np.full(out, EDGE, np.uint8), 0 * ones,
                layer.stride, layer.kernel // 2 if kind is Kind.CONV else 0, groups)  # fmt: skip
    grid = Grid(STEP, 0, 255, EDGE)
    values = {
        FEATURES: Value(shape),
        "codes": Value(shape, grid),
        "sums": Value(result),
        "rounded": Value(result, grid),
    }
    nodes = (Round((FEATURES,), "codes"), node, Round(("sums",), "rounded"))
    return _opened(engine, folder, Graph((FEATURES,), {OUTPUT: "rounded"}, nodes, values), reads)


def _in_torch(layer: Layer, weight: torch.Tensor, reads: torch.Tensor, groups: int) -> Callable[[], Any]:
    if layer.kind == "linear":
        return lambda: F.linear(reads.flatten(1), weight)
    return lambda: F.conv2d(reads, weight, None, layer.stride, layer.kernel // 2, 1, groups)


def _network(engine: Engine, folder: Path, model: Model, space: Space, share: float) -> Callable[[], Any]:
    """Make the network of a share of all channels ready to run, at 8 bits."""
    kept = {axis: tuple(range(_channels(size, share))) for axis, size in space.axes.items()}
    small = assigned(model, kept, Quantization(Bits(EDGE, EDGE), EDGE), seed=0)
    calibrate_weights(small)
    for module in small.net.modules():
        if isinstance(module, Act):
            module.scale.data.fill_(STEP)
    small.net.eval()
    shape = small.arch.input
    images = np.zeros((1, shape.channels, shape.size, shape.size), np.uint8)
    if engine is Engine.TORCH:
        return lambda: small.net(torch.from_numpy(images))
    (graph,) = stages_of(small)
    assert graph.inputs == (IMAGES,)
    return _opened(engine, folder, graph, images)


def _opened(engine: Engine, folder: Path, graph: Graph, reads: np.ndarray) -> Callable[[], Any]:
    if engine is Engine.OPENVINO:
        from compressor.deploy.openvino_writer import write_openvino

        path = folder / "graph.xml"
        write_openvino(graph, path)
    else:
        from compressor.deploy.nodes import Arithmetic, Container
        from compressor.deploy.onnx_writer import write_onnx

        path = folder / "graph.onnx"
        write_onnx(graph, path, Container.INT8, Arithmetic.FUSED)
    stage = open_stage(engine, path, 1, "fp32")
    return lambda: stage(reads)
