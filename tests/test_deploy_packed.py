"""Integers in as few bits as they need, and the file that holds a network in them."""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import deployed
import numpy as np
import pytest
import samples
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from terminal import process

from compressor.arch import FLOAT, Arch, Bits, BlockKind, Exits, Quantization, WeightBits, layer_names
from compressor.config import ArchitectureConfig
from compressor.cost import size_bits
from compressor.deploy.packed import METADATA, read_packed, write_packed
from compressor.deploy.packing import packed_of, rebuilt
from compressor.errors import ModelError
from compressor.families import architecture
from compressor.layers import Linear, Norm, Weighted
from compressor.model import Model, load

GOLDEN = Path(__file__).parent / "golden"
SLACK = 4096
"""Bytes that a file may have beside 1.02 times what its network needs."""


def mixed(arch: Arch) -> Arch:
    """Give every layer of an arch a width a channel, 1 to 8 bits in turn."""
    model = samples.fresh(replace(arch, quantization=Quantization(Bits(4, 4), 8)), 0)
    chosen = []
    for name, layer in model.net.named_modules():
        if isinstance(layer, Weighted):
            widths = tuple(1 + (i + len(name)) % 8 for i in range(len(layer.weight)))
            chosen.append(WeightBits(name, layer.axes["weight"][0], widths))
    return replace(arch, quantization=Quantization(Bits(4, 4), 8, tuple(chosen)))


def written(model: Model, folder: Path) -> Path:
    path = folder / "model.packed"
    write_packed(packed_of(model), path)
    return path


def turned(model: Model) -> Model:
    """Let the first channel of every norm have a negative factor, in place."""
    for module in model.net.modules():
        if isinstance(module, Norm):
            module.weight.data[0] *= -1
    return model


def family(name: str, bits: Bits) -> Arch:
    config = ArchitectureConfig(name, 1.0, "small", None, None, None)
    arch = architecture(config, 3, 32, (0.5,) * 3, (0.2,) * 3, samples.TASK)
    return replace(arch, quantization=Quantization(bits, 8), exits=Exits((0.3, 0.6), width=4))


NETWORKS = {
    "float": samples.STANDARD,
    "plain 4 bits": samples.compressed(BlockKind.PLAIN),
    "inverted 2 bits": samples.compressed(BlockKind.INVERTED, bits=Bits(2, 3)),
    "bottleneck 1 bit": samples.compressed(BlockKind.BOTTLENECK, bits=Bits(1, 2)),
    "separable 8 bits": samples.compressed(BlockKind.SEPARABLE, bits=Bits(8, 8)),
    "only activations": samples.compressed(bits=Bits(FLOAT, 4)),
    "only weights": samples.compressed(bits=Bits(3, FLOAT)),
    "mixed": mixed(samples.arch(exits=Exits((0.3, 0.6), width=4))),
    "mixed inverted": mixed(samples.arch(BlockKind.INVERTED)),
}


