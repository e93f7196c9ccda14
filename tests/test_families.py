"""The named networks are the published ones, and a user's own is read strictly."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.arch import Activation, Arch, Shortcut, Task, TaskKind, keep, shrink, widths
from compressor.codec import decode, encode
from compressor.config import ArchitectureConfig
from compressor.errors import ConfigError
from compressor.families import CIFAR_RESNETS, FAMILIES, architecture
from compressor.network import Network, build

CONFIGS = Path(__file__).parents[1] / "configs" / "architecture"
TASK = Task(TaskKind.MULTICLASS, 10)
CUSTOM = yaml.safe_load((CONFIGS / "custom.yaml").read_text())["network"]
BLOCK = {"kind": "basic", "widths": [4]}
TORCHVISION = {name: name for name in ("resnet18", "resnet34", "resnet50", "mobilenet_v2")}
TORCHVISION |= {f"vgg{depth}": f"vgg{depth}_bn" for depth in (11, 16, 19)}


def arch_of(name: str, size: int = 32, channels: int = 3, outputs: int = 10, **settings) -> Arch:
    values = {"name": name, "width": 1.0, "stem": "auto", "mean": None, "std": None, "network": None} | settings
    task = replace(TASK, outputs=outputs)
    return architecture(ArchitectureConfig(**values), channels, size, (0.5,) * channels, (0.25,) * channels, task)


def macs(net: nn.Module, size: int) -> int:
    """Count with torch's counter, on tensors without data."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


def on_meta(arch: Arch) -> Network:
    with torch.device("meta"):
        return Network(arch)


