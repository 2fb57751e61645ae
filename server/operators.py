"""Who may use the coordinator's desk: operators with a role and a token each, their sessions, and the record of what they asked for.

    operators   name, role, scrypt hash of the token (RFC 7914; N = 2^14, r = 8, p = 1: 16 MiB, some 50 ms) with its own salt
    sessions    SHA-256 of the cookie's value, of an operator, with the secret of the forms; gone with the operator
    calls       who asked for what, and what came of it; the table refuses to be changed (guards against mistakes, not against whoever
                owns the file)

A token is `name.secret` with 256 random bits; it is shown once and kept as a hash alone. `coordinator` may do everything, `researcher`
may look. Whoever owns the coordinator's folder needs no token: the command line asks the file system.
"""

import hashlib
import os
import re
import secrets
import sqlite3
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from getpass import getuser
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from gmmas_schema.errors import ConfigError, TrustError
from gmmas_schema.printable import printable
from server.operator_tables import open_operators

OPERATOR_NAME: Final = r"[a-z0-9][a-z0-9-]{0,30}"
_SALT_BYTES: Final = 16
_TOUCH_S: Final = 30.0
"""A session notes its use so often at most."""


class Role(StrEnum):
    """What an operator may do: look, or everything."""

    RESEARCHER = "researcher"
    COORDINATOR = "coordinator"


class Way(StrEnum):
    """How somebody proved who they are."""

    TOKEN = "token"  # noqa: S105 - a word
    SESSION = "session"
    FILE_RIGHTS = "file rights"
    NONE = "none"


@dataclass(frozen=True)
class Operator:
    """One operator; `created` in seconds since 1970."""

    name: str
    role: Role
    created: float


@dataclass(frozen=True)
class Session:
    """An open session: whose it is, and the secret that its forms carry."""

    operator: Operator
    csrf: str


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        time: seconds since 1970.
        operator: None where nobody was known.
        way: how they proved it.
        client: address it came from.
        action: what was asked for.
        outcome: what came of it.
    """

    time: float
    operator: str | None
    role: str | None
    way: str
    client: str
    action: str
    outcome: str


class OperatorStore:
    """The file operators.db; every call opens it anew, so that processes and threads may share it.

    Args:
        path: the file; made with rights 0600 when first written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, role: Role) -> str:
        """Add an operator and return their token, which is kept nowhere.

        Raises:
            ConfigError: this is not a name.
            TrustError: the name is in use.
        """
        if not re.fullmatch(OPERATOR_NAME, name):
            raise ConfigError(
                "this is not an operator's name",
                where=self._path,
                got=name,
                expected="up to 31 small letters, digits and hyphens, beginning with a letter or digit",
                remedy="for example: anna, or night-desk",
            )
        secret, salt = secrets.token_urlsafe(32), secrets.token_bytes(_SALT_BYTES)
        with self._open() as database:
            try:
                database.execute("INSERT INTO operators VALUES (?, ?, ?, ?, ?)", (name, role, salt, _derive(secret, salt), time.time()))
            except sqlite3.IntegrityError as error:
                raise TrustError(
                    "there is an operator of this name",
                    where=self._path,
                    got=f"a second '{name}'",
                    expected="a name of their own for everyone",
                    remedy=f"to give them a new token, first run `gmmas server operator remove {name}`",
                ) from error
        return f"{name}.{secret}"

    def remove(self, name: str) -> None:
        """Remove an operator; their token and open sessions end at once, what they did stays on record.

        Raises:
            TrustError: there is none of this name.
        """
        with self._open() as database:
            if database.execute("DELETE FROM operators WHERE name = ?", (name,)).rowcount == 0:
                names = [row[0] for row in database.execute("SELECT name FROM operators ORDER BY name")]
                raise TrustError(
                    "there is no such operator",
                    where=self._path,
                    got=name,
                    expected=", ".join(names) or "an operator (there is none yet)",
                    remedy="see `gmmas server operator list`",
                )

    def operators(self) -> tuple[Operator, ...]:
        """Return all operators by name."""
        with self._open() as database:
            rows = database.execute("SELECT name, role, created FROM operators ORDER BY name").fetchall()
        return tuple(Operator(name, Role(role), created) for name, role, created in rows)

    def verify(self, token: str) -> Operator | None:
        """Return whose token this is, or None; takes as long for a name that is not there."""
        name, _, secret = token.partition(".")
        with self._open() as database:
            row = database.execute("SELECT role, salt, hash, created FROM operators WHERE name = ?", (name,)).fetchone()
        role, salt, expected, created = row or (Role.RESEARCHER, bytes(_SALT_BYTES), bytes(32), 0.0)
        try:
            _scrypt(salt).verify(secret.encode(), expected)
        except InvalidKey:
            return None
        return Operator(name, Role(role), created) if row else None

    def open_session(self, operator: Operator) -> str:
        """Return the value of the cookie of a new session."""
        value, now = secrets.token_urlsafe(32), time.time()
        with self._open() as database:
            database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", (_digest(value), operator.name, secrets.token_urlsafe(32), now, now)
            )
        return value

    def session(self, value: str, *, longest_s: float, idle_s: float, used: bool = True) -> Session | None:
        """Return the session of a cookie, or None if there is none or it is over.

        Args:
            value: of the cookie.
            longest_s: seconds from the login.
            idle_s: seconds from the last use.
            used: whether this is one.
        """
        digest, now = _digest(value), time.time()
        with self._open() as database:
            database.execute("DELETE FROM sessions WHERE created < ? OR used < ?", (now - longest_s, now - idle_s))
            query = "SELECT name, role, operators.created, csrf, used FROM sessions JOIN operators ON name = operator WHERE digest = ?"
            row = database.execute(query, (digest,)).fetchone()
            if row is None:
                return None
            name, role, created, csrf, before = row
            if used and now - before > min(_TOUCH_S, idle_s / 2):
                database.execute("UPDATE sessions SET used = ? WHERE digest = ?", (now, digest))
        return Session(Operator(name, Role(role), created), csrf)

    def close_session(self, value: str) -> None:
        """End a session."""
        with self._open() as database:
            database.execute("DELETE FROM sessions WHERE digest = ?", (_digest(value),))

    def note(self, action: str, outcome: str, *, operator: str | None, role: str | None, way: Way, client: str) -> None:
        """Append a call to the record; control characters and the end of long texts are left out."""
        clean = [printable(text)[:300] for text in (client, action, outcome)]
        with self._open() as database:
            columns = "time, operator, role, way, client, action, outcome"
            database.execute(f"INSERT INTO calls ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", (time.time(), operator, role, way, *clean))  # noqa: S608

    def calls(self, *, last: int = 200) -> tuple[Call, ...]:
        """Return the last calls, newest first."""
        with self._open() as database:
            query = "SELECT time, operator, role, way, client, action, outcome FROM calls ORDER BY id DESC LIMIT ?"
            return tuple(Call(*row) for row in database.execute(query, (last,)).fetchall())

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return open_operators(self._path)


def system_user() -> str:
    """Return the name by which the system knows whoever runs this process."""
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _scrypt(salt: bytes) -> Scrypt:
    return Scrypt(salt=salt, length=32, n=2**14, r=8, p=1)


def _derive(secret: str, salt: bytes) -> bytes:
    return _scrypt(salt).derive(secret.encode())


def _digest(value: str) -> str:
    """Return how a cookie's value is kept: it has 256 random bits, so a plain hash hides it."""
    return hashlib.sha256(value.encode()).hexdigest()
