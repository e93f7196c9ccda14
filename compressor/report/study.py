"""What a study found, shown: tables in the terminal, figures beside study.json."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from compressor.errors import UnfinishedError
from compressor.report import order_tables
from compressor.report.study_progress import duration
from compressor.report.tables import empty
from compressor.report.text import console
from compressor.studies.outlook import Share
from compressor.studies.study import Study, pairs_of


def show(study: Study, folder: Path, *, figures: bool) -> None:
    """Print what a study found, part by part, and draw it into the study's folder."""
    unit = order_tables.ACCURACY if study.quality == "accuracy" else order_tables.MAE
    level, shown = study.level, console()
    if study.singles:
        shown.print(order_tables.singles_table(study.singles, unit, level))
    if study.verdicts:
        shown.print(order_tables.pairs_table(study.verdicts, unit, level))
    if study.insertions:
        shown.print(order_tables.insertion_table(study.insertions, unit, level))
    for title, standings in (("permutations", study.permutations), ("repetition", study.repetition)):
        if standings:
            shown.print(order_tables.ranking_table(title, standings, unit, level))
    if study.claims:
        shown.print(order_tables.claims_table(study.reference, study.claims, unit, level))
    if study.sorting:
        shown.print(order_tables.order_text(study.sorting), soft_wrap=True)
    if figures:
        _draw(study, folder, unit)


def _draw(study: Study, folder: Path, unit: order_tables.Unit) -> None:
    from compressor.report import drawing, order_figures, order_graph

    fitting = study.sorting.orders if study.sorting else ()
    if study.sorting and study.verdicts:
        pairs = pairs_of(study.letters, study.results)
        drawing.write(order_figures.pairs_figure(study.verdicts, pairs, unit, study.level), folder, "pairs")
        drawing.write(order_graph.graph_figure(study.sorting, study.verdicts, unit), folder, "graph")
    if study.insertions:
        drawing.write(order_figures.insertion_figure(study.verdicts, study.insertions, unit), folder, "insertion")
    if study.permutations:
        drawing.write(order_figures.ranking_figure(study.permutations, unit, fitting), folder, "permutations")
    if study.repetition:
        drawing.write(order_figures.ranking_figure(study.repetition, unit), folder, "repetition")


def outlook_table(shares: Sequence[Share]) -> Table:
    """Show what there is to do, a line a phase; a time that no record tells is `?`."""
    table = empty("", ["phase", "steps", "stored", "to run", "time"])
    for share in shares:
        table.add_row(*_row(share.phase, share.steps, share.stored, share.seconds))
    known = [share.seconds for share in shares if share.seconds is not None]
    total = sum(known) if len(known) == len(shares) else None
    table.add_section()
    table.add_row(*_row("all", sum(share.steps for share in shares), sum(share.stored for share in shares), total))
    return table


def _row(phase: str, steps: int, stored: int, seconds: float | None) -> list[str]:
    return [phase, str(steps), str(stored), str(steps - stored), "?" if seconds is None else duration(seconds)]


def complete(study: Study) -> None:
    """Refuse to pass over steps that failed.

    Raises:
        UnfinishedError: steps have no result.
    """
    if study.failures:
        count, first = len(study.failures), study.failures[0].error
        raise UnfinishedError(
            f"{count} of {study.steps} steps have no result, the first because: {first}; what could be decided stands, "
            "and the same command tries the rest again"
        )
