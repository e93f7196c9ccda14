"""The graph that ships computes what the trained network does."""

import subprocess
import sys

import graphs
import numpy as np
import pytest
import samples
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.arch import Activation, Bits, BlockKind
from compressor.deploy.graph import FEATURES, IMAGES, OUTPUT, Layer, Value, run_reference, stages_of
from compressor.deploy.nodes import sliding, windows
from compressor.layers import Act, Conv, Norm, Weighted
from compressor.model import select


@pytest.mark.parametrize("bits", [*graphs.BITS, Bits(32, 32)], ids=str)
@pytest.mark.parametrize("kind", BlockKind)
def test_its_stages_answer_as_torch_does(kind, bits, context):
    net = graphs.model(graphs.quantized(kind, bits), context)
    images = context.data.test.images[:60]
    found = graphs.through(net, images, graphs.reference)
    assert graphs.agreement(found, graphs.answers(net, images)) >= 0.95


@pytest.mark.parametrize("kind", BlockKind)
def test_a_network_that_was_never_quantized_ships_too(kind, context):
    net = graphs.model(samples.arch(kind), context)
    images = context.data.test.images[:20]
    assert graphs.agreement(graphs.through(net, images, graphs.reference), graphs.answers(net, images)) == 1


def test_pruned_and_mixed_networks_answer_as_torch_does(context):
    kept = {"s0": [0, 2, 5], "s1": [1, 2, 3, 4, 7], "s0b0.0": [1, 2, 3, 5], "s1b1.0": [0, 1, 6, 7]}
    net = select(graphs.model(graphs.mixed(), context), kept)
    images = context.data.test.images[:60]
    assert graphs.agreement(graphs.through(net, images, graphs.reference), graphs.answers(net, images)) >= 0.95


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "mobilenet_v1", "mobilenet_v2"])
def test_networks_of_large_images_answer_as_torch_does(name, context):
    net = samples.lively(graphs.fresh(graphs.named(name, size=96), 0))
    images = samples.images(2, net.arch).numpy()
    assert graphs.agreement(graphs.through(net, images, graphs.reference), graphs.answers(net, images)) == 1


def test_a_cap_of_six_lowers_the_grid(context):
    arch = graphs.quantized(BlockKind.SEPARABLE, Bits(8, 8), activation=Activation.RELU6, exits=None)
    net = graphs.model(arch, context)
    act = net.net.get_submodule("blocks.s0b0.act1")
    assert isinstance(act, Act)
    act.scale.data.fill_(0.05)  # 255 steps would reach 12.75
    (graph,) = stages_of(net)
    grid = graph.values["blocks.s0b0.act1"].grid
    assert grid is not None
    assert grid.high == 120
    images = context.data.test.images[:40]
    assert graphs.agreement(graphs.through(net, images, graphs.reference), graphs.answers(net, images)) >= 0.95


def test_folded_integers_times_their_scales_are_the_rounded_weights_times_the_norms_gain(context):
    net = graphs.model(graphs.mixed(), context)
    layers = {node.name: node for graph in stages_of(net) for node in graph.nodes if isinstance(node, Layer)}
    assert layers.keys() == {name for name, module in net.net.named_modules() if isinstance(module, Weighted)}
    for name, layer in layers.items():
        module = net.net.get_submodule(name)
        assert isinstance(module, Weighted)
        assert layer.bits is not None
        assert layer.scale is not None
        assert layer.weight.dtype == np.int8
        top = np.maximum(1, 2 ** (layer.bits.astype(int) - 1) - 1)
        assert (np.abs(layer.weight.reshape(len(top), -1)) <= top[:, None]).all()
        want = module.rounded().detach()
        if isinstance(module, Conv):
            norm = net.net.get_submodule(name.replace("conv", "norm"))
            assert isinstance(norm, Norm)
            assert norm.running_var is not None
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            assert (gain < 0).any()
            assert (gain == 0).any()
            want = want * gain.detach().view(-1, 1, 1, 1)
        shipped = layer.weight * layer.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
        np.testing.assert_allclose(shipped, want.reshape(shipped.shape).numpy(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("kind", "zero"), [(BlockKind.BOTTLENECK, 0), (BlockKind.INVERTED, 128)])
def test_features_travel_as_the_integers_of_their_grid(kind, zero, context):
    net = graphs.model(graphs.quantized(kind, Bits(4, 4)), context)
    first, second, last = stages_of(net)
    assert (first.inputs, tuple(first.outputs)) == ((IMAGES,), (OUTPUT, FEATURES))
    assert (second.inputs, tuple(last.outputs)) == ((FEATURES,), (OUTPUT,))
    images = context.data.test.images[:10]
    features = run_reference(first, {IMAGES: images})[FEATURES]
    grid = first.values[first.outputs[FEATURES]].grid
    assert grid is not None
    assert (features.dtype, grid.zero, second.values[FEATURES]) == (np.uint8, zero, Value(features.shape[1:], grid))
    with torch.no_grad():
        stream, _ = net.net.eval().segment(0, torch.from_numpy(np.asarray(images)))
    np.testing.assert_allclose((features.astype(np.float32) - zero) * grid.scale, stream.numpy(), atol=1e-5)


@given(st.integers(1, 20), st.integers(1, 8))
def test_pooling_windows_are_those_of_torch(side, size):
    x = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    want = torch.nn.functional.adaptive_avg_pool2d(x, size)[0, 0].numpy()
    spans = windows(side, size)
    rows = [[x[0, 0, a:b, c:d].mean().item() for c, d in spans] for a, b in spans]
    np.testing.assert_allclose(rows, want)
    if window := sliding(side, size):
        even = torch.nn.functional.avg_pool2d(x, window[0], window[1])[0, 0].numpy()
        np.testing.assert_allclose(even, want)


@pytest.mark.parametrize("size", [2, 7])
def test_halves_and_sevenths_of_a_side_slide(size):
    assert sliding(14, size) == (14 // size, 14 // size)


def test_its_nodes_and_the_reference_need_no_torch():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from compressor.deploy.graph import Graph, Relu, Value, run_reference\n"
        "import numpy as np\n"
        "graph = Graph(('features',), {'output': 'y'}, (Relu(('features',), 'y'),), "
        "{'features': Value((1,)), 'y': Value((1,))})\n"
        "print(run_reference(graph, {'features': np.array([[-1.0], [2.0]])})['output'].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[0.0], [2.0]]", done.stderr


def test_stages_do_not_depend_on_the_mode_the_network_is_in(context):
    net = graphs.model(graphs.quantized(BlockKind.BASIC, Bits(4, 4)), context)
    images = context.data.test.images[:5]
    before = graphs.through(net, images, graphs.reference)
    net.net.train()
    for a, b in zip(before, graphs.through(net, images, graphs.reference), strict=True):
        np.testing.assert_array_equal(a, b)
    assert net.net.training
