"""What a search decides, what that costs and what came of it. Nothing here imports torch."""

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """The bits a group of channels may have. fixed: 0 or one given number; mixed: 0 to 8."""

    FIXED = "fixed"
    MIXED = "mixed"


class Agent(StrEnum):
    """Who decides.

    joint: a layer controller and a channel controller; flat: one controller of everything; uniform: one sparsity and
    one number of bits; sensitivity: greedily, what hurts least; random: at random; nsga2: a genetic search; sparsity:
    the sparsity, then uniform bits (as AMC); bits: the bits only (as HAQ); stepwise: pruned and trained, then
    quantized; fixed_1 to fixed_8: who is the method, where a group has that number of bits or none.
    """

    JOINT = "joint"
    FLAT = "flat"
    UNIFORM = "uniform"
    SENSITIVITY = "sensitivity"
    RANDOM = "random"
    NSGA2 = "nsga2"
    SPARSITY = "sparsity"
    BITS = "bits"
    STEPWISE = "stepwise"
    FIXED_1 = "fixed_1"
    FIXED_2 = "fixed_2"
    FIXED_3 = "fixed_3"
    FIXED_4 = "fixed_4"
    FIXED_5 = "fixed_5"
    FIXED_6 = "fixed_6"
    FIXED_7 = "fixed_7"
    FIXED_8 = "fixed_8"

    @property
    def fixed(self) -> int | None:
        """Give the one number of bits beside none that a `fixed_` rival has; None for the others."""
        _, mark, bits = self.value.partition("fixed_")
        return int(bits) if mark else None


@dataclass(frozen=True)
class Policy:
    """What is decided; which channels that means is the ranking's matter.

    `keep`: channels kept of each prunable axis. `bits`: weight bits of each layer's groups, the most important first,
    where a layer's kept output channels, sorted by importance, are split as evenly as can be. `acts`: bits of each
    activation tensor.
    """

    keep: dict[str, int]
    bits: dict[str, tuple[int, ...]]
    acts: dict[str, int]


@dataclass(frozen=True)
class Bill:
    """What the model of a policy costs: its size in bits, BitOps and MACs of an image, and milliseconds where asked."""

    size: int
    bitops: int
    macs: int
    latency: float | None


@dataclass(frozen=True)
class Candidate:
    """A policy that was evaluated.

    `key` is the digest of all that was evaluated; `likeness` and `quality` are those of the fixed subset of val, the
    one to decide by and the other to show (`scoring.Score`), after so many `batches` of training; `seconds` is the
    time its evaluation took.
    """

    key: str
    policy: Policy
    likeness: float
    quality: float
    bill: Bill
    batches: int
    seconds: float
