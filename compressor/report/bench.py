"""Tables of a benchmark."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from rich.table import Table

from compressor.deploy.bench_records import COMPRESSED, ORIGINAL, Benchmark, Footprint, Timing
from compressor.records import Value
from compressor.report.bench_figures import draw
from compressor.report.tables import empty
from compressor.report.text import compact, console, ratio

TIMES = """ms: of a call, median (95th percentile). precision: of what is not quantized to integers.
faster: how many times, of the median round, and its 95 % interval."""


def times_table(result: Benchmark) -> Table:
    """Show milliseconds a call and images a second of both networks, and how much faster the compressed one is."""
    names = ["batch", "engine", "precision", "ms: original", "compressed", "images/s: original", "compressed"]
    table = empty("", [*names, "faster"], left=3)
    table.caption, table.caption_justify = TIMES, "left"
    previous = None
    for batch, engine, precision, cells in _rows(result):
        if previous not in (None, batch):
            table.add_section()
        previous, pair = batch, [cells.get(name) for name in (ORIGINAL, COMPRESSED)]
        speeds = [compact(cell.images_per_second) if cell else "" for cell in pair]
        faster = [r.throughput for r in result.ratios if (r.engine, r.precision, r.batch) == (engine, precision, batch)]
        shown = _ratio(faster[0]) if faster else ""
        table.add_row(str(batch), engine, precision, *map(_milliseconds, pair), *speeds, shown)
    return table


def _rows(result: Benchmark) -> Iterator[tuple[int, str, str, dict[str, Timing]]]:
    rows: dict[tuple[int, str, str], dict[str, Timing]] = {}
    for each in result.timings:
        rows.setdefault((each.batch, each.engine, each.precision), {})[each.network] = each
    for (batch, engine, precision), cells in rows.items():
        yield batch, engine, precision, cells


def _milliseconds(cell: Timing | None) -> str:
    return f"{cell.median_ms:.3g} ({cell.p95_ms:.3g})" if cell else ""


def _ratio(value: Value) -> str:
    return f"{ratio(value.value)} ({value.low:.3g}-{value.high:.3g})"


def footprints_table(result: Benchmark) -> Table:
    """Show the bytes of the files that each engine reads, and the peak memory of a process that answers a batch."""
    names = ["engine", "file: original", "compressed", "smaller", "peak memory: original", "compressed"]
    table = empty("", names)
    if known := any(each.peak is not None for each in result.footprints):
        batch = max(result.settings.batches)
        table.caption, table.caption_justify = (
            f"peak memory of a process, and what the network added; batch {batch}",
            "left",
        )
    for engine in dict.fromkeys(each.engine for each in result.footprints):
        by_name = {each.network: each for each in result.footprints if each.engine == engine}
        pair = [by_name.get(name) for name in (ORIGINAL, COMPRESSED)]
        files = [compact(each.file, "B") if each else "" for each in pair]
        smaller = ratio(pair[0].file / pair[1].file) if pair[0] and pair[1] else ""
        table.add_row(engine, *files, smaller, *(_peak(each) if known else "" for each in pair))
    return table


def _peak(each: Footprint | None) -> str:
    if each is None or each.peak is None or each.growth is None:
        return ""
    return f"{compact(each.peak, 'B')} (+ {compact(each.growth, 'B')})"


def exits_line(result: Benchmark) -> str:
    """Say where the images left that were timed, or '' where no network has exits."""
    found = {each.network: each.shares for each in result.timings if len(each.shares) > 1}
    parts = [f"{name}: {_shares(shares, (result.experts or {}).get(name, ()))}" for name, shares in found.items()]
    return f"images that left at each head, % - {'; '.join(parts)}" if parts else ""


def _shares(shares: Sequence[float], experts: Sequence[int]) -> str:
    """List the percents of a network's heads; those of a mixture by expert."""
    if not experts:
        return ", ".join(f"{100 * share:.1f}" for share in shares)
    ends = list(accumulate(experts))
    parts = (shares[end - count : end] for end, count in zip(ends, experts, strict=True))
    return " | ".join(f"expert {i} {_shares(part, ())}" for i, part in enumerate(parts))


def machine_line(result: Benchmark) -> str:
    """Name the machine, what matters of its processor, and the versions."""
    here = result.machine
    versions = ", ".join(f"{name} {version}" for name, version in here.versions.items() if version != "not installed")
    load = "" if here.load is None else f", load {here.load:g}"
    flags = " ".join(here.flags)
    return f"{here.cpu}, {result.threads} threads of {here.cores} cores{load}; {flags}; {versions}"


def show(result: Benchmark, folder: Path) -> None:
    """Print the tables and what was left out, and draw the chart into `folder` where matplotlib is installed."""
    shown = console()
    for line in (*result.skipped, machine_line(result)):
        shown.print(line, soft_wrap=True, markup=False)
    shown.print(times_table(result))
    shown.print(footprints_table(result))
    if line := exits_line(result):
        shown.print(line, soft_wrap=True)
    if len(result.networks) == 1:
        shown.print("timed alone: it is an original, or has no record of one; bench.original=FOLDER compares it")
    if not draw(result, folder):
        shown.print("no chart: it needs the package matplotlib: pip install 'compressor[figures]'", markup=False)
