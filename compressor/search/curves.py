"""What every axis, tensor and layer loses where it alone is cut, and what greed makes of that."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressor.search.problem import Ledger, Problem
from compressor.search.space import MOST
from compressor.search.wishes import Parts, billed, free

PROBES = {"keep": (0.5, 0.75), "acts": (0.25, 0.5), "bits": (0.25, 0.5)}
"""Shares of channels or bits that a place is measured at, deep and shallow."""

NOTCH = {"keep": 1 / 16, "acts": 1 / 8, "bits": 1 / 8}
"""By how much a decision shrinks at a time."""

FLAT = 1e-4
"""Likeness lost by the whole range of a decision that measurably loses none, so that the dearest goes first."""


@dataclass(frozen=True)
class Curve:
    """The likeness that one axis, tensor or layer loses alone at falling shares of its channels or bits, 1 to 0.

    `mask` (decisions,) says which decisions are its. Between and beyond what was measured the loss is taken to grow
    with the square of the channels that go, and fourfold with each bit, as the squared error of rounding does.
    """

    kind: str
    mask: np.ndarray
    shares: tuple[float, ...]
    lost: tuple[float, ...]

    def at(self, share: float) -> float:
        """Give what a share loses."""
        bends = [bent(self.kind, each) for each in self.shares]
        end = bent(self.kind, 0.0)
        lost = np.interp(bent(self.kind, share), [*bends, end], [*self.lost, self.lost[-1] * end / bends[-1]])
        return float(lost) + FLAT * (1 - share)


def bent(kind: str, share: float) -> float:
    """Give what the loss of a share of an axis' channels or of 8 bits is proportional to."""
    return (1 - share) ** 2 if kind == "keep" else 4.0 ** (-MOST * share) - 4.0**-MOST


def measure(problem: Problem, ledger: Ledger, parts: Parts, allowed: np.ndarray, most: int) -> list[Curve]:
    """Measure each place of the `allowed` decisions (decisions,) while all else is whole, with `most` evaluations.

    All are measured deep first, then shallow, axes before the others, those that free most of the budget before those
    that free less; whoever gets no evaluation has no curve. Nothing is trained first: a training makes good what one
    cut loses. What the mildest cut loses is counted as no loss: norms' statistics are taken anew wherever something is
    cut, which costs a little by itself.

    Raises:
        SpentError: no evaluations are left.
    """
    whole, decisions = np.ones(len(parts.keep)), problem.decisions
    kinds = {int(place): decisions[i].kind for i, place in enumerate(parts.places) if allowed[i]}

    def cut(place: int, share: float) -> np.ndarray:
        return np.where(parts.places == place, share, whole)

    freed = {place: -over(problem, cut(place, PROBES[kind][0])) for place, kind in kinds.items()}
    dearest = sorted(kinds, key=lambda place: (kinds[place] != "keep", -freed[place]))
    probes = [(place, PROBES[kinds[place]][depth]) for depth in (0, 1) for place in dearest][:most]
    found = [ledger.judge(free(problem, cut(place, share)), trained=False).likeness for place, share in probes]
    lost: dict[int, dict[float, float]] = {}
    for (place, share), likeness in zip(probes, found, strict=True):
        lost.setdefault(place, {})[share] = max(found) - likeness
    return [_curve(kinds[place], parts.places == place, each) for place, each in lost.items()]


def _curve(kind: str, mask: np.ndarray, lost: dict[float, float]) -> Curve:
    """Make a curve of what shares lost; more is never taken to be worse than less."""
    shares = sorted(lost, reverse=True)
    rising = np.maximum.accumulate([0.0, *(lost[share] for share in shares)])
    return Curve(kind, mask, (1.0, *shares), tuple(rising.tolist()))


def shrunk(problem: Problem, curves: Sequence[Curve], rest: np.ndarray) -> np.ndarray:
    """Shrink the place that loses least for what it frees of the budget, until all is within or nothing frees more.

    What has no curve is wished as in `rest` (decisions,). As others shrink a place frees less, so the rates of what it
    loses only rise: one that was known before is looked at anew only where it is the least.
    """
    shares, wishes = [1.0] * len(curves), np.where(_any(curves, rest), 1.0, rest)
    rates, above = [(-np.inf, place) for place in range(len(curves))], over(problem, wishes)
    while rates and above > 0:
        place = rates[0][1]
        rate, less, left = _step(problem, curves[place], shares[place], wishes, above)
        if rate == np.inf:
            heapq.heappop(rates)
            continue
        heapq.heapreplace(rates, (rate, place))
        if rates[0] == (rate, place):
            shares[place], above, wishes = less, left, np.where(curves[place].mask, less, wishes)
            heapq.heapreplace(rates, (-np.inf, place))
    return wishes


def _step(problem: Problem, curve: Curve, share: float, wishes: np.ndarray, above: float) -> tuple[float, float, float]:
    """Give what the next smaller share that frees something loses for what it frees, that share, and what is left."""
    less = share
    while less > 0:
        less = max(0.0, less - NOTCH[curve.kind])
        left = over(problem, np.where(curve.mask, less, wishes))
        if left < above:
            return (curve.at(less) - curve.at(share)) / (above - left), less, left
    return np.inf, share, above


def _any(curves: Sequence[Curve], like: np.ndarray) -> np.ndarray:
    return np.any([np.zeros(len(like), bool), *(curve.mask for curve in curves)], axis=0)


def over(problem: Problem, wishes: np.ndarray) -> float:
    """Add up by which shares of them the limits are exceeded."""
    both = zip(billed(problem, wishes).totals(), problem.limits.totals(), strict=True)
    return sum(max(0.0, now / limit - 1) for now, limit in both if limit is not None)
