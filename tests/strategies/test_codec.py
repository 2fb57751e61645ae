import io
import pickle

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
from gmmas_schema.messages import ARRAYS, DOCUMENT, REPORT, TASK, Action, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import Modality
from strategies.codec import (
    INDEX,
    TENSORS,
    Parcel,
    pack_tensors,
    read_description,
    read_report,
    read_request,
    size_bytes,
    unpack_tensors,
    write_report,
    write_request,
)

REQUEST = TaskRequest(action=Action.TRAIN, run="r", round=1, rounds=2, seed=3, model=ModelDefinition())
SITE_REPORT = SiteReport(site="north", run="r", round=1, model_digest="d")

any_float32 = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True),
)


@given(st.dictionaries(st.text(), any_float32, max_size=4))
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


def npy(value, **options):
    stream = io.BytesIO()
    np.save(stream, value, **options)
    return stream.getvalue()


def parcel_of(array, index='[["fusion.0",[2,3]]]', name=TENSORS):
    return Parcel(ArrayRecord({name: array}), index)


DATA = npy(np.ones(6, np.float32))
GOOD = Array("float32", (6,), "numpy.ndarray", DATA)
OBJECTS = npy(np.array([{"a": 1}] * 6, dtype=object), allow_pickle=True)


def test_the_good_parcel_of_the_next_tests_is_good():
    np.testing.assert_array_equal(unpack_tensors(parcel_of(GOOD))["fusion.0"], np.ones((2, 3)))


@pytest.mark.parametrize(
    ("dtype", "shape", "stype", "data"),
    [
        ("float64", (6,), "numpy.ndarray", npy(np.ones(6))),
        ("float32", (6,), "numpy.ndarray", npy(np.ones(6))),
        ("float32", (6,), "numpy.ndarray", npy(np.ones(6, ">f4"))),
        ("float32", (6,), "torch.Tensor", DATA),
        ("float32", (5,), "numpy.ndarray", DATA),
        ("float32", (2, 3), "numpy.ndarray", npy(np.ones((2, 3), np.float32))),
        ("float32", (2, 3), "numpy.ndarray", npy(np.asfortranarray(np.ones((2, 3), np.float32)))),
        ("float32", (6,), "numpy.ndarray", DATA[:-1]),
        ("float32", (6,), "numpy.ndarray", DATA[:-4]),
        ("float32", (6,), "numpy.ndarray", DATA + b"\0"),
        ("float32", (6,), "numpy.ndarray", DATA[:20]),
        ("float32", (6,), "numpy.ndarray", b""),
        ("float32", (6,), "numpy.ndarray", OBJECTS),
        ("float32", (6,), "numpy.ndarray", pickle.dumps(np.ones(6, np.float32))),
        ("float32", (6,), "numpy.ndarray", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535),
        ("float32", (6,), "numpy.ndarray", b"\x93NUMPY\x02\x00" + DATA[8:]),
    ],
)
def test_an_array_that_is_not_flat_float32_npy_of_its_declared_length_is_refused(dtype, shape, stype, data):
    with pytest.raises(ProtocolError, match="cannot be read"):
        unpack_tensors(parcel_of(Array(dtype, shape, stype, data)))


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[",
        "{}",
        '[["a"]]',
        '[["a",6]]',
        '[["a",["6"]]]',
        '[["a",[6.5]]]',
        '[["a",[-6]]]',
        '[["a",[-2,-3]]]',
        "[[1,[6]]]",
        '[["a",[5]]]',
        '[["a",[7]]]',
        '[["a",[3]],["a",[3]]]',
        '[["a",[6]],["b",[0,9999999999999999999999]]]',
        '[["a",[6]],["b",[0,4611686018427387904,4611686018427387904]]]',
        f'[["a",[6{",1" * 80}]]]',
    ],
)
def test_an_index_that_does_not_fit_its_array_is_refused(index):
    with pytest.raises(ProtocolError, match="cannot be read"):
        unpack_tensors(parcel_of(GOOD, index))


def test_other_arrays_than_the_one_are_refused():
    with pytest.raises(ProtocolError):
        unpack_tensors(parcel_of(GOOD, name="more"))
    with pytest.raises(ProtocolError):
        unpack_tensors(Parcel(ArrayRecord({TENSORS: GOOD, "more": GOOD}), '[["a",[6]]]'))


def test_tensors_without_an_index_are_refused():
    content = write_request(REQUEST, pack_tensors({"fusion.0": np.ones(2, np.float32)}))
    del content[TASK][INDEX]
    with pytest.raises(ProtocolError):
        read_request(content)


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
    text = '{"protocol": 2, "something": "new"}'
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


def test_a_refused_document_is_not_quoted():
    with pytest.raises(ProtocolError) as caught:
        read_report(RecordDict({REPORT: ConfigRecord({DOCUMENT: '{"protocol": 1, "site": ["Jane Doe"]}'})}))
    assert "Jane" not in str(caught.value)


def test_size_counts_tensors_and_documents():
    parcel = pack_tensors({"fusion.0": np.ones(1000, np.float32)})
    bare = size_bytes(write_report(SITE_REPORT))
    assert bare == len(DOCUMENT) + len(SITE_REPORT.model_dump_json())
    extra = len(INDEX) + len('[["fusion.0",[1000]]]') + len(TENSORS) + 128 + 4000
    assert size_bytes(write_report(SITE_REPORT, parcel)) == bare + extra
