import json
import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import ARRAYS, DOCUMENT, PROTOCOL_VERSION, REPORT, TASK, Action, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import Modality
from strategies.codec import (
    DIGEST,
    INDEX,
    TENSORS,
    Parcel,
    check_size,
    pack_tensors,
    read_description,
    read_digest,
    read_report,
    read_request,
    read_task,
    size_bytes,
    unpack_tensors,
    write_report,
    write_request,
)
from strategies.content_hash import hash_tensors
from strategies.encoding import Precision
from tests.strategies.arrays import npy

REQUEST = TaskRequest(action=Action.TRAIN, run="r", round=1, rounds=2, seed=3, model=ModelDefinition())
SITE_REPORT = SiteReport(site="north", run="r", round=1, model_digest="d")

any_float32 = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True),
)


@given(st.dictionaries(st.text(max_size=200), any_float32, max_size=4))
def test_any_float32_tensors_survive_bit_for_bit(tensors):
    got = unpack_tensors(pack_tensors(tensors))
    assert list(got) == list(tensors)
    for name, value in tensors.items():
        assert got[name].shape == value.shape
        assert got[name].dtype == np.float32
        assert got[name].tobytes() == value.tobytes()


def test_unpacked_tensors_share_the_messages_bytes_and_cannot_be_written():
    value = unpack_tensors(pack_tensors({"fusion.0": np.ones((4, 4), np.float32)}))["fusion.0"]
    assert not value.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        value[0, 0] = 2


def test_column_major_and_strided_tensors_arrive_in_row_order():
    value = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))[::2]
    np.testing.assert_array_equal(unpack_tensors(pack_tensors({"a": value}))["a"], value)


