"""Published weights give the same outputs here as in the class they come from; a tensor that does not fit is named."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import vgg

from compressor.arch import Arch, Bits, Exits, Quantization, Task, TaskKind
from compressor.calibration import some_images
from compressor.config import ArchitectureConfig
from compressor.data.types import Data
from compressor.errors import ModelError
from compressor.families import architecture
from compressor.importing import import_weights
from compressor.importing import published as model_of_file
from compressor.model import Model, fresh

VGG_DEPTHS = {"vgg11": "A", "vgg16": "D", "vgg19": "E"}


def arch_of(name: str, size: int = 32, channels: int = 3, outputs: int = 10, **settings) -> Arch:
    """Give an arch that does not normalise, as its oracle does not."""
    values = {"name": name, "width": 1.0, "stem": "auto", "mean": None, "std": None, "network": None} | settings
    task = Task(TaskKind.MULTICLASS, outputs)
    return architecture(ArchitectureConfig(**values), channels, size, (0.0,) * channels, (1.0,) * channels, task)


def lively(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give every norm and bias values that a wrong place would show."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.data.normal_(0, 0.2, generator=generator)
    return net.eval()


def assert_same_outputs(theirs: nn.Module, arch: Arch, names: dict[str, str] | None = None) -> None:
    images = torch.rand(2, 3, arch.input.size, arch.input.size, generator=torch.Generator().manual_seed(1))
    ours = import_weights(arch, theirs.state_dict(), names or {}).net.eval()
    with torch.no_grad():
        want, got = theirs(images), ours(images)[-1]
    scale = want.abs().max()
    torch.testing.assert_close(got / scale, want / scale, atol=1e-5, rtol=0)


class PublishedBlock(nn.Module):
    """A basic block as the published CIFAR ResNets have it."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.stride, self.pad = stride, cout // 4 if stride > 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(x, (0, 0, 0, 0, self.pad, self.pad)))


class PublishedResNet(nn.Module):
    """He et al. 2015, section 4.2, with the tensor names of the published CIFAR-10 weights."""

    def __init__(self, depth: int, outputs: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        n = (depth - 2) // 6
        self.layer1 = self.layer(16, 16, n, 1)
        self.layer2 = self.layer(16, 32, n, 2)
        self.layer3 = self.layer(32, 64, n, 2)
        self.linear = nn.Linear(64, outputs)

    @staticmethod
    def layer(cin: int, cout: int, n: int, stride: int) -> nn.Sequential:
        first = PublishedBlock(cin, cout, stride)
        return nn.Sequential(first, *(PublishedBlock(cout, cout, 1) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3)))


