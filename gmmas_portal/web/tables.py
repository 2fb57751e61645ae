"""The tables of portal.db, and opening them.

accounts   name, role, Argon2id hash of the password (empty until one is set); a patient's account names the patient's pseudonym
sessions   SHA-256 of the cookie's value, of an account, with the secret of the forms
tickets    SHA-256 of a link that signs in once
cases      one imaging time point: pseudonym, sequences, what a clinician entered
versions   each outline with the record that was measured on it; never changed
reports    a record as it was signed: both versions of the text, who signed, released, withdrew
jobs       what the worker is to do, does, and did
audit      who did what, in a chain of hashes (gmmas_portal.web.audit); the table refuses to be changed
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gmmas_runtime.sqlite_tables import has_tables, make_tables
from gmmas_schema.errors import ConfigError

APPLICATION_ID: Final = 0x474D4D50
"""Says in the file's header that these are the tables of this platform ("GMMP")."""
VERSION: Final = 1
_PATIENCE_S: Final = 20.0

TABLES: Final = f"""
CREATE TABLE accounts (
    name     TEXT PRIMARY KEY,
    role     TEXT NOT NULL,
    patient  TEXT,
    password TEXT NOT NULL DEFAULT '',
    created  REAL NOT NULL
);
CREATE TABLE sessions (
    digest  TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    csrf    TEXT NOT NULL,
    created REAL NOT NULL,
    used    REAL NOT NULL
);
CREATE TABLE tickets (
    digest  TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    ends    REAL NOT NULL
);
CREATE TABLE cases (
    key        TEXT PRIMARY KEY,
    name       TEXT NOT NULL DEFAULT '',
    patient    TEXT NOT NULL DEFAULT '',
    scanned_on TEXT NOT NULL DEFAULT '',
    created    REAL NOT NULL,
    created_by TEXT NOT NULL,
    sample     INTEGER NOT NULL DEFAULT 0,
    images     TEXT NOT NULL DEFAULT '{{}}',
    context    TEXT NOT NULL DEFAULT '{{}}'
);
CREATE TABLE versions (
    case_key TEXT NOT NULL REFERENCES cases (key),
    version  INTEGER NOT NULL,
    author   TEXT NOT NULL,
    reason   TEXT NOT NULL,
    made     REAL NOT NULL,
    record   TEXT NOT NULL CHECK (json_valid(record)),
    PRIMARY KEY (case_key, version)
);
CREATE TABLE reports (
    id           TEXT PRIMARY KEY,
    case_key     TEXT NOT NULL REFERENCES cases (key),
    version      INTEGER NOT NULL,
    signed_by    TEXT NOT NULL,
    signed       REAL NOT NULL,
    comment      TEXT NOT NULL,
    digest       TEXT NOT NULL,
    clinician    TEXT NOT NULL CHECK (json_valid(clinician)),
    patient      TEXT NOT NULL CHECK (json_valid(patient)),
    released_by  TEXT,
    released     REAL,
    withdrawn_by TEXT,
    withdrawn    REAL,
    withdrawal   TEXT NOT NULL DEFAULT ''
);
CREATE TABLE jobs (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT NOT NULL,
    subject  TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    detail   TEXT NOT NULL DEFAULT '{{}}',
    state    TEXT NOT NULL DEFAULT 'queued',
    step     TEXT NOT NULL DEFAULT '',
    done     INTEGER NOT NULL DEFAULT 0,
    total    INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    fault    TEXT NOT NULL DEFAULT '{{}}',
    created  REAL NOT NULL,
    started  REAL,
    ended    REAL
);
CREATE INDEX jobs_by_subject ON jobs (subject, id);
CREATE TABLE audit (
    n        INTEGER PRIMARY KEY,
    line     TEXT NOT NULL CHECK (json_valid(line)),
    sha256   TEXT NOT NULL
);
CREATE TRIGGER audit_refuse_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_refuse_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_refuse_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE n = NEW.n)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER versions_refuse_update BEFORE UPDATE ON versions
BEGIN SELECT RAISE(ABORT, 'versions are kept as they were made'); END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - no foreign text


class Database:
    """The file portal.db; every call opens it anew, so that processes and threads may share it.

    Args:
        path: the file; made with rights 0600 at the first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_made = False

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction, which is kept if all goes well.

        Raises:
            ConfigError: the file holds something else.
        """
        with self._connected() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection that sees one state of everything, whoever writes meanwhile."""
        with self._connected() as database:
            database.execute("BEGIN")
            yield database
            database.execute("ROLLBACK")

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self._is_made:
            self._make()
        database = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
        try:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA foreign_keys = ON")
            database.execute("PRAGMA secure_delete = ON").fetchall()  # else what was deleted stays in the file, and in every copy of it
            yield database
        finally:
            database.close()

    def _make(self) -> None:
        self.path.touch(mode=0o600)
        database = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
        try:
            # Readers, the web server and the worker do not wait for one another (https://sqlite.org/wal.html).
            database.execute("PRAGMA journal_mode = WAL").fetchall()
            database.execute("BEGIN IMMEDIATE")
            if not has_tables(database, application_id=APPLICATION_ID, version=VERSION, refuse=lambda got: _unreadable(self.path, got)):
                make_tables(database, TABLES)
            database.execute("COMMIT")
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise _unreadable(self.path, str(error)) from error
        finally:
            database.close()
        self._is_made = True


def _unreadable(path: Path, got: str) -> ConfigError:
    return ConfigError(
        "the platform's database cannot be read",
        where=path,
        got=got,
        expected=f"tables of version {VERSION}",
        remedy="restore the file from a copy, or use the version of gmmas-fed that wrote it",
    )
