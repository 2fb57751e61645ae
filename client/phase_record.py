"""The phases of a secure round in the audit log: what the executor answers without the trainer.

After training an update leaves masked, in the answer of phase 2. That answer, and every other of the round, is a line as those of the
trainer are, and leaves after its line is on the disk.
"""

from collections.abc import Callable

from flwr.app import RecordDict

from client.audit_line import AuditEntry, AuditKind, AuditOutcome, hash_parts, quotable
from client.audit_log import AuditLog
from gmmas_schema.errors import GmmasError, ReasonCode
from strategies.secure_letters import read_phase_reply, read_phase_request


def record_phase(content: RecordDict, answer: Callable[[RecordDict], RecordDict], log: AuditLog | None) -> RecordDict:
    """Return the answer to a phase's message, once its line is written.

    Args:
        content: of the message.
        answer: answers it.
        log: of the node; None where the process has no key, which takes no part in secure rounds anyway.

    Raises:
        GmmasError: as `answer`; or code AUDIT_LOG, the line cannot be written.
    """
    try:
        answered = answer(content)
    except Exception as error:
        if log is not None:
            code = error.code if isinstance(error, GmmasError) else ReasonCode.TRAINER
            log.append(_entry(content).model_copy(update={"outcome": AuditOutcome.REFUSED, "code": code}))
        raise
    if log is not None:
        document, payload = read_phase_reply(answered)
        told = document.model_dump_json().encode()
        # Of the attempt as the site keeps it, not in the coordinator's words.
        of = {"run": quotable(document.run), "round": document.round, "phase": document.phase}
        sent = {"answer": hash_parts(told, payload), "bytes_out": len(told) + len(payload), "outcome": AuditOutcome.ANSWERED}
        log.append(_entry(content).model_copy(update=of | sent))
    return answered


def _entry(content: RecordDict) -> AuditEntry:
    """Return what a line says of the message, as far as it can be read."""
    try:
        question, payload = read_phase_request(content)
    except GmmasError:
        return AuditEntry(kind=AuditKind.SECURE)
    return AuditEntry(
        kind=AuditKind.SECURE,
        run=quotable(question.run),
        round=question.round,
        phase=question.phase,
        request=hash_parts(question.model_dump_json().encode(), payload),
    )
