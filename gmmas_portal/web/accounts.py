"""Who may use the platform: accounts with a role, passwords, sessions, and links that sign in once.

    patient      reads the reports that were released to them, and nothing else
    clinician    cases, findings, corrections, reports
    site-admin   accounts, audit, the model's papers; no case

Passwords are kept as Argon2id hashes (RFC 9106) with argon2-cffi's parameters. Nobody sets another's password: whoever gets an account gets
a link that works once, and chooses a password there or goes without one until the next link. Cookies and links have 256 random bits and are
kept as plain hashes. A sign-in always makes a new session, so that one prepared by somebody else is worth nothing (session fixation).
"""

import hashlib
import re
import secrets
import sqlite3
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from gmmas_portal.web.tables import Database
from gmmas_schema.errors import ConfigError, TrustError

ACCOUNT_NAME: Final = r"[a-z0-9][a-z0-9.-]{0,30}"
MODEL_AUTHOR: Final = "model"
"""Author of outlines that no person drew, and so no account's name."""
PATIENT_CODE: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{1,39}"
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 128
TICKET_HOURS: Final = 72.0
_TOUCH_S: Final = 30.0


class Role(StrEnum):
    """What an account is for."""

    PATIENT = "patient"
    CLINICIAN = "clinician"
    ADMIN = "site-admin"


@dataclass(frozen=True)
class Account:
    """One account.

    Attributes:
        patient: pseudonym whose released reports it may read; empty for staff.
        has_password: whether one was set.
        created: seconds since 1970.
    """

    name: str
    role: Role
    patient: str
    has_password: bool
    created: float


@dataclass(frozen=True)
class Session:
    """An open session: whose it is, and the secret that its forms carry."""

    account: Account
    csrf: str


