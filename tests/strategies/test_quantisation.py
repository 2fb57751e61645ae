import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmmas_schema.errors import ProtocolError
from strategies.quantisation import LARGEST_SCALE, LEVELS, SMALLEST_SCALE, channels_of, dequantise, quantise

LARGEST = float(np.finfo(np.float32).max)
finite_tensors = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4),
    elements=st.one_of(
        st.floats(-1, 1, width=32, allow_subnormal=True), st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
    ),
)


def there_and_back(value):
    codes, scales = quantise(value)
    return dequantise(codes, scales, shape=value.shape), scales


@given(finite_tensors)
def test_no_value_moves_by_more_than_half_a_step_of_its_channel(value):
    found, scales = there_and_back(value)
    bound = scales.astype(np.float64).reshape(-1, *[1] * max(value.ndim - 1, 0)) * (0.5 + 2.0**-15)
    assert found.shape == value.shape
    assert found.dtype == np.float32
    assert (np.abs(found.astype(np.float64) - value) <= (bound if value.ndim > 1 else bound.reshape(()))).all()


@given(finite_tensors)
def test_no_sign_turns_and_zero_stays(value):
    found, _ = there_and_back(value)
    assert (found[value == 0] == 0).all()
    assert (found * np.sign(value) >= 0).all()


@given(finite_tensors)
def test_the_same_values_give_the_same_bytes_and_a_second_time_loses_nothing(value):
    first, again = quantise(value), quantise(np.asfortranarray(value))
    assert [part.tobytes() for part in first] == [part.tobytes() for part in again]
    found, scales = there_and_back(value)
    twice, _ = there_and_back(found)
    np.testing.assert_allclose(twice, found, rtol=1e-6, atol=float(scales.max()) * 1e-3)


def test_each_channel_has_a_step_of_its_own():
    value = np.array([[1.0, -0.5], [1e-3, 2e-4]], np.float32)
    found, scales = there_and_back(value)
    np.testing.assert_allclose(scales * LEVELS, [1.0, 1e-3], rtol=1e-6)
    np.testing.assert_allclose(found, value, rtol=0.02)
    assert channels_of((2, 3, 3)) == 2
    assert channels_of((5,)) == channels_of(()) == 1


def test_halves_go_to_the_even_code():
    value = np.array([127, 0.5, 1.5, -2.5], np.float32)
    assert quantise(value)[0].tolist() == [127, 0, 2, -2]


@pytest.mark.parametrize("peak", [LARGEST, -LARGEST, 1e-45, 2.0**-126, 1e-40, 0.0])
def test_extremes_stay_finite_and_within_half_a_step(peak):
    found, scales = there_and_back(np.array([peak, peak / 3, 0], np.float32))
    assert np.isfinite(found).all()
    assert abs(float(found[0]) - peak) <= scales[0] * 0.51
    assert SMALLEST_SCALE <= scales[0] <= LARGEST_SCALE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ProtocolError, match="not finite"):
        quantise(np.array([1, bad], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1, 0, 1e-45, LARGEST])
def test_a_scale_that_nobody_makes_is_refused(bad):
    with pytest.raises(ProtocolError, match="scale"):
        dequantise(np.ones(2, np.int8), np.array([bad], np.float32), shape=(2,))


def test_a_code_that_nobody_makes_is_refused():
    with pytest.raises(ProtocolError, match="no code"):
        dequantise(np.array([0, -128], np.int8), np.ones(1, np.float32), shape=(2,))
