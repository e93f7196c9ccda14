"""Tables of an order study: pairs, the order they make, insertion, and rankings of orders."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from compressor.report.tables import empty
from compressor.report.text import ratio
from compressor.studies.comparing import Comparison
from compressor.studies.ranking import Spread, Standing, Summary
from compressor.studies.sorting import Claim, Sorting
from compressor.studies.verdicts import FIRM, MOST_SEEDS, Insertion, Verdict

SHOWN = 8
"""So many of the orders that fit are printed."""


@dataclass(frozen=True)
class Unit:
    """How a quality is written: its name, the unit of differences, the factor to it and the digits of both."""

    name: str
    difference: str
    factor: float
    digits: int

    def value(self, number: float) -> str:
        """Write a quality."""
        return f"{self.factor * number:.{self.digits}f}"

    def signed(self, number: float) -> str:
        """Write a difference of qualities with its sign."""
        return f"{self.factor * number:+.{self.digits}f}"


ACCURACY = Unit("accuracy %", "points", 100, 2)
MAE = Unit("-MAE", "of MAE", 1, 3)


def pairs_table(verdicts: Sequence[Verdict], unit: Unit, level: float) -> Table:
    """Show each pair's verdict and what it rests on; a difference above 0 speaks for the order in the first column."""
    names = ["order", "against", "better", f"val,\n{unit.difference}", "p\n(Holm)", "effect"]
    names += ["turned\nsigns", "seeds", "seeds\nneeded", f"test,\n{unit.difference}"]
    table = empty("pairs", names, left=3)
    for verdict in verdicts:
        table.add_row(*verdict.orders, *_judged(verdict, unit))
    _explain(table, verdicts, level)
    return table


def _judged(verdict: Verdict, unit: Unit) -> list[str]:
    val = verdict.val
    needed = f"> {MOST_SEEDS}" if val.scale else "?"
    return [
        (verdict.winner or "undecided") + ("*" if verdict.indicative else ""),
        difference(val, unit),
        f"{verdict.adjusted_p:.3f}" if verdict.adjusted_p >= 0.0005 else "<.001",
        "" if val.effect is None else f"{val.effect:+.1f}",
        f"{100 * val.flips:.1f} %" if val.n > 1 else "",
        str(val.n),
        "" if verdict.winner else str(verdict.seeds_needed or needed),
        difference(verdict.test, unit),
    ]


def _explain(table: Table, verdicts: Sequence[Verdict], level: float) -> None:
    notes = [f"{_half(level)}; decided on val alone; p is corrected for all comparisons, intervals are not"]
    if any(verdict.indicative for verdict in verdicts):
        notes.append(f"* fewer than {FIRM} seeds: indicative")
    if unpaired := sum(verdict.unpaired for verdict in verdicts):
        notes.append(f"{unpaired} chains left out: the other order has none with their seed and setting")
    table.caption, table.caption_justify = "\n".join(notes), "left"


def _half(level: float) -> str:
    return f"± is half the {100 * (1 - level):g} % interval over seeds"


def difference(comparison: Comparison, unit: Unit) -> str:
    """Write a mean difference and half its interval, such as `+0.84 ± 0.53`."""
    if comparison.mean is None:
        return "not measured"
    half = "?" if comparison.high is None else unit.value(comparison.high - comparison.mean)
    return f"{unit.signed(comparison.mean)} ± {half}"


def order_text(sorting: Sorting) -> str:
    """Say in a line or two which orders agree with the decided pairs."""
    pairs = len(sorting.decided) + len(sorting.undecided)
    decided = f"{len(sorting.decided)} of {pairs} pairs are decided"
    if sorting.cycle:
        around = " before ".join(sorting.cycle + sorting.cycle[0])
        weakest = f"its weakest edge is {' before '.join(sorting.weakest or '')}"
        return f"no order agrees with all verdicts: {around}; {weakest} ({decided})"
    if sorting.count == 1:
        return f"order: {sorting.orders[0]} ({decided}; no other order agrees with them)"
    shown = ", ".join(sorting.orders[:SHOWN]) + (", ..." if sorting.count > SHOWN else "")
    return f"{sorting.count} orders agree with the verdicts ({decided}), best supported first: {shown}"


def claims_table(reference: str, claims: Sequence[Claim], unit: Unit, level: float) -> Table:
    """Show what became of each pair of an order that somebody proposed."""
    names = ["edge", "the study says", f"val,\n{unit.difference}", "p\n(Holm)", "seeds"]
    table = empty(f"the order {reference}, pair by pair", names, left=2)
    for claim in claims:
        _, shown, p, *_ = _judged(claim.verdict, unit)
        table.add_row(claim.edge, claim.standpoint, f"{claim.verdict.orders[0]} {shown}", p, str(claim.verdict.val.n))
    _explain(table, [claim.verdict for claim in claims], level)
    return table


def insertion_table(insertions: Sequence[Insertion], unit: Unit, level: float) -> Table:
    """Show whether each pair's verdict holds with a third technique between."""
    names = ["order", "against", "better", "the pair's verdict", f"val,\n{unit.difference}", "p\n(Holm)"]
    table = empty("insertion", [*names, "turned\nsigns", "seeds", f"test,\n{unit.difference}"], left=4)
    for insertion in insertions:
        winner, shown, p, _, flips, seeds, _, test = _judged(insertion.verdict, unit)
        table.add_row(*insertion.verdict.orders, winner, insertion.holding, shown, p, flips, seeds, test)
    _explain(table, [insertion.verdict for insertion in insertions], level)
    return table


def ranking_table(title: str, standings: Sequence[Standing], unit: Unit, level: float) -> Table:
    """Show orders best first, and how each differs from the one that all are compared with."""
    base = next((standing.order for standing in standings if standing.against is None), "")
    names = ["", "order", f"val\n{unit.name}", f"test\n{unit.name}", "bitops_ratio\non test", f"against {base}\non val"]
    table = empty(title, [*names, "p\n(Holm)", "told\napart", "seeds"], left=2)
    for place, standing in enumerate(standings, 1):
        summary, against = standing.summary, ["", "", ""]
        if standing.against is not None:
            _, shown, p, *_ = _judged(standing.against, unit)
            against = [shown, p, "yes" if standing.against.winner else "no"]
        cells = [scored(summary.val, unit), scored(summary.test, unit), _ratio(summary.test_bitops)]
        table.add_row(str(place), standing.order, *cells, *against, str(len(summary.seeds)))
    _explain(table, [standing.against for standing in standings if standing.against], level)
    return table


def singles_table(summaries: Sequence[Summary], unit: Unit, level: float) -> Table:
    """Show what each chain of a grid scores and saves, over its seeds."""
    names = ["order", "setting", f"val\n{unit.name}", f"test\n{unit.name}", "bitops_ratio\non test", "seeds"]
    table = empty("singles", names, left=2)
    for summary in summaries:
        cells = [scored(summary.val, unit), scored(summary.test, unit), _ratio(summary.test_bitops)]
        table.add_row(summary.order, " ".join(summary.settings), *cells, str(len(summary.seeds)))
    table.caption, table.caption_justify = _half(level), "left"
    return table


def scored(spread: Spread, unit: Unit) -> str:
    """Write a mean quality and half its interval over seeds, such as `95.12 ± 0.41`."""
    half = "?" if spread.high is None else unit.value(spread.high - spread.mean)
    return f"{unit.value(spread.mean)} ± {half}"


def _ratio(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return f"{ratio(spread.mean)} (?)"
    return f"{ratio(spread.mean)} ({ratio(spread.low)[:-2]}-{ratio(spread.high)[:-2]})"
