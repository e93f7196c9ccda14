"""Changes of small files, drawn with a seed: what a slip, a fault or a hostile hand makes of JSON and YAML."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

ESCAPES = "\x1b[31m[red]\r\n\x07"
Place = tuple[Any, Any]
"""A mapping or list, and the key or index of what stands there."""


def places(content: Any) -> Iterator[Place]:
    """List every place in plain JSON."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, item in list(pairs):
        yield content, key
        yield from places(item)


def _pick(content: Any, random: Random, kind: Callable[[Any], bool]) -> Place:
    return random.choice([(inside, key) for inside, key in places(content) if kind(inside[key])])


def _is_number(item: Any) -> bool:
    return type(item) in (int, float)


def number(content: Any, random: Random) -> None:
    """Change a number."""
    inside, key = _pick(content, random, _is_number)
    was = inside[key]
    inside[key] = random.choice([x for x in (was * 2, was + 1, -was, 0, was / 10, 10**18) if x != was])


def word(content: Any, random: Random) -> None:
    """Change a text, most often to one that a terminal would take for orders."""
    inside, key = _pick(content, random, lambda item: isinstance(item, str))
    was = inside[key]
    inside[key] = random.choice([was + ESCAPES, "../../" + was, was[:-1], was + "0", "[/red]", ""]) if was else ESCAPES


def renamed(content: Any, random: Random) -> None:
    """Change a key."""
    inside, key = random.choice([place for place in places(content) if isinstance(place[0], dict)])
    inside[random.choice([key + "s", ESCAPES, "x" * 3000])] = inside.pop(key)


def dropped(content: Any, random: Random) -> None:
    """Leave something out."""
    inside, key = random.choice(list(places(content)))
    del inside[key]


def added(content: Any, random: Random) -> None:
    """Say something more."""
    inside, key = random.choice(list(places(content)))
    if isinstance(inside, dict):
        inside["more"] = 1
    else:
        inside.append(inside[key])


def retyped(content: Any, random: Random) -> None:
    """Put something of another type in a place."""
    inside, key = random.choice(list(places(content)))
    was = inside[key]
    inside[key] = random.choice([x for x in (None, [], {}, "1", True, [was], 1.5) if type(x) is not type(was)])


def swapped(content: Any, random: Random) -> None:
    """Let two places of one mapping or list change their items."""
    several = [inside for inside, _ in places(content) if len(inside) > 1]
    inside = random.choice(several)
    one, other = random.sample(list(inside) if isinstance(inside, dict) else list(range(len(inside))), 2)
    inside[one], inside[other] = inside[other], inside[one]


def unchecked(content: Any, random: Random) -> None:
    """Take the check away, and be of a version that had one."""
    content.pop("check", None)


def older(content: Any, random: Random) -> None:
    """Claim to be of the first version."""
    content["schema"] = 1 if content.get("schema") != 1 else 0


CONTENT = (number, number, number, word, renamed, dropped, added, retyped, swapped, unchecked, older)
"""Changes of what is said; three of eleven are of numbers."""


def _placed(text: str, random: Random, new: str) -> str:
    """Put a text in place of a number."""
    content = json.loads(text)
    inside, key = _pick(content, random, _is_number)
    inside[key] = "@here@"
    return json.dumps(content).replace('"@here@"', new)


HOSTILE = {
    "NaN": "NaN",
    "infinity": "-Infinity",
    "overflow": "1e999",
    "digits": "9" * 5000,
    "wide": str(2**70),
    "deep": "[" * 700 + "]" * 700,
    "deeper": "[" * 90_000,
    "surrogate": '"\\ud800"',
    "twice": '{"a": 1, "a": 2}',
}
"""What stands in place of a number."""


def flipped(data: bytes, random: Random) -> bytes:
    """Flip a bit."""
    changed = bytearray(data)
    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(data: bytes, random: Random) -> bytes:
    """Lose the end."""
    return data[: random.randrange(len(data))]


def garbled(data: bytes, random: Random) -> bytes:
    """Overwrite some bytes."""
    start = random.randrange(len(data))
    return data[:start] + random.randbytes(8) + data[start + 8 :]


BYTES = {
    "flip": flipped,
    "cut": cut,
    "garble": garbled,
    "mark": lambda data, random: b"\xef\xbb\xbf" + data,
    "utf-16": lambda data, random: data.decode().encode("utf-16"),
    "empty": lambda data, random: b"",
    "zeros": lambda data, random: bytes(len(data)),
}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 2**30)


FILES: dict[str, Callable[[Path], object]] = {
    "pipe": _pipe,
    "sparse": _sparse,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("nowhere"),
}
"""What stands in place of a file."""


def mutate(path: Path, random: Random) -> str:
    """Change a file in place in one way, and return its name; a name with `number` changes a number."""
    data = path.read_bytes()
    path.unlink()
    kind = random.choice(["content"] * 6 + ["hostile"] * 2 + ["bytes"] * 3 + ["file"])
    if kind == "file":
        name = random.choice(list(FILES))
        FILES[name](path)
        return name
    if kind == "bytes" or path.suffix == ".yaml":
        name = random.choice(list(BYTES))
        path.write_bytes(BYTES[name](data, random))
        return name
    lines = data.decode().splitlines() if path.suffix == ".jsonl" else [data.decode()]
    place = random.randrange(len(lines))
    if kind == "hostile":
        name = random.choice(list(HOSTILE))
        lines[place] = _placed(lines[place], random, HOSTILE[name])
    else:
        change = random.choice(CONTENT)
        name, content = change.__name__, json.loads(lines[place])
        change(content, random)
        lines[place] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name