class AccountStore:
    """Accounts, sessions and tickets of the platform.

    Args:
        database: of the platform.
        hasher: of passwords.
    """

    def __init__(self, database: Database, *, hasher: PasswordHasher | None = None) -> None:
        self._database, self._hasher = database, hasher or PasswordHasher()
        self._one_at_a_time = threading.Lock()  # each hash takes 64 MiB and all cores
        self._dummy = ""

    def add(self, name: str, role: Role, *, patient: str = "") -> Account:
        """Add an account without a password.

        Raises:
            ConfigError: the name or the pseudonym is none, or a pseudonym is missing or too much.
            TrustError: the name is in use.
        """
        if not re.fullmatch(ACCOUNT_NAME, name) or name == MODEL_AUTHOR:
            raise _wrong("this is not an account's name", name, "up to 31 small letters, digits, dots and hyphens", "for example: a.meier")
        if (role is Role.PATIENT) != bool(patient) or (patient and not re.fullmatch(PATIENT_CODE, patient)):
            raise _wrong(
                "a patient's account names one patient, others none",
                patient or "no pseudonym",
                "the pseudonym under which the patient's cases are listed, for a patient only",
                "copy it from the list of cases",
            )
        with self._database.writing() as database:
            try:
                database.execute(
                    "INSERT INTO accounts (name, role, patient, created) VALUES (?, ?, ?, ?)", (name, role, patient or None, time.time())
                )
            except sqlite3.IntegrityError as error:
                raise TrustError(
                    "there is an account of this name",
                    got=f"a second '{name}'",
                    expected="a name of their own for everyone",
                    remedy="choose another name, or make a new link for the account that is there",
                ) from error
        return self.account(name)

    def remove(self, name: str) -> None:
        """Remove an account; its sessions and links end at once, what it did stays in the audit.

        Raises:
            TrustError: there is none of this name.
        """
        with self._database.writing() as database:
            if database.execute("DELETE FROM accounts WHERE name = ?", (name,)).rowcount == 0:
                raise _unknown(name)

    def accounts(self) -> tuple[Account, ...]:
        """Return all accounts by name."""
        with self._database.reading() as database:
            rows = database.execute("SELECT * FROM accounts ORDER BY name").fetchall()
        return tuple(_account(row) for row in rows)

    def account(self, name: str) -> Account:
        """Return an account.

        Raises:
            TrustError: there is none of this name.
        """
        with self._database.reading() as database:
            row = database.execute("SELECT * FROM accounts WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise _unknown(name)
        return _account(row)

    def set_password(self, name: str, password: str, *, keep: str = "") -> None:
        """Set a password; other sessions of the account end, and a link that is still out.

        Args:
            name: of the account.
            password: the new one.
            keep: cookie of the session that goes on.

        Raises:
            ConfigError: it is too short or too long.
            TrustError: there is no such account.
        """
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise _wrong(
                "this password cannot be taken",
                f"{len(password)} characters",
                f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, of any kind",
                "a sentence is easy to keep in mind",
            )
        with self._one_at_a_time:
            hashed = self._hasher.hash(password)
        with self._database.writing() as database:
            if database.execute("UPDATE accounts SET password = ? WHERE name = ?", (hashed, name)).rowcount == 0:
                raise _unknown(name)
            database.execute("DELETE FROM sessions WHERE account = ? AND digest <> ?", (name, _digest(keep)))
            database.execute("DELETE FROM tickets WHERE account = ?", (name,))

    def verify(self, name: str, password: str) -> Account | None:
        """Return the account whose password this is, or None; takes as long for a name that is not there."""
        with self._database.reading() as database:
            row = database.execute("SELECT * FROM accounts WHERE name = ?", (name,)).fetchone()
        with self._one_at_a_time:
            try:
                self._hasher.verify((row["password"] if row is not None else "") or self._dummy_hash(), password[:LONGEST_PASSWORD])
            except VerificationError:
                return None
        return None if row is None or not row["password"] else _account(row)

    def open_session(self, account: Account) -> str:
        """Return the value of the cookie of a new session."""
        value, now = secrets.token_urlsafe(32), time.time()
        with self._database.writing() as database:
            entry = (_digest(value), account.name, secrets.token_urlsafe(32), now, now)
            database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", entry)
        return value

    def session(self, value: str, *, longest_s: float, idle_s: float, used: bool = True) -> Session | None:
        """Return the session of a cookie, or None if there is none or it is over.

        Args:
            value: of the cookie.
            longest_s: seconds from the sign-in.
            idle_s: seconds from the last use.
            used: whether this is one.
        """
        digest, now = _digest(value), time.time()
        query = "SELECT accounts.*, csrf, used, sessions.created AS opened FROM sessions JOIN accounts ON name = account WHERE digest = ?"
        with self._database.reading() as database:
            row = database.execute(query, (digest,)).fetchone()
        if row is None:
            return None
        if row["opened"] < now - longest_s or row["used"] < now - idle_s:
            self.close_session(value)
            return None
        if used and now - row["used"] > min(_TOUCH_S, idle_s / 2):
            with self._database.writing() as database:
                database.execute("UPDATE sessions SET used = ? WHERE digest = ?", (now, digest))
        return Session(_account(row), row["csrf"])

    def close_session(self, value: str) -> None:
        """End a session."""
        with self._database.writing() as database:
            database.execute("DELETE FROM sessions WHERE digest = ?", (_digest(value),))

    def make_ticket(self, name: str, *, hours: float = TICKET_HOURS) -> str:
        """Return the secret of a link that signs an account in once; an earlier link of the account ends.

        Raises:
            TrustError: there is no such account.
        """
        value = secrets.token_urlsafe(32)
        with self._database.writing() as database:
            database.execute("DELETE FROM tickets WHERE account = ? OR ends < ?", (name, time.time()))
            try:
                database.execute("INSERT INTO tickets VALUES (?, ?, ?)", (_digest(value), name, time.time() + hours * 3600))
            except sqlite3.IntegrityError as error:
                raise _unknown(name) from error
        return value

    def look_at_ticket(self, value: str) -> Account | None:
        """Return whom a link signs in, without using it up; None where it is over."""
        query = "SELECT accounts.* FROM tickets JOIN accounts ON name = account WHERE digest = ? AND ends > ?"
        with self._database.reading() as database:
            row = database.execute(query, (_digest(value), time.time())).fetchone()
        return None if row is None else _account(row)

    def take_ticket(self, value: str) -> Account | None:
        """Use up a link and return whom it signs in; None where it is over."""
        account = self.look_at_ticket(value)
        with self._database.writing() as database:
            taken = database.execute("DELETE FROM tickets WHERE digest = ?", (_digest(value),)).rowcount
        return account if taken else None

    def _dummy_hash(self) -> str:
        """Return a hash that no password has, made once."""
        self._dummy = self._dummy or self._hasher.hash(secrets.token_urlsafe(32))
        return self._dummy


def _account(row: sqlite3.Row) -> Account:
    return Account(row["name"], Role(row["role"]), row["patient"] or "", bool(row["password"]), row["created"])


def _digest(value: str) -> str:
    """Return how a cookie's or a link's value is kept: it has 256 random bits, so a plain hash hides it."""
    return hashlib.sha256(value.encode()).hexdigest()


def _unknown(name: str) -> TrustError:
    return TrustError("there is no such account", got=name, expected="an account of this platform", remedy="see the list of accounts")


def _wrong(what: str, got: str, expected: str, remedy: str) -> ConfigError:
    return ConfigError(what, got=got, expected=expected, remedy=remedy)