def test_a_message_is_few_objects_however_many_tensors():
    """Flower moves each object by a request of its own on every hop."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    tensors = {f"fusion.{number}": np.full((3,), number, np.float32) for number in range(200)}
    message = Message(write_request(REQUEST, pack_tensors(tensors)), 2, "train")
    assert len(get_all_nested_objects(message)) == 6


def test_content_survives_flowers_own_wire_form():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    tensors = {"fusion.0": np.random.default_rng(0).random((3, 5), np.float32), "uncertainty.idh": np.array(0.5, np.float32)}
    message = Message(write_request(REQUEST, pack_tensors(tensors)), 2, "train")
    contents = {identifier: part.deflate() for identifier, part in get_all_nested_objects(message).items()}
    received = inflate_object_from_contents(message.object_id, contents)
    request, arrived = read_request(received.content)
    assert request == REQUEST
    assert {name: value.tobytes() for name, value in arrived.items()} == {name: value.tobytes() for name, value in tensors.items()}


def test_reports_and_descriptions_survive():
    report, tensors = read_report(write_report(SITE_REPORT, pack_tensors({"fusion.0": np.ones(2, np.float32)})))
    assert report == SITE_REPORT
    assert list(tensors) == ["fusion.0"]
    description = SiteDescription(site="s", model_digest="d", software="1", modalities=(Modality.T1,), cases=3, labelled={})
    assert read_description(write_report(description)) == description
    assert read_report(write_report(SITE_REPORT))[1] == {}


def parcel_of(array, index='[["fusion.0",[2,3],"f4",0]]', name=TENSORS):
    return Parcel(ArrayRecord({name: array}), index)


DIGITS = "9" * 4300
"""The longest number that Python prints."""
ONES = np.ones(6, np.float32).view(np.uint8)
DATA = npy(ONES)
GOOD = Array("uint8", (24,), "numpy.ndarray", DATA)
OBJECTS = npy(np.array([{"a": 1}] * 24, dtype=object), allow_pickle=True)


def test_the_good_parcel_of_the_next_tests_is_good():
    np.testing.assert_array_equal(unpack_tensors(parcel_of(GOOD))["fusion.0"], np.ones((2, 3)))


@pytest.mark.parametrize(
    ("dtype", "shape", "stype", "data"),
    [
        ("float32", (6,), "numpy.ndarray", npy(np.ones(6, np.float32))),
        ("uint8", (6,), "numpy.ndarray", npy(np.ones(6, np.float32))),
        ("uint8", (24,), "numpy.ndarray", npy(ONES.view(np.int8))),
        ("uint8", (24,), "torch.Tensor", DATA),
        ("uint8", (23,), "numpy.ndarray", DATA),
        ("uint8", (2, 12), "numpy.ndarray", npy(ONES.reshape(2, 12))),
        ("uint8", (2, 12), "numpy.ndarray", npy(np.asfortranarray(ONES.reshape(2, 12)))),
        ("uint8", (24,), "numpy.ndarray", DATA[:-1]),
        ("uint8", (24,), "numpy.ndarray", DATA[:-4]),
        ("uint8", (24,), "numpy.ndarray", DATA + b"\0"),
        ("uint8", (24,), "numpy.ndarray", DATA[:20]),
        ("uint8", (24,), "numpy.ndarray", b""),
        ("uint8", (24,), "numpy.ndarray", OBJECTS),
        ("uint8", (24,), "numpy.ndarray", pickle.dumps(ONES)),
        ("uint8", (24,), "numpy.ndarray", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535),
        ("uint8", (24,), "numpy.ndarray", b"\x93NUMPY\x02\x00" + DATA[8:]),
    ],
)
def test_an_array_that_is_not_flat_npy_bytes_of_its_declared_length_is_refused(dtype, shape, stype, data):
    with pytest.raises(ProtocolError, match="cannot be read"):
        unpack_tensors(parcel_of(Array(dtype, shape, stype, data)))


def headed(header):
    text = header.encode().ljust(118)
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + ONES.tobytes()


@pytest.mark.parametrize(
    "header",
    [
        "(((",
        "'''",
        "{[]: 1}",
        "{'descr': (), 'fortran_order': False, 'shape': (24,)}",
        "{'descr': ('|u1',), 'fortran_order': False, 'shape': (24,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (24,), 3: 1}",
    ],
)
def test_a_header_that_makes_numpys_parser_stumble_is_refused(header):
    with pytest.raises(ProtocolError, match="cannot be read"):
        unpack_tensors(parcel_of(Array("uint8", (24,), "numpy.ndarray", headed(header))))


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[",
        "{}",
        '[["a"]]',
        '[["a",[6]]]',
        '[["a",6,"f4",0]]',
        '[["a",["6"],"f4",0]]',
        '[["a",[6.5],"f4",0]]',
        '[["a",[-6],"f4",0]]',
        '[["a",[-2,-3],"f4",0]]',
        '[[1,[6],"f4",0]]',
        '[["a",[5],"f4",0]]',
        '[["a",[7],"f4",0]]',
        '[["a",[6],"f8",0]]',
        '[["a",[6],"f4",1]]',
        '[["a",[6],"f4",-1]]',
        '[["a",[6],"f4",0,0]]',
        '[["a",[24],"i1",0]]',
        '[["a",[20],"i1",1]]',
        '[["a",[16],"s1",0]]',
        '[["a",[16],"s1",17]]',
        '[["a",[3],"f4",0],["a",[3],"f4",0]]',
        '[["a",[6],"f4",0],["b",[0],"f2",0]]',
        '[["a",[6],"f4",0],["b",[0,3],"i1",0]]',
        '[["a",[6],"f4",0],["b",[0,9999999999999999999999],"f4",0]]',
        '[["a",[6],"f4",0],["b",[0,4611686018427387904,4611686018427387904],"f4",0]]',
        f'[["a",[6{",1" * 80}],"f4",0]]',
        f'[["a",[6{",1" * 8}],"f4",0]]',
        f'[["{"a" * 201}",[6],"f4",0]]',
        f'[["a",[6],"f4",{DIGITS}]]',
        f'[["a",[6,0,{DIGITS}],"f4",0]]',
        f'[["a",[{DIGITS},{DIGITS}],"f4",0]]',
        f'[["a",[{",".join(["536870912"] * 8)}],"f4",0]]',
        f'[["a",[{",".join([DIGITS] * 300)}],"f4",0]]',
        f'[["a",[{"2," * 200_000}2],"f4",0]]',
        f"[{','.join(['1'] * 500_000)}]",
        f'[["a",[6],"f4",0]]{" " * 2**20}',
    ],
)
def test_an_index_that_does_not_fit_its_array_is_refused(index):
    begin = time.process_time()
    with pytest.raises(ProtocolError, match="cannot be read") as caught:
        unpack_tensors(parcel_of(GOOD, index))
    assert len(caught.value.explain()) < 500
    assert time.process_time() - begin < 1


def test_a_name_that_is_not_printable_stands_in_no_error():
    body = np.full(6, np.inf, np.float16).view(np.uint8)
    array = Array("uint8", body.shape, "numpy.ndarray", npy(body))
    with pytest.raises(ProtocolError, match="not finite") as caught:
        unpack_tensors(Parcel(ArrayRecord({TENSORS: array}), json.dumps([["\x1b[2J", [6], "f2", 0]])))
    assert "\x1b" not in caught.value.explain()


def test_a_request_brings_a_model_in_full_or_half_precision_alone():
    """What stands for 32 times its bytes is a change, and changes travel up."""
    tensors = {"fusion.0": np.ones((64, 64), np.float32)}
    for precision in (Precision("i1"), Precision("i1", top_k=0.01)):
        content = written(pack_tensors(tensors, precision_of=lambda _, p=precision: p))
        for read in (read_request, lambda content: check_size(content, values=2**20)):
            with pytest.raises(ProtocolError, match="cannot be read"):
                read(content)
    for precision in (Precision(), Precision("f2")):
        assert list(read_request(written(pack_tensors(tensors, precision_of=lambda _, p=precision: p)))[1]) == ["fusion.0"]


def written(parcel):
    """Return a request with a parcel, named as its tensors are."""
    return write_request(REQUEST, replace(parcel, digest=hash_tensors(unpack_tensors(parcel))))


def test_the_size_of_a_request_is_judged_by_its_index_alone(monkeypatch):
    content = written(pack_tensors({"fusion.0": np.ones((3, 4), np.float32), "fusion.1": np.ones((), np.float32)}))
    monkeypatch.setattr("strategies.codec.decode", lambda *_: pytest.fail("a tensor was unpacked"))
    assert read_task(content) == REQUEST
    check_size(content, values=13)
    with pytest.raises(ProtocolError, match="cannot be read"):
        check_size(content, values=12)
    check_size(write_request(REQUEST), values=0)
    for index in (["[]"], 3, b"[]"):
        content[TASK][INDEX] = index
        with pytest.raises(ProtocolError, match="cannot be read"):
            check_size(content, values=13)


def test_other_arrays_than_the_one_are_refused():
    with pytest.raises(ProtocolError):
        unpack_tensors(parcel_of(GOOD, name="more"))
    with pytest.raises(ProtocolError):
        unpack_tensors(Parcel(ArrayRecord({TENSORS: GOOD, "more": GOOD}), '[["a",[6],"f4",0]]'))


def test_tensors_without_an_index_are_refused():
    content = write_request(REQUEST, pack_tensors({"fusion.0": np.ones(2, np.float32)}))
    del content[TASK][INDEX]
    with pytest.raises(ProtocolError):
        read_request(content)


def test_tensors_that_are_not_those_of_their_digest_are_refused():
    content = write_request(REQUEST, pack_tensors({"fusion.0": np.ones(2, np.float32)}))
    other = write_request(REQUEST, pack_tensors({"fusion.0": np.zeros(2, np.float32)}))
    for digest in (other[TASK][DIGEST], "", "0" * 64):
        content[TASK][DIGEST] = digest
        with pytest.raises(ProtocolError, match="not those it names"):
            read_request(content)
    for digest in ("short", "x" * 64, "\x1b[2J" * 16):
        content[TASK][DIGEST] = digest
        with pytest.raises(ProtocolError, match="digest is none"):
            read_request(content)


def test_a_request_may_name_tensors_without_bringing_them():
    named = hash_tensors({"fusion.0": np.ones(2, np.float32)})
    content = write_request(REQUEST, digest=named)
    assert read_request(content) == (REQUEST, {})
    assert read_digest(content) == named
    assert read_digest(write_request(REQUEST)) == ""


def test_only_float32_is_sent():
    with pytest.raises(ProtocolError, match="float64"):
        pack_tensors({"fusion.0": np.ones(3)})


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({REPORT: ConfigRecord({DOCUMENT: REQUEST.model_dump_json()})}),
        RecordDict({TASK: ConfigRecord()}),
        RecordDict({TASK: ConfigRecord({DOCUMENT: b"{}"})}),
        RecordDict({TASK: ConfigRecord({DOCUMENT: "[1]"})}),
        RecordDict({TASK: ConfigRecord({DOCUMENT: "{"})}),
        RecordDict({TASK: ConfigRecord({DOCUMENT: '{"a":' * 10_000})}),
        RecordDict({TASK: MetricRecord({DOCUMENT: 1.0})}),
        RecordDict({TASK: ConfigRecord({DOCUMENT: REQUEST.model_dump_json()}), "more": ConfigRecord()}),
        RecordDict({TASK: ConfigRecord({DOCUMENT: REQUEST.model_dump_json()}), ARRAYS: ConfigRecord()}),
        RecordDict({TASK: ConfigRecord({DOCUMENT: REQUEST.model_dump_json().replace('"seed"', '"sead"')})}),
    ],
)
def test_a_content_that_is_not_one_request_is_refused(content):
    with pytest.raises(ProtocolError) as caught:
        read_request(content)
    assert caught.value.code is ReasonCode.PROTOCOL


def test_another_protocol_version_is_named_before_its_unknown_keys():
    text = '{"protocol": 99, "something": "new"}'
    with pytest.raises(ProtocolError) as caught:
        read_report(RecordDict({REPORT: ConfigRecord({DOCUMENT: text})}))
    assert caught.value.code is ReasonCode.PROTOCOL_VERSION


def test_another_version_of_the_network_is_named_as_such():
    text = REQUEST.model_dump_json().replace('"model":{"version":1', '"model":{"version":2')
    with pytest.raises(ProtocolError) as caught:
        read_request(RecordDict({TASK: ConfigRecord({DOCUMENT: text})}))
    assert caught.value.code is ReasonCode.MODEL_DEFINITION


def test_a_report_with_nan_is_refused():
    text = SITE_REPORT.model_dump_json().replace('"losses":{}', '"losses":{"idh":NaN}')
    assert "NaN" in text
    with pytest.raises(ProtocolError):
        read_report(RecordDict({REPORT: ConfigRecord({DOCUMENT: text})}))


@pytest.mark.parametrize(
    "text",
    [
        f'{{"protocol": {PROTOCOL_VERSION}, "site": ["Jane Doe"]}}',
        '{"protocol": "Jane Doe"}',
        f'{{"protocol": {PROTOCOL_VERSION}, "model": {{"version": "Jane Doe"}}}}',
    ],
)
def test_a_refused_document_is_not_quoted(text):
    with pytest.raises(ProtocolError) as caught:
        read_report(RecordDict({REPORT: ConfigRecord({DOCUMENT: text})}))
    assert "Jane" not in str(caught.value)


def test_size_counts_tensors_and_documents():
    parcel = pack_tensors({"fusion.0": np.ones(1000, np.float32)})
    bare = size_bytes(write_report(SITE_REPORT))
    assert bare == len(DOCUMENT) + len(SITE_REPORT.model_dump_json())
    extra = len(INDEX) + len('[["fusion.0",[1000],"f4",0]]') + len(TENSORS) + 128 + 4000
    assert size_bytes(write_report(SITE_REPORT, parcel)) == bare + extra
