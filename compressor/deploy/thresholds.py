"""Integer biases that give exactly the numbers that real ones give.

Integer kernels add a whole number to a sum of products, then scale and round. A bias rounded to a whole number moves
some values over a rounding threshold, and in a deep network of few bits one such value changes the answers of some
images. But the sum is whole as well, so only the whole numbers on both sides of each threshold count; with weights
times a small factor there is nearly always a bias and a scale that put every threshold between the right two.
"""

from dataclasses import dataclass

import numpy as np

from compressor.deploy.nodes import Grid, Layer
from compressor.deploy.saturation import ROOM

MARGIN = 1e-5
"""The least relative room around a scale, so that float32 arithmetic cannot leave it."""

TRIES = 32
"""Factors tried, from the largest down."""

WINDOW = 6
"""Biases tried to either side of the rounded one, in units of the last place."""

HUGE = 1e300
"""No bound."""

EMPTY = 1024
"""What stands for one step of the output in a channel whose sum does not matter."""


@dataclass(frozen=True)
class Settled:
    """For each channel (out,): `factor` for its integer weights, `bias` in units of them, `step` in units of output.

    The output is round(step * (sums * factor + bias)), clipped to the grid.
    """

    factor: np.ndarray
    bias: np.ndarray
    step: np.ndarray


def settle(layer: Layer, reads: Grid, gives: Grid) -> Settled | None:
    """Find factors, biases and steps that give every number of `gives` exactly; None where a channel has none."""
    assert layer.scale is not None
    codes = layer.weight.reshape(len(layer.weight), -1).astype(np.int64)
    low, high = (codes * reads.low), (codes * reads.high)
    least, most = np.minimum(low, high).sum(axis=1), np.maximum(low, high).sum(axis=1)
    limits = largest_factors(layer, reads)
    slope = layer.scale.astype(np.float64) * reads.scale / gives.scale
    start = layer.bias.astype(np.float64) / gives.scale
    found = []
    for channel in range(len(codes)):
        each = _channel(slope[channel], start[channel], int(least[channel]), int(most[channel]), gives, limits[channel])
        if each is None:
            return None
        found.append(each)
    factor, bias, step = (np.array(column) for column in zip(*found, strict=True))
    return Settled(factor.astype(np.int64), bias.astype(np.int64), step)


def largest_factors(layer: Layer, reads: Grid) -> np.ndarray:
    """Give the greatest factor (out,) that keeps a channel's integers within int8, and 16-bit sums within range."""
    top = np.abs(layer.weight.reshape(len(layer.weight), -1).astype(np.int64)).max(axis=1).clip(1)
    return np.minimum(127 // top, ROOM // (2 * reads.greatest * top)).clip(1)


def _channel(
    slope: float, start: float, least: int, most: int, gives: Grid, limit: int
) -> tuple[int, int, float] | None:
    """Settle round(slope * sum + start) for whole sums from `least` to `most`."""
    halves = np.arange(gives.low, gives.high) + 0.5
    first = np.ceil((halves - start) / (slope or 1.0))  # the least sum that is above each threshold
    above, below = first <= most, first > least
    if slope == 0 or not (above & below).any():
        value = round(slope * least + start)
        return 0, min(max(value, gives.low), gives.high) * EMPTY, 1 / EMPTY
    first, factor = first.clip(least, most + 1), np.arange(max(1, limit - TRIES + 1), limit + 1)[:, None]
    bias = np.rint(start / slope * factor) + np.arange(-WINDOW, WINDOW + 1)
    shift = (bias / factor)[..., None]  # (factors, biases, 1); what follows bounds 1 / slope
    under, over = (first - 1 + shift) / halves, (first + shift) / halves
    from_ = np.where(halves > 0, np.where(below, under, 0), np.where(above, over, 0)).max(axis=-1)
    to = np.where(halves > 0, np.where(above, over, HUGE), np.where(below, under, HUGE)).min(axis=-1)
    room = np.where((to > from_) & (to < HUGE), (to - from_) / np.maximum(to + from_, 1 / HUGE), -np.inf)
    best = np.unravel_index(room.argmax(), room.shape)
    if room[best] < MARGIN or abs(bias[best]) >= 2**31:
        return None
    k = int(factor[best[0], 0])
    return k, int(bias[best]), float(2 / (from_[best] + to[best]) / k)
