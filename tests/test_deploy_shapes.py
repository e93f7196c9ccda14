"""A packed file's shapes are compared with those that its network must have before anything of their size is made."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import pytest
import samples
from test_deploy_packed import NETWORKS, changed, family, header, with_header, written

from compressor.arch import Arch, Bits, BlockKind, Exits, Quantization, WeightBits, layer_axes, with_widths
from compressor.codec import encode
from compressor.deploy import packing
from compressor.deploy.packed import write_packed
from compressor.deploy.packing import packed_of, rebuilt
from compressor.deploy.shapes import shapes_of
from compressor.errors import ModelError
from compressor.layers import PadShortcut

ARCHS = {
    **NETWORKS,
    **{name: family(name, Bits(4, 4)) for name in ("resnet20", "mobilenet_v1")},
    **{f"large {name}": graphs.named(name, size=64) for name in ("resnet18", "resnet50", "vgg11", "mobilenet_v2")},
    "no exit units": samples.arch(BlockKind.BOTTLENECK, exits=Exits((0.3, 0.6))),
}


@pytest.mark.parametrize("name", ARCHS)
def test_the_shapes_of_an_arch_are_those_of_its_network(name):
    model = samples.model(ARCHS[name])
    found = shapes_of(ARCHS[name])
    assert found.layers == {name: layer.weights.shape for name, layer in packed_of(model).layers.items()}
    pads = {name: tuple(m.map.shape) for name, m in model.net.named_modules() if isinstance(m, PadShortcut)}
    assert found.maps == pads


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed file with bits, exits, mixed layers and shortcuts."""
    return written(samples.model(NETWORKS["mixed"]), tmp_path_factory.mktemp("whole"))


def refused(path: Path) -> str:
    """Give the line with which a file is refused; little memory is taken until then."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            rebuilt(path)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("bits", [0, 1, 32, None])
@pytest.mark.parametrize("shape", [[2**20] * 4, [6, 2**20, 2**20, 2**20], [64, 65536, 1024, 1], [6, 1, 9, 1]])
def test_a_layer_of_another_shape_is_refused_by_name(bits, shape, whole, tmp_path):
    data = header(whole)
    name = data["layers"][0]["name"]
    data["layers"][0] |= {"shape": shape, "bits": bits}
    said = refused(with_header(whole, tmp_path / "model.packed", data))
    assert said.endswith(f"layer {name!r} has the shape {shape}, its network says [6, 1, 3, 3]")


def silent(kind: BlockKind, sizes: dict[str, int]) -> Arch:
    """Give an arch with axes of other sizes where each layer but the last ones has 0 bits."""
    arch = with_widths(samples.arch(kind), sizes)
    axes = {name: axis for name, axis in layer_axes(arch).items() if not name.endswith("score")}
    weights = tuple(WeightBits(name, axis, (0,)) for name, axis in axes.items())
    return replace(arch, quantization=Quantization(Bits(4, 4), 8, weights))


WIDE = {"s0": 65536, "s1": 65536, "s0b0.0": 65536, "s1b0.0": 1, "s1b1.0": 1}
MAPPED = {"s0": 65536, "s1": 65536, "s0b0.0": 1, "s0b1.0": 1, "s1b0.0": 1, "s1b1.0": 1}


@pytest.mark.parametrize("sizes", [WIDE, MAPPED], ids=["layers", "shortcuts"])
def test_a_network_that_is_gigantic_and_takes_no_bytes_is_refused(sizes, whole, tmp_path):
    arch = silent(BlockKind.BASIC, sizes)
    shapes = shapes_of(arch)
    bits = {name: 8 if name == "head.score" else 0 for name in shapes.layers}
    layers = [{"name": name, "shape": shape, "bits": bits[name]} for name, shape in shapes.layers.items()]
    maps = {name: [0] * out for name, (out, _) in shapes.maps.items()}
    data = {"arch": encode(arch), "layers": layers, "acts": [], "maps": maps}
    path = with_header(whole, tmp_path / "model.packed", data)
    assert "weights that take no bits; at most 134217728 may" in refused(changed(path, path, widths=np.empty(0, "u1")))


def misfit(data: dict) -> None:
    data["maps"]["blocks.s1b0.shortcut"] = [0]


def unknown(data: dict) -> None:
    data["maps"]["blocks.s1b1.shortcut"] = [0]


def twice(data: dict) -> None:
    data["layers"].append(data["layers"][0])


def no_rule(data: dict) -> None:
    data["arch"]["quantization"] = [1]


def too_few(data: dict) -> None:
    data["arch"]["quantization"]["weights"][0]["bits"] = [3, 4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (misfit, "'blocks.s1b0.shortcut' copies channels that are not there"),
        (unknown, "its shortcuts are not those of its network"),
        (twice, "its layers are not those of its network"),
        (no_rule, "arch.quantization: expected a mapping"),
        (too_few, "has bits for 2 channels, not for "),
    ],
)
def test_a_header_that_does_not_fit_itself_is_refused_by_name(
    change: Callable[[dict], None], said: str, whole: Path, tmp_path: Path
):
    data = header(whole)
    change(data)
    assert said in refused(with_header(whole, tmp_path / "model.packed", data))


def test_nothing_is_built_before_names_and_shapes_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "fresh", lambda *_: pytest.fail("it was built"))
    packed, path = packed_of(samples.model(NETWORKS["mixed"])), tmp_path / "model.packed"
    write_packed(replace(packed, acts={}), path)
    with pytest.raises(ModelError, match=r"its tensors do not fit its network \(image\.scale is missing"):
        rebuilt(path)
