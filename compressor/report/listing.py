"""A long table of short cells, such as that of thousands of runs: rich's own takes a millisecond a row."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

GAP = "  "
NARROWEST = 10
"""Columns that the first column gets in any case."""


class Listing:
    """A table that rich can print, whose first `left` columns hold words and the others numbers.

    It looks like those of `tables.empty`. A row None is an empty line. Where the table is wider than the console, the
    first column is folded.
    """

    def __init__(self, names: Sequence[str], rows: Sequence[Sequence[str] | None], left: int = 1) -> None:
        self.heads = [name.split("\n") for name in names]
        self.rows = [row and [_printable(cell) for cell in row] for row in rows]
        self.left = left

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Render it; called by rich."""
        widths = self._widths(options.max_width)
        total = sum(widths) + len(GAP) * (len(widths) - 1)
        bold = console.get_style("table.header")
        yield from _line(" " * total)
        depth = max(map(len, self.heads))
        for number in range(depth):
            above = [("", *head)[max(0, number - depth + len(head) + 1)] for head in self.heads]
            yield from _line(self._joined(above, widths), bold)
        yield from _line("─" * (total + 2), edges=False)
        for row in self.rows:
            for cells in self._folded(row, widths[0]):
                yield from _line(self._joined(cells, widths))
        yield from _line(" " * total)

    def _widths(self, available: int) -> list[int]:
        heads = [max(map(cell_len, head)) for head in self.heads]
        rows = [row for row in self.rows if row]
        widths = [max([head, *(cell_len(row[i]) for row in rows)]) for i, head in enumerate(heads)]
        rest = sum(widths[1:]) + len(GAP) * (len(widths) - 1) + 2
        widths[0] = min(widths[0], max(NARROWEST, heads[0], available - rest))
        return widths

    def _folded(self, row: Sequence[str] | None, width: int) -> Iterator[Sequence[str]]:
        """Give the lines of a row: more than one where its first cell does not fit."""
        if row is None:
            yield [""] * len(self.heads)
            return
        if cell_len(row[0]) <= width:
            yield row
            return
        first, *more = chop_cells(row[0], width)
        yield [first, *row[1:]]
        for part in more:
            yield [part, *[""] * (len(row) - 1)]

    def _joined(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        words = [set_cell_size(cell, width) for cell, width in zip(cells, widths, strict=True)]
        for i in range(self.left, len(cells)):
            words[i] = cells[i].rjust(widths[i])
        return GAP.join(words)


def _line(text: str, style: Style | None = None, *, edges: bool = True) -> Iterator[Segment]:
    yield Segment(f" {text} " if edges else text, style)
    yield Segment.line()


def _printable(cell: str) -> str:
    """Return a cell in which nothing moves the cursor or ends the line, whoever named what it names."""
    return cell if cell.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in cell)
