"""What a mixture of networks is, as plain data: the experts, the router, and the rule by which images are sent."""

from dataclasses import dataclass
from enum import StrEnum

from compressor.arch.checks import check
from compressor.arch.types import Arch, TaskKind
from compressor.errors import ModelError

FEWEST, MOST = 2, 16
"""Experts of a mixture."""


class Routing(StrEnum):
    """Which experts answer an image.

    top1: the router's first choice; topk: its first k, weighted; threshold: the cheapest, and dearer ones as the router
    doubts the cheaper; cascade: the cheapest, and where its own answer is not sure the next, which is run then (Viola
    and Jones 2001); soft: all, weighted.
    """

    TOP1 = "top1"
    TOPK = "topk"
    THRESHOLD = "threshold"
    CASCADE = "cascade"
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
    them. For the routings `threshold` and `cascade`, an image is answered by the first expert in `order` where the
    probability that it or a cheaper one is right reaches `threshold`, which leaves no expert more than the share
    `busiest` of val. `shared`: all experts and the router have one first stage.
    """

    routing: Routing
    k: int
    shared: bool
    order: tuple[int, ...]
    prices: tuple[float, ...]
    threshold: float
    limit: Limit | None = None
    busiest: float = 1.0

    @property
    def rising(self) -> bool:
        """Tell whether a threshold says how far an image rises from the cheapest expert."""
        return self.routing in (Routing.THRESHOLD, Routing.CASCADE)

    @property
    def answering(self) -> int:
        """Count the experts whose answers become an image's."""
        return {Routing.SOFT: len(self.order), Routing.TOPK: self.k}.get(self.routing, 1)


@dataclass(frozen=True)
class MixtureArch:
    """All that a mixture has beside its tensors. The router has an output for each expert; a cascade has no router."""

    rule: Rule
    router: Arch | None
    experts: tuple[Arch, ...]


def check_mixture(mixture: MixtureArch) -> MixtureArch:
    """Refuse a mixture that cannot be built or whose networks do not belong together; return it otherwise."""
    count = len(mixture.experts)
    _check_count(count)
    first = mixture.experts[0]
    for arch in mixture.experts:
        check(arch)
    for i, arch in enumerate(mixture.experts):
        if (arch.input.channels, arch.input.size) != (first.input.channels, first.input.size):
            raise ModelError(f"expert {i} reads other images than expert 0; all must read the same")
        if _asked(arch) != _asked(first):
            raise ModelError(f"expert {i} answers another task than expert 0; all must answer the same")
    check_routed(mixture.rule, first.task.kind, routed=mixture.router is not None)
    if mixture.router is not None:
        _check_router(mixture.router, mixture)
    check_rule(mixture.rule, count)
    return mixture


def _check_router(router: Arch, mixture: MixtureArch) -> None:
    check(router)
    if router.task.outputs != (count := len(mixture.experts)):
        raise ModelError(f"the router has {router.task.outputs} outputs for {count} experts")
    if router.exits:
        raise ModelError("the router has exits; it is run whole, for every image")
    if mixture.rule.shared:
        _check_shared(router, mixture.experts)


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


def check_routed(rule: Rule, kind: TaskKind, *, routed: bool) -> None:
    """Refuse a cascade of numbers, with a router or with a shared first stage, and any other rule without a router."""
    if routed is (rule.routing is Routing.CASCADE):
        raise ModelError(f"routing {rule.routing} has {'no' if routed else 'a'} router, this mixture is otherwise")
    if rule.shared and not routed:
        raise ModelError("a cascade shares no first stage")
    if kind is TaskKind.REGRESSION and not routed:
        raise ModelError("a cascade of numbers does not know how sure it is; it needs classes or labels")


def _asked(arch: Arch) -> tuple[object, ...]:
    return arch.task.kind, arch.task.outputs, arch.task.mean, arch.task.scale


def _check_shared(router: Arch, experts: tuple[Arch, ...]) -> None:
    for i, arch in enumerate(experts):
        same = (arch.input, arch.stem, arch.stages[0], arch.activation)
        if same != (router.input, router.stem, router.stages[0], router.activation) or arch.exits:
            raise ModelError(f"expert {i} has another first stage than the router, or exits; the stage is shared")
        if len(arch.stages) < 2:
            raise ModelError(f"expert {i} has one stage, which cannot be shared and be its own")