class TestFile:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_reads_back_to_the_exact_integers_scales_and_biases(self, name, tmp_path):
        model = samples.model(NETWORKS[name])
        want, found = packed_of(model), read_packed(written(model, tmp_path))
        assert found.arch == model.arch
        assert found.layers.keys() == layer_names(model.arch)
        for layer_name, layer in found.layers.items():
            other = want.layers[layer_name]
            assert layer.bits == other.bits
            assert layer.weights.dtype == (np.float32 if layer.scales is None else np.int8)
            for one, two in ((layer.weights, other.weights), (layer.biases, other.biases)):
                np.testing.assert_array_equal(one, two)
            if layer.scales is not None:
                np.testing.assert_array_equal(layer.scales, other.scales)
        assert found.acts == want.acts
        np.testing.assert_array_equal(found.thresholds, want.thresholds)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_its_integers_are_those_that_the_network_computes_with(self, name, tmp_path):
        model = turned(samples.model(NETWORKS[name]))
        found, compared = read_packed(written(model, tmp_path)).layers, 0
        for layer_name, module in model.net.named_modules():
            if isinstance(module, Weighted) and module.quantized:
                signs = np.ones((len(module.weight), *[1] * (module.weight.ndim - 1)))
                signs[0] = 1 if isinstance(module, Linear) else -1
                ours = found[layer_name].weights.reshape(module.weight.shape)
                np.testing.assert_array_equal(ours * signs, module.integers().detach().numpy())
                compared += 1
        assert compared == sum(layer.scales is not None for layer in found.values())
        assert bool(compared) == (name != "float")

    @pytest.mark.parametrize("name", NETWORKS)
    def test_rebuilds_a_network_that_answers_as_the_original_does(self, name, tmp_path):
        model = turned(samples.model(NETWORKS[name]))
        again = rebuilt(written(model, tmp_path))
        assert again.arch == model.arch
        for ours, theirs in zip(samples.outputs(again), samples.outputs(model), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_of_a_tiny_network_is_within_two_percent_and_four_kibibytes_of_its_bits(self, name, tmp_path):
        model = samples.model(NETWORKS[name])
        assert written(model, tmp_path).stat().st_size <= size_bits(model) / 8 * 1.02 + SLACK

    @pytest.mark.parametrize(
        ("name", "bits"),
        [("resnet56", Bits(2, 4)), ("resnet20", Bits(1, 4)), ("mobilenet_v2", Bits(4, 8))],
    )
    def test_of_a_named_network_is_within_two_percent_and_four_kibibytes_of_its_bits(self, name, bits, tmp_path):
        model = samples.model(family(name, bits))
        assert written(model, tmp_path).stat().st_size <= size_bits(model) / 8 * 1.02 + SLACK

    def test_with_a_width_for_every_channel_is_within_the_bound_too(self, tmp_path):
        model = samples.model(mixed(family("resnet56", Bits(4, 4))))
        assert written(model, tmp_path).stat().st_size <= size_bits(model) / 8 * 1.02 + SLACK

    def test_of_four_and_two_bits_is_a_small_part_of_fp32(self, tmp_path):
        full = size_bits(samples.model(replace(family("resnet56", Bits(4, 4)), quantization=None))) / 8
        for bits, ratio in ((4, 7.5), (2, 14)):
            small = written(samples.model(family("resnet56", Bits(bits, 8))), tmp_path).stat().st_size
            assert full / small >= ratio

    def test_of_the_golden_model_answers_as_it_always_did(self, tmp_path):
        model = load(GOLDEN / "model")
        kept = load_file(GOLDEN / "answers.safetensors")
        with torch.no_grad():
            answers = rebuilt(written(model, tmp_path)).net(torch.from_numpy(kept["images"]))
        for i, out in enumerate(answers):
            np.testing.assert_allclose(out.numpy(), kept[f"head{i}"], rtol=1e-4, atol=1e-4)

    def test_of_one_network_is_the_same_bytes_every_time(self, tmp_path):
        model = samples.model(NETWORKS["mixed"])
        found = {written(model, tmp_path).read_bytes() for _ in range(8)}
        assert len(found) == 1

    def test_is_read_without_torch(self, tmp_path):
        written(samples.model(NETWORKS["mixed"]), tmp_path)
        script = "import sys; sys.modules['torch'] = sys.modules['hydra'] = None; from pathlib import Path;"
        script += "from compressor.deploy.packed import read_packed; found = read_packed(Path('model.packed'));"
        ended = process("-c", f"{script} print(len(found.layers), found.arch.name)", folder=tmp_path)
        assert ended.stdout == f"{len(layer_names(NETWORKS['mixed']))} {NETWORKS['mixed'].name}\n", ended.stderr

    def test_is_read_without_unpickling(self, tmp_path, unpickled):
        rebuilt(written(samples.model(NETWORKS["mixed"]), tmp_path))
        assert unpickled == []

    def test_of_a_trained_network_reads_back(self, digits, tmp_path):
        model = deployed.exiting()
        again = rebuilt(written(model, tmp_path))
        assert torch.equal(again.net.thresholds, model.net.thresholds)
        images = torch.from_numpy(digits.test.images[:40])
        with torch.no_grad():
            for ours, theirs in zip(again.net(images), model.net(images), strict=True):
                assert (ours.argmax(1) == theirs.argmax(1)).all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed file with bits, exits, mixed layers and shortcuts."""
    return written(samples.model(NETWORKS["mixed"]), tmp_path_factory.mktemp("whole"))


def changed(whole: Path, target: Path, **tensors: np.ndarray) -> Path:
    save_file(load_file(whole) | tensors, target, METADATA)
    return target


def header(whole: Path) -> dict:
    return json.loads(zlib.decompress(load_file(whole)["header"].tobytes()))


def with_header(whole: Path, target: Path, data: dict) -> Path:
    text = np.frombuffer(zlib.compress(json.dumps(data).encode()), np.uint8)
    return changed(whole, target, header=text)


class TestHostileFile:
    def refused(self, path: Path) -> str:
        with pytest.raises(ModelError) as caught:
            rebuilt(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        return text

    @settings(max_examples=40)
    @given(st.integers(0, 10_000))
    def test_cut_anywhere_is_refused_by_name(self, whole, tmp_path_factory, length):
        data = whole.read_bytes()
        path = tmp_path_factory.mktemp("cut") / "model.packed"
        path.write_bytes(data[: length % len(data)])
        self.refused(path)

    def test_that_is_missing_or_a_folder_is_refused_by_name(self, tmp_path):
        self.refused(tmp_path / "model.packed")
        self.refused(tmp_path)

    def test_of_another_format_or_schema_is_refused(self, whole, tmp_path):
        path = tmp_path / "model.packed"
        save_file(load_file(whole), path, METADATA | {"schema": "2"})
        assert "schema 1" in self.refused(path)
        save_file(load_file(whole) | {"more": np.zeros(1, np.uint8)}, path, METADATA)
        assert "is not a packed file" in self.refused(path)

    @pytest.mark.parametrize("name", ["weights", "widths", "floats"])
    @pytest.mark.parametrize("by", [-1, 1])
    def test_with_too_few_or_too_many_items_is_refused(self, whole, tmp_path, name, by):
        data = load_file(whole)[name]
        self.refused(changed(whole, tmp_path / "model.packed", **{name: np.resize(data, len(data) + by)}))

    def test_with_another_kind_of_tensor_is_refused(self, whole, tmp_path):
        floats = load_file(whole)["floats"].astype(np.float64)
        assert "no row of F32" in self.refused(changed(whole, tmp_path / "model.packed", floats=floats))

    def test_with_numbers_that_are_not_finite_is_refused(self, whole, tmp_path):
        floats = load_file(whole)["floats"].copy()
        floats[3] = np.nan
        assert "not finite" in self.refused(changed(whole, tmp_path / "model.packed", floats=floats))

    def test_with_a_header_that_unpacks_without_end_is_refused(self, whole, tmp_path):
        bomb = np.frombuffer(zlib.compress(b" " * 2**26, 9), np.uint8)
        assert "header" in self.refused(changed(whole, tmp_path / "model.packed", header=bomb))

    @pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"arch": 1}', b"[" * 100_000])
    def test_with_a_header_of_something_else_is_refused(self, whole, tmp_path, text):
        data = np.frombuffer(zlib.compress(text), np.uint8)
        self.refused(changed(whole, tmp_path / "model.packed", header=data))

    def test_with_layers_of_another_network_is_refused(self, whole, tmp_path):
        data = header(whole)
        data["layers"][0]["name"] = "stem.convolution"
        assert "not those of its network" in self.refused(with_header(whole, tmp_path / "model.packed", data))

    @pytest.mark.parametrize("shape", [[6], [0, 1, 3, 3], [2**40, 1, 3, 3], [3, 2, 3, 3], [-6, 1, -3, 3]])
    def test_with_impossible_shapes_is_refused(self, whole, tmp_path, shape):
        data = header(whole)
        data["layers"][0]["shape"] = shape
        self.refused(with_header(whole, tmp_path / "model.packed", data))

    @pytest.mark.parametrize("bits", [-1, 9, 31])
    def test_with_impossible_bits_is_refused(self, whole, tmp_path, bits):
        data = header(whole)
        data["layers"][0]["bits"] = bits
        assert f"has {bits} bits" in self.refused(with_header(whole, tmp_path / "model.packed", data))

    def test_with_an_activation_or_a_shortcut_too_few_is_refused(self, whole, tmp_path):
        data = header(whole)
        assert data["maps"].popitem()
        self.refused(with_header(whole, tmp_path / "model.packed", data))
        data = header(whole)
        data["acts"][0] = "stem.action"
        assert "'stem.action'" in self.refused(with_header(whole, tmp_path / "model.packed", data))

    @pytest.mark.parametrize("source", [10**6, -2])
    def test_with_a_shortcut_from_nowhere_is_refused(self, whole, tmp_path, source):
        data = header(whole)
        next(iter(data["maps"].values()))[0] = source
        self.refused(with_header(whole, tmp_path / "model.packed", data))

    @settings(max_examples=40)
    @given(st.integers(0, 10**9), st.integers(1, 255))
    def test_with_any_byte_changed_reads_or_is_refused_by_name(self, whole, tmp_path_factory, at, by):
        data = bytearray(whole.read_bytes())
        data[at % len(data)] ^= by
        path = tmp_path_factory.mktemp("changed") / "model.packed"
        path.write_bytes(bytes(data))
        said = ""
        try:
            rebuilt(path)
        except ModelError as error:
            said = str(error)
        assert not said or said.startswith(f"{path}: ")
