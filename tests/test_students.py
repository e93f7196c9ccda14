"""A named student keeps what was compressed, whoever teaches it, and may start from published weights."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import samples
import torch
from safetensors.torch import save_file
from settings import CONFIG, DATA, keys, model_folder, recorded, steps

from compressor.arch import Arch, check, widths
from compressor.config import ArchitectureConfig, BaselineSettings, Init, RunConfig
from compressor.data.types import Data
from compressor.errors import ConfigError
from compressor.families import architecture
from compressor.model import Model, fresh, load, same, save
from compressor.phases.distill import distill, student_arch
from compressor.phases.importance import magnitude, strongest
from compressor.phases.prune import prune
from compressor.planning import plan
from compressor.store import Store
from compressor.training import Context

SHORT = replace(samples.FIT, epochs=0)


def family(name: str, width: float = 1.0) -> Arch:
    config = ArchitectureConfig(name=name, width=width, stem="auto", mean=None, std=None, network=None)
    return architecture(config, 1, 8, (0.3,), (0.4,), samples.TASK)


def ended(config: RunConfig, data: Data) -> Arch:
    last, *_ = samples.finish(config, data)
    return load(Store(Path(config.store)).folder(last.key)).arch


class TestKeptFractions:
    def run(self, root: Path, order: str, **changes) -> RunConfig:
        """Give a run from a quarter of resnet20 that prunes halves, and trains nothing."""
        config = replace(samples.DISTILL, student="resnet20", init=Init.FRESH, fit=SHORT)
        return samples.settings(
            root,
            order,
            samples.STANDARD,
            architecture=ArchitectureConfig("resnet20", 0.25, "auto", None, None, None),
            baseline=BaselineSettings(None, {}, SHORT),
            prune=replace(samples.PRUNE, ratio=0.5, fit=SHORT),
            distill=replace(config, **changes),
        )

    @pytest.mark.parametrize("teacher", ["baseline", "input", "a wide network"])
    @pytest.mark.parametrize(("order", "share"), [("PD", 0.5), ("D", 1.0), ("PPD", 0.25)])
    def test_a_student_after_pruning_is_as_pruned_whoever_teaches(self, teacher, order, share, digits, tmp_path):
        if teacher == "a wide network":
            teacher = str(tmp_path / "wide")
            Path(teacher).mkdir()
            wide = replace(family("resnet20", 0.5), input=replace(family("resnet20").input, mean=digits.mean))
            save(fresh(replace(wide, task=digits.task), 0), Path(teacher))
        arch = ended(self.run(tmp_path, order, teacher=teacher), digits)
        whole = widths(family("resnet20"))
        assert widths(arch) == {axis: share * size for axis, size in whole.items()}

    def test_a_second_student_of_another_family_is_as_pruned_as_the_first(self):
        original, halved = family("resnet20", 0.25), family("resnet18", 0.5)
        config = replace(samples.DISTILL, student="mobilenet_v2", init=Init.FRESH)
        whole = widths(family("mobilenet_v2"))
        assert widths(student_arch(config, family("resnet18"), original)) == whole
        got = widths(student_arch(config, halved, original))
        assert got == {axis: max(1, round(0.5 * size)) for axis, size in whole.items()}
        assert check(student_arch(config, halved, original))


class TestPlanning:
    STUDENT = replace(CONFIG.distill, student="resnet20")

    def inputs(self, order: str, **changes) -> dict:
        planned = plan(replace(CONFIG, order=order, distill=replace(self.STUDENT, **changes)), DATA)
        return {role: planned.steps.index(source) for role, source in planned.last.inputs if source in planned.steps}

    def test_the_original_is_an_input_exactly_where_a_named_students_teacher_is_another(self):
        assert self.inputs("PD") == {"model": 1, "teacher": 0}
        assert self.inputs("PD", teacher="input") == {"model": 1, "teacher": 1, "original": 0}
        assert self.inputs("D", teacher="input") == {"model": 0, "teacher": 0}
        assert self.inputs("PD", teacher="input", student=None) == {"model": 1, "teacher": 1}

    def test_the_folder_of_the_original_itself_is_no_other_teacher(self, tmp_path):
        (start,) = steps(plan(replace(CONFIG, order=""), DATA))
        folder = recorded(model_folder(tmp_path / "00-baseline"), start)
        planned = plan(replace(CONFIG, order="PD", distill=replace(self.STUDENT, teacher=str(folder))), DATA)
        assert dict(planned.last.inputs).keys() == {"model", "teacher"}

    def test_a_checkpoints_original_is_found_beside_it_and_gives_the_chains_key(self, tmp_path):
        config = replace(CONFIG, distill=replace(self.STUDENT, teacher="input"))
        planned = steps(plan(replace(config, order="P"), DATA))
        for i, step in enumerate(planned):
            recorded(model_folder(tmp_path / f"{i:02}-{step.name}"), step, planned[0].key)
        given = replace(config, checkpoint=str(tmp_path / "01-prune"), order="D")
        assert plan(given, DATA).last.key == keys(replace(config, order="PD"))[-1]
        (tmp_path / "00-baseline" / "arch.json").unlink()
        with pytest.raises(ConfigError, match=r"distill\.student=resnet20: .*put its folder there") as caught:
            plan(given, DATA)
        assert "\n" not in str(caught.value)


def published(model: Model) -> dict[str, torch.Tensor]:
    """Name the tensors of a CIFAR ResNet as its authors did."""
    named = {}
    for name, tensor in model.net.state_dict().items():
        name = re.sub(r"blocks\.s(\d)b(\d)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.", name)
        name = name.replace("stem.conv", "conv1").replace("stem.norm", "bn1").replace("head.score", "linear")
        named[name.replace("norm", "bn")] = tensor
    return {name: tensor for name, tensor in named.items() if "shortcut" not in name}


class TestPublishedWeights:
    CONFIG = replace(samples.DISTILL, student="resnet20", init=Init.WEIGHTS, weights="sha256:file", fit=SHORT)

    def student(self, context: Context, weights: Model, model: Model, original: Model, seed: int = 0) -> Model:
        file = context.scratch.parent / "weights.safetensors"
        save_file(published(weights), file)
        config = replace(self.CONFIG, fit=replace(SHORT, seed=seed))
        return distill(config, replace(context, files={"sha256:file": file}), model, original)

    def test_a_named_student_starts_from_them(self, context):
        weights = samples.model(family("resnet20"), 3)
        model = fresh(family("resnet32"), 0)
        assert same(self.student(context, weights, model, model), weights)

    def test_a_pruned_chains_student_takes_their_strongest_channels(self, context):
        weights, whole = samples.model(family("resnet20"), 3), fresh(family("resnet32"), 0)
        pruned = prune(replace(samples.PRUNE, ratio=0.5, fit=SHORT), context, whole)
        student = self.student(context, weights, pruned, whole)
        kept = strongest(magnitude(weights, power=2)["s2"], 32)
        bias = "blocks.s2b2.norm2.bias"
        assert torch.equal(student.net.state_dict()[bias], weights.net.state_dict()[bias][kept])

    def test_a_last_layer_that_they_lack_depends_on_the_seed_of_the_step(self, context):
        weights = samples.model(replace(family("resnet20"), task=replace(samples.TASK, outputs=7, names=())), 3)
        model = fresh(family("resnet20"), 0)
        found = [self.student(context, weights, model, model, seed).net.head.score.weight for seed in (0, 5, 5)]
        assert not torch.equal(found[0], found[1])
        assert torch.equal(found[1], found[2])
