"""The one network that gets as many bits as a whole mixture: how wide it may be."""

from dataclasses import replace
from pathlib import Path

from compressor.arch import Arch, Quantization
from compressor.config import QuantizeConfig, RunConfig
from compressor.config.moe import Recipe
from compressor.cost import size_bits
from compressor.data.types import Data
from compressor.folders import read_arch
from compressor.model import fresh
from compressor.phases.distill import student_arch
from compressor.pipeline import Given, Source, Step
from compressor.studies.mixtures import chain

STEPS = 12
"""Halvings of the interval in which the width is looked for."""


def single(
    config: RunConfig, recipe: Recipe, limit: int, data: Data, files: dict[str, Path], first: Source
) -> tuple[Source, ...]:
    """Plan the widest network of a recipe that has at most `limit` size_bits, full width where that is less."""
    low, high = 0.0, 1.0
    found = _made(config, recipe, high, data, files, first)
    if _size(found, first) <= limit:
        return found
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried = _made(config, recipe, middle, data, files, first)
        if _size(tried, first) <= limit:
            low, found = middle, tried
        else:
            high = middle
    return found if low else _made(config, recipe, high, data, files, first)


def _made(
    config: RunConfig, recipe: Recipe, width: float, data: Data, files: dict[str, Path], first: Source
) -> tuple[Source, ...]:
    return chain(config, replace(recipe, distill=recipe.distill | {"width": width}), "moe.single", data, files, first)


def _size(sources: tuple[Source, ...], first: Source) -> int:
    original = _arch(first)
    arch = original
    for source in sources[1:]:
        assert isinstance(source, Step), "a recipe's phases are steps"
        settings = source.config
        if isinstance(settings, QuantizeConfig):
            arch = replace(arch, quantization=Quantization(settings.bits, settings.edge_bits))
        else:
            arch = student_arch(settings, arch, original)
    return size_bits(fresh(arch, seed=0))


def _arch(first: Source) -> Arch:
    return read_arch(first.folder) if isinstance(first, Given) else first.config.arch
