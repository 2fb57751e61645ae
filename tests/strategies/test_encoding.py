import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.errors import ProtocolError
from strategies.encoding import Precision, Segment, decode, encode

SHAPES = [(), (1,), (2,), (7,), (4, 1), (1, 9), (8, 4, 3, 3, 3), (0,), (3, 0), (0, 3)]
PRECISIONS = [Precision(), Precision("f2"), Precision("i1"), Precision("i1", top_k=0.1), Precision("i1", top_k=0.9)]


def make(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_length_follows_from_the_index_and_what_arrives_is_near(shape, precision):
    value = make(shape)
    segment, data = encode("a", value, precision)
    assert len(data) == segment.length_bytes <= 4 * value.size
    found = decode(segment, np.frombuffer(data, np.uint8))
    assert (found.shape, found.dtype) == (value.shape, np.float32)
    kept = found != 0 if segment.form == "s1" else np.ones(shape, bool)
    np.testing.assert_allclose(found[kept], value[kept], atol=0.02)


@pytest.mark.parametrize(
    ("shape", "precision", "form", "length"),
    [
        ((), Precision("i1"), "f4", 4),
        ((1,), Precision("i1"), "f4", 4),
        ((2,), Precision("i1"), "i1", 6),
        ((4, 1), Precision("i1"), "f4", 16),
        ((4, 27), Precision("i1"), "i1", 4 * 4 + 108),
        ((4, 27), Precision("i1", top_k=0.25), "s1", 4 * 4 + 14 + 27),
        ((4, 27), Precision("i1", top_k=0.99), "i1", 4 * 4 + 108),
        ((4, 27), Precision("f2"), "f2", 216),
        ((4, 27), Precision(), "f4", 432),
        ((0, 27), Precision("i1"), "f4", 0),
    ],
)
def test_the_form_is_the_one_that_takes_the_fewest_bytes(shape, precision, form, length):
    segment, data = encode("a", make(shape), precision)
    assert (segment.form, len(data)) == (form, length)


def test_half_precision_is_that_of_ieee_and_what_it_cannot_hold_stays():
    value = np.array([1 + 2**-11, 1 + 3 * 2**-11, 1e-9, 65504], np.float32)
    segment, data = encode("a", value, Precision("f2"))
    assert decode(segment, np.frombuffer(data, np.uint8)).tolist() == [1, 1 + 2**-9, 0, 65504]
    for large in (65505.0, 1e30):
        assert encode("a", np.array([large, 1], np.float32), Precision("f2"))[0].form == "f4"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (4, 1), (8, 4, 3)])
def test_what_is_not_finite_is_not_rounded_in_whatever_form_it_would_travel(shape, value):
    spoilt = make(shape)
    spoilt[(0,) * len(shape)] = value
    for precision in PRECISIONS[1:]:
        with pytest.raises(ProtocolError, match="not finite"):
            encode("a", spoilt, precision)
    segment, data = encode("a", spoilt)
    assert decode(segment, np.frombuffer(data, np.uint8)).tobytes() == spoilt.tobytes()


def test_of_a_sparse_tensor_the_largest_arrive_as_without_sparsity():
    value = make((4, 30))
    (dense, data), (sparse, few) = encode("a", value, Precision("i1")), encode("a", value, Precision("i1", top_k=0.2))
    full, found = (decode(s, np.frombuffer(d, np.uint8)) for s, d in ((dense, data), (sparse, few)))
    order = np.argsort(-np.abs(value).reshape(-1))
    np.testing.assert_array_equal(found.reshape(-1)[order[:24]], full.reshape(-1)[order[:24]])
    assert not found.reshape(-1)[order[24:]].any()


def test_infinity_in_half_precision_is_refused():
    segment = Segment("a", (2,), "f2")
    with pytest.raises(ProtocolError, match="not finite"):
        decode(segment, np.frombuffer(np.array([1, np.inf], "<f2").tobytes(), np.uint8))


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from(["i1", "s1", "f2"]), st.data())
def test_any_bytes_of_the_right_length_are_read_as_finite_numbers_or_refused(rows, columns, form, data):
    segment = Segment("a", (rows, columns), form, data.draw(st.integers(1, rows * columns)) if form == "s1" else 0)
    raw = np.frombuffer(data.draw(st.binary(min_size=segment.length_bytes, max_size=segment.length_bytes)), np.uint8)
    try:
        found = decode(segment, raw)
    except ProtocolError:
        return
    assert np.isfinite(found).all()
    assert found.shape == (rows, columns)
