"""The tables of operators.db (server.operators says what they hold), and opening them."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gmmas_runtime.sqlite_tables import has_tables, make_tables
from gmmas_schema.errors import ConfigError

APPLICATION_ID: Final = 0x474D4D4F
"""Says in the file's header that these are operators of this project ("GMMO")."""
VERSION: Final = 1
_PATIENCE_S: Final = 10.0

TABLES: Final = f"""
CREATE TABLE operators (
    name    TEXT PRIMARY KEY,
    role    TEXT NOT NULL,
    salt    BLOB NOT NULL,
    hash    BLOB NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE sessions (
    digest   TEXT PRIMARY KEY,
    operator TEXT NOT NULL REFERENCES operators (name) ON DELETE CASCADE,
    csrf     TEXT NOT NULL,
    created  REAL NOT NULL,
    used     REAL NOT NULL
);
CREATE TABLE calls (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    time     REAL NOT NULL,
    operator TEXT,
    role     TEXT,
    way      TEXT NOT NULL,
    client   TEXT NOT NULL,
    action   TEXT NOT NULL,
    outcome  TEXT NOT NULL
);
CREATE TRIGGER calls_refuse_update BEFORE UPDATE ON calls
BEGIN SELECT RAISE(ABORT, 'calls are append-only'); END;
CREATE TRIGGER calls_refuse_delete BEFORE DELETE ON calls
BEGIN SELECT RAISE(ABORT, 'calls are append-only'); END;
CREATE TRIGGER calls_refuse_replace BEFORE INSERT ON calls WHEN EXISTS (SELECT 1 FROM calls WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'calls are append-only'); END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - no foreign text


@contextmanager
def open_operators(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection in a transaction, which is kept if all goes well; the file is made with rights 0600.

    Raises:
        ConfigError: the file holds something else.
    """
    path.touch(mode=0o600)
    database = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
    try:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("BEGIN IMMEDIATE")
        if not has_tables(database, application_id=APPLICATION_ID, version=VERSION, refuse=lambda got: _unreadable(path, got)):
            make_tables(database, TABLES)
        yield database
        database.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError | sqlite3.IntegrityError):
            raise
        raise _unreadable(path, str(error)) from error
    finally:
        database.close()


def _unreadable(path: Path, got: str) -> ConfigError:
    return ConfigError(
        "the operators cannot be read",
        where=path,
        got=got,
        expected=f"operators of version {VERSION}",
        remedy="restore the file from a copy, or move it away and add the operators again",
    )
