"""A student is as small as it was told, keeps what was compressed, and learns its teacher's answers."""

from dataclasses import replace

import pytest
import samples
import torch

from compressor.arch import Bits, BlockKind, Quantization, widths
from compressor.config import ArchitectureConfig, Importance, Init
from compressor.families import architecture
from compressor.losses import imitation
from compressor.model import Model, fresh, same
from compressor.phases.distill import distill
from compressor.phases.importance import importance, strongest
from compressor.phases.prune import prune
from compressor.phases.quantize import is_scale
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
