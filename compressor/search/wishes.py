"""Vectors of wishes, one in [0, 1] for each decision, brought to a budget without regard to who decides first.

A walk clips a wish to what the rest can still pay, so whoever comes late pays for all. Here all wishes of a kind are
moved by one amount until the policy is within the budget and as large as it allows, as HAQ lowers all layers' bits
after an episode (Wang et al., CVPR 2019); the walk then takes them as they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from compressor.errors import ConfigError
from compressor.search.budget import Tally, shortfall
from compressor.search.problem import Problem
from compressor.search.space import MOST
from compressor.search.types import Agent, Mode, Policy

HALVINGS = 10
"""Steps of the search for the amount: to 1/1024 of the range of wishes."""

Settle = Callable[[np.ndarray], np.ndarray]
"""Brings wishes (decisions,) to the budget."""


@dataclass(frozen=True)
class Parts:
    """Which of a problem's decisions are of which kind, and where each group of channels stands.

    `keep` and `rest` (bits and activations) are masks; `rank` is 0 for the groups that get a bit first when not all can
    have it, 1 for the last: the most important of all layers first. `places` numbers the axes, tensors and layers.
    """

    keep: np.ndarray
    acts: np.ndarray
    bits: np.ndarray
    rank: np.ndarray
    places: np.ndarray


def parts_of(problem: Problem) -> Parts:
    """Sort a problem's decisions."""
    decisions = problem.decisions
    kinds = np.array([decision.kind for decision in decisions])
    names = {each: i for i, each in enumerate(dict.fromkeys((d.kind, d.name) for d in decisions))}
    order = sorted(range(len(decisions)), key=lambda i: (decisions[i].group, i))
    rank = np.argsort(np.array(order)) / max(1, len(order) - 1)
    places = np.array([names[d.kind, d.name] for d in decisions])
    return Parts(kinds == "keep", kinds == "acts", kinds == "bits", rank, places)


def walked(problem: Problem, wishes: np.ndarray) -> Policy:
    """Walk wishes (decisions,) within the budget: each becomes the nearest integer that the rest can pay for."""
    walk = problem.walk()
    for wish in wishes.tolist():
        walk.choose(wish)
    return walk.policy()


def free(problem: Problem, wishes: np.ndarray) -> Policy:
    """Give what wishes (decisions,) mean where nothing is limited."""
    return billed(problem, wishes).policy()


def billed(problem: Problem, wishes: np.ndarray) -> Tally:
    """Count what wishes would cost where nothing is limited; the tally is good until the next wishes are counted."""
    return problem.meter.read(wishes)


def fits(problem: Problem, wishes: np.ndarray) -> bool:
    """Tell whether wishes are within the budget as they are."""
    return billed(problem, wishes).within(problem.limits)