def published(depth: int = 20, outputs: int = 10, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return lively(PublishedResNet(depth, outputs), seed)


def narrow_vgg(name: str, divisor: int = 8) -> nn.Module:
    """Give torchvision's class with fewer channels: the original's linear layers alone take 0.5 GB."""
    torch.manual_seed(0)
    plan = [step if isinstance(step, str) else step // divisor for step in vgg.cfgs[VGG_DEPTHS[name]]]
    with torch.device("meta"):
        net = vgg.VGG(nn.Sequential(), init_weights=False)
    net.features, hidden = vgg.make_layers(plan, batch_norm=True), 4096 // divisor
    last = plan[-2]
    assert isinstance(last, int)
    net.classifier = nn.Sequential(
        *(nn.Linear(last * 49, hidden), nn.ReLU(True), nn.Dropout()),
        *(nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout()),
        nn.Linear(hidden, 10),
    )
    return lively(net)


class TestOutputs:
    @pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2"])
    def test_torchvisions_networks_give_the_same_outputs_here(self, name):
        torch.manual_seed(0)
        theirs = lively(torchvision.models.get_model(name, num_classes=10))
        assert_same_outputs(theirs, arch_of(name, 64, stem="large"))

    @pytest.mark.parametrize("name", VGG_DEPTHS)
    @pytest.mark.parametrize("size", [64, 224])
    def test_torchvisions_vggs_with_narrow_layers_give_the_same_outputs_here(self, name, size):
        assert_same_outputs(narrow_vgg(name), arch_of(name, size, stem="large", width=0.125))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2", "vgg11", "vgg16", "vgg19"])
    def test_torchvisions_whole_networks_give_the_same_outputs_at_224(self, name):
        torch.manual_seed(0)
        theirs = lively(torchvision.models.get_model(f"{name}_bn" if "vgg" in name else name))
        assert_same_outputs(theirs, arch_of(name, 224, outputs=1000))

    @pytest.mark.parametrize("depth", [20, 32, 56])
    def test_the_published_cifar_resnets_give_the_same_outputs_here(self, depth):
        assert_same_outputs(published(depth), arch_of(f"resnet{depth}"))

    def test_old_files_without_batch_counters_and_half_precision_are_taken(self):
        state = {n: t.half() for n, t in published().state_dict().items() if "num_batches_tracked" not in n}
        got = import_weights(arch_of("resnet20"), state, {}).net.state_dict()
        assert got["stem.norm.num_batches_tracked"] == 0
        assert torch.equal(got["stem.conv.weight"], state["conv1.weight"].float())


class TestNames:
    def own(self) -> tuple[nn.Module, Arch, dict[str, str]]:
        torch.manual_seed(0)
        net = nn.Sequential(
            OrderedDict(
                first=nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()),
                second=nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU()),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                answer=nn.Linear(12, 10),
            )
        )
        stages = [{"blocks": [{"kind": "plain", "widths": [8]}, {"kind": "plain", "widths": [12], "stride": 2}]}]
        names = {"first.0": "blocks.s0b0.conv1", "first.1": "blocks.s0b0.norm1", "answer": "head.score"}
        names |= {"second.0.weight": "blocks.s0b1.conv1.weight", "second.0.bias": "blocks.s0b1.conv1.bias"}
        return lively(net), arch_of("mine", network={"stages": stages}), names | {"second.1": "blocks.s0b1.norm1"}

    def test_an_own_network_is_imported_by_the_names_of_its_modules_or_tensors(self):
        net, arch, names = self.own()
        assert_same_outputs(net, arch, names)

    def test_without_a_map_the_names_are_this_programs_own(self):
        arch = arch_of("resnet20")
        state = fresh(arch, seed=3).net.state_dict()
        named = {ours: ours for ours in state}
        for got in (
            import_weights(arch, state, named),
            import_weights(arch_of("mobilenet_v1"), fresh(arch_of("mobilenet_v1"), 3).net.state_dict(), {}),
        ):
            want = fresh(got.arch, seed=3).net.state_dict()
            assert all(torch.equal(tensor, want[name]) for name, tensor in got.net.state_dict().items())

    def test_a_name_that_the_file_lacks_and_two_names_for_one_place_are_refused(self):
        net, arch, names = self.own()
        with pytest.raises(ModelError, match="tensor 'third' is missing; it has first"):
            import_weights(arch, net.state_dict(), names | {"third": "tail.conv"})
        with pytest.raises(ModelError, match="are both named"):
            import_weights(arch, net.state_dict(), names | {"second.1": "blocks.s0b0.norm1"})


class TestClasses:
    def test_another_number_of_classes_leaves_only_the_last_layer_fresh(self):
        net, arch = published(outputs=100), arch_of("resnet20", outputs=10)
        got, untouched = import_weights(arch, net.state_dict(), {}, seed=5).net, fresh(arch, seed=5).net
        assert torch.equal(got.head.score.weight, untouched.head.score.weight)
        assert torch.equal(got.head.score.bias, untouched.head.score.bias)
        assert torch.equal(got.state_dict()["blocks.s2b2.conv2.weight"], net.state_dict()["layer3.2.conv2.weight"])

    def test_exits_and_scales_stay_fresh(self):
        rules = {"exits": Exits((0.5,)), "quantization": Quantization(Bits(4, 4), 8)}
        arch = Arch(**{**vars(arch_of("resnet20")), **rules})
        got = import_weights(arch, published().state_dict(), {})
        assert got.arch == arch
        assert torch.equal(got.net.state_dict()["stem.conv.weight"], published().state_dict()["conv1.weight"])
        assert got.net.state_dict().keys() == fresh(arch, 0).net.state_dict().keys()


