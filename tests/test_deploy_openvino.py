"""OpenVINO computes every layer of an exported network in int8, and answers as the reference does."""

from collections import Counter
from dataclasses import replace
from typing import Any

import graphs
import numpy as np
import pytest
import samples

from compressor.arch import Bits, BlockKind, Quantization
from compressor.deploy.graph import Graph, Layer, Node, Pick, stages_of
from compressor.model import Model, select

ov = pytest.importorskip("openvino")

from compressor.deploy.engines import openvino_core  # noqa: E402
from compressor.deploy.openvino_writer import as_openvino, write_openvino  # noqa: E402 - it needs openvino
from compressor.deploy.saturation import right_here  # noqa: E402

SETTINGS = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
LAYERS = {"Convolution", "FullyConnected", "MatMul", "Deconvolution"}
INT8 = {"u8", "i8"}
FAMILIES = ("resnet20", "resnet18", "resnet50", "vgg11", "mobilenet_v1", "mobilenet_v2")


def compiled(graph: Graph) -> Any:
    return openvino_core().compile_model(as_openvino(graph), "CPU", SETTINGS)


def stage(graph: Graph) -> graphs.Stage:
    ready = compiled(right_here(graph))
    return lambda inputs: {name: ready(inputs)[name] for name in graph.outputs}


def precisions(graph: Graph) -> Counter[tuple[str, str]]:
    """Count the kinds of layers that really run, each with the precision that it computes in."""
    nodes = compiled(graph).get_runtime_model().get_ordered_ops()
    notes = [node.get_rt_info() for node in nodes]
    return Counter((note["layerType"].astype(str), note["runtimePrecision"].astype(str)) for note in notes)


def chooses(node: Node, graph: Graph) -> bool:
    """Tell whether a shortcut drops or moves channels, as a 1x1 convolution does."""
    return isinstance(node, Pick) and node.frame(graph.values[node.reads[0]].shape[0]) is None


def assert_int8(net: Model) -> None:
    for graph in stages_of(net):
        counts = precisions(graph)
        found = {key: n for key, n in counts.items() if key[0] in LAYERS}
        assert {precision for _, precision in found} <= INT8, found
        assert sum(found.values()) == sum(isinstance(node, Layer) or chooses(node, graph) for node in graph.nodes)
        assert not [key for key in counts if key[0] in ("Eltwise", "Subgraph", "Convert")], counts


@pytest.mark.parametrize("bits", graphs.BITS, ids=str)
@pytest.mark.parametrize("kind", BlockKind)
def test_it_answers_as_the_reference_at_every_bit_width(kind, bits, context):
    net = graphs.model(graphs.quantized(kind, bits), context)
    images = context.data.test.images[:60]
    found = graphs.through(net, images, stage)
    assert graphs.agreement(found, graphs.through(net, images, graphs.reference)) >= 0.95


@pytest.mark.parametrize("bits", [Bits(8, 8), Bits(4, 4), Bits(1, 2)], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_convolution_and_linear_layer_of_every_family_runs_in_int8(name, bits):
    assert_int8(samples.model(graphs.named(name, bits=bits, channels=3)))


@pytest.mark.parametrize("kind", BlockKind)
def test_stages_between_exits_run_in_int8_as_well(kind, context):
    net = graphs.model(graphs.quantized(kind, Bits(4, 4)), context)
    for graph in stages_of(net):
        found = {key for key in precisions(graph) if key[0] in LAYERS}
        assert found
        assert {precision for _, precision in found} <= INT8


def test_pruned_and_mixed_networks_run_in_int8_and_answer_as_the_reference(context):
    kept = {"s0": [0, 2, 5], "s1": [1, 2, 3, 4, 7], "s0b0.0": [1, 2, 3, 5]}
    net = select(graphs.model(replace(graphs.mixed(), exits=None), context), kept)
    images = context.data.test.images[:60]
    assert graphs.agreement(graphs.through(net, images, stage), graphs.through(net, images, graphs.reference)) >= 0.95
    assert_int8(net)


def test_float_networks_stay_float(context):
    net = graphs.model(samples.arch(BlockKind.BASIC), context)
    images = context.data.test.images[:20]
    assert graphs.agreement(graphs.through(net, images, stage), graphs.answers(net, images)) == 1
    assert {precision for kind, precision in precisions(stages_of(net)[0]) if kind in LAYERS} == {"f32"}


@pytest.mark.parametrize("bits", [None, Bits(4, 4)], ids=str)
@pytest.mark.parametrize("name", ["resnet50", "vgg11", "mobilenet_v2"])
def test_networks_of_large_images_answer_as_the_reference(name, bits):
    net = graphs.spread(samples.model(graphs.named(name, size=96, bits=bits)))
    images = samples.images(2, net.arch).numpy()
    found, want = graphs.through(net, images, stage), graphs.through(net, images, graphs.reference)
    np.testing.assert_allclose(found[0], want[0], rtol=0.02, atol=0.02 * np.abs(want[0]).max())


def test_written_files_hold_integers_and_the_names_of_inputs_and_outputs(context, tmp_path):
    net = graphs.model(graphs.quantized(BlockKind.BASIC, Bits(4, 4)), context)
    first, second, _ = stages_of(net)
    first, second = right_here(first), right_here(second)
    write_openvino(first, tmp_path / "stage-0.xml")
    write_openvino(second, tmp_path / "stage-1.xml")
    read = openvino_core().read_model(tmp_path / "stage-0.xml")
    assert [each.get_any_name() for each in read.inputs] == ["images"]
    assert {each.get_any_name() for each in read.outputs} == {"output", "features"}
    assert [each.get_any_name() for each in openvino_core().read_model(tmp_path / "stage-1.xml").inputs] == ["features"]
    kinds = Counter(
        node.get_element_type().get_type_name() for node in read.get_ops() if node.get_type_name() == "Constant"
    )
    assert kinds["i8"] == sum(isinstance(node, Layer) for node in first.nodes)
    assert "f16" not in kinds
    images = context.data.test.images[:5]
    ready = openvino_core().compile_model(read, "CPU", SETTINGS)
    np.testing.assert_array_equal(ready([images])["output"], stage(first)({"images": images})["output"])


@pytest.mark.parametrize("width", [5, 9, 15, 16])
def test_narrow_heads_answer_one_image_as_they_answer_many(width, context):
    arch = graphs.quantized(BlockKind.BASIC, Bits(4, 4), exits=None)
    arch = replace(arch, stages=tuple(replace(stage, width=width) for stage in arch.stages))
    net = graphs.model(arch, context)
    images = context.data.test.images[:6]
    (want,) = graphs.through(net, images, graphs.reference)
    for count in (1, 2, 3, 6):
        parts = [graphs.through(net, images[i : i + count], stage)[0] for i in range(0, 6, count)]
        assert graphs.agreement([np.concatenate(parts)], [want]) == 1


def test_any_number_of_images_may_come_at_once(context):
    arch = graphs.quantized(BlockKind.PLAIN, Bits(4, 4), exits=None, quantization=Quantization(Bits(4, 4), 8))
    net = graphs.model(arch, context)
    images = context.data.test.images[:7]
    (graph,) = stages_of(net)
    ready = stage(graph)
    whole = ready({"images": images})["output"]
    for i in range(7):
        np.testing.assert_allclose(ready({"images": images[i : i + 1]})["output"][0], whole[i], atol=1e-5)
