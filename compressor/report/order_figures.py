"""Figures of an order study: the fronts of each pair, insertion, and rankings of orders."""

import math
from collections.abc import Mapping, Sequence

from compressor.report.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PANEL, Axes, Figure, Patch, figure, ratio_axis
from compressor.report.order_tables import Unit
from compressor.studies.comparing import PairPoints
from compressor.studies.fronts import Point, Spot, front
from compressor.studies.ranking import Spread, Standing, Summary, centred, summaries
from compressor.studies.verdicts import Holding, Insertion, Verdict

PALE = "#EEEEEE"
SIDES = ((BLUE, "o", -1), (ORANGE, "s", 1))
"""Colour, marker and side of the first and the second order of a pair."""
ASIDE = 0.006
"""Points of equal cost are drawn beside each other: so much of the axis away from where they are."""
HOLDINGS = {
    Holding.HOLDS: (BLUE, "o", BLUE),
    Holding.NOT_CONTRADICTED: (GREY, "o", "white"),
    Holding.CONTRADICTED: (ORANGE, "X", ORANGE),
    Holding.NO_VERDICT: (GREY, "s", "white"),
}
PAIR = (BLACK, "D", BLACK)
ROW = 0.19
"""Inches a row."""
GAP = 0.5
"""Rows between one pair and the next."""


def pairs_figure(
    verdicts: Sequence[Verdict],
    pairs: Mapping[tuple[str, str], PairPoints],
    unit: Unit,
    level: float,
    columns: int = 2,
) -> Figure:
    """Draw a panel a pair on val: every seed's points faint, their means with intervals, and the front of the means.

    Intervals of quality are without what all chains of a seed share, such as its baseline, as differences are.
    """
    columns = min(columns, len(verdicts))
    rows = math.ceil(len(verdicts) / columns)
    with figure(PANEL * columns, 2.6 * rows) as drawn:
        panels = drawn.subplots(rows, columns, squeeze=False).ravel()
        for verdict, panel in zip(verdicts, panels, strict=False):
            _pair(panel, verdict, pairs[verdict.pair], unit, level)
        for panel in panels[len(verdicts) :]:
            panel.set_visible(False)
        drawn.supxlabel("bitops_ratio on val", fontsize=9.5)
        drawn.supylabel(f"val {unit.name}", fontsize=9.5)
    return drawn


def _pair(panel: Axes, verdict: Verdict, points: PairPoints, unit: Unit, level: float) -> None:
    panel.set_title(_title(verdict, unit), loc="left")
    ratios = [point.val_bitops for point in (*points.first, *points.second)]
    if not ratios:
        return
    width = max(ratios) / min(ratios)
    compared = centred((*points.first, *points.second))
    for own, (colour, marker, side) in zip((points.first, points.second), SIDES, strict=True):
        if own:
            means = summaries([point for point in compared if point.order == own[0].order], level)
            _front(panel, own, means, unit, width ** (side * ASIDE), (colour, marker))
    ratio_axis(panel, min(ratios), max(ratios))
    panel.legend(loc="lower left", handlelength=1.4, borderaxespad=0.2, labelspacing=0.2)


def _title(verdict: Verdict, unit: Unit) -> str:
    """Say who won and by how much; an undecided difference is that of the order named."""
    mean, high = verdict.val.mean, verdict.val.high
    if mean is None:
        return "not measured"
    half = "?" if high is None else unit.value(high - mean)
    if verdict.winner:
        return f"{verdict.winner} better by {unit.value(abs(mean))} ± {half} {unit.difference}"
    return f"undecided: {verdict.orders[0]} {unit.signed(mean)} ± {half} {unit.difference}"


def _front(
    panel: Axes, points: Sequence[Point], means: Sequence[Summary], unit: Unit, aside: float, style: tuple[str, str]
) -> None:
    colour, marker = style
    xs, ys = [aside * p.val_bitops for p in points], [unit.factor * p.val for p in points]
    panel.plot(xs, ys, marker, color=colour, alpha=0.25, markersize=3, markeredgewidth=0)
    for mean in means:
        x, y = mean.val_bitops, mean.val
        if x.low is not None and x.high is not None and y.low is not None and y.high is not None:
            panel.plot([aside * x.mean] * 2, [unit.factor * y.low, unit.factor * y.high], color=colour, linewidth=1.2)
            panel.plot([aside * x.low, aside * x.high], [unit.factor * y.mean] * 2, color=colour, linewidth=1.2)
    best = front(Spot(aside * mean.val_bitops.mean, unit.factor * mean.val.mean) for mean in means)
    panel.plot(*zip(*best, strict=True), color=colour, drawstyle="steps-pre", linewidth=0.8)
    xs, ys = [aside * mean.val_bitops.mean for mean in means], [unit.factor * mean.val.mean for mean in means]
    panel.plot(xs, ys, marker, color=colour, markersize=4.5, label=points[0].order)


