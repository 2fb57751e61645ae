import sqlite3

import pytest

from gmmas_runtime.sqlite_tables import has_tables, make_tables

SCRIPT = """
CREATE TABLE a (x INTEGER);
CREATE TRIGGER a_refuse BEFORE DELETE ON a
BEGIN SELECT RAISE(ABORT, 'kept; all of it'); END;
PRAGMA application_id = 7;
PRAGMA user_version = 2;
"""


def asks(database: sqlite3.Connection, *, application_id: int = 7, version: int = 2) -> bool:
    return has_tables(database, application_id=application_id, version=version, refuse=ValueError)


def test_tables_are_made_inside_the_open_transaction_and_known_again() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    assert not asks(database)
    database.execute("BEGIN")
    make_tables(database, SCRIPT)
    assert database.in_transaction
    database.execute("ROLLBACK")
    assert not asks(database)
    make_tables(database, SCRIPT)
    assert asks(database)


@pytest.mark.parametrize(("keys", "told"), [({"version": 3}, "version 2"), ({"application_id": 8}, "something else")])
def test_tables_of_something_else_are_refused(keys: dict[str, int], told: str) -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    make_tables(database, SCRIPT)
    with pytest.raises(ValueError, match=told):
        asks(database, **keys)
