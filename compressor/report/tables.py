"""Tables of chains, evaluations, layers and runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from compressor.records import Measurement, Metrics
from compressor.report.listing import Listing
from compressor.report.text import compact, headline, percent, plain, ratio, score_of


@dataclass(frozen=True)
class Row:
    """One line of a chain's table. `seconds` None: not known; `stored`: the result was there already."""

    phase: str
    measured: Measurement
    bitops_ratio: float
    size_ratio: float
    seconds: float | None
    stored: bool


def row_of(metrics: Metrics, phase: str, *, stored: bool) -> Row:
    """Take a line from a finished step's metrics."""
    return Row(phase, metrics.after, metrics.bitops_ratio, metrics.size_ratio, metrics.seconds, stored)


def before(metrics: Metrics, phase: str) -> Row | None:
    """Take the line of the model that a finished step started from, if it had one."""
    if (measured := metrics.before) is None:
        return None
    original = metrics.original
    bitops, size = original.bitops / measured.test.bitops, original.size_bits / measured.cost.size_bits
    return Row(phase, measured, bitops, size, None, stored=True)


def empty(title: str, names: Iterable[str], left: int = 1) -> Table:
    """Make an empty table whose first `left` columns hold words and the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.pad_edge = False
    for i, name in enumerate(names):
        table.add_column(name, justify="left" if i < left else "right", no_wrap=True)
    return table


def _cell(text: str) -> Text:
    return Text(text)  # names may hold brackets, which are markup elsewhere


def chain_table(title: str, rows: Sequence[Row]) -> Table:
    """Show what each phase of a chain scores and costs. MACs and BitOps are means over the test images."""
    score = headline(rows[0].measured.test.quality)
    names = ["phase", f"val {score}", f"test {score}", "params", "MACs", "BitOps", "bitops_\nratio", "size_\nratio"]
    table = empty(title, [*names, "checkpoint\nbytes", "seconds"])
    for row in rows:
        measured = row.measured
        cells = [
            row.phase,
            score_of(measured.val.quality),
            score_of(measured.test.quality),
            compact(measured.cost.params),
            compact(measured.test.macs),
            compact(measured.test.bitops),
            ratio(row.bitops_ratio),
            ratio(row.size_ratio),
            compact(measured.cost.checkpoint_bytes),
            "" if row.seconds is None else f"{row.seconds:.1f}{'*' if row.stored else ' '}",
        ]
        table.add_row(*map(_cell, cells))
    if any(row.stored and row.seconds is not None for row in rows):
        table.caption, table.caption_justify = "* was there already; the seconds it took when it was made", "left"
    return table


def heads_table(measured: Measurement) -> Table:
    """Show each head on all images and the share of images that leave there, then the path images really take.

    Of a mixture: each expert on all images, and the share of images that it answers.
    """
    score = headline(measured.test.quality)
    left = ["expert", "answers"] if measured.mixture else ["head", "leave on"]
    table = empty("", [left[0], f"val {score}", f"test {score}", f"{left[1]} val", f"{left[1]} test"])
    last = len(measured.test.heads) - 1
    for i, (val, test) in enumerate(zip(measured.val.heads, measured.test.heads, strict=True)):
        left = [f"{100 * split.shares[i]:.1f} %" for split in (measured.val, measured.test)]
        name = f"expert {i}" if measured.mixture else "final" if i == last else f"exit {i + 1}"
        table.add_row(name, score_of(val), score_of(test), *left)
    if last:
        table.add_row("path taken", score_of(measured.val.quality), score_of(measured.test.quality), "", "")
    return table


def scores_table(measured: Measurement) -> Table:
    """Show every score of val and test, with the number of images; a cell is empty where a split has no such score."""
    table = empty("", ["score", f"val (n={measured.val.quality.n})", f"test (n={measured.test.quality.n})"])
    scores = [split.quality.scores for split in (measured.val, measured.test)]
    for name in dict.fromkeys([*scores[1], *scores[0]]):
        write = percent if name in ("accuracy", "top5") else lambda value: plain(value, 3)
        both = [write(found[name]) if name in found else "" for found in scores]
        table.add_row(f"{name} %" if name in ("accuracy", "top5") else name, *both)
    table.add_row("loss", *(f"{split.quality.loss:.4f}" for split in (measured.val, measured.test)))
    return table


def cost_table(measured: Measurement) -> Table:
    """Show what a model costs: the whole network, and the mean over the images of the path they take."""
    cost = measured.cost
    table = empty("", ["cost", "whole network", "mean on val", "mean on test"])
    table.add_row("params", compact(cost.params), "", "")
    for name in ("macs", "bitops"):
        numbers = (getattr(part, name) for part in (cost, measured.val, measured.test))
        table.add_row({"macs": "MACs", "bitops": "BitOps"}[name], *map(compact, numbers))
    table.add_row("size", compact(cost.size_bits / 8, "B"), "", "")
    table.add_row("checkpoint", compact(cost.checkpoint_bytes, "B"), "", "")
    return table


def layers_table(layers: Sequence[Mapping[str, float | str]]) -> Table:
    """Show a row a layer, exact numbers, and their sums."""
    counted = ("params", "macs", "bitops")
    table = empty("", ["layer", "kind", "params", "MACs", "weight bits", "act bits", "BitOps"], left=2)
    for layer in layers:
        bits = (f"{layer['weight_bits']:g}", f"{layer['act_bits']:g}")
        params, macs, bitops = (f"{layer[name]:,}" for name in counted)
        table.add_row(_cell(str(layer["name"])), str(layer["kind"]), params, macs, *bits, bitops)
    params, macs, bitops = (f"{sum(int(layer[name]) for layer in layers):,}" for name in counted)
    table.add_section()
    table.add_row("sum", "", params, macs, "", "", bitops)
    return table


def runs_table(runs: Iterable[tuple[str, str, Sequence[tuple[str, Metrics | None]]]]) -> Listing:
    """Show runs, a line a phase: of each its folder, its order, and its steps' folders and metrics; None: damaged."""
    names = ["run", "order", "phase", "test score", "bitops_\nratio", "size_\nratio", "seconds"]
    rows: list[list[str] | None] = []
    for folder, order, steps in runs:
        for i, (phase, metrics) in enumerate(steps):
            first = [folder, order] if i == 0 else ["", ""]
            rows.append([*first, phase, *(_results(metrics) if metrics else ["damaged", "", "", ""])])
        if not steps:
            rows.append([folder, order, "nothing finished", *[""] * 4])
        rows.append(None)
    return Listing(names, rows[:-1], left=3)


def _results(metrics: Metrics) -> list[str]:
    score = score_of(metrics.after.test.quality).partition("\n")[0]
    return [score, ratio(metrics.bitops_ratio), ratio(metrics.size_ratio), f"{metrics.seconds:.1f}"]


def folders_table(sizes: Mapping[Path, int]) -> Listing:
    """Show folders and how many bytes they hold."""
    return Listing(["folder", "bytes"], [[str(folder), compact(size, "B")] for folder, size in sizes.items()])
