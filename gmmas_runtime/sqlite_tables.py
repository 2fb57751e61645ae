"""Tables of a SQLite file that is known again by its header: made all at once, and told from those of something else."""

import sqlite3
from collections.abc import Callable


def has_tables(database: sqlite3.Connection, *, application_id: int, version: int, refuse: Callable[[str], Exception]) -> bool:
    """Return whether the tables are there.

    Args:
        database: an open connection.
        application_id: that the tables' script writes into the file's header (PRAGMA application_id).
        version: likewise (PRAGMA user_version).
        refuse: returns the error to raise for a file of something else, or of another version, from what it is.

    Raises:
        sqlite3.DatabaseError: the file is no database.
    """
    # The tables first: another process may be making them, and header and tables appear together.
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        return False
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if (application, found) != (application_id, version):
        raise refuse(f"version {found}" if application == application_id else "a database of something else")
    return True


def make_tables(database: sqlite3.Connection, script: str) -> None:
    """Run a script inside the transaction that is open; sqlite3's own executescript would commit in between."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            database.execute(statement)
            statement = ""
