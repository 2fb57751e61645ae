import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmmas_schema.errors import ProtocolError
from strategies.sparsification import count_kept, largest, read_bitmap, write_bitmap

values = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=3, max_side=6),
    elements=st.one_of(st.floats(-10, 10, width=32), st.sampled_from([0.0, 1.0, -1.0])),
)


@given(values, st.floats(0.01, 0.99))
def test_exactly_k_are_kept_and_none_that_is_left_out_is_larger(value, share):
    count = count_kept(value.size, share)
    mask = largest(value, count=count)
    assert mask.shape == (value.size,)
    assert np.count_nonzero(mask) == count >= 1
    magnitude = np.abs(value).reshape(-1)
    assert magnitude[mask].min() >= magnitude[~mask].max(initial=0)


def test_of_equal_ones_the_first_are_kept():
    value = np.array([[1, -2], [2, 2], [0, -2]], np.float32)
    assert np.flatnonzero(largest(value, count=2)).tolist() == [1, 2]


@given(hnp.arrays(np.bool_, st.integers(0, 40)))
def test_a_bitmap_brings_its_mask_back(mask):
    data = np.frombuffer(write_bitmap(mask), np.uint8)
    assert data.size == -(-mask.size // 8)
    np.testing.assert_array_equal(read_bitmap(data, size=mask.size, count=int(mask.sum())), mask)


@pytest.mark.parametrize(("byte", "count"), [(0b11000000, 1), (0b11000000, 3), (0b11000001, 3), (0b10000001, 1), (0, 1)])
def test_a_bitmap_of_other_counts_or_with_bits_beyond_its_end_is_refused(byte, count):
    with pytest.raises(ProtocolError, match="bitmap"):
        read_bitmap(np.array([byte], np.uint8), size=7, count=count)
