"""The decision graph of an order study: which technique goes before which."""

import math
from collections.abc import Sequence

from compressor.report.drawing import BLACK, BLUE, GREY, ORANGE, PANEL, Axes, FancyArrowPatch, Figure, figure
from compressor.report.order_tables import Unit
from compressor.studies.sorting import Sorting
from compressor.studies.verdicts import Verdict

DISC = 15
"""Radius of a technique's disc, in points."""
ALONG = 0.3
"""Where the label of a line across stands, so that those of crossing lines lie apart."""
FITTING = 3
"""So many orders that fit stand below the graph."""

Place = tuple[float, float]


def graph_figure(sorting: Sorting, verdicts: Sequence[Verdict], unit: Unit) -> Figure:
    """Draw an arrow for each decided pair, to what goes second, and a dashed line for each that is undecided.

    Numbers are differences on val; on a dashed line that of the order which stands with it. A cycle's weakest edge is
    orange.
    """
    letters = sorting.orders[0] if sorting.orders else sorting.letters
    places = _circle(letters)
    with figure(PANEL, 0.95 * PANEL) as drawn:
        panel = drawn.subplots()
        for verdict in verdicts:
            _edge(panel, verdict, places, unit, weak=verdict.winner is not None and verdict.winner == sorting.weakest)
        for letter, (x, y) in places.items():
            panel.plot([x], [y], "o", color=BLACK, markerfacecolor="white", markersize=2 * DISC, zorder=3)
            panel.annotate(letter, (x, y), ha="center", va="center", fontsize=14, fontweight="bold", zorder=4)
        panel.set_xlim(-1.05, 1.05)
        panel.set_ylim(-1.05, 1.05)
        panel.set_aspect("equal")
        panel.axis("off")
        drawn.supxlabel(_caption(sorting), fontsize=9.5)
    return drawn


def _circle(letters: str) -> dict[str, Place]:
    """Put letters on a circle, clockwise from the upper left."""
    angles = [math.pi * (0.75 - 2 * i / len(letters)) for i in range(len(letters))]
    return {letter: (math.cos(angle), math.sin(angle)) for letter, angle in zip(letters, angles, strict=True)}


def _edge(panel: Axes, verdict: Verdict, places: dict[str, Place], unit: Unit, *, weak: bool) -> None:
    edge = verdict.winner or verdict.orders[0]
    start, end = places[edge[0]], places[edge[1]]
    decided = {"arrowstyle": "-|>", "linestyle": "-", "color": ORANGE if weak else BLUE, "linewidth": 1.8}
    undecided = {"arrowstyle": "-", "linestyle": (0, (4, 3)), "color": GREY, "linewidth": 1.2}
    style = decided if verdict.winner else undecided
    panel.add_patch(FancyArrowPatch(start, end, mutation_scale=14, shrinkA=DISC, shrinkB=DISC + 2, zorder=1, **style))
    sign = 1 if edge == verdict.orders[0] else -1
    number = "?" if verdict.val.mean is None else unit.signed(sign * verdict.val.mean)
    label = number if verdict.winner else f"{edge} {number}"
    apart = abs(list(places).index(edge[0]) - list(places).index(edge[1]))
    along = 0.5 if apart in (1, len(places) - 1) else ALONG
    x, y = (a + along * (b - a) for a, b in zip(start, end, strict=True))
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    panel.text(x, y, label, ha="center", va="center", color=style["color"], bbox=ground, zorder=2)


def _caption(sorting: Sorting) -> str:
    if sorting.cycle:
        return f"cycle {'-'.join(sorting.cycle + sorting.cycle[0])}, weakest {sorting.weakest}"
    if sorting.count == 1:
        return f"order: {sorting.orders[0]}"
    shown = ", ".join(sorting.orders[:FITTING]) + (", ..." if sorting.count > FITTING else "")
    return f"{sorting.count} orders fit: {shown}"
