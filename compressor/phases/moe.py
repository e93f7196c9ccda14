"""Make compressed networks the experts of a mixture: train a router that sends images to them, then all together."""

from dataclasses import replace
from pathlib import Path

from compressor import history
from compressor.arch import (
    FLOAT,
    Arch,
    Block,
    BlockKind,
    Head,
    Limit,
    MixtureArch,
    Quantization,
    Routing,
    Rule,
    Stage,
    Task,
    TaskKind,
    Unit,
    check_mixture,
)
from compressor.calibration import calibrate, recalibrate_norms
from compressor.compute import threads
from compressor.config.moe import MoeConfig, MoeStem, RouterConfig
from compressor.cost import paths
from compressor.errors import ConfigError, ModelError
from compressor.losses import Loss, task_loss
from compressor.mixture.costs import costs
from compressor.mixture.judging import JUDGE, SCORES, Judge, Judging, answering, judge_arch, telling
from compressor.mixture.losses import Each, alone, each_loss, together
from compressor.mixture.sharing import sharing, sharing_arch
from compressor.mixture.types import Mixture, assemble, take_first
from compressor.model import Model, fresh
from compressor.phases.teaching import recovery_loss
from compressor.training import Context, train

CALIBRATION_IMAGES = 512
LARGE = 96
"""Images of so many pixels a side are read by the router with a stride of 4."""

STAGES = ("adapt", "task", "router", "joint")
"""The trainings of a mixture, each with its own folder in the scratch folder."""


def mix_experts(
    config: MoeConfig, context: Context, original: Model, teacher: Model | None = None, **experts: Model
) -> Mixture:
    """Train the router with the experts as they are, then router and experts together.

    `experts` are expert0, expert1, ...; `original` is the network that budgets are shares of. With a shared stem, the
    experts first learn to read the cheapest one's first stage. A router that learned the task stays as it is while the
    experts learn from the images that it gives them. A cascade has no router to train.
    """
    mixture = _begin(config, context, original, [experts[f"expert{i}"] for i in range(len(experts))])
    if mixture.router and not config.router.task.epochs:
        calibrate(mixture.router, context, images=CALIBRATION_IMAGES, seed=config.router.fit.seed)
    recovery, counted = config.joint.recovery, costs(mixture)
    whole = counted.whole(mixture.rule, Unit.BITOPS)
    joint, first = (each_loss(recovery, context, teacher, fit) for fit in (config.joint.fit, config.router.fit))

    def mixed(each: Each) -> Loss:
        shares = [bitops / max(whole) for bitops in whole]
        return together(mixture, each, balance=config.balance, cost=config.cost, costs=shares)

    with threads(context.runtime, lambda: counted.worst(replace(mixture.rule, routing=Routing.SOFT), Unit.MACS)):
        if mixture.rule.shared:
            train(mixture, config.joint.fit, _within(context, "adapt"), alone(mixture, joint), only="experts")
        if mixture.router and config.router.task.epochs:
            _judge(mixture, mixture.router, config, context, teacher)
        elif mixture.router:
            train(mixture, config.router.fit, _within(context, "router"), mixed(first), only="router")
        only = "experts" if config.router.task.epochs else None
        train(mixture, config.joint.fit, _within(context, "joint"), mixed(joint), only=only)
    _gather(context.scratch)
    mixture.net.eval()
    return mixture


def _judge(mixture: Mixture, router: Model, config: MoeConfig, context: Context, teacher: Model | None) -> None:
    """Teach the router the task, then how sure that makes it of an image."""
    fit, recovery = config.router.task, config.joint.recovery
    judge = fresh(judge_arch(router.arch, context.data.task), fit.seed)
    if mixture.rule.shared:
        take_first(judge.net, router.net)
    calibrate(judge, context, images=CALIBRATION_IMAGES, seed=fit.seed)
    judging = Judging(Judge(mixture, judge.net))
    loss = recovery_loss(recovery, context, teacher, fit)
    loss = answering(loss or task_loss(context.data.task, fit.label_smoothing))
    train(judging, fit, _within(context, "task"), loss, only=JUDGE)
    judging.net.hand_over()
    calibrate(router, context, images=CALIBRATION_IMAGES, seed=fit.seed)
    train(judging, config.router.fit, _within(context, "router"), telling(mixture), only=SCORES)


