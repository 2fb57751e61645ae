import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from gmmas_schema.errors import ProtocolError
from gmmas_schema.messages import DOCUMENT, REPORT, TASK
from gmmas_schema.secure import PAYLOAD, SECURE_MESSAGE, PhaseReply, PhaseRequest
from server.spooling import LARGEST_BODY_BYTES
from strategies.codec import size_bytes
from strategies.secure_letters import PIECE_BYTES, read_phase_reply, read_phase_request, write_phase

QUESTION = PhaseRequest(run="r", round=3, attempt="ab", phase=1, identities={"north": "ecdsa-sha2-nistp384 AAAA"})
ANSWER = PhaseReply(site="north", run="r", round=3, phase=1)


def test_there_and_back():
    assert read_phase_request(write_phase(QUESTION, b"\0\xff")) == (QUESTION, b"\0\xff")
    assert read_phase_reply(write_phase(ANSWER, b"")) == (ANSWER, b"")


def test_bytes_are_counted_as_bytes():
    empty, full = (size_bytes(write_phase(ANSWER, payload)) for payload in (b"", b"\xff" * 1000))
    assert full - empty == 1000


def test_a_masked_vector_of_the_larger_network_goes_through_in_requests_that_are_let_in():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    payload = bytes(range(251)) * (36 * 2**20 // 251)
    content = write_phase(ANSWER, payload)
    objects = get_all_nested_objects(Message(content, 2, SECURE_MESSAGE)).values()
    assert max(len(each.deflate()) for each in objects) < PIECE_BYTES + 1000 < LARGEST_BODY_BYTES
    assert read_phase_reply(content) == (ANSWER, payload)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({"\x1b[2J" * 1000: ConfigRecord({})}),
        RecordDict({REPORT: ConfigRecord({DOCUMENT: '{"\\u001b[2J": 1}', PAYLOAD: b""})}),
        RecordDict({REPORT: ConfigRecord({DOCUMENT: f'{{"{"k" * 200_000}": 1}}', PAYLOAD: b""})}),
    ],
)
def test_a_refused_message_is_quoted_in_one_short_printable_line(content):
    with pytest.raises(ProtocolError, match="cannot be read") as caught:
        read_phase_reply(content)
    assert len(caught.value.explain()) < 500
    assert all(line.isprintable() for line in caught.value.explain().split("\n"))


@pytest.mark.parametrize("length", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_pieces_are_as_many_as_are_needed(length):
    content = write_phase(ANSWER, bytes(length))
    assert len(content) == 1 + (length > PIECE_BYTES)
    assert read_phase_reply(content)[1] == bytes(length)


@pytest.mark.parametrize(
    "records",
    [
        {},
        {"payload-1": {PAYLOAD: b"x", DOCUMENT: ""}},
        {"payload-1": {PAYLOAD: 3}},
        {"payload-3": {PAYLOAD: b"x"}},
        {"arrays": {PAYLOAD: b"x"}},
    ],
)
def test_pieces_that_are_missing_or_foreign_are_refused(records):
    content = write_phase(ANSWER, bytes(2 * PIECE_BYTES + 1))
    del content["payload-1"]
    for name, fields in records.items():
        content[name] = ConfigRecord(fields)
    with pytest.raises(ProtocolError):
        read_phase_reply(content)


def spoil(**fields):
    return RecordDict({TASK: ConfigRecord({DOCUMENT: QUESTION.model_dump_json(), PAYLOAD: b""} | fields)})


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({}),
        write_phase(ANSWER, b""),
        RecordDict({**write_phase(QUESTION, b""), "arrays": ArrayRecord()}),
        spoil(**{PAYLOAD: "text"}),
        spoil(more=1),
        spoil(**{DOCUMENT: "{}"}),
        spoil(**{DOCUMENT: "no json"}),
        spoil(**{DOCUMENT: QUESTION.model_dump_json().replace('"phase":1', '"phase":5')}),
        spoil(**{DOCUMENT: QUESTION.model_dump_json()[:-1] + " " * 2**18 + "}"}),
        RecordDict({TASK: ConfigRecord({DOCUMENT: QUESTION.model_dump_json()})}),
    ],
)
def test_anything_else_is_refused(content):
    with pytest.raises(ProtocolError):
        read_phase_request(content)


def test_a_question_is_no_answer():
    with pytest.raises(ProtocolError, match=REPORT):
        read_phase_reply(write_phase(QUESTION, b""))
