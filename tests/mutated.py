"""Seeded changes of files: what discs, downloads, other programs and attackers do to them."""

import json
import os
import random
import struct
from pathlib import Path
from typing import Any

ODD = (0, 1, -1, 2**31, 2**63, 10**30, 0.5, 1e-40, 1e300, float("nan"), float("inf"), True, None, "", "pad", "\x1b[31m")
ODD = (*ODD, "x" * 10_000, [], [[]], {}, {"": 0}, [1] * 1000)
STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY", b"<html>", b"version https://git-lfs", b"\x08\x07\x12", b"\0" * 8)


def changed(data: bytes, source: random.Random) -> bytes:
    """Return the bytes with one to three random changes."""
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        data = _once(data, source)
    return data


def _once(data: bytes, source: random.Random) -> bytes:
    place, size = source.randrange(len(data) + 1), len(data)
    if source.random() < 0.5:  # most of what is delicate lies at the ends
        place = source.choice((min(size, source.randrange(600)), max(0, size - source.randrange(600))))
    run = source.choice((1, 4, 8, 60))
    head, tail = data[:place], data[place + run :]
    match source.randrange(10):
        case 0:
            return head
        case 1:
            return head + data[place + run :]
        case 2:
            return head + source.randbytes(run) + data[place:]
        case 3:
            return head + bytes(run) + tail
        case 4:
            return head + b"\xff" * run + tail
        case 5:
            return head + struct.pack("<Q", source.choice((2**31, 2**40, 2**62, 2**64 - 1))) + data[place + 8 :]
        case 6:
            return source.choice(STARTS) + data[place:]
        case 7:
            return head + data[place : place + 200] + data[place:]
    byte = data[place : place + 1] or b"\0"
    return head + bytes([byte[0] ^ 1 << source.randrange(8)]) + data[place + 1 :]


def changed_json(data: bytes, source: random.Random) -> bytes:
    """Return a JSON text with a random value changed, taken away or added, or what other programs write."""
    kind = source.randrange(12)
    if kind == 0:
        return b"\xef\xbb\xbf" + data
    if kind == 1:
        return b"[" * 700 + b"]" * 700
    if kind == 2:
        return changed(data, source)
    content = json.loads(data)
    inside, key = source.choice(_places(content))
    if kind == 3:
        del inside[key]
    elif kind == 4 and isinstance(inside, dict):
        inside[source.choice(("new", "\x1b]0;x\x07", "__class__"))] = source.choice(ODD)
    elif isinstance(inside[key], int | float) and source.random() < 0.5:
        inside[key] = source.choice((inside[key] + 1, -inside[key], inside[key] * 2, inside[key] * 1000))
    else:
        inside[key] = source.choice(ODD)
    return json.dumps(content).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((value, key), *_places(item))]


def replace_by_oddity(path: Path, source: random.Random) -> None:
    """Put what is no file, or one of another size, in a file's place."""
    content = path.read_bytes()
    path.unlink()
    match source.randrange(6):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to("/dev/zero")
        case 3:
            path.symlink_to(path.name)
        case 4:
            path.write_bytes(content)
            os.truncate(path, 3 * 2**30)
        case 5:
            path.write_bytes(b"")
