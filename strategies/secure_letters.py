"""How phases 1 to 4 of secure aggregation travel: a document and the phase's bytes in one record."""

from typing import TypeVar

from flwr.app import ConfigRecord, RecordDict
from pydantic import BaseModel, ValidationError

from gmmas_schema.errors import ProtocolError
from gmmas_schema.messages import DOCUMENT, REPORT, TASK
from gmmas_schema.secure import PAYLOAD, PhaseReply, PhaseRequest

_DOCUMENT_LENGTH = 2**18
DocumentT = TypeVar("DocumentT", bound=BaseModel)


def write_phase(document: PhaseRequest | PhaseReply, payload: bytes) -> RecordDict:
    """Return the content of a phase's message to a site, or of its reply."""
    name = TASK if isinstance(document, PhaseRequest) else REPORT
    return RecordDict({name: ConfigRecord({DOCUMENT: document.model_dump_json(), PAYLOAD: payload})})


def read_phase_request(content: RecordDict) -> tuple[PhaseRequest, bytes]:
    """Return what a site is asked.

    Raises:
        ProtocolError: it is not a phase's request.
    """
    return _read(content, TASK, PhaseRequest)


def read_phase_reply(content: RecordDict) -> tuple[PhaseReply, bytes]:
    """Return what a site answered.

    Raises:
        ProtocolError: it is not a phase's reply.
    """
    return _read(content, REPORT, PhaseReply)


def _read(content: RecordDict, name: str, kind: type[DocumentT]) -> tuple[DocumentT, bytes]:
    record = content.get(name)
    fields = dict(record) if isinstance(record, ConfigRecord) and set(content) == {name} else {}
    text, payload = fields.get(DOCUMENT), fields.get(PAYLOAD)
    try:
        if isinstance(text, str) and len(text) <= _DOCUMENT_LENGTH and isinstance(payload, bytes) and len(fields) == 2:
            return kind.model_validate_json(text), payload
        faults = ", ".join(map(str, content)) or "no records"
    except ValidationError as error:
        faults = "; ".join(".".join(map(str, fault["loc"])) + ": " + fault["type"] for fault in error.errors()[:5])
    raise ProtocolError(
        "a message of secure aggregation cannot be read",
        got=f"{faults:.200}",
        expected=f"{name} with a {kind.__name__} and its bytes",
        remedy="run the same release of gmmas-fed on both sides",
    )
