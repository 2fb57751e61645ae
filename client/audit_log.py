"""The hospital's record of what was asked of its node and what it answered: a chain of signed lines that only grows.

    <state>/audit-log/audit.jsonl             the newest lines
    <state>/audit-log/audit-000004711.jsonl   older ones, by the number of their first line
    <state>/audit-log/head.json               number and hash of the last line, signed (gmmas_runtime.signed_record)

Lines are those of client.audit_line. A changed one breaks its signature, a removed or moved one the numbers and hashes, a cut end the head
(client.audit_verification). Whoever has the node's key can write another history, and who removes the folder, or restores an old copy of
all of it, is not found here: note the head now and then (`gmmas site audit verify`). A line reaches the disk before the answer that it
tells of leaves.

A power cut may leave half a line behind the one that the head names. The next writer puts a signed line behind it that names its hash
(kind RECOVERED), so nothing is ever taken away, and a torn line is told from one that was cut: the answer of a torn line never left.
"""

import base64
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from client.audit_line import AuditEntry, AuditKind, AuditLine, AuditOutcome, Tail, digest_of, is_signed, parse_line
from gmmas_runtime.files import make_private_folder, sync_folder, write_atomic
from gmmas_runtime.signed_record import read_signed_record, sign_record
from gmmas_schema.errors import ReasonCode, TrustError

NEWEST: Final = "audit.jsonl"
HEAD: Final = "head.json"
SEGMENT_BYTES: Final = 4 * 2**20
"""A file that is as long gets a successor."""
LONGEST_LINE_BYTES: Final = 16 * 2**10


@dataclass(frozen=True)
class _End:
    """The end of the chain, the lines that a power cut has left behind it, and whether the last of them lacks its end."""

    tail: Tail
    torn: tuple[bytes, ...]
    is_open: bool


