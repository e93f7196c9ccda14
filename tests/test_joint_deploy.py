"""What ships of a network with channels of 0 bits answers as the network does, in every format."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import deployed
import graphs
import numpy as np
import pytest
import samples
import torch
from safetensors.numpy import load_file
from zero_bits import at_random, zeros_of

from compressor.arch import Arch, Bits, BlockKind, Exits, Quantization, WeightBits
from compressor.config import Container, ExportConfig, ExportFormat
from compressor.config.joint import JointConfig
from compressor.cost import size_bits
from compressor.data import load_data
from compressor.deploy.export import export
from compressor.deploy.graph import Layer, stages_of
from compressor.deploy.packed import read_packed, write_packed
from compressor.deploy.packing import packed_of, rebuilt
from compressor.layers import Weighted
from compressor.model import Model, fresh
from compressor.phases.joint import assign
from compressor.quantization import each_of
from compressor.training import Context, fit

RULE = Quantization(Bits(4, 6), 8)
EXITS = Exits((0.3, 0.6), width=4)
SMALLEST = ExportConfig(ExportFormat.ONNX, Container.SMALLEST)
FORMATS = {
    "onnx": deployed.ONNX,
    "smallest": SMALLEST,
    "openvino": deployed.OPENVINO,
    "packed": deployed.PACKED,
}


def masked(kind: BlockKind, share: float = 0.3, seed: int = 2) -> Arch:
    return at_random(samples.arch(kind, exits=EXITS), share, seed, RULE)


@cache
def trained(kind: BlockKind) -> Model:
    """Give a network of channels of 0 to 8 bits that learned the digits and some of whose images leave early."""
    data, arch = load_data(replace(samples.DATASET, limit=400), samples.RUNTIME), masked(kind, 0.15)
    assert arch.quantization is not None
    config = JointConfig({}, arch.quantization, 120, 120, samples.ALONE, deployed.settings(8))
    with TemporaryDirectory() as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        context = Context(data, scratch, samples.RUNTIME)
        start = fit(fresh(samples.arch(kind, exits=EXITS), 0), deployed.settings(15), samples.afresh(context, "float"))
        model = assign(config, context, start)
    deployed.leaving(model, data.test)
    return model


@pytest.mark.parametrize("kind", BlockKind)
class TestGraph:
    def test_the_reference_answers_as_torch_does(self, kind, context):
        net = graphs.model(masked(kind), context)
        images = context.data.test.images[:60]
        assert graphs.agreement(graphs.through(net, images, graphs.reference), graphs.answers(net, images)) >= 0.95

    def test_a_channel_of_0_bits_is_folded_to_zeros_all_over(self, kind, context):
        net = graphs.model(masked(kind), context)
        layers = {node.name: node for graph in stages_of(net) for node in graph.nodes if isinstance(node, Layer)}
        assert len(zeros_of(net.net)) > 3
        for name, module in net.net.named_modules():
            if isinstance(module, Weighted) and 0 in module.bits:
                layer, dead = layers[name], np.array(module.bits) == 0
                assert layer.scale is not None
                assert layer.bits is not None
                for part in (layer.weight, layer.scale, layer.bias, layer.bits):
                    assert (part[dead] == 0).all()
                    assert (part[~dead] != 0).any()

    def test_the_packed_file_holds_nothing_of_its_weights_and_rebuilds_the_network(self, kind, context, tmp_path):
        net, path = graphs.model(masked(kind), context), tmp_path / "model.packed"
        write_packed(packed_of(net), path)
        again = rebuilt(path)
        assert again.arch == net.arch
        for ours, theirs in zip(samples.outputs(again), samples.outputs(net), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert path.stat().st_size <= size_bits(net) / 8 * 1.02 + 4096
        floats = sum(2 * len(layer.biases) for layer in read_packed(path).layers.values())
        held = load_file(path)
        assert len(held["floats"]) == floats + len(packed_of(net).acts) + len(net.net.exits)
        weighted = [module for module in net.net.modules() if isinstance(module, Weighted)]
        widths = [(each_of(m.bits, len(m.weight)), m.weight[0].numel()) for m in weighted]
        assert len(held["weights"]) == sum(math.ceil(sum(bits) * each / 8) for bits, each in widths)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", [BlockKind.BASIC, BlockKind.INVERTED, BlockKind.PLAIN])
def test_an_export_answers_every_test_image_of_the_digits_as_pytorch_does(kind, name, digits, tmp_path):
    if name != "packed":
        pytest.importorskip("openvino" if name == "openvino" else "onnxruntime")
    checkpoint = deployed.folder_of(trained(kind), tmp_path / "checkpoint")
    note = export(checkpoint, FORMATS[name], tmp_path / "made", digits.test, samples.RUNTIME)
    assert note.parity.images == 120
    assert note.parity.reference > 0.3
    assert zeros_of(trained(kind).net)
    assert all(found.refused or found.differing in (0, 1) for found in note.parity.engines)
    assert note.parity.engines[0].refused is None


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_layer_of_0_bits_ships_too(name, context, tmp_path):
    if name != "packed":
        pytest.importorskip("openvino" if name == "openvino" else "onnxruntime")
    zeros = (WeightBits("blocks.s0b1.conv2", "s0", (0,) * 6), WeightBits("blocks.s1b1.conv1", "s1b1.0", (0,)))
    rule = Quantization(Bits(4, 6), 8, zeros)
    net = graphs.model(samples.arch(quantization=rule), context)
    checkpoint = deployed.folder_of(net, tmp_path / "checkpoint")
    note = export(checkpoint, FORMATS[name], tmp_path / "made", context.data.test, samples.RUNTIME)
    assert all(found.refused or found.differing in (0, 1) for found in note.parity.engines)