def changed(**tensors: Tensor | None) -> dict[str, Tensor]:
    state = {**published().state_dict(), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


class TestStrictness:
    @pytest.mark.parametrize(
        ("state", "message"),
        [
            (changed(bn1__weight=None), "nothing in the file is 'stem.norm.weight'"),
            (changed(linear__weight=None, linear__bias=None), "tensor 'linear' is missing"),
            (changed(surplus__weight=torch.zeros(3)), "tensor 'surplus.weight' has no place in 'resnet20'"),
            (changed(bn1__weight=torch.ones(17)), "tensor 'bn1.weight' is 17; 'resnet20' needs 16"),
            (
                changed(conv1__weight=torch.ones(16, 1, 3, 3)),
                "tensor 'conv1.weight' is 16x1x3x3; 'resnet20' needs 16x3x3x3",
            ),
            (changed(linear__weight=torch.ones(10, 32)), "tensor 'linear.weight' is 10x32"),
            (changed(linear__weight=torch.ones(11, 64)), "tensor 'linear.weight' is 11x64"),
            (
                changed(bn1__weight=torch.full((16,), torch.nan)),
                "tensor 'bn1.weight' holds numbers that are not finite",
            ),
            (changed(bn1__bias=torch.full((16,), 1e300, dtype=torch.float64)), "tensor 'bn1.bias' holds numbers"),
            (changed(bn1__weight=torch.ones(16, dtype=torch.int8)), "tensor 'bn1.weight' holds torch.int8"),
            (changed(conv1__bias=torch.ones(3)), "tensor 'conv1.bias' does not have the shape 16"),
            (published(56).state_dict(), "tensor 'layer1.3.bn1.bias' has no place"),
            (published(14).state_dict(), "tensor 'layer1.2.conv1' is missing"),
            ({}, "is missing"),
        ],
    )
    def test_a_file_that_does_not_fit_is_refused_by_the_tensors_name(self, state, message):
        with pytest.raises(ModelError) as caught:
            import_weights(arch_of("resnet20"), dict(sorted(state.items())), {})
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_the_224_stems_weights_do_not_fit_the_small_stem(self):
        state = torchvision.models.resnet18(num_classes=10).state_dict()
        with pytest.raises(
            ModelError, match=r"'conv1.weight' is 64x3x7x7; 'resnet18' needs 64x3x3x3 \(architecture.stem"
        ):
            import_weights(arch_of("resnet18"), state, {})

    def test_a_published_shortcut_that_this_network_lacks_is_refused(self):
        state = torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=10).state_dict()
        with pytest.raises(ModelError, match="adds"):
            import_weights(arch_of("mobilenet_v2", width=0.25), state, {})


class TestAnswers:
    def read(self, tmp_path: Path, state: dict[str, Tensor], digits: Data) -> Model:
        """Give the model of a grey resnet20 with these weights, which answers real images."""
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "w.ckpt")
        return model_of_file(arch_of("resnet20", 8, channels=1), tmp_path / "w.ckpt", {}, 0, some_images(digits))

    def test_weights_that_answer_real_images_become_the_model(self, digits, tmp_path):
        state = changed(conv1__weight=torch.ones(16, 1, 3, 3) / 9)
        assert torch.equal(
            self.read(tmp_path, state, digits).net.state_dict()["stem.conv.weight"], state["conv1.weight"]
        )

    def test_a_negative_variance_is_refused_by_the_tensors_name(self, digits, tmp_path):
        variance = torch.ones(16)
        variance[3] = -0.25
        state = changed(conv1__weight=torch.ones(16, 1, 3, 3), bn1__running_var=variance)
        with pytest.raises(ModelError, match=r"w\.ckpt: tensor 'bn1\.running_var' holds a variance of -0\.25"):
            self.read(tmp_path, state, digits)

    def test_weights_too_large_to_answer_are_blamed_by_file_and_tensor(self, digits, tmp_path):
        huge = published().state_dict()["layer1.0.conv1.weight"] * 1e38
        state = changed(conv1__weight=torch.ones(16, 1, 3, 3), layer1__0__conv1__weight=huge.clamp(-3e38, 3e38))
        with pytest.raises(ModelError, match=r"w\.ckpt: the network's answers .* is in 'layer1\.0\.conv1\.weight'"):
            self.read(tmp_path, state, digits)

    def test_a_map_of_names_may_name_what_the_file_names(self, tmp_path):
        net, arch, names = TestNames().own()
        torch.save({"state_dict": {f"model.{name}": t for name, t in net.state_dict().items()}}, tmp_path / "w.ckpt")
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        for prefix in ("", "model."):
            got = model_of_file(
                arch, tmp_path / "w.ckpt", {prefix + k: v for k, v in names.items()}, 0, images
            ).net.eval()
            with torch.no_grad():
                torch.testing.assert_close(got(images)[-1], net(images), atol=1e-4, rtol=1e-4)
