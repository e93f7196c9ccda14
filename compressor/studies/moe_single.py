"""The one network that may be as large as a whole mixture, or cost as much as it does on average: how wide it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from compressor.arch import Quantization
from compressor.config import QuantizeConfig, RunConfig
from compressor.config.moe import MoeConfig, MoeStem, Recipe
from compressor.cost import paths, size_bits
from compressor.data.types import Data
from compressor.model import Model, fresh
from compressor.phases.distill import student_arch
from compressor.pipeline import Source, Step
from compressor.planning import arch_of
from compressor.studies.mixtures import Mixed, chain

STEPS = 12
"""Halvings of the interval in which the width is looked for."""

Chain = tuple[Source, ...]


def as_large(config: RunConfig, recipe: Recipe, limit: int, data: Data, files: dict[str, Path], mixed: Mixed) -> Chain:
    """Plan the widest network of a recipe that has at most `limit` size_bits, full width where that is less.

    It trains as `longer` says.
    """

    def made(width: float) -> Chain:
        return _made(config, recipe, "moe.single", width, data, files, mixed.first)

    return longer(_widest(made, size_bits, limit, mixed.first), mixed)


def as_cheap(
    config: RunConfig, recipe: Recipe, limit: float, data: Data, files: dict[str, Path], mixed: Mixed
) -> Chain:
    """Plan the widest network of a recipe that needs at most `limit` BitOps, full width where that is less.

    It trains as `longer` says.
    """

    def made(width: float) -> Chain:
        return _made(config, recipe, "moe.equal", width, data, files, mixed.first)

    return longer(_widest(made, lambda model: paths(model)[-1].bitops, limit, mixed.first), mixed)


def longer(chain: Chain, mixed: Mixed) -> Chain:
    """Give a chain whose last phase trains for longer: in all as long as the mixture's experts, joint epochs included.

    A chain that ends in a given network, or has as many, stays as it is.
    """
    *before, last = chain
    missing = max(map(epochs, mixed.chains)) + _joint_epochs(mixed.step.config) - epochs(chain)
    if missing <= 0 or not isinstance(last, Step):
        return chain
    fit = replace(last.config.fit, epochs=last.config.fit.epochs + missing)
    return (*before, Step(last.phase, replace(last.config, fit=fit), last.inputs, last.data))


def epochs(sources: Sequence[Source]) -> int:
    """Count the epochs that a chain's phases train for; those of what it begins with are not its own."""
    return sum(source.config.fit.epochs for source in sources[1:] if isinstance(source, Step))


def _joint_epochs(config: MoeConfig) -> int:
    return config.joint.fit.epochs * (2 if config.stem is MoeStem.SHARED else 1)


def _widest(made: Callable[[float], Chain], cost: Callable[[Model], float], limit: float, first: Source) -> Chain:
    low, high = 0.0, 1.0
    found = made(high)
    if _cost(found, cost, first) <= limit:
        return found
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried = made(middle)
        if _cost(tried, cost, first) <= limit:
            low, found = middle, tried
        else:
            high = middle
    return found if low else made(high)


def _made(
    config: RunConfig, recipe: Recipe, where: str, width: float, data: Data, files: dict[str, Path], first: Source
) -> Chain:
    return chain(config, replace(recipe, distill=recipe.distill | {"width": width}), where, data, files, first)


def _cost(sources: Chain, cost: Callable[[Model], float], first: Source) -> float:
    original = arch_of(first)
    arch = original
    for source in sources[1:]:
        assert isinstance(source, Step), "a recipe's phases are steps"
        settings = source.config
        if isinstance(settings, QuantizeConfig):
            arch = replace(arch, quantization=Quantization(settings.bits, settings.edge_bits))
        else:
            arch = student_arch(settings, arch, original)
    return cost(fresh(arch, seed=0))
