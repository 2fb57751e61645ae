"""One line of a hospital's record (client.audit_log): what it says, how it is written, and whether the node has signed it.

    line = canonical JSON of {entry, n, time, previous = SHA-256 of the line before, signature = ECDSA P-384 of all this}

No line holds anything of a patient: a failed task leaves its reason code, texts are those of a policy or of the hospital's operators.
"""

import base64
import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, ValidationError

from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ReasonCode
from gmmas_schema.printable import printable

NO_LINE: Final = "0" * 64
"""What stands for the hash of the line before the first."""


class AuditKind(StrEnum):
    """What a line is about."""

    STARTED = "started"
    DESCRIBE = "query"
    TRAIN = "train"
    EVALUATE = "evaluate"
    SECURE = "secure"
    PAUSED = "paused"
    RESUMED = "resumed"
    OVERRIDE = "override"
    RECOVERED = "recovered"
    RENEWED = "renewed"


class AuditOutcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"


class AuditEntry(FrozenModel):
    """What a line says.

    Attributes:
        run: of the request, as the coordinator names it.
        round: of the request.
        phase: of a secure round, 1 to 4.
        request: SHA-256 over the request's document and tensors.
        verdict: `allowed`, `overridden`, or the reason code for which the policy refused.
        withheld: parts of the answer that the policy left out.
        outcome: of a request.
        code: reason code that left, where no answer did.
        answer: SHA-256 over the answer's document and tensors.
        bytes_out: of the answer as it left the trainer, before packing.
        reason: a policy's or an operator's words; they stay here.
        by: the operator.
        detail: software and policy of a start, the hash of a torn line, the head of an older log.
    """

    kind: AuditKind
    run: str = Field(default="", max_length=128)
    round: int | None = None
    phase: int | None = None
    request: str = ""
    verdict: str = ""
    withheld: tuple[str, ...] = ()
    outcome: AuditOutcome | None = None
    code: ReasonCode | None = None
    answer: str = ""
    bytes_out: int = Field(default=0, ge=0)
    reason: str = Field(default="", max_length=400)
    by: str = Field(default="", max_length=64)
    detail: dict[str, str] = Field(default_factory=dict)


class AuditLine(AuditEntry):
    """An entry in its place in the chain."""

    n: int = Field(ge=1)
    time: datetime
    previous: str
    signature: str

    def signed_part(self) -> bytes:
        """Return what the signature is of."""
        return _canonical(self.model_dump(mode="json", exclude={"signature"}))

    def encode(self) -> bytes:
        """Return the line, without its end."""
        return _canonical(self.model_dump(mode="json"))


class Tail(FrozenModel):
    """Where the chain ends: number and hash of its last line."""

    n: int = 0
    sha256: str = NO_LINE


def parse_line(raw: bytes) -> AuditLine | None:
    """Return a line, None for bytes that are none as this software writes them."""
    try:
        line = AuditLine.model_validate_json(raw)
    except (ValidationError, ValueError):
        return None
    return line if line.encode() == raw else None


def is_signed(line: AuditLine, key: ec.EllipticCurvePublicKey) -> bool:
    """Tell whether a line was signed with the private half of a key."""
    try:
        signature = base64.b64decode(line.signature, validate=True)
        key.verify(signature, line.signed_part(), ec.ECDSA(hashes.SHA384()))
    except Exception:  # whatever a damaged signature does to the decoders, it is none
        return False
    return base64.b64encode(signature).decode() == line.signature


def hash_parts(document: bytes, tensors: bytes) -> str:
    """Return the SHA-256 hex digest of a document's own digest and of the bytes that come with it."""
    return hashlib.sha256(hashlib.sha256(document).digest() + tensors).hexdigest()


def quotable(text: str) -> str:
    """Return a name that came from outside as it may stand in a line."""
    return printable(text)[:128]


def digest_of(raw: bytes) -> str:
    """Return the SHA-256 hex digest of a line."""
    return hashlib.sha256(raw).hexdigest()


def _canonical(values: dict[str, Any]) -> bytes:
    """Return values as one line of JSON, without those that say nothing."""
    told = {key: value for key, value in values.items() if value not in ("", None, [], {}) and (key, value) != ("bytes_out", 0)}
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
