"""A whole bias that was found gives the number that the real one gives, for every sum that can occur."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.deploy.nodes import Grid, Kind, Layer
from compressor.deploy.thresholds import ROOM, largest_factors, settle

READS = Grid(0.1, 0, 15, 4)


def layer(bits: int, seed: int, *, channels: int = 6, fan: int = 24) -> Layer:
    """Give a layer of random integers whose outputs spread over about twice the grid."""
    source = np.random.default_rng(seed)
    top = max(1, 2 ** (bits - 1) - 1)
    weight = source.integers(-top, top + 1, (channels, fan)).astype(np.int8)
    scale = source.uniform(0.5, 1.5, channels).astype(np.float32) / (top * fan**0.5)
    bias = source.normal(0, 1, channels).astype(np.float32)
    return Layer("fc", ("x",), "y", Kind.LINEAR, weight, scale, np.full(channels, bits, np.uint8), bias)


def every_sum(channel: np.ndarray, reads: Grid) -> np.ndarray:
    low, high = channel.astype(int) * reads.low, channel.astype(int) * reads.high
    return np.arange(np.minimum(low, high).sum(), np.maximum(low, high).sum() + 1)


def assert_exact(of: Layer, reads: Grid, gives: Grid) -> None:
    settled = settle(of, reads, gives)
    assert settled is not None
    assert of.scale is not None
    for c, channel in enumerate(of.weight):
        sums = every_sum(channel, reads)
        real = sums * (float(of.scale[c]) * reads.scale / gives.scale) + float(of.bias[c]) / gives.scale
        want = np.clip(np.rint(real), gives.low, gives.high)
        whole = (sums * settled.factor[c] + settled.bias[c]).astype(np.int32)
        found = np.rint(whole.astype(np.float32) * np.float32(settled.step[c]))
        np.testing.assert_array_equal(np.clip(found, gives.low, gives.high), want)


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 4]), st.sampled_from([2, 3, 4]), st.booleans())
def test_few_bits_are_settled_exactly(seed, bits, act, signed):
    low, high = (-(2 ** (act - 1)), 2 ** (act - 1) - 1) if signed else (0, 2**act - 1)
    assert_exact(layer(bits, seed), READS, Grid(2.0 / high, low, high, act))


@pytest.mark.parametrize("scale", [0.0, 1e-12])
@pytest.mark.parametrize("bias", [-3.0, 0.0, 1.3, 100.0])
def test_channels_whose_sums_hardly_count_are_constant(scale, bias):
    of = layer(4, 0)
    assert of.scale is not None
    constant = replace(of, scale=np.full_like(of.bias, scale), bias=np.full_like(of.bias, bias))
    assert_exact(constant, READS, Grid(0.2, 0, 15, 4))


def test_what_no_whole_bias_gives_is_not_settled():
    assert settle(layer(8, 0, fan=200), Grid(0.01, 0, 255, 8), Grid(0.013, 0, 255, 8)) is None


@given(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8]), st.sampled_from([3, 15, 63, 255]))
def test_factors_keep_integers_in_8_bits_and_pairs_of_products_in_16(bits, high):
    of = layer(bits, 1)
    factors = largest_factors(of, Grid(0.1, 0, high, 8))
    top = np.abs(of.weight.astype(int)).max(axis=1)
    assert (factors >= 1).all()
    assert (factors * top <= 127).all()
    assert ((factors == 1) | (2 * factors * top * high <= ROOM)).all()
