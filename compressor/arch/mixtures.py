"""What a mixture of networks is, as plain data: the experts, the router, and the rule by which images are sent."""

from dataclasses import dataclass
from enum import StrEnum

from compressor.arch.checks import check
from compressor.arch.types import Arch
from compressor.errors import ModelError

FEWEST, MOST = 2, 16
"""Experts of a mixture."""


class Routing(StrEnum):
    """Which experts answer an image.

    top1: the router's first choice; topk: its first k, weighted; threshold: the cheapest, and dearer ones as the router
    doubts the cheaper; soft: all, weighted.
    """

    TOP1 = "top1"
    TOPK = "topk"
    THRESHOLD = "threshold"
    SOFT = "soft"


class Unit(StrEnum):
    """What a budget counts."""

    MACS = "macs"
    BITOPS = "bitops"


@dataclass(frozen=True)
class Limit:
    """The mean cost of an image that a mixture may have over val, the router's own included."""

    unit: Unit
    mean: float


@dataclass(frozen=True)
class Rule:
    """Who answers.

    `order` are the experts, cheapest first. `prices` are taken from the router's scores, an expert each; a limit sets
    them. For the routing `threshold`, an image goes to the first expert in `order` where the probability that it or a
    cheaper one is right reaches `threshold`, which leaves no expert more than the share `busiest` of val. `shared`: all
    experts and the router have one first stage.
    """

    routing: Routing
    k: int
    shared: bool
    order: tuple[int, ...]
    prices: tuple[float, ...]
    threshold: float
    limit: Limit | None = None
    busiest: float = 1.0


@dataclass(frozen=True)
class MixtureArch:
    """Everything that a mixture has beside its tensors. The router has an output for each expert."""

    rule: Rule
    router: Arch
    experts: tuple[Arch, ...]


def check_mixture(mixture: MixtureArch) -> MixtureArch:
    """Refuse a mixture that cannot be built or whose networks do not belong together; return it otherwise."""
    count = len(mixture.experts)
    _check_count(count)
    first = mixture.experts[0]
    for arch in (mixture.router, *mixture.experts):
        check(arch)
    for i, arch in enumerate(mixture.experts):
        if (arch.input.channels, arch.input.size) != (first.input.channels, first.input.size):
            raise ModelError(f"expert {i} reads other images than expert 0; all must read the same")
        if _asked(arch) != _asked(first):
            raise ModelError(f"expert {i} answers another task than expert 0; all must answer the same")
    if mixture.router.task.outputs != count:
        raise ModelError(f"the router has {mixture.router.task.outputs} outputs for {count} experts")
    if mixture.router.exits:
        raise ModelError("the router has exits; it is run whole, for every image")
    check_rule(mixture.rule, count)
    if mixture.rule.shared:
        _check_shared(mixture)
    return mixture


def _check_count(count: int) -> None:
    if not FEWEST <= count <= MOST:
        raise ModelError(f"a mixture has {FEWEST} to {MOST} experts, this one {count}")


def check_rule(rule: Rule, count: int) -> None:
    """Refuse a number of experts that no mixture has, or a rule that does not fit it."""
    _check_count(count)
    if sorted(rule.order) != list(range(count)) or len(rule.prices) != count:
        raise ModelError(f"the rule needs an order and prices of experts 0 to {count - 1}")
    if not 1 <= rule.k <= count:
        raise ModelError(f"k is {rule.k}; give 1 to the number of experts, {count}")


def _asked(arch: Arch) -> tuple[object, ...]:
    return arch.task.kind, arch.task.outputs, arch.task.mean, arch.task.scale


def _check_shared(mixture: MixtureArch) -> None:
    router = mixture.router
    for i, arch in enumerate(mixture.experts):
        same = (arch.input, arch.stem, arch.stages[0], arch.activation)
        if same != (router.input, router.stem, router.stages[0], router.activation) or arch.exits:
            raise ModelError(f"expert {i} has another first stage than the router, or exits; the stage is shared")
        if len(arch.stages) < 2:
            raise ModelError(f"expert {i} has one stage, which cannot be shared and be its own")
