"""A student is as small as it was told, keeps what was compressed, and learns its teacher's answers."""

from dataclasses import replace

import pytest
import samples
import torch

from compressor.arch import Bits, BlockKind, Quantization, Stem, widths
from compressor.config import ArchitectureConfig, Importance, Init
from compressor.errors import ConfigError, TrainingError
from compressor.families import architecture
from compressor.losses import imitation
from compressor.model import Model, fresh, same
from compressor.phases.distill import distill
from compressor.phases.importance import importance, strongest
from compressor.phases.prune import prune
from compressor.phases.quantize import is_scale
from compressor.phases.teaching import attention_hints
from compressor.training import Context, copied, fit

SHORT = replace(samples.FIT, epochs=0)


def taught(context: Context, model: Model, teacher: Model | None = None, **changes) -> Model:
    config = replace(samples.DISTILL, **({"fit": SHORT} | changes))
    return distill(config, context, model, teacher or samples.model(samples.STANDARD, 1))


def test_an_inheriting_student_of_the_whole_size_is_the_model(context):
    model = samples.model(samples.compressed())
    assert same(taught(context, model, depth=1.0), samples.model(samples.compressed()))


def test_an_inheriting_student_has_the_first_blocks_weights(context):
    model = samples.model(samples.STANDARD)
    student = taught(context, model, depth=0.5).net.state_dict()
    state = model.net.state_dict()
    assert student.keys() == {name for name in state if "b1." not in name}
    assert all(torch.equal(student[name], state[name]) for name in student)


def test_blocks_are_told_a_stage_instead_of_depth(context):
    model = samples.model(samples.STANDARD)
    student = taught(context, model, depth=0.5, blocks=(1, 2)).net.state_dict()
    assert student.keys() == {name for name in model.net.state_dict() if "s0b1." not in name}


def test_a_named_student_can_have_fewer_blocks(context):
    student = taught(context, samples.model(samples.STANDARD), student="resnet20", init=Init.FRESH, blocks=(1, 3, 2))
    assert [len(stage.blocks) for stage in student.arch.stages] == [1, 3, 2]


