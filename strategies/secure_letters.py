"""How phases 1 to 4 of secure aggregation travel: a document and the phase's bytes in one record, what is long in further ones.

Flower moves a record as one object by one request, and cuts arrays alone. A masked vector of the larger network has 34 MiB, more than the
body of a request may have (server.spooling), so a record holds PIECE_BYTES of it, as much as Flower's own pieces.
"""

from itertools import islice
from typing import Final, TypeVar

from flwr.app import ConfigRecord, RecordDict
from pydantic import BaseModel, ValidationError

from gmmas_schema.errors import ProtocolError
from gmmas_schema.messages import DOCUMENT, REPORT, TASK
from gmmas_schema.secure import PAYLOAD, PhaseReply, PhaseRequest
from strategies.foreign_documents import LONGEST_DOCUMENT, UPDATE, name_faults, shorten

PIECE_BYTES: Final = 5 * 2**20
DocumentT = TypeVar("DocumentT", bound=BaseModel)


def write_phase(document: PhaseRequest | PhaseReply, payload: bytes) -> RecordDict:
    """Return the content of a phase's message to a site, or of its reply."""
    name = TASK if isinstance(document, PhaseRequest) else REPORT
    content = RecordDict({name: ConfigRecord({DOCUMENT: document.model_dump_json(), PAYLOAD: payload[:PIECE_BYTES]})})
    for number, start in enumerate(range(PIECE_BYTES, len(payload), PIECE_BYTES), start=1):
        content[_further(number)] = ConfigRecord({PAYLOAD: payload[start : start + PIECE_BYTES]})
    return content


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
    records = [content.get(key) for key in (name, *(_further(number) for number in range(1, len(content))))]
    first, *rest = (dict(record) if isinstance(record, ConfigRecord) else {} for record in records)
    text = first.pop(DOCUMENT, None)
    pieces = [piece for fields in (first, *rest) if len(fields) == 1 and isinstance(piece := fields.get(PAYLOAD), bytes)]
    try:
        if isinstance(text, str) and len(text) <= LONGEST_DOCUMENT and len(pieces) == len(records):
            return kind.model_validate_json(text), b"".join(pieces)
        faults = ", ".join(islice(content, 5)) or "no records"
    except ValidationError as error:
        faults = name_faults(error)
    raise ProtocolError(
        "a message of secure aggregation cannot be read",
        got=shorten(faults),
        expected=f"{name} with a {kind.__name__} and its bytes",
        remedy=UPDATE,
    )


def _further(number: int) -> str:
    return f"{PAYLOAD}-{number}"
