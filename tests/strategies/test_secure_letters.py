import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gmmas_schema.errors import ProtocolError
from gmmas_schema.messages import DOCUMENT, REPORT, TASK
from gmmas_schema.secure import PAYLOAD, PhaseReply, PhaseRequest
from strategies.codec import size_bytes
from strategies.secure_letters import read_phase_reply, read_phase_request, write_phase

QUESTION = PhaseRequest(run="r", round=3, attempt="ab", phase=1, identities={"north": "ecdsa-sha2-nistp384 AAAA"})
ANSWER = PhaseReply(site="north", run="r", round=3, phase=1)


def test_there_and_back():
    assert read_phase_request(write_phase(QUESTION, b"\0\xff")) == (QUESTION, b"\0\xff")
    assert read_phase_reply(write_phase(ANSWER, b"")) == (ANSWER, b"")


def test_bytes_are_counted_as_bytes():
    empty, full = (size_bytes(write_phase(ANSWER, payload)) for payload in (b"", b"\xff" * 1000))
    assert full - empty == 1000


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
