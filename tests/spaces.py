"""Networks to be searched and settings of a search, for tests of what is decided and what it costs."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import samples
from searches import SETTINGS

from compressor.arch import Arch, widths
from compressor.config import ArchitectureConfig
from compressor.config.search import SearchBudget, SearchConfig
from compressor.families import architecture
from compressor.model import Model, fresh
from compressor.search.budget import Limits
from compressor.search.space import Space, space_of
from compressor.search.types import Policy
from compressor.search.walk import Walk

NETWORKS = ("resnet20", "resnet56", "vgg11", "mobilenet_v1", "mobilenet_v2")


@cache
def arch_of(name: str) -> Arch:
    """Give a named network for the digits; the widest are thin."""
    thin = {"vgg11": 0.06, "mobilenet_v1": 0.125, "mobilenet_v2": 0.25}.get(name, 0.5)
    config = ArchitectureConfig(name, thin, "auto", None, None, None)
    return architecture(config, 1, 8, (0.3,), (0.4,), samples.TASK)


@cache
def model_of(name: str) -> Model:
    """Give a named network with fresh weights."""
    return fresh(arch_of(name), 0)


def config(**changes: Any) -> SearchConfig:
    """Give settings of a search; the trainings take one epoch."""
    joint = replace(SETTINGS.joint, fit=samples.FIT)
    return replace(SETTINGS, **({"joint": joint, "groups": 4} | changes))


def space(name: str, **changes: Any) -> Space:
    """Give the space of a named network."""
    return space_of(model_of(name), config(**changes))


def budget(**given: float) -> SearchBudget:
    """Give a budget with the given limits only."""
    return SearchBudget(**({"size": None, "bitops": None, "macs": None, "latency_ms": None} | given))


def walked(of: Space, limits: Limits, wishes: Any) -> Policy:
    """Walk wishes, or what a random source gives."""
    walk = Walk(of, limits)
    while not walk.done:
        walk.choose(next(wishes))
    return walk.policy()


def whole(of: Space) -> Policy:
    """Give the policy of all channels at 8 bits."""
    return walked(of, Limits(), iter(lambda: 1.0, 2.0))


def ranking(arch: Arch, seed: int = 0) -> dict[str, tuple[int, ...]]:
    """Rank every axis' channels at random."""
    source = np.random.default_rng(seed)
    return {axis: tuple(source.permutation(size).tolist()) for axis, size in widths(arch).items()}
