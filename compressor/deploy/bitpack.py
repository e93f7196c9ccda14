"""Small integers in as few bits as they need: each output channel of a layer at its own width, 0 to 8 bits."""

import numpy as np

from compressor.errors import ModelError

WIDEST = 8


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
    flat = integers.reshape(len(integers), -1).astype(np.int64)
    parts = []
    for width in range(WIDEST + 1):
        chosen, most = flat[bits == width], top(width)
        if (np.abs(chosen) > most).any() or (width == 1 and (chosen == 0).any()):
            raise ModelError(f"an integer does not fit in {width} bits")
        codes = (chosen + 1) // 2 if width == 1 else chosen + most
        parts.append(((codes[..., None] >> np.arange(width)) & 1).astype(np.uint8).ravel())
    return np.packbits(np.concatenate(parts), bitorder="little")


def unpack(data: np.ndarray, bits: np.ndarray, each: int) -> np.ndarray:
    """Read what `pack` wrote: int8 (channels, each).

    Raises:
        ModelError: the bytes are too few, too many, or hold what `pack` never writes.
    """
    if len(data) != packed_bytes(bits, each):
        raise ModelError(f"has {len(data)} bytes of integers, not {packed_bytes(bits, each)}")
    stream, first = np.unpackbits(data, bitorder="little"), 0
    out = np.zeros((len(bits), each), np.int8)
    for width in range(1, WIDEST + 1):
        rows = np.flatnonzero(bits == width)
        size = len(rows) * each * width
        digits = stream[first : first + size].reshape(len(rows), each, width)
        codes = (digits.astype(np.int16) << np.arange(width, dtype=np.int16)).sum(axis=2)
        values = 2 * codes - 1 if width == 1 else codes - top(width)
        if (values > top(width)).any():
            raise ModelError(f"holds an integer beyond {width} bits")
        out[rows], first = values, first + size
    if stream[first:].any():
        raise ModelError("holds more than its integers")
    return out


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
