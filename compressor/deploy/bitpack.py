"""Small integers in as few bits as they need: each output channel of a layer at its own width, 0 to 8 bits."""

from collections.abc import Iterator

import numpy as np

from compressor.errors import ModelError

WIDEST = 8
CHUNK = 2**16
"""Integers that are taken apart into bits at once; all else takes a byte an integer."""


def top(bits: int) -> int:
    """Give the greatest magnitude of a channel's integers: 2^(b-1)-1, 1 for one bit (-1 and +1), 0 for none."""
    return 0 if bits == 0 else max(1, 2 ** (bits - 1) - 1)


def packed_bytes(bits: np.ndarray, each: int) -> int:
    """Say how many bytes a layer takes that has `each` integers a channel; it ends on a whole byte."""
    return -(-int(bits.astype(np.int64).sum()) * each // 8)


def pack(integers: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pack integers (channels, ...) into bytes; channels of one width lie together, narrow ones first.

    An integer is stored as itself plus `top` of its width, of one bit as 0 for -1 and 1 for +1, lowest bit first.
    Channels of 0 bits must be 0 and take nothing.
    """
    flat, parts, rest = integers.reshape(len(integers), -1), [], np.empty(0, np.uint8)
    for width in range(WIDEST + 1):
        for codes in _codes(flat[bits == width].ravel(), width):
            digits = np.unpackbits(codes[:, None], axis=1, count=width, bitorder="little")
            digits = np.concatenate([rest, digits.ravel()])
            whole = len(digits) // 8 * 8
            parts.append(np.packbits(digits[:whole], bitorder="little"))
            rest = digits[whole:]
    return np.concatenate([*parts, np.packbits(rest, bitorder="little")])


def _codes(integers: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Turn integers of one width into what is stored of them, a chunk at a time."""
    most = top(width)
    for first in range(0, len(integers), CHUNK):
        chosen = integers[first : first + CHUNK].astype(np.int16)
        if (np.abs(chosen) > most).any() or (width == 1 and (chosen == 0).any()):
            raise ModelError(f"an integer does not fit in {width} bits")
        yield ((chosen + 1) // 2 if width == 1 else chosen + most).astype(np.uint8)


def unpack(data: np.ndarray, bits: np.ndarray, each: int) -> np.ndarray:
    """Read what `pack` wrote: int8 (channels, each).

    Raises:
        ModelError: the bytes are too few, too many, or hold what `pack` never writes.
    """
    if len(data) != packed_bytes(bits, each):
        raise ModelError(f"has {len(data)} bytes of integers, not {packed_bytes(bits, each)}")
    out, first = np.zeros((len(bits), each), np.int8), 0
    for width in range(1, WIDEST + 1):
        rows = np.flatnonzero(bits == width)
        found = np.empty(len(rows) * each, np.int8)
        for start in range(0, len(found), CHUNK):
            chunk = found[start : start + CHUNK]
            chunk[:] = _integers(_digits(data, first, len(chunk) * width), width)
            first += len(chunk) * width
        out[rows] = found.reshape(len(rows), each)
    if _digits(data, first, 8 * len(data) - first).any():
        raise ModelError("holds more than its integers")
    return out


def _digits(data: np.ndarray, first: int, count: int) -> np.ndarray:
    """Give `count` bits of the bytes, from bit `first` on, a byte each."""
    start = first // 8
    return np.unpackbits(data[start : -(-(first + count) // 8)], bitorder="little")[first - 8 * start :][:count]


def _integers(digits: np.ndarray, width: int) -> np.ndarray:
    codes = np.packbits(digits.reshape(-1, width), axis=1, bitorder="little")[:, 0].astype(np.int16)
    values = 2 * codes - 1 if width == 1 else codes - top(width)
    if (values > top(width)).any():
        raise ModelError(f"holds an integer beyond {width} bits")
    return values


def pack_widths(bits: np.ndarray) -> np.ndarray:
    """Pack the widths of channels, 0 to 8, two in a byte."""
    even = np.append(bits, 0) if len(bits) % 2 else bits
    return (even[0::2] | even[1::2] << 4).astype(np.uint8)


def unpack_widths(data: np.ndarray, channels: int) -> np.ndarray:
    """Read what `pack_widths` wrote."""
    bits = np.stack([data & 15, data >> 4], axis=1).ravel()
    if (bits > WIDEST).any() or bits[channels:].any():
        raise ModelError(f"holds a channel of more than {WIDEST} bits")
    return bits[:channels]
