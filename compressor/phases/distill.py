"""Train a smaller student to imitate a teacher."""

from torch import Tensor

from compressor.arch import Arch, check, fitted, shrink, widths, with_blocks
from compressor.calibration import calibrate, some_images
from compressor.config import ArchitectureConfig, DistillConfig, Init
from compressor.families import FAMILIES, architecture
from compressor.importing import published
from compressor.losses import Outputs
from compressor.model import Model, fresh, select
from compressor.phases.importance import magnitude, strongest
from compressor.phases.teaching import attention_hints, taught
from compressor.training import Context, fit

CALIBRATION_IMAGES = 512


def named(name: str, like: Arch) -> Arch:
    """Give the full-size network of a family for the input and task of another."""
    shape = like.input
    config = ArchitectureConfig(name=name, width=1.0, stem="auto", mean=shape.mean, std=shape.std, network=None)
    return architecture(config, shape.channels, shape.size, shape.mean, shape.std, like.task)


def student_arch(config: DistillConfig, model: Arch, original: Arch) -> Arch:
    """Give the student: the model made shallower and thinner, or a named network that keeps what was compressed.

    A model that is a named student itself was compressed from its own family's full size, not from the original.
    """
    if config.student is None:
        return shrink(shallow(config, model), config.depth if config.blocks is None else 1.0, config.width)
    whole = named(model.name, model) if model.name != original.name and model.name in FAMILIES else original
    return check(fitted(shallow(config, named(config.student, model)), whole, model))


def shallow(config: DistillConfig, arch: Arch) -> Arch:
    """Take away the blocks that `distill.blocks`, where given, does not leave."""
    return arch if config.blocks is None else with_blocks(arch, config.blocks)


def narrowed(source: Model, arch: Arch) -> Model:
    """Keep the strongest channels of each axis that is wider than in `arch`."""
    have, want = widths(source.arch), widths(arch)
    scores = magnitude(source, power=2)
    kept = {axis: strongest(scores[axis], want[axis]) for axis in have if want.get(axis, have[axis]) < have[axis]}
    return select(source, kept)


def start(config: DistillConfig, context: Context, model: Model, arch: Arch) -> Model:
    """Give the student its first weights; what its source lacks starts fresh."""
    student = fresh(arch, config.fit.seed)
    if config.init is Init.FRESH:
        return student
    source = model
    if config.init is Init.WEIGHTS:
        assert config.weights is not None, "the config's own check demands a file"
        full = named(config.student, arch) if config.student else arch
        path, images = context.files[config.weights], some_images(context.data)
        source = published(full, path, {}, config.fit.seed, images)
    have, want = narrowed(source, arch).net.state_dict(), student.net.state_dict()
    fits = {name: have[name] for name in want if name in have and have[name].shape == want[name].shape}
    student.net.load_state_dict(want | fits)
    return student


def distill(
    config: DistillConfig, context: Context, model: Model, teacher: Model, original: Model | None = None
) -> Model:
    """Make the student, and train every head on the teacher's final head (T^2-scaled) and the labels.

    `original` is the network at the start of the chain where the teacher is another: what compression is relative to.
    """
    student = start(config, context, model, student_arch(config, model.arch, (original or teacher).arch))
    calibrate(student, context, images=CALIBRATION_IMAGES, seed=config.fit.seed)
    loss = taught(teacher, context, temperature=config.temperature, weight=config.weight, fit=config.fit)
    if not config.hint:
        return fit(student, config.fit, context, loss)
    with attention_hints(student, teacher) as hints:

        def with_hints(outputs: Outputs, images: Tensor, targets: Tensor) -> Tensor:
            return loss(outputs, images, targets) + config.hint * hints()

        return fit(student, config.fit, context, with_hints)
