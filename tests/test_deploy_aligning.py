"""Widths that kernels like: zeros are added, and not one answer changes."""

from dataclasses import replace

import graphs
import numpy as np
import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from compressor.arch import Arch, Bits, BlockKind, Quantization, widths, with_widths
from compressor.deploy.aligning import aligned, roomy
from compressor.deploy.graph import FEATURES, IMAGES, Graph, Layer, Value, halves_of, run_reference, stages_of


def narrow(arch: Arch) -> Arch:
    """Give the arch with a channel or two less than a multiple of 8 on every axis."""
    sizes = {axis: (15, 23, 31, 7)[i % 4] for i, axis in enumerate(widths(arch))}
    return with_widths(arch, sizes | {axis: 5 for axis in sizes if axis.startswith("fc")})


@given(st.integers(1, 2000))
def test_a_width_grows_to_a_multiple_of_16_or_8_by_an_eighth_at_most(channels):
    wide = roomy(channels)
    assert channels <= wide <= channels * 9 / 8
    assert wide == channels or wide % 8 == 0
    assert roomy(wide) == wide


def test_widths_just_below_a_multiple_are_rounded_up():
    assert [roomy(width) for width in (3, 8, 15, 22, 31, 61, 72, 100)] == [3, 8, 16, 24, 32, 64, 72, 112]


def alike(first: Graph, second: Graph) -> bool:
    """Tell whether two graphs read and give maps of as many channels."""
    return [v.shape for v in first.values.values()] == [v.shape for v in second.values.values()]


@pytest.mark.parametrize("bits", [None, Bits(4, 4), Bits(3, 32)])
@pytest.mark.parametrize("kind", BlockKind)
def test_every_stage_answers_as_before(kind, bits, context):
    arch = narrow(graphs.exits(samples.arch(kind)))
    net = graphs.model(replace(arch, quantization=bits and Quantization(bits, 8)), context)
    images = context.data.test.images[:10]
    want = graphs.through(net, images, graphs.reference)
    held, outputs = {IMAGES: images}, []
    for graph in stages_of(net):
        wide = aligned(graph)
        assert not alike(graph, wide)
        gives = run_reference(wide, held)
        outputs.append(gives["output"])
        held = {FEATURES: gives.get(FEATURES, np.empty(0))}
    np.testing.assert_array_equal(outputs, want)


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "vgg11", "mobilenet_v1", "mobilenet_v2"])
def test_every_family_answers_as_before(name, context):
    arch = narrow(graphs.named(name, bits=Bits(4, 4)))
    net = graphs.spread(samples.model(arch))
    images = samples.images(3, arch).numpy()
    (graph,) = stages_of(net)
    wide = aligned(graph)
    assert not alike(graph, wide)
    np.testing.assert_array_equal(run_reference(wide, {IMAGES: images})["output"],
                                  run_reference(graph, {IMAGES: images})["output"])  # fmt: skip


def test_a_first_stage_that_is_shared_still_fits_what_follows(context):
    net = graphs.model(narrow(graphs.quantized(BlockKind.BASIC, Bits(4, 4), exits=None)), context)
    first, rest = map(aligned, halves_of(net))
    assert first.values[first.outputs[FEATURES]].shape == rest.values[FEATURES].shape
    assert rest.values[FEATURES].shape[0] % 8 == 0


def test_widths_that_are_far_from_a_multiple_stay(context):
    net = graphs.model(graphs.quantized(BlockKind.BASIC, Bits(4, 4), exits=None), context)  # 6 and 8 channels
    (graph,) = stages_of(net)
    assert alike(graph, aligned(graph))


def test_images_keep_their_channels():
    graph = Graph((IMAGES,), {"output": IMAGES}, (), {IMAGES: Value((15, 8, 8)), "x": Value((31, 8, 8))})
    assert aligned(graph) is graph
    assert not any(isinstance(node, Layer) for node in graph.nodes)
