"""What is wrong with how a command ended, given a changed file; and the table of it."""

import re
from collections import Counter
from dataclasses import dataclass, field

from fuzzing.trying import BLOWN, Ended

FAULTS = ("traceback", "wrong exit code", "silent acceptance", "blow-up", "hang", "unclear")
"""Kinds of faults; `unclear`: a refusal of more than one line, or control characters in what is printed."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")

SAID = re.compile("damaged|was changed|cannot be resumed|cannot be read|is not what")
"""What a command says of a file that it knows to be changed, where it goes on without it."""


@dataclass
class Row:
    """What came of the tries of a kind: their number, how many were refused and accepted, and the faults."""

    tries: int = 0
    refused: int = 0
    same: int = 0
    faults: Counter[str] = field(default_factory=Counter)


def faults_of(
    ended: Ended, before: Ended, codes: tuple[int, ...], base: int, *, covered: bool, hung: bool
) -> list[str]:
    """List the kinds of faults.

    Args:
        ended: how the command ended.
        before: how it ends with the original file.
        codes: the exit codes that are right.
        base: bytes of memory that a child has before it begins.
        covered: whether a change of the file may change nothing that is printed.
        hung: whether it was killed as it went on for too long.
    """
    if hung:
        return ["hang"]
    found = []
    if "Traceback (most recent call last)" in ended.err + ended.out:
        found.append("traceback")
    elif ended.code not in codes:
        found.append("wrong exit code")
    other = covered and ended.code == 0 and ended.numbers != before.numbers
    if (other and not SAID.search(ended.out + ended.err)) or ended.owned:
        found.append("silent acceptance")
    if ended.memory - base > BLOWN or "MemoryError" in ended.err:
        found.append("blow-up")
    refusal = [line for line in ended.err.splitlines() if line.startswith("compressor: ")]
    told = len(refusal) == 1 and ended.err.count("\n") <= 3
    if not found and ((ended.code == 2 and not told) or CONTROL.search(ended.out + ended.err)):
        found.append("unclear")
    return found


def difference(ended: Ended, before: Ended) -> str:
    """Say where what is printed begins to differ, and how many words are other ones."""
    new, old = ended.numbers.split(), before.numbers.split()
    at = next((i for i, pair in enumerate(zip(new, old, strict=False)) if pair[0] != pair[1]), min(len(new), len(old)))
    return f"word {at}: {' '.join(new[at : at + 8])!r} instead of {' '.join(old[at : at + 8])!r}"


def table(rows: dict[str, Row]) -> str:
    """Give the table of all kinds, with their sum."""
    heads = ("tries", "refused", "as before", *FAULTS)
    whole = Row()
    for row in rows.values():
        whole.tries += row.tries
        whole.refused += row.refused
        whole.same += row.same
        whole.faults.update(row.faults)
    first = max(map(len, [*rows, "file"]))
    lines = [f"{'file':{first}}  " + "  ".join(heads)]
    for name, row in [*rows.items(), ("all", whole)]:
        cells = (row.tries, row.refused, row.same, *(row.faults[fault] for fault in FAULTS))
        shown = (f"{cell:>{len(head)}}" for cell, head in zip(cells, heads, strict=True))
        lines.append(f"{name:{first}}  " + "  ".join(shown))
    return "\n".join(lines)
