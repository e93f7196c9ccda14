"""Mixtures and their rivals as tables and sentences."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.table import Table

from compressor.arch import Routing
from compressor.records import Value
from compressor.report.moe_figures import draw
from compressor.report.tables import empty
from compressor.report.text import compact, console, percent, plain, ratio
from compressor.studies.moe_results import MIXTURE, Study, Summary

INTERVALS = "95 % intervals"


def rivals_table(study: Study) -> Table:
    """Show the mixture and its rivals, a line each; MACs and BitOps are means over the test images."""
    names = ["network", *_scores(study), "MACs", "BitOps", "macs_\nratio", "bitops_\nratio", "size_\nratio"]
    table = empty(f"{study.name}, {_seeds(study)}", [*names, "busiest\nexpert"])
    for row in study.summaries:
        busiest = "" if row.largest_share is None else f"{100 * row.largest_share:.0f} %"
        ratios = (ratio(number) for number in (row.macs_ratio, row.bitops_ratio, row.size_ratio))
        table.add_row(
            _named(row, study), *_scored(row, study), compact(row.macs), compact(row.bitops), *ratios, busiest
        )
        if row.name == MIXTURE:
            table.add_section()
    over = "over seeds" if len(study.trials) > 1 else "over images"
    table.caption, table.caption_justify = f"{INTERVALS} {over}; what is chosen is chosen on val", "left"
    return table


def experts_table(study: Study) -> Table:
    """Show each expert alone: as its recipe left it, and as the mixture trained it further."""
    table = empty("", ["expert alone", *_scores(study), "MACs", "BitOps", "size"])
    for row in study.experts:
        size = compact(row.size_bits / 8, "B")
        table.add_row(_named(row, study), *_scored(row, study), compact(row.macs), compact(row.bitops), size)
    return table


def _scores(study: Study) -> list[str]:
    score = "accuracy %" if study.score == "accuracy" else "MAE"
    return [f"val {score}", f"test {score}"]


def _scored(row: Summary, study: Study) -> list[str]:
    auc = "" if row.auc is None else f"\nAUC {plain(row.auc, 3)}"
    return [_written(row.val, study), _written(row.test, study) + auc]


def _written(value: Value, study: Study) -> str:
    return percent(value) if study.score == "accuracy" else plain(value, 2)


def _named(row: Summary, study: Study) -> str:
    return row.name if row.n == len(study.trials) else f"{row.name} (n={row.n})"


def _seeds(study: Study) -> str:
    return "1 seed" if len(study.trials) == 1 else f"{len(study.trials)} seeds"


def verdict_line(study: Study) -> str:
    """Say whether the mixture beats the best single expert that is as cheap."""
    found = study.verdict
    if found.difference is None:
        return "no single expert is as cheap as the mixture, so there is none of equal active cost to beat"
    unit, scale = ("points of accuracy", 100.0) if study.score == "accuracy" else ("of MAE", 1.0)
    value, low, high = (
        f"{scale * n:+.2f}" for n in (found.difference.value, found.difference.low, found.difference.high)
    )
    says = "beats" if found.ahead else "does NOT beat"
    n = len(found.seeds)
    interval = f" (95 % interval over {n} seeds {low} to {high})" if n > 1 else " (1 seed)"
    sure = "; the interval holds 0, so more seeds may say otherwise" if n > 1 and found.uncertain else ""
    return f"the mixture {says} the best single expert of equal active cost: {value} {unit} on test{interval}{sure}"


def collapse_lines(study: Study) -> Iterator[str]:
    """Say of each collapsed router, or cascade, what happened and what to change."""
    what = "cascade" if study.settings.routing is Routing.CASCADE else "router"
    for trial in study.trials:
        if (found := trial.collapse) is None:
            continue
        share, scores = f"{100 * found.share:.1f} % of val", f"{abs(found.possible):.4g}, not {abs(found.reached):.4g}"
        yield (
            f"seed {trial.seed}: the {what} collapsed: expert {found.expert} gets {share}, though the right "
            f"choices would score {scores}; {found.advice}"
        )


def router_line(study: Study) -> str:
    """Say what routing costs: the router's share of the mean MACs, and of the measured time."""
    if study.settings.routing is Routing.CASCADE:
        return "no router: the experts' own answers say how sure they are"
    share = np.mean([trial.router_share for trial in study.trials])
    parts = [f"router: {100 * share:.1f} % of the mean MACs"]
    for i, time in enumerate(study.trials[0].times):
        part = np.mean([trial.times[i].router / trial.times[i].seconds for trial in study.trials])
        parts.append(f"{100 * part:.0f} % of the time at batch {time.batch}")
    return ", ".join(parts)


def show(study: Study, folder: Path, *, figures: bool) -> None:
    """Print the tables and the verdict, and draw the figures into `folder`."""
    shown = console()
    shown.print(rivals_table(study))
    shown.print(experts_table(study))
    for line in (verdict_line(study), router_line(study), *collapse_lines(study)):
        shown.print(line, soft_wrap=True, markup=False)
    if figures and not draw(study, folder):
        shown.print("no figures: they need the package matplotlib: pip install 'compressor[figures]'", markup=False)