def test_a_thinner_student_inherits_the_strongest_channels(context):
    model = samples.model(samples.STANDARD)
    student = taught(context, model, depth=1.0, width=0.5)
    assert widths(student.arch) == {axis: size // 2 for axis, size in widths(model.arch).items()}
    kept = strongest(importance(model, context.data, Importance.L2, 0)["s0b0.0"], 3)
    norm = "blocks.s0b0.norm1.bias"
    assert torch.equal(student.net.state_dict()[norm], model.net.state_dict()[norm][kept])


def test_a_fresh_student_depends_on_the_seed_alone(context):
    one, other = (taught(context, samples.model(samples.STANDARD, s), init=Init.FRESH) for s in (0, 1))
    assert same(one, other)
    assert torch.equal(one.net.stem.conv.weight, fresh(one.arch, 0).net.stem.conv.weight)  # pyright: ignore


def test_a_student_keeps_bits_exits_and_pruned_widths(context):
    small = prune(replace(samples.PRUNE, fit=SHORT), context, samples.model(samples.compressed()))
    student = taught(context, small, depth=0.5).arch
    assert (student.quantization, student.exits) == (small.arch.quantization, small.arch.exits)
    assert all(widths(small.arch)[axis] == size for axis, size in widths(student).items())


def test_a_named_student_keeps_each_axis_kept_fraction_bits_and_exits(context):
    config = ArchitectureConfig(name="resnet20", width=0.5, stem="auto", mean=None, std=None, network=None)
    whole = architecture(config, 1, 8, (0.3,), (0.4,), samples.TASK)
    rule = Quantization(Bits(4, 4), 8)
    teacher, model = fresh(whole, 0), fresh(replace(whole, quantization=rule), 0)
    small = prune(replace(samples.PRUNE, ratio=0.5, fit=SHORT), context, model)
    student = taught(context, small, teacher, student="resnet32", init=Init.FRESH)
    assert student.arch.name == "resnet32"
    assert student.arch.quantization == rule
    assert {student.arch.stages[0].width, student.arch.stages[2].width} == {8, 32}
    assert sum(len(stage.blocks) for stage in student.arch.stages) == 15
    assert all((p > 0).all() for name, p in student.net.named_parameters() if is_scale(name))


def attention(model: Model, block: str, images: torch.Tensor) -> torch.Tensor:
    """Give the normalised maps (N, pixels) after a block."""
    seen = []
    hook = model.net.blocks[block].register_forward_hook(lambda *parts: seen.append(parts[-1]))
    model.net(images)
    hook.remove()
    return torch.nn.functional.normalize(seen[0].pow(2).mean(dim=1).flatten(1), dim=1)


def hooks_of(*models: Model) -> int:
    return sum(len(module._forward_hooks) for model in models for module in model.net.modules())


def test_a_hint_is_the_squared_distance_of_attention_maps_of_one_size():
    student, teacher = samples.model(samples.STANDARD), samples.model(samples.arch(BlockKind.PLAIN), 1)
    x = samples.images(5)  # 8x8 and 4x4 maps here, 4x4 and 2x2 there
    want = (attention(student, "s1b1", x) - attention(teacher, "s0b1", x)).square().sum(dim=1).mean()
    with attention_hints(student, teacher) as hints:
        for model in (student, teacher):
            model.net(x)
        torch.testing.assert_close(hints(), want)
    same_ = [
        attention(samples.model(samples.STANDARD, seed), block, x) for block in ("s0b1", "s1b1") for seed in (0, 1)
    ]
    other = samples.model(samples.STANDARD, 1)
    with attention_hints(student, other) as hints:
        for model in (student, other):
            model.net(x)
        both = [(same_[i] - same_[i + 1]).square().sum(dim=1).mean() for i in (0, 2)]
        torch.testing.assert_close(hints(), (both[0] + both[1]) / 2)
    assert hooks_of(student, teacher, other) == 0


def test_hints_leave_no_hook_behind_even_where_training_fails(context):
    student, teacher = samples.model(samples.STANDARD), samples.model(samples.STANDARD, 1)
    trained = taught(context, student, teacher, depth=1.0, hint=1.0, fit=samples.FIT)
    assert hooks_of(trained, student, teacher) == 0
    with pytest.raises(TrainingError):
        taught(samples.afresh(context, "bad"), student, teacher, hint=float("inf"), fit=samples.FIT)
    assert hooks_of(student, teacher) == 0


def test_hints_between_networks_without_maps_of_one_size_are_refused_before_training(context):
    teacher = samples.model(samples.arch(stem=Stem(stride=4)), 1)  # 2x2 and 1x1
    with pytest.raises(ConfigError, match=r"distill\.hint: .* no maps of one size above 1x1 to compare; give 0"):
        taught(context, samples.model(samples.STANDARD), teacher, hint=1.0, fit=samples.FIT)
    assert list(context.scratch.iterdir()) == []


@pytest.mark.parametrize("hint", [0.0, 1.0])
def test_hints_are_one_more_loss_between_streams(hint, context):
    longer = replace(samples.FIT, epochs=2)
    student = taught(context, samples.model(samples.STANDARD), hint=hint, fit=longer)
    assert student.net(samples.images())[-1].isfinite().all()
    others = taught(samples.afresh(context, "other"), samples.model(samples.STANDARD), hint=1 - hint, fit=longer)
    assert not same(student, others)


def test_the_teacher_stays_as_it_is_and_is_heard_in_evaluation_mode(context):
    teacher = samples.model(samples.arch(BlockKind.PLAIN), 1)
    before = copied(teacher.net.state_dict())
    taught(context, samples.model(samples.STANDARD), teacher, fit=samples.FIT)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.net.state_dict().items())
    assert not teacher.net.training


def test_a_student_learns_its_teachers_answers(context):
    config = replace(samples.FIT, epochs=15, lr=0.1)
    teacher = fit(fresh(samples.STANDARD, 0), config, samples.afresh(context, "teacher"))
    student = taught(context, fresh(samples.STANDARD, 9), teacher, depth=0.5, weight=1.0, fit=config)
    begun = taught(context, fresh(samples.STANDARD, 9), teacher, depth=0.5)
    x = torch.from_numpy(context.data.train.images[:])
    with torch.no_grad():
        want = teacher.net(x)[-1]
        after, before = (imitation(m.net.eval()(x)[-1], want, samples.TASK, 4.0) for m in (student, begun))
    assert after < 0.5 * before
