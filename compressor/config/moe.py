"""What a mixture of experts can be told."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from compressor.arch import FEWEST, MOST, Bits, Quantization, Routing, TaskKind, check_quantization
from compressor.config.fit import FitConfig
from compressor.config.phases import RecoveryConfig
from compressor.config.ranges import need
from compressor.errors import ConfigError


class MoeStem(StrEnum):
    """What the router reads: the image, through a network of its own, or the first stage that all experts share."""

    OWN = "own"
    SHARED = "shared"


@dataclass(frozen=True)
class BudgetConfig:
    """The mean cost over val that a mixture may have, as a share of the original's; at most one of the two is given."""

    macs: float | None
    bitops: float | None

    def __post_init__(self) -> None:
        both = self.macs is not None and self.bitops is not None
        need(not both, "moe.budget", f"{{macs: {self.macs}, bitops: {self.bitops}}}", "macs or bitops, not both")
        for name in ("macs", "bitops"):
            value = getattr(self, name)
            need(value is None or 0 < value <= 1, f"moe.budget.{name}", value, "a share above 0, at most 1")


@dataclass(frozen=True)
class RouterConfig:
    """The router: a network of `depth` convolutions of `width` channels and more, its bits, how it is trained.

    Where `task` has epochs it learns the task itself first, and then, by `fit`, to say how sure it is of an image.
    """

    width: int
    depth: int
    hidden: int
    bits: Bits
    edge_bits: int
    task: FitConfig
    fit: FitConfig

    def __post_init__(self) -> None:
        need(1 <= self.width <= 1024, "moe.router.width", self.width, "1 to 1024 channels")
        need(1 <= self.depth <= 8, "moe.router.depth", self.depth, "1 to 8 convolutions")
        need(0 <= self.hidden <= 4096, "moe.router.hidden", self.hidden, "0 (no such layers) to 4096")
        try:
            check_quantization(Quantization(self.bits, self.edge_bits))
        except ConfigError as error:
            raise ConfigError(f"moe.router: {error}") from None


@dataclass(frozen=True)
class JointConfig:
    """How experts and router are trained together, each expert on the images that it gets."""

    recovery: RecoveryConfig
    fit: FitConfig

    def __post_init__(self) -> None:
        teacher = self.recovery.teacher
        need(teacher in ("none", "baseline"), "moe.joint.recovery.teacher", teacher, "none or baseline")


@dataclass(frozen=True)
class MoeConfig:
    """How experts become a mixture: all that its step's key contains beside its experts.

    `balance` weighs the load-balancing loss, `cost` the expected BitOps as a share of the most expensive expert's.
    """

    routing: Routing
    k: int
    stem: MoeStem
    balance: float
    cost: float
    budget: BudgetConfig
    busiest: float
    router: RouterConfig
    joint: JointConfig

    def __post_init__(self) -> None:
        need(1 <= self.k <= MOST, "moe.k", self.k, f"1 to {MOST} experts")
        need(0 <= self.balance <= 1000, "moe.balance", self.balance, "0 (off) to 1000")
        need(0 <= self.cost <= 1000, "moe.cost", self.cost, "0 (off) to 1000")
        need(0.5 <= self.busiest <= 1, "moe.busiest", self.busiest, "0.5 to 1 (any)")
        other = self.busiest < 1 and self.routing not in (Routing.THRESHOLD, Routing.CASCADE)
        need(
            not other,
            "moe.busiest",
            self.busiest,
            f"1 where moe.routing={self.routing}; threshold and cascade keep to it",
        )
        lent = self.routing is Routing.CASCADE and self.stem is MoeStem.SHARED
        need(not lent, "moe.stem", self.stem, f"own where moe.routing={self.routing}; each expert reads the image")
        judges = self.router.task.epochs > 0 and self.routing is not Routing.THRESHOLD
        where = "moe.router.task.epochs"
        need(
            not judges, where, self.router.task.epochs, f"0 where moe.routing={self.routing}; threshold reads its doubt"
        )

    def check(self, kind: TaskKind) -> None:
        """Refuse what asks how sure a network is of an image, where networks answer numbers."""
        if kind is not TaskKind.REGRESSION:
            return
        need(
            self.routing is not Routing.CASCADE,
            "moe.routing",
            self.routing,
            "another; numbers do not say how sure an expert is",
        )
        need(
            self.router.task.epochs == 0,
            "moe.router.task.epochs",
            self.router.task.epochs,
            "0; numbers do not say how sure the router is",
        )


