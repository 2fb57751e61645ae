"""The platform's record: who did what to which case, with which model, on which input, to which output; a chain that only grows.

    sha256(n) = SHA-256 of canonical JSON {n, time, who, ..., previous = sha256(n - 1)}

A changed, removed or moved line breaks the chain from there on. Whoever owns the file could write another history as a whole, and nothing
inside the file can show that: note the head now and then (`gmmas portal audit`), outside of this machine.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import Field

from gmmas_portal.web.tables import Database
from gmmas_schema.base import FrozenModel
from gmmas_schema.printable import printable

NO_LINE: Final = "0" * 64
"""What stands for the hash of the line before the first."""
_LONGEST: Final = 400


class AuditLine(FrozenModel):
    """One line.

    Attributes:
        time: ISO 8601, UTC.
        who: account; empty where nobody was known.
        role: of the account.
        client: address the request came from; empty for the worker.
        action: what was asked for or done: `POST /cases/{key}/sign`, `analysed`.
        subject: case, report, account or upload it is about.
        outcome: what came of it.
        model, input, output: SHA-256 hex digests, as far as they apply.
        reason: that a person gave.
        previous: hash of the line before.
    """

    n: int = Field(ge=1)
    time: str
    who: str = ""
    role: str = ""
    client: str = ""
    action: str = ""
    subject: str = ""
    outcome: str = ""
    model: str = ""
    input: str = ""
    output: str = ""
    reason: str = ""
    previous: str

    def encode(self) -> bytes:
        """Return the line as it is hashed, without what says nothing."""
        told = {key: value for key, value in self.model_dump().items() if value != ""}
        return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@dataclass(frozen=True)
class ChainState:
    """What a look at the whole chain found.

    Attributes:
        lines: that are there.
        head: hash of the last one.
        broken_at: number of the first line that is not as it was written; None where all are.
    """

    lines: int
    head: str
    broken_at: int | None


class AuditTrail:
    """Appends lines and reads them.

    Args:
        database: of the platform.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, action: str, **told: str) -> AuditLine:
        """Append a line; control characters and the end of long texts are left out. Keywords are the fields of AuditLine."""
        fields = {key: _printable(value) for key, value in told.items()}
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._database.writing() as database:
            last = database.execute("SELECT n, sha256 FROM audit ORDER BY n DESC LIMIT 1").fetchone()
            n, previous = (last["n"] + 1, last["sha256"]) if last is not None else (1, NO_LINE)
            line = AuditLine(n=n, time=time, action=_printable(action), previous=previous, **fields)
            database.execute("INSERT INTO audit VALUES (?, ?, ?)", (n, line.encode().decode(), digest_of(line.encode())))
        return line

    def lines(self, *, last: int = 200, subject: str = "") -> tuple[AuditLine, ...]:
        """Return the last lines, newest first; of one subject where it is named."""
        query = "SELECT line FROM audit WHERE ? = '' OR json_extract(line, '$.subject') = ? ORDER BY n DESC LIMIT ?"
        with self._database.reading() as database:
            rows = database.execute(query, (subject, subject, last)).fetchall()
        return tuple(AuditLine.model_validate_json(row["line"]) for row in rows)

    def verify(self) -> ChainState:
        """Walk the whole chain."""
        previous, count, broken = NO_LINE, 0, None
        with self._database.reading() as database:
            for row in database.execute("SELECT n, line, sha256 FROM audit ORDER BY n"):
                count += 1
                if broken is None and not _follows(row["n"], row["line"], row["sha256"], count, previous):
                    broken = count
                previous = row["sha256"]
        return ChainState(count, previous, broken)


def digest_of(content: bytes | str | FrozenModel) -> str:
    """Return the SHA-256 hex digest of bytes, of a text, or of a record's canonical JSON."""
    if isinstance(content, FrozenModel):
        return content.digest()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _follows(n: int, text: str, sha256: str, expected_n: int, previous: str) -> bool:
    try:
        told: Any = json.loads(text)
        line = AuditLine.model_validate(told)
    except ValueError:
        return False
    return (n, line.n, line.previous) == (expected_n, expected_n, previous) and digest_of(line.encode()) == sha256


def _printable(text: str) -> str:
    return printable(text)[:_LONGEST]
