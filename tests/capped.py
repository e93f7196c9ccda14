"""What OpenVINO answers with the kernels for processors without VNNI: run with ONEDNN_MAX_CPU_ISA."""

import io
import json
import sys
from collections.abc import Callable
from itertools import product

import numpy as np
import openvino as ov

from compressor.deploy.nodes import Average, Graph, Grid, Kind, Layer, Node, Normalise, Round, Value
from compressor.deploy.onnx_writer import as_onnx
from compressor.deploy.openvino_writer import as_openvino
from compressor.deploy.reference import run_reference
from compressor.deploy.saturation import halved

SETTINGS = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
SIDE = 8
PIXELS = Grid(1.0, 0, 255, 8)


def layer(reads: str, name: str, kind: Kind, weight: np.ndarray, padding: int = 0) -> Layer:
    ones = np.ones(len(weight), np.float32)
    return Layer(name, (reads,), name, kind, weight.astype(np.int8), ones, 8 * ones.astype(np.uint8), 0 * ones,
                 padding=padding)  # fmt: skip


def read(channels: int) -> tuple[list[Node], dict[str, Value]]:
    """Hold an image's pixels as they are."""
    shape = (channels, SIDE, SIDE)
    nodes: list[Node] = [Normalise(("images",), "floats", (0.0,) * channels, (1.0,) * channels)]
    nodes.append(Round(("floats",), "codes"))
    return nodes, {"images": Value(shape), "floats": Value(shape), "codes": Value(shape, PIXELS)}


def convolution(greatest: int) -> Graph:
    """One convolution of 16 channels whose weights are large."""
    nodes, values = read(16)
    weight = np.random.default_rng(0).integers(-greatest, greatest + 1, (16, 16, 3, 3))
    weight.reshape(-1)[::3] = greatest
    values["sums"] = Value((16, SIDE, SIDE))
    return Graph(("images",), {"output": "sums"}, (*nodes, layer("codes", "sums", Kind.CONV, weight, 1)), values)


def head(channels: int, size: int) -> Graph:
    """Means of integers, rounded, and a layer that gives each of them."""
    nodes, values = read(channels)
    count = channels * size**2
    shape = (channels, size, size)
    values |= {"means": Value(shape), "rounded": Value(shape, PIXELS), "scores": Value((count,))}
    last = layer("rounded", "scores", Kind.LINEAR, np.eye(count))
    nodes += [Average(("codes",), "means", size), Round(("means",), "rounded"), last]
    return Graph(("images",), {"output": "scores"}, tuple(nodes), values)


def from_onnx(graph: Graph) -> ov.Model:
    """Let OpenVINO read the ONNX file."""
    return ov.Core().read_model(io.BytesIO(as_onnx(graph).SerializeToString()))


def wrong(graph: Graph, batch: int, of: Graph | None = None, written: Callable[[Graph], ov.Model] = as_openvino) -> int:
    """Count the numbers that differ from the reference's, those of `of` where it is another graph."""
    shape = graph.values["images"].shape
    images = np.random.default_rng(1).integers(0, 256, (60, *shape)).astype(np.uint8)
    ready = ov.Core().compile_model(written(graph), "CPU", SETTINGS)
    found = np.concatenate([ready([images[i : i + batch]])["output"] for i in range(0, 60, batch)])
    return int((found != run_reference(of or graph, {"images": images})["output"]).sum())


def heads() -> dict[str, int]:
    """Count the wrong means of few channels and of more, one image at a time and three, in both formats."""
    found = {}
    for channels, size, batch, written in product((1, 2, 3, 4, 5, 15, 16), (1, 2), (1, 3), (as_openvino, from_onnx)):
        name = f"{batch} images, {channels} channels, {size}x{size}, {written.__name__}"
        found[name] = wrong(head(channels, size), batch, written=written)
    return found


def main() -> None:
    wide = convolution(127)
    found = {
        "plain": wrong(wide, 5),
        "halved": wrong(halved(wide), 5, wide),
        "seven": wrong(convolution(63), 5),
        "heads": heads(),
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
