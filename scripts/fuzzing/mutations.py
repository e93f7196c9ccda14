"""Changes of a file, chosen at random: of its bytes, of what it is, and of the JSON or text in it."""

import json
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing.trying import OWNED

Change = tuple[str, Callable[[Path], None]]
"""What a change is, and what makes it."""

SPARSE = 3 * 2**30
WORDS = (
    "",
    "x" * 100_000,
    "[red]no[/red]",
    "[/]",
    "\x1b[31m\x1b]0;title\x07",
    "../../x",
    "/etc/passwd",
    "a\nb\r\nc",
    "\x00",
    "${oc.env:HOME}",
    "e\u0301\u202e\u2028",
    "\ud800",
)
NUMBERS = (
    0,
    -1,
    1,
    2,
    10**400,
    2**31,
    2**63,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    -float("inf"),
    0.5,
    True,
    None,
)
BOMB = b"\x80\x02Nr\xff\xff\xff\x0f."
"""A pickle of few bytes whose index asks for gigabytes."""


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {OWNED}",)


def change_of(path: Path, others: list[Path], rng: random.Random) -> Change:
    """Choose a change for a file, which is an original; `others` are other files of its kind."""
    content = path.read_bytes()
    forms = [_flip, _flip, _flip, _cut, _zeros, _grown, _doubled, _bytes]
    if path.suffix in (".json", ".jsonl") and content.strip():
        forms = [_json] * 8 + [_flip, _cut, _deep, _bom, _grown]
    elif path.suffix in (".csv", ".yaml", ".part") or path.suffix == ".xml":
        forms = [_text] * 5 + [_flip, _cut, _bom, _grown, _zeros]
    elif path.suffix in (".pt", ".pth") or "batch" in path.name:
        forms += [_pickle] * 3
    elif path.suffix in (".safetensors", ".npy", ".packed"):
        forms += [_head] * 4
    if rng.random() < 0.12:
        return _kind(path, others, rng)
    name, changed = rng.choice(forms)(content, path, rng)
    return name, lambda target: _replace(target, changed)


def _replace(target: Path, content: bytes) -> None:
    target.unlink()
    target.write_bytes(content)


Made = tuple[str, bytes]


def _flip(content: bytes, path: Path, rng: random.Random) -> Made:
    if not content:
        return "a byte in an empty file", b"\x00"
    at, bit = rng.randrange(len(content)), rng.randrange(8)
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return f"bit {bit} of byte {at} flipped", bytes(changed)


