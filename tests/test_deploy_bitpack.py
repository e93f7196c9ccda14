"""Integers in as few bits as they need."""

import tracemalloc

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.deploy import bitpack
from compressor.deploy.bitpack import pack, pack_widths, packed_bytes, top, unpack, unpack_widths
from compressor.errors import ModelError


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw the bits of some channels, 0 to 8, and integers (channels, each) that fit."""
    channels, each = draw(st.integers(1, 9)), draw(st.integers(1, 21))
    bits = draw(arrays.arrays(np.uint8, channels, elements=st.integers(0, 8)))
    ratio = draw(arrays.arrays(np.float64, (channels, each), elements=st.floats(-1, 1)))
    most = np.array([top(width) for width in bits])[:, None]
    integers = np.rint(ratio * most).astype(np.int8)
    integers[bits == 1] = np.where(ratio[bits == 1] < 0, -1, 1)
    return integers, bits


def plainly(integers: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pack as the format is described, one integer after another."""
    digits = []
    for width in range(1, 9):
        for value in integers[bits == width].ravel().tolist():
            code = (value + 1) // 2 if width == 1 else value + top(width)
            digits += [code >> place & 1 for place in range(width)]
    return np.packbits(np.array(digits, np.uint8), bitorder="little")


class TestBits:
    @pytest.mark.parametrize("chunk", [1, 3, 8, 2**16])
    @given(layers())
    def test_bytes_are_as_described_however_much_is_packed_at_once(self, chunk, layer):
        integers, bits = layer
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bitpack, "CHUNK", chunk)
            data = pack(integers, bits)
            np.testing.assert_array_equal(data, plainly(integers, bits))
            np.testing.assert_array_equal(unpack(data, bits, integers.shape[1]), integers)

    def test_a_large_layer_takes_a_few_bytes_an_integer_while_it_is_packed_and_read(self):
        integers, bits = np.zeros((64, 2**15), np.int8), np.repeat(np.arange(1, 9, dtype=np.uint8), 8)
        integers[:8] = 1
        tracemalloc.start()
        try:
            data = pack(integers, bits)
            unpack(data, bits, integers.shape[1])
            assert tracemalloc.get_traced_memory()[1] < 3 * integers.size
        finally:
            tracemalloc.stop()

    @given(layers())
    def test_integers_of_any_widths_come_back(self, layer):
        integers, bits = layer
        data = pack(integers, bits)
        assert data.dtype == np.uint8
        assert (
            len(data) == packed_bytes(bits, integers.shape[1]) == -(-int(bits.sum(dtype=int)) * integers.shape[1] // 8)
        )
        np.testing.assert_array_equal(unpack(data, bits, integers.shape[1]), integers)

    @pytest.mark.parametrize("bits", range(1, 9))
    def test_the_whole_grid_of_every_width_comes_back(self, bits):
        grid = np.arange(-top(bits), top(bits) + 1, dtype=np.int8)
        grid = grid[grid != 0] if bits == 1 else grid
        widths = np.array([bits], np.uint8)
        data = pack(grid[None], widths)
        assert len(data) == -(-len(grid) * bits // 8)
        np.testing.assert_array_equal(unpack(data, widths, len(grid))[0], grid)

    def test_channels_of_no_bits_take_nothing(self):
        none = np.zeros(5, np.uint8)
        assert len(pack(np.zeros((5, 9), np.int8), none)) == 0
        np.testing.assert_array_equal(unpack(np.empty(0, np.uint8), none, 9), np.zeros((5, 9)))

    @pytest.mark.parametrize(("value", "bits"), [(2, 2), (-4, 3), (1, 0), (0, 1), (-128, 8)])
    def test_an_integer_beyond_its_bits_is_refused(self, value, bits):
        with pytest.raises(ModelError, match=f"does not fit in {bits} bits"):
            pack(np.array([[value]], np.int8), np.array([bits], np.uint8))

    @given(layers(), st.data())
    def test_bytes_too_few_or_too_many_are_refused(self, layer, data):
        integers, bits = layer
        packed = pack(integers, bits)
        length = data.draw(st.integers(0, len(packed) + 3).filter(lambda n: n != len(packed)))
        with pytest.raises(ModelError, match="bytes of integers"):
            unpack(np.resize(packed, length) if len(packed) else np.zeros(length, np.uint8), bits, integers.shape[1])

    @pytest.mark.parametrize("bits", range(2, 9))
    def test_the_code_that_no_integer_has_is_refused(self, bits):
        codes = np.full(bits, 255, np.uint8)  # eight integers with every bit set
        with pytest.raises(ModelError, match=f"beyond {bits} bits"):
            unpack(codes, np.array([bits], np.uint8), 8)

    def test_bits_after_the_last_integer_are_refused(self):
        with pytest.raises(ModelError, match="more than its integers"):
            unpack(np.array([128], np.uint8), np.array([2], np.uint8), 3)

    @given(arrays.arrays(np.uint8, st.integers(1, 40), elements=st.integers(0, 8)))
    def test_widths_come_back_from_half_a_byte_each(self, bits):
        data = pack_widths(bits)
        assert len(data) == -(-len(bits) // 2)
        np.testing.assert_array_equal(unpack_widths(data, len(bits)), bits)