def _begin(config: MoeConfig, context: Context, original: Model, experts: list[Model]) -> Mixture:
    config.check(original.arch.task.kind)
    order = _by_cost(experts)
    rule = Rule(
        config.routing, config.k, False, order, (0.0,) * len(experts), 0.5, _limit(config, original), config.busiest
    )
    cascade = config.routing is Routing.CASCADE
    arch = None if cascade else router_arch(config.router, experts[order[0]].arch, len(experts), shared=False)
    try:
        check_mixture(MixtureArch(rule, arch, tuple(expert.arch for expert in experts)))
    except ModelError as error:
        raise ConfigError(f"moe: {error}") from None
    if config.stem is MoeStem.SHARED:
        experts = _shared(experts, order[0], context, config.joint.fit.seed)
        rule = replace(rule, shared=True, order=_by_cost(experts))
        arch = router_arch(config.router, experts[rule.order[0]].arch, len(experts), shared=True)
    mixture = assemble(rule, arch and fresh(arch, config.router.fit.seed), tuple(experts))
    _refuse_small(config, mixture)
    return mixture


def _by_cost(experts: list[Model]) -> tuple[int, ...]:
    """Give the experts' numbers from the cheapest to the dearest, early exits not taken."""
    whole = [paths(expert)[-1] for expert in experts]
    return tuple(sorted(range(len(experts)), key=lambda i: (whole[i].bitops, whole[i].macs, i)))


def _shared(experts: list[Model], cheapest: int, context: Context, seed: int) -> list[Model]:
    """Give every expert the cheapest one's first stage."""
    source = experts[cheapest]
    for i, expert in enumerate(experts):
        if expert.arch.exits:
            raise ConfigError(f"moe.stem=shared: expert {i} has early exits; give experts without E, or moe.stem=own")
        if len(expert.arch.stages) < 2:
            raise ConfigError(f"moe.stem=shared: expert {i} has one stage only; give moe.stem=own")
        if expert.arch.activation != source.arch.activation:
            raise ConfigError(f"moe.stem=shared: expert {i} has another activation function; give moe.stem=own")
    try:
        made = [sharing(expert, source, context.data, seed) for expert in experts]
    except ModelError as error:
        raise ConfigError(f"moe.stem=shared: {error}; give moe.stem=own") from None
    for model in made:
        calibrate(model, context, images=CALIBRATION_IMAGES, seed=seed)
        if model is not source:
            recalibrate_norms(model, context, images=CALIBRATION_IMAGES, seed=seed)
    return made


def router_arch(config: RouterConfig, expert: Arch, count: int, *, shared: bool) -> Arch:
    """Give the router's network: convolutions of stride 2 whose width doubles, on the image or on the shared stage."""
    first = 4 if expert.input.size >= LARGE and not shared else 2
    strides = [first] + [2] * (config.depth - 1)
    blocks = tuple(Block(BlockKind.PLAIN, (config.width * 2**i,), stride) for i, stride in enumerate(strides))
    floats = {config.bits.weight, config.bits.act, config.edge_bits} == {FLOAT}
    rule = None if floats else Quantization(config.bits, config.edge_bits)
    task, head = Task(TaskKind.MULTICLASS, count), Head(hidden=(config.hidden, config.hidden) if config.hidden else ())
    arch = Arch("router", expert.input, task, (Stage(blocks),), head=head, quantization=rule)
    if not shared:
        return replace(arch, activation=expert.activation)
    return sharing_arch(replace(arch, stages=(expert.stages[0], Stage(blocks)), stem=expert.stem), expert)


def _limit(config: MoeConfig, original: Model) -> Limit | None:
    whole = paths(original)[-1]
    if config.budget.macs is not None:
        return Limit(Unit.MACS, config.budget.macs * whole.macs)
    if config.budget.bitops is not None:
        return Limit(Unit.BITOPS, config.budget.bitops * whole.macs * FLOAT * FLOAT)
    return None


def _refuse_small(config: MoeConfig, mixture: Mixture) -> None:
    """Refuse a budget below the cheapest expert before anything is trained."""
    if (limit := mixture.rule.limit) is None:
        return
    share = config.budget.macs or config.budget.bitops or 0.0
    least = costs(mixture).least(mixture.rule, limit.unit)
    if limit.mean < least:
        needs, cheaper = (
            ("expert and the router need", "expert or router") if mixture.router else ("expert needs", "first expert")
        )
        raise ConfigError(
            f"moe.budget.{limit.unit}={share:g}: the cheapest {needs} "
            f"{share * least / limit.mean:.3g} of the original's; give more, or a cheaper {cheaper}"
        )


def _within(context: Context, stage: str) -> Context:
    folder = context.scratch / stage
    folder.mkdir(exist_ok=True)
    return replace(context, scratch=folder)


def _gather(scratch: Path) -> None:
    """Write one history of the trainings, epochs and seconds counted through."""
    history.truncate(scratch, 0)
    epochs, seconds = 0, 0.0
    for stage in STAGES:
        lines = history.read(scratch / stage)
        for line in lines:
            history.append(scratch, line | {"epoch": epochs + line["epoch"], "seconds": seconds + line["seconds"]})
        epochs, seconds = epochs + len(lines), seconds + (lines[-1]["seconds"] if lines else 0.0)
    history.write_curves(scratch)
