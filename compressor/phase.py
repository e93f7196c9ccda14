"""What a phase is, and the table of all there are. Nothing here imports torch: planning needs the table only."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from compressor.config import BaselineConfig, DistillConfig, ExitConfig, PruneConfig, QuantizeConfig
from compressor.config.joint import JointConfig
from compressor.config.moe import MoeConfig
from compressor.config.search import SearchTask
from compressor.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """A kind of model: the functions, each "module:name", that make its choices on val, measure it and write it."""

    settle: str
    measure: str
    save: str


NETWORK = Kind("compressor.measure:settle", "compressor.measure:measure", "compressor.model:save")
MIXTURE = Kind("compressor.mixture:settle", "compressor.mixture:measure", "compressor.mixture:save_mixture")


def function(name: str) -> Callable[..., Any]:
    """Import "module:name", torch included."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class Phase:
    """One technique: a function of (config, context, **models), where `reads` names the models.

    `function` is "module:name". Raise `version` when the same inputs would give another result: old results
    are then left alone and new ones made beside them.
    """

    name: str
    letter: str
    version: int
    config: type
    function: str
    reads: tuple[str, ...] = ("model",)
    makes: Kind = NETWORK

    @property
    def run(self) -> Callable[..., Any]:
        """Import the technique, torch included, and give its function."""
        return function(self.function)


PHASES: tuple[Phase, ...] = (
    Phase("baseline", "B", 1, BaselineConfig, "compressor.phases.baseline:baseline", reads=()),
    Phase("distill", "D", 3, DistillConfig, "compressor.phases.distill:distill", reads=("model", "teacher")),
    Phase("prune", "P", 2, PruneConfig, "compressor.phases.prune:prune"),
    Phase("quantize", "Q", 3, QuantizeConfig, "compressor.phases.quantize:quantize"),
    Phase("exit", "E", 3, ExitConfig, "compressor.phases.exits:add_exits"),
)
MOE = Phase("moe", "", 3, MoeConfig, "compressor.phases.moe:mix_experts", ("original",), MIXTURE)
"""Makes a mixture of models; it stands in no order. It also reads expert0, expert1, ..., and perhaps a teacher."""

JOINT = Phase("joint", "", 4, JointConfig, "compressor.phases.joint:assign")
"""Applies a policy of sparsity and bits that was searched; it stands in no order. It may also read a teacher."""

SEARCH = Phase("search", "", 5, SearchTask, "compressor.search.step:search")
"""Searches such a policy under a budget, and makes its network without training it; it stands in no order either."""

BY_NAME = {phase.name: phase for phase in PHASES}
BY_LETTER = {phase.letter: phase for phase in PHASES if phase.reads}


def parse_order(order: str) -> tuple[Phase, ...]:
    """Give the phases of an order such as DPQE: any of its letters, any number of times, '' for the baseline alone."""
    letters = order.upper()
    if unknown := [letter for letter in letters if letter not in BY_LETTER]:
        raise ConfigError(f"order {order!r} has {unknown[0]!r}; its letters are {', '.join(BY_LETTER)}")
    return tuple(BY_LETTER[letter] for letter in letters)
