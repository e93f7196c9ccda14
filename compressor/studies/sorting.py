"""From verdicts on pairs to an order of all techniques: the one that fits, those that fit, or a cycle. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import networkx as nx

from compressor.studies.verdicts import Verdict

LISTED = 24
"""So many of the consistent orders are written down."""


@dataclass(frozen=True)
class Sorting:
    """What the decided pairs say of the order of all techniques.

    Attributes:
        letters: the techniques.
        decided: such as DP, D before P; undecided: pairs of which nothing is said.
        orders: those that agree with every decided pair, best supported by the undecided ones first; the first 24.
        count: how many there are; 1: the order is unique; 0: there is a cycle.
        cycle: such as DPQ, where D is before P, P before Q and Q before D; empty without one.
        weakest: the edge of that cycle, such as QD, with the largest corrected p; None without a cycle.
    """

    letters: str
    decided: tuple[str, ...]
    undecided: tuple[str, ...]
    orders: tuple[str, ...]
    count: int
    cycle: str
    weakest: str | None


class Standpoint(StrEnum):
    """What a study says of one pair of an order that somebody proposed."""

    CONFIRMED = "confirmed"
    UNDECIDED = "undecided"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True)
class Claim:
    """A pair of a proposed order, such as DP, and what became of it."""

    edge: str
    standpoint: Standpoint
    verdict: Verdict


def sort_orders(letters: str, verdicts: Sequence[Verdict]) -> Sorting:
    """Sort techniques topologically by the pairs that are decided."""
    graph = nx.DiGraph()
    graph.add_nodes_from(letters)
    by_edge = {verdict.winner: verdict for verdict in verdicts if verdict.winner}
    graph.add_edges_from((edge[0], edge[1]) for edge in by_edge)
    undecided = tuple(verdict.orders[0] for verdict in verdicts if not verdict.winner)
    if cycle := _cycle(graph):
        edges = [a + b for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True)]
        weakest = max(edges, key=lambda edge: _weakness(by_edge[edge]))
        return Sorting(letters, tuple(by_edge), undecided, (), 0, cycle, weakest)
    found = ["".join(order) for order in nx.all_topological_sorts(graph)]
    found.sort(key=lambda order: (-_support(order, verdicts), order))
    return Sorting(letters, tuple(by_edge), undecided, tuple(found[:LISTED]), len(found), "", None)


def _cycle(graph: nx.DiGraph) -> str:
    """Give a shortest cycle from its first letter in the alphabet, "" if there is none."""
    cycles = ["".join(cycle) for cycle in nx.simple_cycles(graph)]
    turned = [cycle[(i := cycle.index(min(cycle))) :] + cycle[:i] for cycle in cycles]
    return min(turned, key=lambda cycle: (len(cycle), cycle), default="")


def _weakness(verdict: Verdict) -> tuple[float, float]:
    return verdict.adjusted_p, -abs(verdict.val.mean or 0.0)


def _support(order: str, verdicts: Sequence[Verdict]) -> float:
    """Add up the differences on val of all pairs, counted as this order has them."""
    return sum((verdict.val.mean or 0.0) * (1 if _has(order, verdict.orders[0]) else -1) for verdict in verdicts)


def _has(order: str, edge: str) -> bool:
    return order.index(edge[0]) < order.index(edge[1])


def claims(reference: str, verdicts: Sequence[Verdict]) -> tuple[Claim, ...]:
    """Hold a proposed order against the verdicts: a claim for each pair measured; a letter counts where it is first."""
    reference = "".join(dict.fromkeys(reference))
    found = {frozenset(verdict.pair): verdict for verdict in verdicts}
    pairs = [a + b for i, a in enumerate(reference) for b in reference[i + 1 :]]
    return tuple(_claim(edge, found[frozenset(edge)]) for edge in pairs if frozenset(edge) in found)


def _claim(edge: str, verdict: Verdict) -> Claim:
    if verdict.winner is None:
        return Claim(edge, Standpoint.UNDECIDED, verdict)
    return Claim(edge, Standpoint.CONFIRMED if verdict.winner == edge else Standpoint.CONTRADICTED, verdict)
