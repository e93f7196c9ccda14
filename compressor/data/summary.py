"""What was read of a data set and what was not, in one line."""

from collections.abc import Iterable, Mapping

from compressor.arch import TaskKind
from compressor.data.sources import RANGES
from compressor.data.types import Data
from compressor.naming import printable

NAMED = 3
"""How many names are shown of what was left out for one reason."""

UNREADABLE = "that cannot be read"
OVER_LIMIT = "over dataset.limit"


def summary(data: Data) -> str:
    """Return a line: images, classes, what was left out and why, and how many images did not have 8-bit pixels."""
    sizes = {part: len(getattr(data, part)) for part in ("train", "val", "test")}
    parts = ", ".join(f"{size} {part}" for part, size in sizes.items())
    line = f"{printable(data.name)}: {sum(sizes.values())} images ({parts}) of {_asked(data)}; "
    return line + "; ".join(filter(None, (left_out(data.left_out), converted(data.converted))))


def left_out(counts: Mapping[tuple[str, str], int]) -> str:
    """Return how much was left out for each reason; `counts` is by reason and name, '' where nothing is to be named."""
    reasons: dict[str, dict[str, int]] = {}
    for (reason, name), count in counts.items():
        reasons.setdefault(reason, {})[name] = count
    said = [f"{sum(names.values())} {reason}{_named(names)}" for reason, names in reasons.items()]
    return f"left out: {', '.join(said)}" if said else "nothing left out"


def converted(counts: Mapping[str, int]) -> str:
    """Return how many images were converted to 8 bits from each other kind of pixels, or ''."""
    said = [f"{count} of {kind} pixels ({RANGES[kind]})" for kind, count in counts.items()]
    return f"converted to 8 bits: {', '.join(said)}" if said else ""


def _named(names: Mapping[str, int]) -> str:
    shown = sorted((name for name in names if name), key=lambda name: (-names[name], name))
    if not shown:
        return ""
    more = [f"{len(shown) - NAMED} more names"] if len(shown) > NAMED else []
    return f" ({', '.join([*_counted(shown[:NAMED], names), *more])})"


def _counted(shown: Iterable[str], names: Mapping[str, int]) -> list[str]:
    return [printable(name) + (f" {names[name]}" if names[name] > 1 else "") for name in shown]


def _asked(data: Data) -> str:
    nouns = {TaskKind.REGRESSION: ("target", "targets"), TaskKind.MULTILABEL: ("label", "labels")}
    one, many = nouns.get(data.task.kind, ("class", "classes"))
    return f"{data.task.outputs} {one if data.task.outputs == 1 else many}"