class AuditLog:
    """A node's log. Several processes may write to it; a lock keeps them apart.

    Args:
        folder: made with rights 0700.
        key: the node's private key.
        segment_bytes: length from which a file gets a successor.
    """

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder, self._key, self._segment_bytes = make_private_folder(folder), key, segment_bytes

    def append(self, entry: AuditEntry) -> AuditLine:
        """Write a line; it is on the disk when this returns.

        Raises:
            TrustError: code AUDIT_LOG, the end of the log is not as this node left it, or the disk does not take the line.
        """
        try:
            with self._held():
                return self._write(entry, self._mended())
        except OSError as error:
            raise _fault(
                "the audit log cannot be written",
                self._folder,
                f"{type(error).__name__}: {error.strerror or error}",
                "a disk with room that this user may write to",
            ) from error

    def tail(self) -> Tail:
        """Return where the chain ends.

        Raises:
            TrustError: code AUDIT_LOG, the end is not as this node left it.
        """
        with self._held():
            return self._end().tail

    def count_answered(self, kind: AuditKind, *, since: datetime) -> int:
        """Return how many requests of a kind were answered since a moment."""
        found = 0
        for path in reversed(segments(self._folder)):
            raws = path.read_bytes().split(b"\n")
            sign = f'"kind":"{kind.value}"'.encode()  # a file has thousands of lines, and to parse one takes longer than to look at it
            lines = [line for line in (parse_line(raw) for raw in raws if sign in raw) if line is not None]
            found += sum(line.kind is kind and line.outcome is AuditOutcome.ANSWERED and line.time >= since for line in lines)
            first = parse_line(raws[0])
            if first is not None and first.time < since:
                break
        return found

    @contextmanager
    def _held(self) -> Iterator[None]:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, entry: AuditEntry, tail: Tail) -> AuditLine:
        unsigned = AuditLine(**dict(entry), n=tail.n + 1, time=datetime.now(UTC).replace(microsecond=0), previous=tail.sha256, signature="")
        signature = base64.b64encode(self._key.sign(unsigned.signed_part(), ec.ECDSA(hashes.SHA384()))).decode()
        line = unsigned.model_copy(update={"signature": signature})
        self._turn_over(line.n)
        append_durably(self._folder / NEWEST, line.encode() + b"\n")
        self._write_head(Tail(n=line.n, sha256=digest_of(line.encode())))
        return line

    def _turn_over(self, n: int) -> None:
        """Give a long file its successor, whose first line goes on with the chain."""
        newest = self._folder / NEWEST
        if newest.exists() and newest.stat().st_size >= self._segment_bytes:
            # Its first whole line, for a power cut may have torn the first; the next line's number is that of the file that follows.
            whole = (line.n for raw in newest.read_bytes().split(b"\n") if (line := parse_line(raw)) is not None)
            newest.rename(self._folder / f"audit-{next(whole, n):09d}.jsonl")
            sync_folder(self._folder)

    def _write_head(self, tail: Tail) -> None:
        write_atomic(self._folder / HEAD, sign_record(tail.model_dump(mode="json"), self._key))

    def _mended(self) -> Tail:
        """Return where the chain ends; what a power cut has left behind it is told in a line of its own."""
        end = self._end()
        if end.is_open:
            append_durably(segments(self._folder)[-1], b"\n")
        if not end.torn:
            return end.tail
        line = self._write(AuditEntry(kind=AuditKind.RECOVERED, detail={"torn": digest_of(b"\n".join(end.torn))}), end.tail)
        return Tail(n=line.n, sha256=digest_of(line.encode()))

    def _end(self) -> "_End":
        """Return the end of the chain, held against the head: what is not there any more is no power cut's work."""
        end = self._last_line()
        head = self._head(lines=end.tail.n)
        if head.n > end.tail.n or (head.n == end.tail.n and head.sha256 != end.tail.sha256):
            raise _damaged(self._folder, f"its last whole line is {end.tail.n}, its signed head says {head.n}")
        return end

    def _last_line(self) -> "_End":
        paths = segments(self._folder)
        is_open = bool(paths) and not (read_end(paths[-1]) or b"\n").endswith(b"\n")
        behind: list[bytes] = []
        for path in reversed(paths):
            raws = split_lines(read_end(path))
            for place in reversed(range(len(raws))):
                line = parse_line(raws[place])
                if line is not None and is_signed(line, self._key.public_key()):
                    return _End(Tail(n=line.n, sha256=digest_of(raws[place])), (*raws[place + 1 :], *behind), is_open)
            behind = raws + behind
        return _End(Tail(), tuple(behind), is_open)

    def _head(self, *, lines: int) -> Tail:
        """Return what the head names; only the first line of all may have been written without one."""
        if not (self._folder / HEAD).exists():
            if lines > 1:
                raise _damaged(self._folder, "its signed head is missing")
            return Tail()
        try:
            return Tail.model_validate(read_signed_record(self._folder / HEAD, self._key.public_key()))
        except (TrustError, ValidationError) as error:
            raise _damaged(self._folder, "its head is not one that this node has signed") from error


def segments(folder: Path) -> list[Path]:
    """Return the files of a log, oldest first."""
    newest = folder / NEWEST
    return [*sorted(folder.glob("audit-*.jsonl")), *([newest] if newest.exists() else [])]


def read_end(path: Path) -> bytes:
    """Return the end of a file, long enough for its last whole line and a torn one."""
    with path.open("rb") as handle:
        handle.seek(max(0, handle.seek(0, os.SEEK_END) - 3 * LONGEST_LINE_BYTES))
        return handle.read()


def split_lines(text: bytes) -> list[bytes]:
    """Return the lines of a text without their ends; a last one may lack its end."""
    lines = text.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def append_durably(path: Path, data: bytes) -> None:
    """Add bytes to the end of a file of rights 0600; they are on the disk when this returns."""
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync_folder(path.parent)


def _damaged(folder: Path, got: str) -> TrustError:
    return _fault("the end of the audit log is not as this node left it", folder, got, "an unbroken chain of lines")


def _fault(what: str, where: Path, got: str, expected: str) -> TrustError:
    return TrustError(
        what,
        where=where,
        got=got,
        expected=expected,
        remedy="`gmmas site audit verify` names the first bad line; `gmmas site audit renew` puts this log aside and begins another",
        code=ReasonCode.AUDIT_LOG,
    )
