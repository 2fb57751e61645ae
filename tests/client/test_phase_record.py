"""Phases of secure rounds in the audit log."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import RecordDict

from client.audit_line import AuditKind, AuditOutcome
from client.audit_log import AuditLog
from client.audit_verification import read_lines, verify_log
from client.phase_record import record_phase
from gmmas_schema.errors import ProtocolError, ReasonCode, TrustError
from gmmas_schema.secure import PhaseReply, PhaseRequest
from strategies.secure_letters import write_phase
from tests.client.sites import PATIENT

KEY = ec.generate_private_key(ec.SECP384R1())
QUESTION = write_phase(PhaseRequest(run="run-1", round=3, attempt="a" * 64, phase=2), b"boxes")
REPLY = write_phase(PhaseReply(site="north", run="run-1", round=3, phase=2), b"masked" * 100)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "log", KEY)


def test_an_answered_phase_is_a_line_before_it_leaves(log: AuditLog, tmp_path: Path) -> None:
    assert record_phase(QUESTION, lambda _: REPLY, log) is REPLY
    (line,) = read_lines(tmp_path / "log")
    assert (line.kind, line.run, line.round, line.phase) == (AuditKind.SECURE, "run-1", 3, 2)
    assert line.outcome is AuditOutcome.ANSWERED
    assert 600 < line.bytes_out < 800
    assert line.answer != line.request
    assert verify_log(tmp_path / "log", KEY.public_key()).is_whole


def test_the_line_of_an_answer_is_of_the_attempt_that_the_site_answered_for(log: AuditLog, tmp_path: Path) -> None:
    asked = write_phase(PhaseRequest(run="another run", round=1, attempt="a" * 64, phase=2), b"boxes")
    record_phase(asked, lambda _: REPLY, log)
    (line,) = read_lines(tmp_path / "log")
    assert (line.run, line.round, line.phase) == ("run-1", 3, 2)


def test_a_refused_phase_leaves_its_code_alone(log: AuditLog, tmp_path: Path) -> None:
    def refuse(_: RecordDict) -> RecordDict:
        raise ProtocolError(f"no such attempt, {PATIENT}")

    def fail(_: RecordDict) -> RecordDict:
        raise RuntimeError(PATIENT)

    for answer, error in ((refuse, ProtocolError), (fail, RuntimeError)):
        with pytest.raises(error):
            record_phase(QUESTION, answer, log)
    first, second = read_lines(tmp_path / "log")
    assert (first.outcome, first.code, first.phase) == (AuditOutcome.REFUSED, ReasonCode.PROTOCOL, 2)
    assert second.code is ReasonCode.TRAINER
    assert PATIENT not in "".join(path.read_text() for path in (tmp_path / "log").glob("*.jsonl"))


def test_what_is_no_phase_is_a_line_too(log: AuditLog, tmp_path: Path) -> None:
    def refuse(_: RecordDict) -> RecordDict:
        raise ProtocolError("no phase")

    with pytest.raises(ProtocolError):
        record_phase(RecordDict(), refuse, log)
    (line,) = read_lines(tmp_path / "log")
    assert (line.kind, line.phase, line.request) == (AuditKind.SECURE, None, "")


def test_nothing_leaves_that_cannot_be_recorded(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise TrustError("no room", code=ReasonCode.AUDIT_LOG)

    monkeypatch.setattr(AuditLog, "append", full)
    with pytest.raises(TrustError, match="no room"):
        record_phase(QUESTION, lambda _: REPLY, log)


def test_a_process_without_a_key_keeps_none() -> None:
    assert record_phase(QUESTION, lambda _: REPLY, None) is REPLY