@dataclass(frozen=True)
class Recipe:
    """How one network is made: an order of phases and what differs from their own sections, or a saved model.

    `seed` is added to the mixture's for the trainings of the order; the baseline has the mixture's own.
    """

    order: str | None = None
    seed: int = 0
    distill: dict[str, Any] = field(default_factory=dict)
    prune: dict[str, Any] = field(default_factory=dict)
    quantize: dict[str, Any] = field(default_factory=dict)
    exit: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None

    def check(self, where: str) -> None:
        """Refuse a recipe that is empty or both an order and a saved model; `where` names the setting."""
        changed = bool(self.distill or self.prune or self.quantize or self.exit or self.seed)
        if self.checkpoint is None:
            given = self.order is not None and self.order != ""
            need(given, f"{where}.order", self.order, "the phases of an expert such as DPQ, or a checkpoint")
        else:
            alone = self.order is None and not changed
            need(alone, f"{where}.checkpoint", self.checkpoint, "a model's folder alone, without order and settings")
        need(0 <= self.seed < 2**31, f"{where}.seed", self.seed, "0 to 2147483647, added to the mixture's seed")


@dataclass(frozen=True)
class MoeSettings:
    """The experts, how they become a mixture, and what it is compared with. Values: configs/moe/.

    `single` is one network that gets as many bits as the whole mixture, `equal` one that costs what the mixture does on
    average: the width of their distillation is solved for. Without `equal`, it is the dearest expert that is as cheap.
    """

    experts: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    routing: Routing
    k: int
    stem: MoeStem
    balance: float
    cost: float
    budget: BudgetConfig
    busiest: float
    router: RouterConfig
    joint: JointConfig
    single: Recipe
    equal: Recipe | None
    figures: bool

    def __post_init__(self) -> None:
        count = len(self.experts)
        need(FEWEST <= count <= MOST, "moe.experts", f"[{count} of them]", f"{FEWEST} to {MOST} experts")
        for i, recipe in enumerate(self.experts):
            recipe.check(f"moe.experts[{i}]")
        need(self.k <= count, "moe.k", self.k, f"at most the number of experts, {count}")
        need(len(self.seeds) > 0, "moe.seeds", list(self.seeds), "at least one seed")
        need(len(set(self.seeds)) == len(self.seeds), "moe.seeds", list(self.seeds), "each seed once")
        need(all(0 <= seed < 2**31 for seed in self.seeds), "moe.seeds", list(self.seeds), "seeds of 0 to 2147483647")
        for where, recipe in self.solved:
            recipe.check(where)
            order = (recipe.order or "").upper()
            solvable = order.count("D") == 1 and set(order) <= {"D", "Q"}
            need(solvable, f"{where}.order", recipe.order, "an order of one D, whose width is solved for, and Q")
        assert self.phase, "its ranges are checked where it is made"

    @property
    def solved(self) -> tuple[tuple[str, Recipe], ...]:
        """Give the recipes whose width is solved for, each with the setting that holds it."""
        single = (("moe.single", self.single),)
        return single if self.equal is None else (*single, ("moe.equal", self.equal))

    @property
    def phase(self) -> MoeConfig:
        """Give the settings of the step that makes the mixture."""
        how = self.routing, self.k, self.stem, self.balance, self.cost, self.budget, self.busiest
        return MoeConfig(*how, self.router, self.joint)