def _cut(content: bytes, path: Path, rng: random.Random) -> Made:
    size = rng.choice([0, 1, 8, len(content) // 2, max(0, len(content) - 1), rng.randrange(len(content) + 1)])
    return f"cut to {size} bytes", content[:size]


def _zeros(content: bytes, path: Path, rng: random.Random) -> Made:
    at, size = rng.randrange(len(content) + 1), rng.choice([1, 16, 512, 4096])
    return f"{size} zeros at {at}", content[:at] + bytes(len(content[at : at + size])) + content[at + size :]


def _grown(content: bytes, path: Path, rng: random.Random) -> Made:
    size = rng.choice([1, 100, 5000])
    return f"{size} random bytes behind", content + rng.randbytes(size)


def _doubled(content: bytes, path: Path, rng: random.Random) -> Made:
    at, size = rng.randrange(len(content) + 1), rng.choice([1, 64, 4096])
    return f"{size} bytes at {at} doubled", content[:at] + content[at : at + size] + content[at:]


def _bytes(content: bytes, path: Path, rng: random.Random) -> Made:
    return "random bytes instead", rng.randbytes(min(len(content) + 1, 10_000))


def _head(content: bytes, path: Path, rng: random.Random) -> Made:
    """Change the first bytes, where lengths and shapes stand."""
    at = rng.randrange(min(128, max(1, len(content))))
    if rng.random() < 0.4:
        huge = struct.pack("<Q", rng.choice([2**62, 2**40, 2**33, 0]))
        return f"a huge number at byte {at}", content[:at] + huge + content[at + 8 :]
    changed = bytes([rng.choice(b"0123456789|O<,()[]{}\"'\x00\xff")])
    return f"byte {at} of the head is {changed!r}", content[:at] + changed + content[at + 1 :]


def _pickle(content: bytes, path: Path, rng: random.Random) -> Made:
    return rng.choice(
        [
            ("a pickle that runs code", pickle.dumps({"data": _Hostile(), "conv1.weight": _Hostile()}, 2)),
            ("a pickle with a huge index", BOMB),
            ("a pickle of a list", pickle.dumps([1, 2, 3], 2)),
            ("a pickle of numbers", pickle.dumps({b"data": 1, b"labels": 2, b"label_names": None}, 2)),
        ]
    )


def _text(content: bytes, path: Path, rng: random.Random) -> Made:
    at, said = (
        rng.randrange(len(content) + 1),
        rng.choice([*WORDS, ",", '"', "nan", "inf", ":", "\t", "!!python/name:os"]),
    )
    return f"{said[:20]!r} at byte {at}", content[:at] + said.encode(errors="surrogatepass") + content[at:]


def _bom(content: bytes, path: Path, rng: random.Random) -> Made:
    return rng.choice(
        [
            ("a BOM before it", b"\xef\xbb\xbf" + content),
            ("as UTF-16", content.decode(errors="replace").encode("utf-16")),
        ]
    )


def _deep(content: bytes, path: Path, rng: random.Random) -> Made:
    depth = rng.choice([700, 100_000])
    return f"{depth} nested lists instead", b"[" * depth + b"]" * depth


def _json(content: bytes, path: Path, rng: random.Random) -> Made:
    """Change a value, a key or a list anywhere in JSON, or in one of its lines."""
    lines = content.decode().splitlines() if path.suffix == ".jsonl" else [content.decode()]
    at = rng.randrange(len(lines))
    if len(lines) > 1 and rng.random() < 0.3:
        what = rng.choice(["removed", "doubled", "cut"])
        lines[at : at + 1] = {"removed": [], "doubled": [lines[at]] * 2, "cut": [lines[at][: len(lines[at]) // 2]]}[
            what
        ]
        return f"line {at + 1} {what}", "\n".join([*lines, ""]).encode(errors="surrogatepass")
    data = json.loads(lines[at])
    holders = _holders(data, "")
    if not holders:
        return _flip(content, path, rng)
    where, holder, key = rng.choice(holders)
    name = f"{where}: {_edit(holder, key, rng)}"
    lines[at] = json.dumps(data, ensure_ascii=rng.random() < 0.5)
    return name, "\n".join(lines).encode(errors="surrogatepass") + b"\n"


def _holders(data: Any, where: str) -> list[tuple[str, Any, Any]]:
    """List every value of JSON as its name, what holds it, and its key there."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    found = []
    for key, value in pairs:
        name = f"{where}.{key}" if where else str(key)
        found += [(name, data, key), *_holders(value, name)]
    return found


def _edit(holder: Any, key: Any, rng: random.Random) -> str:
    value = holder[key]
    if rng.random() < 0.2:
        if rng.random() < 0.5:
            del holder[key]
            return "removed"
        if isinstance(holder, list):
            holder.append(value)
            return "one more"
        holder[rng.choice([*WORDS, "surplus"])] = value
        return "another key"
    if isinstance(value, int | float) and rng.random() < 0.5:
        new: Any = rng.choice([value + 1, value * 10, -value, value / 10 if value else 1])
    elif isinstance(value, str) and rng.random() < 0.4 and value:
        new = value[:-1] + ("0" if value[-1] != "0" else "1")
    else:
        new = rng.choice([*NUMBERS, *WORDS, [], {}, [value], {"x": value}])
    holder[key] = new
    return f"{str(value)[:30]!r} is {str(new)[:30]!r}" if not isinstance(new, int) else f"{value!r:.30} is {new:.3g}"


def _kind(path: Path, others: list[Path], rng: random.Random) -> Change:
    """Put something else in place of a file."""
    chosen = rng.choice(
        ["pipe", "folder", "sparse", "gone", "dangling", "device", "loop", *(["another"] * bool(others))]
    )
    other = rng.choice(others) if others else path
    content = other.read_bytes()

    def change(target: Path) -> None:
        target.unlink()
        if chosen == "pipe":
            os.mkfifo(target)
        elif chosen == "folder":
            target.mkdir()
        elif chosen == "sparse":
            target.touch()
            os.truncate(target, SPARSE)
        elif chosen in ("dangling", "device", "loop"):
            target.symlink_to({"dangling": "nowhere", "device": "/dev/zero", "loop": target.name}[chosen])
        elif chosen == "another":
            target.write_bytes(content)

    return f"{chosen} in its place" + (f" ({other.name})" if chosen == "another" else ""), change
