"""Reading an audit log again (client.audit_log): is it whole, and if not, where is the first bad line?

Lines are walked from the first: each must be as this software writes it, have the next number, name the hash of the line before, and be
signed with the node's key. In the end the signed head must name a line of the chain: lines behind it are those of a power cut between a
line and its head; a head without its line means that the end was cut off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from client.audit_line import NO_LINE, AuditKind, AuditLine, Tail, digest_of, is_signed, parse_line
from client.audit_log import HEAD, segments, split_lines
from gmmas_runtime.signed_record import read_signed_record
from gmmas_schema.errors import TrustError


@dataclass(frozen=True)
class AuditVerdict:
    """What a verification found.

    Attributes:
        lines: good lines before the first fault.
        head: hash of the last good line.
        fault: what is wrong; empty for a log that is whole.
        where: the first bad line, as `file, line n of it`.
        torn: lines that a power cut left unfinished, which is no fault.
    """

    lines: int
    head: str = NO_LINE
    fault: str = ""
    where: str = ""
    torn: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed, moved or taken away."""
        return not self.fault


@dataclass(frozen=True)
class _Raw:
    """A line as it stands in a file; `place` counts from 1."""

    text: bytes
    path: Path
    place: int

    def __str__(self) -> str:
        return f"{self.path.name}, line {self.place}"


def verify_log(folder: Path, key: ec.EllipticCurvePublicKey) -> AuditVerdict:
    """Verify a whole log.

    Args:
        folder: of the log, all its files in it.
        key: the node's public key.

    Raises:
        OSError: a file cannot be read.
    """
    raws = [raw for path in segments(folder) for raw in _raw_lines(path)]
    head, head_fault = _read_head(folder, key)
    digests, torn, place = [NO_LINE], 0, 0
    while place < len(raws):
        fault = _fault_of(parse_line(raws[place].text), n=len(digests), previous=digests[-1], key=key)
        if fault:
            # What the head names was whole once, so that no power cut has torn it.
            unfinished = head is not None and head.n < len(digests)
            length = _torn_length(raws[place:], n=len(digests), previous=digests[-1], key=key, unfinished=unfinished)
            if not length:
                return AuditVerdict(len(digests) - 1, digests[-1], fault, str(raws[place]), torn)
            torn, place = torn + 1, place + length
            continue
        digests.append(digest_of(raws[place].text))
        place += 1
    lines, last = len(digests) - 1, digests[-1]
    if head is None:
        return AuditVerdict(lines, last, head_fault, HEAD, torn)
    if head.n > lines:
        return AuditVerdict(lines, last, f"lines {lines + 1} to {head.n} were cut off", f"behind line {lines}", torn)
    if digests[head.n] != head.sha256:
        return AuditVerdict(lines, last, f"line {head.n} is not the one that the signed head names", f"line {head.n}", torn)
    return AuditVerdict(lines, last, torn=torn)


def read_lines(folder: Path) -> Iterator[AuditLine]:
    """Yield the lines of a log that can be read, unverified."""
    for path in segments(folder):
        for raw in _raw_lines(path):
            line = parse_line(raw.text)
            if line is not None:
                yield line


def _raw_lines(path: Path) -> list[_Raw]:
    return [_Raw(text, path, place) for place, text in enumerate(split_lines(path.read_bytes()), start=1)]


def _fault_of(line: AuditLine | None, *, n: int, previous: str, key: ec.EllipticCurvePublicKey) -> str:
    """Return what is wrong with a line that should be the n-th; empty if nothing is."""
    if line is None:
        return "the line is not one that this software writes"
    if not is_signed(line, key):
        return "the line was changed, or was signed with another key"
    if line.n != n:
        return f"line {n} is missing; in its place stands line {line.n}"
    if line.previous != previous:
        return "the line before was exchanged"
    return ""


def _torn_length(raws: list[_Raw], *, n: int, previous: str, key: ec.EllipticCurvePublicKey, unfinished: bool) -> int:
    """Return how many of these lines are what a power cut left; 0 for none.

    A signed line behind them tells it. Where nobody has written since, `unfinished` does: the head names no line from here on.
    """
    for length in range(len(raws)):
        line = parse_line(raws[length].text)
        if line is not None and is_signed(line, key):
            torn = b"\n".join(raw.text for raw in raws[:length])
            told = line.kind is AuditKind.RECOVERED and line.detail.get("torn") == digest_of(torn)
            return length if told and not _fault_of(line, n=n, previous=previous, key=key) else 0
    return len(raws) if unfinished else 0


def _read_head(folder: Path, key: ec.EllipticCurvePublicKey) -> tuple[Tail | None, str]:
    """Return the signed head, or None and why there is none; before the first line there is none to be."""
    if not (folder / HEAD).exists():
        lines = sum(len(_raw_lines(path)) for path in segments(folder))
        # The first line reaches the disk before the first head does.
        return (Tail(), "") if lines <= 1 else (None, "the signed head is missing")
    try:
        return Tail.model_validate(read_signed_record(folder / HEAD, key)), ""
    except TrustError as error:
        return None, f"the signed head is not to be trusted: {error.got}"
    except ValidationError:
        return None, "the signed head is none"
