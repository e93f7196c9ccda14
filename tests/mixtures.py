"""Mixtures that many tests share: untrained ones whose every tensor matters, and what makes trained ones."""

import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import samples
import torch

from compressor.arch import (
    Arch,
    Bits,
    BlockKind,
    Exits,
    Quantization,
    Routing,
    Rule,
    Task,
    TaskKind,
    with_widths,
)
from compressor.config import FitConfig
from compressor.config.moe import BudgetConfig, JointConfig, MoeConfig, MoeStem, RouterConfig
from compressor.data.types import Data, Split
from compressor.mixture import Mixture, Survey, assemble, survey
from compressor.mixture.execution import NO_TARGETS, entered
from compressor.mixture.rule import reach
from compressor.model import Model, save
from compressor.phase import MOE
from compressor.phases.moe import router_arch
from compressor.pipeline import Given, Step, given
from compressor.training import Context

FIT: FitConfig = replace(samples.FIT, epochs=2, lr=0.05, batch=40)
ROUTER = RouterConfig(4, 2, 0, Bits(8, 8), 8, replace(FIT, epochs=0), FIT)
JUDGING = RouterConfig(4, 2, 6, Bits(8, 8), 8, replace(FIT, epochs=3), FIT)
CONFIG = MoeConfig(
    routing=Routing.TOP1,
    k=1,
    stem=MoeStem.OWN,
    balance=0.1,
    cost=0.0,
    budget=BudgetConfig(None, None),
    busiest=1.0,
    router=ROUTER,
    joint=JointConfig(samples.ALONE, FIT),
)
TASKS = {
    "multiclass": samples.TASK,
    "binary": Task(TaskKind.BINARY, 2, ("even", "odd")),
    "multilabel": Task(TaskKind.MULTILABEL, 3, ("odd", "large", "prime")),
    "regression": Task(TaskKind.REGRESSION, 2, mean=(4.5, 0.5), scale=(2.9, 0.5)),
}
EXITS = Exits((0.5,), drop=0.05, width=4)


def asking(data: Data, task: Task) -> Data:
    """Ask another question of the same digits."""

    def retold(split: Split) -> Split:
        digit = np.asarray(split.targets)
        told = {
            TaskKind.MULTICLASS: digit,
            TaskKind.BINARY: digit % 2,
            TaskKind.MULTILABEL: np.stack([digit % 2, digit > 4, np.isin(digit, (2, 3, 5, 7))], 1).astype(np.float32),
            TaskKind.REGRESSION: np.stack([digit, digit % 2], axis=1).astype(np.float32),
        }
        return replace(split, targets=told[task.kind])

    return replace(data, task=task, train=retold(data.train), val=retold(data.val), test=retold(data.test))


def archs(task: Task = samples.TASK, *, exits: bool = False) -> tuple[Arch, ...]:
    """Give three networks of different depth, width and bits, the cheapest in the middle."""
    wide = samples.arch(task=task, exits=EXITS if exits else None)
    thin = samples.arch(task=task, depth=1, quantization=Quantization(Bits(4, 4), 8))
    thin = with_widths(thin, {"s0": 4, "s0b0.0": 3, "s1": 5})
    deep = samples.arch(task=task, depth=3, quantization=Quantization(Bits(4, 6), 8), exits=EXITS if exits else None)
    return wide, thin, deep


def toy(routing: Routing = Routing.TOP1, task: Task = samples.TASK, *, exits: bool = False, **changes: Any) -> Mixture:
    """Give an untrained mixture of three networks each of which answers some images."""
    experts = tuple(samples.model(each, seed) for seed, each in enumerate(archs(task, exits=exits)))
    rule = replace(Rule(routing, 2, False, (1, 0, 2), (0.0,) * 3, 0.6), **changes)
    if routing is Routing.CASCADE:
        mixture = assemble(rule, None, experts)
        with torch.no_grad():
            score = experts[rule.order[0]].net.head.score
            for tensor in (score.weight, score.bias, *((score.scale,) if score.quantized else ())):
                tensor.mul_(8)  # now it is sure of some images
        return risen(mixture, survey(mixture, Split(samples.images(200).numpy(), NO_TARGETS)))
    router = samples.model(router_arch(ROUTER, experts[0].arch, 3, shared=False), 7)
    return balanced(assemble(rule, router, experts))


def router_of(mixture: Mixture) -> Model:
    """Give the router of a mixture that has one."""
    assert mixture.router is not None
    return mixture.router


def risen(mixture: Mixture, seen: Survey) -> Mixture:
    """Let the cheapest expert of a cascade answer a third of the images."""
    reached = reach(seen.scores, mixture.rule)
    mixture.follow(replace(mixture.rule, threshold=reached[:, 0].quantile(2 / 3).item()))
    return mixture


def shared_toy(routing: Routing = Routing.TOP1) -> Mixture:
    """Give an untrained mixture of two networks with one first stage."""
    experts = tuple(samples.model(samples.arch(BlockKind.BOTTLENECK, depth=depth), depth) for depth in (1, 2))
    experts = (experts[0], samples.model(replace(experts[1].arch, stages=_second(experts)), 3))
    rule = Rule(routing, 2, True, (0, 1), (0.0,) * 2, 0.5)
    router = samples.model(router_arch(ROUTER, experts[0].arch, 2, shared=True), 7)
    return balanced(assemble(rule, router, experts))


def _second(experts: tuple[Model, ...]) -> tuple:
    return experts[0].arch.stages[0], *experts[1].arch.stages[1:]


def balanced(mixture: Mixture) -> Mixture:
    """Let the router prefer each expert about equally often, and clearly."""

    def scores() -> torch.Tensor:
        found = mixture.net.scores(entered(mixture, samples.images(200)))
        assert found is not None
        return found

    with torch.no_grad():
        spread, score = scores().std(dim=0), router_of(mixture).net.head.score
        score.weight.div_(spread[:, None])
        score.bias.div_(spread)
        if score.quantized:
            score.scale.div_(spread)
        score.bias.sub_(scores().mean(dim=0))
    return mixture


def networks(task: Task = samples.TASK, *, exits: bool = False) -> dict[str, Model]:
    """Give the roles of a mixture's step: the original and three untrained experts."""
    found = {f"expert{i}": samples.model(arch, i) for i, arch in enumerate(archs(task, exits=exits))}
    return {"original": samples.model(samples.arch(task=task, depth=4), 9)} | found


def made(context: Context, config: MoeConfig = CONFIG, **roles: Model) -> Mixture:
    """Run the step's technique on fresh networks."""
    return MOE.run(config, context, **(networks(context.data.task) | roles))


def step(root: Path, data: Data, config: MoeConfig = CONFIG) -> Step:
    """Give the step that makes a mixture of given folders, which are written below `root`."""
    sources: list[tuple[str, Given]] = []
    for role, model in networks(data.task).items():
        folder = root / role
        folder.mkdir(parents=True, exist_ok=True)
        save(model, folder)
        sources.append((role, given(folder)))
    return Step(MOE, config, tuple(sources), data.fingerprint)


def same(a: Mixture, b: Mixture) -> bool:
    """Tell whether two mixtures are equal bit for bit."""
    left, right = a.net.state_dict(), b.net.state_dict()
    return a.arch == b.arch and left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def terminate() -> None:
    """Send this process SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


def stopping(stage: str, step: int, stop: Callable[[], None]):
    """Stop in a training of the given name, after its given batch."""

    @contextmanager
    def progress(title: str, total: int):
        done = 0

        def advance(units: int, remark: str) -> None:
            nonlocal done
            done += units
            if title == stage and remark and done == step:
                stop()

        yield advance

    return progress