class TestPublishedShapes:
    @pytest.mark.parametrize("name", TORCHVISION)
    def test_a_224_network_has_torchvisions_macs_and_parameters(self, name):
        with torch.device("meta"):
            theirs = torchvision.models.get_model(TORCHVISION[name])
        ours = on_meta(arch_of(name, size=224, outputs=1000))
        biases = [m.bias for m in theirs.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
        params = sum(p.numel() for p in theirs.parameters()) - sum(bias.numel() for bias in biases)
        assert macs(ours, 224) == macs(theirs, 224)
        assert sum(p.numel() for p in ours.parameters()) == params

    @pytest.mark.parametrize(("name", "millions"), [("resnet18", 1814.07), ("mobilenet_v2", 300.77)])
    def test_the_macs_at_224_are_the_known_numbers(self, name, millions):
        assert macs(on_meta(arch_of(name, size=224, outputs=1000)), 224) / 1e6 == pytest.approx(millions, abs=0.01)

    def test_mobilenet_v1_has_the_papers_macs_and_parameters(self):
        net = on_meta(arch_of("mobilenet_v1", size=224, outputs=1000))
        assert macs(net, 224) / 1e6 == pytest.approx(568.7, abs=0.1)  # the paper's table 4: 569 million, 4.2 million
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(4.23, abs=0.01)

    @pytest.mark.parametrize(
        ("depth", "thousands"), [(20, 269.7), (32, 464.2), (44, 658.6), (56, 853.0), (110, 1727.9)]
    )
    def test_a_cifar_resnet_has_the_papers_parameters(self, depth, thousands):
        net = on_meta(arch_of(f"resnet{depth}"))
        assert sum(p.numel() for p in net.parameters()) / 1e3 == pytest.approx(thousands, abs=0.1)

    def test_a_cifar_resnet_pads_and_its_stem_shares_the_first_stream(self):
        arch = arch_of("resnet20")
        assert {stage.shortcut for stage in arch.stages} == {Shortcut.PAD}
        assert arch.stem is not None
        assert arch.stem.width is None
        assert [stage.width for stage in arch.stages] == [16, 32, 64]

    def test_mobilenet_v2_clips_at_6_and_mobilenet_v1_does_not(self):
        assert arch_of("mobilenet_v2").activation is Activation.RELU6
        assert arch_of("mobilenet_v1").activation is Activation.RELU

    @pytest.mark.parametrize("width", [0.35, 0.5, 1.4])
    def test_mobilenet_v2_rounds_its_widths_as_torchvision_does(self, width):
        theirs = torchvision.models.mobilenet_v2(width_mult=width)
        ours = on_meta(arch_of("mobilenet_v2", width=width, outputs=1000))
        shapes = [tuple(p.shape) for p in theirs.parameters() if p.ndim == 4]
        assert [tuple(p.shape) for p in ours.parameters() if p.ndim == 4] == shapes


class TestForms:
    @pytest.mark.parametrize("name", FAMILIES)
    @pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 3), (96, 3)])
    def test_every_family_runs_on_images_of_every_size(self, name, size, channels):
        net = build(arch_of(name, size, channels, width=0.125), seed=0).eval()
        (out,) = net(torch.zeros(2, channels, size, size, dtype=torch.uint8))
        assert isinstance(out, Tensor)
        assert out.shape == (2, 10)
        assert out.isfinite().all()

    @pytest.mark.parametrize("name", FAMILIES)
    def test_every_family_runs_with_each_stem_it_has(self, name):
        for stem in ("auto", "small") if name in CIFAR_RESNETS else ("auto", "small", "large"):
            net = build(arch_of(name, 16, stem=stem, width=0.1), seed=0).eval()
            assert net(torch.zeros(1, 3, 16, 16))[0].shape == (1, 10)

    def test_auto_takes_the_small_stem_below_96_pixels(self):
        for name in ("resnet18", "vgg11", "mobilenet_v2"):
            assert arch_of(name, 95) == arch_of(name, 95, stem="small")
            assert arch_of(name, 96) == arch_of(name, 96, stem="large")
            assert arch_of(name, 95) != arch_of(name, 95, stem="large")

    def test_the_small_stem_leaves_a_map_of_several_pixels_at_32(self):
        sizes: dict[str, int] = {}
        for name in FAMILIES:
            net = build(arch_of(name, 32, width=0.125), seed=0).eval()
            block = list(net.blocks.values())[-1]
            maps: list[Tensor] = []
            block.register_forward_hook(lambda _block, _x, out, maps=maps: maps.append(out))
            net(torch.zeros(1, 3, 32, 32))
            sizes[name] = maps[0].shape[-1]
        assert {sizes[f"resnet{depth}"] for depth in (20, 32, 44, 56, 110)} == {8}
        assert {sizes[f"resnet{depth}"] for depth in (18, 34, 50)} == {4}
        assert (sizes["mobilenet_v1"], sizes["mobilenet_v2"], sizes["vgg16"]) == (2, 4, 1)

    def test_the_width_multiplies_every_axis(self):
        whole, half = widths(arch_of("resnet50")), widths(arch_of("resnet50", width=0.5))
        assert half == {axis: n // 2 for axis, n in whole.items()}
        assert min(widths(arch_of("vgg16", width=0.001)).values()) == 1

    def test_the_settings_mean_and_std_replace_the_datas(self):
        arch = arch_of("resnet20", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
        assert (arch.input.mean, arch.input.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
        assert arch_of("resnet20").input.mean == (0.5, 0.5, 0.5)

    @pytest.mark.parametrize("name", FAMILIES)
    def test_an_arch_survives_json_pruning_and_shrinking(self, name):
        arch = arch_of(name)
        assert decode(Arch, encode(arch)) == arch
        half = keep(arch, {axis: range(max(1, n // 2)) for axis, n in widths(arch).items()})
        with torch.device("meta"):
            Network(half)
            Network(shrink(half, depth=0.5, width=0.5))

    def test_naming_networks_needs_no_torch(self):
        code = "import sys, compressor.families; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestConfigFiles:
    @pytest.mark.parametrize("name", [*FAMILIES, "custom"])
    def test_every_network_has_a_file_whose_every_key_is_explained(self, name):
        path = CONFIGS / f"{name}.yaml"
        config = decode(ArchitectureConfig, yaml.safe_load(path.read_text()), "architecture")
        assert config.name == name
        architecture(config, 3, 32, (0.5,) * 3, (0.25,) * 3, TASK)
        lines = path.read_text().splitlines()
        keys = [i for i, line in enumerate(lines) if line and line[0].isalpha() and not line.startswith("network:")]
        assert len(keys) == 5
        assert all(lines[i - 1].startswith("# ") for i in keys)

    def test_there_is_no_file_without_a_network(self):
        assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*FAMILIES, "custom"}


class TestOwnNetwork:
    def test_the_example_is_built_as_described(self):
        arch = arch_of("mine", network=CUSTOM)
        assert [len(stage.blocks) for stage in arch.stages] == [2, 3, 2]
        (out,) = build(arch, seed=0).eval()(torch.zeros(2, 3, 32, 32))
        assert out.shape == (2, 10)

    def test_the_documented_example_is_built(self):
        text = (CONFIGS.parents[1] / "docs" / "networks.md").read_text().split("```yaml\n")[1].split("```")[0]
        config = decode(ArchitectureConfig, yaml.safe_load(text), "architecture")
        arch = architecture(config, 3, 32, (0.5,) * 3, (0.25,) * 3, TASK)
        assert build(arch, seed=0).eval()(torch.zeros(1, 3, 32, 32))[0].shape == (1, 10)

    def test_the_width_multiplies_it_too(self):
        whole, half = (widths(arch_of("mine", network=CUSTOM, width=w)) for w in (1.0, 0.5))
        assert half == {axis: n // 2 for axis, n in whole.items()}

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            ({}, "architecture.network: key 'stages' is missing"),
            ({"stages": 3}, "architecture.network.stages: expected a list, got 3"),
            ({"stages": []}, "architecture.network: every network needs a stage"),
            ({"stages": [{"blocks": []}]}, "architecture.network: every network needs a stage and every stage a block"),
            ({"stages": [{"blocks": [{"kind": "basik", "widths": [4]}]}]}, "stages[0].blocks[0].kind: 'basik' is not"),
            ({"stages": [{"blocks": [{**BLOCK, "width": 4}], "width": 4}]}, "stages[0].blocks[0]: unknown key 'width'"),
            ({"stages": [{"blocks": [BLOCK], "width": "4"}]}, "architecture.network.stages[0].width: expected int"),
            ({"stages": [{"blocks": [BLOCK], "width": 4}]}, "architecture.network: a first stage of residual blocks"),
            ({"stages": [{"blocks": [BLOCK]}], "stem": {}}, "architecture.network: stage 0 needs a width"),
            (
                {"stages": [{"blocks": [{"kind": "plain", "widths": [4], "stride": 4}], "pool": True}] * 3},
                "architecture.network.stages[1].pool: images of 8 pixels are 1x1 here already",
            ),
        ],
    )
    def test_a_wrong_description_is_refused_in_one_line_with_its_path(self, network, message):
        with pytest.raises(ConfigError) as caught:
            arch_of("mine", 8, network=network)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"name": "resnet21"}, "did you mean resnet32 or resnet20"),
            ({"name": "transformer_xl"}, "there are resnet20, resnet32"),
            ({"name": "resnet20", "stem": "large"}, "architecture.stem=large: resnet20 has the small stem only"),
            ({"name": "resnet20", "network": CUSTOM}, "is the name of a known network"),
            ({"name": "mine", "network": CUSTOM, "stem": "small"}, "states its own stem"),
            ({"name": "resnet20", "mean": (0.5,)}, "architecture.mean=[0.5]: the images need 3 numbers"),
            ({"name": "resnet20", "std": (0.5, 0.0, 1.0)}, "architecture.std=[0.5, 0.0, 1.0]: give numbers above 0"),
            ({"name": "vgg16", "width": 17.0}, "architecture.width=17.0"),
        ],
    )
    def test_an_impossible_setting_is_refused_in_one_line(self, settings, message):
        with pytest.raises(ConfigError) as caught:
            arch_of(**settings)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
