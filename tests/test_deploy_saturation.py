"""No sum of 8-bit products saturates where it would: neither on processors without VNNI, nor unsaid on others."""

from dataclasses import replace
from types import SimpleNamespace

import deployed
import graphs
import numpy as np
import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from compressor.arch import Arch, Bits, BlockKind, Quantization
from compressor.config import Arithmetic, OverflowFix
from compressor.deploy import runtime, saturation
from compressor.deploy.export import export
from compressor.deploy.graph import FEATURES, IMAGES, Graph, Layer, run_reference, stages_of
from compressor.deploy.machine import Machine, fast_flags
from compressor.deploy.nodes import Grid, Kind, Round
from compressor.deploy.note import read_note
from compressor.deploy.runtime import load_export
from compressor.deploy.saturation import ROOM, halved, saturates, saturating
from compressor.errors import ConfigError, ModelError
from compressor.model import Model
from compressor.report.export import size_line


def layer(weight: np.ndarray, bits: int = 8) -> Layer:
    ones = np.ones(len(weight), np.float32)
    return Layer("fc", ("x",), "y", Kind.LINEAR, weight, ones, np.full(len(weight), bits, np.uint8), ones)


def sums(weight: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Add products as processors with AVX2 do: neighbours in 16 bits that saturate, then these in 32 bits."""
    products = weight.astype(np.int64)[None] * codes.astype(np.int64)[:, None]
    pairs = products.reshape(*products.shape[:2], -1, 2).sum(axis=3)
    return pairs.clip(-ROOM - 1, ROOM).sum(axis=2)


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_a_layer_that_is_not_named_never_saturates(seed, bits, act, signed):
    source, top = np.random.default_rng(seed), max(1, 2 ** (bits - 1) - 1)
    grid = Grid(0.1, -(2 ** (act - 1)), 2 ** (act - 1) - 1, act) if signed else Grid(0.1, 0, 2**act - 1, act)
    of = layer(source.choice([-top, top], (3, 24)).astype(np.int8), bits)
    codes = source.choice([grid.low, grid.high], (5, 24)) + grid.zero
    right = codes.astype(np.int64) @ of.weight.astype(np.int64).T
    if not saturates(of, grid):
        np.testing.assert_array_equal(sums(of.weight, codes), right)
    half = of.weight // 2
    both = np.concatenate([half, of.weight - half], axis=1)
    np.testing.assert_array_equal(sums(both, np.concatenate([codes, codes], axis=1)), right)
    assert not saturates(layer(both, bits), grid)


def test_eight_bits_of_both_saturate_and_seven_of_either_do_not():
    weight = np.full((1, 8), 127, np.int8)
    assert saturates(layer(weight), Grid(0.1, 0, 255, 8))
    assert not saturates(layer(np.full((1, 8), 63, np.int8)), Grid(0.1, 0, 255, 8))
    assert not saturates(layer(weight), Grid(0.1, 0, 127, 7))
    assert saturates(layer(weight), Grid(0.1, -8, 7, 4))  # held as 120..135
    assert not saturates(replace(layer(weight.astype(np.float32)), scale=None, bits=None), Grid(0.1, 0, 255, 8))
    assert not saturates(layer(weight), None)


@pytest.mark.parametrize("bits", [Bits(8, 8), Bits(4, 4), Bits(3, 32)], ids=str)
@pytest.mark.parametrize("kind", BlockKind)
def test_every_stage_answers_as_before(kind, bits, context):
    net = graphs.model(graphs.quantized(kind, bits), context)
    images = context.data.test.images[:10]
    want = graphs.through(net, images, graphs.reference)
    held, outputs = {IMAGES: images}, []
    for graph in stages_of(net):
        gives = run_reference(once(graph), held)
        outputs.append(gives["output"])
        held = {FEATURES: gives.get(FEATURES, np.empty(0))}
    np.testing.assert_allclose(outputs, want, rtol=1e-6)


def once(graph: Graph) -> Graph:
    """Halve a graph whose layers read each value twice once, and check that nothing is left to halve."""
    made = halved(graph)
    assert saturating(graph)
    assert saturating(made) == ()
    layers = [node for node in graph.nodes if isinstance(node, Layer) and node.name in saturating(graph)]
    assert len(made.nodes) == len(graph.nodes) + len({each.reads for each in layers})
    return made


def test_a_network_of_seven_bits_is_left_as_it_is(context):
    arch = graphs.quantized(BlockKind.BASIC, Bits(7, 8))
    net = graphs.model(replace(arch, quantization=Quantization(Bits(7, 8), 7)), context)
    for graph in stages_of(net):
        assert halved(graph).nodes == graph.nodes


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "vgg11", "mobilenet_v1", "mobilenet_v2"])
def test_openvino_runs_halves_in_int8_as_well(name):
    pytest.importorskip("openvino")
    from test_deploy_openvino import INT8, LAYERS, precisions

    (graph,) = stages_of(samples.model(graphs.named(name, bits=Bits(8, 8), channels=3)))
    made = once(graph)
    kinds = {key: count for key, count in precisions(made).items() if key[0] in LAYERS}
    assert {precision for _, precision in kinds} <= INT8
    assert sum(kinds.values()) >= sum(isinstance(node, Layer) for node in graph.nodes)


def machine_with(*flags: str, system: str = "Linux x86_64"):
    return lambda: Machine("", 1, flags, system, None, {})


@pytest.mark.parametrize(
    ("flags", "system", "found"),
    [
        (("avx2", "avx512f"), "Linux x86_64", True),
        (fast_flags("sse4_1 sse4_2 avx f16c"), "Linux x86_64", True),
        (("avx2", "avx512_vnni"), "Linux x86_64", False),
        (("avx2", "avx_vnni"), "Linux x86_64", False),
        ((), "Windows AMD64", None),
        (("asimddp",), "Linux aarch64", False),
        ((), "Darwin arm64", False),
    ],
)
def test_a_processor_saturates_if_it_is_x86_without_vnni(flags, system, found):
    assert machine_with(*flags, system=system)().saturates is found


def arch_of(bits: Bits) -> Arch:
    return replace(graphs.quantized(BlockKind.BASIC, bits), exits=None)


@pytest.fixture(scope="module", params=[deployed.ONNX, deployed.OPENVINO], ids=lambda config: f"{config.format}")
def case(request, tmp_path_factory, digits) -> SimpleNamespace:
    """A trained network of 8 bits, and how to export it; every answer may differ, as this machine may saturate."""
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    model: Model = deployed.learned(arch_of(Bits(8, 8)), 8)
    source = deployed.folder_of(model, tmp_path_factory.mktemp("model") / "checkpoint")
    base = replace(request.param, differing=1.0)
    base = replace(base, arithmetic=Arithmetic.EXACT) if base.format == deployed.ONNX.format else base

    def made(folder, fix=OverflowFix.AUTO, **changes):
        return export(source, replace(base, overflow_fix=fix, **changes), folder, digits.test, samples.RUNTIME)

    (graph,) = stages_of(model)
    names = saturating(graph)
    assert len(names) > 1
    return SimpleNamespace(made=made, names=names)


class TestExport:
    def test_fixes_what_this_processor_needs_and_says_what_others_do(self, case, tmp_path, monkeypatch):
        monkeypatch.setattr(saturation, "machine", machine_with("avx512_vnni"))
        plain = case.made(tmp_path / "vnni")
        monkeypatch.setattr(saturation, "machine", machine_with("avx2"))
        safe = case.made(tmp_path / "avx2")
        (stage,), (other,) = plain.stages, safe.stages
        assert stage.saturating == case.names
        assert other.saturating is None
        assert read_note(tmp_path / "vnni") == plain
        said = "x86 processors without VNNI may saturate in"
        assert said in size_line(plain)
        assert said not in size_line(safe)

    def test_always_and_never_do_as_they_say_on_any_processor(self, case, tmp_path, monkeypatch):
        for flag in ("avx2", "avx512_vnni"):
            monkeypatch.setattr(saturation, "machine", machine_with(flag))
            assert case.made(tmp_path / f"{flag}-a", OverflowFix.ALWAYS).stages[0].saturating is None
            assert case.made(tmp_path / f"{flag}-n", OverflowFix.NEVER).stages[0].saturating

    def test_fixed_agrees_with_pytorch_on_this_processor(self, case, tmp_path):
        for found in case.made(tmp_path / "made", OverflowFix.ALWAYS, differing=0.001).parity.engines:
            assert found.differing <= 1

    def test_is_not_opened_where_it_would_answer_wrongly(self, case, tmp_path, monkeypatch):
        case.made(tmp_path / "never", OverflowFix.NEVER)
        case.made(tmp_path / "always", OverflowFix.ALWAYS)
        monkeypatch.setattr(runtime, "machine", machine_with("avx2"))
        with pytest.raises(
            ModelError, match=rf"never: 8-bit sums .* {len(case.names)}, such as {case.names[0]}; .*=always"
        ):
            load_export(tmp_path / "never")
        load_export(tmp_path / "always")
        monkeypatch.setattr(runtime, "machine", machine_with(system="Windows AMD64"))
        load_export(tmp_path / "never")


def test_packed_files_have_nothing_to_fix():
    with pytest.raises(ConfigError, match=r"export\.overflow_fix=always: give auto or never; packed"):
        replace(deployed.PACKED, overflow_fix=OverflowFix.ALWAYS)


def test_values_that_layers_round_for_are_read_as_they_are(context):
    (graph, *_) = stages_of(graphs.model(graphs.quantized(BlockKind.BASIC, Bits(8, 8)), context))
    before = [node for node in graph.nodes if isinstance(node, Round)]
    assert [node for node in halved(graph).nodes if isinstance(node, Round)] == before