def insertion_figure(verdicts: Sequence[Verdict], insertions: Sequence[Insertion], unit: Unit) -> Figure:
    """Draw each pair's difference on val and below it those with a third technique between.

    All are counted in the direction of the pair's verdict: what lies right of 0 agrees with it.
    """
    by_pair = {verdict.pair: verdict for verdict in verdicts}
    pairs = dict.fromkeys([*by_pair, *(insertion.verdict.pair for insertion in insertions)])
    with figure(PANEL, 1.2 + ROW * (len(insertions) + len(verdicts) + GAP * len(pairs))) as drawn:
        panel = drawn.subplots()
        panel.axvline(0, color=GREY, linewidth=0.8)
        names: list[str] = []
        places: list[float] = []
        for number, pair in enumerate(pairs):
            rows = [(by_pair[pair], PAIR)] if pair in by_pair else []
            side = 1 if rows and rows[0][0].winner == rows[0][0].orders[1] else 0
            rows += [(i.verdict, HOLDINGS[i.holding]) for i in insertions if i.verdict.pair == pair]
            for judged, style in rows:
                places.append(len(names) + GAP * number)
                names.append(judged.orders[side])
                _difference(panel, places[-1], judged, -unit.factor if side else unit.factor, style)
        _rows(panel, names, places)
        panel.set_xlabel(f"ahead of its reverse on val, {unit.difference}")
        styles = {str(insertion.holding): HOLDINGS[insertion.holding] for insertion in insertions}
        for label, (colour, marker, face) in (({"the pair": PAIR} if verdicts else {}) | styles).items():
            panel.plot([], [], marker, color=colour, markerfacecolor=face, markersize=4.5, label=label)
        drawn.legend(loc="outside upper center", ncols=2, handletextpad=0.2, columnspacing=1)
    return drawn


def _difference(panel: Axes, y: float, verdict: Verdict, factor: float, style: tuple[str, str, str]) -> None:
    colour, marker, face = style
    val = verdict.val
    if val.mean is None:
        return
    if val.low is not None and val.high is not None:
        panel.plot([factor * val.low, factor * val.high], [y, y], color=colour, linewidth=1.2)
    panel.plot([factor * val.mean], [y], marker, color=colour, markerfacecolor=face, markersize=4.5)


def _rows(panel: Axes, names: Sequence[str], places: Sequence[float]) -> None:
    panel.set_yticks(places, names, family="monospace")
    panel.set_ylim(places[-1] + 0.6, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    panel.set_axisbelow(True)


def ranking_figure(standings: Sequence[Standing], unit: Unit, fitting: Sequence[str] = ()) -> Figure:
    """Draw quality and bitops_ratio of each order, best first, with intervals over seeds.

    Rows of a grey ground cannot be told apart from the order that all are compared with, which is bold;
    `fitting`: orders that the verdicts on pairs agree with, marked by an arrow.
    """
    with figure(PANEL, 1.2 + ROW * len(standings)) as drawn:
        quality, cost = drawn.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for y, standing in enumerate(standings):
            if standing.against is None or standing.against.winner is None:
                for panel in (quality, cost):
                    panel.axhspan(y - 0.5, y + 0.5, color=PALE, linewidth=0, zorder=0)
            summary = standing.summary
            for spread, ratio, (colour, marker, side) in (
                (summary.val, summary.val_bitops, SIDES[0]),
                (summary.test, summary.test_bitops, (GREEN, "s", 1)),
            ):
                place = y + 0.15 * side
                _interval(quality, place, spread, unit.factor, (colour, marker))
                _interval(cost, place, ratio, 1, (colour, marker))
        _ranked(quality, cost, standings, fitting)
        quality.set_xlabel(unit.name)
        cost.set_xlabel("bitops_ratio")
        marks = [quality.plot([], [], mark, color=c, markersize=3.5)[0] for mark, c in (("o", BLUE), ("s", GREEN))]
        base = next(each.order for each in standings if each.against is None)
        labels = ["val", "test", f"not told apart from {base}"]
        drawn.legend([*marks, Patch(color=PALE)], labels, loc="outside upper center", ncols=3, columnspacing=1)
    return drawn


def _ranked(quality: Axes, cost: Axes, standings: Sequence[Standing], fitting: Sequence[str]) -> None:
    """Label the rows and set the axes of a ranking."""
    names = [f"> {each.order}" if each.order in fitting else each.order for each in standings]
    _rows(quality, names, range(len(names)))
    for label, standing in zip(quality.get_yticklabels(), standings, strict=True):
        label.set_fontweight("bold" if standing.against is None else "normal")
    ends = [
        value
        for standing in standings
        for spread in (standing.summary.val_bitops, standing.summary.test_bitops)
        for value in (spread.mean, spread.low, spread.high)
        if value is not None
    ]
    ratio_axis(cost, min(ends), max(ends), most=3)
    cost.tick_params(axis="y", length=0, labelleft=False)
    cost.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    cost.set_axisbelow(True)


def _interval(panel: Axes, y: float, spread: Spread, factor: float, style: tuple[str, str]) -> None:
    colour, marker = style
    if spread.low is not None and spread.high is not None:
        panel.plot([factor * spread.low, factor * spread.high], [y, y], color=colour, linewidth=1)
    panel.plot([factor * spread.mean], [y], marker, color=colour, markersize=3.5)
