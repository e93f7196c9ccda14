"""ONNX files are small, valid, run by integer kernels, and answer as the reference does."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st
from test_deploy_packed import family

from compressor.arch import Bits, BlockKind, Quantization
from compressor.deploy.graph import Arithmetic, Container, Graph, Layer, stages_of
from compressor.deploy.packed import write_packed
from compressor.deploy.packing import packed_of
from compressor.deploy.saturation import right_here
from compressor.deploy.shapes import shapes_of
from compressor.model import Model, select

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from compressor.deploy.onnx_parts import packed  # noqa: E402 - it needs onnx
from compressor.deploy.onnx_writer import as_onnx, write_onnx  # noqa: E402

FLOAT_KERNELS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
INTEGER_KERNELS = {"QLinearConv", "ConvInteger", "MatMulInteger", "QGemm", "MatMulIntegerToFloat"}


def session(model: Any, optimized: Path | None = None) -> Any:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # writing an optimized model is worth a warning to it
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def stage(container: Container, arithmetic: Arithmetic = Arithmetic.EXACT):
    def opened(graph: Graph) -> graphs.Stage:
        ready = session(as_onnx(right_here(graph), container, arithmetic))
        return lambda inputs: dict(zip(graph.outputs, ready.run(None, inputs), strict=True))

    return opened


def kernels(net: Model, folder: Path, arithmetic: Arithmetic = Arithmetic.EXACT) -> Counter[str]:
    """Count what onnxruntime runs after its optimizations, over all stages."""
    counts: Counter[str] = Counter()
    for i, graph in enumerate(stages_of(net)):
        path = folder / f"{i}.onnx"
        session(as_onnx(graph, Container.SMALLEST, arithmetic), path)
        counts.update(node.op_type for node in onnx.load(path).graph.node)
    return counts


def layers(net: Model) -> list[Layer]:
    return [node for graph in stages_of(net) for node in graph.nodes if isinstance(node, Layer)]


@pytest.mark.parametrize("bits", graphs.BITS, ids=str)
@pytest.mark.parametrize("kind", BlockKind)
def test_onnxruntime_answers_as_the_reference_at_every_bit_width(kind, bits, context):
    net = graphs.model(graphs.quantized(kind, bits), context)
    images = context.data.test.images[:60]
    want = graphs.through(net, images, graphs.reference)
    for container in Container:
        assert graphs.agreement(graphs.through(net, images, stage(container)), want) >= 0.95


@pytest.mark.parametrize("weight", range(1, 9))
def test_onnxruntime_answers_as_the_reference_at_every_weight_width(weight, context):
    net = graphs.model(graphs.quantized(BlockKind.BASIC, Bits(weight, 9 - weight if weight < 8 else 8)), context)
    images = context.data.test.images[:60]
    found = graphs.through(net, images, stage(Container.SMALLEST))
    assert graphs.agreement(found, graphs.through(net, images, graphs.reference)) >= 0.95


def test_pruned_mixed_and_float_networks_answer_as_the_reference(context):
    kept = {"s0": [0, 2, 5], "s1": [1, 2, 3, 4, 7], "s0b0.0": [1, 2, 3, 5]}
    images = context.data.test.images[:60]
    for net in (
        select(graphs.model(graphs.mixed(), context), kept),
        graphs.model(samples.arch(BlockKind.BOTTLENECK), context),
        graphs.model(samples.arch(BlockKind.PLAIN), context),
    ):
        found = graphs.through(net, images, stage(Container.SMALLEST))
        assert graphs.agreement(found, graphs.through(net, images, graphs.reference)) >= 0.95


@pytest.mark.parametrize("bits", [None, Bits(4, 4)], ids=str)
@pytest.mark.parametrize("name", ["resnet50", "vgg11", "mobilenet_v2"])
def test_networks_of_large_images_answer_as_the_reference(name, bits):
    net = graphs.spread(samples.model(graphs.named(name, size=96, bits=bits)))
    images = samples.images(2, net.arch).numpy()
    found = graphs.through(net, images, stage(Container.INT8))
    want = graphs.through(net, images, graphs.reference)
    np.testing.assert_allclose(found[0], want[0], rtol=0.02, atol=0.02 * np.abs(want[0]).max())


def test_wide_convolutions_are_products_of_matrices_that_answer_as_the_reference(context, tmp_path):
    arch = graphs.quantized(BlockKind.BOTTLENECK, Bits(8, 8), exits=None)
    wide = replace(arch, stages=tuple(replace(s, width=70) for s in arch.stages))
    inner = tuple(
        replace(s, blocks=tuple(replace(b, widths=(66, 65)) for b in s.blocks)) for s in wide.stages
    )  # every convolution but the first reads more channels than `WIDE`
    net = graphs.model(replace(wide, stages=inner), context)
    images = context.data.test.images[:40]
    want = graphs.through(net, images, graphs.reference)
    assert graphs.agreement(graphs.through(net, images, stage(Container.INT8)), want) >= 0.9
    assert kernels(net, tmp_path)["MatMulInteger"] > 10


@pytest.mark.parametrize("kind", BlockKind)
def test_onnxruntime_runs_every_layer_of_few_bits_with_an_integer_kernel(kind, context, tmp_path):
    arch = graphs.quantized(kind, Bits(3, 4))
    net = graphs.model(replace(arch, quantization=Quantization(Bits(3, 4), 4)), context)
    counts = kernels(net, tmp_path)
    assert not FLOAT_KERNELS & counts.keys()
    assert sum(counts[kernel] for kernel in INTEGER_KERNELS) == len(layers(net))
    assert counts["QLinearConv"] >= len(layers(net)) / 3


@pytest.mark.parametrize("kind", BlockKind)
def test_exact_arithmetic_of_eight_bits_leaves_only_depthwise_layers_to_float_kernels(kind, context, tmp_path):
    net = graphs.model(graphs.quantized(kind, Bits(8, 8)), context)
    counts = kernels(net, tmp_path)
    assert sum(counts[kernel] for kernel in FLOAT_KERNELS) <= sum(layer.groups > 1 for layer in layers(net))


@pytest.mark.parametrize("kind", BlockKind)
def test_the_writer_names_every_layer_of_integers_that_a_float_kernel_computes(kind, context, tmp_path):
    net = graphs.model(graphs.quantized(kind, Bits(8, 8)), context)
    counts = kernels(net, tmp_path)
    named = [name for graph in stages_of(net) for name in write_onnx(graph, tmp_path / "file.onnx")]
    assert len(named) == sum(counts[kernel] for kernel in FLOAT_KERNELS)
    assert set(named) <= {layer.name for layer in layers(net) if layer.groups > 1}
    assert bool(named) == (kind in (BlockKind.INVERTED, BlockKind.SEPARABLE))
    for graph in stages_of(net):
        assert write_onnx(graph, tmp_path / "file.onnx", arithmetic=Arithmetic.FUSED) == ()


@pytest.mark.parametrize("kind", BlockKind)
def test_fused_arithmetic_runs_all_of_it_with_the_fastest_kernels(kind, context, tmp_path):
    net = graphs.model(graphs.quantized(kind, Bits(8, 8)), context)
    counts = kernels(net, tmp_path, Arithmetic.FUSED)
    convolutions = sum(layer.weight.ndim == 4 for layer in layers(net))
    assert counts["QLinearConv"] == convolutions
    assert not {"Conv", "FusedConv", "ConvInteger", "Add"} & counts.keys()
    residual = kind in (BlockKind.BASIC, BlockKind.BOTTLENECK, BlockKind.INVERTED)
    assert (counts["QLinearAdd"] > 0) == residual
    images = context.data.test.images[:60]
    found = graphs.through(net, images, stage(Container.INT8, Arithmetic.FUSED))[-1]
    want = graphs.through(net, images, graphs.reference)[-1]
    assert np.abs(found - want).max() < 0.2 * np.abs(want).max()


def test_the_smallest_container_fits_each_layers_widest_channel(context):
    net = graphs.model(replace(graphs.mixed(), exits=None), context)
    (graph,) = stages_of(net)
    kinds = {each.name: each.data_type for each in as_onnx(graph, Container.SMALLEST).graph.initializer}
    widest = {layer.name: int(layer.bits.max()) for layer in layers(net) if layer.bits is not None}
    assert {2, 4, 8} == set(widest.values())
    for name, bits in widest.items():
        want = {2: onnx.TensorProto.INT2, 4: onnx.TensorProto.INT4, 8: onnx.TensorProto.INT8}[bits]
        assert kinds[f"{name}.weight"] == want, name


@pytest.mark.parametrize(("bits", "opset"), [(8, 21), (3, 21), (1, 25)])
def test_the_opset_is_the_oldest_that_has_the_integers(bits, opset, context):
    net = graphs.model(graphs.quantized(BlockKind.BASIC, Bits(bits, 4), exits=None), context)
    (graph,) = stages_of(net)
    assert as_onnx(graph, Container.SMALLEST).opset_import[0].version == opset
    assert as_onnx(graph, Container.INT8).opset_import[0].version == 21


def test_no_file_holds_a_float_copy_of_rounded_weights(context):
    net = graphs.model(graphs.quantized(BlockKind.BASIC, Bits(4, 4), exits=None), context)
    (graph,) = stages_of(net)
    channels = max(len(layer.weight) for layer in layers(net))
    for container in Container:
        for each in as_onnx(graph, container).graph.initializer:
            if each.data_type == onnx.TensorProto.FLOAT:
                assert np.prod(each.dims) <= channels, each.name


@pytest.mark.parametrize(("bits", "ratio"), [(4, 7.5), (2, 14)])
def test_files_of_resnet18_with_few_bits_are_as_much_smaller_than_fp32_as_promised(bits, ratio, tmp_path):
    arch = replace(family("resnet18", Bits(bits, 8)), exits=None)
    full = 4 * sum(math.prod(shape) for shape in shapes_of(arch).layers.values())  # no fp32 file is smaller
    assert full > 44e6
    net = samples.model(arch)
    (graph,) = stages_of(net)
    write_onnx(graph, tmp_path / "file.onnx", Container.SMALLEST, Arithmetic.FUSED)
    write_packed(packed_of(net), tmp_path / "file.packed")
    for name in ("file.onnx", "file.packed"):
        assert full / (tmp_path / name).stat().st_size >= ratio, name


@given(st.sampled_from([2, 4, 8]), st.integers(0, 33), st.integers(0, 1000))
def test_packed_integers_read_back_as_onnx_reads_them(width, count, seed):
    codes = np.random.default_rng(seed).integers(-(2 ** (width - 1)), 2 ** (width - 1), count).astype(np.int8)
    kind = {2: onnx.TensorProto.INT2, 4: onnx.TensorProto.INT4, 8: onnx.TensorProto.INT8}[width]
    raw = packed(codes, width)
    assert len(raw) == -(-count * width // 8)
    tensor = onnx.helper.make_tensor("codes", kind, (count,), raw.tobytes(), raw=True)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int8), codes)


def test_any_number_of_images_may_come_at_once(context):
    net = graphs.model(graphs.quantized(BlockKind.INVERTED, Bits(4, 4)), context)
    images = context.data.test.images[:7]
    whole = graphs.through(net, images, stage(Container.INT8))
    for i in range(7):
        for a, b in zip(graphs.through(net, images[i : i + 1], stage(Container.INT8)), whole, strict=True):
            np.testing.assert_allclose(a[0], b[i], atol=1e-4)
