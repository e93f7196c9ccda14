"""How long layers take: a table of what was measured, read by widths. Nothing here imports torch or a runtime."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

Grid = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Timing:
    """What one layer takes: nanoseconds (into, out) at some numbers of channels read and written, each rising."""

    into: tuple[int, ...]
    out: tuple[int, ...]
    nanoseconds: Grid


@dataclass(frozen=True)
class Table:
    """What each layer takes for an image, and `base` nanoseconds for all that is not in a layer."""

    layers: dict[str, Timing]
    base: int

    def __hash__(self) -> int:
        return id(self)

    def nanoseconds(self, layer: str, into: int, out: int) -> int:
        """Give what a layer takes that reads and writes so many channels, between what was measured.

        More channels never take less.
        """
        return _between(self, layer, into, out)


@lru_cache(maxsize=1 << 18)
def _between(table: Table, layer: str, into: int, out: int) -> int:
    timing = table.layers[layer]
    (i, right), (j, down) = _place(timing.into, into), _place(timing.out, out)
    rows = timing.nanoseconds
    ends = [
        rows[a][j] + (rows[a][min(j + 1, len(timing.out) - 1)] - rows[a][j]) * down
        for a in (i, min(i + 1, len(rows) - 1))
    ]
    return round(ends[0] + (ends[1] - ends[0]) * right)


def _place(points: tuple[int, ...], value: int) -> tuple[int, float]:
    """Give the point at or below a value, and how far towards the next one it is, 0 at the ends."""
    i = max(0, bisect_right(points, value) - 1)
    if i == len(points) - 1 or value <= points[0]:
        return i, 0.0
    return i, (value - points[i]) / (points[i + 1] - points[i])