def filled(
    problem: Problem,
    wishes: np.ndarray,
    mask: np.ndarray,
    low: float = -1.0,
    high: float = 1.0,
    least: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Move the wishes of a mask by the largest amount of [low, high] that is within the budget; by `low` if none is.

    None falls below `least` or rises above 1.
    """

    def moved(amount: float) -> np.ndarray:
        return np.where(mask, np.clip(wishes + amount, least, 1.0), wishes)

    if fits(problem, top := moved(high)):
        return top
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(problem, moved(middle)) else (low, middle)
    return moved(low)


def levelled(problem: Problem, parts: Parts, wishes: np.ndarray, floor: int = 0) -> np.ndarray:
    """Bring wishes to the budget: fewer channels only if the fewest bits are too many, then as many bits as fit.

    Where all bits fit, more channels follow, else single bits. No group of channels has fewer bits than `floor`.
    """
    least = np.where(parts.bits, floor / problem.space.top, 0.0)
    paid = parts.bits | parts.acts if problem.limits.bitops is not None else parts.bits
    wishes = np.where(parts.acts & ~paid, 1.0, wishes)
    keeps = filled(problem, np.where(paid, least, wishes), parts.keep, high=0.0)
    settled = filled(problem, np.where(parts.keep, keeps, wishes), paid, least=least)
    if settled[paid].min() < 1.0:
        return topped(problem, parts, settled, wishes)
    return filled(problem, settled, parts.keep, low=0.0)


def topped(problem: Problem, parts: Parts, wishes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Give one group after the other one bit more, the most `wanted` first, where the budget still holds it.

    Of equals the first of `rank` comes first. Once a group gets none, the groups of that layer after it get none
    either. In fixed mode a bit more is the one number of bits instead of 0. Wishes that are above the budget stay as
    they are.
    """
    wishes, refused = wishes.copy(), set[str]()
    tally = billed(problem, wishes).copy()
    if not tally.within(problem.limits):
        return wishes
    for i in np.lexsort((parts.rank, -wanted)):
        layer, group = problem.decisions[i].name, problem.decisions[i].group
        if not parts.bits[i] or layer in refused:
            continue
        number = tally.index[layer]
        before, sizes = tally.bits[number][group], tally.sizes[tally.layers[number].writes]
        more = next((bits for bits in tally.options if bits > before), None)
        if more is None or group >= len(sizes):
            continue
        tally.weigh(layer, group, more)
        if tally.within(problem.limits):
            wishes[i] = more / problem.space.top
        else:
            tally.weigh(layer, group, before)
            refused.add(layer)
    return wishes


def evened(problem: Problem, parts: Parts, wishes: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Bring wishes to the budget with one number of bits for all, and channels to fill what is left.

    The bits are given, or the most with which the wished channels are within the budget.
    """
    tried = [with_bits(problem, parts, wishes, each) for each in ((bits,) if bits else widths_of(problem))]
    return filled(problem, next((each for each in tried if fits(problem, each)), tried[-1]), parts.keep)


def with_bits(problem: Problem, parts: Parts, wishes: np.ndarray, bits: int) -> np.ndarray:
    """Wish one number of bits for all weights, and for activations too where BitOps are limited, else the most."""
    acts = 1.0 if problem.limits.bitops is None else bits / MOST
    return np.select([parts.keep, parts.acts], [wishes, acts], bits / problem.space.top)


def widths_of(problem: Problem) -> tuple[int, ...]:
    """Give the numbers of bits that a whole network may have, falling."""
    return tuple(range(MOST, 0, -1)) if problem.config.mode is Mode.MIXED else (problem.config.bits,)


def splits(problem: Problem, parts: Parts) -> Iterator[tuple[int, np.ndarray]]:
    """Give even splits between sparsity and bits: for falling bits the one share of all axes that fits.

    Fewer bits with which no more channels stay would only lose; such splits are left out.
    """
    everything, kept = np.ones(len(parts.keep)), {}
    for bits in widths_of(problem):
        wishes = evened(problem, parts, everything, bits)
        tally = billed(problem, wishes)
        if tally.within(problem.limits) and tally.sizes != kept:
            kept = dict(tally.sizes)
            yield bits, wishes
        if wishes[parts.keep].min() == 1.0:
            return


def splits_for(agent: Agent, problem: Problem, parts: Parts) -> list[tuple[int, np.ndarray]]:
    """Give the even splits to an agent that knows no other policies.

    Raises:
        ConfigError: none is within the budget; the line says what the least of them costs.
    """
    if found := list(splits(problem, parts)):
        return found
    least = with_bits(problem, parts, np.zeros(len(parts.keep)), widths_of(problem)[-1])
    said = shortfall(problem.config.budget, problem.limits, billed(problem, least).bill(), problem.space.baseline)
    raise ConfigError(f"{said} with one number of bits for all; give that, or leave {agent} out of search.rivals")


def starts(problem: Problem, parts: Parts) -> Iterator[np.ndarray]:
    """Give the even splits with what they leave: where a bit is left for some groups, the most important have it.

    Where not every group can have a bit, that is all there is.
    """
    for wishes in [each for _, each in splits(problem, parts)] or [np.zeros(len(parts.keep))]:
        yield levelled(problem, parts, spread(problem, parts, wishes))


def spread(problem: Problem, parts: Parts, wishes: np.ndarray) -> np.ndarray:
    """Wish up to a bit more for groups, the more the more important: of equals these then have what is left."""
    return np.clip(wishes + np.where(parts.keep, 0.0, (1 - parts.rank) / problem.space.top), 0.0, 1.0)
