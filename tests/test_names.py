"""Explicit bits name layers and tensors that the network has; others are refused and go when their layer goes."""

from dataclasses import replace

import pytest
import samples
import torch

from compressor.arch import (
    ActBits,
    Arch,
    Bits,
    BlockKind,
    Exits,
    Quantization,
    WeightBits,
    check,
    fitted,
    layer_names,
    tensor_names,
    without_stale_bits,
)
from compressor.config import ArchitectureConfig
from compressor.errors import ModelError
from compressor.families import FAMILIES, architecture
from compressor.layers import Act, Weighted
from compressor.model import load, save
from compressor.network import Network
from compressor.phases.exits import add_exits

RULE = Quantization(Bits(4, 4), 8)


def family(name: str, size: int = 32) -> Arch:
    config = ArchitectureConfig(name=name, width=0.25, stem="auto", mean=None, std=None, network=None)
    return architecture(config, 1, size, (0.3,), (0.4,), samples.TASK)


def explicit(arch: Arch) -> Arch:
    """Give every layer and tensor bits of its own."""
    weights = tuple(WeightBits(name, "", (3,)) for name in sorted(layer_names(arch)))
    acts = tuple(ActBits(name, 3) for name in sorted(tensor_names(arch)))
    return replace(arch, quantization=replace(RULE, weights=weights, acts=acts))


def all_archs() -> dict[str, Arch]:
    archs = {str(kind): samples.compressed(kind) for kind in BlockKind}
    archs |= {f"{name} {size}": family(name, size) for name in FAMILIES for size in (32, 224)}
    return archs | {"no width": replace(samples.compressed(), exits=Exits((0.5,)))}


@pytest.mark.parametrize("arch", all_archs().values(), ids=all_archs())
def test_the_names_are_those_of_the_networks_modules(arch):
    with torch.device("meta"):
        modules = dict(Network(arch).named_modules())
    assert layer_names(arch) == {name for name, m in modules.items() if isinstance(m, Weighted)}
    assert tensor_names(arch) == {name for name, m in modules.items() if isinstance(m, Act)}
    assert check(explicit(arch)) == explicit(arch)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            replace(RULE, weights=(WeightBits("blocks.s0b0.conv9", "", (2,)),)),
            r"weights: there is no 'blocks.s0b0.conv9'",
        ),
        (replace(RULE, acts=(ActBits("blocks.s0b0.conv1", 2),)), r"acts: there is no 'blocks.s0b0.conv1'"),
        (replace(RULE, weights=(WeightBits("", "", (2,)),)), "weights: there is no ''"),
    ],
)
def test_explicit_bits_of_what_is_not_there_are_refused_in_one_line(rule, said, tmp_path):
    arch = replace(samples.arch(), quantization=rule)
    with pytest.raises(ModelError, match=said) as caught:
        check(arch)
    assert "the nearest is '" in str(caught.value)
    assert "\n" not in str(caught.value)
    save(replace(samples.model(samples.arch()), arch=arch), tmp_path)
    with pytest.raises(ModelError, match=r"arch\.json: .*there is no"):
        load(tmp_path)


def test_heads_that_are_replaced_take_their_explicit_bits_along(context):
    model = samples.model(explicit(samples.compressed()))
    config = replace(samples.EXIT, positions=(0.5,), width=0, fit=replace(samples.FIT, epochs=0))
    rule = add_exits(config, context, model).arch.quantization
    assert rule is not None
    assert {w.layer for w in rule.weights if w.layer.startswith("exits")} == {"exits.0.score"}
    assert {a.tensor for a in rule.acts if a.tensor.startswith("exits")} == {"exits.0.act"}


def test_a_student_of_another_family_keeps_the_explicit_bits_that_it_has_a_layer_for():
    model, student = explicit(family("resnet18")), family("mobilenet_v2")
    kept = fitted(student, model, model)
    assert check(kept) == without_stale_bits(kept)
    assert kept.quantization is not None
    assert {w.layer for w in kept.quantization.weights} == layer_names(student) & layer_names(model)
