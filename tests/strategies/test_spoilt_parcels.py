"""A parcel in all four forms, spoilt at random: it is read or refused, and takes no more memory than it may."""

import copy
import io
import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.errors import ProtocolError
from strategies.codec import TENSORS, Parcel, pack_tensors, unpack_tensors
from strategies.encoding import Precision, Segment
from tests.strategies.arrays import npy

FORMS = {"a.f4": Precision(), "a.f2": Precision("f2"), "a.i1": Precision("i1"), "a.s1": Precision("i1", top_k=0.2)}


def mixed_parcel():
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=(3, 5, 4)).astype(np.float32) for name in FORMS}
    return pack_tensors(tensors, precision_of=FORMS.__getitem__)


MIXED = mixed_parcel()
LINES = json.loads(MIXED.index)
NUMBERS = st.one_of(st.integers(-3, 130), st.sampled_from([2**31, 2**63, 2**64, -(2**63)]), st.floats(), st.none())


def read_or_refuse(parcel):
    """Return tensors that are all an index may promise, or None where they are refused."""
    try:
        tensors = unpack_tensors(parcel, limit=1000)
    except ProtocolError:
        return None
    assert sum(value.size for value in tensors.values()) <= 1000
    assert all(value.dtype == np.float32 and not value.flags.writeable for value in tensors.values())
    return tensors


def test_all_four_forms_are_in_the_parcel_that_is_spoilt():
    assert [line[2] for line in LINES] == ["f4", "f2", "i1", "s1"]
    assert set(read_or_refuse(MIXED)) == set(FORMS)


@given(st.data())
def test_bytes_that_were_changed_cut_or_lengthened_are_read_or_refused(data):
    """The declared shape follows the lie, so that the codec itself has to find out."""
    array = MIXED.arrays[TENSORS]
    body = bytearray(np.load(io.BytesIO(array.data)).tobytes())
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=20)):
        body[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xC0, 0xFF]))
    body = body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body + data.draw(st.binary(max_size=3))
    raw = np.frombuffer(bytes(body), np.uint8)
    tensors = read_or_refuse(Parcel(ArrayRecord({TENSORS: Array("uint8", raw.shape, "numpy.ndarray", npy(raw))}), MIXED.index))
    if tensors is not None:
        assert raw.size == sum(Segment(*line).length_bytes for line in LINES)
        assert all(np.isfinite(tensors[name]).all() for name in FORMS if name != "a.f4")


@given(st.data())
def test_an_index_that_lies_is_read_or_refused_before_memory_is_taken(data):
    lines = copy.deepcopy(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        line = data.draw(st.sampled_from(lines))
        kind = data.draw(st.sampled_from(["shape", "form", "kept", "name", "drop"]))
        if kind == "shape":
            line[1] = data.draw(st.lists(NUMBERS, max_size=4))
        elif kind == "form":
            line[2] = data.draw(st.sampled_from(["f4", "f2", "i1", "s1", "O", "", None]))
        elif kind == "kept":
            line[3] = data.draw(NUMBERS)
        elif kind == "name":
            line[0] = data.draw(st.one_of(st.sampled_from(list(FORMS)), st.text(), st.none()))
        elif len(lines) > 1:
            lines.remove(line)
    read_or_refuse(Parcel(MIXED.arrays, json.dumps(lines)))


@given(st.text())
def test_an_index_of_any_text_is_refused(text):
    assert read_or_refuse(Parcel(MIXED.arrays, text)) is None


def test_a_few_bytes_cannot_ask_for_much_memory():
    """A bitmap is 32 times smaller than what it stands for."""
    size = 8 * 1000
    body = np.zeros(4 + size // 8 + 1, np.uint8)
    body[:4] = np.ones(1, np.float32).view(np.uint8)
    body[4], body[-1] = 0x80, 5
    array = Array("uint8", body.shape, "numpy.ndarray", npy(body))
    parcel = Parcel(ArrayRecord({TENSORS: array}), f'[["a",[{size}],"s1",1]]')
    value = unpack_tensors(parcel, limit=size)["a"]
    assert (np.count_nonzero(value), value[0]) == (1, 5)
    with pytest.raises(ProtocolError, match="cannot be read"):
        unpack_tensors(parcel, limit=size - 1)
